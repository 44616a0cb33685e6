"""Stories of consumer groups: members join, leave, crash and fail; brokers stop under them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import trio
from specs.history import History, Shared

from chaos.pair_scenarios import SCENARIOS
from chaos.scenarios import cluster, scenario
from trmq.chaos.cluster import Cluster
from trmq.chaos.members import join, make_topic
from trmq.message import MessageQueue
from trmq.route import rebalance

__all__ = ["SCENARIOS"]
STRATEGIES = ("average", "circular", "consistent_hash")


@scenario
def shares(seed: str, patient: bool) -> Iterator[History]:
    """Queues and members of every number; each member is asked, and then once more in another order."""
    rng = random.Random(seed)
    for strategy in STRATEGIES:
        events = []
        for die in range(40):
            queues = [MessageQueue("T", f"b{number % 3}", number // 3) for number in range(rng.randrange(14))]
            members = sorted(f"10.0.0.{number}@{rng.randrange(1000)}" for number in range(1 + die % 7))
            for me in (*members, *reversed(members)):
                mine = getattr(rebalance, strategy)(sorted(queues), members, me)
                events.append(Shared(strategy, tuple(map(str, sorted(queues))), tuple(members), me, tuple(map(str, mine))))
        yield History(tuple(events), origin=f"shares {strategy}")


@scenario
def members_come_and_go(seed: str, patient: bool) -> Iterator[History]:
    """Two brokers; members join, leave, are killed, and one falls silent, while messages flow."""

    async def story(lab: Cluster) -> None:
        await make_topic(lab, 3)
        one = await join(lab, "c1", takes_s=0.05)
        await lab.send_many(10)
        two = await join(lab, "c2", takes_s=0.05)
        await join(lab, "c3")
        await lab.send_many(20)
        await trio.sleep(25)
        await two.leave()
        await lab.send_many(6)
        await trio.sleep(25)
        one.kill()
        await lab.send_many(6)
        await trio.sleep(25)
        four = await join(lab, "c4")
        await trio.sleep(25)
        four.power()
        await lab.send_many(6)
        await trio.sleep(155)
        await lab.finish()

    yield cluster({"a": 0, "b": 0}, story, seed, patient)
