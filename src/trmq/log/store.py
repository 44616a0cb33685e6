"""`Store`: one broker's messages on disk, as plain synchronous calls. The Trio half is `service.py`.

**A put exists once `commit` has returned.** `append` encodes, assigns both offsets from memory and remembers what the indexes will need;
`commit` writes, dispatches what `confirm` allows and tells `on_arrival` once per touched queue. If it raises `DiskFull`,
nothing appended since the last commit exists, and no queue offset was used up (P-LOG-5). `DiskFailed` is fatal.

**Three marks.** `max_phy`: written, and visible to a later incarnation of this process. `flushed`: durable. `confirm`: dispatched, and what
consumers may see; it follows `max_phy` under ASYNC_FLUSH and `flushed` under SYNC_FLUSH, and replication may hold it back further.

**Queues are opened when first touched**, so a store with thousands of queues starts as fast as one with a single queue. The next
queue offset of a queue is its index's max offset plus what waits for dispatch.

A record's store time never goes back within the log, whatever the wall clock does: recovery and time search rely on it (TRAP-S5).

Source: `DefaultMessageStore`, `CommitLog`; reference "store" sections 1.1, 4, 14.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence

import attrs

from trmq.errors import DiskFull, LogError, MessageIllegal
from trmq.host import Buffer, Disk
from trmq.log.checksums import record_check
from trmq.log.commit_log import CommitLog
from trmq.log.config import StoreConfig
from trmq.log.dispatch import delivery_ms
from trmq.log.key_index import Indexed, KeyIndex
from trmq.log.queue_index import UNIT, QueueIndex
from trmq.log.queue_table import QueueIndexSet
from trmq.log.reading import Put
from trmq.log.search import Reader
from trmq.message import (
    DELAY,
    PROPERTIES_BYTES_MAX,
    RETRY_TOPIC_BYTES_MAX,
    SCHEDULE_TOPIC,
    TRANSACTION_MASK,
    TRANSACTION_PREPARED,
    TRANSACTION_ROLLBACK,
    decode_properties,
)
from trmq.record import HEAD_V4, MAGIC_V1, encode_record, record_size

QUEUE_FOLDER = "consumequeue"
BatchPart = tuple[int, Buffer, bytes, int, Sequence[str]]
_crc32 = zlib.crc32
_pack_head = HEAD_V4.pack
_pack_unit = UNIT.pack


class Queue:
    """A queue in use: its index, and the offset the next append gets."""

    __slots__ = ("committed_next", "index", "next_offset", "queue_id", "topic", "topic_bytes", "topic_field")

    def __init__(self, topic: str, queue_id: int, index: QueueIndex) -> None:
        self.topic = topic
        self.queue_id = queue_id
        self.index = index
        self.next_offset = index.max_offset
        self.committed_next = self.next_offset
        self.topic_bytes = topic.encode()
        self.topic_field = bytes((len(self.topic_bytes) & 0xFF,)) + self.topic_bytes


# What dispatch needs of one record or batch: end (exclusive), queue (None: no units), queue offset, phy, units, what the key index gets
Entry = tuple[int, Queue | None, int, int, bytes, Sequence[Indexed]]


@attrs.frozen
class StoreStatistics:
    min_phy: int
    max_phy: int
    flushed: int
    confirm: int
    dispatched: int
    waiting_for_dispatch: int
    queues_open: int
    segments: int
    last_store_ms: int
    writable: bool


class Store(Reader):
    """See the module. Made and recovered by `service.open_store` (or `recovery.open_core` without Trio)."""

    def __init__(
        self, disk: Disk, config: StoreConfig, now_ms: Callable[[], int], log: CommitLog, indexes: QueueIndexSet, index: KeyIndex | None
    ) -> None:
        self.disk = disk
        self.config = config
        self.log = log
        self.indexes = indexes
        self.index = index
        self.on_arrival: Callable[[str, int, int], None] | None = None
        self.on_commit: Callable[[int], None] | None = None
        """Called with the new max_phy after each commit that wrote something (the flusher waits for it)."""
        self.flushed = log.max_phy
        self.confirm = log.max_phy
        self.last_store_ms = 0
        self.refuse_writes: str | None = None
        """Why puts are refused (disk too full), None if they are not."""
        self.closed = False
        self._now_ms = now_ms
        self._queues: dict[tuple[str, int], Queue] = {}
        self._batch: list[Entry] = []
        self._touched: dict[Queue, None] = {}
        self._waiting: list[Entry] = []  # committed, above confirm
        self._group_ms = 0  # store time of the records gathered since the last commit, 0 if there are none
        self._store_v6 = len(config.store_host) == 20

    # --- marks

    @property
    def max_phy(self) -> int:
        return self.log.max_phy

    @property
    def min_phy(self) -> int:
        return self.log.min_phy

    @property
    def writable(self) -> bool:
        return self.refuse_writes is None and not self.closed

    # --- append

    def append(
        self, topic: str, queue_id: int, body: Buffer, properties: bytes, flag: int, sys_flag: int, born_ms: int, born_host: bytes,
        reconsume_times: int, tags_code: int, keys: Sequence[str], prepared_offset: int = 0,
    ) -> Put:
        """Gather one record. Raises `MessageIllegal`, `DiskFull`, `LogError` when closed; then nothing has changed.

        Records of prepared and rolled-back transactions get no queue unit and queue offset 0 (reference "store" section 2).
        """
        queue = self._queues.get((topic, queue_id)) or self._open_for_append(topic, queue_id)
        log = self.log
        store_ms = self._group_ms or self._begin_group()
        topic_bytes = queue.topic_bytes
        body_size = len(body)
        size = 91 + body_size + len(topic_bytes) + len(properties)
        if body_size > self.config.max_message_size or len(properties) > PROPERTIES_BYTES_MAX:
            self._refuse(body_size, len(properties))
        if len(topic_bytes) <= 127 and len(born_host) == 8 and not self._store_v6 and not sys_flag & 0x3C:
            phy = log.place(size)
            queue_offset = queue.next_offset
            head = _pack_head(
                size, MAGIC_V1, _crc32(body) & 0x7FFFFFFF, queue_id, flag, queue_offset, phy, sys_flag, born_ms, born_host, store_ms,
                self.config.store_host, reconsume_times, prepared_offset, body_size,
            )
            tail = queue.topic_field + len(properties).to_bytes(2, "big") + properties
            log.parts += (head, body, tail)
            log.checks.append(_crc32(tail, _crc32(head)))
            queue.next_offset = queue_offset + 1
            self._touched[queue] = None
            if topic == SCHEDULE_TOPIC:
                tags_code = self._due(properties, store_ms, tags_code)
            indexed = ((topic, keys, phy, store_ms),) if keys else ()
            self._batch.append((phy + size, queue, queue_offset, phy, _pack_unit(phy, size, tags_code), indexed))
            return Put(phy, queue_offset, size)
        return self._append_any(
            queue, body, properties, flag, sys_flag, born_ms, born_host, reconsume_times, tags_code, keys, prepared_offset, store_ms
        )

    def _append_any(
        self, queue: Queue, body: Buffer, properties: bytes, flag: int, sys_flag: int, born_ms: int, born_host: bytes,
        reconsume_times: int, tags_code: int, keys: Sequence[str], prepared_offset: int, store_ms: int,
    ) -> Put:
        """The same for long topics, IPv6 hosts and transactions."""
        transaction = sys_flag & TRANSACTION_MASK
        queued = transaction not in (TRANSACTION_PREPARED, TRANSACTION_ROLLBACK)
        store_host = self.config.store_host
        size = record_size(len(body), len(queue.topic_bytes), len(properties), len(born_host), len(store_host))
        phy = self.log.place(size)
        queue_offset = queue.next_offset if queued else 0
        record = encode_record(
            queue.topic_bytes, queue.queue_id, queue_offset, phy, bytes(body), properties, flag, sys_flag, born_ms, born_host, store_ms,
            store_host, reconsume_times, prepared_offset,
        )
        self.log.parts.append(record)
        self.log.checks.append(record_check(record))
        self._touched[queue] = None
        if queued:
            queue.next_offset += 1
            if queue.topic == SCHEDULE_TOPIC:
                tags_code = self._due(properties, store_ms, tags_code)
        indexed = ((queue.topic, keys, phy, store_ms),) if keys and transaction != TRANSACTION_ROLLBACK else ()
        units = _pack_unit(phy, size, tags_code) if queued else b""
        self._batch.append((phy + size, queue if queued else None, queue_offset, phy, units, indexed))
        return Put(phy, queue_offset, size)

    def append_batch(
        self, topic: str, queue_id: int, parts: Sequence[BatchPart], sys_flag: int, born_ms: int, born_host: bytes, reconsume_times: int,
    ) -> list[Put]:
        """Gather a batch: (flag, body, properties, tags code, keys) each. All or nothing, in one segment, consecutive (P-LOG-6)."""
        topic_size = len(topic.encode())
        total = 0
        body_max, fixed = self.config.max_message_size, record_size(0, topic_size, 0, len(born_host), len(self.config.store_host))
        for _, body, properties, _, _ in parts:
            if len(body) > body_max or len(properties) > PROPERTIES_BYTES_MAX:
                self._refuse(len(body), len(properties))
            total += fixed + len(body) + len(properties)
        if total > self.config.max_message_size + (64 << 10):
            raise MessageIllegal(f"a batch of {total} bytes is more than maxMessageSize {self.config.max_message_size}; send it in parts")
        queue = self._queues.get((topic, queue_id)) or self._open_for_append(topic, queue_id)
        store_ms = self._group_ms or self._begin_group()
        phy = self.log.place(total)  # moves to the next segment if the whole would not fit
        if topic_size <= 127 and len(born_host) == 8 and not self._store_v6 and not sys_flag & 0x3C and topic != SCHEDULE_TOPIC:
            return self._append_parts(queue, parts, phy, sys_flag, born_ms, born_host, reconsume_times, store_ms)
        self.log.next_phy = phy
        return [
            self.append(topic, queue_id, body, properties, flag, sys_flag, born_ms, born_host, reconsume_times, tags, keys)
            for flag, body, properties, tags, keys in parts
        ]

    def _append_parts(
        self, queue: Queue, parts: Sequence[BatchPart], start: int, sys_flag: int, born_ms: int, born_host: bytes, reconsume_times: int,
        store_ms: int,
    ) -> list[Put]:
        """The records of a batch from `start` on, where there is room for all: one entry for dispatch, no call per record."""
        topic, queue_id, topic_field = queue.topic, queue.queue_id, queue.topic_field
        fixed = 90 + len(topic_field)
        store_host = self.config.store_host
        pack_head, crc32, pack_unit = _pack_head, _crc32, _pack_unit
        pieces, checks = self.log.parts, self.log.checks
        phy, queue_offset = start, queue.next_offset
        units: list[bytes] = []
        indexed: list[Indexed] = []
        puts: list[Put] = []
        for flag, body, properties, tags_code, keys in parts:
            body_size = len(body)
            properties_size = len(properties)
            size = fixed + body_size + properties_size
            head = pack_head(
                size, MAGIC_V1, crc32(body) & 0x7FFFFFFF, queue_id, flag, queue_offset, phy, sys_flag, born_ms, born_host, store_ms,
                store_host, reconsume_times, 0, body_size,
            )
            tail = topic_field + properties_size.to_bytes(2, "big") + properties
            pieces += (head, body, tail)
            checks.append(crc32(tail, crc32(head)))
            units.append(pack_unit(phy, size, tags_code))
            if keys:
                indexed.append((topic, keys, phy, store_ms))
            puts.append(Put(phy, queue_offset, size))
            phy += size
            queue_offset += 1
        self._batch.append((phy, queue, queue.next_offset, start, b"".join(units), indexed))
        queue.next_offset = queue_offset
        self._touched[queue] = None
        return puts

    def _begin_group(self) -> int:
        if self.closed:
            raise LogError("the store is closed")
        if self.refuse_writes is not None:
            raise DiskFull(self.refuse_writes)
        now = self._now_ms()
        if now < self.last_store_ms:
            now = self.last_store_ms
        self.last_store_ms = self._group_ms = now
        return now

    def _refuse(self, body_size: int, properties_size: int) -> None:
        if body_size > self.config.max_message_size:
            raise MessageIllegal(f"the body has {body_size} bytes, maxMessageSize is {self.config.max_message_size}")
        raise MessageIllegal(f"the properties have {properties_size} bytes, at most {PROPERTIES_BYTES_MAX} can be stored")

    def _due(self, properties: bytes, store_ms: int, otherwise: int) -> int:
        if DELAY.encode() not in properties:
            return otherwise
        due = delivery_ms(decode_properties(properties), store_ms, self.config.delay_levels_ms)
        return otherwise if due is None else due

    def commit(self) -> int:
        """Write what was gathered, dispatch what `confirm` allows; returns max_phy. Raises `DiskFull` (then nothing of it
        exists), `DiskFailed`."""
        batch = self._batch
        if not batch:
            self._group_ms = 0
            return self.log.max_phy
        try:
            end = self.log.commit()
        except DiskFull:
            self.rollback()
            raise
        for queue in self._touched:
            queue.committed_next = queue.next_offset
        self._touched.clear()
        self._batch = []
        self._group_ms = 0
        try:
            if self.on_commit is not None:  # before the indexes are built: slaves write what is new meanwhile
                self.on_commit(end)
        finally:  # it is committed: whatever those who were told run into, no queue offset of it may be given out again
            self._committed(batch, end)
        return end

    def _committed(self, batch: list[Entry], end: int) -> None:
        if self._waiting or self.config.sync_flush:
            self._waiting += batch
        elif self.confirm_limit is None or self.confirm_limit >= end:
            self.confirm = end
            self._dispatch(batch)
        else:
            self._waiting += batch

    before_marks: Callable[[], int] | None = None
    """A follower's: called before what is durable is noted; writes the checksums that are due and says up to where they are there."""
    follows = False
    """Another's log is copied into this one (`follower`): dispatch reads the log, and nothing is appended here."""
    confirm_limit: int | None = None
    """Replication's bound on `confirm`; None: none."""

    def rollback(self) -> None:
        """Forget everything appended since the last commit."""
        for queue in self._touched:
            queue.next_offset = queue.committed_next
        self._touched.clear()
        self._batch = []
        self._group_ms = 0
        self.log.rollback()

    # --- dispatch

    def set_confirm(self, offset: int) -> None:
        """Dispatch what lies below `offset` (never more than is written, never backwards)."""
        if self.follows:
            return
        offset = min(offset, self.log.max_phy)
        if self.confirm_limit is not None:
            offset = min(offset, self.confirm_limit)
        if offset <= self.confirm:
            return
        self.confirm = offset
        waiting = self._waiting
        if not waiting:
            return
        if waiting[-1][0] <= offset:
            self._waiting = []
            self._dispatch(waiting)
            return
        count = next(i for i, entry in enumerate(waiting) if entry[0] > offset)
        self._waiting = waiting[count:]
        self._dispatch(waiting[:count])

    def _dispatch(self, entries: list[Entry]) -> None:
        index = self.index
        touched: dict[Queue, None] = {}
        keyed: list[Indexed] = []
        for end, queue, queue_offset, phy, units, indexed in entries:
            if queue is not None:
                queue.index.extend(queue_offset, phy, end, units)
                touched[queue] = None
            keyed += indexed
        if keyed and index is not None:
            index.put_all(keyed)
        if self.on_arrival is not None:
            for queue in touched:
                self.on_arrival(queue.topic, queue.queue_id, queue.index.max_offset)

    def mark_flushed(self, end: int) -> None:
        """Everything below `end` is durable."""
        if end > self.flushed:
            self.flushed = end
            if self.config.sync_flush:
                self.set_confirm(end)

    @property
    def behind(self) -> bool:
        """Whether records are written but not dispatched, or not durable."""
        return bool(self._waiting) or self.flushed < self.log.max_phy or self.confirm < self.log.max_phy

    def segment_ages(self, now_ms: int) -> list[int | None]:
        """Age (ms) of each segment's last record but for the last segment, oldest first; None where it can't be told. It is taken from
        the record behind it, the first of the next segment. Segments not wholly durable are left out: a flush may be at work on them."""
        ages: list[int | None] = []
        for segment in self.log.segments[1:]:
            if segment.base > self.flushed:
                break
            stored = self._store_ms(segment.base)
            ages.append(None if stored is None else now_ms - stored)
        return ages

    # --- queues

    def _open_for_append(self, topic: str, queue_id: int) -> Queue:
        size = len(topic.encode())
        if not 0 < size <= RETRY_TOPIC_BYTES_MAX or "/" in topic or topic in (".", ".."):
            raise MessageIllegal(f"topic {topic[:80]!r} cannot be stored: 1 to {RETRY_TOPIC_BYTES_MAX} bytes without '/' are allowed")
        if queue_id < 0:
            raise MessageIllegal(f"queue id {queue_id} is negative")
        return self.open_queue(topic, queue_id)

    def open_queue(self, topic: str, queue_id: int) -> Queue:
        """The queue, from memory or from its files; a new one if it has none."""
        queue = self._queues.get((topic, queue_id))
        if queue is None:
            queue = self._queues[topic, queue_id] = Queue(topic, queue_id, self.indexes.get_or_create(topic, queue_id))
        return queue

    def find_queue(self, topic: str, queue_id: int) -> Queue | None:
        """The queue if it has ever held a message; asking does not make one."""
        queue = self._queues.get((topic, queue_id))
        if queue is None and self.indexes.get(topic, queue_id) is not None:
            queue = self.open_queue(topic, queue_id)
        return queue

    def queues(self) -> list[tuple[str, int]]:
        """(topic, queue id) of every queue, sorted."""
        return self.indexes.keys()

    def opened(self) -> Iterable[Queue]:
        return list(self._queues.values())

    def delete_topic(self, topic: str) -> None:
        """Remove the topic's queues. Its records stay in the log until they expire; they are in no queue any more."""
        for key in [key for key in self._queues if key[0] == topic]:
            del self._queues[key]
        self.indexes.delete_topic(topic)
        self._waiting = [
            (entry[0], None, *entry[2:]) if entry[1] is not None and entry[1].topic == topic else entry for entry in self._waiting
        ]

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(
            min_phy=self.min_phy, max_phy=self.max_phy, flushed=self.flushed, confirm=self.confirm,
            dispatched=self._waiting[0][3] if self._waiting else self.confirm, waiting_for_dispatch=len(self._waiting),
            queues_open=len(self._queues), segments=len(self.log.segments), last_store_ms=self.last_store_ms, writable=self.writable,
        )


__all__ = ["QUEUE_FOLDER", "Entry", "Queue", "Store", "StoreStatistics"]
