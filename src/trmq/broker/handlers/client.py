"""Clients coming, staying and leaving; who consumes what; queue locks.

Source: reference "client_behaviour" sections 2, 5, 6; `ClientManageProcessor`, `ConsumerManageProcessor`, `AdminBrokerProcessor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trmq.broker.clients import Member
from trmq.broker.subscription import TAG
from trmq.errors import RemoteProtocolError
from trmq.remoting import Answer, Connection
from trmq.wire.bodies import (
    CheckClientRequestBody,
    ConsumerData,
    ConsumerList,
    HeartbeatData,
    LockBatchRequestBody,
    LockBatchResponseBody,
    UnlockBatchRequestBody,
    WireQueue,
    decode_body,
    encode_body,
)
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers.pull import GetConsumerListByGroup, HeartbeatResponse, UnregisterClient
from trmq.wire.names import retry_topic

if TYPE_CHECKING:
    from trmq.broker.service import Broker

UNIT_SUBSCRIPTION = 2
"""Topic flag: consumed by a group in unit mode."""


def heart_beat(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Register the client in all its groups. The retry topic of a consumer group exists before the answer does."""
    data = decode_body(command.body, HeartbeatData)
    changed = False
    for consumer in data.consumer_data_set:
        changed |= _register_consumer(broker, conn, command, data, consumer)
    for producer in data.producer_data_set:
        broker.clients.register_producer(producer.group_name, _member(conn, command, data.client_id))
    version_2 = bool(data.heartbeat_fingerprint)
    return encode_response(
        command, ResponseCode.SUCCESS,
        HeartbeatResponse(is_support_heart_beat_v2=True, is_sub_change=changed if version_2 else True),
    )


def _member(conn: Connection, command: Command, client_id: str) -> Member[Connection]:
    return Member(conn, client_id, command.language, command.version, trio.current_time())


def _register_consumer(broker: Broker, conn: Connection, command: Command, data: HeartbeatData, consumer: ConsumerData) -> bool:
    """One group of a heartbeat; True if a client that sends fingerprints has to send its subscriptions in full.

    A fingerprint without subscriptions only keeps the client alive. If it isn't the one we know the subscriptions of
    (because they changed, or because we started after they were sent), the answer asks for all of them.
    """
    group = consumer.group_name
    config = broker.groups.find(group)
    if config is None:
        return False
    flag = UNIT_SUBSCRIPTION if consumer.unit_mode else 0
    broker.topics.create(retry_topic(group), max(1, config.retry_queue_nums), sys_flag=flag)
    known = broker.clients.consumers.get(group)
    fingerprint = data.heartbeat_fingerprint
    before = known.fingerprint if known is not None else 0
    member = _member(conn, command, data.client_id)
    without = bool(fingerprint and data.without_sub)
    if broker.clients.register_consumer(consumer, member, without_subscriptions=without) and config.notify_consumer_ids_changed_enable:
        broker.notify_members(group)
    if not fingerprint:
        return False
    if without:
        return before != fingerprint
    broker.clients.consumers[group].fingerprint = fingerprint
    return before not in (0, fingerprint)


def unregister_client(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(UnregisterClient)
    if header.producer_group:
        broker.clients.unregister_producer(header.producer_group, conn)
    if header.consumer_group and broker.clients.unregister_consumer(header.consumer_group, conn):
        config = broker.groups.get(header.consumer_group)
        if config is None or config.notify_consumer_ids_changed_enable:
            broker.notify_members(header.consumer_group)
    return encode_response(command, ResponseCode.SUCCESS)


def check_client_config(broker: Broker, conn: Connection, command: Command) -> Answer:
    """A consumer asks at its start whether its filter can be served: tags can, expressions cannot yet."""
    data = decode_body(command.body, CheckClientRequestBody) if command.body else None
    subscription = None if data is None else data.subscription_data
    kind = TAG if subscription is None else subscription.expression_type or TAG
    if kind != TAG:
        raise RemoteProtocolError(f"The broker does not support consumer to filter message by {kind}", ResponseCode.SYSTEM_ERROR)
    return encode_response(command, ResponseCode.SUCCESS)


def consumer_list(broker: Broker, conn: Connection, command: Command) -> Answer:
    group = command.header(GetConsumerListByGroup).consumer_group
    known = broker.clients.consumers.get(group)
    if known is None:
        raise RemoteProtocolError(f"no consumer for this group, {group}", ResponseCode.SYSTEM_ERROR)
    body = encode_body(ConsumerList(consumer_id_list=known.client_ids))
    return encode_response(command, ResponseCode.SUCCESS, body=body)


def lock_queues(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Lock queues for an orderly consumer; the answer lists the ones it holds now."""
    request = decode_body(command.body, LockBatchRequestBody)
    taken = broker.locks.lock(request.consumer_group, [one.queue for one in request.mq_set], request.client_id, broker.clock_ms())
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(LockBatchResponseBody([WireQueue.of(queue) for queue in taken])))


def unlock_queues(broker: Broker, conn: Connection, command: Command) -> Answer:
    request = decode_body(command.body, UnlockBatchRequestBody)
    broker.locks.unlock(request.consumer_group, [one.queue for one in request.mq_set], request.client_id)
    return None if command.is_oneway else encode_response(command, ResponseCode.SUCCESS)


HANDLERS = {
    RequestCode.HEART_BEAT: heart_beat,
    RequestCode.UNREGISTER_CLIENT: unregister_client,
    RequestCode.CHECK_CLIENT_CONFIG: check_client_config,
    RequestCode.GET_CONSUMER_LIST_BY_GROUP: consumer_list,
    RequestCode.LOCK_BATCH_MQ: lock_queues,
    RequestCode.UNLOCK_BATCH_MQ: unlock_queues,
}
