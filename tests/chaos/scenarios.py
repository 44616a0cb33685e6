"""Stories of clusters, as histories to be judged. Every clause has witnesses in them; seeded bugs must show in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import trio
from specs.history import History, LinkLost, Registered, RouteSeen, Unregistered

from chaos.cores import SETTINGS, VERBS, Cores, Log, fed, play
from trmq.chaos.cluster import Cluster, Story, running
from trmq.route import selection
from trmq.route.registry import Member, Registry
from trmq.sim.determinism import run_seeded
from trmq.wire.bodies import DataVersion, TopicConfig, TopicConfigSerializeWrapper

Scenario = Callable[[str, bool], Iterator[History]]
"""(seed, patient) -> histories; a patient one swallows what a seeded bug makes the code raise."""
SCENARIOS: dict[str, Scenario] = {}


def forgiving(patient: bool) -> AbstractContextManager[None]:
    return suppress(Exception) if patient else nullcontext()


def scenario(make: Scenario) -> Scenario:
    SCENARIOS[make.__name__] = make
    return make


def cluster(groups: dict[str, int], story: Story, seed: str, patient: bool, **config: Any) -> History:
    """The history of one run of `story` on a started cluster."""
    made: list[Cluster] = []

    async def main() -> None:
        async with running(seed, groups, **config) as lab:
            made.append(lab)
            await story(lab)

    with forgiving(patient):
        run_seeded(main, seed)
    return made[0].history(story.__name__) if made else History(())


# --- the cores alone


@scenario
def core_lives(seed: str, patient: bool) -> Iterator[History]:
    """Random lives of a master, slaves and liars, with every setting."""
    for die in range(240):
        rng = random.Random(f"{seed}/{die}")
        need, minimum, gap, slaves, auto = SETTINGS[die % len(SETTINGS)]
        options = {"need": need, "minimum": minimum, "gap": gap, "slaves": slaves, "auto": auto}
        lab = Cores(f"{seed}/{die}", **options, announced=die // 6 % 4 != 3, last_segment=die % 5 == 4)
        steps = [(rng.choice(VERBS), rng.randrange(6)) for _ in range(90)]
        with forgiving(patient):
            play(lab, steps)
        yield lab.history(f"die={die}")


@scenario
def stream_cut_anywhere(seed: str, patient: bool) -> Iterator[History]:
    for die in range(20):
        log = Log(4096 * (die % 2))
        for number in range(1, 2 + die % 11):
            log.append(f"m{number}", 37 * number % 500 + die)
        with forgiving(patient):
            yield History(tuple(fed(f"{seed}/{die}", log, 3 + 40 * die)), origin=f"fed {seed}/{die}")


@scenario
def one_slave_twice(seed: str, patient: bool) -> Iterator[History]:
    """Three holders are needed; one of the two slaves is connected twice, and both connections report the record."""
    for announced in (True, False):
        lab = Cores(seed, need=3, slaves=2, announced=announced)
        with forgiving(patient):
            play(lab, [("connect", 0), ("put", 0), ("settle", 0), ("connect_again", 0), ("settle", 0), ("expire", 0)])
        yield lab.history(f"announced={announced}")


@scenario
def longer_slave_returns(seed: str, patient: bool) -> Iterator[History]:
    """A master lost what its slave has. The slave dials again; the master goes on, and grows past the slave's end."""
    for announced in (True, False):
        lab = Cores(seed, slaves=1, announced=announced)
        lab.sizes = (30,)
        with forgiving(patient):
            grow = [("put", 0), ("put", 0), ("put", 0), ("put", 0), ("put", 0), ("settle", 0)]
            play(lab, [("connect", 0), *grow, ("master_loses_tail", 3), ("connect", 0), *grow[1:]])
        yield lab.history(f"announced={announced}")


# --- routes and producers


@scenario
def registrations(seed: str, patient: bool) -> Iterator[History]:
    """Brokers come, go, fall silent, lose their connection and change places; after each step the route is looked at."""
    for die in range(40):
        rng = random.Random(f"{seed}/{die}")
        registry, now = Registry(), 0.0
        events: list[Any] = []
        with forgiving(patient):
            for _ in range(40):
                now += rng.random() * 20
                registry.expire(now)
                _one_step(registry, events, rng, now)
                _see_route(registry, events, now)
        yield History(tuple(events), origin=f"registrations {seed}/{die}")


def _one_step(registry: Registry, events: list[Any], rng: random.Random, now: float) -> None:
    group, id, number = rng.choice("ab"), rng.randrange(2), rng.randrange(1, 5)
    address, link = f"10.0.0.{number}:10911", f"link {number}"
    match rng.choice(("register", "register", "register", "unregister", "lost")):
        case "register":
            state = rng.randrange(3)
            table = {name: TopicConfig(name, 4, 4, 6) for name in ("T", "U")}
            body = TopicConfigSerializeWrapper(data_version=DataVersion(rng.randrange(3), state, 5), topic_config_table=table)
            timeout = rng.choice((30.0, 120.0))
            acting = rng.choice((None, False, True))
            registry.register(Member("C", group, id, address), body, now, link=link, timeout=timeout, acting_master=acting)
            events.append(Registered(group, id, address, state, link, timeout, at=now))
        case "unregister":
            registry.unregister([Member("C", group, id, address)])
            events.append(Unregistered(group, id, address, now))
        case "lost":
            registry.link_lost(link)
            events.append(LinkLost(link, now))


def _see_route(registry: Registry, events: list[Any], now: float) -> None:
    found = registry.route("T")
    if found is None:
        events.append(RouteSeen("T", {}, frozenset(), now))
    else:
        writable = frozenset(queue.broker_name for queue in selection.publish_info("T", found).queues)
        events.append(RouteSeen("T", {data.broker_name: dict(data.broker_addrs) for data in found.broker_datas}, writable, now))


@scenario
def a_master_dies_and_returns(seed: str, patient: bool) -> Iterator[History]:
    """Two groups. One master is killed with sends on their way to it, returns, is cut off from the producer; then the other dies."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic(12)
        await lab.send_many(8)
        lab.disk_full("a0")
        await lab.send_many(8)
        lab.disk_free("a0")
        lab.slow["producer", "a0"] = 0.5
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(lab.send)
            await trio.sleep(0.2)
            lab.kill("a0")
        lab.slow.clear()
        await lab.send_many(8)
        await lab.start_broker("a0")
        await trio.sleep(31)
        lab.cut("producer", "a0")
        for _ in range(5):
            await lab.send(timeout=2)
        await lab.send_many(8)
        lab.heal()
        await trio.sleep(31)
        lab.kill("a0")
        lab.kill("b0")
        await lab.send(timeout=2)
        await lab.start_broker("b0")
        await lab.send()  # it counts as bad still, and there is no other
        await lab.start_broker("a0")
        await trio.sleep(31)
        await lab.send_many(8)
        await lab.finish()

    yield cluster({"a": 0, "b": 0}, story, seed, patient)


@scenario
def unwaited(seed: str, patient: bool) -> Iterator[History]:
    """Messages that ask not to be waited for, among others, on a disk that is slow to sync."""
    for sync in (False, True):

        async def story(lab: Cluster) -> None:
            await lab.create_topic()
            lab.world.host("a0").disk.latency = lambda op, path: 0.4 if op == "sync" else 0.0
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(partial(lab.send, f"{number}", wait=bool(number % 2), producer=f"p{number % 3}"))
                    await trio.sleep(0.1)
            await lab.finish()

        yield cluster({"a": 0}, story, seed, patient, flush="SYNC_FLUSH", sync=sync)
