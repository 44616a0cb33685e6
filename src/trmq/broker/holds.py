"""Held pulls: a pull that found nothing waits here for a message in its queue, its deadline, or its connection's end.

Nothing polls. An arrival marks a queue once however many messages came; the driver looks at the marked queues only, so
a thousand held pulls that nothing arrives for cost nothing. One heap of deadlines serves all of them; entries of
holds that have left are skipped, and swept when they outnumber the living.

`Holds` is pure (deadlines are plain numbers, seconds of Trio's clock); `HoldDriver` is its one task.
Source: reference "client_behaviour" section 4; `PullRequestHoldService`, `NotifyMessageArrivingListener`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

import trio

C = TypeVar("C")
"""Who waits: a connection (hashable)."""
R = TypeVar("R")
"""What it waits to run again."""

QueueKey = tuple[str, int]


class Hold(Generic[C, R]):
    """One pull that waits. `offset` moves on past messages its filter rejected, so that they are looked at once."""

    __slots__ = ("alive", "conn", "deadline", "key", "offset", "request")

    def __init__(self, conn: C, key: QueueKey, offset: int, deadline: float, request: R) -> None:
        self.conn = conn
        self.key = key
        self.offset = offset
        self.deadline = deadline
        self.request = request
        self.alive = True


class Holds(Generic[C, R]):
    """Every held pull of a broker, by queue, by connection and by deadline."""

    def __init__(self, holds_max: int) -> None:
        self.holds_max = holds_max
        self._by_queue: dict[QueueKey, dict[Hold[C, R], None]] = {}
        self._by_conn: dict[C, dict[Hold[C, R], None]] = {}
        self._heap: list[tuple[float, int, Hold[C, R]]] = []
        self._order = count()
        self._size = 0
        self._arrived: dict[QueueKey, None] = {}

    def __len__(self) -> int:
        return self._size

    def add(self, hold: Hold[C, R]) -> bool:
        """Keep `hold`; False (and nothing kept) when the broker holds as many as it may."""
        if self._size >= self.holds_max:
            return False
        self._by_queue.setdefault(hold.key, {})[hold] = None
        self._by_conn.setdefault(hold.conn, {})[hold] = None
        heapq.heappush(self._heap, (hold.deadline, next(self._order), hold))
        self._size += 1
        if len(self._heap) > 64 and len(self._heap) > 4 * self._size:
            self._heap = [entry for entry in self._heap if entry[2].alive]
            heapq.heapify(self._heap)
        return True

    def remove(self, hold: Hold[C, R]) -> None:
        if not hold.alive:
            return
        hold.alive = False
        self._size -= 1
        for table, key in ((self._by_queue, hold.key), (self._by_conn, hold.conn)):
            group: dict[Hold[C, R], None] = table[key]  # type: ignore[index]  # two tables of one shape
            del group[hold]
            if not group:
                del table[key]  # type: ignore[arg-type]  # as above

    def mark(self, topic: str, queue_id: int) -> bool:
        """Note that messages arrived; True if somebody waits for them."""
        key = (topic, queue_id)
        if key not in self._by_queue:
            return False
        self._arrived[key] = None
        return True

    def take_arrived(self) -> list[Hold[C, R]]:
        """The holds of the queues marked since the last call. They stay held; `remove` the ones that get an answer."""
        marked, self._arrived = self._arrived, {}
        return [hold for key in marked for hold in self._by_queue.get(key, ())]

    def count_arrived(self) -> int:
        """How many holds `take_arrived` would return."""
        return sum(len(self._by_queue.get(key, ())) for key in self._arrived)

    def take_expired(self, now: float) -> list[Hold[C, R]]:
        """The holds whose deadline has passed; they are held no more."""
        late = []
        while self._heap and (not self._heap[0][2].alive or self._heap[0][0] <= now):
            hold = heapq.heappop(self._heap)[2]
            if hold.alive:
                self.remove(hold)
                late.append(hold)
        return late

    def drop(self, conn: C) -> int:
        """Forget what a connection that ended was waiting for; how many that were."""
        gone = list(self._by_conn.get(conn, ()))
        for hold in gone:
            self.remove(hold)
        return len(gone)

    @property
    def next_deadline(self) -> float:
        """Not later than the earliest deadline of a living hold; infinity when nothing is held."""
        return self._heap[0][0] if self._heap else math.inf


AT_ONCE_MAX = 16
"""Held pulls that a commit serves itself; more are left to the driver, so that the sender's answer is not held up."""


class HoldDriver(Generic[C, R]):
    """The one task that runs held pulls again; a few at a time are run by `serve_at_once`, without waking it.

    `look(hold)` pulls again after an arrival and says whether it answered (else the pull stays held); `end(hold)` gives
    the answer at the deadline; `write(conn)` is called once for each connection that got answers. All are plain functions.
    """

    def __init__(
        self, holds: Holds[C, R], look: Callable[[Hold[C, R]], bool], end: Callable[[Hold[C, R]], None], write: Callable[[C], None],
    ) -> None:
        self.holds = holds
        self._look = look
        self._end = end
        self._write = write
        self._bell = trio.Event()
        self._armed = math.inf
        self.quiet = False
        """Set around a commit that is followed by `serve_at_once`: arrivals are marked but wake nobody."""

    def hold(self, hold: Hold[C, R]) -> bool:
        """Keep `hold`; False when the broker is full of them."""
        if not self.holds.add(hold):
            return False
        if hold.deadline < self._armed:
            self._bell.set()
        return True

    def arrived(self, topic: str, queue_id: int, max_offset: int) -> None:
        """For the store's `on_arrival`: cheap, and safe to call from the middle of a commit."""
        if self.holds.mark(topic, queue_id) and not self.quiet:
            self._bell.set()

    def serve_at_once(self) -> None:
        """Run the pulls again that arrivals were marked for while `quiet`, or leave them to the driver if they are many."""
        count = self.holds.count_arrived()
        if count > AT_ONCE_MAX:
            self._bell.set()
        elif count:
            self._serve_arrived({})

    def _serve_arrived(self, answered: dict[C, None]) -> None:
        for hold in self.holds.take_arrived():
            if hold.alive and self._look(hold):
                self.holds.remove(hold)
                answered[hold.conn] = None
        for conn in answered:
            self._write(conn)

    async def run(self) -> None:
        while True:
            self._armed = self.holds.next_deadline
            with trio.move_on_at(self._armed):
                await self._bell.wait()
            self._bell = trio.Event()
            ended: dict[C, None] = {}
            for hold in self.holds.take_expired(trio.current_time()):
                self._end(hold)
                ended[hold.conn] = None
            self._serve_arrived(ended)
