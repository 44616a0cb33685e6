"""Results of reading, and the few lines that check a record before it is handed out."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from trmq.record import FIXED_SIZE, MAGIC_V1, MAGIC_V2

UNIT = struct.Struct(">qiq")
UNIT_SIZE = UNIT.size
_FRONT = struct.Struct(">II20xq")
FRONT_SIZE = _FRONT.size


class PullStatus(enum.Enum):
    """Java's `GetMessageStatus`; the name is the remark of the answer."""

    FOUND = "FOUND"
    NO_MATCHED_MESSAGE = "NO_MATCHED_MESSAGE"
    MESSAGE_WAS_REMOVING = "MESSAGE_WAS_REMOVING"
    OFFSET_FOUND_NULL = "OFFSET_FOUND_NULL"
    OFFSET_OVERFLOW_BADLY = "OFFSET_OVERFLOW_BADLY"
    OFFSET_OVERFLOW_ONE = "OFFSET_OVERFLOW_ONE"
    OFFSET_TOO_SMALL = "OFFSET_TOO_SMALL"
    NO_MATCHED_LOGIC_QUEUE = "NO_MATCHED_LOGIC_QUEUE"
    NO_MESSAGE_IN_QUEUE = "NO_MESSAGE_IN_QUEUE"


class Pull(NamedTuple):
    """`slices` are whole records, neighbours merged; `size` their bytes, `count` their number; offsets are queue offsets.
    `last_phy` is where the last scanned record lies, -1 if none was."""

    status: PullStatus
    next_offset: int
    min_offset: int
    max_offset: int
    slices: list[memoryview]
    size: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    last_phy: int


class Put(NamedTuple):
    """Where an appended record will be once `commit` has returned. `size` in bytes."""

    phy_offset: int
    queue_offset: int
    size: int


def record_front(view: memoryview, phy: int) -> int | None:
    """The size of the record that starts at the beginning of `view` (at physical offset `phy`), None if none does."""
    if len(view) < FRONT_SIZE:
        return None
    size, magic, at = _FRONT.unpack_from(view)
    if magic not in (MAGIC_V1, MAGIC_V2) or size < FIXED_SIZE or at != phy:
        return None
    return int(size)
