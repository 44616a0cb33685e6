"""`BrokerConfig`: every key of a broker that trmq honours, with Apache's default where it makes sense here.

Times ending in nothing are milliseconds unless the key says otherwise (Apache's names are kept), sizes are bytes.
Where trmq differs from Apache 5.4.0 on purpose: `listenPort` is 10911 (the default of every tool, Apache's own is 6888),
and `bindAddress` is loopback unless `bindAddress` or a reachable `brokerIP1` says otherwise.
"""

from __future__ import annotations

import ipaddress
import posixpath

import attrs

from trmq.errors import ConfigError

from . import fields as f

LOOPBACK = "127.0.0.1"
DELAY_LEVELS = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"


def is_loopback(ip: str) -> bool:
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return ip == "localhost"


@attrs.frozen(kw_only=True)
class BrokerConfig:
    # --- who and where
    broker_cluster_name: str = f.name("DefaultCluster", "cluster the broker belongs to")
    broker_name: str = f.name("", "name of the broker group; empty: the host's name")
    broker_id: int = f.whole(0, "0 is the master of its group", 0, f.LONG_MAX)
    broker_role: str = f.choice("ASYNC_MASTER", ("ASYNC_MASTER", "SYNC_MASTER", "SLAVE"), "what this member does")
    namesrv_addr: str = f.endpoints("", "name servers to register at, host:port separated by ';'; empty: none")
    broker_ip1: str = f.text("", "address that clients are told; empty: the bound address", key="brokerIP1")
    broker_ip2: str = f.text("", "address that slaves are told; empty: brokerIP1", key="brokerIP2")
    bind_address: str = f.text("", "address to listen on; empty: loopback, or every address if brokerIP1 is not loopback")
    listen_port: int = f.whole(10911, "port for clients; 0 takes a free one", 0, 65535)
    ha_listen_port: int = f.whole(
        attrs.Factory(lambda self: min(self.listen_port + 1, 65535) if self.listen_port else 0, takes_self=True),
        "port for slaves; default listenPort + 1, 0 takes a free one",
        0,
        65535,
    )
    register_name_server_period: int = f.whole(30_000, "ms between registrations (held within 10 000 to 60 000)", 1)
    register_broker_timeout_mills: int = f.whole(24_000, "ms a registration may take", 1)
    broker_permission: int = f.whole(6, "4 readable, 2 writable, 6 both", 0, 15)
    region_id: str = f.text("DefaultRegion", "region stamped on messages for tracing")
    trace_on: bool = f.flag(True, "tell producers that tracing is on")
    config_black_list: str = f.text("configBlackList;brokerConfigPath", "keys no admin command may change, separated by ';'")
    # --- store
    store_path_root_dir: str = f.path("", "folder of the store")
    store_path_commit_log: str = f.path("", "folder of the commit log, inside storePathRootDir; empty: its `commitlog`")
    mapped_file_size_commit_log: int = f.whole(1 << 30, "bytes of a commit-log file", 4096)
    mapped_file_size_consume_queue: int = f.whole(300_000 * 20, "bytes of a consume-queue file", 20, multiple=20)
    max_hash_slot_num: int = f.whole(5_000_000, "hash slots of a key-index file", 1)
    max_index_num: int = f.whole(20_000_000, "entries of a key-index file", 2)
    message_index_enable: bool = f.flag(True, "index messages by key")
    flush_disk_type: str = f.choice("ASYNC_FLUSH", ("ASYNC_FLUSH", "SYNC_FLUSH"), "answer before or after the disk has it")
    flush_interval_commit_log: int = f.whole(500, "ms between flushes under ASYNC_FLUSH", 1)
    sync_flush_timeout: int = f.whole(5_000, "ms a send waits for its flush", 1)
    max_message_size: int = f.whole(4 << 20, "bytes of a body", 1)
    # --- replication
    in_sync_replicas: str = f.copies("2", "holders (the master included) that a record needs under SYNC_MASTER before SEND_OK, or all")
    min_in_sync_replicas: int = f.whole(1, "holders in sync below which a SYNC_MASTER refuses sends", 1)
    enable_auto_in_sync_replicas: bool = f.flag(False, "ask for no more holders than are in sync, down to minInSyncReplicas")
    slave_timeout: int = f.whole(3_000, "ms a send waits for its slaves", 1)
    slave_read_enable: bool = f.flag(True, "a slave serves pulls, and a busy master sends consumers to it")
    ha_master_address: str = f.endpoint("", "HA address (host:port) of a slave's master; empty: as the name servers say")
    ha_send_heartbeat_interval: int = f.whole(5_000, "ms without traffic after which an HA peer gives a sign of life", 1)
    ha_housekeeping_interval: int = f.whole(20_000, "ms of silence after which an HA connection is closed", 1)
    ha_transfer_batch_size: int = f.whole(32_768, "bytes an Apache slave gets at once", 1024, 64 << 20)
    ha_max_gap_not_in_sync: int = f.whole(256 << 20, "bytes a slave may be behind and still count as in sync", 1)
    sync_from_last_file: bool = f.flag(False, "an empty slave begins with the last file of the master's log, not with the first")
    # --- retention
    file_reserved_time: int = f.whole(72, "hours a file is kept")
    delete_when: str = f.hours("04", "hours of the day at which old files go, separated by ';'")
    disk_max_used_space_ratio: int = f.whole(75, "percent of disk use above which old files go at any hour", 1, 100)
    disk_space_clean_forcibly_ratio: int = f.whole(85, "percent above which files go before their time", 1, 100)
    disk_space_warning_level_ratio: int = f.whole(90, "percent above which sends are refused", 1, 100)
    clean_file_forcibly_enable: bool = f.flag(True, "delete files before their time when the disk is nearly full")
    clean_resource_interval: int = f.whole(10_000, "ms between looks for files to delete", 1)
    # --- topics, groups, offsets
    auto_create_topic_enable: bool = f.flag(True, "create a topic on its first send")
    auto_create_subscription_group: bool = f.flag(True, "create a consumer group on its first use")
    default_topic_queue_nums: int = f.whole(8, "queues of an automatically created topic", 1, 65535)
    cluster_topic_enable: bool = f.flag(True, "the topic named after the cluster may be used as a template")
    broker_topic_enable: bool = f.flag(True, "the topic named after the broker may be used as a template")
    trace_topic_enable: bool = f.flag(False, "create the trace topic at start")
    msg_trace_topic_name: str = f.name("RMQ_SYS_TRACE_TOPIC", "name of the trace topic")
    message_delay_level: str = f.delay_levels(DELAY_LEVELS, "delay levels, first is level 1")
    flush_consumer_offset_interval: int = f.whole(5_000, "ms between writes of the consumer offsets", 1)
    flush_delay_offset_interval: int = f.whole(10_000, "ms between writes of the delay offsets", 1)
    notify_consumer_ids_changed_enable: bool = f.flag(True, "tell a group's members when it changes")
    channel_expired_timeout: int = f.whole(120_000, "ms without a heartbeat after which a client is gone", 1)
    # --- pulls and queries
    long_polling_enable: bool = f.flag(True, "hold a pull until a message arrives")
    short_polling_time_mills: int = f.whole(1_000, "ms a pull is held with long polling off", 1)
    access_message_in_memory_max_ratio: int = f.whole(40, "percent of memory taken to be page cache of the log", 1, 100)
    max_transfer_bytes_on_message_in_memory: int = f.whole(262_144, "bytes of a pull near the log's end", 1)
    max_transfer_count_on_message_in_memory: int = f.whole(32, "messages of a pull near the log's end", 1)
    max_transfer_bytes_on_message_in_disk: int = f.whole(65_536, "bytes of a pull far behind", 1)
    max_transfer_count_on_message_in_disk: int = f.whole(8, "messages of a pull far behind", 1)
    default_query_max_num: int = f.whole(32, "messages of a query by key when the asker names no number", 1)
    max_msgs_num_batch: int = f.whole(64, "messages of a query by key", 1)
    # --- limits (trmq's own except the first)
    server_channel_max_idle_time_seconds: int = f.whole(120, "seconds without traffic after which a connection is closed", 1)
    frame_bytes_max: int = f.whole(16 << 20, "bytes of a frame; longer closes the connection", 4096)
    connections_max: int = f.whole(20_000, "connections at a time", 1)
    requests_in_flight_max: int = f.whole(64, "requests of one connection that wait for a slow answer", 1)
    outbox_bytes_max: int = f.whole(64 << 20, "bytes waiting for a peer that does not read; more closes it", 65_536)
    holds_max: int = f.whole(100_000, "pulls held at a time", 1)
    hold_ms_max: int = f.whole(30_000, "ms a pull is held at most, whatever the client asks", 1)

    @property
    def is_slave(self) -> bool:
        return self.broker_role == "SLAVE"

    @property
    def holders_needed(self) -> int:
        """inSyncReplicas as a number, 0 for `all`."""
        return 0 if self.in_sync_replicas == "all" else int(self.in_sync_replicas)

    @property
    def role_problem(self) -> str | None:
        """What is wrong with role and id together, None if they fit."""
        if self.is_slave and self.broker_id == 0:
            return "brokerRole=SLAVE needs a brokerId above 0: 0 is the master of the group"
        if not self.is_slave and self.broker_id != 0:
            return f"brokerRole={self.broker_role} needs brokerId=0, but brokerId={self.broker_id}; a slave has brokerRole=SLAVE"
        return None

    @property
    def namesrv_addresses(self) -> tuple[str, ...]:
        return f.parse_endpoints(self.namesrv_addr)

    @property
    def delay_levels_ms(self) -> tuple[int, ...]:
        return f.parse_delay_levels(self.message_delay_level)

    @property
    def delete_hours(self) -> tuple[int, ...]:
        return f.parse_hours(self.delete_when)

    @property
    def commit_log_folder(self) -> str:
        """Folder of the commit log relative to the store's root. Raises `ConfigError` if it lies outside."""
        if not self.store_path_commit_log:
            return "commitlog"
        root = posixpath.normpath(self.store_path_root_dir or ".")
        inside = posixpath.relpath(posixpath.normpath(self.store_path_commit_log), root)
        if inside == "." or inside.startswith(".."):
            raise ConfigError(
                f"storePathCommitLog={self.store_path_commit_log} must be a folder inside storePathRootDir={self.store_path_root_dir}; "
                "to keep it on another disk, make it a symbolic link there"
            )
        return inside

    def resolved(self, host_name: str, ip: str) -> BrokerConfig:
        """What is left empty filled in from the machine: its name, and `ip`, the address others reach it at."""
        bind, own = self.bind_address, self.broker_ip1
        if not bind:
            bind = LOOPBACK if not own or is_loopback(own) else "0.0.0.0"
        if not own:
            own = ip if bind in {"0.0.0.0", "::"} else bind
        return attrs.evolve(
            self, broker_name=self.broker_name or host_name, bind_address=bind, broker_ip1=own, broker_ip2=self.broker_ip2 or own
        )
