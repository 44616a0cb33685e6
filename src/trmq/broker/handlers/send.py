"""Sending: one message (10, 310) or a batch (320, or any of them with `batch`), stored and answered.

This is the broker's hot path: per message one typed header, one look at the topic, one pass over the properties, one
append, one formatted answer. Nothing waits here; `Broker.finish` commits once per read batch, and only then are the
answers given.

A message is stored as it was sent, plus MSG_REGION, TRACE_ON, CLUSTER and, if it has none, a UNIQ_KEY; POP_CK goes. A
DELAY level sends it through the schedule topic, a retry message beyond its limit into the dead-letter topic.

Source: reference "protocol" sections 7, 8, 11.2, "client_behaviour" section 6; `AbstractSendMessageProcessor#msgCheck`,
`SendMessageProcessor#sendMessage`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from trmq.broker.stored import Sent
from trmq.errors import RemoteProtocolError
from trmq.host import Buffer
from trmq.log.dispatch import index_keys
from trmq.message import (
    CLUSTER,
    DELAY,
    DLQ_PREFIX,
    MSG_REGION,
    MULTI_TAGS,
    POP_CK,
    PROPERTIES_BYTES_MAX,
    RETRY_PREFIX,
    TAGS,
    TIMER_DELAY_MS,
    TIMER_DELAY_SEC,
    TIMER_DELIVER_MS,
    TRACE_ON,
    TRAN_MSG,
    UNIQ_KEY,
    WAIT,
    encode_properties,
    split_unique,
    tags_code,
)
from trmq.remoting import Answer, Connection
from trmq.wire.batch import decode_batch
from trmq.wire.bodies import TopicConfig
from trmq.wire.codes import VERSION_MAX_RECONSUME_TIMES, RequestCode, ResponseCode
from trmq.wire.command import Command, send_ok
from trmq.wire.headers.send import SendMessage, SendMessageV2
from trmq.wire.names import NOT_SENDABLE_TOPICS, check_topic

if TYPE_CHECKING:
    from trmq.broker.service import Broker

RARE = frozenset({POP_CK, DELAY, TRAN_MSG, CLUSTER, MSG_REGION, TRACE_ON, TIMER_DELAY_SEC, TIMER_DELAY_MS, TIMER_DELIVER_MS})
"""Properties that take a message off the straight path."""
WRITE = 2
SEND_BATCH_MESSAGE = int(RequestCode.SEND_BATCH_MESSAGE)
UNIT, UNIT_SUBSCRIPTION = 1, 2
"""Topic flags of unit mode."""
RETRY_TIMES = 16


def send_message(broker: Broker, conn: Connection, command: Command) -> Answer:
    return _send(broker, conn, command, command.header(SendMessage))


def send_message_v2(broker: Broker, conn: Connection, command: Command) -> Answer:
    try:
        header: SendMessage = command.header(SendMessageV2)
    except RemoteProtocolError:
        if "b" in command.ext or "topic" not in command.ext:
            raise
        header = command.header(SendMessage)  # some clients send the long names under the new codes
    return _send(broker, conn, command, header)


class Own(NamedTuple):
    """What the broker wants to know of a message's properties."""

    rare: bool  # off the straight path: to be parsed again and written anew
    alone: bool  # nothing for a batch
    unique: str
    tags_code: int
    keys: tuple[str, ...]  # it is found by these, beside the unique one
    waits: bool  # for the flush


def _pairs(text: str) -> dict[str, str]:
    """The properties, also those without a name or a value; of two with one name the last."""
    found = {}
    for pair in text.split("\x02"):
        name, mark, value = pair.partition("\x01")
        if mark:
            found[name] = value
    return found


def _read(text: str) -> Own:
    pairs = _pairs(text)
    unique, tags = pairs.pop(UNIQ_KEY, ""), pairs.get(TAGS)
    return Own(
        rare=not RARE.isdisjoint(pairs) or "" in pairs, alone=DELAY in pairs or TRAN_MSG in pairs, unique=unique,
        tags_code=tags_code(tags) if tags else 0, keys=tuple(index_keys(pairs)), waits=pairs.get(WAIT) != "false",
    )  # fmt: skip


_remembered = lru_cache(maxsize=4096)(_read)


def _own(text: str) -> tuple[str, Own]:
    """The unique key ("" without one) and the rest: messages of one producer mostly differ in nothing but the former."""
    unique, rest = split_unique(text)
    if not unique:
        own = _read(text)
        return own.unique, own
    return unique, _remembered(rest)


