"""The commit log: records gathered in memory, written with one call per touched segment, read back as views.

**Gather, then commit.** `place(size)` hands out the physical offset of the next record and moves on to the next segment when it would
not fit; the caller adds the encoded pieces to `parts`. `commit` joins and writes them. Until then nothing exists: `rollback` (also
after a failed write) forgets it all. A failed write may have left whole records behind `max_phy`; they are overwritten with zeros,
at once or before the next write, so that a record that was refused is never found by a later recovery.

**Written with `write_at`, never through a mapping**: a full disk must be an exception. Read as views of whatever the disk offers.

**Rolling.** A spare file of full size is made ahead of time outside the log's folder (`spare`, by the shell, in a thread) and renamed
in when a segment is full; without one the file is made on the spot. New names are in `new_names` until their folder has been synced;
a flush covers them before anything in them counts as durable.

All offsets are physical, in bytes; ends are exclusive. Source: `CommitLog#asyncPutMessage`, `DefaultAppendMessageCallback#doAppend`;
reference "store" section 1.1. Upholds P-LOG-1, P-LOG-2, P-LOG-5, P-LOG-6.
"""

from __future__ import annotations

from trmq.errors import DiskFailed, DiskFull, MessageIllegal
from trmq.host import Disk, File
from trmq.log.checksums import ChecksumFile
from trmq.log.segment import Segment, blank, segment_name, zero_out
from trmq.record import BLANK_SIZE_MIN

SPARE_FOLDER = "trmq"
SPARE = f"{SPARE_FOLDER}/spare-segment"


class Chunk:
    """What is to be written to one segment: consecutive bytes from `start`."""

    __slots__ = ("checks", "parts", "segment", "start")

    def __init__(self, segment: Segment, start: int) -> None:
        self.segment = segment
        self.start = start
        self.parts: list[bytes | bytearray | memoryview] = []
        self.checks: list[int] = []


