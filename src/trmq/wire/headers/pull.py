"""Headers of a consumer: pull, offsets, groups, queries for messages.

Source: reference "protocol" section 11.3. Queue offsets count entries; `ViewMessage.offset` is physical.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .base import Header, Int32, Int64

PULL_COMMIT_OFFSET = 1
PULL_SUSPEND = 2
PULL_SUBSCRIPTION = 4
PULL_CLASS_FILTER = 8
PULL_LITE = 16
"""Bits of `PullMessage.sys_flag`."""


class PullMessage(Header):
    """11 PULL_MESSAGE, 361 LITE_PULL_MESSAGE. `proxy_froward_client_id` is spelled that way on the wire."""

    consumer_group: str
    topic: str
    queue_id: Int32
    queue_offset: Int64
    max_msg_nums: Int32
    sys_flag: Int32
    commit_offset: Int64
    suspend_timeout_millis: Int64
    sub_version: Int64
    subscription: str | None = None
    expression_type: str | None = None
    max_msg_bytes: Int32 | None = None
    request_source: Int32 | None = None
    proxy_froward_client_id: str | None = None


class PullMessageResponse(Header):
    """Answer to a pull with codes 0, 19, 20, 21: the first four are required (trap 5)."""

    suggest_which_broker_id: Int64
    next_begin_offset: Int64
    min_offset: Int64
    max_offset: Int64
    offset_delta: Int64 | None = None
    topic_sys_flag: Int32 | None = None
    group_sys_flag: Int32 | None = None
    forbidden_type: Int32 | None = None


class QueryConsumerOffset(Header):
    """14: how far the group has committed."""

    consumer_group: str
    topic: str
    queue_id: Int32
    set_zero_if_not_found: bool | None = None


class UpdateConsumerOffset(Header):
    """15: the group has consumed everything below `commit_offset`."""

    consumer_group: str
    topic: str
    queue_id: Int32
    commit_offset: Int64


class OffsetResponse(Header):
    """Answer to 14, 29, 30, 31."""

    offset: Int64


class GetMaxOffset(Header):
    """30: the next queue offset to be written."""

    topic: str
    queue_id: Int32
    committed: bool | None = None


class GetMinOffset(Header):
    """31: the first queue offset kept."""

    topic: str
    queue_id: Int32


class SearchOffset(Header):
    """29 SEARCH_OFFSET_BY_TIMESTAMP. Use `boundary`: anything but "upper" in any case means LOWER, as in Java."""

    topic: str
    queue_id: Int32
    timestamp: Int64
    boundary_type: str | None = None

    @property
    def boundary(self) -> Literal["LOWER", "UPPER"]:
        return "UPPER" if (self.boundary_type or "").upper() == "UPPER" else "LOWER"


class GetEarliestMsgStoretime(Header):
    """32: store time of the first message kept."""

    topic: str
    queue_id: Int32


class GetEarliestMsgStoretimeResponse(Header):
    """Answer to 32, ms since 1970; -1 when the queue is empty."""

    timestamp: Int64


class UnregisterClient(Header):
    """35: the client leaves; either group may be absent."""

    client_id: str = msgspec.field(name="clientID")
    producer_group: str | None = None
    consumer_group: str | None = None


class HeartbeatResponse(Header):
    """Fields that Apache puts into the answer to 34 HEART_BEAT."""

    is_support_heart_beat_v2: bool | None = msgspec.field(default=None, name="IS_SUPPORT_HEART_BEAT_V2")
    is_sub_change: bool | None = msgspec.field(default=None, name="IS_SUB_CHANGE")


class GetConsumerListByGroup(Header):
    """38: client ids of the group's members."""

    consumer_group: str


class NotifyConsumerIdsChanged(Header):
    """40, broker to consumer, one-way: members came or went, rebalance now."""

    consumer_group: str


class QueryMessage(Header):
    """12: messages with this key (or UNIQ_KEY, when extFields hold `_UNIQUE_KEY_QUERY`="true"), stored between the times (ms)."""

    topic: str
    key: str
    max_num: Int32
    begin_timestamp: Int64
    end_timestamp: Int64
    index_type: str | None = None
    last_key: str | None = None
    unique_key_query: bool | None = msgspec.field(default=None, name="_UNIQUE_KEY_QUERY")


class QueryMessageResponse(Header):
    """Answer to 12 (sic: `Phyoffset`)."""

    index_last_update_timestamp: Int64
    index_last_update_phyoffset: Int64


class ViewMessage(Header):
    """33 VIEW_MESSAGE_BY_ID: the record at a physical offset."""

    offset: Int64
    topic: str | None = None


class ResetConsumerClientOffset(Header):
    """220 (broker to client) and 222 INVOKE_BROKER_TO_RESET_OFFSET."""

    topic: str
    group: str
    timestamp: Int64
    is_force: bool
    queue_id: Int32 | None = None
    offset: Int64 | None = None


class GetConsumerStatus(Header):
    """221 (broker to client) and 223 INVOKE_BROKER_TO_GET_CONSUMER_STATUS."""

    topic: str
    group: str
    client_addr: str | None = None


class GetConsumerRunningInfo(Header):
    """307: what a consumer is doing; relayed by the broker to the client named."""

    consumer_group: str
    client_id: str
    jstack_enable: bool | None = None


class ConsumeMessageDirectly(Header):
    """309: have this client consume this message now."""

    consumer_group: str
    client_id: str | None = None
    msg_id: str | None = None
    broker_name: str | None = None
    topic: str | None = None
    topic_sys_flag: Int32 | None = None
    group_sys_flag: Int32 | None = None
