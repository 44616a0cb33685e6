"""Reading a store: pull by queue offset, records by physical offset, search by time and by key. `Store` inherits it.

Only dispatched records are ever seen: every way in goes through a queue index or the key index, except `record`, which is
bounded by `confirm`. A pull hands out views of the log itself, neighbours merged into one.

Source: `DefaultMessageStore#getMessage`, `ConsumeQueue#binarySearchInQueueByTime`, `DefaultMessageStore#queryMessage`;
reference "store" sections 2.4, 3, 14 and "client behaviour" section 4. Upholds P-CQ-5, P-IDX-1, P-IDX-3, P-TIME-1, P-CLEAN-1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trmq.errors import CorruptRecord
from trmq.log.dispatch import TAGS_KEY_PREFIX
from trmq.log.reading import FRONT_SIZE, UNIT, UNIT_SIZE, Pull, PullStatus, record_front
from trmq.log.time_search import Boundary
from trmq.log.time_search import offset_by_time as search_time
from trmq.message import BORN_HOST_V6, KEY_SEPARATOR, KEYS, TAGS, UNIQ_KEY
from trmq.record import MAGIC_V1, MAGIC_V2, SYS_FLAG_AT, decode_record

if TYPE_CHECKING:
    from trmq.log.commit_log import CommitLog
    from trmq.log.key_index import KeyIndex
    from trmq.log.queue_index import QueueIndex
    from trmq.log.store import Queue

FILTER_SCAN_BYTES_MAX = 16_000
QUERY_MAX = 64
"""Apache's `maxMsgsNumBatch`: no query answers more."""


