"""Which queues this consumer holds: allocation among the members, locks (orderly), where to start, how to let go.

A round asks one broker for the members, lets a pure strategy of `route.rebalance` share the queues, gives up what is
lost (offset committed, lock returned) and starts what is new (lock first, then the offset is read). Rounds run every 20 s, at
once when a broker says that members changed or a route changed, and after 1 s when something could not be settled.

A queue whose lock could not be renewed within its lease is dropped and taken again from the start of this procedure, so
that its offset is re-read: another member may have gone on with it meanwhile.

Source: `RebalanceImpl`, `RebalancePushImpl`, `ConsumeMessageOrderlyService`; reference "client behaviour" sections 5, 6.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import trio

from trmq.errors import RemoteRefused, TrmqError
from trmq.message import RETRY_PREFIX, MessageQueue
from trmq.wire import fastjson
from trmq.wire.codes import RequestCode

from .delivery import Delivery
from .filters import Subscription
from .instance import Instance
from .offsets import Offsets
from .options import ConsumerOptions, FromWhere
from .process_queue import ProcessQueue
from .routes import TopicRoute

logger = logging.getLogger("trmq.client")

REBALANCE = 20.0
UNSETTLED = 1.0
LOCK_RENEWAL = 20.0
LOCK_LEASE = 30.0
ORDERLY_RELEASE = 20.0
"""How long a message in hand may hold up the return of an orderly queue; the broker's lock lives 60 s."""

Cell = ProcessQueue[Delivery]
Strategy = Callable[[Sequence[MessageQueue], Sequence[str], str], Sequence[MessageQueue]]


class AssignFor(Protocol):
    def gained(self, cell: Cell, subscription: Subscription) -> None:
        """Start pulling it."""
        ...

    def lost(self, cell: Cell) -> None:
        """Stop pulling it; nothing of it will be delivered any more."""
        ...


