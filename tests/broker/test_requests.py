"""Offsets, heartbeats, members and locks, asked for as clients ask."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from broker.harness import Client, running
from trmq.wire.bodies import (
    CheckClientRequestBody,
    ConsumerList,
    LockBatchRequestBody,
    LockBatchResponseBody,
    SubscriptionData,
    WireQueue,
    decode_body,
    encode_body,
)
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.headers.pull import QueryConsumerOffset, UnregisterClient, UpdateConsumerOffset


async def committed(client: Client, **fields: object) -> tuple[int, str | None]:
    header = QueryConsumerOffset(**({"consumer_group": "g", "topic": "T", "queue_id": 0} | fields))  # type: ignore[arg-type]  # by name
    answer = await client.ask(RequestCode.QUERY_CONSUMER_OFFSET, header)
    return answer.code, answer.ext.get("offset")


async def test_where_a_group_that_never_committed_begins(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        assert await committed(client) == (ResponseCode.QUERY_NOT_FOUND, None), "an empty queue is nobody's beginning"
        await client.send("T")
        assert await committed(client) == (0, "0"), "a young queue is read from its first message"
        assert await committed(client, set_zero_if_not_found=False) == (ResponseCode.QUERY_NOT_FOUND, None)
        assert await committed(client, queue_id=1) == (ResponseCode.QUERY_NOT_FOUND, None)


async def test_commits_are_kept_and_checked(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await client.send("T")

        async def commit(group: str = "g", topic: str = "T", offset: int = 7) -> int:
            header = UpdateConsumerOffset(consumer_group=group, topic=topic, queue_id=0, commit_offset=offset)
            return (await client.ask(RequestCode.UPDATE_CONSUMER_OFFSET, header)).code

        assert await commit() == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST
        await client.heartbeat("g")
        assert await commit(topic="None") == ResponseCode.TOPIC_NOT_EXIST
        assert await commit(offset=-1) == ResponseCode.INVALID_PARAMETER
        assert await commit() == 0
        assert await committed(client) == (0, "7")
        lab.broker.offsets.reset("g", "T", 0, 2)
        assert await commit(offset=9) == 0
        assert await committed(client) == (0, "2")


async def test_the_ends_of_a_queue(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        queue = {"topic": "T", "queueId": "0"}

        async def offset(code: int, **fields: str) -> str:
            return (await client.ask(code, queue | fields)).ext["offset"]

        earliest = await client.ask(RequestCode.GET_EARLIEST_MSG_STORETIME, queue)
        assert earliest.ext["timestamp"] == "-1"
        assert await offset(RequestCode.GET_MAX_OFFSET) == "0"
        times = []
        for _ in range(3):
            await trio.sleep(10)
            times.append(lab.broker.now_ms())
            await client.send("T")
        assert await offset(RequestCode.GET_MAX_OFFSET) == "3"
        assert await offset(RequestCode.GET_MIN_OFFSET) == "0"
        assert await offset(RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, timestamp=str(times[1])) == "1"
        assert await offset(RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, timestamp=str(times[2] + 60_000)) == "3"
        earliest = await client.ask(RequestCode.GET_EARLIEST_MSG_STORETIME, queue)
        assert int(earliest.ext["timestamp"]) >= times[0]
        old_go = await client.ask(RequestCode.GET_MAX_OFFSET, {"Topic": "T", "QueueId": "0"})
        assert old_go.ext["offset"] == "3"


async def test_a_heartbeat_makes_the_retry_topic_and_says_what_the_broker_can(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        answer = await client.heartbeat("g")
        assert answer.code == 0
        assert (answer.ext["IS_SUPPORT_HEART_BEAT_V2"], answer.ext["IS_SUB_CHANGE"]) == ("true", "true")
        assert answer.version == 493
        retry = lab.broker.topics.get("%RETRY%g")
        assert retry is not None
        assert (retry.write_queue_nums, retry.perm) == (1, 6)


async def test_members_see_each_other_come_and_go(autojump_clock: MockClock) -> None:
    async with running() as lab:
        one, two = await lab.client("one"), await lab.client("two")
        none = await one.ask(RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": "g"})
        assert none.code == ResponseCode.SYSTEM_ERROR
        await one.heartbeat("g")
        await two.heartbeat("g")
        await trio.sleep(0.1)
        assert [c.code for c in one.told] == [RequestCode.NOTIFY_CONSUMER_IDS_CHANGED] * 2
        assert one.told[0].ext == {"consumerGroup": "g"}
        answer = await one.ask(RequestCode.GET_CONSUMER_LIST_BY_GROUP, {"consumerGroup": "g"})
        assert decode_body(answer.body, ConsumerList).consumer_id_list == ["one", "two"]
        await two.heartbeat("g")
        await trio.sleep(0.1)
        assert len(one.told) == 2, "nothing changed"
        await two.ask(RequestCode.UNREGISTER_CLIENT, UnregisterClient(client_id="two", consumer_group="g"))
        await trio.sleep(0.1)
        assert len(one.told) == 3
        await two.heartbeat("g")
        two.conn.close_soon("test")
        await trio.sleep(0.1)
        assert len(one.told) == 5
        assert lab.broker.clients.consumers["g"].client_ids == ["one"]


async def test_broadcasting_members_are_not_told(autojump_clock: MockClock) -> None:
    async with running() as lab:
        one, two = await lab.client("one"), await lab.client("two")
        await one.heartbeat("g", model="BROADCASTING")
        await two.heartbeat("g", model="BROADCASTING")
        await trio.sleep(0.1)
        assert one.told == []


async def test_a_silent_client_is_dropped(autojump_clock: MockClock) -> None:
    async with running() as lab:
        one, two = await lab.client("one"), await lab.client("two")
        await one.heartbeat("g")
        await two.heartbeat("g")
        for _ in range(5):
            await trio.sleep(30)
            await one.heartbeat("g")
            if not two.conn.closed:
                await two.ask(RequestCode.GET_MAX_OFFSET, {"topic": "T", "queueId": "0"})  # alive, but no heartbeat
        assert two.conn.closed
        assert lab.broker.clients.consumers["g"].client_ids == ["one"]


async def test_a_fingerprint_stands_for_known_subscriptions_only(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        unknown = await client.heartbeat("g", fingerprint=5, without=True)
        assert unknown.ext["IS_SUB_CHANGE"] == "true", "a broker that was restarted asks for all"
        full = await client.heartbeat("g", {"T": "*"}, fingerprint=5)
        assert full.ext["IS_SUB_CHANGE"] == "false"
        short = await client.heartbeat("g", fingerprint=5, without=True)
        assert short.ext["IS_SUB_CHANGE"] == "false"
        assert list(lab.broker.clients.consumers["g"].subscriptions) == ["T"]
        other = await client.heartbeat("g", {"T": "*", "U": "*"}, fingerprint=6)
        assert other.ext["IS_SUB_CHANGE"] == "true"
        assert list(lab.broker.clients.consumers["g"].subscriptions) == ["T", "U"]


async def test_garbage_instead_of_a_heartbeat(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        for body in (b"", b"[]", b"{", b'{"clientID":1}', b"\xff"):
            answer = await client.ask(RequestCode.HEART_BEAT, None, body)
            assert answer.code == ResponseCode.INVALID_PARAMETER
            assert answer.remark
        assert (await client.heartbeat("g")).code == 0


async def test_filters_are_checked_at_the_start_of_a_consumer(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()

        async def check(kind: str) -> int:
            data = SubscriptionData(topic="T", sub_string="a > 1", expression_type=kind)
            body = encode_body(CheckClientRequestBody(client_id="c", group="g", subscription_data=data))
            return (await client.ask(RequestCode.CHECK_CLIENT_CONFIG, None, body)).code

        assert await check("TAG") == 0
        assert await check("SQL92") == ResponseCode.SYSTEM_ERROR


async def test_queue_locks(autojump_clock: MockClock) -> None:
    async with running() as lab:
        one, two = await lab.client("one"), await lab.client("two")
        queues = [WireQueue("b", i, "T") for i in range(2)]

        async def lock(client: Client, code: int, which: list[WireQueue]) -> list[WireQueue]:
            body = encode_body(LockBatchRequestBody(consumer_group="g", client_id=client.name, mq_set=which))
            answer = await client.ask(code, None, body)
            assert answer.code == 0
            return decode_body(answer.body, LockBatchResponseBody).lock_ok_mq_set if answer.body else []

        assert await lock(one, RequestCode.LOCK_BATCH_MQ, queues[:1]) == queues[:1]
        assert await lock(two, RequestCode.LOCK_BATCH_MQ, queues) == queues[1:]
        await lock(one, RequestCode.UNLOCK_BATCH_MQ, queues)
        assert await lock(two, RequestCode.LOCK_BATCH_MQ, queues) == queues
        await trio.sleep(61)
        assert await lock(one, RequestCode.LOCK_BATCH_MQ, queues) == queues
