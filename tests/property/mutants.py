"""Seeded bugs: each takes one protection out of the real store, and some clause must notice.

They patch functions of the store instead of hiding behind switches in it: production code carries nothing of them, and a patch whose target
is gone fails at once. `Mutant.kills` names the clauses that must be violated by it (any of them); `scenarios` where to look.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import trio

from trmq.broker.acks import AckBoard, AckDriver
from trmq.errors import DiskFailed
from trmq.host import Disk
from trmq.log import checkpoint, commit_log, config_file, recovery, scan, service, store
from trmq.log.commit_log import CommitLog
from trmq.log.key_index import KeyIndex
from trmq.log.queue_index import QueueIndex
from trmq.log.recovery import Recovered, _Recovery
from trmq.log.scan import Scan, Scanned
from trmq.log.search import Reader
from trmq.log.service import StoreService
from trmq.log.store import Store

Patch = pytest.MonkeyPatch
Seed = Callable[[Patch], None]


@attrs.frozen
class Mutant:
    name: str
    kills: tuple[str, ...]
    scenarios: tuple[str, ...]
    seed: Seed


MUTANTS: dict[str, Mutant] = {}


def mutant(*kills: str, scenarios: tuple[str, ...]) -> Callable[[Seed], Seed]:
    def register(seed: Seed) -> Seed:
        MUTANTS[seed.__name__] = Mutant(seed.__name__, kills, scenarios, seed)
        return seed

    return register


def wrap(patch: Patch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace `owner.name` by `around(original, ...)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


# --- flush


@mutant("P-FLUSH-1", "P-REC-3", scenarios=("quiet_days", "crash_while_writing", "crash_anywhere"))
def ack_before_fsync(patch: Patch) -> None:
    def committed(original: Any, self: StoreService, end: int) -> None:
        original(self, end)
        self.flushed.advance(end)

    wrap(patch, StoreService, "_on_commit", committed)


@mutant("P-FLUSH-2", scenarios=("stalled_sync", "crash_while_writing"))
def dispatch_before_fsync(patch: Patch) -> None:
    def commit(original: Any, self: Store) -> int:
        end: int = original(self)
        self.set_confirm(end)
        return end

    wrap(patch, Store, "commit", commit)


@mutant("P-FLUSH-1", "P-FLUSH-3", scenarios=("quiet_days",))
def sync_forgets_segment(patch: Patch) -> None:
    """Only the newest of several segments is synced."""
    wrap(patch, CommitLog, "take_dirty", lambda original, self: original(self)[-1:])


@mutant("P-FLUSH-1", "P-REC-3", scenarios=("quiet_days", "crash_anywhere"))
def no_directory_sync(patch: Patch) -> None:
    async def flush(original: Any, self: StoreService) -> int:
        self.store.log.new_names = False
        return int(await original(self))

    wrap(patch, StoreService, "flush", flush)


@mutant("P-FLUSH-6", scenarios=("failing_sync",))
def retry_fsync(patch: Patch) -> None:
    async def flush(original: Any, self: StoreService) -> int:
        try:
            return int(await original(self))
        except DiskFailed:
            self._failed = False
            return int(await original(self))

    wrap(patch, StoreService, "flush", flush)


@mutant("P-FLUSH-4", scenarios=("stalled_sync",))
def flush_timeout_forgotten(patch: Patch) -> None:
    wrap(patch, AckDriver, "add", lambda original, self, end, deadline, slot: original(self, end, 1e12, slot))


@mutant("P-FLUSH-4", scenarios=("stalled_sync",))
def late_answer_twice(patch: Patch) -> None:
    """Who timed out is answered again when the sync is through."""

    def expire(original: Any, self: AckBoard[Any], now: float) -> list[Any]:
        late: list[Any] = original(self, now)
        for slot in late:
            self._entries.append((1 << 60 if not self._entries else self._entries[-1][0], 1e12, slot))
        return late

    wrap(patch, AckBoard, "expire", expire)
    wrap(patch, AckBoard, "advance", lambda original, self, mark: original(self, 1 << 61 if self.next_end == 1 << 60 else mark))


@mutant("P-FLUSH-5", scenarios=("quiet_days",))
def async_flush_never(patch: Patch) -> None:
    async def flusher(original: Any, self: StoreService) -> None:
        if self.config.sync_flush:
            await original(self)

    wrap(patch, StoreService, "_flusher", flusher)


# --- the log


@mutant("P-LOG-1", scenarios=("quiet_days",))
def wrong_phy_offset(patch: Patch) -> None:
    original = store._pack_head
    patch.setattr(store, "_pack_head", lambda *fields: original(*fields[:6], fields[6] + (fields[5] == 2), *fields[7:]))


@mutant("P-LOG-2", "P-REC-2", scenarios=("quiet_days", "crash_anywhere"))
def no_blank(patch: Patch) -> None:
    patch.setattr(commit_log, "blank", lambda remaining: bytes(8))


@mutant("P-LOG-3", scenarios=("crash_while_writing", "crash_anywhere"))
def rewrite_alters(patch: Patch) -> None:
    """Recovery does not write back what it read."""

    def rewrite(original: Any, self: _Recovery, start: int, end: int) -> None:
        original(self, start, end)
        segment = self.log.segment_at(start)
        if segment is not None and start + 100 < min(end, segment.end):
            segment.file.write_at(start - segment.base + 19, b"\x7f")  # the flag of the record at the mark

    wrap(patch, _Recovery, "_rewrite", rewrite)


@mutant("P-LOG-4", scenarios=("quiet_days",))
def queue_offset_skips(patch: Patch) -> None:
    def dispatch(original: Any, self: Store, entries: list[Any]) -> None:
        original(self, entries)
        for queue in self._queues.values():
            queue.next_offset += queue.next_offset == 2

    wrap(patch, Store, "_dispatch", dispatch)


@mutant("P-LOG-5", scenarios=("quiet_days",))
def refused_put_keeps_offset(patch: Patch) -> None:
    def rollback(original: Any, self: Store) -> None:
        kept = {queue: queue.next_offset for queue in self._touched}
        original(self)
        for queue, offset in kept.items():
            queue.next_offset = offset

    wrap(patch, Store, "rollback", rollback)


@mutant("P-LOG-5", scenarios=("full_disk",))
def no_wipe_after_refusal(patch: Patch) -> None:
    patch.setattr(CommitLog, "_try_wipe", lambda self: None)
    patch.setattr(CommitLog, "_wipe", lambda self, end: None)


@mutant("P-LOG-6", scenarios=("quiet_days", "crash_anywhere", "crash_while_writing"))
def batch_split(patch: Patch) -> None:
    def append_batch(
        original: Any, self: Store, topic: str, queue_id: int, parts: Any, sys_flag: int, born_ms: int, born_host: bytes, reconsume: int
    ) -> list[Any]:
        return [
            self.append(topic, queue_id, body, properties, flag, sys_flag, born_ms, born_host, reconsume, tags, keys)
            for flag, body, properties, tags, keys in parts
        ]

    wrap(patch, Store, "append_batch", append_batch)


@mutant("P-LOG-7", scenarios=("quiet_days",))
def answer_names_wrong_place(patch: Patch) -> None:
    """The answer to a message that rolled the segment names the place it would have had in the old one."""

    def append(original: Any, self: Store, *args: Any, **kwargs: Any) -> Any:
        would = self.log.next_phy
        put = original(self, *args, **kwargs)
        return put._replace(phy_offset=would)

    wrap(patch, Store, "append", append)


@mutant("P-LOG-8", scenarios=("quiet_days",))
def no_body_crc(patch: Patch) -> None:
    patch.setattr(store, "_crc32", lambda data, value=0: zlib.crc32(data, value) if value or len(data) > 200 else 0)


# --- recovery


@mutant("P-REC-1", scenarios=("quiet_days",))
def close_forgets_tail(patch: Patch) -> None:
    """Closing claims a clean stop without having synced the tail."""

    async def close(original: Any, self: StoreService) -> None:
        self.store.log.take_dirty = list  # type: ignore[method-assign,assignment]
        await original(self)

    wrap(patch, StoreService, "close", close)


@mutant("P-REC-1", scenarios=("quiet_days",))
def abort_marker_stays(patch: Patch) -> None:
    async def close(original: Any, self: StoreService) -> None:
        await original(self)
        if not self._failed:
            self.host.disk.open(checkpoint.ABORT_PATH).write_at(0, b"1\n")

    wrap(patch, StoreService, "close", close)


@mutant("P-REC-2", "P-REC-6", scenarios=("crash_in_recovery", "crash_anywhere"))
def recovery_cuts_too_much(patch: Patch) -> None:
    """The last good record is taken for a torn one."""

    def iterate(original: Any, self: Scan) -> Iterator[Scanned]:
        last = None
        for record in original(self):
            if last is not None:
                yield last
            last = record
        if last is not None:
            self.end = last.phy

    wrap(patch, Scan, "__iter__", iterate)
    patch.setattr(_Recovery, "_may_end", lambda self, scan: None)


@mutant("P-REC-3", scenarios=("crash_while_writing", "crash_anywhere"))
def no_sync_on_recover(patch: Patch) -> None:
    """A start serves what it found without making it durable."""

    async def settle(original: Any, host: Any, config: Any, recovered: Recovered) -> Any:
        recovered.files.clear()
        recovered.folders.clear()
        return await original(host, config, recovered)

    wrap(patch, service, "_settle", settle)


@mutant("P-REC-3", scenarios=("failing_sync",))
def no_rewrite(patch: Patch) -> None:
    """After a failed sync the page cache is believed (S15)."""
    patch.setattr(_Recovery, "_rewrite", lambda self, start, end: None)


@mutant("P-REC-4", scenarios=("damaged_tail",))
def no_crc(patch: Patch) -> None:
    original = scan.parse_record
    patch.setattr(scan, "parse_record", lambda view, at, room, phy, *, check_body=True: original(view, at, room, phy, check_body=False))


@mutant("P-REC-4", scenarios=("damaged_tail",))
def no_private_checksum(patch: Patch) -> None:
    patch.setattr(scan, "read_groups", lambda disk, base, position=0: [])


@mutant("P-REC-4", scenarios=("damaged_proven",))
def cuts_proven(patch: Patch) -> None:
    """Damage below the durable mark is cut away like a torn tail (S21)."""
    patch.setattr(_Recovery, "_may_end", lambda self, scan: None)


@mutant("P-REC-3", scenarios=("old_checksums", "full_disk"))
def stale_witness(patch: Patch) -> None:
    """Checksum groups that were cut off may come back."""
    patch.setattr(CommitLog, "take_stale_checks", lambda self: [])
    wrap(patch, _Recovery, "_cut_checksums", forget_files)


def forget_files(original: Any, self: _Recovery, scan: Scan) -> Any:
    before = set(self.files)
    position = original(self, scan)
    for path in set(self.files) - before:
        del self.files[path]
    return position


@mutant("P-REC-5", scenarios=("stale_tail", "crash_while_writing"))
def no_zero_after_cut(patch: Patch) -> None:
    patch.setattr(_Recovery, "_drop_behind", lambda self, end: None)


@mutant("P-LOG-5", "P-REC-5", scenarios=("full_disk",))
def zeros_believed(patch: Patch) -> None:
    """What reads as zero behind the log's end is taken for zero on the platter, too."""

    def drop_behind(self: _Recovery, end: int) -> None:
        last = self.log.segments[-1]
        if commit_log.zero_out(last.file, max(0, end - last.base), last.size):
            self._touch([last.file])

    patch.setattr(_Recovery, "_drop_behind", drop_behind)