class Assignment:
    """The queues of one consumer and the tasks that keep them right."""

    def __init__(self, instance: Instance, options: ConsumerOptions, subscriptions: Iterable[Subscription], offsets: Offsets,
                 strategy: Strategy, consumer: AssignFor) -> None:
        self._instance = instance
        self._options = options
        self._subscriptions = {subscription.topic: subscription for subscription in subscriptions}
        self._offsets = offsets
        self._strategy = strategy
        self._consumer = consumer
        self.cells: dict[MessageQueue, Cell] = {}
        self._releasing: dict[MessageQueue, Cell] = {}
        self._wanted = trio.Event()
        self._frozen = False
        self._keepers = 0
        self._committing = trio.Lock()
        self.first_round = trio.Event()

    def held(self) -> list[Cell]:
        """What is ours, queues on their way out included."""
        return [*self.cells.values(), *self._releasing.values()]

    def rebalance_soon(self) -> None:
        self._wanted.set()

    def freeze(self) -> None:
        """The consumer leaves: take nothing new."""
        self._frozen = True

    async def run(self, nursery: trio.Nursery) -> None:
        """Rounds until cancelled; orderly queues are released by tasks in `nursery`."""
        if self._options.orderly:
            nursery.start_soon(self._keep_locks)
        pause = UNSETTLED
        while not self._frozen:
            self._wanted = trio.Event()
            settled = True
            for topic in self._subscriptions:
                settled = await self._round(topic, nursery) and settled
            self.first_round.set()
            with trio.move_on_after(REBALANCE if settled else pause):
                await self._wanted.wait()
            pause = UNSETTLED if settled or self._wanted.is_set() else min(2 * pause, REBALANCE)

    async def _round(self, topic: str, nursery: trio.Nursery) -> bool:
        """One topic; False if it should be tried again soon."""
        try:
            route = await self._instance.route(topic)
        except TrmqError as error:
            logger.log(logging.DEBUG if topic.startswith(RETRY_PREFIX) else logging.INFO, "no queues of %s yet: %s", topic, error)
            return False
        if self._options.broadcasting:
            mine: Sequence[MessageQueue] = route.subscribe
        else:
            members = await self._members(route)
            if members is None:
                return False
            me = self._instance.client_id
            mine = self._strategy(sorted(route.subscribe), sorted(members), me) if me in members else ()
        held = {queue for queue in self.cells if queue.topic == topic}
        lost = [self.cells[queue] for queue in sorted(held - set(mine))]
        new = [queue for queue in mine if queue not in held]
        if lost:
            await self.release(lost, nursery)
        settled = True
        if new:
            settled = await self._take(topic, new)
        return settled and not (self._releasing.keys() & set(mine))

    async def _members(self, route: TopicRoute) -> set[str] | None:
        """The client ids of the group, by one broker of the topic; None when it cannot be known now."""
        everybody = sorted({address for members in route.brokers.values() for address in members.values()})
        if not everybody:
            return None
        present = [address for address in everybody if not self._instance.members.is_lost(address)]
        address = self._instance.host.random.choice(present or everybody)
        for attempt in range(2):
            try:
                answer = await self._instance.ask(address, RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": self._options.group})
                found = set(fastjson.loads(answer.body).get("consumerIdList") or ())
            except RemoteRefused:
                found = set()  # the broker knows nobody of the group: not even us
            except TrmqError as error:
                logger.info("members of %s unknown: %s", self._options.group, error)
                self._instance.members.suspect(address)
                self._instance.refresh_soon(route.topic)
                return None
            if self._instance.client_id in found:
                return found
            if attempt == 0:
                await self._instance.heartbeat_to(address)  # a restarted broker has forgotten us: introduce ourselves before giving up
        return found or None

    # --- taking

    async def _take(self, topic: str, queues: Sequence[MessageQueue]) -> bool:
        free = [queue for queue in queues if queue not in self._releasing]
        if self._options.orderly:
            locked = await self._lock(free)
            free = [queue for queue in free if queue in locked]
        settled = len(free) == len(queues)
        for queue in free:
            try:
                start = await self._start_offset(queue)
            except TrmqError as error:
                logger.info("start offset of %s unknown: %s", queue, error)
                settled = False
                continue
            if self._frozen:
                return settled
            cell: Cell = ProcessQueue(queue, start, self._options.limits)
            cell.locked_until = trio.current_time() + LOCK_LEASE if self._options.orderly else 0.0
            self.cells[queue] = cell
            self._consumer.gained(cell, self._subscriptions[topic])
        return settled

    async def _start_offset(self, queue: MessageQueue) -> int:
        stored = await self._offsets.read(queue)
        if stored is not None:
            return stored
        where = self._options.from_where
        if where is FromWhere.FIRST:
            return 0
        if where is FromWhere.LAST and queue.topic.startswith(RETRY_PREFIX):
            return 0
        fields = {"topic": queue.topic, "queueId": str(queue.queue_id), "bname": queue.broker_name}
        if where is FromWhere.TIMESTAMP and not queue.topic.startswith(RETRY_PREFIX):
            fields["timestamp"] = str(self._options.from_ms)
            return await self._ask_offset(queue, RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, fields)
        return await self._ask_offset(queue, RequestCode.GET_MAX_OFFSET, fields)

    async def _ask_offset(self, queue: MessageQueue, code: int, fields: dict[str, str]) -> int:
        return await self._instance.ask_group_offset(queue.topic, queue.broker_name, code, fields)

    # --- letting go

    async def release(self, cells: Sequence[Cell], nursery: trio.Nursery) -> None:
        """Give queues back: stop them, commit, forget. Orderly ones wait (in a task) for the message in hand, then unlock."""
        if self._options.orderly:
            for cell in cells:
                self.cells.pop(cell.queue, None)
                self._releasing[cell.queue] = cell
                nursery.start_soon(self._release_orderly, cell)
            return
        await self.commit(cells, confirmed=True)
        for cell in cells:
            self.forget(cell)

    def forget(self, cell: Cell) -> None:
        """Drop it at once, without committing."""
        if self.cells.get(cell.queue) is cell:
            del self.cells[cell.queue]
        cell.drop()
        self._consumer.lost(cell)

    async def _release_orderly(self, cell: Cell) -> None:
        cell.pending.clear()
        cell.closing = True
        if cell.busy:
            idle = trio.Event()
            cell.on_idle = idle.set
            with trio.move_on_after(ORDERLY_RELEASE):
                await idle.wait()
        await self.commit([cell], confirmed=True)
        self.forget(cell)
        await self.unlock([cell.queue])
        self._releasing.pop(cell.queue, None)
        self._wanted.set()

    async def commit(self, cells: Sequence[Cell], *, confirmed: bool) -> None:
        """Store what changed since the last time. Orderly commits are confirmed, one after the other.

        Apache's brokers handle requests of one connection side by side, so an offset that was told before, but not confirmed
        (one-way, with a pull, or by another task) may overwrite a later one, and the next owner of the queue begins too early.
        """
        if not self._options.orderly:
            await self._commit(cells, confirmed=confirmed)
            return
        async with self._committing:
            await self._commit(cells, confirmed=True)

    async def _commit(self, cells: Sequence[Cell], *, confirmed: bool) -> None:
        changed = {cell.queue: cell.commit_offset for cell in cells if not cell.dropped and cell.commit_offset != cell.committed}
        if not changed:
            return
        keepers = self._keepers
        stored = await self._offsets.commit(changed, confirmed=confirmed)
        if keepers != self._keepers:
            return  # somebody was lost meanwhile, perhaps with what we told: the next commit repeats it
        for cell in cells:
            if cell.queue in stored:
                cell.committed = changed[cell.queue]

    def commit_anew(self) -> None:
        """Whoever keeps the offsets now may never have been told of them: the next commit repeats them all."""
        self._keepers += 1
        for cell in self.held():
            cell.committed = -1

    async def store(self, table: dict[MessageQueue, int]) -> None:
        """Overwrite stored offsets of queues that are not held."""
        async with self._committing:
            await self._offsets.commit(table, confirmed=True)

    # --- locks

    async def _keep_locks(self) -> None:
        while True:
            await trio.sleep(LOCK_RENEWAL)
            cells = [cell for cell in self.cells.values() if not cell.dropped]
            asked = trio.current_time()
            locked = await self._lock([cell.queue for cell in cells])
            for cell in cells:
                if cell.queue in locked and cell.locked_until > asked:
                    cell.locked_until = asked + LOCK_LEASE
                else:
                    logger.warning("the lock of %s was lost; the queue is taken again later", cell.queue)
                    self.forget(cell)
                    self._wanted.set()

    def _by_master(self, queues: Iterable[MessageQueue]) -> dict[str, list[MessageQueue]]:
        found: dict[str, list[MessageQueue]] = {}
        for queue in queues:
            address = self._instance.master(queue.topic, queue.broker_name)
            if address is not None:
                found.setdefault(address, []).append(queue)
        return found

    def _lock_body(self, queues: Iterable[MessageQueue]) -> bytes:
        return fastjson.dumps({
            "clientId": self._instance.client_id, "consumerGroup": self._options.group, "onlyThisBroker": False, "mqSet": [
                {"brokerName": queue.broker_name, "queueId": queue.queue_id, "topic": queue.topic} for queue in queues],
        }, quoted_keys=True)

    async def _lock(self, queues: Iterable[MessageQueue]) -> set[MessageQueue]:
        """The queues that are ours now."""
        locked: set[MessageQueue] = set()
        for address, some in self._by_master(queues).items():
            try:
                answer = await self._instance.ask(address, RequestCode.LOCK_BATCH_MQ, {}, self._lock_body(some))
                for found in fastjson.loads(answer.body).get("lockOKMQSet") or ():
                    locked.add(MessageQueue(found["topic"], found["brokerName"], int(found["queueId"])))
            except TrmqError as error:
                logger.info("locks at %s: %s", address, error)
                for topic in {queue.topic for queue in some}:
                    self._instance.refresh_soon(topic)  # it may not be the master any more
        return locked

    async def unlock(self, queues: Iterable[MessageQueue]) -> None:
        for address, some in self._by_master(queues).items():
            try:
                await self._instance.ask(address, RequestCode.UNLOCK_BATCH_MQ, {}, self._lock_body(some))
            except TrmqError as error:
                logger.info("unlock at %s: %s", address, error)
