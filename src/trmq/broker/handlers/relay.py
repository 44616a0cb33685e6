"""Who is connected, and questions passed on to a client: what it is doing, where it is, consume this message now.

A relayed question waits for the client, so it is a `Job`: it runs beside the connection's reading, bounded by the
connection's limit of requests in flight, and ends by itself after 10 s.

Source: reference "protocol" sections 11.5, 11.6; `AdminBrokerProcessor#callConsumer`, `Broker2Client`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import trio

from trmq.broker.clients import Member
from trmq.errors import ConnectionLost, MessageIllegal, RemoteProtocolError, RequestTimeout
from trmq.message import MessageQueue, decode_message_id
from trmq.remoting import Answer, Connection, Job
from trmq.wire.bodies import decode_body, encode_body
from trmq.wire.bodies.report import Connection as ConnectionBody
from trmq.wire.bodies.report import ConsumerConnection, GetConsumerStatusBody, ProducerConnection, ProducerInfo, ProducerTableInfo
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import (
    ConsumeMessageDirectly,
    GetConsumerConnectionList,
    GetConsumerRunningInfo,
    GetConsumerStatus,
    GetProducerConnectionList,
)

if TYPE_CHECKING:
    from trmq.broker.service import Broker

CLIENT_TIMEOUT_S = 10.0
STATUS_TIMEOUT_S = 5.0


def address_text(conn: Connection) -> str:
    ip, port = conn.peer
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _connections(members: Iterable[Member[Connection]]) -> list[ConnectionBody]:
    return [ConnectionBody(one.client_id, address_text(one.conn), one.language, one.version) for one in members]


def consumer_connections(broker: Broker, conn: Connection, command: Command) -> Answer:
    group = command.header(GetConsumerConnectionList).consumer_group
    known = broker.clients.consumers.get(group)
    if known is None:
        raise RemoteProtocolError(f"the consumer group[{group}] not online", ResponseCode.CONSUMER_NOT_ONLINE)
    body = ConsumerConnection(
        connection_set=_connections(known.members.values()),
        subscription_table={topic: one.data for topic, one in known.subscriptions.items()}, consume_type=known.consume_type,
        message_model=known.message_model, consume_from_where=known.consume_from_where,
    )
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


def producer_connections(broker: Broker, conn: Connection, command: Command) -> Answer:
    group = command.header(GetProducerConnectionList).producer_group
    members = broker.clients.producers.get(group)
    if not members:
        raise RemoteProtocolError(f"the producer group[{group}] not exist", ResponseCode.SYSTEM_ERROR)
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(ProducerConnection(_connections(members.values()))))


def all_producers(broker: Broker, conn: Connection, command: Command) -> Answer:
    now_ms, now = broker.now_ms(), trio.current_time()
    body = ProducerTableInfo({
        group: [
            ProducerInfo(one.client_id, one.conn.peer[0], one.language, one.version, now_ms - int((now - one.heard) * 1000))
            for one in members.values()
        ]
        for group, members in broker.clients.producers.items()
    })
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


def running_info(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Ask a consumer what it is doing."""
    header = command.header(GetConsumerRunningInfo)
    return _relay(broker, command, header.consumer_group, header.client_id, command.ext, b"")


def consume_directly(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Have a consumer consume one stored message now. Without a client id, the first of the group."""
    header = command.header(ConsumeMessageDirectly)
    fields = dict(command.ext)
    fields["brokerName"] = broker.config.broker_name
    topic, group = broker.topics.get(header.topic or ""), broker.groups.get(header.consumer_group)
    if topic is not None:
        fields["topicSysFlag"] = str(topic.topic_sys_flag)
    if group is not None:
        fields["groupSysFlag"] = str(group.group_sys_flag)
    try:
        offset = decode_message_id(header.msg_id or "")[1]
    except MessageIllegal as error:
        raise RemoteProtocolError(f"msgId: {error}", ResponseCode.INVALID_PARAMETER) from None
    view = broker.store.record(offset)
    if view is None:
        raise RemoteProtocolError(f"can not find message by the offset, {offset}", ResponseCode.SYSTEM_ERROR)
    client_id = header.client_id
    if client_id is None:
        known = broker.clients.consumers.get(header.consumer_group)
        client_id = next((member.client_id for member in known.members.values()), None) if known is not None else None
    return _relay(broker, command, header.consumer_group, client_id or "", fields, bytes(view))


def _relay(broker: Broker, command: Command, group: str, client_id: str, fields: Mapping[str, str], body: bytes) -> Answer:
    member = broker.clients.find_consumer(group, client_id)
    if member is None:
        raise RemoteProtocolError(f"The Consumer <{group}> <{client_id}> not online", ResponseCode.SYSTEM_ERROR)
    target = member.conn

    async def ask() -> bytes:
        try:
            answer = await target.request(command.code, dict(fields), body, timeout=CLIENT_TIMEOUT_S)
        except RequestTimeout as error:
            remark = f"consumer <{group}> <{client_id}> Timeout: {error}"
            return encode_response(command, ResponseCode.CONSUME_MSG_TIMEOUT, remark=remark)
        except ConnectionLost as error:
            remark = f"invoke consumer <{group}> <{client_id}> failed: {error}"
            return encode_response(command, ResponseCode.SYSTEM_ERROR, remark=remark)
        return encode_response(command, answer.code, answer.ext, remark=answer.remark, body=answer.body)

    return Job(ask)


def consumer_status(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Ask the members of a group (or one, by `clientAddr`, which holds a client id) where they are in a topic."""
    header = command.header(GetConsumerStatus)
    known = broker.clients.consumers.get(header.group)
    if known is None or not known.members:
        raise RemoteProtocolError(f"No Any Consumer online in the consumer group: [{header.group}]", ResponseCode.SYSTEM_ERROR)
    asked = [member for member in known.members.values() if header.client_addr in (None, "", member.client_id)]
    fields = {"topic": header.topic, "group": header.group}

    async def ask() -> bytes:
        found: dict[str, dict[MessageQueue, int]] = {}

        async def one(member: Member[Connection]) -> None:
            try:
                answer = await member.conn.request(
                    RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT, fields, timeout=STATUS_TIMEOUT_S
                )
                if answer.code == ResponseCode.SUCCESS and answer.body:
                    found[member.client_id] = decode_body(answer.body, GetConsumerStatusBody).message_queue_table
            except (RequestTimeout, ConnectionLost, RemoteProtocolError):
                pass  # one that cannot say is left out, as in Apache

        async with trio.open_nursery() as nursery:
            for member in asked:
                nursery.start_soon(one, member)
        body = GetConsumerStatusBody(consumer_table={name: found[name] for name in sorted(found)})
        return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))

    return Job(ask)


HANDLERS = {
    RequestCode.GET_CONSUMER_CONNECTION_LIST: consumer_connections,
    RequestCode.GET_PRODUCER_CONNECTION_LIST: producer_connections,
    RequestCode.GET_ALL_PRODUCER_INFO: all_producers,
    RequestCode.GET_CONSUMER_RUNNING_INFO: running_info,
    RequestCode.CONSUME_MESSAGE_DIRECTLY: consume_directly,
    RequestCode.INVOKE_BROKER_TO_GET_CONSUMER_STATUS: consumer_status,
}
