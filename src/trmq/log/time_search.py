"""Finding a queue offset by store time. There is no time index: a binary search over units asks the log for each one's time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from trmq.log.index_files import first_true
from trmq.log.queue_index import QueueIndex

Boundary = Literal["LOWER", "UPPER"]


def offset_by_time(queue: QueueIndex, ms: int, boundary: Boundary, store_ms: Callable[[int, int], int | None]) -> int:
    """LOWER: the least offset stored at or after `ms`, `max_offset` if none. UPPER: the greatest stored at or before `ms`,
    `min_offset` if none. `store_ms(phy, size)` reads a record's store time, None if the record is no longer kept.

    Records no longer kept count as older than any time. Store times are assumed not to decrease along a queue; after a step
    back of the clock the answer is some place where the time passes `ms` (TRAP-S5).
    Source: reference "store" section 2.4; `ConsumeQueue#getOffsetInQueueByTime`. Upholds P-TIME-1.
    """

    def time_at(offset: int) -> int | None:
        unit = queue.unit(offset)
        return None if unit is None else store_ms(unit[0], unit[1])

    def at_or_after(offset: int) -> bool:
        at = time_at(offset)
        return at is not None and at >= ms

    def after(offset: int) -> bool:
        at = time_at(offset)
        return at is not None and at > ms

    low, high = queue.min_offset, queue.max_offset
    if boundary == "LOWER":
        return first_true(low, high, at_or_after)
    return max(low, first_true(low, high, after) - 1)
