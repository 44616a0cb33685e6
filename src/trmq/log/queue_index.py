"""The consume queue of one (topic, queue id): where in the log the message with a given queue offset is.

Unit (20 bytes, big-endian): commitLogOffset 8 | size 4 | tagsCode 8. Unit *i* of the queue is at byte `i * 20`; a file
holds `units_per_file` of them, always has its full size (sparse), and is named by its first byte, 20 digits.

Rules that hold here
- Appending touches memory only. `write_back` puts the tail into files; what is durable is the caller's business (it
  syncs what it is told to). Everything below the last proven point is durable; recovery cuts what is above and appends it
  again, so a torn unit is never kept.
- Unit number equals queue offset, always. Apache appends "anyway" after a gap and so shifts the queue (TRAP-S7); here a
  gap is an error, and the remedy is to build the queue again from the log.
- Nothing stale comes back: whatever lies behind the end in a file is cut off before the first new unit is written there,
  at a truncation at once (as TRAP-S6 for the log).
- A topic may have been deleted and created again while its old records are still in the log. The record decides: one that
  lies before the unit in its place belongs to the earlier life and is passed over; unit 0 behind the end starts a new life.

Source: reference "store" section 2; `ConsumeQueue`. Upholds P-CQ-1, P-CQ-2, P-CQ-3, P-CQ-7.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise

from trmq.errors import StoreMismatch
from trmq.host import Buffer, Disk, File
from trmq.log.index_files import CorruptIndex, FileCache, first_true

UNIT = struct.Struct(">qiq")
UNIT_SIZE = 20
UNITS_PER_FILE = 300_000
DUMMY = UNIT.pack(0, 0x7FFFFFFF, 0)
"""Fills the first file of a queue that does not start at 0, up to its first unit. Never a message."""
_CHUNK_UNITS = 200  # 4,000 bytes: a queue that has hardly anything in its last file costs one page
_SCAN_FILES = 16  # more than one write-back ever reaches over, so a hole can't lie before them (Apache: 3)
_pack = UNIT.pack


class QueueIndex:
    """One queue. `min_offset` is the first unit that may be asked for, `max_offset` the next one to be appended.

    Neither ever decreases, except by `truncate` and when a new life of the topic begins. `end_phy` is the end (exclusive,
    log bytes) of the last record indexed. A new object knows nothing: call `recover` first.
    """

    def __init__(
        self, disk: Disk, folder: str, units_per_file: int = UNITS_PER_FILE, *,
        files: FileCache | None = None, on_dirty: Callable[[QueueIndex], None] | None = None,
    ) -> None:
        self.folder = folder
        self.min_offset = 0
        self.max_offset = 0
        self.end_phy = 0
        self.new_folders: set[str] = set()
        """Folders in which a name was made or removed since the caller last took them; to be synced after the files."""
        self._disk = disk
        self._files = FileCache(disk) if files is None else files
        self._on_dirty = on_dirty
        self._per_file = units_per_file
        self._file_size = units_per_file * UNIT_SIZE
        self._starts: list[int] = []  # first units of the files that exist, ascending
        self._base = 0  # units below are in files
        self._tail = bytearray()  # units [_base, max_offset)
        self._fill_from: int | None = None  # dummies go into [_fill_from, _base)
        self._fill_alone = False  # dummies are written although no unit follows yet
        self._rest_unknown = False  # something stale may lie behind _base in its file
        self._unsynced: dict[str, File] = {}

    # --- append

    def append(self, queue_offset: int, phy: int, size: int, tags: int) -> bool:
        """Add the unit of a record (`phy`, `size` in log bytes). True if the unit is there now, new or already built; False if
        the record belongs to a deleted life of the topic. Raises `CorruptIndex` for a gap or a contradiction."""
        if queue_offset != self.max_offset or phy < self.end_phy:
            built = self._built(queue_offset, phy)
            if built is not None:
                return built
            self._restart(queue_offset)
        if not self._tail:
            self._touched()
        self._tail += _pack(phy, size, tags)
        self.max_offset = queue_offset + 1
        self.end_phy = phy + size
        return True

    def extend(self, queue_offset: int, phy: int, end: int, units: bytes) -> None:
        """Add the units of consecutive messages whose records lie in [phy, end) of the log. As `append`, one after the other."""
        if queue_offset != self.max_offset or phy < self.end_phy:
            for number, (at, size, tags) in enumerate(UNIT.iter_unpack(units)):
                self.append(queue_offset + number, at, size, tags)
            return
        if not self._tail:
            self._touched()
        self._tail += units
        self.max_offset = queue_offset + len(units) // UNIT_SIZE
        self.end_phy = end

    def _built(self, queue_offset: int, phy: int) -> bool | None:
        """What to answer about a record that is not simply the next one; None if the queue starts anew with it."""
        behind = phy >= self.end_phy  # behind everything indexed so far
        if behind and queue_offset == 0:
            return None  # deleted and created again
        if queue_offset >= self.max_offset:
            if not behind:
                return False  # an earlier life reached further than this one
            if self.min_offset == self.max_offset:
                return None  # nothing below is retained: a queue may start in the middle
            raise CorruptIndex(
                f"queue {self.folder}: unit {queue_offset} (log offset {phy}) would leave a gap behind unit {self.max_offset - 1}; "
                "stop the broker and remove the whole consumequeue folder: the next start builds all queues again from the log"
            )
        if queue_offset < self.min_offset and not behind:
            return True
        there = self._phy(queue_offset) if queue_offset >= self.min_offset else -1
        if there >= phy:
            return there == phy
        raise CorruptIndex(
            f"queue {self.folder}: unit {queue_offset} points to log offset {there}, but the record with that queue offset is at {phy}; "
            "stop the broker and remove the whole consumequeue folder: the next start builds all queues again from the log"
        )

    def _restart(self, queue_offset: int) -> None:
        """Forget every unit and go on at `queue_offset`, with dummy units before it in its file as Apache writes them."""
        start = queue_offset // self._per_file * self._per_file
        fill_from = self._base if self._fill_from is None else self._fill_from
        if queue_offset == 0 or start not in self._starts or not start <= fill_from <= queue_offset:
            self._remove_files(0)
            fill_from = start
            self._rest_unknown = False
        self._tail.clear()
        self._fill_from = fill_from if fill_from < queue_offset else None
        self._base = self.min_offset = self.max_offset = queue_offset

    # --- read

    def units(self, offset: int, count: int) -> Buffer:
        """The raw units [offset, offset + count), as far as they exist in [min_offset, max_offset). Use at once: the bytes may be
        a view of the file."""
        end = min(offset + count, self.max_offset)
        if offset < self.min_offset or offset >= end:
            return b""
        base = self._base
        if offset >= base:
            return bytes(self._tail[(offset - base) * UNIT_SIZE : (end - base) * UNIT_SIZE])
        per_file = self._per_file
        parts: list[Buffer] = []
        while offset < min(end, base):
            start = offset // per_file * per_file
            stop = min(end, base, start + per_file)
            part = self._file(start).read_at((offset - start) * UNIT_SIZE, (stop - offset) * UNIT_SIZE)
            if stop == end and not parts:
                return part
            parts.append(part)
            offset = stop
        if end > base:
            parts.append(self._tail[: (end - base) * UNIT_SIZE])
        return b"".join(parts)

    def unit(self, offset: int) -> tuple[int, int, int] | None:
        """(phy_offset, size, tags_code) of one unit, or None outside [min_offset, max_offset)."""
        raw = self.units(offset, 1)
        return UNIT.unpack(raw) if len(raw) == UNIT_SIZE else None

    def _phy(self, offset: int) -> int:
        return int.from_bytes(bytes(self.units(offset, 1))[:8], "big")

    # --- write back

    @property
    def dirty(self) -> bool:
        """Whether `write_back` has something to write or to have synced."""
        return bool(self._tail or self._unsynced or self.new_folders or self._fill_from is not None)

    def write_back(self, below: int | None = None) -> list[File]:
        """Put the tail into files, but no unit of a record at or behind log offset `below`.

        Returns the files to be synced (then the folders in `new_folders`), each once.

        Raises `DiskFull` or `DiskFailed`; nothing is forgotten then, and a later call writes everything again."""
        end = self._base + len(self._tail) // UNIT_SIZE
        if below is not None and self.end_phy > below:
            end = max(self._base, min(end, self.find(below)))
        at = self._base
        tail = bytes(self._tail)
        if self._fill_from is not None and (at < end or self._fill_alone):
            file = self._open_to_write(self._fill_from)
            file.write_at(self._fill_from % self._per_file * UNIT_SIZE, DUMMY * (at - self._fill_from))
            self._fill_from, self._fill_alone = None, False
        while at < end:
            file = self._open_to_write(at)
            start = at // self._per_file * self._per_file
            stop = min(end, start + self._per_file)
            file.write_at((at - start) * UNIT_SIZE, tail[(at - self._base) * UNIT_SIZE : (stop - self._base) * UNIT_SIZE])
            at = stop
        del self._tail[: (end - self._base) * UNIT_SIZE]
        self._base = end
        files = list(self._unsynced.values())
        self._unsynced.clear()
        return files

    def _open_to_write(self, at: int) -> File:
        """The file of unit `at`, made if missing, with nothing stale behind `at`, noted as unsynced."""
        start = at // self._per_file * self._per_file
        if start not in self._starts:
            self._starts.append(start)
            self._starts.sort()
            self._note_names(with_parents=len(self._starts) == 1)
        elif self._rest_unknown:
            self._cut_file(at)
        if self._rest_unknown:  # first write since the start: a killed predecessor may have made the file and not synced its name
            self._note_names(with_parents=True)
        self._rest_unknown = False
        file = self._file(start)
        self._unsynced[file.path] = file
        self._files.pin((file.path,))
        return file

    def _cut_file(self, at: int) -> None:
        """Make everything from unit `at` to the end of its file zero: two length changes, no data written."""
        file = self._file(at // self._per_file * self._per_file)
        file.truncate(at % self._per_file * UNIT_SIZE)
        file.truncate(self._file_size)
        self._unsynced[file.path] = file
        self._files.pin((file.path,))

    # --- the two ends

    def truncate(self, phy: int) -> None:
        """Drop the units of all records at or behind log offset `phy`; they are zero in the file afterwards."""
        if self.end_phy <= phy:
            return
        end = self.find(phy)
        last = self.unit(end - 1)
        self.end_phy = last[0] + last[1] if last else min(self.end_phy, phy)
        self.max_offset = end
        if end >= self._base:
            del self._tail[(end - self._base) * UNIT_SIZE :]
            return
        self._tail.clear()
        self._base = end
        start = end // self._per_file * self._per_file
        self._remove_files(start + 1)
        if start in self._starts:
            self._cut_file(end)
            if self._rest_unknown:
                self._note_names(with_parents=True)
            self._rest_unknown = False
        self._touched()

    def correct_min(self, min_phy: int) -> None:
        """Raise `min_offset` to the first unit at or behind log offset `min_phy` and remove files that lie wholly below it. An
        emptied queue keeps its numbering, and the last file stays."""
        self.min_offset = max(self.min_offset, self.find(min_phy))
        while len(self._starts) > 1 and self._starts[1] <= self.min_offset:
            self._remove_file(self._starts[0])
        if self.new_folders:
            self._touched()

    def find(self, phy: int) -> int:
        """The first unit that points at or behind log offset `phy`; `max_offset` if none does."""
        return first_true(self.min_offset, self.max_offset, lambda i: self._phy(i) >= phy)

    def remove_all(self) -> None:
        """Remove every file and the folder; the queue is empty and starts at 0 again."""
        self._remove_files(0)
        for name in self._disk.names(self.folder):  # of a queue that could not be read
            self._files.drop(f"{self.folder}/{name}")
            self._disk.remove(f"{self.folder}/{name}")
        self._disk.remove(self.folder)
        self.new_folders = {self.folder.rpartition("/")[0]}
        self._tail.clear()
        self._fill_from = None
        self._base = self.min_offset = self.max_offset = self.end_phy = 0

    def begin_at(self, queue_offset: int) -> None:
        """Of a queue without units: go on at `queue_offset`, as after all its messages expired. Put into files by the next `write_back`."""
        self._remove_files(0)
        self._base = self.min_offset = self.max_offset = queue_offset
        self._fill_from = queue_offset // self._per_file * self._per_file
        self._fill_alone = True
        self._touched()

    # --- recovery

    def recover(self, *, clean: bool = False, min_phy: int = 0) -> None:
        """Find the ends of what is on disk. After an unclean stop the last files are scanned for holes; the
        units that were not proven durable are then to be cut with `truncate`. `min_offset` is that of the files: `correct_min`
        comes after. Records below log offset `min_phy` are gone, so files of them alone may be missing. Raises `StoreMismatch` for files
        of another size, `CorruptIndex` if another file in the middle is missing."""
        self._starts = self._list_files()
        if not self._starts:
            return
        self._drop_expired(min_phy)
        self._mend_names(clean)
        k = len(self._starts) - 1
        while k > 0 and not self._scan(self._starts[k], 1):
            k -= 1  # a file made ahead, or made and never written
        if not clean:
            k = max(0, min(k, len(self._starts) - _SCAN_FILES))
        end = self._starts[k]
        for start in self._starts[k:]:
            end = start + self._scan(start, self._per_file)
            if end < start + self._per_file:
                break
        first = self._starts[0]
        self._base = self.max_offset = end
        self.min_offset = first
        self.min_offset = first_true(first, min(end, first + self._per_file), lambda i: self.units(i, 1) != DUMMY)
        self._rest_unknown = True
        self._remove_files(end // self._per_file * self._per_file + 1)
        last = self.unit(end - 1)
        self.end_phy = last[0] + last[1] if last else 0

    def _list_files(self) -> list[int]:
        names = [name for name in self._disk.names(self.folder) if len(name) == 20 and name.isdecimal()]
        starts: list[int] = []
        for name in names:
            position, path = int(name), f"{self.folder}/{name}"
            size = self._disk.size_of(path)
            # a shorter file whose name fits is one that a crash left half cut or half made: the scan ends in it
            if position % self._file_size or size > self._file_size:
                raise StoreMismatch(
                    f"{path} has {size} bytes where queue files of {self._file_size} are configured; "
                    f"set mappedFileSizeConsumeQueue to the size this store was written with"
                )
            starts.append(position // UNIT_SIZE)
        return starts

    def _drop_expired(self, min_phy: int) -> None:
        """A file missing in the middle, and all before it is expired: retention removed several, and a power cut brought some back."""
        for before, after in reversed(list(pairwise(self._starts))):
            if after != before + self._per_file:
                last = bytes(self._file(before).read_at(self._file_size - UNIT_SIZE, UNIT_SIZE))
                if len(last) == UNIT_SIZE and last[8:12] != bytes(4) and int.from_bytes(last[:8], "big") < min_phy:
                    for start in [start for start in self._starts if start <= before]:
                        self._remove_file(start)
                    return

    def _mend_names(self, clean: bool) -> None:
        """A file missing in the middle: its name was not durable when power went, so neither counts what comes after it."""
        for before, after in pairwise(self._starts):
            if after != before + self._per_file:
                if clean:
                    raise CorruptIndex(
                        f"{self.folder}: the file before {after * UNIT_SIZE:020d} is missing; "
                        "stop the broker and remove the whole consumequeue folder: the next start builds all queues again from the log"
                    )
                self._remove_files(after)
                return

    def _scan(self, start: int, count: int) -> int:
        """How many of the first `count` units of a file are valid without a hole."""
        file = self._file(start)
        done, step = 0, min(count, _CHUNK_UNITS)
        while done < count:
            wanted = min(step, count - done)
            data = bytes(file.read_at(done * UNIT_SIZE, wanted * UNIT_SIZE))
            valid = valid_prefix(data)
            done += valid
            if valid < wanted:
                break
            step *= 8
        return done

    # --- files

    def _file(self, start: int) -> File:
        return self._files.get(f"{self.folder}/{start * UNIT_SIZE:020d}", self._file_size)

    def _remove_files(self, from_unit: int) -> None:
        """Remove the files that start at or behind a unit, the newest first: what a crash leaves is a shorter queue."""
        for start in reversed(self._starts):
            if start >= from_unit:
                self._remove_file(start)

    def _remove_file(self, start: int) -> None:
        path = f"{self.folder}/{start * UNIT_SIZE:020d}"
        self._unsynced.pop(path, None)
        self._files.drop(path)
        self._disk.remove(path)
        self._starts = [s for s in self._starts if s != start]
        self._note_names()

    def _note_names(self, *, with_parents: bool = False) -> None:
        self.new_folders.add(self.folder)
        if with_parents:
            topic_folder = self.folder.rpartition("/")[0]
            self.new_folders.update((topic_folder, topic_folder.rpartition("/")[0]))

    def _touched(self) -> None:
        if self._on_dirty is not None:
            self._on_dirty(self)


def valid_prefix(data: bytes) -> int:
    """How many whole units at the start of `data` have offset >= 0 and size > 0, done on columns of bytes: 300,000 in about 2 ms."""
    count = len(data) // UNIT_SIZE
    data = data[: count * UNIT_SIZE]
    if not data[0::20].isascii() or not data[8::20].isascii():  # a sign bit is set somewhere
        count = min(next((i for i, b in enumerate(data[at::20]) if b & 0x80), count) for at in (0, 8))
    sizes = 0
    for at in (8, 9, 10, 11):
        sizes |= int.from_bytes(data[at :: UNIT_SIZE], "big")
    zero = sizes.to_bytes(len(data) // UNIT_SIZE, "big").find(0)
    return count if zero < 0 else min(zero, count)
