"""A checksum over what Apache's format leaves unprotected: header, topic and properties of each record (TRAP-S20).

A record's own CRC covers the body alone, so a torn or flipped sector in the rest passes unnoticed if the lengths still add up.
Each segment has a companion `trmq/checksums/<segment name>`, which Apache ignores. Every commit appends one group to it:

    start 8 (physical offset of the first record) | count 4 | check 4 | count times crc 4          big-endian, unsigned

`crc` is CRC-32 of the record without its body (the body is pinned by the bodyCRC, which is inside the header); `check` is CRC-32 of
everything else in the group. Together they cover every byte of a record at the price of hashing some 200 bytes.

The group is written just before its records, so a killed process leaves no record without a witness. It does not wait for a sync of
its own (that would cost half as much again per group) unless groups were cut off before, which must not come back to contradict the
records written in their place. So after a power cut a witness may be missing, and a record without one is judged by its own fields, its
body CRC and by not having zeros where text belongs. One that contradicts its witness is bad. A group says where it starts, so a reader
needs no index; the checkpoint remembers a position to start reading at.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trmq.host import Disk, File
from trmq.log.segment import segment_name
from trmq.record import _HEADS, SYS_FLAG_AT

if TYPE_CHECKING:
    from trmq.log.commit_log import CommitLog

FOLDER = "trmq/checksums"
_GROUP = struct.Struct(">QII")
_HEAD = struct.Struct(">QI")
_GROUP_COUNT_MAX = 1 << 20


def record_check(record: bytes | memoryview) -> int:
    """CRC-32 of a whole record without its body. The record's lengths must already have been found consistent."""
    view = memoryview(record)
    flags = int.from_bytes(view[SYS_FLAG_AT : SYS_FLAG_AT + 4], "big")
    head_size = _HEADS[bool(flags & 0x10), bool(flags & 0x20)].size
    body_size = int.from_bytes(view[head_size - 4 : head_size], "big")
    return zlib.crc32(view[head_size + body_size :], zlib.crc32(view[:head_size]))


def encode_group(start: int, checks: Sequence[int]) -> bytes:
    count = len(checks)
    head = _HEAD.pack(start, count)
    crcs = struct.pack(f">{count}I", *checks) if count != 1 else checks[0].to_bytes(4, "big")
    return head + zlib.crc32(crcs, zlib.crc32(head)).to_bytes(4, "big") + crcs


class ChecksumFile:
    """The companion of the segment at `base`. Appends go to `position`; nothing before it is rewritten."""

    __slots__ = ("_disk", "_file", "base", "path", "position", "stale")

    def __init__(self, disk: Disk, base: int, position: int | None = None) -> None:
        """`position` None: after whatever the file holds."""
        self._disk = disk
        self._file: File | None = None
        self.base = base
        self.path = f"{FOLDER}/{segment_name(base)}"
        if position is None:
            position = disk.size_of(self.path) if disk.exists(self.path) else 0
        self.position = position
        self.stale = False
        """Something was cut off that a power cut could bring back: sync before records written in its place count as durable."""

    @property
    def file(self) -> File:
        if self._file is None:
            self._file = self._disk.open(self.path)
        return self._file

    def append(self, start: int, checks: Sequence[int]) -> None:
        group = encode_group(start, checks)
        self.file.write_at(self.position, group)
        self.position += len(group)

    def cut(self, position: int) -> None:
        """Drop everything from `position` on."""
        if self._disk.exists(self.path) and self._disk.size_of(self.path) > position:
            self.file.truncate(position)
            self.stale = True
        self.position = position

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_groups(disk: Disk, base: int, position: int = 0) -> list[tuple[int, int, array[int]]]:
    """(position, start, crcs) of every valid group from `position` on; the first invalid one ends it."""
    path = f"{FOLDER}/{segment_name(base)}"
    if not disk.exists(path):
        return []
    file = disk.open_read(path)
    found = []
    try:
        size = file.size
        while position + _GROUP.size <= size:
            start, count, check = _GROUP.unpack(file.read_at(position, _GROUP.size))
            if count == 0 or count > _GROUP_COUNT_MAX or position + _GROUP.size + 4 * count > size:
                break
            raw = bytes(file.read_at(position + _GROUP.size, 4 * count))
            if zlib.crc32(raw, zlib.crc32(_HEAD.pack(start, count))) != check:
                break
            found.append((position, start, array("Q", struct.unpack(f">{count}I", raw))))
            position += _GROUP.size + len(raw)
    finally:
        file.close()
    return found


def checks_until(disk: Disk, log: CommitLog, phy: int) -> tuple[int, int, list[int]]:
    """What the companion of the segment at `phy` holds about records below `phy`, a record's start: (position, start, checks). Everything
    before `position`, and then the group `checks` from `start` on, perhaps none: the part of a group that `phy` splits."""
    segment = log.segment_at(phy)
    if segment is None or segment.base == phy:
        return 0, phy, []
    position = 0
    for position, start, checks in read_groups(disk, segment.base):
        if start >= phy:
            return position, phy, []
        at = start
        kept: list[int] = []
        for check in checks:
            if at >= phy:
                return position, start, kept
            kept.append(check)
            at += int.from_bytes(segment.file.read_at(at - segment.base, 4), "big")
        position += _GROUP.size + 4 * len(checks)
    return position, phy, []


__all__ = ["FOLDER", "ChecksumFile", "checks_until", "encode_group", "read_groups", "record_check"]
