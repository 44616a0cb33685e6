"""The client in a simulated world: what happens around crashes, silence, cancellation and long waits, in no time."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

import trmq
from trmq.broker.handlers import offset
from trmq.broker.offsets import OffsetTable
from trmq.broker.service import Broker
from trmq.remoting import Answer, Connection
from trmq.wire.codes import RequestCode
from trmq.wire.command import Command

from .lab import NAMES, own, running, take

Clock = trio.testing.MockClock
FIRST = trmq.FromWhere.FIRST


# --- sending


async def test_a_send_that_timed_out_is_unknown_and_tells_its_key(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await producer.send("T", "before")
        lab.world.net.cut("broker-a", "client", one_way=True)  # requests arrive, answers don't
        began = trio.current_time()
        with pytest.raises(trmq.SendFailed) as failure:
            await producer.send("T", "lost answer")
        assert failure.value.unknown
        assert trio.current_time() - began == pytest.approx(3.0, abs=0.1), "one timeout over all tries"
        lab.world.net.heal()
        copies = await mq.admin.message_by_unique_key("T", failure.value.unique_key)
        assert [m.body for m in copies] == [b"lost answer"], "it was there, and the key finds it"


async def test_a_cancelled_send_notes_its_key(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await producer.send("T", "before")
        lab.world.net.cut("broker-a", "client", one_way=True)
        message = producer.prepare("T", "cancelled")
        notes: list[str] = []
        with trio.move_on_after(0.5):
            try:
                await producer.send(message)
            except trio.Cancelled as cancelled:
                notes += cancelled.__notes__
                raise
        assert message.unique_key in notes[0]
        lab.world.net.heal()
        assert len(await mq.admin.message_by_unique_key("T", message.unique_key)) == 1


async def test_nothing_that_never_left_is_called_unknown(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await producer.send("T", "before")
        lab.crash()
        await trio.sleep(0.1)
        with pytest.raises(trmq.SendFailed) as failure:
            await producer.send("T", "nobody there")
        assert not failure.value.unknown


async def test_a_lost_broker_is_avoided_at_once(autojump_clock: Clock) -> None:
    async with running("a", "b") as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=2)
        assert {(await producer.send("T", "x")).queue.broker_name for _ in range(4)} == {"a", "b"}
        lab.crash("a")
        names = Counter([(await producer.send("T", "x")).queue.broker_name for _ in range(20)])
        assert names == {"b": 20}, "every send succeeded, without its caller noticing"


async def test_a_chosen_queue_is_not_exchanged_for_another(autojump_clock: Clock) -> None:
    async with running("a", "b") as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=1)
        at_a = next(queue for queue in await producer.queues("T") if queue.broker_name == "a")
        lab.crash("a")
        with pytest.raises(trmq.SendFailed):
            await producer.send("T", "x", queue=at_a)


async def test_name_servers_stand_in_for_each_other(autojump_clock: Clock) -> None:
    async with running() as lab:
        host = lab.world.host("client")
        async with trmq.connect(f"10.0.0.99:9876;{NAMES}:9876;10.0.0.98:9876", host=host) as mq, mq.producer(group="p") as producer:
            for _ in range(3):
                await producer.send("T", "x", timeout=10)
        async with trmq.connect("10.0.0.99:9876", host=host) as mq, mq.producer(group="p") as producer:
            with pytest.raises(trmq.SendFailed, match="no name server") as failure:
                await producer.send("T", "x", timeout=10)
            assert not failure.value.unknown


async def test_an_unknown_topic_without_creation_is_a_clear_error(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p", create_topics=False) as producer:
        with pytest.raises(trmq.RouteNotFound, match="'T'"):
            await producer.send("T", "x")


# --- consuming


async def test_a_waiting_consumer_hears_at_once(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=4)
        async with mq.consumer("T", group="g") as consumer:
            await trio.sleep(100)  # several long polls came and went
            began = trio.current_time()
            await producer.send("T", "x")
            await take(consumer, 1)
            assert trio.current_time() - began < 0.5


async def test_the_whole_ladder_to_the_dead_letters(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await producer.send("T", "poison")
        waits: list[int] = []
        began = trio.current_time()
        async with mq.consumer("T", group="g", from_where=FIRST) as consumer:
            async for message in consumer:
                waits.append(round(trio.current_time() - began))
                began = trio.current_time()
                async with message:
                    if len(waits) == 17:
                        assert message.reconsume_times == 16
                        await message.nack()
                        break
                    raise LookupError("never works")
        ladder = [10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200]
        assert all(abs(wait - level) <= 2 for wait, level in zip(waits[1:], ladder, strict=True)), waits
        await trio.sleep(5)
        async with mq.reader("%DLQ%g") as reader:
            assert [m.body for m in await reader.getmany()] == [b"poison"]


async def test_an_unfinished_message_holds_the_offset_back(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=1)
        for i in range(10):
            await producer.send("T", str(i))
        async with mq.consumer("T", group="g", from_where=FIRST) as consumer:
            held: list[trmq.Delivery] = []
            async for message in consumer:
                if message.body == b"3":
                    held.append(message)
                else:
                    await message.ack()
                if message.body == b"9":
                    break
            await trio.sleep(10)
            (progress,) = await mq.admin.progress("g", "T")
            assert progress.consumer_offset == 3
            await held[0].ack()
            await held[0].nack()  # decided already: changes nothing
            await trio.sleep(10)
            (progress,) = await mq.admin.progress("g", "T")
            assert progress.consumer_offset == 10


async def test_a_killed_consumer_costs_at_most_what_it_had_not_committed(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=2)
        seen: Counter[str] = Counter()

        async def victim(host: Any) -> None:
            async with trmq.connect(f"{NAMES}:9876", host=host) as other, other.consumer("T", group="g", from_where=FIRST) as consumer:
                async for message in consumer:
                    async with message:
                        seen[message.body.decode()] += 1

        lab.nursery.start_soon(lab.world.host("victim").run, victim)
        for i in range(20):
            await producer.send("T", f"early-{i}")
        await trio.sleep(30)
        assert len(seen) == 20
        for i in range(5):
            await producer.send("T", f"late-{i}")
        await trio.sleep(1)
        lab.world.host("victim").crash("power")
        async with mq.consumer("T", group="g") as consumer:
            with trio.move_on_after(300):
                async for message in consumer:
                    async with message:
                        seen[message.body.decode()] += 1
        assert all(seen[f"early-{i}"] == 1 for i in range(20)), "committed, not repeated"
        assert all(seen[f"late-{i}"] >= 1 for i in range(5)), "nothing is lost"


async def test_a_cancelled_handler_gives_the_message_back(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await producer.send("T", "x")
        times: list[int] = []
        async with mq.consumer("T", group="g", from_where=FIRST) as consumer:
            async for message in consumer:
                times.append(message.reconsume_times)
                with trio.move_on_after(1):
                    async with message:
                        if len(times) == 1:
                            await trio.sleep_forever()
                if len(times) == 2:
                    break
        assert times == [0, 1]


async def test_leaving_in_the_middle_leaves_the_message_to_the_next(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=1)
        for body in ("done", "in hand", "cached"):
            await producer.send("T", body)
        with trio.move_on_after(20):
            async with mq.consumer("T", group="g", from_where=FIRST) as consumer:
                async for message in consumer:
                    async with message:
                        if message.body == b"in hand":
                            await trio.sleep_forever()
        (progress,) = await mq.admin.progress("g", "T")
        assert progress.consumer_offset == 1, "the last commit happened although everything was being cancelled"
        async with mq.consumer("T", group="g") as consumer:
            again = await take(consumer, 2)
        assert [(m.body, m.reconsume_times) for m in again] == [(b"in hand", 0), (b"cached", 0)], "nobody failed, so no try was counted"


async def test_prefetch_is_bounded(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=1)
        for i in range(200):
            await producer.send("T", str(i))
        async with mq.consumer("T", group="g", from_where=FIRST, prefetch_messages=10, pull_batch=4) as consumer:
            await trio.sleep(60)
            cells = {queue.topic: cell for queue, cell in consumer.assignment.cells.items()}
            assert 10 <= cells["T"].count <= 13
            assert [int(m.body) for m in await take(consumer, 200)] == list(range(200)), "and pulling goes on as they are finished"


async def test_members_come_and_go(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect("one") as one, lab.connect("two") as two:
        await one.admin.create_topic("T", queues=5)
        async with one.consumer("T", group="g") as a:
            await trio.sleep(1)
            assert len(own(a, "T")) == 5
            async with two.consumer("T", group="g") as b:
                await trio.sleep(1)
                assert sorted([len(own(a, "T")), len(own(b, "T"))]) == [2, 3]
                assert not set(own(a, "T")) & set(own(b, "T"))
            await trio.sleep(1)
            assert len(own(a, "T")) == 5, "told by the broker, not found out 20 s later"


async def test_a_restarted_broker_gets_its_consumers_back(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=2)
        async with mq.consumer("T", group="g", from_where=FIRST) as consumer:
            await producer.send("T", "before")
            assert [m.body for m in await take(consumer, 1)] == [b"before"]
            await trio.sleep(12)
            lab.crash()
            await trio.sleep(5)
            await lab.start_broker()
            for _ in range(10):
                await producer.send("T", "after", timeout=30)
            got = Counter(m.body for m in await take(consumer, 10))
            assert got[b"after"] == 10


async def test_a_reset_from_the_broker_is_followed(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=1)
        for i in range(3):
            await producer.send("T", str(i))
        async with mq.consumer("T", group="g", from_where=FIRST) as consumer:
            assert len(await take(consumer, 3)) == 3
            await trio.sleep(10)
            await mq.admin.reset_offset("g", "T", to_ms=0)
            await producer.send("T", "3")
            again = await take(consumer, 4)
            assert [m.body for m in again] == [b"0", b"1", b"2", b"3"]


# --- orderly


async def test_a_member_that_lost_its_lock_stops_delivering(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect("one") as one, lab.connect("two") as two, one.producer(group="p") as producer:
        await one.admin.create_topic("T", queues=1)
        for i in range(3):
            await producer.send("T", str(i))
        async with one.consumer("T", group="g", orderly=True, from_where=FIRST) as a:
            assert [m.body for m in await take(a, 1)] == [b"0"]
            await trio.sleep(10)  # committed
            lab.world.net.cut("one", "broker-a")
            await trio.sleep(45)  # past the lease, before the broker gives the lock away
            assert a.take_nowait() is None, "1 lies in the cache, but the queue may be somebody else's by now"
            async with two.consumer("T", group="g", orderly=True) as b:
                assert [m.body for m in await take(b, 2, within=300)] == [b"1", b"2"]


async def test_what_nobody_waited_for_does_not_undo_the_offset_of_a_handover(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Apache's brokers take the requests of one connection side by side. At this one every commit that is not answered for (one-way,
    or along with a pull) is handled late; in order, no message may come twice for that."""
    update, commit = offset.update_consumer_offset, OffsetTable.commit
    answered = False

    def handle(broker: Broker, conn: Connection, command: Command) -> Answer:
        nonlocal answered
        answered = not command.is_oneway
        try:
            return update(broker, conn, command)
        finally:
            answered = False

    async def late(*args: Any) -> None:
        await trio.sleep(0.5)
        commit(*args)

    def told(*args: Any) -> bool:
        if answered:
            return commit(*args)
        lab.nursery.start_soon(late, *args)
        return True

    monkeypatch.setitem(offset.HANDLERS, RequestCode.UPDATE_CONSUMER_OFFSET, handle)
    monkeypatch.setattr(OffsetTable, "commit", told)
    async with running() as lab, lab.connect("one") as one, lab.connect("two") as two, one.producer(group="p") as producer:
        await one.admin.create_topic("T", queues=2)
        total, seen = 200, list[int]()

        async def work(consumer: trmq.Consumer) -> None:
            async for message in consumer:
                async with message:
                    await trio.sleep(0.05)
                    seen.append(int(message.body))

        options: dict[str, Any] = {"group": "g", "orderly": True, "from_where": FIRST}
        async with one.consumer("T", **options) as a, trio.open_nursery() as nursery:
            nursery.start_soon(work, a)
            for part in range(4):  # a second member comes and goes
                for i in range(part * 50, part * 50 + 25):
                    await producer.send("T", str(i), sharding_key=str(i % 2))
                    await trio.sleep(0.1)
                async with two.consumer("T", **options) as b:
                    nursery.start_soon(work, b)
                    for i in range(part * 50 + 25, part * 50 + 50):
                        await producer.send("T", str(i), sharding_key=str(i % 2))
                        await trio.sleep(0.1)
            with trio.fail_after(60):
                while len(seen) < total:
                    await trio.sleep(0.1)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
        assert sorted(seen) == list(range(total))


