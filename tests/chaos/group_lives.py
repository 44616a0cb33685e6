"""Random lives of consumer groups: members join, leave, die and fail, brokers stop under them, messages of every kind flow."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio
from specs.history import History

from trmq.chaos.cluster import TOPIC, Cluster, running
from trmq.chaos.members import Member, end, join, make_topic
from trmq.client.delivery import Delivery
from trmq.message import MessageQueue
from trmq.sim.determinism import run_seeded

SETTINGS: tuple[dict[str, int], ...] = ({"a": 0}, {"a": 0, "b": 0}, {"a": 1})
STEPS = 14


class GroupLife:
    """The verbs. Each does what it can in the state that it finds."""

    def __init__(self, lab: Cluster, rng: random.Random, *, orderly: bool) -> None:
        self.lab = lab
        self.rng = rng
        self.orderly = orderly
        self.members: list[Member] = []
        self.count = 0

    def good(self) -> Callable[[Delivery], bool]:
        until = self.rng.randrange(1, 3)
        return lambda message: not message.body.startswith(b"bad") or message.reconsume_times >= until

    async def join(self) -> None:
        if len(self.members) < 3:
            self.count += 1
            takes = self.rng.choice((0.0, 0.05, 0.4))
            with trio.move_on_after(40):
                self.members.append(await join(
                    self.lab, f"c{self.count}", good=self.good(), takes_s=takes, workers=self.rng.choice((1, 3)), orderly=self.orderly,
                ))  # fmt: skip

    async def leave(self) -> None:
        if len(self.members) > 1:
            await self.members.pop(self.rng.randrange(len(self.members))).leave()

    async def die(self) -> None:
        if len(self.members) > 1:
            member = self.members.pop(self.rng.randrange(len(self.members)))
            self.rng.choice((member.kill, member.kill, member.power))()

    async def send(self) -> None:
        for _ in range(self.rng.randrange(1, 8)):
            kind = self.rng.randrange(8)
            if kind == 0:
                await self.lab.send("late", delay_level=self.rng.choice((1, 2)), timeout=4)
            elif kind == 1:
                await self.lab.send("bad", timeout=4)
            elif kind == 2:
                await self.lab.send("here", queue=MessageQueue(TOPIC, "a", 0), timeout=4)
            else:
                await self.lab.send(timeout=4)

    async def wait(self) -> None:
        await trio.sleep(self.rng.choice((0.05, 1.0, 4.0, 12.0, 25.0)))

    async def broker(self) -> None:
        node = self.rng.choice([f"{group}0" for group in self.lab.groups])
        if node not in self.lab.down:
            how = self.rng.choice(("close", "kill", "kill"))
            if how == "close":
                await self.lab.close(node)
            else:
                self.lab.kill(node)
            await trio.sleep(self.rng.choice((0.1, 3.0, 20.0)))
            await self.lab.start_broker(node)
            await trio.sleep(1)

    async def slow(self) -> None:
        pair = (self.rng.choice(["a0", "c1", "c2"]), self.rng.choice(["c1", "c2", "a0"]))
        self.lab.slow[pair] = self.rng.choice((0.2, 1.5, 6.0))
        await trio.sleep(3)
        self.lab.slow.clear()


VERBS = ("join", "join", "leave", "die", "send", "send", "send", "send", "wait", "wait", "broker", "slow")


def group_life(seed: str) -> History:
    """Fourteen steps, and then quiet for as long as a silent machine takes to be missed and the longest retry to come."""
    rng = random.Random(seed)
    groups, orderly = rng.choice(SETTINGS), rng.random() < 0.3
    made: list[Cluster] = []

    async def main() -> None:
        async with running(seed, groups, sync="a" in groups and groups["a"] == 1) as lab:
            made.append(lab)
            await make_topic(lab, rng.choice((1, 2, 3)))
            life = GroupLife(lab, rng, orderly=orderly)
            await life.join()
            for _ in range(STEPS):
                await getattr(life, rng.choice(VERBS))()
            await trio.sleep(330)
            await end(lab)

    run_seeded(main, seed)
    return made[0].history(f"group_life({seed!r}) {groups} orderly={orderly}")
