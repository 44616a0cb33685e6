"""The official Java client 5.4.0, unmodified, against trmq: what a user of RocketMQ would try first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .jvm import Driver, DriverError

_names = count(1)


@pytest.fixture
def topic(java: Driver) -> str:
    """A new topic with four queues."""
    name = f"topic_{next(_names)}"
    java(do="create_topic", topic=name, queues=4)
    return name


@pytest.fixture
def group() -> str:
    return f"group_{next(_names)}"


def numbered(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"body": f"body-{i}", "keys": f"key-{i}", **more} for i in range(n)]


def keys(messages: list[dict[str, Any]]) -> list[str]:
    return [m["keys"] for m in messages]


def test_sync_send_and_consume(java: Driver, topic: str, group: str) -> None:
    sent = java(do="send", topic=topic, messages=numbered(20, tag="A", properties={"colour": "grün"}))
    assert {r["status"] for r in sent} == {"SEND_OK"}
    assert {r["queue"] for r in sent} == {0, 1, 2, 3}
    java(do="subscribe", topic=topic, group=group, member="m")
    got = java(do="received", member="m", count=20, seconds=30)
    java(do="stop", member="m")
    assert sorted(keys(got)) == sorted(f"key-{i}" for i in range(20))
    assert {(m["id"], m["queue"], m["offset"]) for m in got} == {(r["id"], r["queue"], r["offset"]) for r in sent}
    assert all(m["properties"]["colour"] == "grün" and m["tags"] == "A" and m["body"] == m["keys"].replace("key", "body") for m in got)


def test_a_topic_is_created_by_the_first_send(java: Driver, group: str) -> None:
    name = f"made_by_send_{next(_names)}"
    (result,) = java(do="send", topic=name, messages=numbered(1))
    assert result["status"] == "SEND_OK"
    java(do="subscribe", topic=name, group=group, member="m")
    assert keys(java(do="received", member="m", count=1, seconds=30)) == ["key-0"]
    java(do="stop", member="m")


def test_ten_thousand_are_received_once_each(java: Driver, topic: str, group: str) -> None:
    sent = java(do="async", topic=topic, messages=numbered(10_000, size=100))
    assert Counter(r["status"] for r in sent) == {"SEND_OK": 10_000}
    java(do="subscribe", topic=topic, group=group, member="m")
    got = java(do="received", member="m", count=10_000, seconds=60)
    java(do="stop", member="m")
    assert Counter(keys(got)) == Counter(f"key-{i}" for i in range(10_000))


def test_oneway_and_batch(java: Driver, topic: str, group: str) -> None:
    java(do="oneway", topic=topic, messages=[{"body": "o", "keys": f"one-{i}"} for i in range(10)])
    batch = java(do="batch", topic=topic, messages=[{"body": "b", "keys": f"batch-{i}", "tag": "B"} for i in range(32)])
    assert batch["status"] == "SEND_OK"
    assert len(batch["id"].split(",")) == len(batch["offset_id"].split(",")) == 32
    java(do="subscribe", topic=topic, group=group, member="m")
    got = java(do="received", member="m", count=42, seconds=30)
    java(do="stop", member="m")
    assert sorted(keys(got)) == sorted([f"one-{i}" for i in range(10)] + [f"batch-{i}" for i in range(32)])
    batched = sorted((m["offset"], m["keys"]) for m in got if m["keys"].startswith("batch"))
    assert [k for _, k in batched] == [f"batch-{i}" for i in range(32)]
    assert batched[0][0] == batch["offset"]


def test_large_body_is_compressed_and_restored(java: Driver, topic: str, group: str) -> None:
    java(do="send", topic=topic, messages=[{"size": 200_000, "keys": "large"}])
    java(do="subscribe", topic=topic, group=group, member="m")
    (got,) = java(do="received", member="m", count=1, seconds=30)
    java(do="stop", member="m")
    assert got["size"] == 200_000


def test_orderly_consumption_keeps_each_key_in_order(java: Driver, topic: str, group: str) -> None:
    messages = [{"body": f"{step}", "keys": f"order-{key}"} for step in range(20) for key in range(5)]
    java(do="ordered", topic=topic, messages=messages)
    java(do="subscribe", topic=topic, group=group, member="m", orderly=True)
    got = java(do="received", member="m", count=100, seconds=30)
    java(do="stop", member="m")
    steps: dict[str, list[int]] = defaultdict(list)
    for m in got:
        steps[m["keys"]].append(int(m["body"]))
    assert steps == {f"order-{key}": list(range(20)) for key in range(5)}


def test_an_orderly_failure_blocks_its_queue_and_is_not_overtaken(java: Driver, topic: str, group: str) -> None:
    java(do="ordered", topic=topic, messages=[{"body": f"{i}", "keys": "same"} for i in range(3)])
    java(do="subscribe", topic=topic, group=group, member="m", orderly=True, failing=["same"], suspend_ms=100)
    got = java(do="received", member="m", count=3, seconds=30)
    assert {m["body"] for m in got} == {"0"}
    java(do="received", member="m", count=0, heal=True)
    got = java(do="received", member="m", count=len(got) + 3, seconds=30)
    java(do="stop", member="m")
    bodies = [m["body"] for m in got]
    assert bodies == sorted(bodies)
    assert set(bodies) == {"0", "1", "2"}


def test_two_members_share_the_queues(java: Driver, topic: str, group: str) -> None:
    for member in ("a", "b"):
        java(do="subscribe", topic=topic, group=group, member=member)
    wait_for_sharing(java, topic, group)
    sent = java(do="async", topic=topic, messages=[{"body": "x", "keys": f"shared-{i}"} for i in range(400)])
    assert {r["status"] for r in sent} == {"SEND_OK"}
    received = {member: [] for member in ("a", "b")}
    wait_until(lambda: sum(len(received.update({m: shared(java, m)}) or received[m]) for m in received) >= 400)
    for member in ("a", "b"):
        java(do="stop", member=member)
    assert Counter(keys(received["a"] + received["b"])) == Counter(f"shared-{i}" for i in range(400))
    queues = [{m["queue"] for m in received[member]} for member in ("a", "b")]
    assert queues[0] | queues[1] == {0, 1, 2, 3}
    assert not queues[0] & queues[1]


def shared(java: Driver, member: str) -> list[dict[str, Any]]:
    return [m for m in java(do="received", member=member, count=0) if m["keys"].startswith("shared")]


def wait_for_sharing(java: Driver, topic: str, group: str) -> None:
    """Send probes until both members get some: then the group has settled."""

    def both() -> bool:
        java(do="send", topic=topic, messages=[{"body": "probe", "keys": "probe"} for _ in range(4)])
        return all(java(do="received", member=member, count=1, seconds=0.5) for member in ("a", "b"))

    wait_until(both)
    java(do="received", member="a", count=10**6, seconds=1)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.1)


def test_broadcasting_gives_every_member_everything(java: Driver, topic: str, group: str) -> None:
    for member in ("a", "b"):
        java(do="subscribe", topic=topic, group=group, member=member, broadcasting=True)
    java(do="send", topic=topic, messages=numbered(30))
    for member in ("a", "b"):
        got = java(do="received", member=member, count=30, seconds=40)
        assert sorted(keys(got)) == sorted(f"key-{i}" for i in range(30))
    for member in ("a", "b"):
        java(do="stop", member=member)


def test_tag_filter(java: Driver, topic: str, group: str) -> None:
    messages = [{"body": "t", "tag": tag, "keys": f"{tag}-{i}"} for i in range(10) for tag in ("red", "green", "blue")]
    # "AaAa" and "BBBB" have one hash code: the broker's filter alone cannot tell them apart
    messages += [{"body": "t", "tag": "AaAa", "keys": "AaAa"}, {"body": "t", "tag": "BBBB", "keys": "BBBB"}]
    java(do="send", topic=topic, messages=messages)
    java(do="subscribe", topic=topic, group=group, member="m", tags="red || blue || AaAa")
    got = java(do="received", member="m", count=21, seconds=30)
    java(do="stop", member="m")
    assert Counter(m["tags"] for m in got) == {"red": 10, "blue": 10, "AaAa": 1}


def test_reconsume_later_comes_back_and_ends_in_the_dead_letter_topic(java: Driver, topic: str, group: str) -> None:
    (sent,) = java(do="send", topic=topic, messages=[{"body": "poison", "keys": "bad", "tag": "T"}])
    java(do="subscribe", topic=topic, group=group, member="m", failing=["bad"], max_reconsume=2, retry_level=1)
    got = java(do="received", member="m", count=3, seconds=40)
    assert [m["reconsume"] for m in got] == [0, 1, 2]
    assert {m["topic"] for m in got} == {topic}
    assert {m["body"] for m in got} == {"poison"}
    assert {m["properties"]["UNIQ_KEY"] for m in got} == {sent["id"]}
    dead: list[dict[str, Any]] = []

    def arrived() -> bool:
        try:
            dead[:] = java(do="pull", topic=f"%DLQ%{group}", broker=sent["broker"], queue=0, offset=0, group=f"{group}_dlq")["messages"]
        except DriverError:
            return False
        return bool(dead)

    wait_until(arrived)
    java(do="stop", member="m")
    assert [(m["body"], m["properties"]["UNIQ_KEY"], m["properties"]["RETRY_TOPIC"]) for m in dead] == [("poison", sent["id"], topic)]
    assert dead[0]["properties"]["ORIGIN_MESSAGE_ID"] == sent["offset_id"]


def test_delay_levels_hold_a_message_back(java: Driver, topic: str, group: str) -> None:
    java(do="subscribe", topic=topic, group=group, member="m")
    java(do="send", topic=topic, messages=[{"body": "later", "keys": "d2", "delay": 2}, {"body": "soon", "keys": "d0"}])
    got = java(do="received", member="m", count=2, seconds=30)
    java(do="stop", member="m")
    late = next(message for message in got if message["keys"] == "d2")
    assert sorted(keys(got)) == ["d0", "d2"]  # in which order they come, a consumer that is late itself cannot tell
    assert late["stored"] - late["born"] >= 1990  # level 2 is 2 s here; never early by the broker's clock


def test_query_by_key_and_by_id(java: Driver, topic: str) -> None:
    sent = java(do="send", topic=topic, messages=[{"body": f"q{i}", "keys": f"find-{i} all"} for i in range(5)])

    def found(key: str) -> list[str]:
        return sorted(m["body"] for m in java(do="query", topic=topic, key=key))

    assert found("find-3") == ["q3"]
    assert found("all") == [f"q{i}" for i in range(5)]
    by_offset_id = java(do="view", topic=topic, id=sent[2]["offset_id"])
    by_unique_key = java(do="view", topic=topic, id=sent[2]["id"])
    assert by_offset_id["body"] == by_unique_key["body"] == "q2"
    assert by_offset_id["keys"] == "find-2 all"


def test_offsets_and_times(java: Driver, topic: str) -> None:
    sent = [r for r in java(do="send", topic=topic, messages=numbered(12)) if r["queue"] == 1]
    place = {"topic": topic, "broker": sent[0]["broker"], "queue": 1}
    pulled = java(do="pull", group="reader", offset=0, **place)
    assert (pulled["status"], pulled["min"], pulled["max"], pulled["next"]) == ("FOUND", 0, 3, 3)
    times = [m["stored"] for m in pulled["messages"]]
    offsets = java(do="offsets", time=times[1], **place)
    assert (offsets["min"], offsets["max"], offsets["earliest"]) == (0, 3, times[0])
    assert offsets["at_time"] == times.index(times[1])
    assert java(do="offsets", time=times[2] + 60_000, **place)["at_time"] in (2, 3)
    assert java(do="pull", group="reader", offset=99, **place)["status"] == "OFFSET_ILLEGAL"
    assert java(do="pull", group="reader", offset=3, **place)["status"] == "NO_NEW_MSG"


def test_lite_pull(java: Driver, topic: str, group: str) -> None:
    java(do="send", topic=topic, messages=numbered(8))
    got = java(do="litepull", topic=topic, group=group, count=8, seconds=30)
    assert sorted(keys(got)) == sorted(f"key-{i}" for i in range(8))


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"size": 4_200_000}, "CODE: 13"),
        ({"topic": "SCHEDULE_TOPIC_XXXX", "body": "x"}, "SCHEDULE_TOPIC_XXXX"),
        ({"topic": "no topic!", "body": "x"}, "illegal"),
    ],
    ids=["too large", "system topic", "bad name"],
)
def test_bad_messages_are_refused(java: Driver, topic: str, message: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DriverError, match=complaint):
        java(do="send", topic=message.pop("topic", topic), messages=[message], producer="bad_messages")
    assert java(do="send", topic=topic, messages=numbered(1))[0]["status"] == "SEND_OK", "the broker serves on"


def test_binary_headers(trmq: Cluster, java_home: Path, tmp_path: Path) -> None:
    """The client's other header form, chosen by a system property, for everything it sends."""
    binary = Driver(trmq.name_server, tmp_path, "-Drocketmq.serialize.type=ROCKETMQ")
    try:
        binary(do="create_topic", topic="binary", queues=4)
        sent = binary(do="send", topic="binary", messages=numbered(5, tag="A"))
        batch = binary(do="batch", topic="binary", messages=numbered(5))
        assert {r["status"] for r in [*sent, batch]} == {"SEND_OK"}
        binary(do="subscribe", topic="binary", group="binary_group", member="m", tags="A")
        got = binary(do="received", member="m", count=5, seconds=30)
        assert sorted(keys(got)) == [f"key-{i}" for i in range(5)]
        assert binary(do="view", topic="binary", id=sent[2]["offset_id"])["body"] == "body-2"
        binary(do="stop", member="m")
    finally:
        binary.close()


def test_offsets_survive_a_restart_of_consumer_and_broker(tmp_path: Path, java_home: Path) -> None:
    cluster = Cluster("trmq", tmp_path / "c").start()
    java = Driver(cluster.name_server, tmp_path / "driver")
    try:
        java(do="create_topic", topic="again", queues=4)
        java(do="send", topic="again", messages=[{"body": "1", "keys": f"first-{i}"} for i in range(20)])
        java(do="subscribe", topic="again", group="g", member="m")
        assert len(java(do="received", member="m", count=20, seconds=30)) == 20
        java(do="stop", member="m")
        assert cluster.stop_broker() == 0, cluster.broker.output()
        cluster.start_broker()
        java(do="close_producers")
        sent = java(do="send", topic="again", messages=[{"body": "2", "keys": f"second-{i}"} for i in range(20)])
        assert {r["status"] for r in sent} == {"SEND_OK"}
        java(do="subscribe", topic="again", group="g", member="m")
        got = java(do="received", member="m", count=20, seconds=40)
        java(do="stop", member="m")
        assert sorted(keys(got)) == sorted(f"second-{i}" for i in range(20))
    finally:
        java.close()
        cluster.stop()