class Reader:
    """The reading half of a `Store`."""

    log: CommitLog
    index: KeyIndex | None
    confirm: int

    def find_queue(self, topic: str, queue_id: int) -> Queue | None:
        raise NotImplementedError

    def queue(self, topic: str, queue_id: int) -> QueueIndex | None:
        """The queue's index (`min_offset`, `max_offset`), None if it never held a message."""
        found = self.find_queue(topic, queue_id)
        return None if found is None else found.index

    # --- by queue offset

    def pull(
        self, topic: str, queue_id: int, offset: int, max_messages: int, max_bytes: int, tags: frozenset[int] | None = None,
    ) -> Pull:
        """Messages from queue offset `offset` on: at most `max_messages` and (beyond the first) `max_bytes`, only those whose tags
        code is in `tags` if given. `next_offset` is where to go on, also when nothing was found."""
        queue = self.find_queue(topic, queue_id)
        if queue is None:
            return Pull(PullStatus.NO_MATCHED_LOGIC_QUEUE, 0, 0, 0, [], 0, 0, -1)
        index = queue.index
        low, high = index.min_offset, index.max_offset
        if high == 0:
            return Pull(PullStatus.NO_MESSAGE_IN_QUEUE, 0, low, high, [], 0, 0, -1)
        if offset < low:
            return Pull(PullStatus.OFFSET_TOO_SMALL, low, low, high, [], 0, 0, -1)
        if offset == high:
            return Pull(PullStatus.OFFSET_OVERFLOW_ONE, offset, low, high, [], 0, 0, -1)
        if offset > high:
            return Pull(PullStatus.OFFSET_OVERFLOW_BADLY, high, low, high, [], 0, 0, -1)
        scan = max(FILTER_SCAN_BYTES_MAX, max_messages * UNIT_SIZE) // UNIT_SIZE
        units = index.units(offset, max_messages if tags is None and self.log.min_phy == 0 else scan)
        if not units:
            return Pull(PullStatus.OFFSET_FOUND_NULL, offset, low, high, [], 0, 0, -1)
        return self._gather(units, offset, low, high, max_messages, max_bytes, tags)

    def _gather(
        self, units: bytes | bytearray | memoryview, offset: int, low: int, high: int, max_messages: int, max_bytes: int,
        tags: frozenset[int] | None,
    ) -> Pull:
        """Collect the records of `units` (which start at queue offset `offset`) by the rules of `pull`."""
        log = self.log
        min_phy = log.min_phy
        runs: list[tuple[int, int]] = []
        run_start = run_end = segment_end = -1
        total = count = 0
        last_phy = -1
        status = PullStatus.NO_MATCHED_MESSAGE
        for phy, size, code in UNIT.iter_unpack(units):
            if count and (count >= max_messages or total + size > max_bytes):
                break
            last_phy = phy
            offset += 1
            if tags is not None and code not in tags:
                continue
            if phy < min_phy:
                if not count:
                    status = PullStatus.MESSAGE_WAS_REMOVING
                continue
            if phy == run_end and phy < segment_end:
                run_end += size
            else:
                if run_end > 0:
                    runs.append((run_start, run_end))
                run_start, run_end = phy, phy + size
                segment = log.segment_at(phy)
                segment_end = -1 if segment is None else segment.end
            total += size
            count += 1
        if not count:
            return Pull(status, offset, low, high, [], 0, 0, last_phy)
        runs.append((run_start, run_end))
        slices = []
        for start, end in runs:
            view = log.read(start, end - start)
            if view is None:
                raise CorruptRecord(
                    f"a queue unit points to bytes {start} to {end} but the log holds {min_phy} to {log.max_phy}; run `trmq store check`"
                )
            slices.append(view)
        return Pull(PullStatus.FOUND, offset, low, high, slices, total, count, last_phy)

    # --- by physical offset

    def record(self, phy_offset: int, size: int | None = None) -> memoryview | None:
        """The dispatched record that starts at `phy_offset` (and has `size` bytes, if given), or None. An offset into the middle
        of one is not taken for a record: its own offset field would not match."""
        front = self.log.read(phy_offset, FRONT_SIZE)
        found = None if front is None else record_front(front, phy_offset)
        if found is None or (size is not None and found != size) or phy_offset + found > self.confirm:
            return None
        view = self.log.read(phy_offset, found)
        if view is None:
            return None
        try:
            decode_record(view, check_crc=False)
        except CorruptRecord:
            return None
        return view

    def _store_ms(self, phy: int) -> int | None:
        head = self.log.read(phy, 76)
        if head is None or int.from_bytes(head[4:8], "big") not in (MAGIC_V1, MAGIC_V2):
            return None
        v6 = int.from_bytes(head[SYS_FLAG_AT : SYS_FLAG_AT + 4], "big") & BORN_HOST_V6
        return int.from_bytes(head[68:76] if v6 else head[56:64], "big", signed=True)

    def earliest_ms(self) -> int:
        """Store time (ms since the epoch) of the oldest record kept, -1 if there is none."""
        found = self._store_ms(self.log.min_phy)
        return -1 if found is None else found

    # --- by time

    def store_time(self, topic: str, queue_id: int, queue_offset: int) -> int | None:
        """Store time (ms since the epoch) of one message, None if the queue doesn't hold it."""
        index = self.queue(topic, queue_id)
        return None if index is None else self._unit_ms(index, queue_offset)

    def _unit_ms(self, index: QueueIndex, queue_offset: int) -> int | None:
        unit = index.unit(queue_offset)
        return None if unit is None else self._store_ms(unit[0])

    def offset_by_time(self, topic: str, queue_id: int, ms: int, boundary: Boundary = "LOWER") -> int:
        """LOWER: the first queue offset stored at or after `ms` (max if none); UPPER: the last one at or before it (min if none)."""
        index = self.queue(topic, queue_id)
        if index is None:
            return 0
        return search_time(index, ms, boundary, lambda phy, _: self._store_ms(phy))

    # --- by key

    def query(self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int) -> tuple[list[memoryview], int, int]:
        """Records of `topic` with `key` (a UNIQ_KEY, one of KEYS, or T#tags) stored in [begin_ms, end_ms], newest first, at most
        min(max_count, 64); then the time and the physical offset up to which the key index is built.

        The index knows hashes only, so every candidate is read and compared: a collision neither shows nor hides anything.
        """
        index = self.index
        if index is None:
            return [], 0, 0
        wanted = min(max_count, QUERY_MAX)
        found: list[memoryview] = []
        if wanted > 0:
            for phy in index.candidates(topic, key, begin_ms, end_ms):
                view = self.record(phy)
                if view is not None and _has_key(view, topic, key):
                    found.append(view)
                    if len(found) == wanted:
                        break
        return found, index.last_store_ms, index.end_phy


def _has_key(record: memoryview, topic: str, key: str) -> bool:
    message = decode_record(record, check_crc=False)
    if message.topic != topic:
        return False
    properties = message.properties
    if properties.get(UNIQ_KEY) == key or key in properties.get(KEYS, "").split(KEY_SEPARATOR):
        return True
    return key.startswith(TAGS_KEY_PREFIX) and properties.get(TAGS) == key[len(TAGS_KEY_PREFIX) :]
