"""`Reader`: a topic's queues by offset, as a file of records: seek, read, remember where you are. No group coordination.

Reading a queue never waits for another: one task per queue fetches ahead a little while `getmany` is waiting for it.
While a master does not answer, its slaves are read. Names follow aiokafka: `getmany`, `seek`, `position`, `committed`.
Offsets are queue offsets; `end` ones are exclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import trio

from trmq.errors import ConfigError, ConnectionLost, RemoteRefused, RequestTimeout, TrmqError
from trmq.message import MessageQueue
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command
from trmq.wire.headers.pull import PullMessageResponse

from .filters import Subscription
from .instance import Instance
from .members import Choice
from .messages import Received, decode_received
from .offsets import BrokerOffsets
from .routes import MASTER
from .source import Source

READER_GROUP = "TOOLS_CONSUMER"
"""A group that every broker knows without anybody creating it."""
HOLD_MS_MAX = 15_000
SUSPEND, SUBSCRIPTION = 2, 4
ANSWERS = frozenset({
    ResponseCode.SUCCESS, ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY, ResponseCode.PULL_OFFSET_MOVED,
})


class Reader:
    """Made by `Client.reader`. Starts at the beginning of every queue. For one task at a time."""

    def __init__(self, instance: Instance, subscription: Subscription, group: str, nursery: trio.Nursery) -> None:
        self._instance = instance
        self._subscription = subscription
        self._group = group
        self._nursery = nursery
        self._offsets = BrokerOffsets(instance, group)
        self._positions: dict[MessageQueue, int] = {}
        self._sources: dict[MessageQueue, Source] = {}

    @property
    def topic(self) -> str:
        return self._subscription.topic

    async def open(self) -> None:
        """Learn the queues and go to the beginning of each. Raises `RouteNotFound`."""
        await self.refresh()

    async def refresh(self) -> None:
        """Take in queues that were added since; positions of the others stay."""
        await self._instance.refresh(self.topic)
        for queue in (await self._instance.route(self.topic)).subscribe:
            if queue not in self._positions:
                self._positions[queue] = await self.min_offset(queue)

    def queues(self) -> tuple[MessageQueue, ...]:
        return tuple(sorted(self._positions))

    def _check(self, queue: MessageQueue) -> MessageQueue:
        if queue not in self._positions:
            raise ConfigError(f"{queue} is not a readable queue of topic {self.topic!r}; queues() lists them")
        return queue

    # --- where

    def position(self, queue: MessageQueue) -> int:
        """The offset of the next message `getmany` returns of this queue."""
        return self._positions[self._check(queue)]

    def seek(self, queue: MessageQueue, offset: int) -> None:
        """Go to `offset`. Outside what is stored, reading goes on from the nearest end."""
        if offset < 0:
            raise ConfigError(f"offset {offset} is negative; use seek_to_beginning or seek_to_end")
        self._positions[self._check(queue)] = offset

    async def seek_to_beginning(self, *queues: MessageQueue) -> None:
        for queue in queues or self.queues():
            self._positions[self._check(queue)] = await self.min_offset(queue)

    async def seek_to_end(self, *queues: MessageQueue) -> None:
        for queue in queues or self.queues():
            self._positions[self._check(queue)] = await self.max_offset(queue)

    async def seek_to_time(self, ms: int, *queues: MessageQueue) -> None:
        """Go to the first message stored at or after `ms` (since the epoch) in each queue."""
        for queue in queues or self.queues():
            self._positions[self._check(queue)] = await self.offset_at(queue, ms)

    async def seek_to_committed(self) -> None:
        """Go where the group is; queues without a committed offset keep their position."""
        for queue in self.queues():
            if (offset := await self.committed(queue)) is not None:
                self._positions[queue] = offset

    async def min_offset(self, queue: MessageQueue) -> int:
        return await self._offset(RequestCode.GET_MIN_OFFSET, queue)

    async def max_offset(self, queue: MessageQueue) -> int:
        """Exclusive: the offset the next stored message gets."""
        return await self._offset(RequestCode.GET_MAX_OFFSET, queue)

    async def offset_at(self, queue: MessageQueue, ms: int) -> int:
        return await self._offset(RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, queue, {"timestamp": str(ms)})

    async def committed(self, queue: MessageQueue) -> int | None:
        """What the reader's group has committed, None if nothing."""
        return await self._offsets.read(queue)

    async def commit(self, offsets: Mapping[MessageQueue, int] | None = None) -> None:
        """Store these offsets, or all positions, for the reader's group. Raises `RemoteRefused` if the broker doesn't know the group."""
        for queue, offset in (self._positions if offsets is None else offsets).items():
            await self._offsets.store(queue, offset)

    async def _offset(self, code: int, queue: MessageQueue, more: Mapping[str, str] | None = None) -> int:
        fields = {"topic": queue.topic, "queueId": str(queue.queue_id), "bname": queue.broker_name, **(more or {})}
        return await self._instance.ask_group_offset(queue.topic, queue.broker_name, code, fields)

    # --- reading

    async def getmany(self, max_records: int = 32, *, timeout: float = 0.0, queues: Iterable[MessageQueue] = ()) -> list[Received]:
        """Up to `max_records` messages at the positions, which move past them. Waits up to `timeout` seconds for the first.

        Returns [] when there is none in time. Messages of one queue are in order; queues take turns.
        """
        if max_records < 1:
            raise ConfigError(f"max_records={max_records}: must be at least 1")
        wanted = [self._check(queue) for queue in queues] or list(self.queues())
        found: list[Received] = []
        for queue in self._rotated(wanted):
            found += await self._pull(queue, max_records - len(found), 0)
            if len(found) >= max_records:
                return found
        if found or timeout <= 0:
            return found
        return await self._wait(wanted, max_records, timeout)

    def _rotated(self, queues: Sequence[MessageQueue]) -> list[MessageQueue]:
        if not queues:
            return []
        start = self._instance.host.random.randrange(len(queues))
        return [*queues[start:], *queues[:start]]

    async def _wait(self, queues: Sequence[MessageQueue], max_records: int, timeout: float) -> list[Received]:
        """Hold one request at every queue; the first that brings something ends all."""
        found: list[Received] = []
        with trio.move_on_after(timeout):
            async with trio.open_nursery() as nursery:

                async def hold(queue: MessageQueue) -> None:
                    while not found:
                        got = await self._pull(queue, max_records, HOLD_MS_MAX, keep=lambda: not found)
                        if got:
                            found.extend(got)
                            nursery.cancel_scope.cancel()

                for queue in queues:
                    nursery.start_soon(hold, queue)
        return found

    async def _pull(self, queue: MessageQueue, count: int, hold_ms: int, keep: Callable[[], bool] = lambda: True) -> list[Received]:
        """Ask until there is an answer; follows the broker's corrections. The position moves only if something is returned or it was
        corrected. `keep` says, when messages have come, whether they are still wanted."""
        source = self._sources.setdefault(queue, Source(self._instance, queue))
        while True:
            started, position = trio.current_time(), self._positions[queue]
            found = await self._ask(source, count, hold_ms)
            if found is None:
                return []
            choice, answer = found
            code = answer.code
            if code not in ANSWERS:
                if source.refused(choice, code) and not choice.alone and source.choose() is not None:
                    continue
                raise RemoteRefused(code, answer.remark)
            header = answer.header(PullMessageResponse)
            source.wanted = header.suggest_which_broker_id
            told = header.next_begin_offset
            if code == ResponseCode.SUCCESS:
                if not keep():
                    return []  # another queue was faster; these stay unread
                self._positions[queue] = told
                messages = decode_received(answer.body, queue, Received)
                tags = self._subscription.tags
                messages = [message for message in messages if message.tag in tags] if tags else messages
                if messages:
                    return messages
            elif code == ResponseCode.PULL_NOT_FOUND or choice.broker_id != MASTER:
                filtered = bool(self._subscription.tags) and code != ResponseCode.PULL_OFFSET_MOVED
                self._positions[queue] = source.next_offset(choice, position, told, filtered=filtered)
            else:
                self._positions[queue] = told
            moved = self._positions[queue] != position
            if hold_ms:
                await source.breathe(choice, started, moved=moved)
            if not moved or code == ResponseCode.PULL_NOT_FOUND:
                return []

    async def _ask(self, source: Source, count: int, hold_ms: int) -> tuple[Choice, Command] | None:
        """Who answered first, and what. A request that may be held gives None after a while of nobody there; one that may not asks the
        lost ones too and then raises `ConnectionLost` or `RequestTimeout`."""
        members = self._instance.members
        problem: TrmqError | None = None
        tried: set[str] = set()
        while True:
            left = [choice for choice in source.order() if choice.address not in tried]
            if hold_ms:
                left = [choice for choice in left if not members.is_lost(choice.address)]
            if not left:
                break
            choice = left[0]
            try:
                answer = await source.ask(choice, self._fields(source.queue, count, hold_ms), hold_ms / 1000 + 15.0)
            except (ConnectionLost, RequestTimeout) as error:
                problem = error
                tried.add(choice.address)
                continue
            if answer is not None:
                return choice, answer
            if members.is_lost(choice.address):
                tried.add(choice.address)
        if hold_ms:
            await source.nobody()
            return None
        raise problem or ConnectionLost(f"no member of broker {source.queue.broker_name!r} answers", definite=True)

    def _fields(self, queue: MessageQueue, count: int, hold_ms: int) -> dict[str, str]:
        return {
            "consumerGroup": self._group, "topic": queue.topic, "queueId": str(queue.queue_id), "queueOffset": str(self._positions[queue]),
            "maxMsgNums": str(count), "sysFlag": str(SUBSCRIPTION | (SUSPEND if hold_ms else 0)), "commitOffset": "0",
            "suspendTimeoutMillis": str(hold_ms), "subscription": self._subscription.expression, "subVersion": "0", "expressionType": "TAG",
            "bname": queue.broker_name,
        }
