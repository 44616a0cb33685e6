"""Time that jumps: as soon as nobody can do anything, it is the next moment at which somebody can.

`JumpClock` does what Trio's `MockClock` with `autojump_threshold=0` does, to the last bit of every time, but without a turn of the run loop
in which nothing happens. `Bell` is what a simulated socket waits on: until it is rung, or until a time that the clock keeps by itself. A
`move_on_at` around a parking lot means the same and costs several times as much, and this is done for each piece that crosses the net.
"""

from __future__ import annotations

import heapq
from itertools import count

import trio
import trio._core._run as _run


class Bell:
    """For one task at a time. Whoever is woken looks for itself whether what it waited for is there."""

    __slots__ = ("_sleeper", "_sleeps")

    def __init__(self) -> None:
        self._sleeper: trio.lowlevel.Task | None = None
        self._sleeps = 0  # how often somebody slept here: an alarm is for one of those times

    def ring(self) -> None:
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            trio.lowlevel.reschedule(sleeper)

    async def wait(self, until: float | None = None) -> None:
        """Sleep until the bell is rung, or until a time in the future."""
        assert self._sleeper is None
        self._sleeper = trio.lowlevel.current_task()
        self._sleeps += 1
        if until is not None:
            clock = trio.lowlevel.current_clock()
            if not isinstance(clock, JumpClock):
                with trio.move_on_at(until):
                    await trio.lowlevel.wait_task_rescheduled(self._give_up)
                return
            clock.alarm(until, self, self._sleeps)
        await trio.lowlevel.wait_task_rescheduled(self._give_up)

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED


class JumpClock(trio.abc.Clock):
    """Starts at 0."""

    def __init__(self) -> None:
        self._now = 0.0
        self._alarms: list[tuple[float, int, Bell, int]] = []
        self._order = count()

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        return self._now

    def alarm(self, at: float, bell: Bell, sleep: int) -> None:
        """Ring `bell` at that time, if somebody is still sleeping there for the `sleep`th time."""
        assert at > self._now
        heapq.heappush(self._alarms, (at, next(self._order), bell, sleep))

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks this when no task can run: the time to jump, unless somebody waits for just that moment. `deadline` is the next of
        Trio's own."""
        alarms = self._alarms
        while alarms and (alarms[0][2]._sleeper is None or alarms[0][2]._sleeps != alarms[0][3]):
            heapq.heappop(alarms)
        if alarms and alarms[0][0] < deadline:
            deadline = alarms[0][0]
        if deadline == float("inf") or _run.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle:
            return deadline
        if deadline > self._now:
            self._now += deadline - self._now  # as MockClock adds it
        while alarms and alarms[0][0] <= self._now:
            _, _, bell, sleep = heapq.heappop(alarms)
            if bell._sleeps == sleep:
                bell.ring()
        return 0.0
