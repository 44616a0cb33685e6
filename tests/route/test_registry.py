"""The name server's tables: each rule of registration, liveness, routes and lists, and tables that never disagree."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.config import NamesrvConfig
from trmq.route.registry import Member, Notice, Registered, Registry
from trmq.route.views import keep_zone
from trmq.wire.bodies import DataVersion, QueueData, TopicConfig, TopicConfigSerializeWrapper

MASTER = Member("C", "b", 0, "m:1")
SLAVE = Member("C", "b", 1, "s:1")
SECOND = Member("C", "b", 2, "t:1")


def topics(*names: str, perm: int = 6, counter: int = 1, state: int = 0, flag: int = 0, queues: int = 4) -> TopicConfigSerializeWrapper:
    table = {n: TopicConfig(n, queues, queues, perm, topic_sys_flag=flag) for n in names}
    return TopicConfigSerializeWrapper(data_version=DataVersion(counter, state, 5), topic_config_table=table)


FULL = topics("T", "U")


def perm(registry: Registry, topic: str = "T", name: str = "b") -> int:
    route = registry.route(topic)
    assert route is not None
    return next(q.perm for q in route.queue_datas if q.broker_name == name)


def addresses(registry: Registry, topic: str = "T") -> dict[str, dict[int, str]]:
    route = registry.route(topic)
    return {} if route is None else {g.broker_name: g.broker_addrs for g in route.broker_datas}


def test_a_group_contributes_once_and_its_slaves_are_addresses() -> None:
    registry = Registry()
    assert registry.register(MASTER, FULL, 0, ha_address="m:2") == Registered()
    answer = registry.register(SLAVE, topics("T", "U", queues=9, counter=7), 0)
    assert answer == Registered(master_address="m:1", ha_address="m:2")
    registry.register(Member("C", "c", 0, "c:1"), topics("T", "V"), 0)
    route = registry.route("T")
    assert route is not None
    assert [(q.broker_name, q.read_queue_nums) for q in route.queue_datas] == [("b", 4), ("c", 4)], "a slave's topics do not count"
    assert addresses(registry) == {"b": {0: "m:1", 1: "s:1"}, "c": {0: "c:1"}}
    assert registry.route("nope") is None


def test_a_broker_that_returns_under_another_name_leaves_the_old_one() -> None:
    registry = Registry()
    registry.register(MASTER, FULL, 0, link="old")
    registry.register(Member("C", "renamed", 0, MASTER.address), FULL, 1, link="new")
    assert addresses(registry) == {"renamed": {0: MASTER.address}}
    registry.link_lost("old")
    registry.unregister([MASTER])
    assert addresses(registry) == {"renamed": {0: MASTER.address}}
    registry.link_lost("new")
    assert registry.cluster_info().broker_addr_table == {}


def test_a_first_registration_with_one_topic_is_refused_and_leaves_no_trace() -> None:
    registry = Registry()
    assert "at least two" in str(registry.register(MASTER, topics("T"), 0).refused)
    assert registry.cluster_info().broker_addr_table == {}
    assert registry.cluster_info().cluster_addr_table == {}
    registry.register(MASTER, FULL, 0)
    assert registry.register(MASTER, topics("New", counter=2), 1).refused is None, "an increment, once it is known"
    assert registry.route("New") is not None
    assert registry.route("T") is not None
    assert registry.register(SLAVE, topics("T"), 0).refused is not None


def test_topics_are_replaced_only_when_the_version_differs_in_any_member() -> None:
    registry = Registry()
    registry.register(MASTER, FULL, 0)
    registry.wipe_write_perm("b")
    registry.register(MASTER, FULL, 1)
    assert perm(registry) == 4, "a wiped permission survives a broker with nothing new to say"
    registry.register(MASTER, topics("T", "U", "W"), 2)
    assert (perm(registry), perm(registry, "W")) == (4, 6), "the same version, but a topic we did not have"
    registry.register(MASTER, topics("T", "U", counter=0), 3)
    assert perm(registry) == 6, "lower is different too"


def test_the_newcomer_replaces_the_address_unless_its_state_version_is_older() -> None:
    registry = Registry()
    registry.register(MASTER, topics("T", "U", state=3), 0)
    other = Member("C", "b", 0, "n:1")
    assert registry.register(other, topics("T", "U", state=2, counter=9), 1, link="n") == Registered()
    assert addresses(registry) == {"b": {0: "m:1"}}, "fenced: answered and forgotten"
    assert registry.known_version("C", "n:1") is None
    registry.register(other, topics("T", "U", state=3), 2)
    assert addresses(registry) == {"b": {0: "n:1"}}
    registry.unregister([MASTER])
    assert addresses(registry) == {"b": {0: "n:1"}}, "the replaced address is not the group's any more"


def test_a_role_switch_keeps_one_id_per_address() -> None:
    registry = Registry()
    registry.register(MASTER, FULL, 0)
    registry.register(SLAVE, FULL, 0)
    registry.register(Member("C", "b", 0, "s:1"), FULL, 1)
    assert addresses(registry) == {"b": {0: "s:1"}}
    registry.register(Member("C", "b", 1, "m:1"), FULL, 1)
    assert addresses(registry) == {"b": {0: "s:1", 1: "m:1"}}


def test_the_prime_slave_speaks_for_a_headless_group_and_its_topics_are_read_only() -> None:
    registry = Registry(NamesrvConfig(support_acting_master=True))
    registry.register(SECOND, FULL, 0, acting_master=True)
    assert perm(registry) == 4
    assert addresses(registry) == {"b": {0: "t:1"}}, "shown as master to clients that know no better"
    registry.register(SLAVE, topics("T", "U", queues=7), 0, acting_master=True)
    assert addresses(registry) == {"b": {0: "s:1", 2: "t:1"}}
    registry.register(MASTER, FULL, 1, acting_master=True)
    assert (perm(registry), addresses(registry)) == (6, {"b": {0: "m:1", 1: "s:1", 2: "t:1"}})
    registry.unregister([MASTER])
    assert (perm(registry), addresses(registry)) == (4, {"b": {0: "s:1", 2: "t:1"}})
    assert registry.cluster_info().broker_addr_table["b"].broker_addrs == {1: "s:1", 2: "t:1"}, "a view, not the table"


def test_an_old_slave_never_speaks_and_without_the_switch_nobody_acts() -> None:
    registry = Registry()
    registry.register(SLAVE, FULL, 0)
    assert registry.route("T") is None
    registry.register(MASTER, FULL, 0)
    registry.unregister([MASTER])
    assert (perm(registry), addresses(registry)) == (6, {"b": {1: "s:1"}}), "writable still; producers look for id 0"


def test_removal_cleans_up_behind_itself() -> None:
    registry = Registry()
    registry.register(MASTER, FULL, 0, link="x")
    registry.register(Member("D", "c", 0, "c:1"), topics("T", "V"), 0)
    registry.unregister([MASTER, MASTER])
    assert addresses(registry) == {"c": {0: "c:1"}}
    assert registry.route("U") is None
    assert registry.all_topics().topic_list == ["T", "V"]
    assert registry.cluster_info().cluster_addr_table == {"D": ["c"]}
    assert registry.link_lost("x") == ([], [])


def test_silence_and_signs_of_life() -> None:
    registry = Registry()
    assert registry.next_expiry() is None
    registry.register(MASTER, FULL, 100)
    registry.register(Member("C", "c", 0, "c:1"), topics("V", "W"), 100, timeout=10, link="c")
    assert registry.next_expiry() == 110
    assert registry.heartbeat("C", "c:1", 105)
    assert not registry.heartbeat("C", "gone:1", 105), "a heartbeat does not create"
    assert registry.next_expiry() == 115
    assert registry.expire(114.9) == ([], [])
    assert [live.link for live in registry.expire(115)[0]] == ["c"]
    assert registry.route("V") is None
    assert [live.member for live in registry.expire(220)[0]] == [MASTER]
    assert registry.statistics().brokers == 0


def test_a_lost_connection_takes_the_brokers_that_registered_through_it_last() -> None:
    registry = Registry()
    registry.register(MASTER, FULL, 0, link="old")
    registry.register(SLAVE, FULL, 0, link="old")
    registry.register(MASTER, FULL, 1, link="new")
    assert [live.member for live in registry.link_lost("old")[0]] == [SLAVE], "the master has moved to a new connection"
    assert addresses(registry) == {"b": {0: "m:1"}}


def test_notices_of_a_new_lowest_id() -> None:
    registry = Registry(NamesrvConfig(notify_min_broker_id_changed=True))
    assert registry.register(SECOND, FULL, 0, ha_address="t:2").notice is None, "the first of a group"
    assert registry.register(SLAVE, FULL, 0, ha_address="s:2").notice == Notice(1, "s:1", None, "s:2", ("t:1",))
    assert registry.register(MASTER, FULL, 0, ha_address="m:2").notice == Notice(0, "m:1", None, "m:2", ("s:1", "t:1"))
    assert registry.unregister([SECOND]) == []
    assert registry.unregister([MASTER]) == [Notice(1, "s:1", "m:1", None, ("s:1",))]
    assert Registry().unregister([MASTER]) == []


def test_permissions_topics_and_lists() -> None:
    registry = Registry()
    registry.register(MASTER, topics("T", "U", flag=1), 0)
    registry.register(Member("D", "c", 0, "c:1"), topics("T", "V", flag=2), 0)
    assert (registry.wipe_write_perm("b"), registry.wipe_write_perm("nobody")) == (2, 0)
    assert (perm(registry), perm(registry, name="c")) == (4, 6)
    assert registry.add_write_perm("b") == 2
    assert perm(registry) == 6
    assert registry.unit_topics().topic_list == ["T", "U"]
    assert registry.unit_subscribed_topics().topic_list == ["V"]
    assert registry.unit_subscribed_topics(without_unit=True).topic_list == ["V"]
    assert registry.topics_of_cluster("D").topic_list == ["T", "V"]
    system = registry.system_topics()
    assert (system.topic_list, system.broker_addr) == (["C", "b", "D", "c"], "m:1")
    registry.delete_topic("T", "C")
    assert addresses(registry) == {"c": {0: "c:1"}}
    registry.delete_topic("T")
    assert registry.route("T") is None
    assert registry.register_topic("New", [QueueData("b", 1, 1, 6), QueueData("x", 1, 1, 6)]) == ["x"]
    assert addresses(registry, "New") == {"b": {0: "m:1"}}
    group = registry.member_group("C", "b").broker_member_group
    assert group is not None
    assert group.broker_addrs == {0: "m:1"}


def test_topics_missing_from_a_registration_go_only_if_told_so() -> None:
    kept, dropping = Registry(), Registry(NamesrvConfig(delete_topic_with_broker_registration=True))
    for registry in (kept, dropping):
        registry.register(MASTER, topics("T", "U", "V"), 0)
        registry.register(MASTER, topics("T", "U", counter=2), 1)
    assert kept.route("V") is not None
    assert dropping.route("V") is None


def test_zones() -> None:
    registry = Registry()
    registry.register(MASTER, FULL, 0, zone="Z1")
    registry.register(Member("C", "c", 0, "c:1"), FULL, 0, zone="z2")
    registry.register(Member("C", "d", 0, "d:1"), FULL, 0)
    registry.register(Member("C", "d", 1, "e:1"), FULL, 0)
    registry.unregister([Member("C", "d", 0, "d:1")])
    route = registry.route("T")
    assert route is not None
    kept = keep_zone(route, "z1")
    assert [g.broker_name for g in kept.broker_datas] == ["b", "d"], "a group without a master stays visible everywhere"
    assert [q.broker_name for q in kept.queue_datas] == ["b", "d"]


def test_order_configuration_is_shown_only_if_enabled() -> None:
    for enabled, expected in ((False, None), (True, "b:4")):
        registry = Registry(NamesrvConfig(order_message_enable=enabled), lambda topic: {"T": "b:4"}.get(topic))
        registry.register(MASTER, FULL, 0)
        route = registry.route("T")
        assert route is not None
        assert route.order_topic_conf == expected


def test_both_flavours_are_compact() -> None:
    registry = Registry()
    registry.register(MASTER, FULL, 0, acting_master=False)
    form = (
        '{"brokerDatas":[{"brokerAddrs":{%s:"m:1"},"brokerName":"b","cluster":"C","enableActingMaster":false}],"filterServerTable":{},'
        '"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}'
    )
    assert registry.answer("T", quoted_keys=False) == (form % "0").encode()
    assert registry.answer("T", quoted_keys=True) == (form % '"0"').encode()
    assert registry.answer("T", quoted_keys=True) is registry.answer("T", quoted_keys=True), "kept"
    assert registry.answer("nope", quoted_keys=True) is None


members = st.builds(Member, st.sampled_from("CD"), st.sampled_from("ab"), st.integers(0, 2), st.sampled_from(["x:1", "y:1", "z:1"]))
bodies = st.builds(
    lambda names, p, counter, state: topics(*sorted(names), perm=p, counter=counter, state=state),
    st.sets(st.sampled_from("TUV"), min_size=0), st.sampled_from([4, 6]), st.integers(0, 2), st.integers(0, 1),
)  # fmt: skip
steps = st.lists(
    st.one_of(
        st.tuples(st.just("register"), members, bodies, st.sampled_from(["l1", "l2"]), st.sampled_from([None, False, True])),
        st.tuples(st.just("unregister"), members),
        st.tuples(st.just("lost"), st.sampled_from(["l1", "l2"])),
        st.tuples(st.just("heartbeat"), st.sampled_from("CD"), st.sampled_from(["x:1", "y:1"])),
        st.tuples(st.just("pass"), st.integers(0, 15)),
        st.tuples(st.just("wipe"), st.sampled_from("ab")),
        st.tuples(st.just("add"), st.sampled_from("ab")),
        st.tuples(st.just("delete"), st.sampled_from("TUV"), st.sampled_from(["C", None])),
    ),
    max_size=25,
)


@pytest.mark.parametrize("config", [NamesrvConfig(), NamesrvConfig(support_acting_master=True, notify_min_broker_id_changed=True)])
@given(steps=steps)
def test_a_kept_answer_is_always_what_the_tables_say(config: NamesrvConfig, steps: Iterable[tuple[object, ...]]) -> None:
    """After any history: the kept answers are fresh, nobody empty is left, and what goes in comes out again."""
    kept = Registry(config)
    now = 0.0
    for step in steps:
        match step:
            case ("register", Member() as member, TopicConfigSerializeWrapper() as body, link, acting):
                kept.register(member, body, now, link=link, timeout=10, acting_master=acting)  # type: ignore[arg-type]  # drawn as such
            case ("unregister", Member() as member):
                kept.unregister([member])
            case ("lost", str(link)):
                kept.link_lost(link)
            case ("heartbeat", str(cluster), str(address)):
                kept.heartbeat(cluster, address, now)
            case ("pass", int(seconds)):
                now += seconds
                kept.expire(now)
            case ("wipe", str(name)):
                kept.wipe_write_perm(name)
            case ("add", str(name)):
                kept.add_write_perm(name)
            case ("delete", str(topic), cluster):
                kept.delete_topic(topic, cluster)  # type: ignore[arg-type]  # drawn as such
        answers = {(t, q): kept.answer(t, quoted_keys=q) for t in "TUV" for q in (True, False)}
        kept.forget_answers()
        assert answers == {(t, q): kept.answer(t, quoted_keys=q) for t in "TUV" for q in (True, False)}
        info = kept.cluster_info()
        assert all(group.broker_addrs for group in info.broker_addr_table.values())
        assert {name for names in info.cluster_addr_table.values() for name in names} == info.broker_addr_table.keys()
        for topic in kept.all_topics().topic_list:
            route = kept.route(topic)
            assert route is not None
            assert {q.broker_name for q in route.queue_datas} <= info.broker_addr_table.keys()
    for link in ("l1", "l2"):
        kept.link_lost(link)
    assert kept.next_expiry() is None
