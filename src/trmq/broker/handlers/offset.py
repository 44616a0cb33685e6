"""Offsets: how far a group is, where a queue begins and ends, what was stored when.

Source: reference "client_behaviour" section 5, "protocol" section 11.3; `ConsumerManageProcessor`, `AdminBrokerProcessor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trmq.errors import RemoteProtocolError
from trmq.remoting import Answer, Connection
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers.pull import (
    GetEarliestMsgStoretime,
    GetEarliestMsgStoretimeResponse,
    GetMaxOffset,
    GetMinOffset,
    OffsetResponse,
    QueryConsumerOffset,
    SearchOffset,
    UpdateConsumerOffset,
)

if TYPE_CHECKING:
    from trmq.broker.service import Broker
    from trmq.wire.headers import Header

YOUNG_BYTES = 4 << 30
"""A queue whose first message lies less than this behind the log's end is young. Apache takes 40 % of the machine's memory; a
fixed number behaves the same everywhere."""


def query_consumer_offset(broker: Broker, conn: Connection, command: Command) -> Answer:
    """The committed offset of a group. A group that never committed starts at 0 in a young queue, otherwise it is told so (22)."""
    header = command.header(QueryConsumerOffset)
    offset = broker.offsets.query(header.consumer_group, header.topic, header.queue_id)
    if offset is None and header.set_zero_if_not_found is not False and _young(broker, header.topic, header.queue_id):
        offset = 0
    if offset is None:
        return encode_response(
            command, ResponseCode.QUERY_NOT_FOUND, remark="Not found, maybe this group consumer boot first"
        )
    return encode_response(command, ResponseCode.SUCCESS, OffsetResponse(offset))


def _young(broker: Broker, topic: str, queue_id: int) -> bool:
    """Whether the queue still has its first message, not far behind the log's end."""
    queue = broker.store.queue(topic, queue_id)
    if queue is None or queue.min_offset > 0 or queue.max_offset == 0:
        return False
    first = queue.unit(0)
    return first is not None and broker.store.max_phy - first[0] <= YOUNG_BYTES


def update_consumer_offset(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(UpdateConsumerOffset)
    remark = None
    if header.consumer_group not in broker.groups.table:
        raise RemoteProtocolError(f"Group {header.consumer_group} not exist!", ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST)
    if header.topic not in broker.topics.table:
        raise RemoteProtocolError(f"Topic {header.topic} not exist!", ResponseCode.TOPIC_NOT_EXIST)
    if header.queue_id < 0 or header.commit_offset < 0:
        raise RemoteProtocolError(
            f"queueId {header.queue_id} and commitOffset {header.commit_offset} must not be negative", ResponseCode.INVALID_PARAMETER
        )
    if command.ext.get("onlyForward") == "true":  # a slave hands back what clients committed there; they may be further by now
        known = broker.offsets.query(header.consumer_group, header.topic, header.queue_id)
        if known is not None and known >= header.commit_offset:
            return None if command.is_oneway else encode_response(command, ResponseCode.SUCCESS)
    if not broker.offsets.commit(header.consumer_group, header.topic, header.queue_id, header.commit_offset):
        remark = "Offset has been previously reset"
    return None if command.is_oneway else encode_response(command, ResponseCode.SUCCESS, remark=remark)


def get_max_offset(broker: Broker, conn: Connection, command: Command) -> Answer:
    if "Topic" in command.ext and "topic" not in command.ext:  # an old Go client asks for the end in these words
        ext = {"topic": command.ext["Topic"], "queueId": command.ext.get("QueueId", "")}
        command = Command(command.code, command.opaque, command.flag, fields=ext, serialize=command.serialize)
    header = command.header(GetMaxOffset)
    queue = broker.store.queue(header.topic, header.queue_id)
    return _offset(command, 0 if queue is None else queue.max_offset)


def get_min_offset(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(GetMinOffset)
    queue = broker.store.queue(header.topic, header.queue_id)
    return _offset(command, 0 if queue is None else queue.min_offset)


def search_offset(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(SearchOffset)
    return _offset(command, broker.store.offset_by_time(header.topic, header.queue_id, header.timestamp, header.boundary))


def get_earliest_store_time(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(GetEarliestMsgStoretime)
    queue = broker.store.queue(header.topic, header.queue_id)
    found = None if queue is None else broker.store.store_time(header.topic, header.queue_id, queue.min_offset)
    answer: Header = GetEarliestMsgStoretimeResponse(-1 if found is None else found)
    return encode_response(command, ResponseCode.SUCCESS, answer)


def _offset(command: Command, offset: int) -> bytes:
    return encode_response(command, ResponseCode.SUCCESS, OffsetResponse(offset))


HANDLERS = {
    RequestCode.QUERY_CONSUMER_OFFSET: query_consumer_offset,
    RequestCode.UPDATE_CONSUMER_OFFSET: update_consumer_offset,
    RequestCode.GET_MAX_OFFSET: get_max_offset,
    RequestCode.GET_MIN_OFFSET: get_min_offset,
    RequestCode.SEARCH_OFFSET_BY_TIMESTAMP: search_offset,
    RequestCode.GET_EARLIEST_MSG_STORETIME: get_earliest_store_time,
}
