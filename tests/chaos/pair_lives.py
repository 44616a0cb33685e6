"""Random lives of a consumer group on a master and its slave: members come, go and fail while the pair is struck in every way that it is
meant to survive: its master dies, stands still, is cut off, returns, or gives its place to the slave."""

from __future__ import annotations

import random

import trio
from specs.history import Eased, Hindered, History

from chaos.group_lives import GroupLife
from trmq.chaos.cluster import Cluster, running
from trmq.chaos.members import end, make_topic
from trmq.sim.determinism import run_seeded

STEPS = 14
LINGERS_S = (0.1, 3.0, 12.0, 40.0)
QUIET_S = 330.0
"""As long as a silent machine takes to be missed, and the longest retry to come."""


class PairLife(GroupLife):
    """Group a: a0 and a1, of which either may be the master. `promoting`: the slave may take the place of a dead master."""

    def __init__(self, lab: Cluster, rng: random.Random, *, orderly: bool, promoting: bool) -> None:
        super().__init__(lab, rng, orderly=orderly)
        self.promoting = promoting

    @property
    def master(self) -> str:
        return self.lab.masters["a"]

    @property
    def slave(self) -> str:
        return "a1" if self.master == "a0" else "a0"

    async def linger(self) -> None:
        """While something is wrong somebody may send."""
        await trio.sleep(self.rng.choice(LINGERS_S))
        if self.rng.random() < 0.5:
            await self.send()

    async def broker(self) -> None:
        await self.rng.choice((self.falls, self.falls, self.falls, self.stands_still, self.is_cut_off, self.is_parted, self.is_replaced))()

    async def falls(self) -> None:
        node = self.rng.choice((self.master, self.master, self.slave))
        await self.strike(node, self.rng.choice(("close", "kill", "kill", "os_crash", "power")))
        await self.linger()
        await self.lab.start_broker(node, broker_id=0 if node == self.master else 1)
        if node == self.master and self.lab.logs[self.slave].common(self.lab.logs[node]) < self.lab.logs[self.slave].end:
            await self.lab.close(node)  # its slave has what it lost: who operates this makes that one the master
            await self.lab.close(self.slave)
            await self.swap()
        await trio.sleep(1)

    async def swap(self) -> None:
        """Both are down: the slave is made master, and the old one its slave."""
        old = self.master
        await self.lab.start_broker(self.slave, broker_id=0)
        await self.linger()
        await self.lab.start_broker(old, broker_id=1)

    async def strike(self, node: str, how: str) -> None:
        if how == "close":
            await self.lab.close(node)
        else:
            getattr(self.lab, how)(node)

    async def stands_still(self) -> None:
        node = self.rng.choice((self.master, self.master, self.slave))
        self.lab.pause(node)
        await self.linger()
        self.lab.resume(node)

    async def is_cut_off(self) -> None:
        """From a member."""
        if self.members:
            await self.without_a_way(self.rng.choice(self.members).name, self.master, one_way=self.rng.random() < 0.3)

    async def is_parted(self) -> None:
        await self.without_a_way(self.master, self.slave, one_way=False)

    async def without_a_way(self, one: str, other: str, *, one_way: bool) -> None:
        for place in (one, other):
            self.lab.note(Hindered(place, "cut", trio.current_time()))
        self.lab.cut(one, other, one_way=one_way)
        await self.linger()
        self.lab.heal(one, other)
        self.lab.note(Eased(trio.current_time()))

    async def is_replaced(self) -> None:
        """The master dies, its slave is made master, the old one becomes its slave."""
        if not self.promoting:
            return
        old, new = self.master, self.slave
        await trio.sleep(self.rng.choice((0.0, 8.0)))
        await self.strike(old, self.rng.choice(("close", "kill", "power", "disk")))
        await trio.sleep(self.rng.choice((0.1, 3.0, 40.0)))
        await self.lab.close(new)
        await self.swap()
        await trio.sleep(1)


VERBS = ("join", "join", "leave", "die", "send", "send", "send", "send", "wait", "wait", "broker", "broker", "broker")


def pair_life(seed: str) -> History:
    """Fourteen steps, and then quiet."""
    rng = random.Random(f"pair/{seed}")
    orderly, sync, promoting = rng.random() < 0.4, rng.random() < 0.7, rng.random() < 0.5
    flush = rng.choice(("ASYNC_FLUSH", "SYNC_FLUSH"))
    made: list[Cluster] = []

    async def main() -> None:
        async with running(seed, {"a": 1}, sync=sync, flush=flush) as lab:
            made.append(lab)
            await make_topic(lab, rng.choice((1, 2, 3)))
            life = PairLife(lab, rng, orderly=orderly, promoting=promoting)
            await life.join()
            for _ in range(STEPS):
                await getattr(life, rng.choice(VERBS))()
            await trio.sleep(QUIET_S)
            await end(lab)

    run_seeded(main, seed)
    return made[0].history(f"pair_life({seed!r}) orderly={orderly} sync={sync} flush={flush} promoting={promoting}")
