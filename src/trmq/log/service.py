"""The Trio half of the log: opening a store, making it durable, rolling segments ahead of time, cleaning up, closing.

    open_store ─ lock ─ recovery ─ sync what it changed ─ checkpoint ─ `abort` ─▶ StoreService.run
      flusher      waits for bytes above `flushed` (nothing polls), syncs each dirty segment once per group, then
                   flushed → confirm → dispatch. ASYNC_FLUSH lets a group grow for `flush_interval_s` first.
      index keeper every 32 MiB of log or 5 s: write queues and key index back, sync, then move the checkpoint
      allocator    keeps one spare segment ready; tries again when there was no space
      cleaner      retention by age and disk usage; says when puts must be refused, and when no longer

**Order that recovery relies on.** Index files never hold units of records that are not durable in the log, so they never reach
behind a recovered log's end; the checkpoint never claims more than was synced before it was written.

**A failed sync is never tried again**: the kernel may have dropped the pages and report success next time (TRAP-S15). `DiskFailed` leaves
`run`, `flushed` does not move, and nothing waiting for it is answered SEND_OK. After that `close` releases the lock and leaves
`abort` in place, so that the next start recovers.

Source: `GroupCommitService`, `FlushRealTimeService`, `AllocateMappedFileService`, `CleanCommitLogService`; reference "store"
sections 5, 6.4, 8.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

import attrs
import trio

from trmq.errors import DiskFailed, DiskFull, StoreMismatch
from trmq.host import Disk, File, Host
from trmq.log.checkpoint import ABORT_PATH, LOCK_PATH, ApacheMarks, Checkpoints, Marks, disown_if_foreign
from trmq.log.checksums import checks_until
from trmq.log.commit_log import SPARE
from trmq.log.config import StoreConfig
from trmq.log.index_files import CorruptIndex
from trmq.log.queue_ends import QueueEnds, write_ends
from trmq.log.queue_index import UNIT_SIZE
from trmq.log.recovery import Recovered, Report, open_core
from trmq.log.retention import Pressure, deletable, pressure
from trmq.log.store import Store
from trmq.watermark import Watermark

REACH_BYTES = 256 << 20
"""How far ahead of the log's end the checkpoint says that it may reach. As much is looked through for remains after a crash, and no more
may be written without having become durable: puts are refused when a disk is that far behind."""
SPACE_RETRY_S = 1.0
QUEUES_PER_SLICE = 64
WRITE_BACK_REST = 10
"""How many times as long as the indexes take to be written back they then rest."""
FOLDERS = ("consumequeue", "index", "config", "trmq")
"""What is written only later, and must not be found impossible then."""


async def open_store(host: Host, config: StoreConfig) -> StoreService:
    """Lock, load and recover the store; return when all of it is durable. Raises `StoreLocked`, `StoreMismatch`, `CorruptRecord`."""
    disk = host.disk
    disk.lock(LOCK_PATH)
    try:
        for folder in (config.commit_log_path, *FOLDERS):
            if disk.exists(folder) and not disk.is_folder(folder):
                raise StoreMismatch(f"{folder} in the store is a file where a folder must be: move it away or set another storePathRootDir")
        await disown_if_foreign(disk)
        return await _settle(host, config, open_core(disk, config, host.wall_ms))
    except BaseException:
        disk.unlock(LOCK_PATH)
        raise


async def _settle(host: Host, config: StoreConfig, recovered: Recovered) -> StoreService:
    """Make what recovery did durable, note it, and only then mark the store as in use."""
    disk = host.disk
    await sync_all(disk, recovered.files, recovered.folders)
    marks = recovered.checkpoints.marks
    if recovered.rebuilding and marks is not None:  # a crash half way must not leave queues that look whole
        await recovered.checkpoints.save(attrs.evolve(marks, queues=0), recovered.checkpoints.apache)
    service = StoreService(host, config, recovered)
    await service.checkpoint_now(write_back=recovered.report.how not in ("clean", "new"), clean=False)
    abort = disk.open(ABORT_PATH)
    content = b"%d\n" % host.process_id  # the line feed tells ours from Java's
    abort.truncate(0)
    abort.write_at(0, content)
    await abort.sync()
    abort.close()
    for folder in ("trmq", ""):
        await disk.sync_directory(folder)
    return service


async def sync_all(disk: Disk, files: Iterable[File], folders: Iterable[str]) -> None:
    """Files at the same time, then folders. Raises `DiskFailed`."""
    await disk.sync_files(list(files))
    for folder in folders:
        await disk.sync_directory(folder)


def _disk_failure(group: BaseExceptionGroup[BaseException]) -> DiskFailed | None:
    for error in group.exceptions:
        found = _disk_failure(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, DiskFailed):
            return found
    return None


class StoreService:
    """A store in use. `run` must be running for SYNC_FLUSH puts to become visible; `close` ends it all in order."""

    def __init__(self, host: Host, config: StoreConfig, recovered: Recovered) -> None:
        self.host = host
        self.config = config
        self.store: Store = recovered.store
        self.report: Report = recovered.report
        self.flushed = Watermark(self.store.max_phy)
        self.written = Watermark(self.store.max_phy)
        self._checkpoints: Checkpoints = recovered.checkpoints
        marks = recovered.checkpoints.marks or Marks()
        self._incarnation = marks.incarnation + 1
        self._flush_now = trio.Event()
        self._spare_taken = trio.Event()
        self._flushed_at = self._dispatched()
        self._durable = self._flushed_at  # indexes: mark and checksum position
        self._durable_ms = self.store.last_store_ms
        self._writing_back = trio.Lock()
        self._flushing = False
        self._flush_done = trio.lowlevel.ParkingLot()  # who waits for the end of the flush under way
        self._cleaning = trio.Lock()
        self._closed = False
        self._failed = False
        self._saving = trio.Lock()
        self.store.on_commit = self._on_commit

    @property
    def failed(self) -> bool:
        """The disk failed: nothing may be written any more."""
        return self._failed

    # --- marks

    def _dispatched(self) -> tuple[int, int]:
        """Up to where every record has its checksum written (a slave writes them when it dispatches), and where in the checksum file the
        groups from there on will be."""
        log = self.store.log
        mark = log.max_phy if self.store.before_marks is None else self.store.before_marks()
        segment = log.segment_at(mark)
        if segment is None or log.checksums is None or log.checksums.base != segment.base:
            return mark, 0
        return mark, log.checksums.position

    def _marks(self, *, clean: bool = False, reach: int = 0) -> Marks:
        store = self.store
        durable, position = self._durable
        old = self._checkpoints.marks or Marks()
        crc = self._checkpoints.apache.crc
        return Marks(
            clean=clean, incarnation=self._incarnation, segment_size=self.config.segment_size, flushed=store.flushed, queues=durable,
            index=durable, checksum_position=position, last_store_ms=store.last_store_ms, reach=reach or store.log.reach,
            has_queues=bool(len(store.indexes)), has_index=store.index is not None and bool(store.index.paths), apache_old=crc,
            apache_new=old.apache_new if self._checkpoints.busy else crc,
        )

    def _on_commit(self, end: int) -> None:
        self.written.advance(end)
        log = self.store.log
        if log.spare_wanted:
            self._spare_taken.set()
        if end > log.reach - REACH_BYTES // 2:
            self._flush_now.set()  # which also renews `reach`

    async def _save(self, apache: ApacheMarks, *, clean: bool = False) -> None:
        """Save the checkpoint; the log may be written up to its `reach` only when that is durable."""
        async with self._saving:
            log = self.store.log
            reach = max(log.max_phy, log.next_phy) + REACH_BYTES
            await self._checkpoints.save(self._marks(clean=clean, reach=reach), apache)
            log.reach = reach

    # --- flushing

    def request_flush(self, end: int) -> None:
        """Ask for everything below `end` to be made durable soon, without waiting for a group to grow."""
        if end > self.flushed.value:
            self._flush_now.set()

    async def flush(self) -> int:
        """Make everything written so far durable; returns the mark. Raises `DiskFailed`, which is final. Once begun it is not cancelled:
        half a flush would leave nobody who knows what is durable."""
        while self._flushing:  # no lock: taking a free one costs a task switch
            await self._flush_done.park()
        if self._failed:
            raise DiskFailed("an earlier flush failed: what was written then is not durable, and no later flush can know more")
        store = self.store
        if store.max_phy > store.flushed or store.log.unsynced:
            self._flushing = True
            try:
                await self._flush_group()
            finally:
                self._flushing = False
                self._flush_done.unpark_all()
        return self.flushed.value

    async def _flush_group(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        store = self.store
        end, dispatched, store_ms = store.max_phy, self._dispatched(), store.last_store_ms
        try:
            await self._sync_log()
        except BaseException:
            self._failed = True
            raise
        if end > store.flushed:
            self._flushed_at = dispatched
            self._flushed_ms = store_ms
            store.mark_flushed(end)
            self.flushed.advance(end)
            with suppress(DiskFull):  # puts are refused before the log passes `reach`, and the index keeper saves again
                if store.log.reach - end < REACH_BYTES // 2:
                    await self._save(self._checkpoints.apache)
                else:
                    self._checkpoints.note(self._marks())

    async def _sync_log(self) -> None:
        log = self.store.log
        names, log.new_names = log.new_names, False
        stale = log.take_stale_checks()
        dirty = [segment.file for segment in log.take_dirty()]
        if len(dirty) == 1 and not stale and not names:
            await dirty[0].sync()  # no checkpoint since the last, and it cannot be cancelled once begun: save the price of a shield
            return
        with trio.CancelScope(shield=True):
            for file in stale:
                await file.sync()
                file.close()
            for file in dirty:
                await file.sync()
            if names:
                await self.host.disk.sync_directory(log.folder)

    _flushed_ms = 0

    async def _flusher(self) -> None:
        config = self.config
        while True:
            await self.written.reach(self.flushed.value + 1)
            if not config.sync_flush:
                with trio.move_on_after(config.flush_interval_s):
                    await self._flush_now.wait()
                self._flush_now = trio.Event()
            await self.flush()

    # --- indexes and checkpoints

    async def checkpoint_now(self, *, write_back: bool = True, clean: bool = False) -> None:
        """Make the indexes durable up to `flushed`, then both checkpoints. Raises `DiskFailed`."""
        async with self._writing_back:
            store = self.store
            if store.follows and store.confirm <= store.flushed:  # dispatch was behind the flush, and went on since
                self._flushed_at = self._dispatched()
            mark, position = self._flushed_at
            store_ms = self._flushed_ms or store.last_store_ms
            if write_back:
                for step in store.indexes.write_back(mark):
                    await sync_all(self.host.disk, step.files, step.folders)
                if store.index is not None:
                    for step in store.index.write_back():
                        await sync_all(self.host.disk, step.files, step.folders)
            self._durable = (mark, position)
            old = self._checkpoints.apache
            apache = ApacheMarks(store_ms, store_ms, store_ms, old.master_flushed, old.confirm) if mark else old
            await self._save(apache, clean=clean)

    async def _index_keeper(self) -> None:
        """Write the indexes back now and then: at least once per so much log, but where that takes long (thousands of queues, the whole
        hash table of the key index) only for a small share of the time, until there is too much to be parsed again by a restart."""
        config = self.config
        rest_s = 0.0
        while True:
            await self.flushed.reach(self._durable[0] + 1)
            began = trio.current_time()
            with trio.move_on_after(rest_s):
                await self.flushed.reach(self._durable[0] + config.write_back_bytes_max)
            with trio.move_on_at(began + config.write_back_interval_s):
                await self.flushed.reach(self._durable[0] + config.write_back_bytes)
            began = trio.current_time()
            try:
                await self.checkpoint_now()
            except DiskFull:
                await trio.sleep(SPACE_RETRY_S)  # everything stays in memory; space is the cleaner's business
            rest_s = (trio.current_time() - began) * WRITE_BACK_REST

    # --- space

    async def _allocator(self) -> None:
        log = self.store.log
        disk = self.host.disk
        while True:
            if not log.spare_wanted:
                self._spare_taken = trio.Event()
                await self._spare_taken.wait()
                continue
            try:
                disk.remove(SPARE)
                await disk.allocate(SPARE, self.config.segment_size)
            except DiskFull:
                log.no_space = True
                await trio.sleep(SPACE_RETRY_S)
            else:
                log.no_space = False
                log.spare_wanted = False
                log.spare_ready = True

    async def _cleaner(self) -> None:
        while True:
            await self.clean_expired(self.host.wall_ms())
            await trio.sleep(self.config.clean_interval_s)

    async def clean_expired(self, now_ms: int, *, at_once: bool = False, any_hour: bool = False) -> int:
        """One round of retention: refuse or allow puts by disk usage, remove old segments, then what points into them. Returns how many
        segments went. `at_once` counts every segment but the last as expired, `any_hour` doesn't wait for the hour of deletion."""
        async with self._cleaning:
            return await self._clean(now_ms, at_once, any_hour)

    async def _clean(self, now_ms: int, at_once: bool, any_hour: bool) -> int:
        store, config, disk = self.store, self.config, self.host.disk
        found = pressure(config, disk.usage(config.commit_log_path))
        store.refuse_writes = found.refuse
        count = 0
        in_time = any_hour or datetime.fromtimestamp(now_ms / 1000).hour in config.delete_when
        if at_once or in_time or found.level is not Pressure.NONE:
            count = deletable(config, store.segment_ages(now_ms), Pressure.FORCE if at_once else found.level)
            if count and store.log.segments[count].base > self._checkpoints.durable_flushed:
                await self._save(self._checkpoints.apache)  # without such marks recovery takes the log for one whose first file was lost
            for _ in range(count):
                store.log.drop_first()
                await trio.lowlevel.checkpoint()
        if count:
            await disk.sync_directory(config.commit_log_path)
            await self.follow_min()
        return count

    async def follow_min(self) -> None:
        """The log's beginning moved: raise the queues' minimums, drop index files that lie below."""
        store = self.store
        min_phy = store.min_phy
        store.indexes.correct_min(min_phy)
        for count, key in enumerate(store.queues()):
            with suppress(CorruptIndex):  # refused to whoever asks for it, no reason to stop
                store.indexes.get(*key)  # a queue not in use is corrected when it is opened
            if count % QUEUES_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()
        if store.index is not None:
            store.index.delete_below(min_phy)

    async def _note_ends(self) -> None:
        """Write down durably how far each queue reaches; it counts once the checkpoint says that the stop was clean. A queue of which
        nothing is known is looked at once, at the first stop after a crash."""
        store, disk = self.store, self.host.disk
        store.indexes.correct_min(store.min_phy)
        for count, key in enumerate(store.indexes.unknown()):
            with suppress(CorruptIndex, StoreMismatch):
                store.indexes.get(*key)
            if count % QUEUES_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()
        size = self.config.queue_units * UNIT_SIZE
        ends = QueueEnds(self._incarnation, store.flushed, store.min_phy, size, store.indexes.ends())
        with suppress(DiskFull):  # without it the next start trusts the queue files
            file = write_ends(disk, ends)
            try:
                await sync_all(disk, [file], ["trmq"])
            finally:
                file.close()

    # --- cutting

    async def cut(self, at: int) -> None:
        """End the log at `at`, a record's end, for good; durable when it returns. Only while nothing else uses the store, and `close`
        must follow. A crash in between leaves the log whole or ending at some record at or behind `at`: then it is done again.

        First the marks go down, so that recovery looks at everything behind `at` again; then the indexes, which may never reach further
        than the log; then the log itself."""
        store, log, disk = self.store, self.store.log, self.host.disk
        position, start, kept = checks_until(disk, log, at)
        mark = (min(at, self._durable[0]), position)
        self._durable = self._flushed_at = mark
        store.flushed = store.confirm = at
        await self._save(self._checkpoints.apache)
        store.indexes.truncate(at)
        for step in store.indexes.write_back():
            await sync_all(disk, step.files, step.folders)
        if store.index is not None:
            store.index.truncate(at)
            for step in store.index.write_back():
                await sync_all(disk, step.files, step.folders)
        log.cut(at, position, start, kept)
        await self._sync_log()
        for folder in (log.folder, "trmq/checksums"):
            await disk.sync_directory(folder)
        self._durable = self._flushed_at = self._dispatched()
        self.flushed.reset(at)
        self.written.reset(at)

    # --- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the store durable and tidy until cancelled. Raises `DiskFailed`: then the process must stop."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flusher)
                nursery.start_soon(self._index_keeper)
                nursery.start_soon(self._allocator)
                nursery.start_soon(self._cleaner)
                task_status.started()
        except BaseExceptionGroup as group:
            failure = _disk_failure(group)
            if failure is None:
                raise
            self._failed = True
            raise failure from None

    async def close(self) -> None:
        """Flush everything, write the indexes back, mark the store clean and release it. After a failure only the lock is released.

        Call it when `run` has ended, shielded from cancellation if it must be complete. `abort` stays if anything is behind (reference
        "store" section 6.4).
        """
        if self._closed:
            return
        self._closed = True
        store, disk = self.store, self.host.disk
        try:
            store.rollback()
            store.closed = True
            if not self._failed:
                await self.flush()
                store.set_confirm(store.max_phy)
                if not store.behind:
                    await self._note_ends()
                await self.checkpoint_now(clean=not store.behind)
                if not store.behind:
                    disk.remove(ABORT_PATH)
                await disk.sync_directory("")
        finally:
            store.indexes.close()
            if store.index is not None:
                store.index.close()
            store.log.close()
            self._checkpoints.close()
            disk.unlock(LOCK_PATH)


__all__ = ["StoreService", "open_store"]
