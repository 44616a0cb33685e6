"""Members of consumer groups in a simulated cluster: programs on hosts of their own, which join, handle what they are given, leave or die.

    one = await join(lab, "c1")
    await lab.send_many(10)
    one.kill()

What a member's program is given and how that ends is noted by the program itself; which queues it holds by somebody who looks over its
shoulder. What it says to brokers is heard at the wire (`group_ear`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import attrs
import trio
from specs.history import Assigned, Copy, Created, Given, Handled, Joined, Left, Rebalanced

import trmq
from trmq.chaos.cluster import NAMES, TOPIC, Cluster
from trmq.client.assignment import Cell
from trmq.client.delivery import Delivery
from trmq.client.filters import Subscription
from trmq.message import ORIGIN_MESSAGE_ID, RETRY_TOPIC, UNIQ_KEY, encode_host, message_id
from trmq.record import decode_record
from trmq.sim.world import SimHost


def handles_all(message: Delivery) -> bool:
    return True


@attrs.define(eq=False)
class Member:
    """One life of a member. `good` decides about each message; `takes_s` is how long it is in hand; `workers` take at the same time."""

    lab: Cluster
    name: str
    group: str
    good: Callable[[Delivery], bool]
    takes_s: float
    workers: int
    options: dict[str, Any]
    ready: trio.Event = attrs.Factory(trio.Event)
    ended: trio.Event = attrs.Factory(trio.Event)
    consumer: trmq.Consumer | None = None
    host: SimHost | None = None

    @property
    def known_as(self) -> str:
        """A member that is given everything is a group of its own."""
        return f"{self.group}/{self.name}" if self.options.get("broadcasting") else self.group

    async def run(self) -> None:
        await self.lab.world.host(self.name, None if self.name in self.lab.world.hosts else f"10.0.7.{len(self.lab.world.hosts)}").run(
            self._program
        )

    async def _program(self, host: SimHost) -> None:
        self.host = host
        options = self.options
        self._note(Joined(
            self.name, self.known_as, bool(options.get("orderly")), bool(options.get("broadcasting")), trio.current_time(),
        ))  # fmt: skip
        async with (
            trmq.connect(f"{NAMES}:9876", host=host) as client,
            client.consumer(TOPIC, group=self.group, from_where=trmq.FromWhere.FIRST, **options) as consumer,
        ):
            self.consumer = consumer
            self._watch(consumer)
            async with trio.open_nursery() as nursery:
                for _ in range(self.workers):
                    nursery.start_soon(self._work, consumer)
                self.ready.set()
        self._gone("close")

    def _note(self, event: Any) -> None:
        if self.host is not None and not self.host.dead:
            self.lab.note(event)

    def _watch(self, consumer: trmq.Consumer) -> None:
        """Look over its shoulder when it takes and gives up queues."""
        held: set[tuple[str, int]] = set()
        gained, lost = consumer.gained, consumer.lost

        def note(cell: Cell, change: Callable[[tuple[str, int]], None]) -> None:
            if cell.queue.topic == TOPIC:
                change((cell.queue.broker_name, cell.queue.queue_id))
                self._note(Assigned(self.name, self.known_as, TOPIC, frozenset(held), trio.current_time()))
                self._note(Rebalanced(self.known_as, trio.current_time()))

        def gains(cell: Cell, subscription: Subscription) -> None:
            note(cell, held.add)
            gained(cell, subscription)

        def loses(cell: Cell) -> None:
            note(cell, held.discard)
            lost(cell)

        vars(consumer).update(gained=gains, lost=loses)

    async def _work(self, consumer: trmq.Consumer) -> None:
        async for message in consumer:
            queue, broker = (message.queue.topic, message.queue.queue_id), message.queue.broker_name
            self._note(Given(
                self.name, message.message_id, queue, broker, message.offset, trio.current_time(), self.known_as, message.reconsume_times,
            ))  # fmt: skip
            good = self.good(message)
            if self.takes_s:
                await trio.sleep(self.takes_s)
            self._note(Handled(
                self.name, self.known_as, message.message_id, queue, broker, message.offset, good, trio.current_time(),
            ))  # fmt: skip
            await (message.ack() if good else message.nack())

    # --- how it ends

    def _gone(self, how: str) -> None:
        self._note(Left(self.name, self.known_as, how, trio.current_time()))
        self.ended.set()

    async def leave(self) -> None:
        """In order: what is in hand is finished, offsets are committed."""
        assert self.consumer is not None
        self.consumer.stop()
        await self.ended.wait()
        assert self.host is not None
        self.host.crash("kill")

    def kill(self) -> None:
        self._gone("kill")
        assert self.host is not None
        self.host.crash("kill")

    def power(self) -> None:
        self._gone("power")
        assert self.host is not None
        self.host.crash("power")


async def join(
    lab: Cluster, name: str, group: str = "g", *, good: Callable[[Delivery], bool] = handles_all, takes_s: float = 0.0, workers: int = 1,
    **options: Any,
) -> Member:
    """Start a member; returns when it is one. `options` as of `Client.consumer`."""
    member = Member(lab, name, group, good, takes_s, workers, options)
    lab.nursery.start_soon(member.run)
    await member.ready.wait()
    return member


async def make_topic(lab: Cluster, queues: int) -> None:
    await lab.create_topic(queues)
    for group in lab.groups:
        lab.note(Created(TOPIC, group, queues, trio.current_time()))


def note_copies(lab: Cluster) -> None:
    """What the masters' logs hold, record by record."""
    for group, node in lab.masters.items():
        log, now = lab.logs[node], trio.current_time()
        for stored in log.records():
            message = decode_record(log.read(stored.phy_offset, stored.size))
            known = message.properties
            lab.note(Copy(
                node, group, known.get(UNIQ_KEY, "?"), stored.queue, stored.queue_offset, message.reconsume_times,
                message_id(encode_host(message.store_host), stored.phy_offset), known.get(ORIGIN_MESSAGE_ID, ""),
                known.get(RETRY_TOPIC, ""), zlib.crc32(message.body), now,
            ))  # fmt: skip


async def end(lab: Cluster) -> None:
    """What lies in the logs, and then as every run ends."""
    await trio.sleep(2)
    note_copies(lab)
    await lab.finish()