@mutant("P-REC-1", scenarios=("close_while_flushing",))
def flush_can_be_cancelled(patch: Patch) -> None:
    class NoShield:
        def __init__(self, *, shield: bool) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...

    class Lookalike:
        CancelScope = NoShield

        def __getattr__(self, name: str) -> Any:
            return getattr(trio, name)

    patch.setattr(service, "trio", Lookalike())


@mutant("P-REC-1", scenarios=("first_messages_lost",))
def old_index_entries_stay(patch: Patch) -> None:
    """The key index of a store whose first segment was lost still speaks of its messages."""
    wrap(patch, KeyIndex, "truncate", lambda original, self, phy: original(self, phy) if phy else None)


@mutant("P-REC-7", scenarios=("index_runs_ahead", "crash_while_writing", "crash_anywhere"))
def queue_hole(patch: Patch) -> None:
    """The checkpoint moves on although the queues were not written back (S19)."""

    async def checkpoint_now(original: Any, self: StoreService, *, write_back: bool = True, clean: bool = False) -> None:
        await original(self, write_back=False, clean=clean)

    wrap(patch, StoreService, "checkpoint_now", checkpoint_now)


@mutant("P-REC-7", scenarios=("crash_while_writing", "crash_anywhere"))
def queue_overhang(patch: Patch) -> None:
    """Units of records that are not durable are written back, and recovery leaves them."""
    wrap(patch, QueueIndex, "write_back", lambda original, self, below=None: original(self))


