"""One file of the commit log, and the rules for a folder of them.

**Shape.** A segment is `segment_size` bytes long from the moment it has its name: the 20-digit decimal of its first physical
offset. It is filled from byte 0 with whole records and, when the next record and 8 more bytes no longer fit, closed with a blank
(remaining size 4 bytes, magic 4 bytes); what follows the blank is unspecified. No record crosses an edge (P-LOG-1, P-LOG-2).

Java refuses a folder that holds any file of another length (TRAP-S1), so a segment is made elsewhere, given its full size there,
and only then renamed in. A short *last* file can still appear when power fails between rename and flush: nothing in it was ever
acknowledged, and recovery removes it if it holds nothing.

Source: `MappedFileQueue#doLoad`, `UtilAll#offset2FileName`.
"""

from __future__ import annotations

import re
import struct

from trmq.errors import CorruptRecord, StoreMismatch
from trmq.host import Disk, File
from trmq.record import MAGIC_BLANK

NAME = re.compile(r"\d{20}\Z")
BLANK = struct.Struct(">II")
_ZEROS = bytes(1 << 20)


def segment_name(base: int) -> str:
    return f"{base:020d}"


class Segment:
    """One segment; the file is opened when first needed. `base` is the physical offset of its byte 0."""

    __slots__ = ("_disk", "_file", "base", "dirty", "path", "size")

    def __init__(self, disk: Disk, folder: str, base: int, size: int) -> None:
        self._disk = disk
        self._file: File | None = None
        self.base = base
        self.size = size
        self.path = f"{folder}/{segment_name(base)}"
        self.dirty = False
        """Something was written since the last sync began."""

    @property
    def end(self) -> int:
        return self.base + self.size

    @property
    def file(self) -> File:
        if self._file is None:
            self._file = self._disk.open(self.path)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def load_segments(disk: Disk, folder: str, segment_size: int, proven: int | None) -> tuple[list[Segment], list[str]]:
    """The segments of `folder` in order, and the paths of files removed or brought to full size on the way.

    `proven` is the physical offset below which everything is known to be durable, None if we can't know (then Apache's rule holds:
    only the last file may be short, and only if there is nothing in it). Above it a power cut may have left files short of their
    size or missing in the middle. Raises `StoreMismatch` for any other length, `CorruptRecord` for any other hole.
    """
    names = [name for name in disk.names(folder) if NAME.match(name) and not disk.is_folder(f"{folder}/{name}")]
    segments: list[Segment] = []
    changed: list[str] = []
    for position, name in enumerate(names):
        path = f"{folder}/{name}"
        base, size = int(name), disk.size_of(path)
        unproven = proven is not None and base >= proven
        if not segments and proven is not None and base > proven:
            disk.remove(path)  # a power cut took the name of the file before it: without that one this is no prefix of what was written
            changed.append(path)
            continue
        if segments and base != segments[-1].end:
            if proven is not None and segments[-1].end >= proven:
                disk.remove(path)  # behind a file whose name was lost: nothing here was ever acknowledged as durable
                changed.append(path)
                continue
            raise CorruptRecord(
                f"{folder}: the file after {segment_name(segments[-1].base)} must be {segment_name(segments[-1].end)} but is {name}; "
                "restore the missing file from a replica or a backup"
            )
        if size != segment_size:
            if position == len(names) - 1 and (size == 0 or ((unproven or proven is None) and _holds_nothing(disk, path, size))):
                disk.remove(path)
                changed.append(path)
                continue
            if proven and not unproven and size < segment_size:  # the store is known to have been made with this size
                raise CorruptRecord(
                    f"{path} has {size} bytes where segments have {segment_size}: it was cut off; restore it from a replica or a backup"
                )
            if not unproven or size > segment_size:
                raise StoreMismatch(
                    f"{path} has {size} bytes but mappedFileSizeCommitLog is {segment_size}; set mappedFileSizeCommitLog={size} "
                    "(the size this store was made with), or restore the file"
                )
            file = disk.open(path)
            file.truncate(segment_size)
            file.close()
            changed.append(path)
        segments.append(Segment(disk, folder, base, segment_size))
        segments[-1].dirty = size != segment_size
    return segments, changed


def _holds_nothing(disk: Disk, path: str, size: int) -> bool:
    file = disk.open_read(path)
    try:
        return last_nonzero(file, 0, size) is None
    finally:
        file.close()


def last_nonzero(file: File, start: int, end: int) -> int | None:
    """Position just after the last nonzero MiB-chunk's data in [start, end), or None if all is zero. Reads backwards."""
    at = end
    while at > start:
        low = max(start, at - len(_ZEROS))
        chunk = file.read_at(low, at - low)
        if chunk != memoryview(_ZEROS)[: len(chunk)]:
            return low + len(bytes(chunk).rstrip(b"\0"))
        at = low
    return None


def zero_out(file: File, start: int, end: int) -> bool:
    """Make [start, end) zero where it isn't; True if anything was written."""
    last = last_nonzero(file, start, end)
    if last is None:
        return False
    for low in range(start, last, len(_ZEROS)):
        file.write_at(low, memoryview(_ZEROS)[: min(len(_ZEROS), last - low)])
    return True


def blank(remaining: int) -> bytes:
    """The 8 bytes that close a segment with `remaining` bytes left."""
    assert remaining >= BLANK.size
    return BLANK.pack(remaining, MAGIC_BLANK)
