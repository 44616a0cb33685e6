"""Time that jumps: the same times as Trio's own clock for tests, and a bell that wakes its sleeper once."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from trmq.sim.clock import Bell, JumpClock


def both() -> list[trio.abc.Clock]:
    return [JumpClock(), MockClock(autojump_threshold=0)]


@pytest.mark.parametrize("seed", range(5))
def test_times_are_those_of_trios_clock_to_the_last_bit(seed: int) -> None:
    async def sleeper(dice: random.Random, seen: list[tuple[int, float]], name: int) -> None:
        for _ in range(200):
            await trio.sleep(dice.random() * 10 ** dice.randrange(-6, 3))
            seen.append((name, trio.current_time()))

    async def main(seen: list[tuple[int, float]]) -> None:
        async with trio.open_nursery() as nursery:
            for name in range(4):
                nursery.start_soon(sleeper, random.Random(f"{seed} {name}"), seen, name)

    runs: list[list[tuple[int, float]]] = []
    for clock in both():
        runs.append([])
        trio.run(main, runs[-1], clock=clock)
    assert runs[0] == runs[1]
    assert runs[0][-1][1] > 1000


@pytest.mark.parametrize("clock", both(), ids=["jump", "mock"])
def test_a_sleeper_wakes_at_its_time_or_when_the_bell_rings(clock: trio.abc.Clock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleep(bell: Bell, name: str, until: float | None) -> None:
        await bell.wait(until)
        woken.append((name, trio.current_time()))

    async def main() -> None:
        bells = [Bell() for _ in range(4)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep, bells[0], "its time", 2.0)
            nursery.start_soon(sleep, bells[1], "rung before", 9.0)
            nursery.start_soon(sleep, bells[2], "rung", None)
            nursery.start_soon(sleep, bells[3], "never", None)
            await trio.sleep(1)
            bells[1].ring()
            await trio.sleep(3)
            bells[2].ring()
            bells[0].ring()  # nobody sleeps there
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    assert woken == [("rung before", 1.0), ("its time", 2.0), ("rung", 4.0)]


@pytest.mark.parametrize("clock", both(), ids=["jump", "mock"])
def test_an_alarm_is_for_one_sleep(clock: trio.abc.Clock) -> None:
    """Who was rung or cancelled before its time, and sleeps again, is not woken at the time of before."""

    async def main() -> None:
        bell = Bell()
        with trio.move_on_after(1):
            await bell.wait(3.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bell.wait, 5.0)
            await trio.sleep(1)
            bell.ring()
        assert trio.current_time() == 2.0
        await bell.wait(7.0)
        assert trio.current_time() == 7.0

    trio.run(main, clock=clock)


def test_waiting_until_all_wait_does_not_move_time() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 5)
            nursery.start_soon(Bell().wait, 4.0)
            await trio.testing.wait_all_tasks_blocked()
            assert trio.current_time() == 0.0
        assert trio.current_time() == 5.0

    trio.run(main, clock=JumpClock())
