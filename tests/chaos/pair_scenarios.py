"""Stories of a master and its slaves: they are imported by `scenarios`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import trio
from specs.history import History, Serving

from chaos.bare import BareSlave
from chaos.scenarios import SCENARIOS, cluster, scenario
from trmq.chaos.cluster import SEGMENT, Cluster, Flush

__all__ = ["SCENARIOS"]
FLUSHES: tuple[Flush, ...] = ("ASYNC_FLUSH", "SYNC_FLUSH")


@scenario
def dual_write(seed: str, patient: bool) -> Iterator[History]:
    """SYNC_MASTER and a slave on a slow link, then without it, then with it again; each flush mode. Segments roll on the way."""
    for flush in FLUSHES:

        async def story(lab: Cluster) -> None:
            await lab.create_topic()
            lab.slow["a0", "a1"] = lab.slow["a1", "a0"] = 0.2
            lab.world.host("a1").disk.latency = lambda op, path: 0.1 if op == "sync" else 0.0
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(partial(lab.send, f"{number}", producer=f"p{number % 3}", wait=number % 5 != 4))
                    await trio.sleep(0.05)
            lab.kill("a1")
            await lab.send_many(3)
            await lab.start_broker("a1")
            await trio.sleep(3)
            lab.slow.clear()
            await lab.send_many(10)
            await lab.settle(16)
            await lab.finish()

        yield cluster({"a": 1}, story, f"{seed}/{flush}", patient, sync=True, flush=flush)


@scenario
def slow_and_stopped_slaves(seed: str, patient: bool) -> Iterator[History]:
    """The slave's process stands still while messages flow, goes on, is cut off, returns: FLUSH_SLAVE_TIMEOUT and nothing worse."""
    for flush in FLUSHES:

        async def story(lab: Cluster) -> None:
            await lab.create_topic()
            await lab.send_many(3)
            lab.pause("a1")
            for _ in range(3):
                await lab.send()
            lab.resume("a1")
            await lab.send_many(3)
            lab.cut("a0", "a1")
            await lab.send()
            await trio.sleep(25)
            await lab.send()
            await lab.settle(16)
            lab.cut("a1", "a0", one_way=True)
            await lab.send()
            await trio.sleep(25)
            await lab.settle(16)
            await lab.send_many(3)
            await lab.finish()

        yield cluster({"a": 1}, story, f"{seed}/{flush}", patient, sync=True, flush=flush)


@scenario
def two_slaves(seed: str, patient: bool) -> Iterator[History]:
    """Both slaves are needed; one is a little behind, dies, returns empty."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic()
        lab.slow["a0", "a2"] = 0.3
        await lab.send_many(8)
        lab.disk("a2")
        await lab.send()
        await lab.start_broker("a2")
        await trio.sleep(5)
        await lab.send_many(3)
        await lab.settle(16)
        await lab.finish()

    yield cluster({"a": 2}, story, seed, patient, sync=True, in_sync_replicas="all")


@scenario
def not_enough_in_sync(seed: str, patient: bool) -> Iterator[History]:
    """Two must be in sync; the slave falls behind by more than the gap, dies, returns."""
    for auto in (False, True):

        async def story(lab: Cluster) -> None:
            await lab.create_topic()
            await lab.send_many(3)
            lab.pause("a1")
            for number in range(6):
                await lab.send("y" * 300, timeout=4 + number)
            lab.resume("a1")
            await trio.sleep(2)
            await lab.send_many(3)
            lab.kill("a1")
            await lab.send()
            await lab.start_broker("a1")
            await trio.sleep(3)
            await lab.send_many(3)
            await lab.finish()

        yield cluster(
            {"a": 1}, story, f"{seed}/{auto}", patient, sync=True, min_in_sync_replicas=2, ha_max_gap_not_in_sync=1500,
            enable_auto_in_sync_replicas=auto,
        )


@scenario
def asynchronous_pair(seed: str, patient: bool) -> Iterator[History]:
    """ASYNC_MASTER: answers come before the slave has anything; the master's disk is destroyed; the slave becomes master."""
    for flush in FLUSHES:

        async def story(lab: Cluster) -> None:
            await lab.create_topic()
            await lab.send_many(5)
            await trio.sleep(12)
            lab.part("a0", "a1")
            await lab.send_many(5)
            lab.disk("a0")
            lab.heal()
            await lab.close("a1")
            await lab.start_broker("a1", broker_id=0)
            await trio.sleep(1)
            await lab.send_many(3)
            await lab.finish()

        yield cluster({"a": 1}, story, f"{seed}/{flush}", patient, flush=flush)


