"""What groups have consumed and how far behind they are; moving them, by an administrator.

A reset is done on the broker's side: the new offset is stored, and the group's next pull of the queue is told to go there
(21). Commits are ignored until then, so a consumer that is still busy cannot undo it.

Source: reference "client_behaviour" section 13, "protocol" section 11.6; `AdminBrokerProcessor#getConsumeStats`, `#resetOffset`
(`useServerSideResetOffset`), `#queryConsumeTimeSpan` and neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trmq.broker.stats import GROUP_GET_NUMS
from trmq.errors import RemoteProtocolError
from trmq.message import MessageQueue
from trmq.remoting import Answer, Connection
from trmq.wire.bodies import GroupList, TopicConfig, TopicList, WireQueue, encode_body
from trmq.wire.bodies.report import (
    ConsumeStats,
    ConsumeStatsList,
    OffsetWrapper,
    QueryConsumeTimeSpanBody,
    QueryCorrectionOffsetBody,
    QuerySubscriptionResponseBody,
    QueueTimeSpan,
    ResetOffsetBody,
)
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import (
    CloneGroupOffset,
    GetBrokerConsumeStats,
    GetConsumeStats,
    QueryConsumeTimeSpan,
    QueryCorrectionOffset,
    QuerySubscriptionByConsumer,
    QueryTopicConsumeByWho,
    QueryTopicsByConsumer,
    ResetConsumerClientOffset,
)

if TYPE_CHECKING:
    from trmq.broker.service import Broker

LONG_MAX = (1 << 63) - 1


def _ends(broker: Broker, topic: str, queue_id: int) -> tuple[int, int]:
    """(min, max) offset of a queue; (0, 0) if it never held a message."""
    queue = broker.store.queue(topic, queue_id)
    return (0, 0) if queue is None else (queue.min_offset, queue.max_offset)


def _known_topic(broker: Broker, topic: str) -> TopicConfig:
    config = broker.topics.get(topic)
    if config is None:
        raise RemoteProtocolError(f"topic[{topic}] not exist", ResponseCode.TOPIC_NOT_EXIST)
    return config


def _consumed(broker: Broker, group: str, topics: Iterable[str]) -> Iterable[str]:
    """The topics of `topics` that exist and that the group subscribes to; all that exist while nobody of the group is connected."""
    known = broker.clients.consumers.get(group)
    for topic in topics:
        if topic in broker.topics and (known is None or not known.subscriptions or topic in known.subscriptions):
            yield topic


def _add_stats(broker: Broker, stats: ConsumeStats, group: str, topic: str, queue_count: int) -> None:
    for queue_id in range(queue_count):
        consumed = max(0, broker.offsets.query(group, topic, queue_id) or 0)
        pulled = broker.offsets.query_pull(group, topic, queue_id) or 0
        last = broker.store.store_time(topic, queue_id, consumed - 1) if consumed else None
        stats.offset_table[MessageQueue(topic, broker.config.broker_name, queue_id)] = OffsetWrapper(
            broker_offset=_ends(broker, topic, queue_id)[1], consumer_offset=consumed, pull_offset=max(consumed, pulled),
            last_timestamp=last or 0,
        )
    stats.consume_tps += broker.stats.minute_rate(GROUP_GET_NUMS, f"{topic}@{group}")


def consume_stats(broker: Broker, conn: Connection, command: Command) -> Answer:
    """How far a group is in its topics, in one, or in a list of them."""
    header = command.header(GetConsumeStats)
    group = header.consumer_group
    topics: Iterable[str]
    if header.topic_list:
        topics = [topic for topic in header.topic_list.split(";") if topic in broker.topics]
    else:
        topics = _consumed(broker, group, [header.topic] if header.topic else broker.offsets.topics_of(group))
    stats = ConsumeStats()
    for topic in topics:
        _add_stats(broker, stats, group, topic, broker.topics.table[topic].read_queue_nums)
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(stats))


def broker_consume_stats(broker: Broker, conn: Connection, command: Command) -> Answer:
    """The same for every group of the broker, with the sum of what waits for them."""
    only_ordered = command.header(GetBrokerConsumeStats).is_order
    answer = ConsumeStatsList(broker_addr=f"{broker.config.broker_ip1}:{broker.address[1]}")
    for group in broker.groups.table:
        listed = []
        for topic in _consumed(broker, group, broker.offsets.topics_of(group)):
            config = broker.topics.table[topic]
            if only_ordered and not config.order:
                continue
            stats = ConsumeStats()
            _add_stats(broker, stats, group, topic, config.write_queue_nums)
            answer.total_diff += sum(one.broker_offset - one.consumer_offset for one in stats.offset_table.values())
            answer.total_inflight_diff += sum(one.pull_offset - one.consumer_offset for one in stats.offset_table.values())
            listed.append(stats)
        answer.consume_stats_list.append({group: listed})
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(answer))


def reset_offset(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Move a group in a topic (or in one queue of it) to an offset or to a time; a negative time means the end."""
    header = command.header(ResetConsumerClientOffset)
    topic, group = header.topic, header.group
    config = broker.topics.get(topic)
    if config is None:
        raise RemoteProtocolError(f"Topic {topic} does not exist", ResponseCode.TOPIC_NOT_EXIST)
    if broker.groups.get(group) is None:
        raise RemoteProtocolError(f"Group {group} does not exist", ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST)
    queue_id = -1 if header.queue_id is None else header.queue_id
    if queue_id >= max(config.read_queue_nums, 1):
        complaint = f"queueId {queue_id} is out of range, topic {topic} has {config.read_queue_nums} queues to read"
        raise RemoteProtocolError(complaint, ResponseCode.INVALID_PARAMETER)
    moved: dict[int, int] = {}
    if queue_id >= 0 and header.offset is not None and header.offset != -1:
        low, high = _ends(broker, topic, queue_id)
        if not low <= header.offset <= high:
            raise RemoteProtocolError(
                f"Target offset {header.offset} not in consume queue range [{low}-{high}]", ResponseCode.SYSTEM_ERROR
            )
        moved[queue_id] = header.offset
    else:
        for one in [queue_id] if queue_id >= 0 else range(config.read_queue_nums):
            moved[one] = _ends(broker, topic, one)[1] if header.timestamp < 0 else broker.store.offset_by_time(topic, one, header.timestamp)
    if not moved:
        raise RemoteProtocolError("No queues to reset.", ResponseCode.SYSTEM_ERROR)
    body = ResetOffsetBody()
    for one, offset in moved.items():
        broker.offsets.reset(group, topic, one, offset)
        body.offset_table[MessageQueue(topic, broker.config.broker_name, one)] = offset
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


