"""Random lives of one group: every verb may come at any time, and does what it can in the state it finds.

`play` plays a list of (verb, number), then heals everything, makes a slave the master if only it holds what was acknowledged, waits, and
looks at what is left. It stays beside `trmq.chaos.shell`, which has more kinds of fault, for what scenarios have no words for: groups with
two slaves, the tables of `SETTINGS` (all members waited for, a minimum in sync, a need that is lowered), two producers at once, sends that
do not want to be waited for, and consumers and senders that ask a slave.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from specs.history import History

from trmq.chaos.cluster import Cluster, Flush, running
from trmq.errors import TrmqError
from trmq.sim.determinism import run_seeded

Step = tuple[str, int]
SETTINGS: tuple[dict[str, Any], ...] = (
    {"groups": {"a": 1}, "sync": True, "flush": "ASYNC_FLUSH"},
    {"groups": {"a": 1}, "sync": True, "flush": "SYNC_FLUSH"},
    {"groups": {"a": 1}, "sync": False, "flush": "ASYNC_FLUSH"},
    {"groups": {"a": 1}, "sync": False, "flush": "SYNC_FLUSH"},
    {"groups": {"a": 2}, "sync": True, "flush": "SYNC_FLUSH"},
    {"groups": {"a": 2}, "sync": True, "flush": "SYNC_FLUSH", "in_sync_replicas": "all"},
    {"groups": {"a": 1}, "sync": True, "flush": "ASYNC_FLUSH", "min_in_sync_replicas": 2, "ha_max_gap_not_in_sync": 1500},
    {"groups": {"a": 2}, "sync": True, "flush": "SYNC_FLUSH", "enable_auto_in_sync_replicas": True, "min_in_sync_replicas": 2},
)


class Life:
    """The verbs."""

    def __init__(self, lab: Cluster) -> None:
        self.lab = lab
        self.nodes = [f"a{id}" for id in range(lab.groups["a"] + 1)]
        self.paused: set[str] = set()
        self.sick: set[str] = set()
        self.replaced: set[str] = set()
        """Masters that another one took the place of: what only they hold was not acknowledged by its group, or is given up."""

    @property
    def master(self) -> str:
        return self.lab.masters["a"]

    def pick(self, number: int) -> str:
        return self.nodes[number % len(self.nodes)]

    def up(self, node: str) -> bool:
        return node not in self.lab.down

    # --- work

    async def send(self, number: int) -> None:
        self.lab.nursery.start_soon(partial(self.lab.send, "x" * (1 + number * 40), producer=f"p{number % 2}", timeout=6, wait=number != 5))
        await trio.sleep(0.01)

    async def send_some(self, number: int) -> None:
        for _ in range(1 + number):
            await self.send(number)

    async def wait(self, number: int) -> None:
        await trio.sleep((0.002, 0.05, 0.5, 2, 6, 25)[number % 6])

    async def ask_slave(self, number: int) -> None:
        slaves = [node for node in self.nodes if node != self.master and self.up(node) and node not in self.paused]
        if slaves:
            with trio.move_on_after(1), suppress(TrmqError):
                await (self.lab.pull_from(slaves[0], number * 2, number % 2) if number % 3 else self.lab.send_to(slaves[0]))

    # --- processes and machines

    async def die(self, number: int) -> None:
        node, how = self.pick(number), ("kill", "power", "os_crash", "kill", "power", "kill")[number % 6]
        if self.up(node):
            self.sick.discard(node)
            self.paused.discard(node)
            getattr(self.lab, how)(node)

    async def close(self, number: int) -> None:
        node = self.pick(number)
        if self.up(node) and node not in self.paused:
            with trio.move_on_after(300) as limit:
                await self.lab.close(node)
            assert not limit.cancelled_caught, f"{node} does not stop"

    async def start(self, number: int) -> None:
        for node in self.nodes[number % len(self.nodes) :]:
            if not self.up(node):
                await self._start(node)
                return

    async def _start(self, node: str) -> None:
        taken = {self.lab.roles[other] for other in self.nodes if other != node}
        id = 0 if node == self.master else next(id for id in range(1, 9) if id not in taken)
        await self.lab.start_broker(node, broker_id=id)

    async def promote(self, number: int) -> None:
        """Only when the master is down, and only the slave with the longest log."""
        slaves = [node for node in self.nodes if node != self.master]
        best = max(slaves, key=lambda node: self.lab.logs[node].end)
        if not self.up(self.master) and number % 2:
            await self._promote(best)

    async def _promote(self, node: str) -> None:
        self.lab.resume(node)
        self.paused.discard(node)
        if self.up(node):
            await self.lab.close(node)
        self.replaced.add(self.master)
        await self.lab.start_broker(node, broker_id=0)

    async def pause(self, number: int) -> None:
        node = self.pick(number)
        if self.up(node) and node not in self.paused:
            self.paused.add(node)
            self.lab.pause(node)

    async def resume(self, number: int) -> None:
        for node in sorted(self.paused):
            self.lab.resume(node)
        self.paused.clear()

    # --- network and disk

    async def cut(self, number: int) -> None:
        one, other = self.pick(number), self.pick(number + 1)
        if number % 3 == 2:
            self.lab.part(one, other)
        else:
            self.lab.cut(one, other, one_way=bool(number % 3))

    async def heal(self, number: int) -> None:
        self.lab.heal()
        self.lab.slow.clear()

    async def slow(self, number: int) -> None:
        self.lab.slow[self.pick(number), self.pick(number + 1)] = (0.05, 0.5, 2.0)[number % 3]

    async def reset(self, number: int) -> None:
        self.lab.world.net.reset(self.pick(number), self.pick(number + 1))

    async def split(self, number: int) -> None:
        self.lab.world.net.split = not self.lab.world.net.split

    async def no_room(self, number: int) -> None:
        node = self.pick(number)
        if self.up(node):
            self.sick.add(node)
            self.lab.writes_fail(node)

    async def room(self, number: int) -> None:
        for node in sorted(self.sick):
            if self.up(node):
                self.lab.writes_work(node)
        self.sick.clear()

    async def no_sync(self, number: int) -> None:
        node = self.pick(number)
        if self.up(node):
            self.lab.sync_fails(node)

    async def slow_disk(self, number: int) -> None:
        node = self.pick(number)
        if self.up(node):
            seconds = (0.0, 0.2, 4.0)[number % 3]
            self.lab.world.host(node).disk.latency = lambda op, path: seconds if op == "sync" else 0.0

    async def liar(self, number: int) -> None:
        if self.up(self.master) and self.master not in self.paused:
            with suppress(OSError):  # the master may die while it is dialled
                stream = await self.lab.dial_ha(self.master)
                await stream.send_all((self.lab.logs[self.master].end + 100_000 * (1 + number)).to_bytes(8, "big"))

    # --- the end

    async def end(self) -> None:
        lab = self.lab
        await self.resume(0)
        await self.room(0)
        await self.heal(0)
        lab.world.net.split = False
        for node in self.nodes:
            if self.up(node):
                lab.world.host(node).disk.latency = 0.0
                lab.world.host(node).disk._faults.clear()
        await trio.sleep(8)  # sends end, and who was about to fail has failed
        for node in (self.master, *self.nodes):
            if not self.up(node):
                await self._start(node)
        await trio.sleep(12)
        for node in self.nodes:
            if node != self.master and node not in self.replaced and lab.logs[node].common(lab.logs[self.master]) < lab.logs[node].end:
                old = self.master
                await lab.close(old)
                await self._promote(node)
                await self._start(old)
                break
        await lab.settle(16)
        await lab.finish()


VERBS = (
    "send", "send", "send_some", "send_some", "wait", "wait", "wait", "ask_slave", "die", "die", "close", "start", "start", "promote",
    "pause", "resume", "cut", "heal", "slow", "reset", "split", "no_room", "room", "no_sync", "slow_disk", "liar",
)


def play(seed: object, steps: Sequence[Step], setting: int) -> History:
    """One life. Raises what a broker or a client raises that should not."""
    made: list[Cluster] = []
    options = dict(SETTINGS[setting % len(SETTINGS)])

    async def main() -> None:
        async with running(seed, **options) as lab:
            made.append(lab)
            life = Life(lab)
            await lab.create_topic(2)
            if setting % 3 == 0:
                await lab.nursery.start(lab.consume, "consumer")
            for name, number in steps:
                await getattr(life, name)(number)
                if random.Random(f"{seed}/{name}/{number}").random() < 0.3:
                    await trio.sleep(0.02)
            await life.end()

    try:
        run_seeded(main, seed)
    except BaseException as error:
        error.add_note(f"chaos.lives.play({seed!r}, {list(steps)!r}, {setting})")
        raise
    return made[0].history(f"chaos.lives.play({seed!r}, {list(steps)!r}, {setting})")


def drawn(seed: object, length: int = 25) -> list[Step]:
    dice = random.Random(f"steps/{seed}")
    return [(dice.choice(VERBS), dice.randrange(6)) for _ in range(length)]


Verb = Callable[[int], Any]
__all__ = ["SETTINGS", "VERBS", "Flush", "Step", "drawn", "play"]