@scenario
def ack_is_lost(seed: str, patient: bool) -> Iterator[History]:
    """The slave wrote the message and the master's answer is on its way when the master dies: the producer turns to the other group."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic(4)
        lab.slow["a0", "producer"] = lab.slow["b0", "producer"] = 0.5
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(lab.send)
            await trio.sleep(0.2)
            lab.world.net.reset("a0", "producer")
            lab.kill("a0")
        await lab.start_broker("a0")
        await trio.sleep(2)
        await lab.finish()

    yield cluster({"a": 1, "b": 1}, story, seed, patient, sync=True)


@scenario
def disk_dies_in_flight(seed: str, patient: bool) -> Iterator[History]:
    """What is on its way to the slave, or finds its disk full, is not acknowledged; the master's disk dies, the slave becomes master."""
    for full in (False, True):

        async def story(lab: Cluster, full: bool = full) -> None:
            await lab.create_topic()
            await lab.send_many(3)
            if full:
                lab.writes_fail("a1")
            else:
                lab.slow["a0", "a1"] = 1.0
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(partial(lab.send, f"{number}", timeout=5))
                await trio.sleep(0.5)
                lab.look()
                lab.part("a0", "a1")
                lab.disk("a0")
                lab.writes_work("a1")
                lab.slow.clear()
            lab.heal()
            await lab.close("a1")
            await lab.start_broker("a1", broker_id=0, in_sync_replicas="1")
            await trio.sleep(1)
            await lab.send_many(2)
            await lab.finish()

        yield cluster({"a": 1}, story, f"{seed}/{full}", patient, sync=True)


@scenario
def power_goes(seed: str, patient: bool) -> Iterator[History]:
    """A single master loses power right after it answered."""
    for flush in FLUSHES:

        async def story(lab: Cluster) -> None:
            await lab.create_topic()
            lab.world.host("a0").disk.latency = lambda op, path: 0.2 if op == "sync" and path.startswith("commitlog/") else 0.0
            await lab.send_many(6)
            lab.power("a0", kept="none")
            await lab.start_broker("a0")
            await trio.sleep(1)
            await lab.send_many(2)
            await lab.finish()

        yield cluster({"a": 0}, story, f"{seed}/{flush}", patient, flush=flush)


@scenario
def longer_slave(seed: str, patient: bool) -> Iterator[History]:
    """The master loses power and returns with less than its slave has: it must not serve or count it. Then the slave is made master."""
    for promote in (False, True):

        async def story(lab: Cluster, promote: bool = promote) -> None:
            await lab.create_topic()
            await lab.send_many(4)
            await trio.sleep(12)
            await lab.send_many(4)
            lab.power("a0", kept="none")
            lab.look()
            await lab.start_broker("a0")
            await trio.sleep(8)
            for _ in range(2 if promote else 6):
                await lab.send("0")
            lab.look()
            if promote:
                await lab.close("a0")
                await lab.close("a1")
                await lab.start_broker("a1", broker_id=0)
                await lab.start_broker("a0", broker_id=1)
                await trio.sleep(8)
                await lab.send_many(3)
                await lab.finish()

        yield cluster({"a": 1}, story, f"{seed}/{promote}", patient, sync=True)


@scenario
def switched_by_hand(seed: str, patient: bool) -> Iterator[History]:
    """The master dies with messages its slave lacks; the slave becomes master; the old one returns as slave, and then loses power."""
    for die in range(8):

        async def story(lab: Cluster, die: int = die) -> None:
            await lab.create_topic()
            await lab.send_many(4)
            await trio.sleep(12)
            lab.part("a0", "a1")
            await lab.send_many(6)
            await trio.sleep(12)  # flushed: what is cut was durable
            lab.kill("a0")
            lab.heal()
            await lab.close("a1")
            await lab.start_broker("a1", broker_id=0)
            await trio.sleep(1)
            await lab.start_broker("a0", broker_id=1)
            await trio.sleep(2)
            lab.look()
            lab.kill("a1")
            lab.power("a0", kept="none" if die == 0 else None)
            await lab.start_broker("a0", broker_id=1)
            lab.look()
            await lab.start_broker("a1", broker_id=0)
            await trio.sleep(2)
            await lab.send_many(3)
            await lab.finish()

        yield cluster({"a": 1}, story, f"{seed}/{die}", patient)


@scenario
def strangers(seed: str, patient: bool) -> Iterator[History]:
    """At the HA port: claims that cannot be, a peer that says something once and then nothing, one that never reads."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic()
        await lab.send_many(3)
        lab.kill("a1")
        for words in ([1], [1 << 62], [-10, -100], [0, 1]):
            stream = await lab.dial_ha("a0")
            end = lab.logs["a0"].end
            await stream.send_all(b"".join((end + word).to_bytes(8, "big") for word in words))
            await lab.send()
            await trio.sleep(1)
        silent = await lab.dial_ha("a0")
        await silent.send_all(lab.logs["a0"].end.to_bytes(8, "big"))
        await trio.sleep(25)
        await lab.start_broker("a1")
        await trio.sleep(62)  # the slave's connection is idle
        await lab.send_many(3)
        await lab.finish()

    yield cluster({"a": 1}, story, seed, patient, sync=True)


@scenario
def bare_slave(seed: str, patient: bool) -> Iterator[History]:
    """A slave that knows the bare protocol only, as Apache's: it joins late, is cut off, comes again."""
    for sync in (True, False):
        for flush in FLUSHES:

            async def story(lab: Cluster) -> None:
                await lab.create_topic()
                await lab.send_many(12)
                slave = BareSlave(lab, "a9")
                lab.note(Serving(
                    "a9", "a", 9, "SLAVE", False, segment_size=SEGMENT, from_last_segment=True, plain=True, at=trio.current_time(),
                ))  # fmt: skip
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(slave.run)
                    await trio.sleep(2)
                    await lab.send_many(5)
                    lab.world.net.reset("a0", "a9")
                    await lab.send_many(2)
                    await trio.sleep(10)
                    await lab.send_many(5)
                    await trio.sleep(2)
                    await lab.finish()
                    nursery.cancel_scope.cancel()

            yield cluster({"a": 0}, story, f"{seed}/{sync}/{flush}", patient, sync=sync, flush=flush)


