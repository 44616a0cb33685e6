"""`Consumer`: an async iterator over the messages of a group's topics.

Pullers (one task per queue) fill the caches; `async for` takes from them in arrival order, or, orderly, the next message of a
queue only after the one before it is decided. What the application decides is recorded at once and carried out here:
a nack is sent back to the broker (which brings it back after a delay, and to the dead letters in the end); if the broker
cannot take it, the message is re-published to the retry topic; if that fails too, it is handed out again after 5 s.

Leaving: no new queues, no new messages; nacks under way finish, offsets are committed, locks returned, brokers told. All that
within `drain_timeout` seconds, also when the leaving is a cancellation; what is not done by then comes back to the group.

Source: `ConsumeMessageConcurrentlyService`, `ConsumeMessageOrderlyService`; reference "client behaviour" sections 4-6.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from trmq.errors import ConfigError, TrmqError
from trmq.message import (
    DELAY,
    MAX_RECONSUME_TIMES,
    ORIGIN_MESSAGE_ID,
    RECONSUME_TIME,
    RETRY_TOPIC,
    UNIQ_KEY,
    WAIT,
    MessageQueue,
    encode_properties,
)
from trmq.remoting import Answer
from trmq.wire.codes import RequestCode
from trmq.wire.command import Command

from . import inside
from .assignment import Assignment, Cell, Strategy
from .delivery import OPEN, Delivery
from .filters import Subscription, subscribe
from .instance import Instance
from .messages import Message
from .offsets import Offsets
from .options import ConsumerOptions
from .producer import Sender
from .puller import Puller
from .retry import retry_level

logger = logging.getLogger("trmq.client")

LOCAL_RETRY = 5.0
ORDERLY_RETRY = 1.0
YIELD_EVERY = 32
"""Messages handed out between two checkpoints while the cache is never empty."""


class Consumer:
    """Made by `Client.consumer`. Iterate it from one task or from several; each message goes to one of them."""

    def __init__(self, instance: Instance, options: ConsumerOptions, offsets: Offsets, sender: Sender, strategy: Strategy) -> None:
        self.instance = instance
        self.options = options
        self.group = options.group
        self.pull_batch = options.pull_batch
        self.raise_errors = options.raise_errors
        self.commits_with_pull = not options.broadcasting and not options.orderly  # see `Assignment.commit`
        self.started_ms = instance.host.wall_ms()
        self.acked_count = 0
        self.nacked_count = 0
        wanted = list(options.subscriptions)
        if not options.broadcasting:
            wanted.append(subscribe(options.retry_topic, "*", self.started_ms))
        self.subscriptions: tuple[Subscription, ...] = tuple(wanted)
        self.assignment = Assignment(instance, options, wanted, offsets, strategy, self)
        self._sender = sender
        self._ready: deque[Delivery] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._since_yield = 0
        self._closed = False
        self.opened = False
        self._pulls: dict[MessageQueue, trio.CancelScope] = {}
        self._pull_nursery: trio.Nursery | None = None
        self._work_nursery: trio.Nursery | None = None
        self._returning: set[trio.CancelScope] = set()
        self._returned = trio.Event()

    # --- life, driven by Client.consumer

    async def open(self, pull_nursery: trio.Nursery, work_nursery: trio.Nursery) -> None:
        """Introduce the group to the brokers and start. `pull_nursery` is cancelled first when leaving, then `close` is called."""
        if self.group in self.instance.consumers:
            raise ConfigError(f"group {self.group!r} has a consumer in this connection; open another trmq.connect() for a second member")
        self._pull_nursery, self._work_nursery = pull_nursery, work_nursery
        for subscription in self.options.subscriptions:
            await self.instance.route(subscription.topic, create=True)
        self.instance.consumers[self.group] = self
        self.opened = True
        for subscription in self.subscriptions:
            self.instance.watch(subscription.topic, self.rebalance_soon)
        await self.instance.heartbeat()
        pull_nursery.start_soon(self.assignment.run, work_nursery)
        pull_nursery.start_soon(self._keep_committing)

    def stop(self) -> None:
        """Hand out nothing more: every `async for` over this consumer ends."""
        self._closed = True
        self.assignment.freeze()
        self._readers.unpark_all()

    async def close(self) -> None:
        """After the pulls ended: finish nacks, commit, unlock, unregister. The caller bounds the time."""
        while self._returning:
            await self._returned.wait()
        cells = self.assignment.held()
        await self.assignment.commit(cells, confirmed=True)
        if self.options.orderly:
            await self.assignment.unlock([cell.queue for cell in cells])
        await self.instance.unregister(consumer=self.group)

    def detach(self) -> None:
        """Last step, never waits."""
        for scope in self._returning:
            scope.cancel()
        for cell in self.assignment.held():
            cell.drop()
        if self.instance.consumers.get(self.group) is self:
            del self.instance.consumers[self.group]
            for subscription in self.subscriptions:
                self.instance.unwatch(subscription.topic, self.rebalance_soon)

    # --- iteration

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> Delivery:
        while True:
            self._since_yield += 1
            if self._since_yield >= YIELD_EVERY:
                self._since_yield = 0
                await trio.lowlevel.checkpoint()
            if self._closed:
                raise StopAsyncIteration
            message = self.take_nowait()
            if message is not None:
                return message
            self._since_yield = 0
            await self._readers.park()

    def take_nowait(self) -> Delivery | None:
        """A message if one is at hand. Orderly: never a second one of a queue whose message is undecided, never without a valid lock."""
        while self._ready:
            message = self._ready.popleft()
            cell = message.cell
            if cell.dropped:
                continue
            if self.options.orderly and (cell.closing or cell.locked_until <= trio.current_time()):
                self._not_busy(cell)
                continue
            cell.last_taken = trio.current_time()
            return message
        return None

    @property
    def queues(self) -> tuple[MessageQueue, ...]:
        """The queues this member holds now (its retry queues included)."""
        return tuple(self.assignment.cells)

    async def assigned(self) -> None:
        """Wait until the first allocation is done."""
        await self.assignment.first_round.wait()

    # --- what pullers and the assignment report

    def arrived(self, cell: Cell, messages: list[Delivery]) -> None:
        if self.options.orderly:
            cell.pending.extend(messages)
            self._offer_next(cell)
        else:
            self._ready.extend(messages)
            self._readers.unpark(count=len(messages))

    def moved(self, cell: Cell, to: int) -> None:
        """The broker corrected the offset: nothing held counts any more; go on from `to`."""
        logger.warning("the offset of %s was moved from %d to %d by the broker", cell.queue, cell.pull_offset, to)
        self.reset({cell.queue: to})

    def reset(self, table: dict[MessageQueue, int]) -> None:
        """Drop these queues, store the new offsets and take the queues again."""
        for queue in table:
            if (cell := self.assignment.cells.get(queue)) is not None:
                self.assignment.forget(cell)
        assert self._work_nursery is not None
        self._work_nursery.start_soon(self._store_reset, table)

    async def _store_reset(self, table: dict[MessageQueue, int]) -> None:
        await self.assignment.store(table)
        self.rebalance_soon()

    def gained(self, cell: Cell, subscription: Subscription) -> None:
        assert self._pull_nursery is not None
        scope = self._pulls[cell.queue] = trio.CancelScope()
        self._pull_nursery.start_soon(self._pull, scope, Puller(self, cell, subscription))

    async def _pull(self, scope: trio.CancelScope, puller: Puller) -> None:
        with scope:
            await puller.run()

    def lost(self, cell: Cell) -> None:
        if (scope := self._pulls.pop(cell.queue, None)) is not None:
            scope.cancel()

    # --- decisions

    def acked(self, message: Delivery) -> None:
        cell = message.cell
        self.acked_count += 1
        if cell.finish(message) and self.options.orderly:
            self._not_busy(cell)

    def nacked(self, message: Delivery, delay_level: int) -> None:
        self.nacked_count += 1
        cell = message.cell
        if cell.dropped:
            return
        if self.options.broadcasting:
            logger.warning("%r failed; a broadcast message is not repeated", message)
            cell.finish(message)
        elif self.options.orderly:
            self._retry_in_place(message, delay_level)
        else:
            self._spawn(self._give_back, message, delay_level)

    def abandoned(self, message: Delivery) -> None:
        """Its handler was cancelled. If this consumer goes on, the message is treated as failed; if it is leaving too,
        nothing is recorded and the queue's next owner gets it."""
        assert self._pull_nursery is not None
        if not self._closed:
            self._pull_nursery.start_soon(self._decide_abandoned, message)

    async def _decide_abandoned(self, message: Delivery) -> None:
        await trio.lowlevel.checkpoint()  # the same cancellation may be ending this consumer: then this is where it stops
        if not self._closed:
            self.nacked(message, 0)

    def _not_busy(self, cell: Cell) -> None:
        cell.busy = False
        if cell.closing:
            if cell.on_idle is not None:
                cell.on_idle()
        else:
            self._offer_next(cell)

    def _offer_next(self, cell: Cell) -> None:
        if cell.pending and not cell.busy and not cell.closing:
            cell.busy = True
            self._ready.append(cell.pending.popleft())
            self._readers.unpark()

    def _spawn(self, function: Callable[..., Any], *args: Any) -> None:
        """A task that leaving the consumer waits for."""
        assert self._work_nursery is not None
        scope = trio.CancelScope(shield=True)  # leaving waits for it, within its deadline, also when the program is being cancelled
        self._returning.add(scope)
        self._work_nursery.start_soon(self._tracked, scope, function, *args)

    async def _tracked(self, scope: trio.CancelScope, function: Callable[..., Any], *args: Any) -> None:
        try:
            with scope:
                await function(*args)
        finally:
            self._returning.discard(scope)
            done, self._returned = self._returned, trio.Event()
            done.set()

    async def _give_back(self, message: Delivery, delay_level: int) -> None:
        """Concurrent nack: to the broker, else to the retry topic ourselves, else again from here after a while."""
        if await self._send_back(message, delay_level) or await self._republish(message, delay_level):
            message.cell.finish(message)
            return
        logger.warning("%r could not be given back; it is handed out again in %s s", message, LOCAL_RETRY)
        self._offer_later(message, LOCAL_RETRY)

    def _offer_later(self, message: Delivery, delay: float) -> None:
        assert self._pull_nursery is not None
        if not self._closed:
            self._pull_nursery.start_soon(self._offer_after, message, delay)

    async def _offer_after(self, message: Delivery, delay: float) -> None:
        await trio.sleep(delay)
        message.reconsume_times += 1
        message.state = OPEN
        self._ready.append(message)
        self._readers.unpark()

    async def _send_back(self, message: Delivery, delay_level: int) -> bool:
        address = self.instance.master(message.queue.topic, message.queue.broker_name)
        if address is None or self.instance.members.is_lost(address):
            return False
        fields = {
            "offset": str(message.phy_offset), "group": self.group, "delayLevel": str(delay_level),
            "originMsgId": message.offset_message_id, "originTopic": message.topic, "unitMode": "false",
            "maxReconsumeTimes": str(self.options.reconsume_limit),
            "bname": message.queue.broker_name,
        }
        try:
            await self.instance.ask(address, RequestCode.CONSUMER_SEND_MSG_BACK, fields, timeout=5.0)
        except TrmqError as error:
            logger.info("%r was not taken back by %s: %s", message, message.queue.broker_name, error)
            return False
        return True

    async def _republish(self, message: Delivery, delay_level: int) -> bool:
        """A normal send to the retry topic; the broker turns too many tries into a dead letter."""
        times = message.reconsume_times + (1 if delay_level >= 0 else self.options.reconsume_limit + 1)
        properties = dict(message.properties)
        properties |= {
            RETRY_TOPIC: message.topic, ORIGIN_MESSAGE_ID: message.origin_message_id, RECONSUME_TIME: str(times),
            MAX_RECONSUME_TIMES: str(self.options.reconsume_limit), WAIT: "true",
        }
        properties.pop(DELAY, None)
        if not self.options.orderly and delay_level >= 0:
            properties[DELAY] = str(delay_level or retry_level(message.reconsume_times))
        try:
            copy = Message(self.options.retry_topic, message.body, properties.setdefault(UNIQ_KEY, self.instance.new_key()),
                           encode_properties(properties).decode(), flag=message.flag)
            await self._sender.send(copy, reconsume=(times, self.options.reconsume_limit))
        except TrmqError as error:
            logger.info("%r was not re-published: %s", message, error)
            return False
        return True

    def _retry_in_place(self, message: Delivery, delay_level: int) -> None:
        """Orderly nack: the queue waits and the same message is tried again, until its limit makes it a dead letter."""
        limit = self.options.max_reconsume_times
        if delay_level < 0 or (limit is not None and message.reconsume_times >= limit):
            self._spawn(self._bury, message)
        else:
            self._offer_later(message, ORDERLY_RETRY)

    async def _bury(self, message: Delivery) -> None:
        if await self._republish(message, -1):
            if message.cell.finish(message):
                self._not_busy(message.cell)
        else:
            self._offer_later(message, ORDERLY_RETRY)

    # --- periodic, and requests of brokers

    def members_changed(self) -> None:
        self.assignment.commit_anew()

    async def _keep_committing(self) -> None:
        while True:
            await trio.sleep(self.options.commit_interval)
            cells = list(self.assignment.cells.values())
            if self.options.orderly:
                self._spawn(partial(self.assignment.commit, cells, confirmed=True))  # leaving waits for its answer
            else:
                await self.assignment.commit(cells, confirmed=False)

    def rebalance_soon(self) -> None:
        self.assignment.rebalance_soon()

    def heartbeat(self) -> dict[str, Any]:
        return inside.consumer_data(self)

    def answer(self, command: Command) -> Answer:
        return inside.answer(self, command)

    def offer_direct(self, message: Delivery) -> None:
        """Hand out one message that a tool asked to be consumed now, before all others."""
        self._ready.appendleft(message)
        self._readers.unpark()
