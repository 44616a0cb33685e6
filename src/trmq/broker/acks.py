"""The ack board: answers that wait until the log is safe up to an offset, or until their time is over.

One entry stands for everything one connection stored in one read batch, because a batch is committed by one write and
flushed by one sync. Entries come in the order of their ends and with one timeout for all, so both the ends and the
deadlines only grow and the board is a plain queue: `add`, `advance` and `expire` cost O(1) per entry.

The board knows one mark, `flushed`. Replication brings a second (how far enough slaves acknowledged): an entry then
leaves when every mark it asked for has reached its end, and the replica's status wins over the disk's, as in Java.

Deadlines are Trio's clock in seconds; ends are exclusive physical offsets. At the deadline the *value* decides, not the clock.
Source: `CommitLog#handleDiskFlush`, `GroupCommitService`. Upholds P-FLUSH-1, P-FLUSH-2.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from trmq.watermark import Watermark

T = TypeVar("T")


class AckBoard(Generic[T]):
    """What waits for the flush, oldest first. Pure: the caller says how far the flush is and what time it is."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[tuple[int, float, T]] = deque()

    def add(self, end: int, deadline: float, slot: T) -> None:
        """Keep `slot` until the mark reaches `end` or `deadline` passes."""
        if self._entries:
            assert end >= self._entries[-1][0], "ends only grow"
            assert deadline >= self._entries[-1][1], "deadlines only grow"
        self._entries.append((end, deadline, slot))

    def advance(self, mark: int) -> list[T]:
        """The slots whose end the mark has reached; they leave the board."""
        entries, ready = self._entries, []
        while entries and entries[0][0] <= mark:
            ready.append(entries.popleft()[2])
        return ready

    def expire(self, now: float) -> list[T]:
        """The slots whose deadline has passed; they leave the board. Call `advance` first: what is reached is reached."""
        entries, late = self._entries, []
        while entries and entries[0][1] <= now:
            late.append(entries.popleft()[2])
        return late

    @property
    def next_end(self) -> int | None:
        return self._entries[0][0] if self._entries else None

    @property
    def next_deadline(self) -> float:
        return self._entries[0][1] if self._entries else math.inf

    def __len__(self) -> int:
        return len(self._entries)


class AckDriver(Generic[T]):
    """Moves a board: with the flush, in the step that raises the mark, and at the deadlines, by its one task.

    `settle(ready, late, flushed)` must not wait. It runs inside `flushed.advance`, so an answer costs no task switch of its own. The task
    sleeps until the deadline that was the next when it fell asleep, whatever has been answered since: one timer for thousands.
    """

    def __init__(self, flushed: Watermark, settle: Callable[[list[T], list[T], int], None]) -> None:
        self.board: AckBoard[T] = AckBoard()
        self._flushed = flushed
        self._settle = settle
        self._bell = trio.Event()
        self._idle = True
        flushed.watch(self._reached)

    def add(self, end: int, deadline: float, slot: T) -> None:
        self.board.add(end, deadline, slot)
        if end <= self._flushed.value:
            self._reached(self._flushed.value)
        elif self._idle:
            self._idle = False
            self._bell.set()

    def _reached(self, mark: int) -> None:
        ready = self.board.advance(mark)
        if ready:
            self._settle(ready, [], mark)

    async def run(self) -> None:
        """Never returns."""
        board, flushed = self.board, self._flushed
        while True:
            while len(board):
                await trio.sleep_until(board.next_deadline)
                mark = flushed.value
                ready, late = board.advance(mark), board.expire(trio.current_time())
                if ready or late:
                    self._settle(ready, late, mark)
            self._bell, self._idle = trio.Event(), True
            await self._bell.wait()
