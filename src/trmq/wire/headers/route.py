"""Headers of the name server: routes, registration, key-value configuration.

Source: reference "protocol" section 11.1.
"""

from __future__ import annotations

import msgspec

from .base import Header, Int32, Int64


class GetRouteInfo(Header):
    """105 GET_ROUTEINFO_BY_TOPIC. Zone fields are plain extFields in Java."""

    topic: str
    accept_standard_json_only: bool | None = None
    zone_name: str | None = msgspec.field(default=None, name="__ZONE_NAME")
    zone_mode: bool | None = msgspec.field(default=None, name="__ZONE_MODE")


class RegisterBroker(Header):
    """103. Addresses are `host:port`; `body_crc32` is that of the body as sent, 0 when the broker did not compute it."""

    broker_name: str
    broker_addr: str
    cluster_name: str
    ha_server_addr: str
    broker_id: Int64
    heartbeat_timeout_millis: Int64 | None = None
    enable_acting_master: bool | None = None
    compressed: bool | None = None
    body_crc32: Int32 | None = msgspec.field(default=None, name="bodyCrc32")


class RegisterBrokerResponse(Header):
    """Answer to 103: where the master is, for slaves."""

    ha_server_addr: str | None = None
    master_addr: str | None = None


class UnregisterBroker(Header):
    """104."""

    broker_name: str
    broker_addr: str
    cluster_name: str
    broker_id: Int64


class QueryDataVersion(Header):
    """322: does the name server know this version of the broker's topics? Counts as a heartbeat."""

    broker_name: str
    broker_addr: str
    cluster_name: str
    broker_id: Int64


class QueryDataVersionResponse(Header):
    """Answer to 322."""

    changed: bool


class BrokerHeartbeat(Header):
    """904 (sic: `heartbeatTimeoutMills`)."""

    cluster_name: str
    broker_addr: str
    broker_name: str
    broker_id: Int64 | None = None
    epoch: Int32 | None = None
    max_offset: Int64 | None = None
    confirm_offset: Int64 | None = None
    heartbeat_timeout_mills: Int64 | None = None
    election_priority: Int32 | None = None


class GetBrokerMemberGroup(Header):
    """901."""

    cluster_name: str
    broker_name: str


class NotifyMinBrokerIdChange(Header):
    """905, name server to broker, one-way."""

    min_broker_id: Int64 | None = None
    broker_name: str | None = None
    min_broker_addr: str | None = None
    offline_broker_addr: str | None = None
    ha_broker_addr: str | None = None


class PutKVConfig(Header):
    """100."""

    namespace: str
    key: str
    value: str


class GetKVConfig(Header):
    """101."""

    namespace: str
    key: str


class GetKVConfigResponse(Header):
    """Answer to 101."""

    value: str | None = None


class DeleteKVConfig(Header):
    """102."""

    namespace: str
    key: str


class GetKVListByNamespace(Header):
    """219."""

    namespace: str


class GetTopicsByCluster(Header):
    """224."""

    cluster: str


class WipeWritePermOfBroker(Header):
    """205."""

    broker_name: str


class WipeWritePermOfBrokerResponse(Header):
    """Answer to 205."""

    wipe_topic_count: Int32


class AddWritePermOfBroker(Header):
    """327."""

    broker_name: str


class AddWritePermOfBrokerResponse(Header):
    """Answer to 327."""

    add_topic_count: Int32


class DeleteTopicFromNamesrv(Header):
    """216."""

    topic: str
    cluster_name: str | None = None


class RegisterTopic(Header):
    """217; the body is a route."""

    topic: str
