"""The log of one node on the heap: the shipped log, checksums, checkpoint and recovery, with a driver in place of `StoreService`.

Real: `CommitLog`, `ChecksumFile`, `Checkpoints`, `Follower`, and `_Recovery` without the indexes (they are the store's own tests'
business). Played here: when a group is flushed, and in which order the files are synced.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

from specs.history import Stored

from trmq.chaos.heap_disk import HeapDisk, HeapFile, Inode, at_once
from trmq.errors import DiskFull
from trmq.log import aside
from trmq.log.checkpoint import ABORT_PATH, Checkpoints, Marks
from trmq.log.checksums import checks_until, record_check
from trmq.log.commit_log import CommitLog
from trmq.log.config import StoreConfig
from trmq.log.follower import Follower
from trmq.log.recovery import Report, _Recovery
from trmq.log.scan import Scanned, parse_record
from trmq.log.store import Store
from trmq.record import HEAD_V4, MAGIC_BLANK, MAGIC_V1, encode_record

SEGMENT = 2048
HOST = bytes((10, 0, 0, 1, 0, 0, 42, 159))
TOPIC = b"T"
REACH = 1 << 20
UNIQUE = b"UNIQ_KEY\x01"
_RECORD_FIXED = 91 + len(TOPIC)
_head = HEAD_V4.unpack_from


class _LogRecovery(_Recovery):
    """The shipped recovery, but nothing is indexed."""

    def _dispatch(self, record: Scanned, queues_from: int, index_from: int) -> None: ...


class _NoQueue:
    """A queue that forgets what it is told."""

    topic, queue_id, next_offset, committed_next, max_offset = "T", 0, 0, 0, 0

    def __init__(self) -> None:
        self.index = self

    def extend(self, first: int, phy: int, end: int, units: bytes) -> None: ...


NO_QUEUE = _NoQueue()
EMPTY: dict[str, bytes] = {}
"""Path -> content of every file after the first start on an empty disk."""


class Group(NamedTuple):
    """A flush under way: what it covers."""

    end: int
    files: list[tuple[Inode, int, str]]
    names: int
    """So many changes of names, 0: none have to be synced."""
    mark: tuple[int, int]


class Placed(NamedTuple):
    phy: int
    end: int
    queue_offset: int


CONFIGS = {sync: StoreConfig(segment_size=SEGMENT, queue_units=20, index_enabled=False, sync_flush=sync) for sync in (False, True)}


class HeapStore:
    """One incarnation's store, recovered by the constructor. Raises `CorruptRecord`, `StoreMismatch`, `DiskFull`, `DiskFailed`.

    What `Follower` wants to see of a store is here: `log`, `config`, `flushed`, `confirm`."""

    on_commit = on_arrival = index = None
    last_store_ms = 0

    def __init__(self, disk: HeapDisk, sync_flush: bool, now_ms: Any) -> None:
        self.disk = disk
        self.config = CONFIGS[sync_flush]
        self.follower: Follower | None = None
        self.follows = False
        self.before_marks: Any = None
        self._next: dict[int, int] = {}
        self._taken: list[int] = []
        if EMPTY and not disk.names_now and not disk.full and not disk.failing:
            self._begin_empty()
            return
        was_empty = not disk.names_now
        found = _LogRecovery(disk, self.config, now_ms).run()
        self.report = found.report
        self.log: CommitLog = found.store.log
        self.last_store_ms = found.store.last_store_ms
        self.checkpoints: Checkpoints = found.checkpoints
        self.incarnation = (self.checkpoints.marks or Marks()).incarnation + 1
        self.flushed = self.confirm = self.log.max_phy
        self._settle(found.files, found.folders)
        if was_empty and not disk.full:
            EMPTY.update({path: bytes(inode.durable) for path, inode in disk.durable_names.items()})

    def _begin_empty(self) -> None:
        """What the first start on an empty disk came to, again: a search begins two stores with every seed."""
        disk = self.disk
        for path, content in EMPTY.items():
            inode = disk.names_now[path] = disk.durable_names[path] = Inode()
            inode.cache, inode.durable = bytearray(content), bytearray(content)
        disk.changes.clear()
        self.report = Report("new", 0, 0, 0, None, ())
        self.checkpoints = Checkpoints(disk)
        self.incarnation = 1
        self.log = CommitLog(disk, self.config.commit_log_path, SEGMENT, [])
        self.log.start_at(0)
        self.log.reach = REACH
        self.durable = (0, 0)
        self.flushed = self.confirm = 0

    def _settle(self, files: list[Any], folders: list[str]) -> None:
        """As `open_store`: everything that recovery did is durable before anything else happens."""
        disk = self.disk
        for file in files:
            at_once(file.sync())
        for folder in folders:
            disk.sync_names(folder)
        self.durable = self._dispatched()
        self.save()
        abort = disk.open(ABORT_PATH)
        abort.truncate(0)
        abort.write_at(0, b"1\n")
        at_once(abort.sync())
        disk.sync_names("trmq")
        disk.sync_names("")
        for _, _, queue_id, queue_offset in self.walk():
            self._next[queue_id] = queue_offset + 1

    behind = False

    # --- marks

    def _dispatched(self) -> tuple[int, int]:
        log = self.log
        mark = log.max_phy if self.before_marks is None else self.before_marks()
        segment = log.segment_at(mark)
        if segment is None or log.checksums is None or log.checksums.base != segment.base:
            return mark, 0
        return mark, log.checksums.position

    def _marks(self, *, clean: bool = False) -> Marks:
        mark, position = self.durable
        crc = self.checkpoints.apache.crc
        return Marks(
            clean, self.incarnation, SEGMENT, self.flushed, mark, mark, position, self.last_store_ms, self.log.reach, apache_old=crc,
            apache_new=crc,
        )  # fmt: skip

    def save(self, *, clean: bool = False) -> None:
        """Checkpoint, durably."""
        self.log.reach = max(self.log.max_phy, self.log.next_phy) + REACH
        at_once(self.checkpoints.save(self._marks(clean=clean), self.checkpoints.apache))

    # --- writing

    def append(self, id: str, queue_id: int, body: bytes, store_ms: int) -> Placed:
        """Gather one record. Raises `DiskFull`; then nothing has changed."""
        log = self.log
        properties = UNIQUE + id.encode() + b"\x02"
        phy = log.place(_RECORD_FIXED + len(body) + len(properties))
        queue_offset = self._next.get(queue_id, 0)
        self.last_store_ms = store_ms = max(store_ms, self.last_store_ms)
        record = encode_record(TOPIC, queue_id, queue_offset, phy, body, properties, 0, 0, 1, HOST, store_ms, HOST)
        log.parts.append(record)
        log.checks.append(record_check(record))
        self._next[queue_id] = queue_offset + 1
        self._taken.append(queue_id)
        return Placed(phy, phy + len(record), queue_offset)

    def commit(self) -> int:
        """Write what was gathered. Raises `DiskFull` (nothing of it exists then), `DiskFailed`."""
        taken, self._taken = self._taken, []
        try:
            end = self.log.commit()
        except DiskFull:
            for queue_id in taken:
                self._next[queue_id] -= 1
            self.log.rollback()
            raise
        self.confirm = end
        return end

    def rollback(self) -> None:
        for queue_id in self._taken:
            self._next[queue_id] -= 1
        self._taken.clear()
        self.log.rollback()

    # --- flushing

    @property
    def unflushed(self) -> bool:
        return self.log.max_phy > self.flushed or self.log.unsynced

    def begin_flush(self) -> Group:
        log = self.log
        end, mark = log.max_phy, self._dispatched()
        names, log.new_names = log.new_names, False
        files: list[HeapFile] = [*log.take_stale_checks(), *(segment.file for segment in log.take_dirty())]  # type: ignore[list-item]
        return Group(end, [(file._inode, len(file._inode.dirty), file.path) for file in files], len(self.disk.changes) * names, mark)

    def end_flush(self, group: Group) -> None:
        """Raises `DiskFailed`: then the process has to stop."""
        disk = self.disk
        for inode, count, path in group.files:
            if disk.failing:
                disk.sync(inode, path)
            else:
                disk.settle(inode, count)
        if group.names:
            disk.sync_names(self.log.folder, group.names)
        if group.end > self.flushed:
            self.flushed = group.end
            self.last_mark = group.mark
            self.checkpoints.note(self._marks())

    last_mark = (0, 0)

    def checkpoint(self) -> None:
        """The indexes are durable up to the last flush, and the checkpoint says so."""
        if self.last_mark[0] > self.durable[0]:
            self.durable = self.last_mark
            self.save()

    def follow(self) -> Follower:
        self.follower = Follower(self)  # type: ignore[arg-type]
        return self.follower

    def open_queue(self, topic: str, queue_id: int) -> _NoQueue:
        return NO_QUEUE

    # --- ending

    def close(self) -> None:
        """In order. Raises `DiskFull`, `DiskFailed`."""
        self.rollback()
        if self.follower is not None:
            while self.follower.dispatch(1 << 20):
                pass
        self.end_flush(self.begin_flush())
        self.flushed = self.log.max_phy
        self.durable = self._dispatched()
        self.save(clean=True)
        self.disk.remove(ABORT_PATH)
        self.disk.sync_names("")

    def set_aside(self, at: int) -> None:
        """As `cut_store`: what lies behind `at` is kept in a file; then the log is cut there. Raises `DiskFull`, `DiskFailed`."""
        end = self.log.max_phy
        at_once(aside._set_aside(self, self, at, end))  # type: ignore[arg-type]
        self.cut(at)

    @property
    def store(self) -> HeapStore:
        return self

    def cut(self, at: int) -> None:
        """As `StoreService.cut`."""
        log = self.log
        position, start, kept = checks_until(self.disk, log, at)
        self.durable = (min(at, self.durable[0]), position)
        self.flushed = self.confirm = at
        self.save()
        log.cut(at, position, start, kept)
        self.end_flush(self.begin_flush())
        for folder in (log.folder, "trmq/checksums"):
            self.disk.sync_names(folder)
        self.durable = self._dispatched()

    # --- reading

    def read(self, start: int, end: int) -> bytes:
        """The log's bytes, as this incarnation reads them."""
        found = []
        while start < end:
            segment = self.log.segment_at(start)
            assert segment is not None
            stop = min(end, segment.end)
            found.append(segment.file.read_at(start - segment.base, stop - start))
            start = stop
        return found[0] if len(found) == 1 else b"".join(found)  # type: ignore[return-value]

    def walk(self) -> list[tuple[int, int, int, int]]:
        """(start, size, queue id, queue offset) of each record."""
        return walk(self.read(self.log.min_phy, self.log.max_phy), self.log.min_phy)


