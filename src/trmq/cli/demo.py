"""`trmq demo failover`: the promise of the whole thing, played in front of you by real processes, with an account at the end.

Two groups of a SYNC_MASTER and a slave each; one producer and one consumer, trmq's own client. The master of group a is killed while
messages flow and while some of its messages have not been read yet: only the slave can bring those. Then it returns.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import attrs
import trio
from cyclopts import Parameter

from trmq.client import Client, Consumer, FromWhere, Producer, connect
from trmq.errors import ConfigError, SendFailed, TrmqError
from trmq.real_host import RealHost

from . import EXIT_INTERRUPTED, EXIT_VIOLATED
from .account import OK, Account, summary
from .fleet import Fleet, choose_ports
from .nodes import Shape, plan

TOPIC, GROUP = "demo", "demo"
STEADY_S, BREAK_S, OUTAGE_S, AFTER_S = 3.0, 1.0, 4.0, 3.0
START_MAX_S, SWITCH_MAX_S, DRAIN_MAX_S = 30.0, 40.0, 20.0
AGAIN_S = 0.01
PREFETCH = 16
"""Messages of a queue the consumer may hold ahead: few, so that most of what is unread is at the brokers when the master dies."""
IN_FLIGHT_MAX = 256
SETTINGS = {"mappedFileSizeCommitLog": str(16 << 20), "maxHashSlotNum": "50000", "maxIndexNum": "200000"}


class Stuck(TrmqError):
    """Something that the demonstration waits for did not happen."""


def failover_demo(
    *, rate: float = 400.0, keep: bool = False, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> int:
    """Kill a master while messages flow: the consumer goes on from the slave, the producer with the other group, nothing is lost.

    Takes about 20 seconds. Exit code 0 if no acknowledged message was lost, 6 otherwise.

    Parameters
    ----------
    rate
        Messages a second.
    keep
        Keep the stores and logs.
    as_json
        Print the account as one JSON object; what happens meanwhile goes to standard error.
    """
    if not 1 <= rate <= 5000:
        raise ConfigError(f"--rate {rate:g}: give 1 to 5000 messages a second")
    folder = Path(tempfile.mkdtemp(prefix="trmq-demo-"))
    received: list[int] = []
    show: dict[str, Any] = {}

    async def main() -> None:
        shape = Shape(groups=2, slaves=1, role="sync_master", settings=SETTINGS)
        nodes = plan(shape, folder, await choose_ports(shape, None))
        play = Play(folder, rate, sys.stderr if as_json else sys.stdout)
        play.fleet = Fleet(nodes, folder, False, lambda member: None)
        async with trio.open_nursery() as outer:
            scope = trio.CancelScope()
            outer.start_soon(watch_signals, received, scope)
            with scope:
                show.update(await play.run())
            outer.cancel_scope.cancel()

    try:
        trio.run(main)
    finally:
        if not keep and not show.get("lost"):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"stores and logs are in {folder}", file=sys.stderr)
    if received:
        return EXIT_INTERRUPTED if received[0] == signal.SIGINT else 0
    if as_json:
        print(json.dumps(show))
    return EXIT_VIOLATED if show["lost"] else 0


async def watch_signals(received: list[int], scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            received.append(number)
            scope.cancel()


@attrs.define
class Play:
    """The story; `seconds` are since its beginning."""

    folder: Path
    rate: float
    out: Any
    fleet: Fleet = attrs.field(init=False)
    account: Account = attrs.field(factory=Account)
    began: float = attrs.field(factory=trio.current_time)
    timings: dict[str, float] = attrs.field(factory=dict)
    reading: trio.Event = attrs.field(factory=trio.Event)
    stop: trio.Event = attrs.field(factory=trio.Event)
    produced: trio.Event = attrs.field(factory=trio.Event)
    tidings: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def seconds(self) -> float:
        return trio.current_time() - self.began

    def say(self, text: str) -> None:
        print(f"{self.seconds:5.1f} s  {text}", file=self.out, flush=True)

    def note(self, name: str, seconds: float) -> str:
        """Keep a timing for the account, and return it for the eye."""
        self.timings[name] = round(seconds, 3)
        return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"

    def address(self, name: str) -> str:
        return self.fleet.members[name].node.address

    async def run(self) -> dict[str, Any]:
        """Everything from the first process to the account."""
        self.say(f"two groups, a and b, of a SYNC_MASTER and a slave each, and a name server; stores in {self.folder}")
        async with self.fleet.open():
            await self.start()
            async with connect(self.fleet.name_server, host=RealHost(self.folder / "client")) as mq, mq.producer(group=GROUP) as producer:
                await self.first_message(mq, producer)
                options: dict[str, Any] = {"from_where": FromWhere.FIRST, "prefetch_messages": PREFETCH, "pull_batch": PREFETCH}
                async with mq.consumer(TOPIC, group=GROUP, **options) as consumer, trio.open_nursery() as nursery:
                    await self.act(producer, consumer, nursery)
                    nursery.cancel_scope.cancel()
            self.say("all processes are stopped in order")
        names = {member.node.address: member.node.name for member in self.fleet.brokers}
        print("\n".join(["", *summary(self.account, names)]), file=self.out, flush=True)
        found = self.account.to_dict()
        found["received_from"] = {names.get(address, address): count for address, count in found["received_from"].items()}
        return found | {"rate": self.rate, "seconds": round(self.seconds, 1), "timings_s": self.timings}

    async def act(self, producer: Producer, consumer: Consumer, nursery: trio.Nursery) -> None:
        """The five phases: all is well, the death, the outage, the return, the end."""
        self.reading.set()
        nursery.start_soon(self.consume, consumer)
        nursery.start_soon(self.produce, producer)
        self.say(f"a producer sends {self.rate:g} messages/s, a consumer reads them")
        await trio.sleep(STEADY_S)
        self.count("so far")
        death = await self.kill(consumer)
        await self.outage(death)
        await self.comeback()
        await trio.sleep(AFTER_S)
        await self.settle()

    # --- the phases

    async def start(self) -> None:
        with trio.move_on_after(START_MAX_S):
            await self.fleet.start()
        for member in self.fleet.members.values():
            if member.state != "up":
                raise Stuck(f"{member.node.name} did not start: {member.ended or member.state}")
        self.say(f"all {len(self.fleet.members)} processes are up after {self.note('processes_up', self.seconds)}")

    async def first_message(self, mq: Client, producer: Producer) -> None:
        """Make the topic, wait for the slaves to follow, and send a message to each group, which its slave has to acknowledge too."""
        await mq.admin.create_topic(TOPIC, queues=2)
        for group in ("a", "b"):
            with trio.move_on_after(START_MAX_S) as limit:
                while True:
                    if (await mq.admin.ha_status(self.address(f"{group}-0"))).in_sync_slave_nums:
                        break
                    await trio.sleep(AGAIN_S)
            if limit.cancelled_caught:
                why = (await mq.admin.broker_runtime(self.address(f"{group}-1"))).get("haProblem", "")
                raise Stuck(f"the slave of group {group} did not follow within {START_MAX_S:g} s: {why}")
        for queue in {queue.broker_name: queue for queue in await producer.queues(TOPIC)}.values():
            if await self.send(producer, queue=queue) != OK:
                raise Stuck(f"the first message to group {queue.broker_name} is not on its slave; --keep keeps the logs")
        self.say(f"the first messages are on master and slave of both groups after {self.note('first_replicated', self.seconds)}")

    async def kill(self, consumer: Consumer) -> float:
        """Let some messages lie unread, then kill; returns the time of death."""
        self.reading = trio.Event()
        self.say(f"the consumer takes a break of {BREAK_S:g} s: what is not read yet is with the brokers alone")
        await trio.sleep(BREAK_S)
        pid = self.fleet.members["a-0"].pid
        await self.fleet.kill("a-0")
        death = self.seconds
        unread = len(self.account.lost)
        self.say(f"kill -9 {pid}: the master of group a is dead; {unread:,} acknowledged messages are unread")
        self.reading.set()
        return death

    async def outage(self, death: float) -> None:
        """Both sides find their way, and go on like that for a while."""
        slave, before = self.address("a-1"), len(self.account.receipts)
        await self.until(lambda: any(self.account.acks_of("b", death)), "the producer did not go on with group b")
        first = min(ack.at for ack in self.account.acks_of("b", death))
        self.say(f"the producer goes on with group b: first acknowledgement {self.note('producer_went_on', first - death)} after the death")
        await self.until(lambda: self.first_from(slave, before) is not None, "the consumer did not go on from the slave")
        first = self.first_from(slave, before) or 0.0
        took = self.note("consumer_on_slave", first - death)
        self.say(f"the consumer reads group a from its slave: first message {took} after the death")
        await trio.sleep(OUTAGE_S)
        pause = self.note("longest_send_pause", self.account.longest_pause(death - 1, self.seconds))
        self.count(f"meanwhile (no acknowledgement came for {pause} at most)")

    async def comeback(self) -> None:
        """The master returns, and everybody to it."""
        master, before = self.address("a-0"), len(self.account.receipts)
        again = self.seconds
        self.say("the master of group a is started again")
        await self.fleet.revive("a-0")
        if (member := self.fleet.members["a-0"]).state != "up":
            raise Stuck(f"a-0 did not start again: {member.ended}")
        self.say(f"it is up after {self.note('master_restarted', self.seconds - again)}")
        wanted = partial(self.first_ok, "a", again)
        await self.until(lambda: wanted() is not None, "the producer did not return to group a")
        took = self.note("producer_returned", (wanted() or 0.0) - again)
        self.say(f"the producer sends to group a again: first message on master and slave {took} after the start")
        await self.until(lambda: self.first_from(master, before) is not None, "the consumer did not return to the master")
        took = self.note("consumer_returned", (self.first_from(master, before) or 0.0) - again)
        self.say(f"the consumer reads group a from its master again: first message {took} after the start")

    async def settle(self) -> None:
        """No more sends; wait for what is on its way."""
        done = self.seconds
        self.stop.set()
        with trio.move_on_after(DRAIN_MAX_S):
            await self.produced.wait()
            while self.account.lost:
                await self.tidings.park()
        self.count("at the end")
        self.note("drained", self.seconds - done)

    # --- what flows

    async def produce(self, producer: Producer) -> None:
        """One send at each due moment, whether or not those before it have ended."""
        room = trio.CapacityLimiter(IN_FLIGHT_MAX)
        start, count = trio.current_time(), 0
        async with trio.open_nursery() as nursery:
            while not self.stop.is_set():
                token = object()
                await room.acquire_on_behalf_of(token)
                nursery.start_soon(self.send_one, producer, room, token)
                count += 1
                await trio.sleep_until(start + count / self.rate)
        self.produced.set()

    async def send_one(self, producer: Producer, room: trio.CapacityLimiter, token: object) -> None:
        try:
            await self.send(producer)
        finally:
            room.release_on_behalf_of(token)

    async def send(self, producer: Producer, **where: Any) -> str | None:
        """Send the next message; its status, None if that failed."""
        number = self.account.next()
        try:
            result = await producer.send(TOPIC, b"%d" % number, **where)
        except SendFailed as error:
            self.account.failed(number, unknown=error.unknown)
            return None
        self.account.acked(number, self.seconds, result.status.name, result.queue.broker_name)
        self.tidings.unpark_all()
        return result.status.name

    async def consume(self, consumer: Consumer) -> None:
        async for message in consumer:
            await self.reading.wait()
            async with message:
                self.account.received(int(message.body), self.seconds, message.queue.broker_name, message.served_by)
            self.tidings.unpark_all()

    # --- looking

    def first_from(self, address: str, after: int) -> float | None:
        """When the first message came that this member served, of the receipts from number `after` on."""
        return next((receipt.at for receipt in self.account.receipts[after:] if receipt.served_by == address), None)

    def first_ok(self, group: str, since: float) -> float | None:
        return min((ack.at for ack in self.account.acks_of(group, since) if ack.status == OK), default=None)

    async def until(self, test: Callable[[], bool], otherwise: str) -> None:
        """Wait for a message, sent or received, that makes `test` hold. Raises `Stuck`."""
        with trio.move_on_after(SWITCH_MAX_S):
            while not test():
                await self.tidings.park()
        if not test():
            raise Stuck(f"{otherwise} within {SWITCH_MAX_S:g} s")

    def count(self, when: str) -> None:
        account = self.account
        groups = ", ".join(f"{group} {sum(1 for _ in account.acks_of(group)):,}" for group in ("a", "b"))
        others = sum(ack.status != OK for ack in account.acks.values())
        odd = f" ({others:,} of them not on a slave)" if others else ""
        self.say(f"{when}: acknowledged {len(account.acks):,}{odd}, by group: {groups}; received {account.received_count:,}")
