"""The client when a master is lost: consumers, readers and offsets go on at its slave and come back, producers go elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import attrs
import pytest
import trio
import trio.testing

import trmq
from trmq.client.offsets import BrokerOffsets

from .lab import own, pair, take

Clock = trio.testing.MockClock
FIRST = trmq.FromWhere.FIRST


@attrs.define
class Seen:
    """What a consumer was given: (time, queue id, offset, address it was read from)."""

    rows: list[tuple[float, int, int, str]] = attrs.Factory(list)

    async def read(self, consumer: trmq.Consumer, pause: float) -> None:
        async for message in consumer:
            async with message:
                if not message.queue.topic.startswith("%"):
                    self.rows.append((trio.current_time(), message.queue.queue_id, message.offset, message.served_by))
                await trio.sleep(pause)

    def first(self, address: str, since: float) -> float:
        """Seconds from `since` until something came from there."""
        return next((at for at, _, _, served in self.rows if served == address and at >= since), float("inf")) - since

    def places(self) -> Counter[tuple[int, int]]:
        return Counter((queue, offset) for _, queue, offset, _ in self.rows)

    def in_order(self) -> bool:
        """Each queue's offsets came one after the other, without a gap and without a repetition."""
        last: dict[int, int] = {}
        return all(offset == last.setdefault(queue, -1) + 1 and last.update({queue: offset}) is None for _, queue, offset, _ in self.rows)


@asynccontextmanager
async def consuming(mq: trmq.Client, *, pause: float = 0.0) -> AsyncIterator[tuple[trmq.Consumer, Seen]]:
    """A consumer of T that is never far ahead of its program, so that the rest has to come from somebody alive."""
    seen = Seen()
    async with trio.open_nursery() as nursery, mq.consumer(
        "T", group="g", from_where=FIRST, prefetch_messages=4, pull_batch=4,
    ) as consumer:
        nursery.start_soon(seen.read, consumer, pause)
        yield consumer, seen
        nursery.cancel_scope.cancel()


async def fill(mq: trmq.Client, count: int, queues: int = 2) -> None:
    await mq.admin.create_topic("T", queues=queues)
    async with mq.producer(group="p") as producer:
        for i in range(count):
            await producer.send("T", str(i))
    await trio.sleep(1)


@asynccontextmanager
async def filled_reader(mq: trmq.Client, count: int) -> AsyncIterator[trmq.Reader]:
    await fill(mq, count, queues=1)
    async with mq.reader("T", group="g") as reader:
        yield reader


# --- consumers


