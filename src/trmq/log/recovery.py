"""From whatever a stop left on disk to a store that may be used: `open_core`.

The caller holds the process lock (TRAP-S17) and, before it serves anything, syncs the files and folders that come back and
saves the marks. Order of events, each one harmless if the machine dies in it and all of this happens again (P-REC-6):

1. Whose store is it? Our checkpoint counts if it is valid and Apache did not run since (`Checkpoints.foreign`); else Apache's rules.
2. Where does the log end? Stopped cleanly: at the mark, and if no queue's folder is gone (`queue_ends`) that is all.
   Else scan from the start point; the first bad record ends it.
3. May it end there? Below the proven mark nothing may be bad: `CorruptRecord`, and nothing is changed (TRAP-S21). With Apache's
   checkpoint a bad record is corruption if good ones follow that are older than what the checkpoint calls durable.
4. Rebuild queue units and index entries of the scanned records. A queue that contradicts the log is built again from the log's start.
5. Make the end final: everything behind it becomes zero, later segments go (TRAP-S6), what is not proven durable is written again
   (TRAP-S15: after a failed sync the page cache shows bytes that the disk never got).

Start points. Ours: below min(queues, index) everything is durable. Apache after a crash: the newest segment whose first record is at
least 3 s older than its checkpoint's log and queue times. Apache after a clean stop: the newest segment that begins at or below the end of
what the queues hold (`>=`, TRAP-S18).

An empty commit log beside existing queues is refused: going on would hand out queue offsets again that consumers have seen (TRAP-S22).

Source: `CommitLog#recoverNormally`, `#recoverAbnormally`; reference "store" section 6. Upholds P-REC-1 to P-REC-8, P-CQ-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from trmq.errors import CorruptRecord, StoreMismatch
from trmq.host import Disk, File
from trmq.log.checkpoint import ABORT_PATH, Checkpoints, Marks
from trmq.log.checksums import FOLDER as CHECKSUM_FOLDER
from trmq.log.checksums import ChecksumFile
from trmq.log.commit_log import SPARE_FOLDER, CommitLog
from trmq.log.config import StoreConfig
from trmq.log.dispatch import index_keys, unit_tags
from trmq.log.index_files import CorruptIndex
from trmq.log.key_index import KeyIndex
from trmq.log.queue_ends import Ends, first_file, read_ends
from trmq.log.queue_index import UNIT_SIZE, QueueIndex
from trmq.log.queue_table import QueueIndexSet
from trmq.log.scan import Scan, Scanned, parse_record
from trmq.log.segment import load_segments, segment_name, zero_out
from trmq.log.store import QUEUE_FOLDER, Store
from trmq.message import TRANSACTION_MASK, TRANSACTION_PREPARED, TRANSACTION_ROLLBACK, decode_properties

INDEX_FOLDER = "index"
APACHE_MARGIN_MS = 3000
_COPY_BYTES = 4 << 20
UNQUEUED = (TRANSACTION_PREPARED, TRANSACTION_ROLLBACK)


@attrs.frozen
class Report:
    """What recovery found and did. `how`: new, clean, trmq, apache-clean or apache-dirty. Offsets are physical."""

    how: str
    scanned_from: int
    end: int
    records: int
    cut: str | None
    """Why the log ends where it does, None if only zeros follow."""
    rebuilt_queues: tuple[tuple[str, int], ...]


@attrs.define
class Recovered:
    """A store to be used once `files`, then `folders`, are synced and `checkpoints.save` was called. `rebuilding`: queues are built
    again, so before any is written the checkpoint must say that none counts."""

    store: Store
    checkpoints: Checkpoints
    files: list[File]
    folders: list[str]
    report: Report
    rebuilding: bool = False


def open_core(disk: Disk, config: StoreConfig, now_ms: Callable[[], int]) -> Recovered:
    """Load and recover the store on `disk`. Raises `StoreMismatch`, `CorruptRecord`."""
    return _Recovery(disk, config, now_ms).run()


class _Recovery:
    def __init__(self, disk: Disk, config: StoreConfig, now_ms: Callable[[], int]) -> None:
        self.disk = disk
        self.config = config
        self.now_ms = now_ms
        self.files: dict[str, File] = {}
        self.folders: dict[str, None] = {}
        self.checkpoints = Checkpoints(disk)
        self.foreign = self.checkpoints.foreign()
        self.marks = self.checkpoints.marks if self.checkpoints.marks is not None and not self.foreign else Marks()
        self.dirty_stop = disk.exists(ABORT_PATH)
        self.ends = read_ends(disk)
        self.broken: set[tuple[str, int]] = set()
        self.clipped: set[QueueIndex] = set()

    def run(self) -> Recovered:
        disk, config = self.disk, self.config
        for name in disk.names(SPARE_FOLDER):
            if name.startswith("spare-segment"):  # may hold data if a rename was lost: never used again
                disk.remove(f"{SPARE_FOLDER}/{name}")
                self.folders[SPARE_FOLDER] = None
        if self.marks.segment_size not in (0, config.segment_size):
            raise StoreMismatch(
                f"this store was written with segments of {self.marks.segment_size} bytes but mappedFileSizeCommitLog is "
                f"{config.segment_size}; set mappedFileSizeCommitLog={self.marks.segment_size}"
            )
        self._check_file_size()
        folder = config.commit_log_path
        segments, changed = load_segments(disk, folder, config.segment_size, None if self.foreign else self.marks.flushed)
        if changed:
            self.folders[folder] = None
        self.log = CommitLog(disk, folder, config.segment_size, segments)
        self.indexes = QueueIndexSet(disk, QUEUE_FOLDER, config.queue_units, open_files_max=config.open_files_max)
        self.indexes.load(clean=not (self.foreign and self.dirty_stop))
        self.index = self._load_index() if config.index_enabled else None
        if not segments:
            return self._new()
        self.indexes.correct_min(self.log.min_phy)
        if not self.foreign and self.marks.clean and self._ends_at(self.marks.flushed) and not self._indexes_missing():
            return self._clean()
        return self._unclean()

    def _check_file_size(self) -> None:
        """A crash of ours may leave a queue file shorter than it was made, so a short one proves nothing by itself."""
        found = first_file(self.disk, QUEUE_FOLDER)
        wanted = self.config.queue_units * UNIT_SIZE
        if found is None or found[1] == wanted:
            return
        path, size = found
        if self.foreign:
            whole = not self.dirty_stop or not self.checkpoints.abort_is_ours()
        else:
            whole = self.marks.clean if self.ends is None else self.ends.file_size == size
        if size > wanted or whole:
            raise StoreMismatch(
                f"{path} has {size} bytes but mappedFileSizeConsumeQueue is {wanted}; set mappedFileSizeConsumeQueue={size}, the size this "
                "store was written with"
            )

    def _known_ends(self) -> Ends:
        """How far the queues reached at the stop just before; empty if that was not an orderly stop of ours."""
        ends, marks = self.ends, self.marks
        if ends is None or not marks.clean or (ends.incarnation, ends.flushed) != (marks.incarnation, marks.flushed):
            return {}
        return ends.ends

    def _load_index(self) -> KeyIndex:
        index = KeyIndex(self.disk, self.now_ms, INDEX_FOLDER, self.config.index_slots, self.config.index_entries)
        clean = not self.dirty_stop if self.foreign else self.marks.clean
        index.load(clean=clean, trusted_ms=self.checkpoints.apache.index_ms if self.foreign and self.dirty_stop else None)
        return index

    @property
    def _index_gone(self) -> bool:
        return self.index is not None and ((self.marks.has_index and not self.index.paths) or self.index.rebuild_from is not None)

    # --- the easy cases

    def _new(self) -> Recovered:
        if self.marks.flushed or self.indexes.keys():
            raise StoreMismatch(
                f"{self.config.commit_log_path}/ holds no segment but {QUEUE_FOLDER}/ or the checkpoint shows that there were messages; "
                f"restore the log, or move the whole store away to start empty (queue offsets would begin at 0 again)"
            )
        if self.index is not None:
            self.index.truncate(0)  # of messages that a power cut took together with the first segment
        return self._finish("new", 0, Scan(self.log, 0), 0)

    def _clean(self) -> Recovered:
        if self.ends is not None:
            self.indexes.expect(self._known_ends(), self.ends.min_phy)
        scan = Scan(self.log, self.marks.flushed)
        scan.last_store_ms = self.marks.last_store_ms
        return self._finish("clean", self.marks.flushed, scan, None)

    def _ends_at(self, end: int) -> bool:
        """Whether the log can end at `end`: it is within the files and no record begins there."""
        last = self.log.segments[-1]
        if end > last.end or end < self.log.min_phy:
            raise CorruptRecord(
                f"{last.path}: the log ends at {last.end} but bytes up to {end} were proven durable; "
                "restore the missing segments from a replica or a backup"
            )
        segment = self.log.segment_at(end)
        return segment is None or not any(segment.file.read_at(end - segment.base, 8))

    def _indexes_missing(self) -> bool:
        queues_gone = self.marks.has_queues and not self.indexes.keys()
        return queues_gone or self._index_gone or self.marks.queues < self.marks.flushed or bool(self._lost())

    def _lost(self) -> set[tuple[str, int]]:
        """Queues whose folders were there at the clean stop and are not now."""
        return set(self._known_ends()).difference(self.indexes.keys())

    # --- the others

    def _unclean(self) -> Recovered:
        log, marks = self.log, self.marks
        queues_from, index_from = self._start_points()
        lost = set(self._known_ends())  # may be
        if queues_from > log.min_phy:
            lost = self._lost()
            if self.ends is not None:
                self.indexes.expect(self._known_ends(), self.ends.min_phy)
            self.broken |= lost
        start = max(log.min_phy, min(queues_from, index_from))
        if self.foreign:
            self._forget_checksums(start)
            self.indexes.truncate(queues_from)
        if self.foreign:
            scan = Scan(log, start)
        else:
            scan = Scan(log, start, checksum_position=marks.checksum_position if start > log.min_phy else 0, proven=marks.flushed)
            if self.index is not None:
                self.index.truncate(index_from)  # entries above the mark may be of an earlier life, whose removal power undid
        rewrite_from = None if self.foreign else marks.flushed
        for record in scan:
            if rewrite_from is None and record.store_ms > self.checkpoints.apache.log_ms:
                rewrite_from = record.phy
            self._dispatch(record, queues_from, index_from)
        self._may_end(scan)
        if self.index is not None:
            self.index.truncate(scan.end)
        if self.broken:
            self._rebuild(scan.end)
        self._go_on(lost)
        how = "trmq" if not self.foreign else "apache-dirty" if self.dirty_stop else "apache-clean"
        recovered = self._finish(how, start, scan, scan.end if rewrite_from is None else rewrite_from)
        recovered.rebuilding = not self.foreign and bool(lost or self.rebuilt or queues_from < marks.queues)
        return recovered

    def _go_on(self, lost: set[tuple[str, int]]) -> None:
        """Queues built again must reach as far as they did; one whose messages have all expired keeps its numbering."""
        for key in sorted(lost):
            queue, high = self.indexes.get_or_create(*key), self._known_ends()[key][1]
            if queue.max_offset >= high:
                continue
            if queue.min_offset == queue.max_offset:
                queue.begin_at(high)
            else:
                raise CorruptRecord(
                    f"queue {queue.folder}: the log holds its messages up to queue offset {queue.max_offset} (exclusive) but it reached "
                    f"{high} when the store was closed; run `trmq store check`, restore from a replica or a backup"
                )

    def _start_points(self) -> tuple[int, int]:
        """From where on (record boundaries) queue units and index entries have to be built again."""
        log, marks = self.log, self.marks
        if not self.foreign:
            queues = log.min_phy if marks.has_queues and not self.indexes.keys() else marks.queues
            index = self._index_start() if self._index_gone else marks.index
            return max(queues, log.min_phy), max(index, log.min_phy)
        start = log.min_phy
        known = self.indexes.end_phy()
        apache = self.checkpoints.apache
        durable_ms = min(apache.log_ms, apache.queues_ms) - APACHE_MARGIN_MS
        if known:
            for segment in reversed(log.segments):
                room = segment.size
                first = parse_record(segment.file.read_at(0, min(room, 8 << 20)), 0, room, segment.base)
                if isinstance(first, str):
                    continue
                if (0 < first.store_ms <= durable_ms) if self.dirty_stop else segment.base <= known:
                    start = segment.base
                    break
        return start, self._index_start() if self._index_gone else start

    def _index_start(self) -> int:
        """Where the entries of a lost index file begin."""
        assert self.index is not None
        from_file = self.index.rebuild_from
        return max(self.log.min_phy, from_file if from_file is not None and self.index.paths else 0)

    def _dispatch(self, record: Scanned, queues_from: int, index_from: int) -> None:
        transaction = record.sys_flag & TRANSACTION_MASK
        properties = None
        if record.phy >= queues_from and transaction not in UNQUEUED:
            properties = decode_properties(record.properties)
            self._put_unit(record, unit_tags(record.topic, properties, record.store_ms, self.config.delay_levels_ms), queues_from)
        if self.index is not None and record.phy >= index_from and transaction != TRANSACTION_ROLLBACK:
            keys = index_keys(decode_properties(record.properties) if properties is None else properties)
            if keys:
                self.index.put(record.topic, keys, record.phy, record.store_ms)

    def _put_unit(self, record: Scanned, tags: int, queues_from: int) -> None:
        key = (record.topic, record.queue_id)
        if key in self.broken:
            return
        try:
            queue = self.indexes.get_or_create(*key)
            if queue not in self.clipped:
                queue.truncate(queues_from)  # units above the durable mark may be torn: built again
                self.clipped.add(queue)
            if not queue.max_offset and record.queue_offset and queues_from > self.log.min_phy:
                raise CorruptIndex(f"queue {key}: its files are gone")
            queue.append(record.queue_offset, record.phy, record.size, tags)
        except CorruptIndex:
            self.indexes.remove_queue(*key)
            self.broken.add(key)

    def _may_end(self, scan: Scan) -> None:
        """Raises `CorruptRecord` if the log cannot honestly end where the scan stopped."""
        log, end = self.log, scan.end
        segment = log.segment_at(end) or log.segments[-1]
        where = f"{segment.path}: damaged at byte {end - segment.base} (log offset {end}): {scan.reason or 'no record'}"
        remedy = "so nothing is cut away; run `trmq store check`, restore from a replica or a backup"
        if not self.foreign and end < self.marks.flushed:
            raise CorruptRecord(f"{where}; everything below log offset {self.marks.flushed} was proven durable, {remedy}")
        if self.foreign and (found := self._good_after(end)) is not None:
            raise CorruptRecord(f"{where}; a durable record follows at log offset {found}, {remedy}")

    def _good_after(self, end: int) -> int | None:
        """A record behind `end` that is certainly durable by Apache's checkpoint: its start, or None."""
        durable_ms = self.checkpoints.apache.log_ms
        segment = self.log.segment_at(end)
        for later in self.log.segments:
            if later.base > end:
                first = parse_record(later.file.read_at(0, min(later.size, 8 << 20)), 0, later.size, later.base)
                if not isinstance(first, str) and first.store_ms <= durable_ms:
                    return later.base
        if segment is None or not any(segment.file.read_at(end - segment.base, 4)):
            return None
        return self._good_within(segment.base, end, durable_ms)

    def _good_within(self, base: int, end: int, durable_ms: int) -> int | None:
        segment = self.log.segment_at(base)
        assert segment is not None
        data = segment.file.read_at(end - base, segment.end - end)
        raw = bytes(data[: _COPY_BYTES * 4])
        for magic in (b"\xda\xa3\x20\xa7", b"\xda\xa3\x20\xab"):
            at = raw.find(magic, 5)
            while at >= 0:
                phy = end + at - 4
                found = parse_record(data, at - 4, segment.end - phy, phy)
                if not isinstance(found, str) and found.store_ms <= durable_ms:
                    return phy
                at = raw.find(magic, at + 1)
        return None

    def _rebuild(self, end: int) -> None:
        """Build the broken queues again from the first record kept."""
        again, self.broken = self.broken, set()
        scan = Scan(self.log, self.log.min_phy, check_body=False)
        for record in scan:
            if record.phy >= end:
                break
            if (record.topic, record.queue_id) in again and record.sys_flag & TRANSACTION_MASK not in UNQUEUED:
                tags = unit_tags(record.topic, decode_properties(record.properties), record.store_ms, self.config.delay_levels_ms)
                queue = self.indexes.get_or_create(record.topic, record.queue_id)
                try:
                    queue.append(record.queue_offset, record.phy, record.size, tags)
                except CorruptIndex as error:
                    raise CorruptRecord(
                        f"the log itself skips queue offsets: {error}; run `trmq store check`, restore from a replica or a backup"
                    ) from None
        self.rebuilt = tuple(sorted(again))

    rebuilt: tuple[tuple[str, int], ...] = ()

    # --- making it final

    def _finish(self, how: str, start: int, scan: Scan, rewrite_from: int | None) -> Recovered:
        log, end = self.log, scan.end
        position = None
        if rewrite_from is not None and log.segments:
            self._drop_behind(end)
            position = self._cut_checksums(scan)
            self.folders[log.folder] = None  # a killed predecessor may have made files without syncing their names
            self._rewrite(max(rewrite_from, log.min_phy), end)
        log.start_at(end, position)
        self._touch(segment.file for segment in log.take_dirty())
        store = Store(self.disk, self.config, self.now_ms, log, self.indexes, self.index)
        store.last_store_ms = max(scan.last_store_ms, self.marks.last_store_ms)
        report = Report(how, start, end, scan.records, scan.reason, self.rebuilt)
        return Recovered(store, self.checkpoints, list(self.files.values()), list(self.folders), report)

    def _touch(self, files: Iterable[File]) -> None:
        for file in files:
            self.files[file.path] = file

    def _drop_behind(self, end: int) -> None:
        """Nothing that once stood behind `end` may ever be read as a record again."""
        log = self.log
        while len(log.segments) > 1 and log.segments[-1].base >= end and log.segments[-2].end >= end:
            segment = log.segments.pop()
            segment.close()
            self.disk.remove(segment.path)
            self.disk.remove(f"{CHECKSUM_FOLDER}/{segment_name(segment.base)}")
            self.folders[log.folder] = self.folders[CHECKSUM_FOLDER] = None
        last = log.segments[-1]
        start = max(0, end - last.base)
        stop = min(last.size, max(0, self.marks.reach - last.base)) if self.marks.reach else last.size
        zero_out(last.file, start, stop)
        surely = min(stop, start + _COPY_BYTES)
        if surely > start:  # what reads as zero may be so in the page cache only: a refused put wiped and not synced, a sync that failed
            last.file.write_at(start, bytes(surely - start))
        self._touch([last.file])

    def _rewrite(self, start: int, end: int) -> None:
        """Read and write back [start, end), so that the coming sync covers it whatever happened to an earlier one."""
        at = start
        while at < end:
            segment = self.log.segment_at(at)
            assert segment is not None
            stop = min(at + _COPY_BYTES, end, segment.end)
            segment.file.write_at(at - segment.base, bytes(segment.file.read_at(at - segment.base, stop - at)))
            self._touch([segment.file])
            at = stop

    def _forget_checksums(self, start: int) -> None:
        for segment in self.log.segments:
            if segment.end > start:
                self.disk.remove(f"{CHECKSUM_FOLDER}/{segment_name(segment.base)}")
                self.folders[CHECKSUM_FOLDER] = None

    def _cut_checksums(self, scan: Scan) -> int | None:
        """Shorten the last checksum file to what was found good; returns where the next group goes."""
        segment = self.log.segment_at(scan.end)
        if segment is None:
            return None
        file = ChecksumFile(self.disk, segment.base)
        if segment.base == scan.end:
            file.cut(0)
        elif not self.foreign:
            file.cut(scan.group_position)
            if scan.group_kept:
                file.append(scan.group_start, scan.group_kept)
        if file.stale:
            self._touch([file.file])  # what was cut off must not come back as a witness against new records
        else:
            file.close()
        return file.position
