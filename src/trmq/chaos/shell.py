"""The whole shell in simulated time: the shipped servers and clients under Trio play a scenario.

    run = play(draw(seed=7))
    assert not run.judge(CLUSTER).violations

A producer and a consumer are there all the time. Each verb of `scenario.VERBS` strikes at its time and does what it can in the state it
finds; starts, stops and promotions take their own time meanwhile, so that the next fault may come in the middle of one. At the end
everything is healed, whoever may return returns, a slave becomes master if only it holds what was acknowledged, and all is looked at.
"""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any

import trio
from specs.history import Done, Eased, Event, Hindered

from trmq.chaos.atlas import KIND
from trmq.chaos.cluster import Cluster, Interrupted, running
from trmq.chaos.run import Run, Strikes
from trmq.chaos.scenario import CLIENT, HINDERS, LINKS, Mode, Scenario, Step, port_of
from trmq.chaos.sometimes import came_about, in_flight
from trmq.chaos.strangers import make_noise
from trmq.errors import TrmqError
from trmq.sim.determinism import run_seeded
from trmq.sim.world import World

GROUPS: Mapping[Mode, Mapping[str, int]] = MappingProxyType({
    "single": {"a": 0}, "masters": {"a": 0, "b": 0}, "async-pair": {"a": 1}, "sync-pair": {"a": 1},
})  # fmt: skip
PRODUCER = "producer"
AT_MOST_S = 900.0
LONG_LIE = 1 << 20
"""A stranger claims this much more besides, so that sends on their way do not make an honest report of it."""


