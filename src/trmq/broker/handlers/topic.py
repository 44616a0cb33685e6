"""Topics as tools and slaves see them: create, change, delete, list, and where their queues begin and end.

Source: reference "protocol" section 11.6; `AdminBrokerProcessor#updateAndCreateTopic`, `#deleteTopic`, `#getAllTopicConfig`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trmq.broker import attributes
from trmq.broker.stats import TOPIC_PUT_NUMS
from trmq.errors import RemoteProtocolError
from trmq.message import RETRY_PREFIX, MessageQueue
from trmq.remoting import Answer, Connection, Job
from trmq.wire.bodies import (
    CreateTopicListBody,
    DataVersion,
    TopicConfig,
    TopicConfigAndQueueMapping,
    TopicConfigSerializeWrapper,
    TopicList,
    decode_body,
    encode_body,
)
from trmq.wire.bodies.report import TopicOffset, TopicStatsTable
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import CreateTopic, DeleteTopic, GetAllTopicConfig, GetAllTopicConfigResponse, GetTopicConfig, GetTopicStatsInfo
from trmq.wire.names import check_topic, is_system_topic

if TYPE_CHECKING:
    from trmq.broker.service import Broker

QUEUES_MAX = 65_535
PERM_MAX = 15
FILTER_TYPES = ("SINGLE_TAG", "MULTI_TAG")


def update_topic(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(CreateTopic)
    known = broker.topics.get(header.topic)
    config = TopicConfig(
        topic_name=header.topic, read_queue_nums=header.read_queue_nums, write_queue_nums=header.write_queue_nums, perm=header.perm,
        topic_filter_type=header.topic_filter_type, topic_sys_flag=header.topic_sys_flag or 0, order=header.order,
        attributes=attributes.changed(known.attributes if known else {}, attributes.parse(header.attributes), attributes.TOPIC_VALUES),
    )
    check_config(broker, config)
    if config == known:
        return encode_response(command, ResponseCode.SUCCESS)
    broker.topics.update(config)
    return done_once_told(broker, command)


def update_topics(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Several at once: all of them are checked before the first is changed."""
    wanted = []
    for config in decode_body(command.body, CreateTopicListBody).topic_config_list:
        known = broker.topics.get(config.topic_name)
        kept = attributes.changed(known.attributes if known else {}, config.attributes, attributes.TOPIC_VALUES)
        config = msgspec.structs.replace(config, attributes=kept)
        check_config(broker, config)
        if config != known:
            wanted.append(config)
    for config in wanted:
        broker.topics.update(config)
    return done_once_told(broker, command)


def done_once_told(broker: Broker, command: Command) -> Answer:
    """SUCCESS once the name servers have the new topics too, so that whoever created one finds its route at once (as with Apache)."""

    async def answer() -> bytes:
        await broker.registration.told()
        return encode_response(command, ResponseCode.SUCCESS)

    return Job(answer)


def check_config(broker: Broker, config: TopicConfig) -> None:
    """Raises `RemoteProtocolError` (INVALID_PARAMETER) naming what is wrong with a topic somebody wants."""
    topic = config.topic_name
    complaint = check_topic(topic)
    if complaint is None and reserved(broker, topic):
        complaint = f"The topic[{topic}] is conflict with system topic."
    for name, count in (("readQueueNums", config.read_queue_nums), ("writeQueueNums", config.write_queue_nums)):
        if complaint is None and not 0 <= count <= QUEUES_MAX:
            complaint = f"{name} of topic {topic} is {count}, it must lie between 0 and {QUEUES_MAX}"
    if complaint is None and not 0 <= config.perm <= PERM_MAX:
        complaint = f"perm of topic {topic} is {config.perm}, it must be a sum of 4 (read), 2 (write), 1 (inherit) and 8 (priority)"
    if complaint is None and config.topic_filter_type not in FILTER_TYPES:
        complaint = f"topicFilterType of topic {topic} is {config.topic_filter_type}, it must be one of {', '.join(FILTER_TYPES)}"
    if complaint is not None:
        raise RemoteProtocolError(complaint, ResponseCode.INVALID_PARAMETER)


def reserved(broker: Broker, topic: str) -> bool:
    """Topics the broker needs itself: nobody changes or deletes them."""
    return is_system_topic(topic) or topic in broker.topics.system