class CommitLog:
    def __init__(self, disk: Disk, folder: str, segment_size: int, segments: list[Segment]) -> None:
        self.disk = disk
        self.folder = folder
        self.segment_size = segment_size
        self.segments = segments
        self.min_phy = segments[0].base if segments else 0
        self.max_phy = self.min_phy
        self.spare_ready = False
        self.no_space = False
        """The last attempt to make a spare found no space: do not try again on the hot path, the shell will."""
        self.spare_wanted = True
        self.new_names = False
        self.reach = 1 << 62
        """Nothing is ever written at or above this offset, as a durable note tells recovery. The shell keeps it well ahead of `max_phy`."""
        self.checksums: ChecksumFile | None = None
        self._smeared: int | None = None
        self._checks_before: tuple[int, int] | None = None
        self._checks_begun = False
        self._stale_checks: set[str] = set()
        self._chunks: list[Chunk] = []
        self.parts: list[bytes | bytearray | memoryview] = []
        self.checks: list[int] = []
        self._segment: Segment | None = None  # that of next_phy
        self._start = self.next_phy = self.max_phy
        self._room = 0  # how far a record may reach in the current segment, its blank left over

    def start_at(self, max_phy: int, checksum_position: int | None = None) -> None:
        """The log ends at `max_phy` (recovery decided)."""
        self.max_phy = max_phy
        self._rewind()
        if self._segment is not None:
            self.checksums = ChecksumFile(self.disk, self._segment.base, checksum_position)

    # --- writing

    def place(self, size: int) -> int:
        """The physical offset for a record of `size` bytes. Raises `MessageIllegal` if no segment can hold it, `DiskFull`."""
        phy = self.next_phy
        end = phy + size
        if end > self._room:
            phy = self._roll(size)
            end = phy + size
        self.next_phy = end
        return phy

    def place_raw(self, data: memoryview) -> None:
        """Gather a stretch of another log that begins at `next_phy` and ends at a record's end, blanks included. Raises `DiskFull`;
        what stands before the segment that has no room is gathered then."""
        at = 0
        while at < len(data):
            segment = self._segment_at(self.next_phy) or self._new_segment(self.next_phy)
            if segment is not self._segment:
                if self._segment is not None:
                    self._close_chunk(self._segment)
                self._enter(segment, self.next_phy)
            size = min(len(data) - at, segment.end - self.next_phy)
            self.parts.append(data[at : at + size])
            self.next_phy += size
            at += size

    def begin_at(self, base: int) -> None:
        """Of an empty log: its first segment will begin at `base`."""
        assert not self.segments
        assert base % self.segment_size == 0
        self.min_phy = self.max_phy = base
        self._rewind()

    def witness(self, phy: int, checks: list[int]) -> None:
        """Note the checksums of consecutive records from `phy` on, which were written by `place_raw` and do not reach beyond one segment.
        They come after the records: one without a witness is judged by its own fields."""
        segment = self._segment_at(phy)
        assert segment is not None
        checksums = self._checksums_of(segment, 0 if phy == segment.base else None)
        checksums.append(phy, checks)

    def _roll(self, size: int) -> int:
        if size + BLANK_SIZE_MIN > self.segment_size:
            raise MessageIllegal(f"a record or batch of {size} bytes does not fit a segment of {self.segment_size}; send less at once")
        segment = self._segment
        base = self.next_phy if segment is None else segment.end
        following = self._segment_at(base) or self._new_segment(base)
        if segment is not None:
            remaining = segment.end - self.next_phy
            if remaining:
                self.parts.append(blank(remaining))
            self._close_chunk(segment)
        self._enter(following, base)
        return base

    def _enter(self, segment: Segment, at: int) -> None:
        self._segment = segment
        self._start = self.next_phy = at
        self._room = segment.end - BLANK_SIZE_MIN
        self.parts = []
        self.checks = []

    def _close_chunk(self, segment: Segment) -> None:
        if self.parts:
            chunk = Chunk(segment, self._start)
            chunk.parts, chunk.checks = self.parts, self.checks
            self._chunks.append(chunk)

    def _new_segment(self, base: int) -> Segment:
        """Publish the next segment under its name: the spare, or one made on the spot. Raises `DiskFull`."""
        if not self.spare_ready:
            if self.no_space:
                raise DiskFull(f"no space for the next commit log segment of {self.segment_size} bytes; free some or lower the retention")
            path = f"{SPARE}-{base}"
            self.disk.remove(path)
            try:
                self.disk.open(path, self.segment_size).close()
            except DiskFull:
                self.disk.remove(path)
                raise
        else:
            path = SPARE
        self.disk.rename(path, f"{self.folder}/{segment_name(base)}")
        self.spare_ready = False
        self.spare_wanted = True
        self.new_names = True
        segment = Segment(self.disk, self.folder, base, self.segment_size)
        segment.dirty = True  # its size may not be durable yet
        self.segments.append(segment)
        if len(self.segments) == 1:
            self.min_phy = base
        return segment

    def commit(self) -> int:
        """Write what was gathered; returns the new `max_phy`. Raises `DiskFull` (nothing was added), `DiskFailed`."""
        if self.next_phy == self.max_phy:
            return self.max_phy
        assert self._segment is not None
        self._close_chunk(self._segment)
        try:
            if self._smeared is not None:
                self._wipe(self._smeared)
            if self.next_phy > self.reach:
                raise DiskFull("the disk is too far behind what was written, or has no room for the checkpoint; send again later")
            self._write_checks()  # first: no byte of a record is ever there without its witness, unless power took that
            for chunk in self._chunks:
                segment = chunk.segment
                data = b"".join(chunk.parts) if len(chunk.parts) > 1 else chunk.parts[0]
                self._smeared = max(self._smeared or 0, chunk.start + len(data))
                segment.dirty = True
                segment.file.write_at(chunk.start - segment.base, data)
        except DiskFull:
            self.rollback()
            self._forget_checks()
            self._try_wipe()
            raise
        self._smeared = None
        self._checks_begun = False
        self.max_phy = self.next_phy
        self._chunks.clear()
        self.parts = []
        self.checks = []
        self._start = self.max_phy
        return self.max_phy

    def _write_checks(self) -> None:
        self._checks_before = None if self.checksums is None else (self.checksums.base, self.checksums.position)
        self._checks_begun = True
        for chunk in self._chunks:
            if not chunk.checks:
                continue
            self._checksums_of(chunk.segment, 0 if chunk.start == chunk.segment.base else None).append(chunk.start, chunk.checks)

    def _checksums_of(self, segment: Segment, position: int | None) -> ChecksumFile:
        checksums = self.checksums
        if checksums is None or checksums.base != segment.base:
            if checksums is not None:
                self._leave(checksums)
            checksums = self.checksums = ChecksumFile(self.disk, segment.base, position)
            checksums.cut(checksums.position)
        return checksums

    def _forget_checks(self) -> None:
        """Take back what a failed commit wrote to the checksum files. What remains is overwritten with the next segment's start."""
        begun, self._checks_begun = self._checks_begun, False
        before, checksums = self._checks_before, self.checksums
        if not begun or checksums is None:
            return
        if before is None:
            checksums.cut(0)
            return
        if checksums.base != before[0]:
            checksums.cut(0)
            self._leave(checksums)
            self.checksums = checksums = ChecksumFile(self.disk, *before)
        checksums.cut(before[1])

    def _leave(self, checksums: ChecksumFile) -> None:
        if checksums.stale:
            self._stale_checks.add(checksums.path)
        checksums.close()

    def take_stale_checks(self) -> list[File]:
        """Checksum files from which groups were cut off, opened; each is to be synced (and closed) before new records count as durable."""
        paths, self._stale_checks = self._stale_checks, set()
        if self.checksums is not None and self.checksums.stale:
            self.checksums.stale = False
            paths.add(self.checksums.path)
        return [self.disk.open(path) for path in sorted(paths) if self.disk.exists(path)]

    def rollback(self) -> None:
        """Forget everything placed since the last commit. A segment made for it stays, empty."""
        self._chunks.clear()
        self._rewind()

    def _rewind(self) -> None:
        segment = self._segment_at(self.max_phy)
        self._chunks.clear()
        if segment is not None:
            self._enter(segment, self.max_phy)
        else:  # exactly at the end of the last segment, or no segment at all: the next record makes one
            self._segment = self._segment_at(self.max_phy - 1) if self.max_phy > self.min_phy else None
            self._start = self.next_phy = self.max_phy
            self._room = -1
            self.parts = []
            self.checks = []

    def _try_wipe(self) -> None:
        try:
            if self._smeared is not None:
                self._wipe(self._smeared)
        except DiskFull:
            pass  # tried again before the next write; only a crash in between could show refused records

    def _wipe(self, end: int) -> None:
        """Zero what a failed write left in [max_phy, end)."""
        at = self.max_phy
        while at < end:
            segment = self._segment_at(at)
            if segment is None:
                break
            stop = min(end, segment.end)
            zero_out(segment.file, at - segment.base, stop - segment.base)
            segment.dirty = True
            at = stop
        self._smeared = None

    # --- reading

    def _segment_at(self, phy: int) -> Segment | None:
        if not self.segments:
            return None
        index = (phy - self.segments[0].base) // self.segment_size
        return self.segments[index] if 0 <= index < len(self.segments) else None

    segment_at = _segment_at

    def read(self, phy: int, size: int) -> memoryview | None:
        """The `size` bytes from `phy`, or None unless all of them are in one segment and between `min_phy` and `max_phy`."""
        if phy < self.min_phy or phy + size > self.max_phy or size <= 0:
            return None
        segment = self._segment_at(phy)
        if segment is None or phy + size > segment.end:
            return None
        view = segment.file.read_at(phy - segment.base, size)
        if len(view) != size:
            raise DiskFailed(f"{segment.path}: {len(view)} of {size} bytes at {phy - segment.base}; the file was cut while in use")
        return view

    # --- upkeep

    @property
    def unsynced(self) -> bool:
        """Whether anything was written since the last sync began, be it that a refused put was wiped or its checksums cut off."""
        stale = bool(self._stale_checks) or (self.checksums is not None and self.checksums.stale)
        return stale or any(segment.dirty for segment in self.segments)

    def take_dirty(self) -> list[Segment]:
        """The segments with writes no sync has covered yet, in order; they count as covered from now on (a failing sync is fatal)."""
        dirty = [segment for segment in self.segments if segment.dirty]
        for segment in dirty:
            segment.dirty = False
        return dirty

    def cut(self, at: int, checks_position: int, group_start: int, group: list[int]) -> None:
        """End the log at `at`: what lies behind becomes zero, later segments go. Of the checksums stays what `checksums.checks_until`
        says. To be synced, and the folders with it."""
        assert self.min_phy <= at <= self.max_phy
        end = self.max_phy
        while len(self.segments) > 1 and self.segments[-1].base >= at:
            segment = self.segments.pop()
            segment.close()
            self.disk.remove(segment.path)
            self.disk.remove(ChecksumFile(self.disk, segment.base, 0).path)
            self.new_names = True
        last = self.segments[-1]
        zero_out(last.file, at - last.base, min(end, last.end) - last.base)
        last.dirty = True
        if self.checksums is not None:
            self._leave(self.checksums)
            self.checksums = None
        self.start_at(at, checks_position)
        if self.checksums is not None:
            self.checksums.cut(checks_position)
            if group:
                self.checksums.append(group_start, group)
            self.checksums.stale = True

    def drop_first(self) -> Segment:
        """Remove the oldest segment; the last one never goes."""
        assert len(self.segments) > 1
        segment = self.segments.pop(0)
        self.min_phy = self.segments[0].base
        segment.close()
        self.disk.remove(segment.path)
        self.disk.remove(ChecksumFile(self.disk, segment.base, 0).path)
        return segment

    def close(self) -> None:
        for segment in self.segments:
            segment.close()
        if self.checksums is not None:
            self.checksums.close()