@pytest.mark.parametrize("names", ["with a name server", "without a name server"])
async def test_a_consumer_goes_on_from_the_slave_at_once_and_comes_back(names: str, autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq:
        await fill(mq, 1500)
        master, slave = lab.address("a"), lab.address("a1")
        async with consuming(mq, pause=0.03) as (_, seen):
            await trio.sleep(10)
            assert {row[3] for row in seen.rows} == {master}
            if names == "without a name server":
                lab.world.host("names").crash()
            lab.crash("a")
            died = trio.current_time()
            await trio.sleep(20)
            assert seen.first(slave, died) < 0.5, "what lay in the cache took its time"
            gone = [row for row in seen.rows if row[0] >= died + 0.5]
            assert {row[3] for row in gone} == {slave}
            assert max(b[0] - a[0] for a, b in pairwise(gone)) < 0.1, "no pause in between either"
            if names == "with a name server":
                await lab.start_master()
                back = trio.current_time()
                await trio.sleep(30)
                assert seen.first(master, back) < 12, "sooner than at the next ordinary route refresh"
                assert {row[3] for row in seen.rows[-20:]} == {master}
            await trio.sleep(20)
        assert seen.in_order(), "nothing lost, nothing twice, nothing out of turn"
        assert len(seen.rows) == 1500


async def test_a_waiting_consumer_waits_at_the_slave_and_at_the_master_again(autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq:
        await fill(mq, 4)
        async with consuming(mq) as (consumer, _):
            await trio.sleep(20)
            held = lab.brokers["a1"].holds.holds
            assert len(held) == 0
            lab.crash("a")
            await trio.sleep(0.2)
            assert len(held) == len(own(consumer, "T")) + 1 == 3, "and its retry queue"
            await trio.sleep(14)
            master = await lab.start_master()
            await trio.sleep(10)
            assert len(master.holds.holds) == 3, "what the slave held was called off when a route named the master again"


@pytest.mark.parametrize("how", ["power", "one way", "stopped"])
async def test_a_master_that_falls_silent_is_left(how: str, autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq:
        await fill(mq, 1500)
        slave = lab.address("a1")
        async with consuming(mq, pause=0.03) as (_, seen):
            await trio.sleep(10)
            fell = trio.current_time()
            if how == "power":
                lab.world.host("broker-a").crash("power")
            elif how == "one way":
                lab.world.net.cut("broker-a", "client", one_way=True)
            else:
                lab.world.host("broker-a").pause()
            await trio.sleep(20)
            assert seen.first(slave, fell) < 5.6, "it had messages in its cache for half a second"
            await trio.sleep(30)
            lab.world.host("broker-a").resume()
        assert seen.in_order()
        assert len(seen.rows) == 1500


async def test_a_master_that_was_only_silent_is_taken_up_again(autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq:
        await fill(mq, 3000)
        master, slave = lab.address("a"), lab.address("a1")
        async with consuming(mq, pause=0.03) as (_, seen):
            await trio.sleep(10)
            lab.world.net.cut("broker-a", "client")
            fell = trio.current_time()
            await trio.sleep(20)
            assert seen.first(slave, fell) < 5.5
            lab.world.net.heal()
            back = trio.current_time()
            await trio.sleep(10)
            assert seen.first(master, back) < 4.6
            await trio.sleep(60)
        assert seen.in_order()
        assert len(seen.rows) == 3000


async def test_a_lost_connection_alone_costs_nothing(autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq:
        await fill(mq, 500)
        master = lab.address("a")
        async with consuming(mq, pause=0.03) as (_, seen):
            await trio.sleep(3)
            lab.world.net.reset("client", "broker-a")
            reset = trio.current_time()
            await trio.sleep(30)
            assert seen.first(master, reset) < 0.5
            later = [row for row in seen.rows if row[0] > reset + 0.5]
            assert {row[3] for row in later} == {master}
        assert seen.in_order()
        assert len(seen.rows) == 500


# --- offsets


async def test_offsets_are_kept_by_the_slave_and_told_the_master_when_it_is_back(autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq, lab.connect("second") as second:
        await fill(mq, 100, queues=1)
        async with consuming(mq) as (_, seen):
            await trio.sleep(20)
            assert len(seen.rows) == 100
            assert lab.brokers["a1"].offsets.query("g", "T", 0) == 100, "copied"
            lab.crash("a")
            await trio.sleep(1)
            lab.brokers["a1"].offsets.commit("g", "T", 0, 60)  # as if the copy had been older
            await trio.sleep(10)
            assert lab.brokers["a1"].offsets.query("g", "T", 0) == 100, "what the lost master had been told is told again"
            master = await lab.start_master()
            master.offsets.commit("g", "T", 0, 60)
            await trio.sleep(40)
            assert master.offsets.query("g", "T", 0) == 100
        async with consuming(second) as (_, seen):
            await trio.sleep(20)
            assert not seen.rows


async def test_a_group_starts_and_ends_without_its_master(autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq, lab.connect("second") as second:
        await fill(mq, 100, queues=2)
        await trio.sleep(5)
        lab.crash("a")
        began = trio.current_time()
        async with consuming(second) as (_, seen):
            await trio.sleep(5)
            assert len(seen.rows) == 100
            assert seen.rows[-1][0] - began < 1
            leaving = trio.current_time()
        assert trio.current_time() - leaving < 1, "the dead one is not waited for"
        async with consuming(mq) as (_, seen):
            await trio.sleep(5)
            assert not seen.rows, "the slave was told the offsets when the first one left"


# --- readers


async def test_a_reader_reads_the_slave_and_comes_back(autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq, filled_reader(mq, 30) as reader:
        (queue,) = reader.queues()
        found = await reader.getmany(10)
        lab.crash("a")
        died = trio.current_time()
        found += await reader.getmany(10)
        assert trio.current_time() - died < 0.1
        assert [await reader.min_offset(queue), await reader.max_offset(queue), await reader.offset_at(queue, 0)] == [0, 30, 0]
        await reader.commit({queue: 20})
        assert await reader.committed(queue) == 20
        await lab.start_master()
        async with mq.producer(group="p") as producer:
            await trio.sleep(30)
            waited = trio.current_time()
            await producer.send("T", "new")
        while len(found) < 31:
            got = await reader.getmany(10, timeout=5)
            assert got
            found += got
        assert [message.offset for message in found] == list(range(31))
        assert trio.current_time() - waited < 1


async def test_a_silent_master_is_waited_for_once(autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq, filled_reader(mq, 30) as reader:
        (queue,) = reader.queues()
        lab.world.host("broker-a").crash("power")
        fell = trio.current_time()
        assert len(await reader.getmany(10)) == 10
        assert trio.current_time() - fell < 4.1
        fell = trio.current_time()
        assert await reader.max_offset(queue) == 30
        await reader.commit({queue: 10})
        assert await reader.committed(queue) == 10
        assert len(await reader.getmany(30)) == 20
        assert trio.current_time() - fell < 0.1


async def test_nobody_waits_for_a_group_that_is_gone_as_a_whole(autojump_clock: Clock) -> None:
    async with pair() as lab, lab.connect() as mq:
        await fill(mq, 4, queues=4)
        async with consuming(mq) as (consumer, _):
            await trio.sleep(10)
            for name in ("a", "a1"):
                lab.world.host(f"broker-{name}").crash("power")
            await trio.sleep(30)
            offsets = BrokerOffsets(consumer.instance, "g")
            began = trio.current_time()
            assert await offsets.commit(dict.fromkeys(own(consumer, "T"), 1), confirmed=False) == set()
            assert trio.current_time() - began < 0.1, "there is a next time"
            assert await offsets.commit(dict.fromkeys(own(consumer, "T"), 1), confirmed=True) == set()
            assert trio.current_time() - began < 6.1, "the last time each member is asked once, not once for each queue"


# --- producers


async def test_sends_go_to_the_other_group_and_come_back(autojump_clock: Clock) -> None:
    async with pair("b") as lab, lab.connect() as mq, mq.producer(group="p", retries=0) as producer:
        await mq.admin.create_topic("T", queues=2)
        await producer.send("T", "x")
        lab.crash("a")
        await trio.sleep(0.1)
        began = trio.current_time()
        names = Counter([(await producer.send("T", "x")).queue.broker_name for _ in range(40)])
        assert names == {"b": 40}
        assert trio.current_time() - began < 0.5
        await trio.sleep(20)
        await lab.start_master()
        await trio.sleep(25)
        names = Counter([(await producer.send("T", "x")).queue.broker_name for _ in range(40)])
        assert names == {"a": 20, "b": 20}


async def test_running_clients_go_on_without_any_name_server(autojump_clock: Clock) -> None:
    async with pair("b") as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=2)
        async with mq.consumer("T", group="g", from_where=FIRST) as consumer:
            await consumer.assigned()
            lab.world.host("names").crash()
            await trio.sleep(100)
            for i in range(10):
                await producer.send("T", str(i))
            assert len(await take(consumer, 10)) == 10
            lab.crash("a")
            for i in range(10):
                assert (await producer.send("T", str(i))).queue.broker_name == "b"
            assert len(await take(consumer, 10, within=1)) == 10
            await trio.sleep(30)
            await lab.start_master(namesrv_addr="10.0.0.99:9876")
            await trio.sleep(5)
            names = Counter([(await producer.send("T", "x")).queue.broker_name for _ in range(20)])
            assert names == {"a": 10, "b": 10}, "the old route still holds"