def _send(broker: Broker, conn: Connection, command: Command, header: SendMessage) -> Answer:
    topic = header.topic
    config = broker.topics.table.get(topic)
    if config is None or not config.perm & WRITE or not broker.writable or topic in NOT_SENDABLE_TOPICS:
        config = admit(broker, header)
    queue_id = header.queue_id
    if queue_id >= config.write_queue_nums and queue_id >= config.read_queue_nums:
        raise RemoteProtocolError(
            f"request queueId[{queue_id}] is illegal, topic {topic} has {max(config.write_queue_nums, config.read_queue_nums)} queues",
            ResponseCode.INVALID_PARAMETER,
        )
    if queue_id < 0:
        queue_id = broker.host.random.randrange(max(1, config.write_queue_nums))
    if header.batch or command.code == SEND_BATCH_MESSAGE:
        return _send_batch(broker, conn, command, header, config, queue_id)
    body = command.body
    if not body:
        raise RemoteProtocolError("the message has no body: send at least one byte", ResponseCode.MESSAGE_ILLEGAL)

    text = header.properties or ""
    unique, own = _own(text)
    if topic[0] == "%" or own.rare:
        return _send_rare(broker, conn, command, header, config, queue_id, _pairs(text))
    if broker.replication.gated and own.waits:
        broker.replication.check()
    if text and text[-1] != "\x02":
        text += "\x02"
    if not unique:
        unique = broker.unique_key()
        text += f"{UNIQ_KEY}\x01{unique}\x02"
    stored = text.encode() + broker.properties_suffix
    if len(stored) > PROPERTIES_BYTES_MAX:
        raise too_long(stored)
    sys_flag = header.sys_flag
    if config.topic_filter_type == "MULTI_TAG":
        sys_flag |= MULTI_TAGS
    put = broker.store.append(
        topic, queue_id, body, stored, header.flag, sys_flag, header.born_timestamp, conn.state["born_host"],
        header.reconsume_times or 0, own.tags_code, (unique, *own.keys),
    )
    broker.stats.topic_puts[topic] += 1
    phy, queue_offset, size = put
    message_id = f"{broker.message_id_prefix}{phy:016X}"
    answer = None if command.flag & 2 else send_ok(command, 0, message_id, queue_id, queue_offset, unique)
    return Sent(command, answer, phy + size, own.waits, message_id, queue_id, queue_offset, unique)


def admit(broker: Broker, header: SendMessage) -> TopicConfig:
    """The topic a message may be sent to, created if need be. Raises the refusal (16, 17, 29) otherwise."""
    topic = header.topic
    if not broker.writable:
        raise RemoteProtocolError(
            f"the broker[{broker.config.broker_ip1}] sending message is forbidden: brokerPermission lacks write", ResponseCode.NO_PERMISSION
        )
    complaint = check_topic(topic)
    if complaint is not None:
        raise RemoteProtocolError(complaint, ResponseCode.INVALID_PARAMETER)
    if topic in NOT_SENDABLE_TOPICS:
        raise RemoteProtocolError(f"Sending message to topic[{topic}] is forbidden.", ResponseCode.NO_PERMISSION)
    config = broker.topics.get(topic)
    if config is None:
        flag = 0
        if header.unit_mode:
            flag = UNIT_SUBSCRIPTION if topic.startswith(RETRY_PREFIX) else UNIT
        config = broker.topics.create_for_send(topic, header.default_topic, header.default_topic_queue_nums, flag)
    if config is None:
        raise RemoteProtocolError(f"topic[{topic}] not exist, apply first please!", ResponseCode.TOPIC_NOT_EXIST)
    if not config.perm & WRITE:
        raise RemoteProtocolError(f"the topic[{topic}] sending message is forbidden", ResponseCode.NO_PERMISSION)
    return config


def too_long(stored: bytes) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"the message's properties have {len(stored)} bytes (with what the broker adds), at most {PROPERTIES_BYTES_MAX} can be stored",
        ResponseCode.MESSAGE_ILLEGAL,
    )


