"""Where two logs part: the largest offset up to which both are the same, found by asking for a few records.

Records carry their own offset, their queue's, and the times they were born and stored, so two brokers that went different ways have no
equal record behind the point where they parted, and equal ones before it. That makes "this record is the same there" a question whose
answer changes once along the log: the segments are asked from the newest on, and within one the point is found by halving.

Source: docs/en/controller/design.md of Apache RocketMQ, "Truncation algorithm" (epochs there, records here). Upholds P-HA-1.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from trmq.log.commit_log import CommitLog
from trmq.log.segment import Segment
from trmq.record import FIXED_SIZE, MAGIC_V1, MAGIC_V2

STEP = 4096
"""Records looked at between two checkpoints."""
Same = Callable[[int, bytes], Awaitable[bool]]


class Records:
    """The records of a log, by their starts."""

    def __init__(self, log: CommitLog) -> None:
        self._log = log

    def read(self, start: int) -> bytes:
        """The record at `start`."""
        segment = self._log.segment_at(start)
        assert segment is not None
        at = start - segment.base
        return bytes(segment.file.read_at(at, int.from_bytes(segment.file.read_at(at, 4), "big")))

    async def starts(self, segment: Segment) -> list[int]:
        """Where the records of a segment begin."""
        found: list[int] = []
        at, end = segment.base, min(segment.end, self._log.max_phy)
        while at + FIXED_SIZE <= end:
            head = segment.file.read_at(at - segment.base, 8)
            size, magic = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big")
            if magic not in (MAGIC_V1, MAGIC_V2) or size < FIXED_SIZE:
                break
            found.append(at)
            at += size
            if len(found) % STEP == 0:
                await trio.lowlevel.checkpoint()
        return found

    async def last(self) -> int | None:
        """Where the last record begins, None if there is none."""
        for segment in reversed(self._log.segments):
            found = await self.starts(segment)
            if found:
                return found[-1]
        return None

    async def consistent_point(self, same: Same, low: int) -> int | None:
        """The end of the last record that both have; only records from `low` on can be asked for. None if there is none."""
        for segment in reversed(self._log.segments):
            found = [start for start in await self.starts(segment) if start >= low]
            if not found or not await same(found[0], self.read(found[0])):
                continue
            known, other = 0, len(found)
            while other - known > 1:
                middle = (known + other) // 2
                if await same(found[middle], self.read(found[middle])):
                    known = middle
                else:
                    other = middle
            return found[known] + len(self.read(found[known]))
        return None
