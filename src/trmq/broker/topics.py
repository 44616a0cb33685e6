"""Topics: how many queues each has and who may read and write them. Persisted as Apache's config/topics.json.

An unknown topic comes into being at its first message, shaped after a template the producer names (normally TBW102, which
exists only with autoCreateTopicEnable). Retry and dead-letter topics are made when they are first needed. Every change
gives a new DataVersion and is told to the name servers at once: a client that has just heard of a topic asks for its
route in the same breath.

Source: reference "protocol" section 7, "namesrv" section 2; `TopicConfigManager`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from trmq.config import BrokerConfig
from trmq.message import AUTO_CREATE_TOPIC, RETRY_PREFIX, SCHEDULE_TOPIC
from trmq.wire.bodies import Body, DataVersion, TopicConfig, TopicConfigSerializeWrapper, decode_body, encode_body

from .version import next_version

PATH = "config/topics.json"
INHERIT, WRITE, READ = 1, 2, 4
SCHEDULE_QUEUES = 18


class _File(Body):
    """The text of topics.json."""

    data_version: DataVersion = DataVersion()
    topic_config_table: dict[str, TopicConfig] = msgspec.field(default_factory=dict)


def queues(name: str, count: int, perm: int = READ | WRITE, sys_flag: int = 0) -> TopicConfig:
    return TopicConfig(topic_name=name, read_queue_nums=count, write_queue_nums=count, perm=perm, topic_sys_flag=sys_flag)


def system_topics(config: BrokerConfig) -> list[TopicConfig]:
    """The topics every broker has and registers from the first moment."""
    cluster, name = config.broker_cluster_name, config.broker_name
    topics = [
        queues("SELF_TEST_TOPIC", 1), queues("BenchmarkTest", 1024),
        queues(cluster, 16, INHERIT | READ | WRITE if config.cluster_topic_enable else INHERIT),
        queues(name, 1, INHERIT | READ | WRITE if config.broker_topic_enable else INHERIT),
        queues("OFFSET_MOVED_EVENT", 1), queues(SCHEDULE_TOPIC, SCHEDULE_QUEUES), queues(f"{cluster}_REPLY_TOPIC", 1),
        queues(f"rmq_sys_REVIVE_LOG_{cluster}", 8), queues(f"rmq_sys_SYNC_BROKER_MEMBER_{name}", 1, INHERIT),
        queues("RMQ_SYS_TRANS_HALF_TOPIC", 1), queues("RMQ_SYS_TRANS_OP_HALF_TOPIC", 1), queues("rmq_sys_wheel_timer", 1),
    ]
    if config.auto_create_topic_enable:
        topics.append(queues(AUTO_CREATE_TOPIC, config.default_topic_queue_nums, INHERIT | READ | WRITE))
    if config.trace_topic_enable:
        topics.append(queues(config.msg_trace_topic_name, 1))
    return topics


class TopicTable:
    """The topics of one broker. `changed(names)` is called after every change with the topics it touched."""

    def __init__(self, config: BrokerConfig, now_ms: Callable[[], int], changed: Callable[[Iterable[str]], None]) -> None:
        self._config = config
        self._now_ms = now_ms
        self._changed = changed
        self.version = DataVersion(counter=0, state_version=0, timestamp=now_ms())
        self.table: dict[str, TopicConfig] = {}
        self.system: frozenset[str] = frozenset()
        self._add_system_topics()

    def get(self, topic: str) -> TopicConfig | None:
        return self.table.get(topic)

    def __contains__(self, topic: str) -> bool:
        return topic in self.table

    def create_for_send(self, topic: str, template: str, queue_count: int, sys_flag: int = 0) -> TopicConfig | None:
        """The topic a producer's first message makes: its queues and permissions come from `template`.

        None when the template doesn't exist or may not be inherited from. A retry topic is made anyway, with one queue.
        Source: `TopicConfigManager#createTopicInSendMessageMethod`, `AbstractSendMessageProcessor#msgCheck`.
        """
        known = self.table.get(topic)
        if known is not None:
            return known
        shape = self.table.get(template)
        if shape is not None and shape.perm & INHERIT and (template != AUTO_CREATE_TOPIC or self._config.auto_create_topic_enable):
            count = max(1, min(queue_count, shape.write_queue_nums))
            made = queues(topic, count, shape.perm & ~INHERIT, sys_flag)
        elif topic.startswith(RETRY_PREFIX):
            made = queues(topic, 1, READ | WRITE, sys_flag)
        else:
            return None
        self.update(made)
        return made

    def create(self, topic: str, queue_count: int, perm: int = READ | WRITE, sys_flag: int = 0) -> TopicConfig:
        """The topic, made if it isn't there (retry and dead-letter topics, by the broker itself)."""
        known = self.table.get(topic)
        if known is None:
            known = queues(topic, queue_count, perm, sys_flag)
            self.update(known)
        return known

    def update(self, config: TopicConfig) -> None:
        """Create or replace a topic."""
        self.table[config.topic_name] = config
        self._next((config.topic_name,))

    def delete(self, topic: str) -> bool:
        if self.table.pop(topic, None) is None:
            return False
        self._next((topic,))
        return True

    def set_order(self, ordered: Iterable[str]) -> None:
        """The name server lists these as order topics: mark the ones we have. What it doesn't list stays as an administrator set it.

        Source: `TopicConfigManager#updateOrderTopicConfig`.
        """
        touched = [name for name in ordered if name in self.table and not self.table[name].order]
        for name in touched:
            self.table[name] = msgspec.structs.replace(self.table[name], order=True)
        if touched:
            self._next(touched)

    def reconfigure(self, config: BrokerConfig) -> None:
        """Take over a changed configuration; the name servers are told of everything, since permissions may have changed."""
        self._config = config
        self._add_system_topics()
        self._next(list(self.table))

    def registration(self, topics: Iterable[str] | None = None) -> TopicConfigSerializeWrapper:
        """What a name server is told: all topics, or only some. A broker without W or R registers its topics without it."""
        names = self.table if topics is None else [name for name in topics if name in self.table]
        mask = self._config.broker_permission | INHERIT
        table = {}
        for name in names:
            config = self.table[name]
            table[name] = config if config.perm & mask == config.perm else msgspec.structs.replace(config, perm=config.perm & mask)
        return TopicConfigSerializeWrapper(topic_config_table=table, data_version=self.version)

    def load(self, data: bytes | None) -> None:
        """Take over the text of the file (None: there is none). Raises `RemoteProtocolError` naming what is wrong."""
        if data is not None:
            found = decode_body(data, _File)
            self.table.update(found.topic_config_table)
            self.version = found.data_version
            if not self._config.auto_create_topic_enable:
                self.table.pop(AUTO_CREATE_TOPIC, None)

    def replace(self, found: TopicConfigSerializeWrapper) -> None:
        """A slave's: have what the master has, in one step: no reader ever sees a table without topics (P-META-2)."""
        own = {topic.topic_name: topic for topic in system_topics(self._config)}
        before, self.table = self.table, own | found.topic_config_table
        self.version = found.data_version
        self._changed([name for name in self.table if before.get(name) != self.table[name]])

    def encode(self) -> bytes:
        """The file's text, in Apache's shape."""
        return encode_body(_File(self.version, self.table))

    def _add_system_topics(self) -> None:
        topics = system_topics(self._config)
        self.system = frozenset(topic.topic_name for topic in topics)
        for config in topics:
            self.table.setdefault(config.topic_name, config)

    def _next(self, touched: Iterable[str]) -> None:
        self.version = next_version(self.version, self._now_ms())
        self._changed(touched)
