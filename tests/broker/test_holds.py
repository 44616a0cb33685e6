"""Held pulls: woken by their queue only, ended by their deadline, gone with their connection, bounded in number."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trmq.broker.holds import Hold, HoldDriver, Holds

A, B = ("T", 0), ("T", 1)


def held(conn: str, key: tuple[str, int] = A, deadline: float = 10.0, name: str = "") -> Hold[str, str]:
    return Hold(conn, key, 0, deadline, name or conn)


def test_an_arrival_names_the_holds_of_its_queue_once() -> None:
    holds: Holds[str, str] = Holds(10)
    first, second, other = held("a"), held("b"), held("c", B)
    for hold in (first, second, other):
        assert holds.add(hold)
    assert holds.mark("T", 0)
    assert holds.mark("T", 0)
    assert not holds.mark("U", 0)
    assert holds.take_arrived() == [first, second]
    assert holds.take_arrived() == []
    assert len(holds) == 3, "who is not answered stays held"


def test_holds_are_bounded() -> None:
    holds: Holds[str, str] = Holds(2)
    assert holds.add(held("a"))
    assert holds.add(held("b"))
    assert not holds.add(held("c"))
    holds.drop("a")
    assert holds.add(held("c"))


def test_a_dropped_connection_takes_only_its_own() -> None:
    holds: Holds[str, str] = Holds(10)
    mine, also_mine, other = held("a"), held("a", B), held("b")
    for hold in (mine, also_mine, other):
        holds.add(hold)
    assert holds.drop("a") == 2
    holds.mark("T", 0)
    assert holds.take_arrived() == [other]
    assert holds.take_expired(100.0) == [other]


def test_the_heap_does_not_grow_with_answered_pulls() -> None:
    holds: Holds[str, str] = Holds(10)
    for i in range(5_000):
        hold = held("a", deadline=1_000.0 + i)
        holds.add(hold)
        holds.remove(hold)
    assert len(holds._heap) < 200


@given(st.lists(st.tuples(st.sampled_from("aexd"), st.integers(0, 3), st.integers(0, 20)), max_size=80))
def test_against_a_plain_list(steps: list[tuple[str, int, int]]) -> None:
    holds: Holds[int, int] = Holds(8)
    model: list[Hold[int, int]] = []
    now = 0.0
    for what, who, amount in steps:
        if what == "a":
            hold: Hold[int, int] = Hold(who, ("T", amount % 2), 0, now + amount, 0)
            assert holds.add(hold) == (len(model) < 8)
            if len(model) < 8:
                model.append(hold)
        elif what == "e":
            now += amount / 4
            late = holds.take_expired(now)
            assert {id(h) for h in late} == {id(h) for h in model if h.deadline <= now}
            model = [h for h in model if h.deadline > now]
        elif what == "x":
            holds.mark("T", who % 2)
            assert holds.take_arrived() == [h for h in model if h.key[1] == who % 2]
        else:
            assert holds.drop(who) == sum(h.conn == who for h in model)
            model = [h for h in model if h.conn != who]
        assert len(holds) == len(model)
        assert all(h.deadline >= holds.next_deadline for h in model)


async def test_the_driver_wakes_ends_and_sleeps(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[str] = []
    written: list[str] = []

    def look(hold: Hold[str, str]) -> bool:
        seen.append(f"look {hold.request}")
        return hold.request != "stays"

    driver: HoldDriver[str, str] = HoldDriver(Holds(10), look, lambda hold: seen.append(f"end {hold.request}"), written.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        driver.hold(held("a", deadline=start + 15, name="goes"))
        driver.hold(held("b", deadline=start + 15, name="stays"))
        driver.hold(held("c", B, deadline=start + 2, name="short"))
        driver.arrived("T", 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["look goes", "look stays"]
        assert written == ["a"]
        await trio.sleep(3)
        assert seen[2:] == ["end short"]
        await trio.sleep(20)
        assert seen[3:] == ["end stays"]
        assert written == ["a", "c", "b"]
        nursery.cancel_scope.cancel()
