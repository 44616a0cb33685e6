"""Delayed delivery: 18 levels, each a queue of SCHEDULE_TOPIC_XXXX in the order of delivery.

A message with a DELAY property is stored in the schedule topic, queue `level - 1`, with its real topic and queue in
REAL_TOPIC and REAL_QID. Its consume-queue unit carries the time of delivery instead of a tags code. Because a level has one
delay and store times never go back, a level's queue is sorted by time: only its head matters.

One task delivers. It sleeps until the earliest head is due, or until a message comes into an empty level; nothing polls.
A due record is appended to its real topic, and the level's offset moves on once that is committed (under SYNC_FLUSH: once
it is durable). What goes into delayOffset.json follows the *flushed* mark in both modes: after a power loss a copy that was
not durable yet is delivered again (P-DLY-3), at the price of duplicates of at most the last flush and file interval.

**Never early (P-DLY-1).** A message is due when the wall clock says so, or when its full delay has passed on the monotonic
clock since this process first saw it. The second matters only after the wall clock was set back: Apache delivers such
messages at once, too early; waiting for the wall clock alone could take years.

Unreadable records (expired, or damaged) are counted and passed over; a full disk stops delivery until there is room again.
Arbitrary delays (TIMER_*) need the timer wheel; until it exists they are refused as Apache does with timerWheelEnable=false.

Source: reference "store" section 10, "client_behaviour" section 8; `ScheduleMessageService`, `HookUtils#handleScheduleMessage`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from trmq.errors import CorruptRecord, DiskFull, MessageIllegal, RemoteProtocolError
from trmq.log.dispatch import level_of
from trmq.message import (
    DELAY,
    REAL_QID,
    REAL_TOPIC,
    SCHEDULE_TOPIC,
    TIMER_DELAY_MS,
    TIMER_DELAY_SEC,
    TIMER_DELIVER_MS,
    StoredMessage,
    encode_host,
)
from trmq.record import decode_record
from trmq.wire.bodies import DataVersion, DelayOffsetWrapper, decode_body, encode_body
from trmq.wire.codes import ResponseCode

from .version import next_version

if TYPE_CHECKING:
    from trmq.log.queue_index import QueueIndex

    from .service import Broker

PATH = "config/delayOffset.json"
TIMERS = (TIMER_DELIVER_MS, TIMER_DELAY_SEC, TIMER_DELAY_MS)
WAIT = "WAIT"
HALF_TOPIC = "RMQ_SYS_TRANS_HALF_TOPIC"
BATCH_MAX = 64
"""Records delivered per level before the batch is committed and everybody else gets a turn (about a millisecond)."""
FULL_DISK_PAUSE_S = 1.0
SEEN_STEPS = 64
"""How finely, in parts of its delay, a level remembers when its messages came."""

Rewritten = tuple[str, int, dict[str, str], int]


class Level:
    """One delay level: what is delivered, and when its messages were first seen.

    `offset` is the next queue offset to deliver. `seen` holds (end, at): the messages below queue offset `end` had all come
    at Trio time `at` (seconds).
    """

    __slots__ = ("delay_s", "index", "number", "offset", "pending", "seen", "stored")

    def __init__(self, number: int, delay_ms: int) -> None:
        self.number = number
        self.delay_s = delay_ms / 1000
        self.index: QueueIndex | None = None
        self.offset = 0
        self.stored = 0
        """The offset up to which delivery is durable: what the file says."""
        self.pending: deque[tuple[int, int]] = deque()
        """(physical end of the copies, offset) of deliveries that may not be durable yet."""
        self.seen: deque[tuple[int, float]] = deque()

    @property
    def queue_id(self) -> int:
        return self.number - 1

    def note(self, end: int, now: float) -> None:
        """Messages up to queue offset `end` (exclusive) are there."""
        step = self.delay_s / SEEN_STEPS
        if len(self.seen) > 1 and now - self.seen[-2][1] < step:
            self.seen[-1] = (end, now)
        elif not self.seen or end > self.seen[-1][0]:
            self.seen.append((end, now))

    def latest(self) -> float:
        """Trio time at which the head has waited its full delay since it was seen."""
        while self.seen and self.seen[0][0] <= self.offset:
            self.seen.popleft()
        return (self.seen[0][1] if self.seen else trio.current_time()) + self.delay_s

    def delivered(self, offset: int, end: int) -> None:
        self.offset = offset
        if self.pending and self.pending[-1][0] == end:
            self.pending.pop()
        self.pending.append((end, offset))

    def settle(self, flushed: int) -> bool:
        """Move `stored` up to what is durable; True if it moved."""
        before = self.stored
        while self.pending and self.pending[0][0] <= flushed:
            self.stored = self.pending.popleft()[1]
        return self.stored != before


@attrs.frozen
class DelayStatistics:
    """`behind` is how many messages wait, due or not; `lost` how many records could not be read or delivered any more."""

    offsets: dict[int, int]
    behind: int
    delivered: int
    lost: int


class DelayService:
    """Delayed delivery of one broker. `load` before `run`; `arrived` whenever messages reach the schedule topic."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        levels_ms = broker.config.delay_levels_ms
        self.levels = [Level(number, delay) for number, delay in enumerate(levels_ms, 1)]
        self.version = DataVersion(counter=0, state_version=0, timestamp=broker.now_ms())
        self.delivered = 0
        self.lost = 0
        self._idle: set[int] = set()  # queue ids of levels found empty
        self._bell = trio.Event()
        self._dirty = trio.Event()
        self._scope = trio.CancelScope()

    # --- on the way in

    def rewrite(self, topic: str, queue_id: int, properties: Mapping[str, str], now_ms: int) -> Rewritten | None:
        """Where a message with these properties is to be stored instead (topic, queue id, properties, tags code), None if it isn't delayed.

        The store replaces the tags code by the exact time of delivery. Raises `RemoteProtocolError` for a timer message and for a
        level that is no number.
        """
        text = properties.get(DELAY)
        if text is None and not any(name in properties for name in TIMERS):
            return None
        try:
            level = int(text or 0)
        except ValueError:
            complaint = f"property {DELAY}={text!r} must be a delay level, 1 to {len(self.levels)}"
            raise RemoteProtocolError(complaint, ResponseCode.MESSAGE_ILLEGAL) from None
        if level <= 0:
            if any(name in properties for name in TIMERS):
                complaint = "accurate timer message is not enabled, timerWheelEnable is false; use a delay level"
                raise RemoteProtocolError(complaint, ResponseCode.SYSTEM_ERROR)
            return None
        level = level_of(level, len(self.levels))
        kept = {name: value for name, value in properties.items() if name not in TIMERS}
        kept.update({DELAY: str(level), REAL_TOPIC: topic, REAL_QID: str(queue_id)})
        return SCHEDULE_TOPIC, level - 1, kept, now_ms + int(self.levels[level - 1].delay_s * 1000)

    def arrived(self, queue_id: int, max_offset: int) -> None:
        """For the store's `on_arrival` of the schedule topic. Cheap."""
        if 0 <= queue_id < len(self.levels):
            level = self.levels[queue_id]
            level.note(max_offset, trio.current_time())
            if level.index is None:
                level.index = self._broker.store.queue(SCHEDULE_TOPIC, queue_id)
            if queue_id in self._idle:
                self._idle.discard(queue_id)
                self._bell.set()

    # --- the file

    def load(self, data: bytes | None) -> None:
        """Take over the text of the file (None: there is none), each offset clamped into its queue's range. Needs the open store."""
        found = decode_body(data, DelayOffsetWrapper) if data is not None else DelayOffsetWrapper()
        if found.data_version is not None:
            self.version = found.data_version
        for level in self.levels:
            queue = level.index = self._broker.store.queue(SCHEDULE_TOPIC, level.queue_id)
            offset = found.offset_table.get(level.number, 0)
            if queue is not None:
                offset = min(max(offset, queue.min_offset), queue.max_offset)
            else:
                offset = 0
            level.offset = level.stored = offset

    def replace(self, data: bytes) -> None:
        """A slave's: how far the master has delivered. Raises `RemoteProtocolError`."""
        found = decode_body(data, DelayOffsetWrapper)
        self.version = found.data_version or self.version
        for level in self.levels:
            level.offset = level.stored = found.offset_table.get(level.number, level.stored)

    def encode(self) -> bytes:
        """The file's text in Apache's shape. Never ahead of what is durable."""
        moved = [level.settle(self._broker.store.flushed) for level in self.levels]
        if any(moved):
            self.version = next_version(self.version, self._broker.now_ms())
        offsets = {level.number: level.stored for level in self.levels}
        return encode_body(DelayOffsetWrapper(data_version=self.version, offset_table=offsets))

    def running_statistics(self) -> dict[str, str]:
        """`scheduleMessageOffset_<level>` = "delivered,max", as GET_BROKER_RUNTIME_INFO shows it."""
        return {f"scheduleMessageOffset_{level.number}": f"{level.offset},{self._max_offset(level)}" for level in self.levels}

    def statistics(self) -> DelayStatistics:
        return DelayStatistics(
            offsets={level.number: level.offset for level in self.levels},
            behind=sum(max(0, self._max_offset(level) - level.offset) for level in self.levels), delivered=self.delivered, lost=self.lost,
        )

    def _max_offset(self, level: Level) -> int:
        return 0 if level.index is None else level.index.max_offset

    # --- delivery

    async def run(self) -> None:
        """Deliver until `stop`. Raises `DiskFailed` of the log or of the file."""
        now = trio.current_time()
        for level in self.levels:
            if (end := self._max_offset(level)) > level.offset:
                level.note(end, now)
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver)
                nursery.start_soon(self._persist)

    def stop(self) -> None:
        """Deliver no more. A flush after this makes the file say all that was delivered."""
        self._scope.cancel()

    async def _deliver(self) -> None:
        while True:
            self._bell = trio.Event()
            try:
                wake_at, end = self._round()
            except DiskFull:
                await trio.sleep(FULL_DISK_PAUSE_S)  # nothing tells when the cleaner or the operator has made room
                continue
            if end and self._broker.store.config.sync_flush:
                await self._broker.store_service.flushed.reach(end)
            with trio.move_on_at(wake_at):
                await self._bell.wait()

    def _round(self) -> tuple[float, int]:
        """Deliver one batch of what is due: (Trio time of the next look, physical end of what was delivered, 0 if nothing was).

        Raises `DiskFull`; then nothing was delivered and no offset moved.
        """
        wake_at = inf
        moved: list[tuple[Level, int]] = []
        delivered = lost = 0
        try:
            for level in self.levels:
                if level.queue_id in self._idle:
                    continue
                good, bad, next_at = self._level(level)
                wake_at = min(wake_at, next_at)
                delivered += good
                lost += bad
                if good or bad:
                    moved.append((level, level.offset + good + bad))
            if not moved:
                return wake_at, 0
            end = self._broker.commit()
        except DiskFull:
            self._broker.store.rollback()
            raise
        for level, offset in moved:
            level.delivered(offset, end)
        self.delivered += delivered
        self.lost += lost
        self._dirty.set()
        return wake_at, end

    def _level(self, level: Level) -> tuple[int, int, float]:
        """Append what is due of one level: (delivered, undeliverable, Trio time of the next look). Commits nothing."""
        broker, queue = self._broker, level.index
        good = bad = 0
        if queue is not None and level.offset < queue.min_offset:
            return 0, queue.min_offset - level.offset, trio.current_time()  # expired while we were away
        for offset in range(level.offset, level.offset + BATCH_MAX):
            if queue is None or offset >= queue.max_offset:
                self._idle.add(level.queue_id)
                return good, bad, inf
            unit = queue.unit(offset)
            if unit is None:
                bad += 1
                continue
            phy, size, due_ms = unit
            wait_s = (due_ms - broker.now_ms()) / 1000
            if wait_s > 0:
                now = trio.current_time()
                if offset != level.offset:
                    return good, bad, now  # commit first, then look at this new head alone
                latest = level.latest()
                if now < latest:
                    return 0, 0, min(now + wait_s, latest)
            if self._copy(phy, size):
                good += 1
            else:
                bad += 1
        return good, bad, trio.current_time()

    def _copy(self, phy: int, size: int) -> bool:
        """Append the record at `phy` to its real topic; False if it cannot be delivered any more. Raises `DiskFull`."""
        view = self._broker.store.record(phy, size)
        if view is None:
            return False
        try:
            message = decode_record(view)
            topic, queue_id = real_place(message)
            self._broker.put(
                topic, queue_id, message.body, delivered_properties(message.properties), flag=message.flag, sys_flag=message.sys_flag,
                born_ms=message.born_ms, born_host=encode_host(message.born_host), reconsume_times=message.reconsume_times,
            )
        except (CorruptRecord, MessageIllegal):
            return False
        return True

    async def _persist(self) -> None:
        """Have the file written a while after something was delivered, and again while copies are not durable yet."""
        while True:
            await self._dirty.wait()
            await trio.sleep(self._broker.config.flush_delay_offset_interval / 1000)
            self._dirty = trio.Event()
            self._broker.metadata.mark(PATH)
            if any(level.pending for level in self.levels):
                self._dirty.set()


def real_place(message: StoredMessage) -> tuple[str, int]:
    """Topic and queue id a scheduled message is for. Raises `MessageIllegal` if it doesn't say, or may not be delivered."""
    topic = message.properties.get(REAL_TOPIC)
    queue = message.properties.get(REAL_QID, "")
    if not topic or not queue.isascii() or not queue.isdigit() or topic == HALF_TOPIC:
        raise MessageIllegal(f"the scheduled message at {message.phy_offset} names no topic and queue to be delivered to")
    return topic, int(queue)


def delivered_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties of the delivered copy: no delay any more, and nobody waits for it. REAL_* stay, as in Apache."""
    kept = {name: value for name, value in properties.items() if name != DELAY and name not in TIMERS}
    kept[WAIT] = "false"
    return kept
