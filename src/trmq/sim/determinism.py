"""One seed, one schedule: the only place, besides `clock`, that touches private names of Trio.

Trio runs each batch of runnable tasks in random order. With `_ALLOW_DETERMINISTIC_SCHEDULING` it sorts the batch first, by the order
in which the tasks were made, and shuffles it with the module's generator `_r`, which we seed. Time jumps whenever everybody waits. A test
guards the private names, and pyproject.toml pins Trio's minor version.

`hold_back` stops the tasks of one host as SIGSTOP stops a process: a task of it that becomes ready does not run until it is let go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import trio
import trio._core._run as _run

from trmq.sim.clock import JumpClock

T = TypeVar("T")
RUNS_ON: ContextVar[object] = ContextVar("RUNS_ON", default=None)
"""The host a task belongs to; a task's children inherit it."""
_held: dict[int, list[_run.Task]] = {}
"""id of a host that is stopped -> its tasks that are ready."""
_make_ready = _run.Runner.reschedule


def seed_scheduling(seed: object) -> None:
    """Make the order in which Trio runs ready tasks a function of `seed`, from now on."""
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # final for everybody else
    _run._r.seed(f"schedule/{seed}")  # string seeds do not depend on the hash seed


def run_seeded(main: Callable[[], Awaitable[T]], seed: object) -> T:
    """`trio.run` in simulated time, where the same seed always gives the same run."""
    seed_scheduling(seed)
    return trio.run(main, clock=JumpClock())


def hold_back(host: object) -> Callable[[], None]:
    """Stop every task of `host` until the returned function is called."""
    key = id(host)
    _held[key] = []
    _run.Runner.reschedule = _reschedule  # type: ignore[assignment,method-assign]
    _set_aside(_run.GLOBAL_RUN_CONTEXT.runner)

    def go_on() -> None:
        tasks = _held.pop(key)
        if not _held:
            _run.Runner.reschedule = _make_ready  # type: ignore[method-assign]
        for task in tasks:
            task._runner.runq.append(task)

    return go_on


def _reschedule(self: _run.Runner, task: _run.Task, *args: Any) -> None:
    _make_ready(self, task, *args)
    _set_aside(self)


def _set_aside(runner: _run.Runner) -> None:
    for task in list(runner.runq):
        held = _held.get(id(task.context.get(RUNS_ON)))
        if held is not None:
            runner.runq.remove(task)
            held.append(task)