def clone_offsets(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Give one group the offsets of another. Unless `offline`, only of topics the source group subscribes to now."""
    header = command.header(CloneGroupOffset)
    topics: Iterable[str] = [header.topic] if header.topic else broker.offsets.topics_of(header.src_group)
    if not header.offline:
        topics = list(_consumed(broker, header.src_group, topics))
    for topic in topics:
        if topic in broker.topics:
            broker.offsets.clone(header.src_group, header.dest_group, topic)
    return encode_response(command, ResponseCode.SUCCESS)


def who_consumes(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Groups that subscribe to a topic now, or once committed offsets of it."""
    topic = command.header(QueryTopicConsumeByWho).topic
    groups = {*broker.clients.groups_of_topic(topic), *broker.offsets.groups_of(topic)}
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(GroupList(sorted(groups))))


def topics_of_group(broker: Broker, conn: Connection, command: Command) -> Answer:
    group = command.header(QueryTopicsByConsumer).group
    body = TopicList(broker.offsets.topics_of(group), f"{broker.config.broker_ip1}:{broker.address[1]}")
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


def subscription_of_group(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(QuerySubscriptionByConsumer)
    known = broker.clients.consumers.get(header.group)
    found = None if known is None else known.subscriptions.get(header.topic or "")
    body = QuerySubscriptionResponseBody(None if found is None else found.data, header.group, header.topic)
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


def consume_time_span(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Per queue: when its first and last messages came, up to when the group has consumed, and how late it is. Times are ms."""
    header = command.header(QueryConsumeTimeSpan)
    topic, now, time_of = header.topic, broker.now_ms(), broker.store.store_time
    body = QueryConsumeTimeSpanBody()
    for queue_id in range(_known_topic(broker, topic).write_queue_nums):
        low, high = _ends(broker, topic, queue_id)
        first = time_of(topic, queue_id, low)
        consumed = broker.offsets.query(header.group, topic, queue_id) or 0
        span = QueueTimeSpan(WireQueue(broker.config.broker_name, queue_id, topic), min_time_stamp=-1 if first is None else first)
        last = time_of(topic, queue_id, high - 1)
        span.max_time_stamp = -1 if last is None else last
        before = time_of(topic, queue_id, consumed - 1) if consumed > 0 else None
        span.consume_time_stamp = span.min_time_stamp if before is None else before
        following = time_of(topic, queue_id, max(consumed, low)) if consumed < high else None
        if following is not None:
            span.delay_time = now - following
        body.consume_time_span_set.append(span)
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


def correction_offset(broker: Broker, conn: Connection, command: Command) -> Answer:
    """The smallest offset of any group (but those in `filterGroups`) per queue, LONG_MAX where the compared group is behind it."""
    header = command.header(QueryCorrectionOffset)
    skipped = {name.strip() for name in (header.filter_groups or "").split(",")}
    smallest: dict[int, int] = {}
    for group in broker.offsets.groups_of(header.topic):
        if group in skipped:
            continue
        for queue_id, offset in broker.offsets.queues_of(group, header.topic).items():
            smallest[queue_id] = min(offset, smallest.get(queue_id, LONG_MAX))
    for queue_id, offset in broker.offsets.queues_of(header.compare_group, header.topic).items():
        if smallest.get(queue_id, LONG_MAX) > offset:
            smallest[queue_id] = LONG_MAX
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(QueryCorrectionOffsetBody(smallest)))


HANDLERS = {
    RequestCode.GET_CONSUME_STATS: consume_stats,
    RequestCode.GET_BROKER_CONSUME_STATS: broker_consume_stats,
    RequestCode.INVOKE_BROKER_TO_RESET_OFFSET: reset_offset,
    RequestCode.CLONE_GROUP_OFFSET: clone_offsets,
    RequestCode.QUERY_TOPIC_CONSUME_BY_WHO: who_consumes,
    RequestCode.QUERY_TOPICS_BY_CONSUMER: topics_of_group,
    RequestCode.QUERY_SUBSCRIPTION_BY_CONSUMER: subscription_of_group,
    RequestCode.QUERY_CONSUME_TIME_SPAN: consume_time_span,
    RequestCode.QUERY_CORRECTION_OFFSET: correction_offset,
}