def _send_rare(
    broker: Broker, conn: Connection, command: Command, header: SendMessage, config: TopicConfig, queue_id: int, properties: dict[str, str],
) -> Answer:
    """A message that is delayed, retried, sent again or half of a transaction: the properties are written anew."""
    topic = header.topic
    if properties.get(TRAN_MSG, "").lower() == "true":
        raise RemoteProtocolError(
            f"the broker[{broker.config.broker_ip1}] sending transaction message is forbidden", ResponseCode.NO_PERMISSION
        )
    properties = {name: value for name, value in properties.items() if name and value and name != POP_CK}
    if properties.get(WAIT) != "false":
        broker.replication.check()
    if topic.startswith(RETRY_PREFIX):
        topic, queue_id = _dead_letter(broker, command, header, topic, queue_id, properties)
    if not properties.get(UNIQ_KEY):
        properties[UNIQ_KEY] = broker.unique_key()
    properties.update(broker.own_properties)
    sys_flag = header.sys_flag | (MULTI_TAGS if config.topic_filter_type == "MULTI_TAG" else 0)
    put = broker.put(
        topic, queue_id, command.body, properties, flag=header.flag, sys_flag=sys_flag, born_ms=header.born_timestamp,
        born_host=conn.state["born_host"], reconsume_times=header.reconsume_times or 0,
    )
    message_id = f"{broker.message_id_prefix}{put.phy_offset:016X}"
    unique, waits = properties[UNIQ_KEY], properties.get(WAIT) != "false"
    answer = None if command.is_oneway else send_ok(command, 0, message_id, queue_id, put.queue_offset, unique)
    return Sent(command, answer, put.phy_offset + put.size, waits, message_id, queue_id, put.queue_offset, unique)


def _dead_letter(
    broker: Broker, command: Command, header: SendMessage, topic: str, queue_id: int, properties: dict[str, str],
) -> tuple[str, int]:
    """Where a message sent to a retry topic goes: there, or to the dead-letter topic when it was tried too often.

    A group that holds queue locks consumes in order; what it gives up goes straight to the dead-letter topic.
    Source: `SendMessageProcessor#handleRetryAndDLQ`.
    """
    group = topic[len(RETRY_PREFIX) :]
    config = broker.groups.find(group)
    if config is None:
        raise RemoteProtocolError(f"subscription group not exist, {group}", ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST)
    times_max = config.retry_max_times
    if command.version >= VERSION_MAX_RECONSUME_TIMES and header.max_reconsume_times is not None:
        times_max = header.max_reconsume_times
    if (header.reconsume_times or 0) <= times_max and not broker.locks.any_held(group, broker.clock_ms()):
        return topic, queue_id
    dead = DLQ_PREFIX + group
    broker.topics.create(dead, 1)
    properties.pop(DELAY, None)
    return dead, 0


def _send_batch(
    broker: Broker, conn: Connection, command: Command, header: SendMessage, config: TopicConfig, queue_id: int
) -> Answer:
    """Several messages for one queue: consecutive records, all or nothing."""
    topic = header.topic
    if topic.startswith(RETRY_PREFIX):
        raise RemoteProtocolError("a batch cannot be sent to a retry topic", ResponseCode.MESSAGE_ILLEGAL)
    common, waits = _common_properties(broker, header)
    if waits:
        broker.replication.check()
    parts: list[tuple[int, Buffer, bytes, int, tuple[str, ...]]] = []
    for flag, body, properties in decode_batch(command.body):
        unique, own = _own(properties.decode("utf-8", "replace"))
        if own.alone:
            complaint = "a batch cannot hold delayed or transactional messages; send them one by one"
            raise RemoteProtocolError(complaint, ResponseCode.MESSAGE_ILLEGAL)
        stored = properties + common if not properties or properties[-1] == 2 else properties + b"\x02" + common
        if len(stored) > PROPERTIES_BYTES_MAX:
            raise too_long(stored)
        parts.append((flag, body, stored, own.tags_code, (unique, *own.keys) if unique else own.keys))
    sys_flag = header.sys_flag | (MULTI_TAGS if config.topic_filter_type == "MULTI_TAG" else 0)
    puts = broker.store.append_batch(
        topic, queue_id, parts, sys_flag, header.born_timestamp, conn.state["born_host"], header.reconsume_times or 0
    )
    broker.stats.topic_puts[topic] += len(puts)
    prefix = broker.message_id_prefix
    message_id = ",".join([f"{prefix}{phy:016X}" for phy, _, _ in puts])
    first, last = puts[0], puts[-1]
    answer = None if command.is_oneway else send_ok(command, 0, message_id, queue_id, first.queue_offset)
    return Sent(command, answer, last.phy_offset + last.size, waits, message_id, queue_id, first.queue_offset, "")


def _common_properties(broker: Broker, header: SendMessage) -> tuple[bytes, bool]:
    """What every record of a batch gets besides its own (the properties of the request, and the broker's), and whether to wait."""
    pairs = [pair.partition("\x01") for pair in (header.properties or "").split("\x02")]
    kept = {name: value for name, mark, value in pairs if mark and name and value and name not in RARE}
    return encode_properties(kept) + broker.properties_suffix, kept.get(WAIT) != "false"


HANDLERS = {
    RequestCode.SEND_MESSAGE: send_message,
    RequestCode.SEND_MESSAGE_V2: send_message_v2,
    RequestCode.SEND_BATCH_MESSAGE: send_message_v2,
}
