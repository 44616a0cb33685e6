"""What flows: producers that send one after the other in several lanes, and a consumer group whose members come and go.

Each message has an id that is found again in its body and as its key. Half of the lanes keep to one queue, so that order can be judged;
the others go round. A send that fails is tried again, here and not in the client, so that every request is known: an own queue again,
else another broker's if there is one.
"""

from __future__ import annotations

import zlib
from contextlib import suppress

import trio

from trmq.client import Client, FromWhere, Producer, Received, connect
from trmq.errors import MessageIllegal, SendFailed, TrmqError
from trmq.host import Host
from trmq.message import MessageQueue

from .members import Members
from .observer import Observer
from .plan import Plan

PRODUCERS, MEMBERS = 3, 2
TRIES, AGAIN_S, SEND_TIMEOUT = 3, 0.25, 6.0
FILLER = b" the quick brown fox jumps over the lazy dog" * 4


def body_of(id: str) -> bytes:
    text = id.encode() + FILLER
    return text + b" %08x" % zlib.crc32(text)


def identify(message: Received) -> str:
    """The id of a message that was read; a name that nobody sent if it is not, byte for byte, what was sent under it."""
    try:
        body = message.body
    except MessageIllegal:
        return f"unreadable body at {message.queue.broker_name}/{message.queue.queue_id} offset {message.offset}"
    id = body.partition(b" ")[0].decode("utf-8", "replace")
    return id if body == body_of(id) else f"{id} with another body"


class Workload:
    """`stop` ends the sending; the consumers go on until they are cancelled."""

    def __init__(self, plan: Plan, observer: Observer, members: Members, client: Client, host: Host) -> None:
        self.plan, self.observer, self.members, self.client, self.host = plan, observer, members, client, host
        self.stop = trio.Event()
        self.lanes = max(6, min(48, int(plan.rate // 10)))

    # --- sending

    async def produce(self) -> None:
        """Returns when every lane has ended its last send."""
        async with trio.open_nursery() as nursery:
            for number in range(PRODUCERS):
                await nursery.start(self._producer, f"p{number + 1}", range(number, self.lanes, PRODUCERS))

    async def _producer(self, name: str, lanes: range, *, task_status: trio.TaskStatus[None]) -> None:
        group = f"{self.observer.consumer_group}-{name}"
        async with self.client.producer(group=group, retries=0) as producer, trio.open_nursery() as inner:
            for lane in lanes:
                inner.start_soon(self._lane, producer, f"{name}.{lane}", lane)
            task_status.started()

    async def _lane(self, producer: Producer, name: str, lane: int) -> None:
        due, pause, number = trio.current_time() + lane / self.plan.rate, self.lanes / self.plan.rate, 0
        while not self.stop.is_set():
            with trio.move_on_at(due):
                await self.stop.wait()
            if self.stop.is_set():
                return
            await self._send(producer, f"{name}.{number}", lane, number)
            number += 1
            due = max(due + pause, trio.current_time() - 1.0)

    def _queue(self, queues: tuple[MessageQueue, ...], lane: int, number: int, avoid: set[str]) -> MessageQueue:
        if lane % 2:
            return queues[lane // 2 % len(queues)]
        others = [queue for queue in queues if queue.broker_name not in avoid] or list(queues)
        return others[(lane + number) % len(others)]

    async def _send(self, producer: Producer, id: str, lane: int, number: int) -> None:
        message = producer.prepare(self.plan.topic, body_of(id), keys=[id])
        story = self.observer.begins(id, message.unique_key)
        unknown, avoid = False, set[str]()
        for turn in range(TRIES):
            if turn:
                await trio.sleep(AGAIN_S)
            queue = self._queue(self.queues, lane, number, avoid)
            master = self.members.master(queue.broker_name)
            attempt = self.observer.tries(story, producer.group, queue, master.address if master else queue.broker_name)
            try:
                result = await producer.send(message, queue=queue, timeout=SEND_TIMEOUT)
            except SendFailed as error:
                unknown = unknown or error.unknown
                self.observer.fails(attempt, str(error), unknown=error.unknown)
                avoid.add(queue.broker_name)
                continue
            except TrmqError as error:
                self.observer.fails(attempt, str(error), unknown=False)
                continue
            self.observer.hears(story, attempt, result)
            return
        self.observer.gives_up(story, unknown=unknown)

    queues: tuple[MessageQueue, ...] = ()
    """Of the topic, on all brokers; set before anything is sent."""

    # --- consuming

    async def consume(self) -> None:
        """Two members that stay and one that comes and goes."""
        async with trio.open_nursery() as nursery:
            for number in range(MEMBERS):
                nursery.start_soon(self._member, f"c{number + 1}", None)
            nursery.start_soon(self._visitor)

    async def _visitor(self) -> None:
        number = 0
        while not self.stop.is_set():
            await trio.sleep(max(1.0, self.plan.period / 4))
            number += 1
            await self._member(f"v{number}", max(1.0, self.plan.period / 3))

    async def _member(self, name: str, seconds: float | None) -> None:
        """One life after the other; a visitor has one."""
        while True:
            with suppress(TrmqError), trio.move_on_after(float("inf") if seconds is None else seconds):
                await self._live(name)
            self.observer.rebalances()
            if seconds is not None:
                return
            await trio.sleep(0.5)

    async def _live(self, name: str) -> None:
        group = self.observer.consumer_group
        async with connect(self.plan.namesrv, host=self.host) as mq, mq.consumer(
            self.plan.topic, group=group, from_where=FromWhere.FIRST
        ) as consumer:
            self.observer.rebalances()
            async for message in consumer:
                self.observer.given(name, identify(message), message.queue, message.offset)
                await message.ack()
