"""One seed, one schedule: the only place that touches private names of Trio.

Trio runs each batch of runnable tasks in random order. With `_ALLOW_DETERMINISTIC_SCHEDULING` it sorts the batch first, by the order
in which the tasks were made, and shuffles it with the module's generator `_r`, which we seed. Time is a `MockClock` that jumps
whenever everybody waits. A test guards the two names, and pyproject.toml pins Trio's minor version.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio._core._run as _run
from trio.testing import MockClock

T = TypeVar("T")


def seed_scheduling(seed: object) -> None:
    """Make the order in which Trio runs ready tasks a function of `seed`, from now on."""
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # final for everybody else
    _run._r.seed(f"schedule/{seed}")  # string seeds do not depend on the hash seed


def run_seeded(main: Callable[[], Awaitable[T]], seed: object) -> T:
    """`trio.run` in simulated time, where the same seed always gives the same run."""
    seed_scheduling(seed)
    return trio.run(main, clock=MockClock(autojump_threshold=0))
