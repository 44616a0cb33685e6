"""`NamesrvConfig`: every key of a name server that trmq honours, with Apache 5.4.0's defaults (but bound to loopback)."""

from __future__ import annotations

import attrs

from . import fields as f


@attrs.frozen(kw_only=True)
class NamesrvConfig:
    bind_address: str = f.text("127.0.0.1", "address to listen on")
    listen_port: int = f.whole(9876, "port for clients and brokers; 0 takes a free one", 0, 65535)
    kv_config_path: str = f.path("", "file of the KV configuration; empty: kvConfig.json in the name server's folder")
    config_store_path: str = f.path("", "file that UPDATE_NAMESRV_CONFIG writes; empty: namesrv.properties in the folder")
    order_message_enable: bool = f.flag(False, "put orderTopicConf into route answers")
    return_order_topic_config_to_broker: bool = f.flag(True, "tell brokers which topics are ordered")
    support_acting_master: bool = f.flag(False, "show the lowest slave of a headless group as its master")
    notify_min_broker_id_changed: bool = f.flag(False, "tell a group when its lowest broker id changes")
    enable_all_topic_list: bool = f.flag(True, "answer the list of all topics")
    enable_topic_list: bool = f.flag(True, "answer the other topic lists")
    need_wait_for_service: bool = f.flag(False, "answer 'not ready' instead of 'no route' for a while after the start")
    wait_seconds_for_service: int = f.whole(45, "seconds of that while")
    delete_topic_with_broker_registration: bool = f.flag(False, "drop topics that a full registration no longer lists")
    config_black_list: str = f.text("configBlackList;configStorePath;kvConfigPath", "keys no admin command may change, separated by ';'")
    broker_timeout_ms: int = f.whole(120_000, "ms without a heartbeat after which a broker is gone, unless it names its own", 1, f.LONG_MAX)
    server_channel_max_idle_time_seconds: int = f.whole(120, "seconds without traffic after which a connection is closed", 1)
    frame_bytes_max: int = f.whole(16 << 20, "bytes of a frame; longer closes the connection", 4096)
    connections_max: int = f.whole(20_000, "connections at a time", 1)
    requests_in_flight_max: int = f.whole(64, "requests of one connection that wait for a slow answer", 1)
    outbox_bytes_max: int = f.whole(64 << 20, "bytes waiting for a peer that does not read; more closes it", 65_536)
