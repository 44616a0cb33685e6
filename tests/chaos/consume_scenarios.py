"""Stories of consumer groups: members join, leave, crash and fail; brokers stop under them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import trio
from specs.history import History, Shared

from chaos.pair_scenarios import FLUSHES, SCENARIOS
from chaos.scenarios import cluster, scenario
from trmq.chaos.cluster import TOPIC, Cluster, Flush
from trmq.chaos.members import end, join, make_topic
from trmq.client.delivery import Delivery
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
        await trio.sleep(1)
        two = await join(lab, "c2", takes_s=0.05)
        await join(lab, "c3")
        await lab.send_many(20)
        await trio.sleep(25)
        await lab.send_many(6)
        await trio.sleep(0.5)
        await two.leave()
        await lab.send_many(6)
        await trio.sleep(25)
        await lab.send_many(6)
        await trio.sleep(0.5)
        one.kill()
        await trio.sleep(25)
        four = await join(lab, "c4")
        await trio.sleep(25)
        four.power()
        await lab.send_many(6)
        await trio.sleep(200)
        await end(lab)

    yield cluster({"a": 0, "b": 0}, story, seed, patient)


def fails(*bodies: str, until: int = 99) -> Callable[[Delivery], bool]:
    """A handler that fails with these bodies, until it is their `until`-th time again."""
    return lambda message: message.body.decode() not in bodies or message.reconsume_times >= until


@scenario
def handlers_fail(seed: str, patient: bool) -> Iterator[History]:
    """One message fails twice, one for ever, one with a delay of its own choice; then the broker is away when one fails; then its answers
    come too late."""

    async def story(lab: Cluster) -> None:
        await make_topic(lab, 2)
        one = await join(lab, "c1", good=fails("3", until=2), workers=2, takes_s=0.02)
        two = await join(lab, "c2", group="h", good=fails("5", "7"), max_reconsume_times=2, takes_s=0.02)
        await lab.send_many(9)
        await trio.sleep(100)
        two.kill()
        one.good = fails("late", until=1)
        one.takes_s = 3.0
        await lab.send("late")
        await lab.send("good")
        await trio.sleep(1)
        lab.kill("a0")
        await trio.sleep(12)
        await lab.start_broker("a0")
        one.takes_s = 0.02
        await trio.sleep(90)
        one.good = fails("lost", until=1)
        lab.slow["a0", "c1"] = 7.0
        await lab.send("lost")
        await trio.sleep(30)
        lab.slow.clear()
        await trio.sleep(100)
        await end(lab)

    yield cluster({"a": 0}, story, seed, patient)


@scenario
def nobody_takes_it_back(seed: str, patient: bool) -> Iterator[History]:
    """Messages fail while their broker is dead, stands still, has no room or cannot be reached; others of their queues are handled and
    committed all the while."""
    for why in ("kill", "pause", "disk_full", "part"):

        async def story(lab: Cluster, why: str = why) -> None:
            await make_topic(lab, 2)
            mended = trio.Event()
            one = await join(lab, "c1", good=lambda message: mended.is_set() or message.body.decode() not in ("1", "4", "9"), takes_s=0.3)
            await lab.send_many(12)
            await trio.sleep(0.2)
            hurt = getattr(lab, why)
            hurt("a0", "c1") if why == "part" else hurt("a0")
            await trio.sleep(14)
            if why == "kill":
                await lab.start_broker("a0")
            elif why == "pause":
                lab.resume("a0")
            elif why == "disk_full":
                lab.disk_free("a0")
            lab.heal()
            mended.set()
            await trio.sleep(40)
            await one.leave()
            await trio.sleep(20)
            await end(lab)

        yield cluster({"a": 0}, story, f"{seed}/{why}", patient)


@scenario
def answers_to_give_backs_are_lost(seed: str, patient: bool) -> Iterator[History]:
    """What a member gives back is stored, and the answer comes too late, is held up by a cut, or waits for a flush when its broker dies."""
    for why in ("slow", "cut", "kill"):

        async def story(lab: Cluster, why: str = why) -> None:
            await make_topic(lab, 2)
            times = 2 if why == "kill" else 1
            await join(lab, "c1", good=fails("1", "4", "6", "7", "8", until=times), takes_s=0.1, workers=2)
            await lab.send_many(6)
            await trio.sleep(30)
            for number in range(6, 10):
                await lab.send(str(number))
            await trio.sleep(0.05)  # they are in hand, or wait for it
            if why == "cut":
                lab.cut("a0", "c1", one_way=True)
            elif why == "slow":
                lab.slow["a0", "c1"] = 7.0
            else:
                lab.world.host("a0").disk.latency = lambda op, path: 3.0 if op == "sync" else 0.0
            await trio.sleep(1 if why == "kill" else 30)
            if why == "kill":
                lab.kill("a0")
                await lab.start_broker("a0")
            lab.slow.clear()
            lab.heal()
            await trio.sleep(120)
            await end(lab)

        yield cluster({"a": 0}, story, f"{seed}/{why}", patient, flush="SYNC_FLUSH" if why == "kill" else "ASYNC_FLUSH")


@scenario
def brokers_return(seed: str, patient: bool) -> Iterator[History]:
    """A master is stopped, killed, loses power; who consumed dies with it, so that another has to rely on what the broker kept."""
    for how in ("close", "kill", "power"):

        async def story(lab: Cluster, how: str = how) -> None:
            await make_topic(lab, 2)
            one = await join(lab, "c1", takes_s=0.01)
            await lab.send_many(8)
            await trio.sleep(11)
            await lab.send_many(8)
            await trio.sleep(6)
            await lab.send_many(4)
            await trio.sleep(0.5)
            one.kill()
            if how == "close":
                await lab.close("a0")
            elif how == "kill":
                lab.kill("a0")
            else:
                lab.power("a0", kept="none")
            await lab.start_broker("a0")
            two = await join(lab, "c2", takes_s=0.01)
            await trio.sleep(2)
            for offset in (11, 50):
                await lab.pull_from("a0", offset, hold_ms=4000)
            await lab.send_many(6)
            await trio.sleep(20)
            await two.leave()
            await join(lab, "c3")
            await lab.send_many(2)
            await trio.sleep(65)
            await end(lab)

        yield cluster({"a": 0}, story, f"{seed}/{how}", patient)


@scenario
def in_order(seed: str, patient: bool) -> Iterator[History]:
    """Two members consume in order; a message fails three times, one is given up; a member leaves, one dies, the master restarts."""

    async def story(lab: Cluster) -> None:
        await make_topic(lab, 4)
        good = fails("2", until=3)
        one = await join(lab, "c1", orderly=True, good=good, takes_s=0.1, workers=3)
        await trio.sleep(1)
        for number in range(12):
            await lab.send(str(number), queue=MessageQueue(TOPIC, "a", number % 2 + 2 * (number % 3 == 0)))
        two = await join(lab, "c2", orderly=True, good=good, takes_s=0.1, workers=3)
        await lab.send_many(8)
        await trio.sleep(25)
        await one.leave()
        await lab.send_many(8)
        await trio.sleep(5)
        three = await join(lab, "c3", orderly=True, good=fails("0"), max_reconsume_times=2, workers=2)
        await trio.sleep(5)
        await lab.send_many(4)
        await trio.sleep(20)
        two.kill()
        await lab.send_many(4)
        await trio.sleep(90)
        lab.kill("a0")
        await lab.start_broker("a0")
        await lab.send_many(4)
        await trio.sleep(30)
        assert three.consumer is not None
        await trio.sleep(65)
        await end(lab)

    yield cluster({"a": 0}, story, seed, patient)


@scenario
def delayed(seed: str, patient: bool) -> Iterator[History]:
    """Delayed messages, while nothing happens, and across a kill right after delivery, a stop, and a loss of power."""
    for flush in FLUSHES:

        async def story(lab: Cluster, flush: Flush = flush) -> None:
            await make_topic(lab, 2)
            await join(lab, "c1")
            await trio.sleep(48)
            for level in (1, 2, 3, 1, 4):
                await lab.send(f"level {level}", delay_level=level)
            await trio.sleep(12)
            await lab.send("soon", delay_level=2)
            await trio.sleep(5.5)
            lab.kill("a0")
            await trio.sleep(2)
            await lab.start_broker("a0")
            await trio.sleep(50)
            await lab.send("later", delay_level=3)
            if flush == "SYNC_FLUSH":
                lab.power("a0", kept="none")
            else:
                await lab.close("a0")
            await trio.sleep(15)
            await lab.start_broker("a0")
            await trio.sleep(65)
            await end(lab)

        yield cluster({"a": 0}, story, f"{seed}/{flush}", patient, flush=flush)


@scenario
def each_for_itself(seed: str, patient: bool) -> Iterator[History]:
    """Two members, each of which is to be given everything; a message fails; one leaves and comes again."""

    async def story(lab: Cluster) -> None:
        await make_topic(lab, 2)
        one = await join(lab, "c1", "all", broadcasting=True, good=fails("2"))
        await join(lab, "c2", "all", broadcasting=True)
        await lab.send_many(6)
        await trio.sleep(8)
        await one.leave()
        await lab.send_many(4)
        await join(lab, "c1", "all", broadcasting=True)
        await lab.send_many(4)
        await trio.sleep(65)
        await end(lab)

    yield cluster({"a": 0, "b": 0}, story, seed, patient)
