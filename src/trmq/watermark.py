"""`Watermark`: a number that only grows, and tasks that wait for it to reach a value.

Flush, replication, confirm and dispatch all wait for a log offset; this is the one waiting idea of the shell.
Ends are exclusive: `reach(end)` returns once every byte below `end` is covered. Truncation is the one exception to
"only grows": `reset` fails whoever waits above the new value. Nothing polls.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

import trio

from .errors import OffsetOutOfRange


class Watermark:
    __slots__ = ("_order", "_value", "_waiters", "_watchers")

    def __init__(self, value: int = 0) -> None:
        self._value = value
        self._waiters: list[tuple[int, int, trio.Event]] = []
        self._order = count()
        self._watchers: list[Callable[[int], None]] = []

    @property
    def value(self) -> int:
        return self._value

    def watch(self, watcher: Callable[[int], None]) -> None:
        """Have `watcher(value)` called inside every `advance` that raises the value: for who must not lose a task switch. It must not
        wait, and not advance this mark."""
        self._watchers.append(watcher)

    def advance(self, to: int) -> None:
        """Raise the value to `to` (a lower or equal `to` changes nothing), tell the watchers, wake whoever waited for it. No checkpoint."""
        if to <= self._value:
            return
        self._value = to
        for watcher in self._watchers:
            watcher(to)
        while self._waiters and self._waiters[0][0] <= to:
            heapq.heappop(self._waiters)[2].set()

    def reset(self, to: int) -> None:
        """Lower the value after a truncation; everybody who waits above it gets `OffsetOutOfRange`."""
        self._value = to
        waiters, self._waiters = self._waiters, []
        for _, _, event in waiters:
            event.set()

    async def reach(self, offset: int) -> int:
        """Wait until value >= offset and return the value. Always a checkpoint. Raises `OffsetOutOfRange` after `reset` below."""
        if self._value >= offset:
            await trio.lowlevel.checkpoint()
            return self._value
        event = trio.Event()
        entry = (offset, next(self._order), event)
        heapq.heappush(self._waiters, entry)
        try:
            await event.wait()
        except trio.Cancelled:
            if entry in self._waiters:
                self._waiters.remove(entry)
                heapq.heapify(self._waiters)
            raise
        if self._value < offset:
            raise OffsetOutOfRange(f"truncated to {self._value} while waiting for {offset}")
        return self._value

    @property
    def waiting(self) -> int:
        return len(self._waiters)