@mutant("P-REC-8", scenarios=("two_processes", "quiet_days"))
def lock_after_recovery(patch: Patch) -> None:
    async def open_store(host: Any, config: Any) -> StoreService:
        recovered = recovery.open_core(host.disk, config, host.wall_ms)
        opened = await service._settle(host, config, recovered)
        host.disk.lock(checkpoint.LOCK_PATH)
        return opened

    patch.setattr(service, "open_store", open_store)


@mutant("P-REC-9", scenarios=("config_replaced",))
def config_in_place(patch: Patch) -> None:
    async def persist(disk: Disk, path: str, data: bytes) -> None:
        file = disk.open(path)
        file.truncate(0)
        file.write_at(0, data)
        await file.sync()
        file.close()
        await disk.sync_directory(path.rpartition("/")[0])

    patch.setattr(config_file, "persist", persist)


# --- queues


@mutant("P-CQ-1", scenarios=("queues_deleted", "crash_anywhere"))
def wrong_tags(patch: Patch) -> None:
    patch.setattr(recovery, "unit_tags", lambda topic, properties, store_ms, levels: 0)


@mutant("P-CQ-2", "P-CQ-3", scenarios=("crash_while_writing", "crash_anywhere"))
def dispatch_twice(patch: Patch) -> None:
    """A queue takes whatever it is given, also what it has."""
    patch.setattr(QueueIndex, "truncate", lambda self, phy: None)

    def append(original: Any, self: QueueIndex, queue_offset: int, phy: int, size: int, tags: int) -> bool:
        self.end_phy = 0
        return bool(original(self, self.max_offset, phy, size, tags))

    wrap(patch, QueueIndex, "append", append)


