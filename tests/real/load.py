"""Senders and a consumer of a real cluster, trmq's own client, and the history of what they saw."""

from __future__ import annotations

import random
from collections import Counter

import attrs
import trio
from specs.history import Event, Given, Outcome, QueueRead, Tried

import trmq
from trmq.message import MessageQueue

TOPIC, GROUP = "T", "g"
QUEUES = 4
SEND_SECONDS = 3.0
HANG_SECONDS = SEND_SECONDS + 2
"""No send may take longer: its timeout, and some patience with a busy machine."""
STATUS = {"SEND_OK": "OK"}


@attrs.frozen
class Ack:
    """A SEND_OK. `place` is the offset in the commit log."""

    id: str
    broker: str
    queue: int
    offset: int
    place: int
    began: float
    ended: float


class Load:
    """`wrong` collects what must never happen, as sentences. Nobody is asked to be quick, only to come to an end."""

    def __init__(self, client: trmq.Client, dice: random.Random) -> None:
        self.client, self.dice = client, dice
        self.events: list[Event] = []
        self.wrong: list[str] = []
        self.acks: list[Ack] = []
        self.given: set[str] = set()
        self.statuses: Counter[str] = Counter()
        self.in_flight = 0
        self.large = False
        self.sent = 0
        self.longest_send = 0.0

    @property
    def body(self) -> bytes:
        self.sent += 1
        size = 20_000 if self.large else self.dice.randrange(20, 2_000)
        return b"%d:" % self.sent + self.dice.randbytes(size)

    # --- sending

    async def send_always(self, producer: trmq.Producer, queues: list[MessageQueue]) -> None:
        while True:
            for queue in queues:
                await self.send(producer, queue)
                await trio.sleep(0.002)

    async def send(self, producer: trmq.Producer, queue: MessageQueue) -> None:
        message = producer.prepare(TOPIC, self.body)
        id, where = message.unique_key, (TOPIC, queue.queue_id)
        began = trio.current_time()
        self.events.append(Tried(id, "p", queue.broker_name, queue.queue_id, topic=TOPIC, chosen=True, at=began))
        self.in_flight += 1
        status, offset, place = "UNKNOWN", -1, -1
        try:
            with trio.move_on_after(HANG_SECONDS) as scope:
                try:
                    result = await producer.send(message, queue=queue)
                    status, offset = STATUS.get(result.status.name, result.status.name), result.offset
                    place = int(result.offset_message_id[-16:], 16)
                    if (result.message_id, result.queue) != (id, queue):
                        self.wrong.append(f"{id} was sent to {queue}, and the answer says {result}")
                except trmq.TrmqError as error:
                    status = "FAILED" if error.definite else "UNKNOWN"
            if scope.cancelled_caught:
                self.wrong.append(f"a send was not over after {HANG_SECONDS} s")
        finally:
            self.in_flight -= 1
        ended = trio.current_time()
        self.longest_send = max(self.longest_send, ended - began)
        self.statuses[status] += 1
        self.events.append(Outcome(id, status, began, True, ended, queue.broker_name, where, offset))
        if status == "OK":
            self.acks.append(Ack(id, queue.broker_name, queue.queue_id, offset, place, began, ended))
        else:
            await trio.sleep(0.02)

    # --- consuming

    async def consume(self, consumer: trmq.Consumer) -> None:
        async for message in consumer:
            async with message:
                queue = (message.queue.topic, message.queue.queue_id)
                self.given.add(message.message_id)
                self.events.append(
                    Given("c", message.message_id, queue, message.queue.broker_name, message.offset, trio.current_time(), GROUP)
                )

    async def read_everything(self) -> None:
        """Every queue from its first offset to its last."""
        async with self.client.reader(TOPIC) as reader:
            for queue in reader.queues():
                end, ids, start = await reader.max_offset(queue), list[str](), reader.position(queue)
                while reader.position(queue) < end:
                    for message in await reader.getmany(500, timeout=1.0, queues=[queue]):
                        if message.offset != start + len(ids):
                            self.wrong.append(f"{queue} was read at {start + len(ids)} and gave offset {message.offset}")
                        ids.append(message.message_id)
                self.events.append(
                    QueueRead((TOPIC, queue.queue_id), queue.broker_name, start, tuple(ids), trio.current_time())
                )
