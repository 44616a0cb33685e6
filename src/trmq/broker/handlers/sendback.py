"""CONSUMER_SEND_MSG_BACK: a consumer could not handle a message and gives it back, to get it again later or never.

The copy goes to the group's retry topic with a delay level that grows with the number of tries, so it passes through the
schedule topic; after the group's maximum it goes to the dead-letter topic, and there it stays. The copy keeps body, keys,
UNIQ_KEY, flags and born data; RETRY_TOPIC names the topic the message first came from, ORIGIN_MESSAGE_ID its first record.

Stricter than Apache in one point: under SYNC_FLUSH the answer waits for the disk. The consumer moves its offset past the
message because of this answer, so a copy lost by a power cut would be a lost message.

Source: reference "client_behaviour" section 6; `AbstractSendMessageProcessor#consumerSendMsgBack`. Upholds P-RTY-1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trmq.broker.stored import Stored
from trmq.errors import RemoteProtocolError
from trmq.message import DELAY, ORIGIN_MESSAGE_ID, RETRY_TOPIC, StoredMessage, encode_host, message_id
from trmq.record import decode_record
from trmq.remoting import Answer, Connection
from trmq.wire.codes import VERSION_MAX_RECONSUME_TIMES, RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import ConsumerSendMsgBack
from trmq.wire.names import dlq_topic, retry_topic

if TYPE_CHECKING:
    from trmq.broker.service import Broker

WRITE = 2
UNIT_SUBSCRIPTION = 2
DEAD_LETTER_QUEUES = 1
FIRST_LEVEL = 3
"""Delay level of the first retry (10 s); each further one waits a level longer."""


def send_back(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(ConsumerSendMsgBack)
    group = broker.groups.find(header.group)
    if group is None:
        raise RemoteProtocolError(f"subscription group not exist, {header.group}", ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST)
    if not broker.config.broker_permission & WRITE:
        raise RemoteProtocolError(f"the broker[{broker.config.broker_ip1}] sending message is forbidden", ResponseCode.NO_PERMISSION)
    if group.retry_queue_nums <= 0:
        return None if command.is_oneway else encode_response(command, ResponseCode.SUCCESS)
    broker.replication.check()
    topic = retry_topic(header.group)
    config = broker.topics.create(topic, group.retry_queue_nums, sys_flag=UNIT_SUBSCRIPTION if header.unit_mode else 0)
    if not config.perm & WRITE:
        raise RemoteProtocolError(f"the topic[{topic}] sending message is forbidden", ResponseCode.NO_PERMISSION)
    view = broker.store.record(header.offset)
    if view is None:
        raise RemoteProtocolError(f"look message by offset failed, {header.offset}", ResponseCode.SYSTEM_ERROR)
    message = decode_record(view)
    times_max = group.retry_max_times
    if command.version >= VERSION_MAX_RECONSUME_TIMES and header.max_reconsume_times is not None:
        times_max = header.max_reconsume_times
    properties = retried_properties(message)
    level = next_level(header.delay_level, message.reconsume_times, times_max)
    if level is None:
        topic = dlq_topic(header.group)
        broker.topics.create(topic, DEAD_LETTER_QUEUES)
        queue_id = 0
    else:
        queue_id = broker.host.random.randrange(group.retry_queue_nums)
        properties[DELAY] = str(level)
    put = broker.put(
        topic, queue_id, message.body, properties, flag=message.flag, sys_flag=message.sys_flag, born_ms=message.born_ms,
        born_host=encode_host(message.born_host), reconsume_times=message.reconsume_times + 1,
    )
    broker.stats.sent_back(header.group, properties[RETRY_TOPIC])
    answer = None if command.is_oneway else encode_response(command, ResponseCode.SUCCESS)
    return Stored(command, answer, put.phy_offset + put.size, waits=True)


def next_level(asked: int, times: int, times_max: int) -> int | None:
    """The delay level of a message that came back `times` times before; None: it does not any more, it goes to the dead letters.

    What its consumer asked for: a level, 0 to leave it to the broker, less than 0 to see it never again.

    post: (__return__ is None) == (asked < 0 or times >= times_max)
    post: implies(__return__ is not None and asked > 0, __return__ == asked)
    post: implies(__return__ is not None and asked == 0, __return__ == 3 + times)
    """
    if asked < 0 or times >= times_max:
        return None
    return asked or FIRST_LEVEL + times


def retried_properties(message: StoredMessage) -> dict[str, str]:
    """What the copy says: where the message first came from, and that nobody waits for it."""
    properties = {name: value for name, value in message.properties.items() if name != DELAY}
    properties.setdefault(RETRY_TOPIC, message.topic)
    properties.setdefault(ORIGIN_MESSAGE_ID, message_id(encode_host(message.store_host), message.phy_offset))
    properties["WAIT"] = "false"
    return properties


HANDLERS = {RequestCode.CONSUMER_SEND_MSG_BACK: send_back}