def delete_topic(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Forget the topic, its queues and the offsets of its consumers, and the retry topics that pop consumers made for it."""
    topic = command.header(DeleteTopic).topic
    if not topic.strip():
        raise RemoteProtocolError("The specified topic is blank.", ResponseCode.INVALID_PARAMETER)
    if reserved(broker, topic):
        raise RemoteProtocolError(f"The topic[{topic}] is conflict with system topic.", ResponseCode.INVALID_PARAMETER)
    names = [f"{RETRY_PREFIX}{group}{mark}{topic}" for group in broker.offsets.groups_of(topic) for mark in "_+"]
    for name in [topic, *(name for name in names if name in broker.topics)]:
        broker.topics.delete(name)
        broker.offsets.remove_topic(name)
        if "/" not in name:
            broker.store.delete_topic(name)
        broker.stats.forget(name)
    return encode_response(command, ResponseCode.SUCCESS)


def page(names: list[str], version: DataVersion, asked: str | None, first: int | None, count: int | None) -> list[str]:
    """The part of a table that a paging asker wants next; from the start again if the table changed since its last page."""
    if asked is None and first is None and count is None:
        return names
    start = first or 0
    if not asked or decode_body(asked, DataVersion) != version:  # the first page is asked for with an empty version
        start = 0
    return names[max(0, start) : max(0, start) + max(0, len(names) if count is None else count)]


def all_topics(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Every topic with the table's version; slaves copy from this."""
    header = command.header(GetAllTopicConfig)
    table, version = broker.topics.table, broker.topics.version
    names = page(list(table), version, header.data_version, header.topic_seq, header.max_topic_num)
    body = TopicConfigSerializeWrapper(data_version=version, topic_config_table={name: table[name] for name in names})
    return encode_response(command, ResponseCode.SUCCESS, GetAllTopicConfigResponse(len(table)), body=encode_body(body))


def topic_config(broker: Broker, conn: Connection, command: Command) -> Answer:
    topic = command.header(GetTopicConfig).topic
    config = broker.topics.get(topic)
    if config is None:
        raise RemoteProtocolError(f"No topic in this broker. topic: {topic}", ResponseCode.TOPIC_NOT_EXIST)
    body = TopicConfigAndQueueMapping(**msgspec.structs.asdict(config))
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


def topic_stats(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Where each queue begins and ends, when its last message came, and how fast messages come."""
    topic = command.header(GetTopicStatsInfo).topic
    config = broker.topics.get(topic)
    if config is None:
        raise RemoteProtocolError(f"topic[{topic}] not exist", ResponseCode.TOPIC_NOT_EXIST)
    table = TopicStatsTable(topic_put_tps=broker.stats.minute_rate(TOPIC_PUT_NUMS, topic))
    for queue_id in range(max(config.write_queue_nums, config.read_queue_nums)):
        queue = broker.store.queue(topic, queue_id)
        offset = TopicOffset()
        if queue is not None:
            offset.min_offset, offset.max_offset = queue.min_offset, queue.max_offset
            if queue.max_offset > 0:
                offset.last_update_timestamp = broker.store.store_time(topic, queue_id, queue.max_offset - 1) or 0
        table.offset_table[MessageQueue(topic, broker.config.broker_name, queue_id)] = offset
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(table))


def system_topics(broker: Broker, conn: Connection, command: Command) -> Answer:
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(TopicList(topic_list=sorted(broker.topics.system))))


def clean_unused_topic(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Remove the queues of topics that no longer exist (a slave's, or what a stop in the middle of a deletion left)."""
    for topic in sorted({topic for topic, _ in broker.store.queues()}):
        if topic not in broker.topics and not reserved(broker, topic):
            broker.store.delete_topic(topic)
    return encode_response(command, ResponseCode.SUCCESS)


HANDLERS = {
    RequestCode.UPDATE_AND_CREATE_TOPIC: update_topic,
    RequestCode.UPDATE_AND_CREATE_TOPIC_LIST: update_topics,
    RequestCode.DELETE_TOPIC_IN_BROKER: delete_topic,
    RequestCode.GET_ALL_TOPIC_CONFIG: all_topics,
    RequestCode.GET_TOPIC_CONFIG: topic_config,
    RequestCode.GET_TOPIC_STATS_INFO: topic_stats,
    RequestCode.GET_SYSTEM_TOPIC_LIST_FROM_BROKER: system_topics,
    RequestCode.CLEAN_UNUSED_TOPIC: clean_unused_topic,
}