class Player:
    """A cluster and the verbs. `replaced`: masters that another one took the place of: what only they hold is given up."""

    def __init__(self, lab: Cluster, scenario: Scenario) -> None:
        self.lab, self.scenario = lab, scenario
        self.nodes = scenario.nodes
        self.dice = lab.world.dice("player")
        self.hits: Counter[str] = Counter()
        self.sometimes: Counter[str] = Counter()
        self.busy: set[str] = set()
        self.paused: set[str] = set()
        self.dead: set[str] = set()
        self.replaced: set[str] = set()
        self.listen()

    def listen(self) -> None:
        """To what programs run into."""
        world = self.lab.world
        strikes = world.struck = Strikes(world.struck)
        strikes.on = self.struck
        for host in world.hosts.values():
            host.clock.struck = host.disk.struck = host.next_disk.struck = strikes

    async def run(self) -> None:
        lab = self.lab
        await lab.create_topic(2)
        await lab.nursery.start(lab.consume, "consumer")
        began = trio.current_time()
        for step in self.scenario.steps:
            await trio.sleep_until(max(began + step.at, trio.current_time()))
            await self.take(step)
        await self.end()

    async def take(self, step: Step) -> None:
        """One step. What takes long is done by a task of its own."""
        self.lab.note(Done(" ".join((step.verb, *step.args)), trio.current_time()))
        if step.verb in ("start", "promote", "close"):
            node = step.args[0]
            if node not in self.busy:
                self.busy.add(node)
                self.lab.nursery.start_soon(self._at_leisure, node, getattr(self, step.verb))
            return
        if step.verb in HINDERS:
            for place in step.args[: 2 if step.verb in LINKS else 1] or self.nodes:
                self.lab.note(Hindered(self.place(place), step.verb, trio.current_time()))
        struck = getattr(self, step.verb.replace("-", "_"))(*step.args)
        if not isinstance(struck, bool | None):
            struck = await struck
        if struck and step.verb in KIND:
            self.hit(KIND[step.verb])

    def hit(self, kind: str) -> None:
        self.hits[kind] += 1
        self.struck(kind)

    def struck(self, kind: str) -> None:
        """Also by what programs run into later: a link that is cut, a disk that is full."""
        if self.lab.sending:
            self.sometimes[in_flight(KIND.get(kind, kind))] += 1
            self.sometimes["a fault struck while a send was in flight"] += 1

    async def _at_leisure(self, node: str, verb: Any) -> None:
        try:
            await verb(node)
        finally:
            self.busy.discard(node)

    # --- the state

    def up(self, node: str) -> bool:
        return node not in self.lab.down and node not in self.dead

    def acts(self, node: str) -> bool:
        return self.up(node) and node not in self.paused

    def master(self, node: str) -> str:
        return self.lab.masters[self.lab.group_of(node)]

    def place(self, name: str) -> str:
        return PRODUCER if name == CLIENT else name

    # --- work, starts and stops

    def send(self, count: str) -> None:
        for _ in range(int(count)):
            size = self.dice.choice((1, 1, 40, 200, 900))
            self.lab.nursery.start_soon(partial(self.lab.send, "x" * size, timeout=6))

    async def start(self, node: str) -> None:
        if self.up(node) or node in self.dead:
            return
        taken = {self.lab.roles[other] for other in self.nodes if other != node and other[0] == node[0]}
        id = 0 if node == self.master(node) else next(id for id in range(1, 9) if id not in taken)
        try:
            broker = await self.lab.start_broker(node, broker_id=id)
            self.sometimes["recovery cut a torn record"] += broker.store_service.report.cut is not None
        except Interrupted:
            self.sometimes["killed while it started"] += 1
        except (TrmqError, OSError):
            self.sometimes["start refused"] += 1

    async def promote(self, node: str) -> None:
        old = self.master(node)
        if old == node or self.up(old) or old in self.busy or node in self.dead or node not in self.lab.logs:
            return
        self.resume(node)
        await self.close(node, counts=False)
        if not self.up(old) and not self.up(node):
            await self.replace(node)

    async def replace(self, node: str) -> None:
        """It is down, and so is its master."""
        self.replaced.add(self.master(node))
        self.lab.masters[self.lab.group_of(node)] = node
        await self.start(node)
        self.sometimes["a slave was promoted"] += 1

    async def close(self, node: str, *, counts: bool = True) -> None:
        if not self.acts(node):
            return
        if counts:
            self.hit("close")
        with trio.move_on_after(300) as limit:
            await self.lab.close(node)
        assert not limit.cancelled_caught or node in self.paused, f"{node} does not stop"

    # --- processes and machines

    def _fall(self, node: str, how: str) -> bool:
        if node in self.dead or (not self.up(node) and node not in self.lab.starting):
            return False
        self.paused.discard(node)
        log = self.lab.logs.get(node)
        self.sometimes["unsynced bytes were at risk"] += how != "kill" and log is not None and log.durable < log.end
        getattr(self.lab, how)(node)
        return True

    def kill(self, node: str) -> bool:
        return self._fall(node, "kill")

    def os_crash(self, node: str) -> bool:
        return self._fall(node, "os_crash")

    def power(self, node: str) -> bool:
        return self._fall(node, "power")

    def machine(self, node: str) -> bool:
        if node in self.dead:
            return False
        self.lab.machine(node)
        self.dead.add(node)
        self.paused.discard(node)
        return True

    def disk(self, node: str) -> bool:
        if node in self.dead:
            return False
        self.lab.disk(node)
        self.paused.discard(node)
        return True

    def pause(self, node: str) -> bool:
        if not self.acts(node) or node in self.busy:
            return False
        self.paused.add(node)
        self.lab.pause(node)
        return True

    def resume(self, node: str) -> None:
        if node in self.paused:
            self.paused.discard(node)
            self.lab.resume(node)

    # --- the network

    def cut(self, one: str, other: str) -> None:
        self.lab.cut(self.place(one), self.place(other))

    def cut_one_way(self, one: str, other: str) -> None:
        self.lab.cut(self.place(one), self.place(other), one_way=True)

    def part(self, one: str, other: str) -> None:
        self.lab.part(self.place(one), self.place(other))

    def heal(self) -> None:
        self.lab.heal()
        self.lab.slow.clear()

    def reset(self, one: str, other: str) -> bool:
        return self.lab.world.net.reset(self.place(one), self.place(other)) > 0

    def drop(self, one: str, other: str, count: str) -> None:
        self.lab.world.net.drop_after(self.place(one), self.place(other), int(count))

    def slow(self, one: str, other: str, seconds: str) -> None:
        """Counted when something has to take that way."""
        one, other = self.place(one), self.place(other)
        self.lab.slow[one, other] = self.lab.slow[other, one] = float(seconds)

    def clog(self, node: str) -> None:
        self.lab.world.net.clog(node)

    def split(self) -> None:
        self.lab.world.net.split = True

    async def stranger(self, node: str, count: str) -> bool:
        master = self.master(node)
        if not self.acts(master) or master not in self.lab.logs:
            return False
        with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(1):  # the master may die while it is dialled
            stream = await self.lab.dial_ha(master)
            await stream.send_all((self.lab.logs[master].end + LONG_LIE + int(count)).to_bytes(8, "big"))
            return True
        return False

    async def noise(self, port: str, what: str) -> bool:
        node, kind = port_of(port)
        return (kind == "names" or self.acts(node)) and await make_noise(self.lab, node, kind, what)

    # --- disks and clocks

    def disk_full(self, node: str) -> None:
        if self.up(node):
            self.lab.disk_full(node)

    def disk_free(self, node: str) -> None:
        if self.up(node):
            self.lab.disk_free(node)

    def slow_disk(self, node: str, seconds: str) -> None:
        if self.up(node):
            wait = float(seconds)
            self.lab.world.host(node).disk.latency = lambda op, path: wait if op == "sync" else 0.0

    def _fails(self, node: str, op: str) -> None:
        if self.up(node):
            self.lab.world.host(node).disk.fail(op, errno.EIO, path="commitlog/*")

    def sync_fails(self, node: str) -> None:
        self._fails(node, "sync")

    def write_fails(self, node: str) -> None:
        self._fails(node, "write")

    def read_fails(self, node: str) -> None:
        self._fails(node, "read")

    def rot(self, node: str, number: str) -> bool:
        return node in self.lab.logs and self.lab.rot(node, int(float(number)))

    def misdirect(self, node: str, number: str) -> bool:
        return node in self.lab.logs and self.lab.rot(node, int(float(number)), misdirected=True)

    def jump(self, node: str, seconds: str) -> None:
        self.lab.world.hosts[node].clock.skew_ms += int(float(seconds) * 1000)

    def drift(self, node: str, rate: str) -> None:
        self.lab.world.hosts[node].clock.rate = float(rate)

    # --- the end

    async def end(self) -> None:
        lab = self.lab
        for node in self.nodes:
            self.resume(node)
        self.heal()
        lab.world.net.split = False
        lab.world.net._drops.clear()
        for node in self.nodes:
            lab.world.hosts[node].clock.rate = 1.0
            for disk in (lab.world.hosts[node].disk, lab.world.hosts[node].next_disk):
                disk.latency, disk.capacity = 0.0, None
                disk._faults.clear()
        lab.note(Eased(trio.current_time()))
        await trio.sleep(8)  # sends end, and who was about to fail has failed
        while self.busy:  # noqa: ASYNC110 (simulated time)
            await trio.sleep(0.5)
        for group in lab.groups:
            await self._all_start(group)
        await trio.sleep(10)
        for group in lab.groups:
            await self._best_leads(group)
        await lab.settle(40)  # a consumer that lost a broker asks for its route again after 30 s
        await lab.finish()

    async def _all_start(self, group: str) -> None:
        """Masters first; where the master does not return, or has lost its disk, a slave takes its place."""
        lab, old = self.lab, self.lab.masters[group]
        members = [node for node in self.nodes if node[0] == group and node not in self.dead]
        if old in members and old in lab.logs:
            await self.start(old)
        if not self.up(old):
            for node in members:
                if node != old and node in lab.logs:
                    await self.promote(node)
                    break
        for node in members:
            await self.start(node)

    async def _best_leads(self, group: str) -> None:
        lab, old = self.lab, self.lab.masters[group]
        for node in self.nodes:
            if node == old or node[0] != group or node in self.replaced or not self.up(node) or not self.up(old):
                continue
            if lab.logs[node].common(lab.logs[old]) < lab.logs[node].end:
                await lab.close(old)
                await self.promote(node)
                await self.start(old)
                return


