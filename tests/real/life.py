"""One life: a cluster of real processes under load, a fault in every round, and what must be so afterwards.

After each fault that ends a process: what was answered SEND_OK before lies at its place in the log of whoever must have it. At the end,
with everything healed: every slave's log is its master's, the group was given everything, and the client's history obeys the ten rules of
the checker.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import trio
from specs.checker import check
from specs.history import Drained, Event, Gone, History, Paused, Resumed, Serving

import trmq
from interop.cluster import Broker, Group, commit_log_end, slaves_at
from interop.jvm import Driver
from interop.stores import Log, check_equal, offset_of
from real.draw import PROXIED, Plan, mount, nodes_of, unmount
from real.load import GROUP, QUEUES, TOPIC, Ack, Load
from real.proxy import BEHIND, Link
from trmq.chaos.noises import talks
from trmq.chaos.scenario import PAIRS
from trmq.message import MessageQueue

PATIENCE = 25.0
"""Seconds until something that must happen counts as a hang."""
DISK = 48 << 20
QUICK: dict[str, Any] = {
    "mappedFileSizeCommitLog": 1 << 20, "mappedFileSizeConsumeQueue": 20_000, "maxHashSlotNum": 5_000, "maxIndexNum": 20_000,
    "slaveTimeout": 1000, "haSendHeartbeatInterval": 300, "haHousekeepingInterval": 1500, "cleanResourceInterval": 100,
    "flushConsumerOffsetInterval": 500,
}  # fmt: skip
"""Segments roll every second or two; a link that is dead is noticed soon."""


class Wrong(Exception):
    """What must never happen, as a sentence."""


@attrs.define
class Round:
    fault: str
    node: str
    hit: bool = False
    """A send was on its way when the fault struck."""
    acks: int = 0
    longest_gap_s: float = 0.0
    seconds: float = 0.0


@attrs.define
class Told:
    """How a life went. `wrong` is empty, or something is."""

    plan: Plan
    rounds: list[Round] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    statuses: dict[str, int] = attrs.field(factory=dict)
    java_statuses: Counter[str] = attrs.field(factory=Counter)
    """Of the official client, in lives in which it sent as well."""
    witnesses: dict[str, int] = attrs.field(factory=dict)
    events: int = 0
    acks: int = 0
    lost: int = 0
    given: int = 0
    longest_send_s: float = 0.0
    seconds: float = 0.0


class Life:
    def __init__(self, plan: Plan, folder: Path, *, java: bool = False) -> None:
        """`java`: the official client sends as well, to a topic of its own."""
        self.plan, self.folder, self.java = plan, folder, java
        self.official: Driver | None = None
        self.dice = random.Random(f"life/{plan.seed}")
        self.told = Told(plan)
        self.paired = plan.mode in PAIRS
        self.synchronous = plan.mode == "sync-pair"
        self.proxied = any(fault in PROXIED for fault, _ in plan.faults)
        self.nodes: dict[str, Broker] = {}
        self.links: dict[str, dict[str, Link]] = {}
        self.ballast: dict[str, Path] = {}
        self.alone: list[tuple[float, float]] = []
        """Stretches in which no slave was alive: what was sent and answered inside one cannot be SEND_OK of a synchronous pair."""
        self.java_acks: list[Ack] = []
        self.mounted = ExitStack()
        self._served: list[Event] = []

    # --- from birth to death

    async def live(self) -> Told:
        begin = trio.current_time()
        self.group = Group(
            self.folder, flushDiskType=f"{self.plan.flush.upper()}_FLUSH", **QUICK, **({"bindAddress": BEHIND} if self.proxied else {}),
        )  # fmt: skip
        try:
            async with trio.open_nursery() as nursery:
                await self._begin(nursery)
                try:
                    await self._rounds()
                finally:
                    nursery.cancel_scope.cancel()
        except* (Wrong, trmq.TrmqError, AssertionError, RuntimeError, OSError, trio.TooSlowError) as group:
            self.told.wrong += [f"{type(error).__name__}: {error}" for error in leaves(group)]
        finally:
            with trio.CancelScope(shield=True):
                if self.official is not None:
                    await in_thread(self.official.close)
                await in_thread(self.group.stop)
            self.mounted.close()
        for broker in self.nodes.values():
            if broker.folder.exists() and "Traceback" in broker.output():
                self.told.wrong.append(f"{broker.folder.name}: {broker.output()[-2000:]}")
        self.told.seconds = trio.current_time() - begin
        return self.told

    async def _begin(self, nursery: trio.Nursery) -> None:
        for name in nodes_of(self.plan.mode):
            role = "SLAVE" if name[1] == "1" else "SYNC_MASTER" if self.synchronous else "ASYNC_MASTER"
            more: dict[str, Any] = {}
            if ("disk-full", name) in self.plan.faults:
                disk = self.folder / f"disk-{name}"
                if not mount(disk, DISK):
                    raise Wrong("no file system can be mounted: draw the plan without disk-full")
                self.mounted.callback(unmount, disk)
                self.ballast[name] = disk / "ballast"
                more = {"store": disk / "store", "diskSpaceWarningLevelRatio": self.dice.choice((90, 100))}
            self.nodes[name] = self.group.add(name, brokerName=f"broker-{name[0]}", brokerRole=role, brokerId=int(name[1]), **more)
        self.group.choose_ports()
        for name, broker in self.nodes.items():
            if self.proxied:
                self.links[name] = {"client": Link(broker.port, self.dice), "ha": Link(broker.port + 1, self.dice)}
                for link in self.links[name].values():
                    await nursery.start(link.run)
        await in_thread(self.group.start_name_servers)
        for name in self.nodes:
            await self._start(name)

    async def _rounds(self) -> None:
        async with trmq.connect(self.group.name_server) as client:
            self.load = load = Load(client, self.dice)
            load.events[:0] = self._served
            await client.admin.create_topic(TOPIC, queues=QUEUES)
            if self.java:
                await in_thread(self._begin_java)
            async with client.producer(group="p", retries=0, timeout=3.0) as producer, \
                    client.consumer(TOPIC, group=GROUP, from_where=trmq.FromWhere.FIRST) as consumer, \
                    trio.open_nursery() as nursery:  # fmt: skip
                nursery.start_soon(load.consume, consumer)
                senders = await nursery.start(self._senders, producer)
                try:
                    for fault, node in self.plan.faults:
                        await self._round(fault, node)
                    senders.cancel()
                    if self.official is not None:
                        self._heard_by_java((await in_thread(partial(self.official, do="load_stop")))["answers"])
                    await self._settle()
                    await load.read_everything()
                    load.events.append(Drained(GROUP, TOPIC, trio.current_time()))
                finally:
                    self._account()
                    nursery.cancel_scope.cancel()
        await self._end()

    async def _senders(self, producer: trmq.Producer, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        queues = [MessageQueue(TOPIC, group, queue) for queue in range(QUEUES) for group in sorted(self.groups)]
        await producer.queues(TOPIC)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(self.load.send_always, producer, queues[number:] + queues[:number])
                task_status.started(scope)

    def _begin_java(self) -> None:
        driver = self.official = Driver(self.group.name_server, self.folder / "java")
        driver(do="create_topic", topic="J", queues=QUEUES)
        driver(do="load", topic="J", prefix="j", producer="official", threads=2, timeout=3000, pause_us=3000)

    def _heard_by_java(self, answers: list[dict[str, Any]]) -> None:
        self.told.java_statuses.update(answer["status"] for answer in answers)
        self.java_acks += [
            Ack(a["id"], a["broker"], a["queue"], a["offset"], offset_of(a["offset_id"]), 0.0, 0.0)
            for a in answers if a["status"] == "SEND_OK"
        ]

    async def _round(self, fault: str, node: str) -> None:
        one = Round(fault, node)
        self.told.rounds.append(one)
        load, begin, before = self.load, trio.current_time(), len(self.load.acks)
        await self._acked_again(f"before {fault} {node}")
        await trio.sleep(self.dice.uniform(0.1, 0.4))
        strike: Callable[[str], Awaitable[None]] = getattr(self, f"_{fault.replace('-', '_')}")
        with trio.move_on_after(1):
            while not load.in_flight:
                await trio.lowlevel.checkpoint()
        one.hit = load.in_flight > 0
        await strike(node)
        if self.paired:
            await self._until(lambda: slaves_at(self.nodes["a0"].port), f"the slave is connected after {fault} {node}")
        await self._acked_again(f"after {fault} {node}")
        own = [ack.ended for ack in load.acks[before:] if ack.broker == f"broker-{node[0]}"]
        one.acks = len(load.acks) - before
        one.longest_gap_s = max(b - a for a, b in pairwise([begin, *own, trio.current_time()]))
        one.seconds = trio.current_time() - begin

    @property
    def groups(self) -> set[str]:
        return {f"broker-{name[0]}" for name in self.nodes}

    # --- waiting, and looking

    async def _until(self, so: Callable[[], Any], what: str) -> None:
        """`so` may ask a process, in a thread."""
        error: Exception | None = None
        with trio.move_on_after(PATIENCE):
            while True:
                try:
                    if await in_thread(so):
                        return
                except (OSError, AssertionError) as found:
                    error = found
                await trio.sleep(0.02)
        raise Wrong(f"a hang: not within {PATIENCE:g} s: {what}{f'; {error}' if error else ''}")

    async def _acked_again(self, when: str) -> None:
        """Of every group a message is answered SEND_OK that was sent after this."""
        begin, groups = trio.current_time(), self.groups
        with trio.move_on_after(PATIENCE) as scope:
            while groups - {ack.broker for ack in self.load.acks[-2000:] if ack.began >= begin}:
                await trio.sleep(0.01)
        if scope.cancelled_caught:
            raise Wrong(f"a hang: no send is answered SEND_OK within {PATIENCE:g} s {when}; so far {dict(self.load.statuses)}")

    async def _holds(self, name: str, acks: list[Ack]) -> None:
        """Each of these lies at its place in the log of this node."""
        found = (await in_thread(lambda: Log(self.nodes[name].store))).by_offset()
        for ack in acks:
            record = found.get(ack.place)
            if record is None or (record.unique_key, record.queue, record.queue_offset) != (ack.id, ack.queue, ack.offset):
                self.told.lost += 1
                self.told.wrong.append(f"{ack} is not at its place in the log of {name}, there is {record}")

    def _acks_of(self, name: str) -> list[Ack]:
        return [ack for ack in (*self.load.acks, *self.java_acks) if ack.broker == f"broker-{name[0]}"]

    def _note(self, event: Event) -> None:
        self.load.events.append(event)

    # --- faults

    async def _start(self, name: str) -> None:
        broker = self.nodes[name]
        await in_thread(broker.start_and_wait)
        need = 2 if self.synchronous else 1
        event = Serving(
            name, f"broker-{name[0]}", int(name[1]), str(broker.settings["brokerRole"]), self.plan.flush == "sync", need,
            at=trio.current_time(),
        )  # fmt: skip
        if hasattr(self, "load"):
            self._note(event)
        else:
            self._served.append(event)

    async def _stopped(self, name: str, how: str) -> None:
        """It is dead. What it and (of a synchronous pair) its slave must have is looked at, then it returns."""
        begin = trio.current_time()
        self._note(Gone(name, how, begin))
        if self.official is not None:
            self._heard_by_java(await in_thread(partial(self.official, do="answers")))
        acks = self._acks_of(name)
        await trio.sleep(self.dice.uniform(0.0, 0.4))
        if name[1] == "1":
            if self.synchronous:
                self.alone.append((begin, trio.current_time()))
        else:
            await self._holds(name, acks)
            if self.synchronous:
                await self._holds("a1", acks)
        await self._start(name)

    async def _kill(self, name: str) -> None:
        await in_thread(self.nodes[name].kill)
        await self._stopped(name, "kill")

    async def _close(self, name: str) -> None:
        code = await in_thread(self.nodes[name].stop)
        if code != 0:
            raise Wrong(f"{name} ended with exit code {code} after SIGTERM: {self.nodes[name].output()[-1000:]}")
        await self._stopped(name, "close")

    async def _disk(self, name: str) -> None:
        await in_thread(self.nodes[name].kill)
        await in_thread(partial(shutil.rmtree, self.nodes[name].store))
        await self._stopped(name, "disk")

    async def _pause(self, name: str) -> None:
        self._note(Paused(name, trio.current_time()))
        await in_thread(self.nodes[name].pause)
        begin = trio.current_time()
        await trio.sleep(self.dice.choice((0.3, 0.8, 1.5, 1.5, 3.5)))
        if name[1] == "1" and self.synchronous:
            self.alone.append((begin, trio.current_time()))
        self.nodes[name].resume()
        self._note(Resumed(name, trio.current_time()))

    async def _disk_full(self, name: str) -> None:
        load, ballast = self.load, self.ballast[name]
        await in_thread(partial(fill, ballast))
        before = load.statuses.total() - load.statuses["OK"]
        load.large = True
        try:
            if name[1] == "0" or self.synchronous:
                await self._until(lambda: load.statuses.total() - load.statuses["OK"] > before + 3, f"sends are refused: {name} is full")
            await trio.sleep(self.dice.uniform(0.1, 0.6))
        finally:
            load.large = False
            ballast.unlink()
        if not self.nodes[name].running:
            raise Wrong(f"{name} ended on a full disk: {self.nodes[name].output()[-1000:]}")

    def _link_of(self, name: str) -> Link:
        links = self.links["a0" if self.paired else name]
        return links["ha" if self.paired and self.dice.random() < 0.6 else "client"]

    async def _cut(self, name: str) -> None:
        link = self._link_of(name)
        if self.dice.random() < 0.7:
            async with link.held():
                await trio.sleep(self.dice.choice((0.3, 1.0, 2.5)))
        else:
            await link.go_deaf()
            await trio.sleep(self.dice.choice((0.3, 1.0, 2.5)))
            link.reset()

    async def _link(self, name: str) -> None:
        link = self._link_of(name)
        match self.dice.choice(("reset", "die", "trickle")):
            case "reset":
                for _ in range(3):
                    link.reset()
                    await trio.sleep(0.1)
            case "die":
                link.die_after(self.dice.choice((0, 1, 7, 8, 100, 5_000)))
                await trio.sleep(0.3)
                link.die_after(0)  # one that had nothing to say
            case _:
                link.trickle = True
                await trio.sleep(0.8)
                link.trickle = False

    async def _stranger(self, name: str) -> None:
        broker = self.nodes[name]
        for port in (broker.port, broker.port + 1) if name[1] == "0" else (broker.port,):
            for what, noise, data in talks(self.dice, "clients" if port == broker.port else "slaves"):
                ended = False
                with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(PATIENCE if noise.due == "end" else 0.05):
                    async with await trio.open_tcp_stream(BEHIND if self.proxied else "127.0.0.1", port) as stream:
                        with suppress(trio.BrokenResourceError):
                            await stream.send_all(data)
                            while await stream.receive_some(65536):
                                pass
                        ended = True
                if noise.due == "end" and not ended and broker.running:
                    raise Wrong(f"{name} keeps a connection on which {what} came")
        if not broker.running:
            raise Wrong(f"{name} ended because of a stranger: {broker.output()[-1000:]}")

    # --- the end

    async def _settle(self) -> None:
        """The slave has its master's log; the group was given everything that was acknowledged."""
        load = self.load
        if self.paired:
            await self._until(
                lambda: commit_log_end(self.nodes["a0"].port) == commit_log_end(self.nodes["a1"].port), "the slave has caught up"
            )
        wanted = {ack.id for ack in load.acks}
        await self._until(lambda: wanted <= load.given, "the group is given every message that was answered SEND_OK")
        await trio.sleep(0.3)  # and what was stored without an answer

    def _account(self) -> None:
        load, told = self.load, self.told
        told.statuses, told.acks, told.given = dict(sorted(load.statuses.items())), len(load.acks), len(load.given)
        told.longest_send_s, told.events = load.longest_send, len(load.events)
        told.wrong += load.wrong
        if self.synchronous:
            for ack in load.acks:
                if any(begin <= ack.began and ack.ended <= end for begin, end in self.alone):
                    told.wrong.append(f"{ack} was answered SEND_OK while no slave was alive")

    async def _end(self) -> None:
        report = check(History(tuple(self.load.events), sync_flush=self.plan.flush == "sync", origin=str(self.plan)))
        self.told.wrong += [f"{violation.clause}: {violation.witness}" for violation in report.violations]
        self.told.witnesses = dict(sorted(report.witnesses.items()))
        for name in sorted(self.nodes, reverse=True):
            code = await in_thread(self.nodes[name].stop)
            if code not in (0, -signal.SIGTERM):
                self.told.wrong.append(f"{name} ended with exit code {code}: {self.nodes[name].output()[-1000:]}")
            await self._holds(name, self._acks_of(name))
        if self.paired:
            await in_thread(partial(check_equal, self.nodes["a0"].store, self.nodes["a1"].store))


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [leaf for error in group.exceptions for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])]


async def in_thread(work: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def fill(ballast: Path) -> None:
    """Write until there is no space left."""
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 14, 1 << 10):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