def walk(data: bytes, start: int) -> list[tuple[int, int, int, int]]:
    found, at, size = [], 0, len(data)
    while at + 8 <= size:
        length, magic = int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
        if magic == MAGIC_V1 and at + HEAD_V4.size <= size:
            fields = _head(data, at)
            found.append((start + at, length, fields[3], fields[5]))
        elif magic != MAGIC_BLANK or length < 8:
            break
        at += length
    return found


def visible(disk: HeapDisk, *, durable: bool = False) -> tuple[int, bytes]:
    """What an observer of the disk sees of the log: where it begins, and its bytes up to the end of the last whole record or blank."""
    view = disk.durable_names if durable else disk.names_now
    bases = sorted(int(path[10:]) for path in view if path.startswith("commitlog/"))
    if not bases:
        return 0, b""
    parts = []
    for number, base in enumerate(bases):
        if base != bases[0] + number * SEGMENT:
            break
        inode = view[f"commitlog/{base:020d}"]
        parts.append(bytes(inode.durable if durable else inode.cache).ljust(SEGMENT, b"\0"))
    data = b"".join(parts)
    at = 0
    while at + 8 <= len(data):
        length, magic = int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
        if length < 8 or at + length > len(data) or magic not in (MAGIC_V1, MAGIC_BLANK):
            break
        if magic == MAGIC_V1 and int.from_bytes(data[at + 28 : at + 36], "big") != bases[0] + at:
            break
        at += length
    return bases[0], data[:at]


def records_of(start: int, data: bytes) -> tuple[tuple[Stored, ...], frozenset[int]]:
    """The records of a log, and the starts of those that no reader would accept."""
    found, bad, view = [], [], memoryview(data)
    for phy, size, queue_id, queue_offset in walk(data, start):
        at = phy - start
        record = parse_record(view, at, SEGMENT - phy % SEGMENT, phy)
        if isinstance(record, str):
            id = "?"
            bad.append(phy)
        else:
            id = record.properties[len(UNIQUE) : -1].decode("ascii", "replace")
        found.append(Stored(id, ("T", queue_id), queue_offset, phy, size, zlib.crc32(view[at : at + size])))
    return tuple(found), frozenset(bad)


__all__ = ["SEGMENT", "Group", "HeapStore", "Placed", "Store", "records_of", "visible", "walk"]
