"""Topics, groups and offsets: rules of creation, versions, and Apache's files to the letter."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import pytest

from trmq.broker.groups import GroupTable
from trmq.broker.offsets import OffsetTable
from trmq.broker.topics import TopicTable
from trmq.config import BrokerConfig
from trmq.wire.bodies import SubscriptionGroupConfig, TopicConfig

CONFIG = BrokerConfig(broker_name="b", broker_cluster_name="C")


def topic_table(config: BrokerConfig = CONFIG) -> tuple[TopicTable, list[list[str]]]:
    changes: list[list[str]] = []

    def changed(names: Iterable[str]) -> None:
        changes.append(list(names))

    return TopicTable(config, lambda: 1_700_000_000_000, changed), changes


def test_the_system_topics_are_those_of_apache() -> None:
    table, _ = topic_table()
    found = {name: (c.read_queue_nums, c.write_queue_nums, c.perm) for name, c in table.table.items()}
    assert found == {
        "SELF_TEST_TOPIC": (1, 1, 6), "TBW102": (8, 8, 7), "BenchmarkTest": (1024, 1024, 6), "C": (16, 16, 7), "b": (1, 1, 7),
        "OFFSET_MOVED_EVENT": (1, 1, 6), "SCHEDULE_TOPIC_XXXX": (18, 18, 6), "C_REPLY_TOPIC": (1, 1, 6),
        "rmq_sys_REVIVE_LOG_C": (8, 8, 6), "rmq_sys_SYNC_BROKER_MEMBER_b": (1, 1, 1), "RMQ_SYS_TRANS_HALF_TOPIC": (1, 1, 6),
        "RMQ_SYS_TRANS_OP_HALF_TOPIC": (1, 1, 6), "rmq_sys_wheel_timer": (1, 1, 6),
    }


def test_keys_decide_which_system_topics_there_are_and_what_they_allow() -> None:
    table, _ = topic_table(attrs.evolve(CONFIG, cluster_topic_enable=False, broker_topic_enable=False, trace_topic_enable=True))
    assert (table.table["C"].perm, table.table["b"].perm) == (1, 1), "templates only"
    assert (table.table["RMQ_SYS_TRACE_TOPIC"].read_queue_nums, table.table["RMQ_SYS_TRACE_TOPIC"].perm) == (1, 6)
    assert "RMQ_SYS_TRACE_TOPIC" in table.system
    assert "traces" in topic_table(attrs.evolve(CONFIG, trace_topic_enable=True, msg_trace_topic_name="traces"))[0].system
    table, changes = topic_table()
    assert "RMQ_SYS_TRACE_TOPIC" not in table
    table.reconfigure(attrs.evolve(CONFIG, trace_topic_enable=True))
    assert "RMQ_SYS_TRACE_TOPIC" in table.system, "an admin command makes it too"
    assert "RMQ_SYS_TRACE_TOPIC" in changes[-1]


@pytest.mark.parametrize(("asked", "made"), [(4, 4), (16, 8), (0, 1), (-3, 1)])
def test_a_new_topic_has_the_smaller_number_of_queues_and_does_not_inherit_further(asked: int, made: int) -> None:
    table, changes = topic_table()
    config = table.create_for_send("T", "TBW102", asked)
    assert config is not None
    assert (config.read_queue_nums, config.write_queue_nums, config.perm) == (made, made, 6)
    assert changes == [["T"]]
    assert table.create_for_send("T", "TBW102", 2) is config
    assert changes == [["T"]]


def test_without_a_template_only_retry_topics_are_made() -> None:
    table, _ = topic_table(attrs.evolve(CONFIG, auto_create_topic_enable=False))
    assert "TBW102" not in table
    assert table.create_for_send("T", "TBW102", 4) is None
    assert table.create_for_send("T", "SELF_TEST_TOPIC", 4) is None, "a topic without INHERIT is no template"
    retry = table.create_for_send("%RETRY%g", "TBW102", 4)
    assert retry is not None
    assert retry.write_queue_nums == 1


def test_every_change_is_a_new_version() -> None:
    table, _ = topic_table()
    before = table.version
    table.update(TopicConfig(topic_name="T"))
    table.delete("T")
    assert not table.delete("T")
    assert table.version.counter == before.counter + 2


def test_a_broker_that_may_not_be_written_registers_no_write_permission() -> None:
    table, _ = topic_table(attrs.evolve(CONFIG, broker_permission=4))
    wrapper = table.registration(["TBW102", "gone"])
    assert {name: config.perm for name, config in wrapper.topic_config_table.items()} == {"TBW102": 5}
    assert table.table["TBW102"].perm == 7


def test_order_topics_are_only_ever_added() -> None:
    table, _ = topic_table()
    table.update(TopicConfig(topic_name="T", order=True))
    table.update(TopicConfig(topic_name="U"))
    table.set_order(["U", "unknown"])
    assert table.table["T"].order
    assert table.table["U"].order


def test_topics_json_has_apaches_shape_and_comes_back() -> None:
    table, _ = topic_table()
    table.update(TopicConfig(topic_name="T", read_queue_nums=4, write_queue_nums=4))
    text = table.encode()
    assert text.startswith(b'{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{')
    assert (
        b'"T":{"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"T",'
        b'"topicSysFlag":0,"writeQueueNums":4}'
    ) in text
    again, _ = topic_table()
    again.load(text)
    assert again.table == table.table
    assert again.version == table.version


def group_table(auto: bool = True) -> tuple[GroupTable, list[None]]:
    changes: list[None] = []
    return GroupTable(auto, lambda: 5, lambda: changes.append(None)), changes


def test_a_group_is_made_on_first_use_unless_forbidden() -> None:
    table, changes = group_table()
    assert table.find("g") == SubscriptionGroupConfig(group_name="g")
    assert len(changes) == 1
    assert table.find("bad name") is None
    strict, _ = group_table(auto=False)
    assert strict.find("g") is None
    assert strict.find("TOOLS_CONSUMER") is not None


def test_subscription_group_json_has_apaches_shape_and_comes_back() -> None:
    table, _ = group_table()
    table.update(SubscriptionGroupConfig(group_name="g", retry_max_times=3))
    table.forbid_reading("g", "T", True)
    text = table.encode()
    assert b'"forbiddenTable":{"g":{"T":4}}' in text
    assert (
        b'"g":{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,'
        b'"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"g","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,'
        b'"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":3,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}'
    ) in text
    again, _ = group_table()
    again.load(text)
    assert again.table == table.table
    assert again.forbids_reading("g", "T")
    assert not again.forbids_reading("g", "U")


def test_consumer_offset_json_has_bare_keys_and_comes_back() -> None:
    table = OffsetTable(lambda: 7)
    table.commit("g", "T", 0, 123)
    table.commit("g", "T", 1, 45)
    assert table.dirty
    text = table.encode()
    assert not table.dirty
    assert text == b'{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":7},"offsetTable":{"T@g":{0:123,1:45}}}'
    again = OffsetTable(lambda: 8)
    again.load(text)
    assert again.query("g", "T", 1) == 45
    again.load(b'{"dataVersion":{"counter":9},"groupTopicMap":{"g":["T"]},"offsetTable":{"T@g":{"0":7}}}')
    assert again.query("g", "T", 0) == 7


def test_a_smaller_commit_is_accepted_and_the_same_is_nothing_new() -> None:
    table = OffsetTable(lambda: 7)
    table.commit("g", "T", 0, 10)
    table.encode()
    table.commit("g", "T", 0, 10)
    assert not table.dirty
    table.commit("g", "T", 0, 4)
    assert table.query("g", "T", 0) == 4
    assert table.query("g", "T", 1) is None


def test_commits_are_ignored_until_the_consumer_has_heard_of_a_reset() -> None:
    table = OffsetTable(lambda: 7)
    table.commit("g", "T", 0, 100)
    table.reset("g", "T", 0, 5)
    assert not table.commit("g", "T", 0, 101)
    assert table.commit("g", "T", 1, 1), "other queues go on"
    assert table.query("g", "T", 0) == 5
    assert table.take_reset("g", "T", 0) == 5
    assert table.take_reset("g", "T", 0) is None
    assert table.commit("g", "T", 0, 6)


def test_groups_and_topics_of_offsets() -> None:
    table = OffsetTable(lambda: 7)
    table.commit("g", "T", 0, 1)
    table.commit("h", "T", 0, 2)
    table.commit("g", "%RETRY%g", 0, 3)
    assert table.topics_of("g") == ["%RETRY%g", "T"]
    assert table.groups_of("T") == ["g", "h"]
    table.clone("g", "k", "T")
    table.remove_group("g")
    assert table.topics_of("g") == []
    assert table.queues_of("k", "T") == {0: 1}
    table.remove_topic("T")
    assert table.groups_of("T") == []
