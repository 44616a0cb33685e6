"""trmq's own client against real processes: every scenario runs against trmq and against Apache RocketMQ 5.4.0 alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

import trmq

from .cluster import Cluster

PATIENCE = 60.0
"""Seconds until a scenario is given up; none takes nearly as long when all is well."""


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return "c_" + "".join(c if c.isalnum() else "_" for c in request.node.name)[:80]


@pytest.fixture
def group(topic: str) -> str:
    return "g" + topic


def connect(cluster: Cluster, folder: Path | None = None) -> AbstractAsyncContextManager[trmq.Client]:
    return trmq.connect(cluster.name_server, offsets_folder=str(folder) if folder else None)


async def take(consumer: trmq.Consumer, count: int) -> list[trmq.Delivery]:
    """Ack and return the next `count` messages."""
    found: list[trmq.Delivery] = []
    with trio.fail_after(PATIENCE):
        async for message in consumer:
            async with message:
                found.append(message)
            if len(found) == count:
                break
    return found


async def until(true: Callable[[], bool]) -> None:
    """Real processes cannot be asked to tell us; look often, give up late."""
    with trio.fail_after(PATIENCE):
        while not true():
            await trio.sleep(0.02)


async def test_send_and_read_back(cluster: Cluster, topic: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=4)
        result = await producer.send(topic, "hällo", tag="paid", keys=["o-17", "o-18"], properties={"colour": "grün"}, flag=7)
        assert result.status is trmq.SendStatus.SEND_OK
        assert result.offset == 0
        async with mq.reader(topic) as reader:
            (found,) = await reader.getmany()
        assert (found.body.decode(), found.tag, found.keys, found.flag) == ("hällo", "paid", ("o-17", "o-18"), 7)
        assert found.properties["colour"] == "grün"
        assert (found.message_id, found.offset_message_id, found.queue) == (result.message_id, result.offset_message_id, result.queue)
        assert found.topic == topic
        assert found.reconsume_times == 0


async def test_a_topic_is_created_by_the_first_send(cluster: Cluster, topic: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        results = [await producer.send(topic, str(i)) for i in range(8)]
        assert len({r.queue for r in results}) == 4, "round robin over the four queues a new topic gets"
        await until_route(mq, topic)
        assert len((await mq.admin.route(topic)).publish) == 4


async def until_route(mq: trmq.Client, topic: str) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await mq.admin.route(topic)
                return
            except trmq.RouteNotFound:
                await trio.sleep(0.05)


async def test_one_way_batch_queue_selector_and_sharding(cluster: Cluster, topic: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=4)
        queues = await producer.queues(topic)
        assert len(queues) == 4
        for i in range(5):
            await producer.send_oneway(topic, f"oneway-{i}", queue=queues[0])
        parts = [producer.prepare(topic, f"batch-{i}", tag="b", keys=f"k{i}") for i in range(5)]
        batch = await producer.send_batch(topic, parts, queue=queues[1])
        assert batch.message_id == ",".join(part.unique_key for part in parts)
        chosen = await producer.send(topic, "selected", selector=lambda all, message: all[2])
        assert chosen.queue == queues[2]
        sharded = {(await producer.send(topic, f"s-{i}", sharding_key="customer-1")).queue for i in range(5)}
        assert len(sharded) == 1
        async with mq.reader(topic) as reader:
            found: list[trmq.Received] = []
            with trio.fail_after(PATIENCE):
                while len(found) < 16:
                    found += await reader.getmany(timeout=5)
        by_queue = defaultdict(list)
        for message in found:
            by_queue[message.queue].append(message)
        first = sorted(m.body.decode() for m in by_queue[queues[0]] if m.body.startswith(b"oneway"))
        assert first == [f"oneway-{i}" for i in range(5)]
        second = [m for m in by_queue[queues[1]] if m.body.startswith(b"batch")]
        assert [(m.body.decode(), m.tag, m.keys) for m in second] == [(f"batch-{i}", "b", (f"k{i}",)) for i in range(5)]
        assert [m.message_id for m in second] == [part.unique_key for part in parts]
        assert [m.offset - second[0].offset for m in second] == list(range(5))


async def test_large_bodies_travel_compressed(cluster: Cluster, topic: str) -> None:
    body = b"a" * 1_000_000
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=1)
        await producer.send(topic, body)
        async with mq.reader(topic) as reader:
            (found,) = await reader.getmany()
        assert found.size < 10_000, "a megabyte of one letter is stored small"
        assert found.body == body


async def test_ten_thousand_sent_are_ten_thousand_received_once(cluster: Cluster, topic: str, group: str) -> None:
    count = 10_000
    async with connect(cluster) as mq, mq.producer(group="shop", timeout=30) as producer:
        await mq.admin.create_topic(topic, queues=8)
        seen: Counter[str] = Counter()
        async with mq.consumer(topic, group=group, from_where=trmq.FromWhere.FIRST) as consumer, trio.open_nursery() as nursery:
            numbers = iter(range(count))

            async def send() -> None:
                for number in numbers:
                    await producer.send(topic, f"body-{number}")

            for _ in range(64):
                nursery.start_soon(send)
            with trio.fail_after(PATIENCE):
                async for message in consumer:
                    async with message:
                        seen[message.body.decode()] += 1
                    if len(seen) == count:
                        break
        assert seen == Counter(f"body-{i}" for i in range(count))
        progress = await mq.admin.progress(group, topic)
        assert sum(p.consumer_offset for p in progress) == count, "leaving the consumer committed everything"
        assert sum(p.lag for p in progress) == 0


async def test_two_members_share_the_queues(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer, connect(cluster) as other:
        await mq.admin.create_topic(topic, queues=4)
        got: dict[str, list[str]] = {"a": [], "b": []}
        async with mq.consumer(topic, group=group) as a:
            await a.assigned()
            await until(lambda: len([q for q in a.queues if q.topic == topic]) == 4)
            async with other.consumer(topic, group=group) as b, trio.open_nursery() as nursery:
                await until(lambda: all(len([q for q in c.queues if q.topic == topic]) == 2 for c in (a, b)))

                async def consume(name: str, consumer: trmq.Consumer) -> None:
                    async for message in consumer:
                        async with message:
                            got[name].append(message.body.decode())

                nursery.start_soon(consume, "a", a)
                nursery.start_soon(consume, "b", b)
                for i in range(40):
                    await producer.send(topic, str(i))
                await until(lambda: len(got["a"]) + len(got["b"]) >= 40)
                nursery.cancel_scope.cancel()
            await until(lambda: len([q for q in a.queues if q.topic == topic]) == 4)
        assert sorted(got["a"] + got["b"], key=int) == [str(i) for i in range(40)]
        assert len(got["a"]) == len(got["b"]) == 20


async def test_broadcasting_gives_every_member_everything(cluster: Cluster, topic: str, group: str, tmp_path: Path) -> None:
    async with connect(cluster, tmp_path / "a") as one, connect(cluster, tmp_path / "b") as two, one.producer(group="shop") as producer:
        await one.admin.create_topic(topic, queues=4)
        async with one.consumer(topic, group=group, broadcasting=True) as a, two.consumer(topic, group=group, broadcasting=True) as b:
            await until(lambda: len(a.queues) == len(b.queues) == 4)
            for i in range(12):
                await producer.send(topic, str(i))
            for member in (a, b):
                assert sorted(int(m.body) for m in await take(member, 12)) == list(range(12))
    (file,) = (tmp_path / "a").rglob("offsets.json")
    assert file.read_text().count('"topic":"') == 4, "the queues' offsets are on this member's disk"
    async with connect(cluster, tmp_path / "a") as one, one.producer(group="shop") as producer:
        await producer.send(topic, "99")
        async with one.consumer(topic, group=group, broadcasting=True) as a:
            assert [m.body for m in await take(a, 1)] == [b"99"], "a member goes on where its file says"


async def test_tag_filter(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=2)
        # "AaAa" and "BBBB" have one hash code: the broker alone cannot tell them apart
        for tag in ["red", "green", "blue", "AaAa", "BBBB", None] * 5:
            await producer.send(topic, "x", tag=tag)
        async with mq.consumer(topic, group=group, filter="red || AaAa", from_where=trmq.FromWhere.FIRST) as consumer:
            got = Counter(m.tag for m in await take(consumer, 10))
        assert got == {"red": 5, "AaAa": 5}
        assert sum(p.lag for p in await mq.admin.progress(group, topic)) == 0, "what the filter leaves out is done as well"


async def test_a_failing_message_comes_back_and_ends_in_the_dead_letters(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=1)
        sent = await producer.send(topic, "poison", tag="t", keys="bad")
        await producer.send(topic, "good", tag="t")
        tries: list[tuple[int, str, str | None]] = []
        good: list[bytes] = []
        async with mq.consumer(topic, group=group, filter="t", max_reconsume_times=2, from_where=trmq.FromWhere.FIRST) as consumer:
            with trio.move_on_after(PATIENCE):
                async for message in consumer:
                    if message.body == b"good":
                        async with message:
                            good.append(message.body)
                        continue
                    tries.append((message.reconsume_times, message.topic, message.tag))
                    await message.nack(delay_level=1)
                    if len(tries) == 3:
                        break
        assert tries == [(0, topic, "t"), (1, topic, "t"), (2, topic, "t")]
        assert good == [b"good"]
        await until_route(mq, f"%DLQ%{group}")
        async with mq.reader(f"%DLQ%{group}") as reader:
            dead = await reader.getmany(timeout=PATIENCE)
        assert [(m.body, m.message_id, m.properties["RETRY_TOPIC"]) for m in dead] == [(b"poison", sent.message_id, topic)]
        assert dead[0].properties["ORIGIN_MESSAGE_ID"] == sent.offset_message_id


async def test_an_exception_brings_the_message_back(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=1)
        await producer.send(topic, "x")
        times: list[int] = []
        async with mq.consumer(topic, group=group, from_where=trmq.FromWhere.FIRST) as consumer:
            with trio.fail_after(PATIENCE):
                async for message in consumer:
                    times.append(message.reconsume_times)
                    async with message:
                        if len(times) == 1:
                            raise LookupError("not today")
                    if len(times) == 2:
                        break
        assert times == [0, 1]


async def test_orderly_keeps_the_order_and_holds_the_queue_of_a_failure(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=3)
        for i in range(30):
            await producer.send(topic, str(i), sharding_key=f"customer-{i % 3}")
        seen: dict[str | None, list[int]] = defaultdict(list)
        tries: list[int] = []
        async with mq.consumer(topic, group=group, orderly=True, from_where=trmq.FromWhere.FIRST) as consumer:
            in_hand: set[trmq.MessageQueue] = set()

            async def work(done: trio.CancelScope) -> None:
                async for message in consumer:
                    async with message:
                        assert message.queue not in in_hand, "one message of a queue at a time"
                        in_hand.add(message.queue)
                        try:
                            await trio.sleep(0.001)
                            if message.body == b"13":
                                tries.append(message.reconsume_times)
                                if len(tries) < 3:
                                    raise LookupError("hold the queue")
                            seen[message.sharding_key].append(int(message.body))
                        finally:
                            in_hand.discard(message.queue)
                    if sum(map(len, seen.values())) == 30:
                        done.cancel()

            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(work, nursery.cancel_scope)
        assert tries == [0, 1, 2]
        assert dict(seen) == {f"customer-{k}": list(range(k, 30, 3)) for k in range(3)}
        assert sum(p.lag for p in await mq.admin.progress(group, topic)) == 0


async def test_an_orderly_limit_buries_the_message_and_goes_on(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=1)
        for body in ("poison", "next"):
            await producer.send(topic, body)
        tries: list[int] = []
        async with mq.consumer(topic, group=group, orderly=True, from_where=trmq.FromWhere.FIRST, max_reconsume_times=1) as consumer:
            with trio.fail_after(PATIENCE):
                async for message in consumer:
                    async with message:
                        if message.body == b"next":
                            break
                        tries.append(message.reconsume_times)
                        raise LookupError("never works")
        assert tries == [0, 1]
        await until_route(mq, f"%DLQ%{group}")
        async with mq.reader(f"%DLQ%{group}") as reader:
            assert [m.body for m in await reader.getmany(timeout=PATIENCE)] == [b"poison"]


async def test_orderly_queues_move_between_members_without_losing_order(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, connect(cluster) as other, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=4)
        seen: dict[str | None, list[int]] = defaultdict(list)

        async def consume(consumer: trmq.Consumer) -> None:
            async for message in consumer:
                async with message:
                    await trio.sleep(0.002)
                    seen[message.sharding_key].append(int(message.body))

        total = 400
        with trio.fail_after(PATIENCE):
            async with mq.consumer(topic, group=group, orderly=True, from_where=trmq.FromWhere.FIRST) as a, trio.open_nursery() as nursery:
                nursery.start_soon(consume, a)
                for i in range(total // 2):
                    await producer.send(topic, str(i), sharding_key=str(i % 8))
                async with other.consumer(topic, group=group, orderly=True, from_where=trmq.FromWhere.FIRST) as b:
                    nursery.start_soon(consume, b)
                    for i in range(total // 2, total):
                        await producer.send(topic, str(i), sharding_key=str(i % 8))
                    await until(lambda: len([q for q in b.queues if q.topic == topic]) == 2)
                    await until(lambda: sum(map(len, seen.values())) >= total)
                nursery.cancel_scope.cancel()
        for key, numbers in seen.items():
            assert numbers == sorted(numbers), f"key {key}: out of order"
        assert sum(map(len, seen.values())) == total, "each once: an orderly queue is handed over between two messages"


async def test_starting_points(cluster: Cluster, topic: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=1)
        results = [await producer.send(topic, str(i)) for i in range(3)]
        async with mq.reader(topic) as reader:
            messages = await reader.getmany()
            (queue,) = reader.queues()
            assert (await reader.min_offset(queue), await reader.max_offset(queue), reader.position(queue)) == (0, 3, 3)
            assert await reader.getmany() == []
            reader.seek(queue, 1)
            assert [m.body for m in await reader.getmany(max_records=1)] == [b"1"]
            await reader.seek_to_beginning()
            assert len(await reader.getmany()) == 3
            await reader.seek_to_time(messages[0].store_ms)
            assert reader.position(queue) == 0
            await reader.seek_to_end()
            assert await reader.getmany() == []
            async with trio.open_nursery() as nursery:
                got: list[bytes] = []

                async def wait() -> None:
                    got.extend(m.body for m in await reader.getmany(timeout=PATIENCE))

                nursery.start_soon(wait)
                await trio.sleep(0.2)
                await producer.send(topic, "new")
            assert got == [b"new"]
        assert [r.offset for r in results] == [0, 1, 2]
        await mq.admin.create_group("my_reader")
        async with mq.reader(topic, group="my_reader") as reader:
            await reader.commit({queue: 2})
            assert await reader.committed(queue) == 2
            await reader.seek_to_committed()
            assert reader.position(queue) == 2
            reader.seek(queue, 1_000)
            assert await reader.getmany() == [], "beyond the end: corrected to the end"
            assert reader.position(queue) == 4


async def test_query_by_key_and_by_id(cluster: Cluster, topic: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=2)
        sent = [await producer.send(topic, f"q{i}", keys=[f"find-{i}", "all"]) for i in range(5)]
        for _ in range(200):
            if len(await mq.admin.messages_by_key(topic, "all")) == 5:
                break
            await trio.sleep(0.02)
        assert [m.body for m in await mq.admin.messages_by_key(topic, "find-3")] == [b"q3"]
        assert sorted(m.body for m in await mq.admin.messages_by_key(topic, "all")) == [f"q{i}".encode() for i in range(5)]
        assert (await mq.admin.message_by_id(sent[2].offset_message_id)).body == b"q2"
        assert [m.body for m in await mq.admin.message_by_unique_key(topic, sent[2].message_id)] == [b"q2"]
        assert await mq.admin.message_by_unique_key(topic, "0" * 32) == []


async def test_topics_and_groups_come_and_go(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=3)
        assert topic in await mq.admin.topics()
        await producer.send(topic, "x")
        with trio.fail_after(PATIENCE):  # Apache counts a message once its own dispatcher has come to it
            while sum(s.max_offset - s.min_offset for s in await mq.admin.topic_stats(topic)) != 1:
                await trio.sleep(0.05)
        await mq.admin.create_group(group, retryMaxTimes=3)
        assert (await mq.admin.groups())[group]["retryMaxTimes"] == 3
        (master,) = await mq.admin.masters()
        assert "putTps" in await mq.admin.broker_runtime(master.address)
        assert (await mq.admin.broker_config(master.address))["brokerName"] == "broker-a"
        async with mq.consumer(topic, group=group, from_where=trmq.FromWhere.FIRST) as consumer:
            await take(consumer, 1)
            members = await mq.admin.members(group)
            assert [m["clientId"] for m in members] == [mq.client_id]
            info = await mq.admin.running_info(group, mq.client_id)
            assert info["properties"]["PROP_CONSUMEORDERLY"] == "false"
            assert any(queue.topic == topic for queue in info["mqTable"])
        assert await mq.admin.members(group) == []
        await mq.admin.delete_group(group)
        assert group not in await mq.admin.groups()
        await mq.admin.delete_topic(topic)
        assert topic not in await mq.admin.topics()


async def test_reset_offset_moves_a_running_group(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=2)
        for i in range(6):
            await producer.send(topic, str(i))
        async with mq.consumer(topic, group=group, from_where=trmq.FromWhere.FIRST) as consumer:
            assert sorted(m.body for m in await take(consumer, 6)) == [str(i).encode() for i in range(6)]
            await trio.sleep(0.1)
            await mq.admin.reset_offset(group, topic, to_ms=0)
            await producer.send(topic, "wake")  # Apache tells the new offset with the next answer to a pull
            await producer.send(topic, "wake")
            got: set[bytes] = set()
            with trio.fail_after(PATIENCE):
                async for message in consumer:
                    async with message:
                        got.add(message.body)
                    if {str(i).encode() for i in range(6)} <= got:
                        break


@pytest.mark.parametrize(
    ("body", "options", "complaint"),
    [
        (b"", {}, "body"), (b"x" * ((4 << 20) + 1), {}, "4194304"), (b"x", {"tag": "a||b"}, "tag"), (b"x", {"keys": "a b"}, None),
        (b"x", {"keys": ["a b"]}, "key"), (b"x", {"properties": {"a": "b" * 32767}}, "properties"),
        (b"x", {"properties": {"TAGS": "b"}}, "TAGS"),
        (b"x", {"properties": {"a\x01": "b"}}, "control"), (b"x", {"delay_level": 19}, "delay_level"),
    ],
)
async def test_bad_messages_are_refused_before_they_are_sent(body: bytes, options: dict[str, object], complaint: str | None) -> None:
    async with trmq.connect("127.0.0.1:1") as mq, mq.producer(group="shop") as producer:
        with pytest.raises(trmq.MessageIllegal, match=complaint):
            await producer.send("topic", body, **options)


async def test_offsets_survive_a_restart_of_consumer_and_broker(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop", timeout=20, retries=50) as producer:
        await mq.admin.create_topic(topic, queues=4)
        for i in range(20):
            await producer.send(topic, f"first-{i}")
        async with mq.consumer(topic, group=group, from_where=trmq.FromWhere.FIRST) as consumer:
            assert len(await take(consumer, 20)) == 20
        await trio.to_thread.run_sync(cluster.stop_broker)
        await trio.to_thread.run_sync(cluster.start_broker)
        for i in range(20):
            await producer.send(topic, f"second-{i}")
        async with mq.consumer(topic, group=group) as consumer:
            assert sorted(m.body for m in await take(consumer, 20)) == sorted(f"second-{i}".encode() for i in range(20))


async def test_a_consumer_lives_through_a_restart_of_the_broker(cluster: Cluster, topic: str, group: str) -> None:
    async with connect(cluster) as mq, mq.producer(group="shop") as producer:
        await mq.admin.create_topic(topic, queues=4)
        async with mq.consumer(topic, group=group, from_where=trmq.FromWhere.FIRST) as consumer:
            await producer.send(topic, "before")
            assert [m.body for m in await take(consumer, 1)] == [b"before"]
            await trio.to_thread.run_sync(cluster.stop_broker)
            with pytest.raises(trmq.SendFailed) as failure:
                await producer.send(topic, "nobody there", timeout=1)
            assert not failure.value.unknown, "nothing left this machine: certainly not stored"
            await trio.to_thread.run_sync(cluster.start_broker)
            with trio.fail_after(PATIENCE):
                while True:
                    try:
                        await producer.send(topic, "after")
                        break
                    except trmq.SendFailed:
                        await trio.sleep(0.2)
            assert (await take(consumer, 1))[0].body == b"after"
