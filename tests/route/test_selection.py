"""Queue selection and latency faults: P-Q-1 and P-Q-2 as properties, the table of pauses as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.message import MessageQueue
from trmq.route.latency import LatencyFaults, unavailable_ms
from trmq.route.selection import PublishInfo, RoundRobin, publish_info, subscribe_queues
from trmq.wire.bodies import BrokerData, QueueData, TopicRouteData

NAMES = ["a", "b", "c", "d"]


@st.composite
def routes(draw: st.DrawFn) -> TopicRouteData:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    queues = [QueueData(name, draw(st.integers(0, 5)), draw(st.integers(0, 5)), draw(st.integers(0, 7))) for name in names]
    groups = [BrokerData(name, {i: f"{name}:{i}" for i in draw(st.sets(st.integers(0, 2)))}, "C") for name in names]
    return TopicRouteData(groups[: draw(st.integers(0, len(groups)))], queues)


@given(route=routes(), turn=st.integers(0, 2**40), last=st.none() | st.sampled_from(NAMES), sends=st.integers(1, 12))
def test_only_writable_queues_of_brokers_with_a_master_in_turn_and_not_the_failed_broker(
    route: TopicRouteData, turn: int, last: str | None, sends: int
) -> None:
    """P-Q-1."""
    data = {d.broker_name: d for d in route.queue_datas}
    masters = {g.broker_name for g in route.broker_datas if 0 in g.broker_addrs}
    queues = publish_info("T", route).queues
    assert list(queues) == sorted(queues)
    assert set(queues) == {
        MessageQueue("T", name, i) for name, d in data.items() if d.perm & 2 and name in masters for i in range(d.write_queue_nums)
    }
    turns = RoundRobin(turn)
    chosen = [turns.choose(queues, last) for _ in range(sends)]
    others = [q for q in queues if q.broker_name != last]
    pool = others or list(queues)
    assert set(chosen) <= (set(pool) or {None})
    if pool:
        start = pool.index(chosen[0])  # type: ignore[arg-type]  # the pool is not empty, so a queue was chosen
        assert chosen == [pool[(start + i) % len(pool)] for i in range(sends)], "every queue in its turn"


@given(route=routes(), slow=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 20_000)), turn=st.integers(0, 99))
def test_faults_only_ever_choose_between_alternatives(route: TopicRouteData, slow: dict[str, int], turn: int) -> None:
    """P-Q-2: an unavailable broker is avoided while another is available, and never to the point of choosing nobody."""
    queues = publish_info("T", route).queues
    faults = LatencyFaults()
    for name, latency in slow.items():
        faults.report(name, latency, 1_000)
    found = RoundRobin(turn).choose(queues, None, [lambda name: faults.available(name, 1_001), faults.reachable])
    assert (found is None) == (not queues)
    if found is not None and any(faults.available(q.broker_name, 1_001) for q in queues):
        assert faults.available(found.broker_name, 1_001)
    off = {RoundRobin(turn + i).choose(queues) for i in range(len(queues))}
    assert off == set(queues), "switched off, nobody is ever passed over"


def test_preferences_from_strict_to_lax() -> None:
    queues = [MessageQueue("T", name, 0) for name in "abc"]
    turns = RoundRobin(0)
    assert turns.choose(queues, "c", [lambda n: n == "c", lambda n: n in "bc"]) == queues[1], "the failed broker counts as unfit"
    assert turns.choose(queues[2:], "c", [lambda n: False]) == queues[2], "the only broker, though it failed"


def test_an_order_configuration_is_taken_as_it_stands() -> None:
    route = TopicRouteData([BrokerData("a", {0: "x:1"}, "C")], [QueueData("a", 8, 8, 6)], order_topic_conf="b:2;a:1;;bad;c:x")
    assert publish_info("T", route) == PublishInfo(
        (MessageQueue("T", "b", 0), MessageQueue("T", "b", 1), MessageQueue("T", "a", 0)), ordered=True
    )


def test_readable_queues_need_no_master() -> None:
    route = TopicRouteData([BrokerData("b", {1: "x:1"}, "C")], [QueueData("b", 2, 1, 4), QueueData("a", 1, 1, 2)])
    assert subscribe_queues("T", route) == (MessageQueue("T", "b", 0), MessageQueue("T", "b", 1))
    assert publish_info("T", route).queues == ()


@pytest.mark.parametrize(
    ("latency", "pause"),
    [
        (0, 0), (549, 0), (550, 2_000), (1_799, 2_000), (1_800, 5_000), (3_000, 6_000),
        (4_999, 6_000), (5_000, 10_000), (14_999, 10_000), (15_000, 30_000), (99_999, 30_000),
    ],
)  # fmt: skip
def test_pauses(latency: int, pause: int) -> None:
    assert unavailable_ms(latency) == pause
    faults = LatencyFaults()
    faults.report("b", latency, 100)
    assert faults.available("b", 100 + pause)
    assert pause == 0 or not faults.available("b", 99 + pause)


def test_a_pause_is_extended_and_never_cut_short() -> None:
    faults = LatencyFaults()
    faults.report("b", 5, 0, isolate=True, reachable=False)
    assert not faults.reachable("b")
    faults.report("b", 1, 10)
    assert faults.reachable("b")
    assert not faults.available("b", 9_999)
    faults.report("b", 600, 9_000)
    assert not faults.available("b", 10_999)
    assert faults.available("b", 11_000)
    assert faults.to_probe(10_999) == []
    assert faults.to_probe(11_000) == ["b"]
    faults.forget("b")
    assert faults.available("b", 0)