def play(scenario: Scenario) -> Run:
    """Raises what a broker or a client raises that should not, with the scenario in a note."""
    made: list[Player] = []
    length: list[float] = []

    async def main() -> None:
        with trio.move_on_after(AT_MOST_S) as limit:
            sync, flush = scenario.mode == "sync-pair", "SYNC_FLUSH" if scenario.flush == "sync" else "ASYNC_FLUSH"
            keeps = {"clean_file_forcibly_enable": False}  # a full disk may cost messages by configuration; here it must not
            async with running(scenario.seed, GROUPS[scenario.mode], sync=sync, flush=flush, **keeps) as lab:
                made.append(Player(lab, scenario))
                await made[0].run()
                length.append(trio.current_time())
        assert not limit.cancelled_caught, "the run does not end"

    try:
        run_seeded(main, scenario.seed)
    except BaseException as error:
        error.add_note(scenario.render())
        raise
    player = made[0]
    world = player.lab.world
    history = player.lab.history(scenario.render())
    for kind, count in world.struck.items():
        player.hits[KIND.get(kind, kind)] += count
    player.sometimes["a damaged record was given to nobody"] += player.lab.passed_over
    player.sometimes += came_about(history)
    same = fingerprint(world, history.events)
    return Run(scenario, history, world.steps, length[0], player.hits, player.sometimes, same)


def fingerprint(world: World, events: Iterable[Event]) -> str:
    """Of what was traced and of what was noted; equal for equal runs."""
    digest = hashlib.sha256(world.fingerprint.encode())
    for event in events:
        members = [sorted(value) if isinstance(value, frozenset) else value for value in vars(event).values()]  # in no order of chance
        digest.update(f"{type(event).__name__}{members}".encode())
    return digest.hexdigest()

