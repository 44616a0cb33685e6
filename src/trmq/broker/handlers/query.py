"""Finding single messages: by id (a physical offset), by key or UNIQ_KEY, and the raw units of a consume queue.

Source: reference "client_behaviour" section 11; `QueryMessageProcessor`, `AdminBrokerProcessor#queryConsumeQueue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trmq.errors import RemoteProtocolError
from trmq.log.reading import UNIT
from trmq.remoting import Answer, Connection
from trmq.wire.bodies import encode_body
from trmq.wire.bodies.report import ConsumeQueueData, QueryConsumeQueueResponseBody
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import QueryConsumeQueue, QueryMessage, QueryMessageResponse, ViewMessage

if TYPE_CHECKING:
    from trmq.broker.service import Broker

UNITS_MAX = 10_000
"""Units of one QUERY_CONSUME_QUEUE answer."""


def view_message(broker: Broker, conn: Connection, command: Command) -> Answer:
    """The record at a physical offset, as it is stored."""
    header = command.header(ViewMessage)
    view = broker.store.record(header.offset)
    if view is None:
        raise RemoteProtocolError(f"can not find message by the offset, {header.offset}", ResponseCode.SYSTEM_ERROR)
    return encode_response(command, ResponseCode.SUCCESS, body=view)


def query_message(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Records with a key, newest first, in a time range. A query by UNIQ_KEY gets the configured number whatever it asks for."""
    header = command.header(QueryMessage)
    count = broker.config.default_query_max_num if header.unique_key_query else header.max_num
    key = header.key
    if header.index_type == "T" and not key.startswith("T#"):
        key = f"T#{key}"  # 5.4 asks for a tag by an index type of its own
    records, index_ms, index_phy = broker.store.query(
        header.topic, key, min(count, broker.config.max_msgs_num_batch), header.begin_timestamp, header.end_timestamp
    )
    fields = QueryMessageResponse(index_ms, index_phy)
    if not records:
        return encode_response(
            command, ResponseCode.QUERY_NOT_FOUND, fields, remark="can not find message, maybe time range not correct"
        )
    return encode_response(command, ResponseCode.SUCCESS, fields, body=b"".join(records))


def query_consume_queue(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Units of a queue from `index` on, and what the group (if given) subscribes to."""
    header = command.header(QueryConsumeQueue)
    queue = None if header.topic is None or header.queue_id is None else broker.store.queue(header.topic, header.queue_id)
    if queue is None:
        raise RemoteProtocolError(f"{header.queue_id}@{header.topic} is not exist!", ResponseCode.SYSTEM_ERROR)
    body = QueryConsumeQueueResponseBody(max_queue_index=queue.max_offset, min_queue_index=queue.min_offset)
    if header.consumer_group is not None:
        known = broker.clients.consumers.get(header.consumer_group)
        subscription = None if known is None else known.subscriptions.get(header.topic or "")
        if subscription is None:
            body.filter_data = f"{header.consumer_group}@{header.topic} is not online!"
        else:
            body.subscription_data = subscription.data
    index, count = header.index or 0, min(max(header.count or 0, 0), UNITS_MAX)
    if not queue.min_offset <= index < queue.max_offset:
        remark = f"Index {index} of {header.queue_id}@{header.topic} is not exist!"
        return encode_response(command, ResponseCode.SUCCESS, remark=remark, body=encode_body(body))
    while len(body.queue_data) < count:
        units = queue.units(index + len(body.queue_data), count - len(body.queue_data))
        if not units:
            break
        body.queue_data += [ConsumeQueueData(phy, size, tags) for phy, size, tags in UNIT.iter_unpack(units)]
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


HANDLERS = {
    RequestCode.VIEW_MESSAGE_BY_ID: view_message,
    RequestCode.QUERY_MESSAGE: query_message,
    RequestCode.QUERY_CONSUME_QUEUE: query_consume_queue,
}
