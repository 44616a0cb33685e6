"""Stories of consumer groups on a master and its slave: what members hold, commit, give back and wait for, while the master dies, stands
still, cannot be reached, returns, or is replaced by its slave."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from specs.history import Eased, Hindered, History

from chaos.consume_scenarios import fails
from chaos.scenarios import SCENARIOS, cluster, scenario
from trmq.chaos.cluster import TOPIC, Cluster
from trmq.chaos.members import end, join, make_topic
from trmq.message import MessageQueue

__all__ = ["SCENARIOS"]
RETRIES_END_S = 130.0


async def cut_off(lab: Cluster, member: str, node: str, seconds: float) -> None:
    for place in (member, node):
        lab.note(Hindered(place, "cut", trio.current_time()))
    lab.cut(member, node)
    await trio.sleep(seconds)
    lab.heal(member, node)
    lab.note(Eased(trio.current_time()))


async def swap(lab: Cluster, how: str) -> None:
    """The master falls, its slave is made master, and the old one its slave."""
    if how == "close":
        await lab.close("a0")
    else:
        getattr(lab, how)("a0")
    await lab.close("a1")
    await lab.start_broker("a1", broker_id=0)
    await lab.start_broker("a0", broker_id=1)


@scenario
def a_pair_under_a_group(seed: str, patient: bool) -> Iterator[History]:
    """Two groups, one of which fails for ever with some; delayed messages are on their way. The master is struck in four ways, each while
    messages are in hand, failed, and waiting."""
    for how in ("kill", "power", "pause", "cut"):

        async def story(lab: Cluster, how: str = how) -> None:
            await make_topic(lab, 2)
            one = await join(lab, "c1", good=fails("3", "8", until=1), takes_s=0.05, workers=2)
            await join(lab, "c2", good=fails("3", "8", until=1), takes_s=0.05)
            await join(lab, "c3", group="h", good=fails("5"), max_reconsume_times=2)
            await join(lab, "c4", "all", broadcasting=True)
            await lab.send_many(6)
            await trio.sleep(48)
            for level in (1, 2, 3):
                await lab.send("later", delay_level=level)
            for number in range(6, 12):
                await lab.send(str(number))
            if how == "pause":
                lab.pause("a0")
                await trio.sleep(8)
                lab.resume("a0")
            elif how == "cut":
                await cut_off(lab, "c1", "a0", 8)
            else:
                getattr(lab, how)("a0")
                await trio.sleep(8)
                await lab.start_broker("a0")
            await lab.send_many(4)
            await trio.sleep(20)
            await one.leave()
            await lab.send_many(4)
            await trio.sleep(RETRIES_END_S)
            for offset in (40, 50):
                await lab.pull_from("a0", offset, hold_ms=4000)
            await end(lab)

        yield cluster({"a": 1}, story, f"{seed}/{how}", patient, sync=True, flush="SYNC_FLUSH")


@scenario
def a_slave_takes_over_under_a_group(seed: str, patient: bool) -> Iterator[History]:
    """Offsets, retries and delayed messages are the new master's business; what members finished before they left is not given again."""
    for how in ("close", "kill", "disk"):

        async def story(lab: Cluster, how: str = how) -> None:
            await make_topic(lab, 2)
            one = await join(lab, "c1", good=fails("3", until=1), takes_s=0.02)
            await lab.send_many(6)
            await lab.send("later", delay_level=3)
            await trio.sleep(11)
            await swap(lab, how)
            await trio.sleep(2)
            await lab.send_many(4)
            await join(lab, "c2", takes_s=0.02)
            await lab.send("soon", delay_level=1)
            await trio.sleep(45)
            await one.leave()
            await lab.send_many(4)
            await trio.sleep(80)
            await end(lab)

        yield cluster({"a": 1}, story, f"{seed}/{how}", patient, sync=True)


@scenario
def in_order_across_a_swap(seed: str, patient: bool) -> Iterator[History]:
    """Members that consume in order. Their master dies, its slave takes its place, and the old one comes back as a slave, which one of them
    still takes for the master when the next member joins."""
    for how in ("kill", "power", "disk"):

        async def story(lab: Cluster, how: str = how) -> None:
            await make_topic(lab, 2)
            one = await join(lab, "c1", orderly=True, good=fails("2", until=2), takes_s=0.05, workers=2)
            for number in range(8):
                await lab.send(str(number), queue=MessageQueue(TOPIC, "a", number % 2))
            await trio.sleep(10)
            await swap(lab, how)
            await trio.sleep(35)
            for number in range(8):
                await lab.send(str(number), queue=MessageQueue(TOPIC, "a", number % 2))
            getattr(lab, how)("a1")  # and back again: c1 knows a1 as the master
            await trio.sleep(45)  # its locks run out
            await lab.close("a0")
            await lab.start_broker("a0", broker_id=0)
            await lab.start_broker("a1", broker_id=1)
            await trio.sleep(0.3)
            two = await join(lab, "c2", orderly=True, takes_s=0.05, workers=2)
            await lab.send_many(6)
            await trio.sleep(25)
            await one.leave()
            await lab.send_many(4)
            await trio.sleep(65)
            await two.leave()
            await join(lab, "c3", orderly=True)
            await trio.sleep(65)
            await end(lab)

        yield cluster({"a": 1}, story, f"{seed}/{how}", patient, sync=True, flush="SYNC_FLUSH")


@scenario
def leaves_as_the_master_returns(seed: str, patient: bool) -> Iterator[History]:
    """The master was restarted, and a member that has not noticed yet that it is back leaves in order: it must commit there, not at the
    slave, which its master never asks."""
    for wait_s in (0.2, 0.6, 1.4):

        async def story(lab: Cluster, wait_s: float = wait_s) -> None:
            await make_topic(lab, 2)
            one = await join(lab, "c1", takes_s=0.05)
            await join(lab, "c2", takes_s=0.05)
            await lab.send_many(4)
            await trio.sleep(20)
            await lab.send_many(8)
            await lab.close("a0")
            await trio.sleep(2)
            await lab.start_broker("a0")
            await trio.sleep(wait_s)
            await one.leave()
            await trio.sleep(30)
            await lab.send_many(2)
            await trio.sleep(65)
            await end(lab)

        yield cluster({"a": 1}, story, f"{seed}/{wait_s}", patient, sync=True)