@scenario
def late_slave(seed: str, patient: bool) -> Iterator[History]:
    """An empty slave joins a master with several segments; by default from the first, else from the last."""
    for last in (False, True):

        async def story(lab: Cluster) -> None:
            await lab.create_topic()
            lab.disk("a1")
            for _ in range(3):
                await lab.send_many(8)
            await lab.start_broker("a1")
            await trio.sleep(3)
            await lab.send_many(3)
            await lab.settle(16)
            await lab.finish()

        yield cluster({"a": 1}, story, f"{seed}/{last}", patient, sync_from_last_file=last)


# --- reading


@scenario
def consumer_switches(seed: str, patient: bool) -> Iterator[History]:
    """A consumer works; the master dies; the slave serves; the master returns; more is sent. Tables are looked at throughout."""
    for sync in (True, False):

        async def story(lab: Cluster) -> None:
            await lab.create_topic()
            await lab.nursery.start(lab.consume, "consumer")
            await lab.see_tables("a0", "a1")
            await lab.send_many(8)
            await trio.sleep(70)
            await lab.see_tables("a0", "a1")
            await lab.send_many(8)
            lab.kill("a0")
            await trio.sleep(40)
            await lab.see_tables("a1")
            await lab.start_broker("a0")
            await trio.sleep(40)
            await lab.send_many(8)
            await lab.create_topic(3, "U")
            await trio.sleep(0.2)
            await lab.see_tables("a0", "a1")
            await trio.sleep(70)
            await lab.see_tables("a0", "a1")
            await lab.send_many(8)
            await trio.sleep(0.1)
            lab.kill("a0")  # with it dies what it knew of the group's offsets since the slave last asked
            await lab.nursery.start(lab.consume, "consumer2")
            await trio.sleep(60)
            await lab.start_broker("a0")
            await lab.settle(16)
            await lab.finish()

        yield cluster({"a": 1}, story, f"{seed}/{sync}", patient, sync=sync)


@scenario
def master_falls_silent(seed: str, patient: bool) -> Iterator[History]:
    """The master's machine loses power: nobody closes a connection, and the name server keeps it for two minutes."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic()
        await lab.nursery.start(lab.consume, "consumer")
        await lab.send_many(8)
        await trio.sleep(20)
        lab.power("a0")
        await trio.sleep(60)
        await lab.start_broker("a0")
        await trio.sleep(40)
        await lab.send_many(8)
        await trio.sleep(5)
        await lab.finish()

    yield cluster({"a": 1}, story, seed, patient)


@scenario
def consumer_lags(seed: str, patient: bool) -> Iterator[History]:
    """More is waiting than the master keeps in memory: the consumer is sent to the slave, and comes back."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic(1)
        await lab.send_many(60)
        await trio.sleep(3)
        await lab.nursery.start(lab.consume, "consumer")
        await trio.sleep(20)
        await lab.send_many(5)
        await lab.settle(16)
        await lab.finish()

    yield cluster({"a": 1}, story, seed, patient, memory=10_000, max_transfer_count_on_message_in_memory=4,
                  max_transfer_count_on_message_in_disk=4)


@scenario
def slave_is_asked(seed: str, patient: bool) -> Iterator[History]:
    """Sends to a slave, and pulls of offsets that it does not have, with its master there and not."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic(1)
        await lab.send_many(6)
        await trio.sleep(1)
        lab.look()
        for node in ("a1", "a0", "a1"):
            await lab.send_to(node)
        for _ in range(2):
            for offset in (3, 6, 7, 8, 50, 1000):
                await lab.pull_from("a1", offset)
            lab.kill("a0")
        await lab.start_broker("a0")
        await trio.sleep(3)
        await lab.send_to("a1")
        await lab.finish()

    yield cluster({"a": 1}, story, seed, patient)


@scenario
def a_group_comes_late(seed: str, patient: bool) -> Iterator[History]:
    """Much is there when the consumers come, and more is sent while they read; the slave dies and returns."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic()
        await lab.send_many(12)
        await lab.nursery.start(lab.consume, "consumer")
        await lab.send_many(4)
        lab.kill("a1")
        await lab.send_many(4)
        await lab.start_broker("a1")
        await lab.settle(16)
        await lab.finish()

    yield cluster({"a": 1}, story, seed, patient, sync=True)
