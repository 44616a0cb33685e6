"""JSON bodies of administration: connections, statistics, resets, what a consumer is doing.

Source: reference "protocol" sections 10 and 11.6. Times are ms since 1970, offsets count queue entries unless said otherwise.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from trmq.message import MessageQueue

from .base import Body
from .client import SubscriptionData, WireQueue


class Connection(Body):
    """One connected client."""

    client_id: str
    client_addr: str
    language: str = "JAVA"
    version: int = 0


class ConsumerConnection(Body):
    """Answer to 203."""

    connection_set: list[Connection] = field(default_factory=list)
    subscription_table: dict[str, SubscriptionData] = field(default_factory=dict)
    consume_type: str | None = None
    message_model: str | None = None
    consume_from_where: str | None = None


class ProducerConnection(Body):
    """Answer to 204."""

    connection_set: list[Connection] = field(default_factory=list)


class ProducerInfo(Body):
    """One producer client of 328."""

    client_id: str
    remote_ip: str = field(name="remoteIP")
    language: str = "JAVA"
    version: int = 0
    last_update_timestamp: int = 0


class ProducerTableInfo(Body):
    """Answer to 328, by producer group."""

    data: dict[str, list[ProducerInfo]] = field(default_factory=dict)


class TopicOffset(Body):
    """One queue of 202; `max_offset` is the next to be written."""

    min_offset: int = 0
    max_offset: int = 0
    last_update_timestamp: int = 0


class TopicStatsTable(Body):
    """Answer to 202."""

    offset_table: dict[MessageQueue, TopicOffset] = field(default_factory=dict)
    topic_put_tps: float = 0.0


class OffsetWrapper(Body):
    """One queue of 208."""

    broker_offset: int = 0
    consumer_offset: int = 0
    pull_offset: int = 0
    last_timestamp: int = 0


class ConsumeStats(Body):
    """Answer to 208."""

    offset_table: dict[MessageQueue, OffsetWrapper] = field(default_factory=dict)
    consume_tps: float = 0.0


class ConsumeStatsList(Body):
    """Answer to 317: by group."""

    consume_stats_list: list[dict[str, list[ConsumeStats]]] = field(default_factory=list)
    broker_addr: str | None = None
    total_diff: int = 0
    total_inflight_diff: int = 0


class ResetOffsetBody(Body):
    """Body of 220, answer to 222: new offset by queue."""

    offset_table: dict[MessageQueue, int] = field(default_factory=dict)


class QueueOffset(Body):
    """One queue and its offset, for clients that cannot read objects as keys."""

    broker_name: str
    queue_id: int
    topic: str
    offset: int


class ResetOffsetBodyForC(Body):
    """Body of 220 for C++ clients."""

    offset_table: list[QueueOffset] = field(default_factory=list)


class GetConsumerStatusBody(Body):
    """Answer to 221 (`message_queue_table`) and 223 (`consumer_table`, by client id)."""

    message_queue_table: dict[MessageQueue, int] = field(default_factory=dict)
    consumer_table: dict[str, dict[MessageQueue, int]] = field(default_factory=dict)


class ProcessQueueInfo(Body):
    """One queue of a running consumer (`droped` is spelled that way)."""

    commit_offset: int = 0
    cached_msg_min_offset: int = 0
    cached_msg_max_offset: int = 0
    cached_msg_count: int = 0
    cached_msg_size_in_mib: int = field(default=0, name="cachedMsgSizeInMiB")
    transaction_msg_min_offset: int = 0
    transaction_msg_max_offset: int = 0
    transaction_msg_count: int = 0
    locked: bool = False
    try_unlock_times: int = 0
    last_lock_timestamp: int = 0
    droped: bool = False
    last_pull_timestamp: int = 0
    last_consume_timestamp: int = 0


class ConsumeStatus(Body):
    """Rates of one topic at a running consumer: per second, milliseconds for the *RT."""

    pull_rt: float = field(default=0.0, name="pullRT")
    pull_tps: float = field(default=0.0, name="pullTPS")
    consume_rt: float = field(default=0.0, name="consumeRT")
    consume_ok_tps: float = field(default=0.0, name="consumeOKTPS")
    consume_failed_tps: float = field(default=0.0, name="consumeFailedTPS")
    consume_failed_msgs: int = 0


class ConsumerRunningInfo(Body):
    """Answer to 307."""

    properties: dict[str, str] = field(default_factory=dict)
    subscription_set: list[SubscriptionData] = field(default_factory=list)
    mq_table: dict[MessageQueue, ProcessQueueInfo] = field(default_factory=dict)
    mq_pop_table: dict[MessageQueue, Any] = field(default_factory=dict)
    status_table: dict[str, ConsumeStatus] = field(default_factory=dict)
    user_consumer_info: dict[str, str] = field(default_factory=dict)
    jstack: str | None = None


class ConsumeMessageDirectlyResult(Body):
    """Answer to 309."""

    consume_result: str | None = None
    order: bool = False
    auto_commit: bool = True
    spent_time_mills: int = 0
    remark: str | None = None


class QueueTimeSpan(Body):
    """One queue of 303."""

    message_queue: WireQueue
    min_time_stamp: int = 0
    max_time_stamp: int = 0
    consume_time_stamp: int = 0
    delay_time: int = 0


class QueryConsumeTimeSpanBody(Body):
    """Answer to 303."""

    consume_time_span_set: list[QueueTimeSpan] = field(default_factory=list)


class QueryCorrectionOffsetBody(Body):
    """Answer to 308: by queue id."""

    correction_offsets: dict[int, int] = field(default_factory=dict)


class QuerySubscriptionResponseBody(Body):
    """Answer to 345."""

    subscription_data: SubscriptionData | None
    group: str
    topic: str | None = None


class BrokerStatsItem(Body):
    """One span of 315."""

    sum: int = 0
    tps: float = 0.0
    avgpt: float = 0.0


class BrokerStatsData(Body):
    """Answer to 315."""

    stats_minute: BrokerStatsItem = field(default_factory=BrokerStatsItem)
    stats_hour: BrokerStatsItem = field(default_factory=BrokerStatsItem)
    stats_day: BrokerStatsItem = field(default_factory=BrokerStatsItem)


class ConsumeQueueData(Body):
    """One consume-queue unit of 321; `physic_offset` and `physic_size` are bytes of the commit log."""

    physic_offset: int
    physic_size: int
    tags_code: int
    extend_data_json: str | None = None
    bit_map: str | None = None
    eval: bool = False
    msg: str | None = None


class QueryConsumeQueueResponseBody(Body):
    """Answer to 321."""

    queue_data: list[ConsumeQueueData] = field(default_factory=list)
    min_queue_index: int = 0
    max_queue_index: int = 0
    subscription_data: SubscriptionData | None = None
    filter_data: str | None = None


class HAConnectionRuntimeInfo(Body):
    """One slave of 907, as its master sees it; offsets in bytes of the commit log."""

    addr: str
    slave_ack_offset: int = 0
    diff: int = 0
    in_sync: bool = False
    transferred_byte_in_second: int = 0
    transfer_from_where: int = 0


class HAClientRuntimeInfo(Body):
    """A slave's side of 907."""

    master_addr: str | None = None
    transferred_byte_in_second: int = 0
    max_offset: int = 0
    last_read_timestamp: int = 0
    last_write_timestamp: int = 0
    master_flush_offset: int = 0


class HARuntimeInfo(Body):
    """Answer to 907."""

    master: bool = False
    master_commit_log_max_offset: int = 0
    in_sync_slave_nums: int = 0
    ha_connection_info: list[HAConnectionRuntimeInfo] = field(default_factory=list)
    ha_client_runtime_info: HAClientRuntimeInfo = field(default_factory=HAClientRuntimeInfo)