async def test_an_orderly_limit_buries_the_message_and_goes_on(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=1)
        for body in ("poison", "next"):
            await producer.send("T", body)
        tries = []
        async with mq.consumer("T", group="g", orderly=True, from_where=FIRST, max_reconsume_times=2) as consumer:
            with trio.fail_after(60):
                async for message in consumer:
                    async with message:
                        if message.body == b"next":
                            break
                        tries.append((round(trio.current_time()), message.reconsume_times))
                        raise LookupError("never works")
        assert [times for _, times in tries] == [0, 1, 2]
        assert [b[0] - a[0] for a, b in pairwise(tries)] == [1, 1]
        async with mq.reader("%DLQ%g") as reader:
            assert [m.body for m in await reader.getmany(timeout=10)] == [b"poison"]


# --- the rest


async def test_broadcasting_progress_is_a_file(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect("one") as one, lab.connect("two") as two, one.producer(group="p") as producer:
        await one.admin.create_topic("T", queues=2)
        for i in range(4):
            await producer.send("T", str(i))
        for mq in (one, two):
            async with mq.consumer("T", group="g", broadcasting=True, from_where=FIRST) as consumer:
                assert len(await take(consumer, 4)) == 4
        await producer.send("T", "new")
        async with one.consumer("T", group="g", broadcasting=True, from_where=FIRST) as consumer:
            assert [m.body for m in await take(consumer, 1)] == [b"new"]
        disk = lab.world.host("one").disk
        path = f"{lab.world.host('one').ip}@DEFAULT/g/offsets.json"
        assert b'{"brokerName":"a","queueId":0,"topic":"T"}' in bytes(disk.open_read(path).read_at(0, 1000))


async def test_one_member_of_a_group_per_connection(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq:
        await mq.admin.create_topic("T", queues=1)
        async with mq.consumer("T", group="g"):
            with pytest.raises(trmq.ConfigError, match="second member"):
                async with mq.consumer("T", group="g"):
                    pass
        async with mq.consumer("T", group="g") as consumer:
            await consumer.assigned()


@pytest.mark.parametrize(
    "options",
    [
        {"group": "bad group"}, {"filter": "a ||"}, {"orderly": True, "broadcasting": True}, {"pull_batch": 0}, {"prefetch_messages": 0},
        {"strategy": "fair"}, {"from_where": trmq.FromWhere.TIMESTAMP}, {"from_ms": 5}, {"max_reconsume_times": -1}, {"topic": []},
        {"topic": "bad topic"},
    ],
    ids=str,
)
async def test_bad_settings_are_refused_before_anything_is_asked(options: dict[str, Any], autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq:
        with pytest.raises(trmq.ConfigError):
            async with mq.consumer(**{"topic": "T", "group": "g", **options}):
                pass


async def test_an_error_of_the_program_leaves_as_itself(autojump_clock: Clock) -> None:
    async with running() as lab:
        with pytest.raises(LookupError, match="mine"):  # noqa: PT012  (the contexts around the error are the subject)
            async with lab.connect() as mq:
                await mq.admin.create_topic("T", queues=1)
                async with mq.consumer("T", group="g"), mq.producer(), mq.reader("T"):
                    raise LookupError("mine")


async def test_serve_bounds_what_runs_and_keeps_the_order_of_a_key(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=2)
        for i in range(60):
            await producer.send("T", str(i), sharding_key=f"k{i % 5}")
        now, most = 0, 0
        seen: dict[str | None, list[int]] = defaultdict(list)

        async def handle(message: trmq.Delivery) -> None:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await trio.sleep(lab.world.host("client").random.random())
            seen[message.sharding_key].append(int(message.body))
            now -= 1

        with trio.move_on_after(300):
            await mq.serve("T", handle, group="g", concurrency=4, ordered_by="sharding_key", from_where=FIRST)
        assert 2 <= most <= 4
        assert dict(seen) == {f"k{k}": list(range(k, 60, 5)) for k in range(5)}
        assert sum(p.lag for p in await mq.admin.progress("g", "T")) == 0


async def test_a_tool_can_have_a_message_consumed_now(autojump_clock: Clock) -> None:
    async with running() as lab, lab.connect() as mq, lab.connect("tool") as tool, mq.producer(group="p") as producer:
        await mq.admin.create_topic("T", queues=1)
        sent = await producer.send("T", "x")
        seen = []

        async def handle(message: trmq.Delivery) -> None:
            seen.append(message.body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: mq.serve("T", handle, group="g", from_where=FIRST))
            await trio.sleep(5)
            assert seen == [b"x"]
            (master,) = await tool.admin.masters()
            fields = {"consumerGroup": "g", "clientId": mq.client_id, "msgId": sent.offset_message_id, "brokerName": "a"}
            answer = await tool.admin._instance.remoting.request(master.address, RequestCode.CONSUME_MESSAGE_DIRECTLY, fields, timeout=20)
            assert (answer.code, b"CR_SUCCESS" in answer.body) == (0, True), answer
            nursery.cancel_scope.cancel()
        assert seen == [b"x", b"x"]
