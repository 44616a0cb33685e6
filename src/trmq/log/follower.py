"""`Follower`: a store whose log is copied from another broker's, byte for byte.

    append    whole records as they came, written at once; the log's end moves
    dispatch  reads the log from `confirm` on, checks each record, and builds queues and key index, some 100 KiB at a time

The two are apart because an acknowledgement waits for the first only, and because a slave that catches up takes bytes much faster than it
can look at them. What is not dispatched when the process dies is found by recovery, like records of which the indexes were not durable.
Under SYNC_FLUSH only what is durable is dispatched, as on a master.

Source: `DefaultHAClient#dispatchReadRequest`, `CommitLog#appendData`, `ReputMessageService`. Upholds P-HA-1, P-CQ-1, P-SLV-1.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import NamedTuple

from trmq.errors import CorruptRecord, DiskFull
from trmq.log.dispatch import index_keys, unit_tags
from trmq.log.key_index import Indexed
from trmq.log.queue_index import UNIT
from trmq.log.scan import Scanned, parse_record
from trmq.log.segment import BLANK, Segment
from trmq.log.store import Queue, Store
from trmq.message import (
    SCHEDULE_TOPIC,
    TRANSACTION_MASK,
    TRANSACTION_PREPARED,
    TRANSACTION_ROLLBACK,
    UNIQ_KEY,
    decode_properties,
    split_unique,
    tags_code,
)
from trmq.message import TAGS as TAGS_PROPERTY
from trmq.record import HEAD_V4, MAGIC_BLANK, MAGIC_V1

HEAD_SIZE = HEAD_V4.size
_HEAD = struct.Struct(">IIIi4xqqi16xq20xi")
"""`HEAD_V4` without what no index wants to know."""
assert _HEAD.size == HEAD_SIZE
SCHEDULE = SCHEDULE_TOPIC.encode()
UNIQUE_MARK = f"{UNIQ_KEY}\x01".encode()
SEPARATOR = 2
ALIKES_MAX = 64
CHECKS_MAX = 200
_crc32 = zlib.crc32


@lru_cache(maxsize=4096)
def _meaning(properties: str) -> tuple[int, tuple[str, ...]]:
    """(tags code, keys beside the unique one) of a properties text without its UNIQ_KEY."""
    pairs = decode_properties(properties)
    return tags_code(pairs.get(TAGS_PROPERTY)), tuple(index_keys(pairs))


class _Alike(NamedTuple):
    """What follows a record's body, but for the UNIQ_KEY in its middle, and what it means: one producer's records mostly differ in nothing
    else, and two comparisons then tell what decoding would."""

    front: bytes  # topic length, topic, properties length, properties up to the unique key
    key_at: int
    back: bytes  # the properties behind it
    back_at: int
    topic: bytes
    tags: int
    keys: tuple[str, ...]  # beside the unique one


_NOTHING = _Alike(b"", 0, b"", 0, b"", 0, ())


class _Run:
    """Consecutive units of one queue, gathered during one dispatch."""

    __slots__ = ("end", "first", "next", "phy", "queue", "topic", "units")

    def __init__(self, queue: Queue, first: int, phy: int) -> None:
        self.queue = queue
        self.topic = queue.topic
        self.first = self.next = first
        self.phy = phy
        self.end = phy
        self.units: list[bytes] = []


class Follower:
    """Takes a store over for following; it is never appended to in any other way from then on."""

    def __init__(self, store: Store) -> None:
        assert not store.behind or store.flushed == store.confirm
        self.store = store
        store.follows = True
        store.before_marks = self.witness
        self._checks: list[int] = []  # of records dispatched that have no checksum in the file yet: those in [_checks_from, _checks_end)
        self._checks_from = self._checks_end = store.confirm
        self._sound_from = 1 << 63
        """From here on the bodies were found to match their checksums before they were written."""
        self._runs: dict[tuple[bytes, int], _Run] = {}
        self._done: list[_Run] = []
        self._topics: dict[bytes, str] = {}
        self._alikes: dict[int, _Alike] = {}  # by their size

    @property
    def end(self) -> int | None:
        """Where the next byte goes; None while the log is empty and may begin anywhere."""
        log = self.store.log
        return log.max_phy if log.segments else None

    @property
    def waiting(self) -> int:
        """Bytes that are written and may be dispatched now."""
        return self._limit - self.store.confirm

    @property
    def _limit(self) -> int:
        return self.store.flushed if self.store.config.sync_flush else self.store.log.max_phy

    def append(self, offset: int, records: memoryview) -> int:
        """Write whole records that continue the log, their bodies already compared with their checksums (`SlaveEnd` does); returns its
        new end. Raises `DiskFull` (nothing is there then), `DiskFailed`."""
        log = self.store.log
        if not log.segments and log.max_phy != offset:
            log.begin_at(offset)
            self.store.flushed = self.store.confirm = offset
        assert offset == log.max_phy
        try:
            log.place_raw(records)
        except DiskFull:  # of the next segment: what stands before it has been gathered, and will come once more
            log.rollback()
            raise
        self._sound_from = min(self._sound_from, offset)
        end = log.commit()
        if self.store.on_commit is not None:
            self.store.on_commit(end)
        return end

    # --- dispatch

    def dispatch(self, bytes_max: int) -> bool:
        """Index the records of the next `bytes_max` bytes or a little more; True if there is more to do.

        Raises `CorruptRecord` for bytes that are no sound record: they came over the wire that way, or the disk changed them.
        """
        store, log, limit = self.store, self.store.log, self._limit
        at = store.confirm
        stop = min(limit, at + bytes_max)
        if at >= stop:
            return False
        keyed: list[Indexed] = []
        try:
            while at < stop:
                segment = log.segment_at(at)
                assert segment is not None
                view = segment.file.read_at(at - segment.base, min(limit, segment.end) - at)
                at = self._walk(view, at, segment, stop, keyed)
        except CorruptRecord:
            self._done, self._runs = [], {}
            self._checks = [] if self._checks_end > store.confirm else self._checks
            raise
        store.confirm = at
        self._hand_over(keyed)
        return at < limit

    def _walk(self, view: memoryview, base: int, segment: Segment, stop: int, keyed: list[Indexed]) -> int:
        """Gather what `view`, the log from `base` on within one segment, holds up to `stop`; returns where to go on."""
        unpack, pack_unit, runs, alikes, crc32 = _HEAD.unpack_from, UNIT.pack, self._runs, self._alikes, _crc32
        size, at, left = len(view), 0, stop - base
        last_ms = self.store.last_store_ms
        sound = self._sound_from - base
        checks: list[int] = []
        while at < left and at < size:
            if size - at < HEAD_SIZE:
                at = self._blank(view, at, base, segment)
                break
            total, magic, crc, queue_id, queue_offset, own, sys_flag, store_ms, body_size = unpack(view, at)
            phy = base + at
            if magic == MAGIC_BLANK:
                at = self._blank(view, at, base, segment)
                break
            body_at = at + HEAD_SIZE
            topic_at = body_at + body_size
            end = at + total
            if magic != MAGIC_V1 or sys_flag & 0x3C or own != phy or body_size < 0 or end > size or topic_at + 3 > end:
                at += self._any(view, at, phy, segment, checks, keyed)  # of another shape, or it says what is wrong
                continue
            tail = bytes(view[topic_at:end])  # topic length 1, topic, properties length 2, properties
            if at < sound and crc32(view[body_at:topic_at]) & 0x7FFFFFFF != crc:
                at += self._any(view, at, phy, segment, checks, keyed)
                continue
            front, key_at, back, back_at, topic, tags, keys = alikes.get(len(tail), _NOTHING)
            if (
                key_at
                and tail.startswith(front)
                and tail.endswith(back)
                and SEPARATOR not in (middle := tail[key_at:back_at])
            ):
                unique = middle.decode("utf-8", "replace")
            else:
                cut = tail[0] + 1
                if cut + 2 > len(tail) or (tail[cut] << 8 | tail[cut + 1]) != len(tail) - cut - 2:
                    at += self._any(view, at, phy, segment, checks, keyed)
                    continue
                topic, tags, keys, unique = self._read_tail(tail, cut, store_ms)
            checks.append(crc32(tail, crc32(view[at:body_at])))
            run = runs.get((topic, queue_id))
            if run is None or queue_offset != run.next:
                run = self._begin_run(topic, queue_id, queue_offset, phy)
            run.units.append(pack_unit(phy, total, tags))
            run.next = queue_offset + 1
            run.end = base + end
            if unique:
                keyed.append((run.topic, (unique, *keys) if keys else (unique,), phy, store_ms))
            elif keys:
                keyed.append((run.topic, keys, phy, store_ms))
            if store_ms > last_ms:
                last_ms = store_ms
            at = end
        if last_ms > self.store.last_store_ms:
            self.store.last_store_ms = last_ms
        if checks:
            if self._checks and (self._checks_end != base or base == segment.base or len(self._checks) > CHECKS_MAX):
                self.witness()
                if self._checks and (self._checks_end != base or base == segment.base):
                    self._checks = []  # no space: these stay without
            if not self._checks:
                self._checks_from = base
            self._checks += checks
            self._checks_end = base + at
        return base + at

    def _read_tail(self, tail: bytes, cut: int, store_ms: int) -> tuple[bytes, int, tuple[str, ...], str]:
        """(topic, tags code, keys beside the unique one, unique key) of a `tail` whose topic ends at `cut`. Remembers it for the next ones,
        if it has a unique key; units of the schedule topic have a time of their own."""
        topic, properties = tail[1:cut], tail[cut + 2 :]
        unique, rest = split_unique(str(properties, "utf-8", "replace"))
        tags, keys = _meaning(rest)
        if topic == SCHEDULE:
            tags = unit_tags(SCHEDULE_TOPIC, decode_properties(properties), store_ms, self.store.config.delay_levels_ms)
        elif unique:
            key_at = tail.index(UNIQUE_MARK, cut + 2) + len(UNIQUE_MARK)
            back_at = tail.find(SEPARATOR, key_at)
            if back_at < 0:
                back_at = len(tail)
            if len(self._alikes) >= ALIKES_MAX:
                self._alikes.clear()
            self._alikes[len(tail)] = _Alike(tail[:key_at], key_at, tail[back_at:], back_at, topic, tags, keys)
        return topic, tags, keys, unique

    def witness(self) -> int:
        """Write the checksums that are due; returns up to where every record has its own, which is less than was dispatched if there was
        no space for them. They come some records at a time: one without a checksum is judged by its own fields."""
        if self._checks:
            try:
                self.store.log.witness(self._checks_from, self._checks)
            except DiskFull:
                return self._checks_from
            self._checks = []
        return self.store.confirm

    def _begin_run(self, topic: bytes, queue_id: int, queue_offset: int, phy: int) -> _Run:
        name = self._topics.get(topic)
        if name is None:
            try:
                name = self._topics[topic] = topic.decode()
            except UnicodeDecodeError:
                raise CorruptRecord(f"the topic of the record at log offset {phy} is not UTF-8") from None
        done = self._runs.get((topic, queue_id))
        if done is not None:
            self._done.append(done)
        run = self._runs[topic, queue_id] = _Run(self.store.open_queue(name, queue_id), queue_offset, phy)
        return run

    @staticmethod
    def _blank(view: memoryview, at: int, base: int, segment: Segment) -> int:
        """Past the blank at `view[at:]`, which closes the segment."""
        room = segment.end - base - at
        if len(view) - at < BLANK.size or BLANK.unpack_from(view, at) != (room, MAGIC_BLANK):
            raise CorruptRecord(f"{segment.path}: neither a record nor the blank that closes the segment at log offset {base + at}")
        return segment.end - base

    def _any(self, view: memoryview, at: int, phy: int, segment: Segment, checks: list[int], keyed: list[Indexed]) -> int:
        """The same for records of any shape, carefully; returns the record's size. Raises `CorruptRecord`."""
        found = parse_record(view, at, segment.end - phy, phy)
        if isinstance(found, str):
            raise CorruptRecord(f"{segment.path}: what was copied for log offset {phy} is no record: {found}")
        checks.append(found.head_check)
        self.store.last_store_ms = max(self.store.last_store_ms, found.store_ms)
        self._gather(found, keyed)
        return found.size

    def _gather(self, record: Scanned, keyed: list[Indexed]) -> None:
        transaction = record.sys_flag & TRANSACTION_MASK
        properties = decode_properties(record.properties)
        topic = record.topic.encode()
        if transaction not in (TRANSACTION_PREPARED, TRANSACTION_ROLLBACK):
            run = self._runs.get((topic, record.queue_id))
            if run is None or record.queue_offset != run.next:
                run = self._begin_run(topic, record.queue_id, record.queue_offset, record.phy)
            tags = unit_tags(record.topic, properties, record.store_ms, self.store.config.delay_levels_ms)
            run.units.append(UNIT.pack(record.phy, record.size, tags))
            run.next = record.queue_offset + 1
            run.end = record.phy + record.size
        keys = index_keys(properties)
        if keys and transaction != TRANSACTION_ROLLBACK:
            keyed.append((record.topic, keys, record.phy, record.store_ms))

    def _hand_over(self, keyed: list[Indexed]) -> None:
        store = self.store
        runs = [*self._done, *self._runs.values()]
        self._done, self._runs = [], {}
        touched: dict[Queue, None] = {}
        for run in runs:
            queue = run.queue
            queue.index.extend(run.first, run.phy, run.end, b"".join(run.units))
            queue.next_offset = queue.committed_next = queue.index.max_offset
            touched[queue] = None
        if keyed and store.index is not None:
            store.index.put_all(keyed)
        if store.on_arrival is not None:
            for queue in touched:
                store.on_arrival(queue.topic, queue.queue_id, queue.index.max_offset)