@mutant("P-CQ-4", scenarios=("quiet_days",))
def dispatch_stops(patch: Patch) -> None:
    def set_confirm(original: Any, self: Store, offset: int) -> None:
        if offset < 1500:
            original(self, offset)

    wrap(patch, Store, "set_confirm", set_confirm)


@mutant("P-CQ-5", scenarios=("stalled_sync", "crash_while_writing"))
def dispatch_ignores_confirm(patch: Patch) -> None:
    def commit(original: Any, self: Store) -> int:
        end: int = original(self)
        waiting, self._waiting = self._waiting, []
        self._dispatch(waiting)
        return end

    wrap(patch, Store, "commit", commit)


@mutant("P-CQ-6", scenarios=("queues_deleted",))
def rebuild_differs(patch: Patch) -> None:
    """Deleted queues are built again from the checkpoint on only."""

    def start_points(original: Any, self: _Recovery) -> tuple[int, int]:
        return self.marks.queues, self.marks.index

    wrap(patch, _Recovery, "_start_points", start_points)
    patch.setattr(_Recovery, "_indexes_missing", lambda self: False)


@mutant("P-CQ-7", scenarios=("quiet_days",))
def max_offset_back(patch: Patch) -> None:
    """Consumers are told the end of what the files hold."""

    def pull(original: Any, self: Reader, *args: Any, **kwargs: Any) -> Any:
        found = original(self, *args, **kwargs)
        queue = self.find_queue(args[0], args[1])
        return found if queue is None else found._replace(max_offset=queue.index._base)

    wrap(patch, Reader, "pull", pull)
