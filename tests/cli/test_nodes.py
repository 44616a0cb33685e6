"""The parts of a local cluster, what is shown of it, and a demonstration's account: plain data in, plain data out."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from trmq.cli.account import Account, summary
from trmq.cli.common import ago, amount
from trmq.cli.fleet import Fleet, Member, how_it_ended
from trmq.cli.nodes import SMALL, Shape, plan, wanted_ports
from trmq.cli.watching import Sight, news_of, problems_of, row_of, rows_of, state_of
from trmq.errors import ConfigError


def test_a_plan_has_every_node_in_the_order_of_its_start() -> None:
    shape = Shape(groups=2, slaves=1, role="sync_master", flush="sync", settings={"slaveTimeout": "100"})
    nodes = plan(shape, Path("/f"), {name: port for name, port, _ in wanted_ports(shape, 20_000)})
    assert [(node.name, node.role, node.port, node.rank) for node in nodes] == [
        ("namesrv", "name server", 20_000, 0), ("a-0", "SYNC_MASTER", 20_010, 1), ("b-0", "SYNC_MASTER", 20_030, 1),
        ("a-1", "SLAVE", 20_020, 2), ("b-1", "SLAVE", 20_040, 2),
    ]  # fmt: skip
    slave = nodes[3].arguments
    assert slave[:7] == ("serve", "--role", "slave", "--broker-name", "a", "--broker-id", "1")
    assert slave[7:9] == ("--namesrv", "127.0.0.1:20000")
    assert "slaveTimeout=100" in slave
    assert f"mappedFileSizeCommitLog={SMALL['mappedFileSizeCommitLog']}" in slave
    assert all(node.arguments[node.arguments.index("--end-with") :][:2] == ("--end-with", "stdin") for node in nodes)


def test_every_argument_of_a_plan_is_read_without_cyclopts() -> None:
    """Nodes start the quick way."""
    from trmq.cli import quick

    shape = Shape()
    for node in plan(shape, Path("/f"), {name: port for name, port, _ in wanted_ports(shape, None)}):
        assert quick.read(node.arguments) is not None


@pytest.mark.parametrize(("change", "named"), [
    ({"groups": 0}, "--groups 0"), ({"groups": 27}, "--groups 27"), ({"slaves": -1}, "--slaves -1"), ({"slaves": 10}, "--slaves 10"),
    ({"slaves": 0}, "--role async_master"),
])  # fmt: skip
def test_an_impossible_shape(change: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Shape(**change)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("base", [-5, 0, 65_530])
def test_ports_that_do_not_exist(base: int) -> None:
    with pytest.raises(ConfigError, match=f"--base-port {base}"):
        wanted_ports(Shape(), base)


# --- the table


def fleet_of(shape: Shape) -> Fleet:
    return Fleet(plan(shape, Path("/f"), {name: port for name, port, _ in wanted_ports(shape, 20_000)}), Path("/f"), True, lambda _: None)


def runtime(end: int, puts: int) -> dict[str, str]:
    return {"commitLogMaxOffset": str(end), "msgPutTotalTodayNow": str(puts)}


def test_rows_of_a_cluster() -> None:
    fleet = fleet_of(Shape(groups=1, slaves=2))
    sights = {member.node.name: Sight() for member in fleet.brokers}
    for member in fleet.members.values():
        member.state = "up"
    for second in range(5):
        sights["a-0"].take(runtime(10_000 + 2048 * second, 100 * second), float(second))
    sights["a-1"].take(runtime(10_000 + 2048 * 3, 0), 4.0)
    sights["a-2"].lost()
    fleet.members["a-2"].state, fleet.members["a-2"].ended = "down", "killed by SIGKILL"
    rows = rows_of(fleet, sights)
    assert [row["node"] for row in rows] == ["namesrv", "a-0", "a-1", "a-2"]
    assert [row["max offset"] for row in rows] == ["", "18,192", "16,144", ""]
    assert [row["lag"] for row in rows] == ["", "", "2.0 KiB", ""]
    assert [row["in/s"] for row in rows] == ["", "100", "", ""]
    assert [row["state"] for row in rows] == ["up", "up", "up", "down: killed by SIGKILL"]
    assert len({tuple(row) for row in rows}) == 1


def test_a_rate_forgets_what_is_old_and_is_never_negative() -> None:
    sight = Sight()
    assert sight.rate == 0
    for second, puts in enumerate([0, 1000, 1000, 1000, 1000, 1000]):
        sight.take(runtime(0, puts), float(second))
    assert sight.rate == 0
    sight.take(runtime(0, 3), 6.0)
    assert sight.rate == 0


def test_states() -> None:
    member = Member(fleet_of(Shape()).members["a-0"].node, Path("/log"))
    assert state_of(member, Sight()) == "waiting"
    member.state = "up"
    silent = Sight()
    silent.lost()
    assert state_of(member, silent) == "no answer"
    troubled = Sight()
    troubled.take(runtime(1, 1) | {"haProblem": "the master is shorter"}, 0.0)
    assert state_of(member, troubled) == "not following"
    assert problems_of(fleet_of(Shape()), {"a-0": Sight(), "a-1": troubled}) == ["a-1: the master is shorter"]
    refuser = Sight()
    refuser.take(runtime(1, 1) | {"haState": "master", "haProblem": "HA peer x refused"}, 0.0)
    assert state_of(member, refuser) == "up"
    member.state, member.ended = "down", "exit code 7: damaged"
    assert news_of(member) == "a-0 down: exit code 7: damaged"
    assert row_of(member, silent, None)["pid"] == ""
    member.state, member.starts = "starting", 2
    assert news_of(member).startswith("a-0 starting again: SYNC_MASTER at 127.0.0.1:20010")


@pytest.mark.parametrize(("code", "words", "text"), [
    (-9, "", "killed by SIGKILL"), (-255, "", "killed by signal 255"), (0, "trmq: bye", "exit code 0"), (7, "", "exit code 7"),
    (2, "x\ntrmq: first\ntrmq: port 1 is in use\n", "exit code 2: port 1 is in use"),
])  # fmt: skip
def test_how_a_process_ended(code: int, words: str, text: str) -> None:
    assert how_it_ended(code, words) == text


@pytest.mark.parametrize(("count", "text"), [
    (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (256 << 20, "256.0 MiB"), (-2048, "-2.0 KiB"),
    (1 << 62, "4096.0 PiB"),
])  # fmt: skip
def test_amounts(count: int, text: str) -> None:
    assert amount(count) == text


def test_how_long_ago() -> None:
    texts = ["never", "1.5 s ago", "0.0 s ago", "5 min ago", "2.8 h ago"]
    assert [ago(ms, 10_000_000) for ms in (0, 9_998_500, 10_000_500, 9_700_000, 1)] == texts


# --- the account


def account() -> Account:
    """0 acked and received, 1 acked and lost, 2 unknown but received twice, 3 refused, 4 stored without a slave, 5 open."""
    found = Account()
    for _ in range(6):
        found.next()
    found.acked(0, 1.0, "SEND_OK", "a")
    found.acked(1, 1.5, "SEND_OK", "b")
    found.failed(2, unknown=True)
    found.failed(3, unknown=False)
    found.acked(4, 4.0, "SLAVE_NOT_AVAILABLE", "a")
    for number, served_by in ((0, "h:1"), (2, "h:2"), (2, "h:2"), (4, "h:1")):
        found.received(number, 5.0, "a", served_by)
    return found


def test_an_account() -> None:
    found = account()
    assert (found.lost, found.open, found.received_count, found.duplicated) == ([1], 1, 3, 1)
    assert found.to_dict() == {
        "sent": 6, "acked": 3, "statuses": {"SEND_OK": 2, "SLAVE_NOT_AVAILABLE": 1}, "acked_by_group": {"a": 2, "b": 1}, "refused": 1,
        "unknown": 1, "unknown_but_received": 1, "received": 3, "lost": 1, "lost_messages": [1], "duplicated": 1,
        "duplicated_across_groups": 0, "received_from": {"h:1": 2, "h:2": 2},
    }  # fmt: skip
    assert [ack.at for ack in found.acks_of("a", 1.5)] == [4.0]
    assert found.longest_pause(0.5, 4.5) == 2.5
    assert found.longest_pause(4.5, 6.0) == 1.5


def test_the_summary_of_an_account() -> None:
    text = "\n".join(summary(account(), {"h:2": "a-1"}))
    assert text == """\
sent        6
acked       3: 2 SEND_OK, 1 SLAVE_NOT_AVAILABLE (stored, but not on a slave in time); by group: a 2, b 1
failed      1 certainly not stored, 1 unknown (1 were received)
received    3; served by: h:1 2, a-1 2
lost        1: messages 1
duplicated  1"""
    found = account()
    found.received(0, 6.0, "b", "h:3")
    assert summary(found, {})[-1] == "duplicated  2: 1 stored by group a, whose answer died with its master, and sent again to group b"
    fine = attrs.evolve(Account(), sent=0)
    assert "failed" not in "\n".join(summary(fine, {}))
