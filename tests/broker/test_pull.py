"""Pulling: the order of refusals, statuses and numbers, and pulls that are held."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from broker.harness import Client, Lab, bodies, numbers, running
from trmq.errors import ConnectionLost
from trmq.message import tags_code
from trmq.wire.batch import encode_batch
from trmq.wire.bodies import SubscriptionGroupConfig
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command

SUSPEND = 2 | 4


async def filled(lab: Lab, count: int, topic: str = "T", tags: str = "") -> Client:
    client = await lab.client()
    for start in range(0, count, 100):
        parts = [(0, b"m%d" % i, b"TAGS\x01%s\x02" % tags.encode() if tags else b"") for i in range(start, min(count, start + 100))]
        assert (await client.send(topic, encode_batch(parts), batch=True)).code == 0
    return client


async def test_what_was_sent_is_pulled(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 40)
        answer = await client.pull()
        assert (answer.code, answer.remark) == (0, "FOUND")
        assert bodies(answer) == [b"m%d" % i for i in range(32)]
        assert numbers(answer) == (0, 32, 0, 40)
        answer = await client.pull(offset=32, max_msg_nums=5)
        assert bodies(answer) == [b"m%d" % i for i in range(32, 37)]
        answer = await client.pull(offset=0, max_msg_bytes=1)
        assert bodies(answer) == [b"m0"], "one message always fits"


async def test_who_lags_out_of_memory_gets_less_at_a_time(autojump_clock: MockClock) -> None:
    async with running(max_transfer_count_on_message_in_memory=20, max_transfer_count_on_message_in_disk=5) as lab:
        client = await filled(lab, 100)
        broker = lab.broker
        size = broker.store.max_phy // 100
        broker.memory_reach = 30 * size
        for offset, count in ((0, 5), (60, 5), (69, 5), (75, 20), (95, 5)):
            assert len(bodies(await client.pull(offset=offset))) == count, offset
        assert len(bodies(await client.pull(offset=0, max_msg_nums=3))) == 3, "nobody gets more than was asked for"
        broker.memory_reach = broker.store.max_phy
        assert len(bodies(await client.pull(offset=0))) == 20
        broker.memory_reach = 0
        broker.config = attrs.evolve(broker.config, max_transfer_bytes_on_message_in_disk=2 * size + size // 2)
        assert len(bodies(await client.pull(offset=0))) == 2, "bytes count too"
        assert (await client.pull(offset=100)).remark == "OFFSET_OVERFLOW_ONE"


@pytest.mark.parametrize(
    ("offset", "code", "status", "next_offset"),
    [
        (3, ResponseCode.PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE", 3),
        (4, ResponseCode.PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY", 3),
        (-1, ResponseCode.PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL", 0),
    ],
)
async def test_offsets_out_of_range(autojump_clock: MockClock, offset: int, code: int, status: str, next_offset: int) -> None:
    async with running() as lab:
        client = await filled(lab, 3)
        answer = await client.pull(offset=offset)
        assert (answer.code, answer.remark) == (code, status)
        assert numbers(answer) == (0, next_offset, 0, 3)


async def test_an_unused_queue_is_empty_at_0_and_moved_elsewhere(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 1)
        answer = await client.pull(queue_id=1)
        assert (answer.code, numbers(answer)) == (ResponseCode.PULL_NOT_FOUND, (0, 0, 0, 0))
        answer = await client.pull(queue_id=1, offset=5)
        assert (answer.code, numbers(answer)) == (ResponseCode.PULL_OFFSET_MOVED, (0, 0, 0, 0))


async def test_tags_are_filtered_and_what_was_looked_at_is_passed(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 3, tags="A")
        await filled(lab, 2, tags="B")
        answer = await client.pull(subscription="B")
        assert bodies(answer) == [b"m0", b"m1"]
        assert numbers(answer)[1] == 5
        answer = await client.pull(subscription="C")
        assert (answer.code, answer.remark) == (ResponseCode.PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE")
        assert numbers(answer)[1] == 5


async def test_a_heartbeat_subscription_is_used_when_the_pull_has_none(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 2, tags="A")
        await filled(lab, 1, tags="B")
        await client.heartbeat("g", {"T": "B"}, version=5)
        answer = await client.pull(sys_flag=0, subscription=None, sub_version=5)
        assert bodies(answer) == [b"m0"]
        answer = await client.pull(sys_flag=0, subscription=None, sub_version=6)
        assert answer.code == ResponseCode.SUBSCRIPTION_NOT_LATEST


async def test_refusals_by_the_first_rule_that_fails(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 1)
        broker = lab.broker

        async def code(**header: Any) -> int:
            return (await client.pull(**header)).code

        assert await code(consumer_group="bad group") == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST
        assert await code(topic="None") == ResponseCode.TOPIC_NOT_EXIST
        assert await code(queue_id=4) == ResponseCode.INVALID_PARAMETER
        assert await code(queue_id=-1) == ResponseCode.INVALID_PARAMETER
        assert await code(subscription=" || ") == ResponseCode.SUBSCRIPTION_PARSE_FAILED
        assert await code(expression_type="SQL92", subscription="a > 1") == ResponseCode.SYSTEM_ERROR
        assert await code(sys_flag=0) == ResponseCode.SUBSCRIPTION_NOT_EXIST
        await client.heartbeat("g", {"U": "*"})
        assert await code(sys_flag=0) == ResponseCode.SUBSCRIPTION_NOT_EXIST
        broker.groups.update(SubscriptionGroupConfig(group_name="g", consume_enable=False))
        assert await code(topic="None") == ResponseCode.NO_PERMISSION
        broker.groups.update(SubscriptionGroupConfig(group_name="g", consume_broadcast_enable=False))
        await client.heartbeat("g", {"T": "*"}, model="BROADCASTING")
        assert await code(sys_flag=0) == ResponseCode.NO_PERMISSION
        broker.groups.delete("g")
        await client.heartbeat("g", {"T": "*"})
        assert await code(sys_flag=0) == 0
        broker.groups.forbid_reading("g", "T", True)
        assert await code(sys_flag=0) == ResponseCode.NO_PERMISSION
        broker.topics.table["T"].perm = 2
        assert await code() == ResponseCode.NO_PERMISSION
        broker.readable = False
        assert await code() == ResponseCode.NO_PERMISSION


async def test_an_unknown_group_is_made_unless_that_is_off(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 1)
        assert (await client.pull(consumer_group="new")).code == 0
        assert lab.broker.groups.get("new") is not None
    async with running(auto_create_subscription_group=False) as lab:
        client = await filled(lab, 1)
        assert (await client.pull(consumer_group="new")).code == ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST


async def test_the_commit_flag_commits(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 5)
        await client.pull(offset=3, sys_flag=4, commit_offset=2)
        assert lab.broker.offsets.query("g", "T", 0) is None
        await client.pull(offset=3, sys_flag=4 | 1, commit_offset=2)
        assert lab.broker.offsets.query("g", "T", 0) == 2
        assert lab.broker.offsets.query_pull("g", "T", 0) == 5


async def test_a_reset_is_told_once(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 5)
        lab.broker.offsets.reset("g", "T", 0, 1)
        answer = await client.pull(offset=4)
        assert answer.code == ResponseCode.PULL_OFFSET_MOVED
        assert numbers(answer) == (0, 1, 0, 5)
        assert (await client.pull(offset=1)).code == 0


# ------------------------------------------------------------------------------------------------------------------ holding


class Later:
    """A pull that runs on while the test goes on."""

    def __init__(self, nursery: trio.Nursery, client: Client, **header: Any) -> None:
        self.answer: Command | None = None
        self.at = 0.0
        nursery.start_soon(self._run, client, header)

    async def _run(self, client: Client, header: dict[str, Any]) -> None:
        self.answer = await client.pull(**header)
        self.at = trio.current_time()


async def test_a_held_pull_gets_the_next_message_at_once(autojump_clock: MockClock) -> None:
    async with running() as lab, trio.open_nursery() as nursery:
        client = await filled(lab, 3)
        later = Later(nursery, client, offset=3, sys_flag=SUSPEND)
        await trio.sleep(5)
        assert later.answer is None
        other = await lab.client("other")
        await other.send("T", b"elsewhere", queue_id=1)
        await trio.sleep(1)
        assert later.answer is None
        sent = trio.current_time()
        await other.send("T", b"here")
        await trio.sleep(1)
        assert later.answer is not None
        assert later.at - sent < 0.1
        assert bodies(later.answer) == [b"here"]
        assert numbers(later.answer) == (0, 4, 0, 4)
        assert len(lab.broker.holds.holds) == 0


@pytest.mark.parametrize(("asked_ms", "waited_s"), [(15_000, 15.0), (20_000_000_000, 30.0), (0, 0.0), (-5, 0.0)])
async def test_a_held_pull_ends_at_its_time_or_ours(autojump_clock: MockClock, asked_ms: int, waited_s: float) -> None:
    async with running() as lab:
        client = await filled(lab, 3)
        start = trio.current_time()
        answer = await client.pull(offset=3, sys_flag=SUSPEND, suspend_timeout_millis=asked_ms)
        assert answer.code == ResponseCode.PULL_NOT_FOUND
        assert numbers(answer) == (0, 3, 0, 3)
        assert waited_s <= trio.current_time() - start < waited_s + 0.5


async def test_a_held_pull_on_a_new_topic_is_woken_by_its_first_message(autojump_clock: MockClock) -> None:
    async with running() as lab, trio.open_nursery() as nursery:
        client = await filled(lab, 3)
        later = Later(nursery, client, queue_id=2, sys_flag=SUSPEND)
        await trio.sleep(1)
        await client.send("T", b"first", queue_id=2)
        await trio.sleep(1)
        assert later.answer is not None
        assert bodies(later.answer) == [b"first"]


async def test_messages_that_do_not_match_leave_a_pull_held_but_are_passed(autojump_clock: MockClock) -> None:
    async with running() as lab, trio.open_nursery() as nursery:
        client = await filled(lab, 3)
        no = Later(nursery, client, offset=3, sys_flag=SUSPEND, subscription="A")
        await trio.sleep(1)
        await filled(lab, 2000, tags="B")
        await trio.sleep(2)
        assert no.answer is None
        await trio.sleep(20)
        assert no.answer is not None
        assert no.answer.code == ResponseCode.PULL_NOT_FOUND
        assert numbers(no.answer)[1] == 2003
        yes = Later(nursery, client, offset=2003, sys_flag=SUSPEND, subscription="A")
        await trio.sleep(1)
        await filled(lab, 1500, tags="B")
        await filled(lab, 1, tags="A")
        await trio.sleep(1)
        assert yes.answer is not None
        assert bodies(yes.answer) == [b"m0"]
        assert numbers(yes.answer)[1] == 3504


async def test_held_pulls_are_bounded(autojump_clock: MockClock) -> None:
    async with running(holds_max=1) as lab, trio.open_nursery() as nursery:
        client = await filled(lab, 3)
        Later(nursery, client, offset=3, sys_flag=SUSPEND)
        await trio.sleep(1)
        start = trio.current_time()
        assert (await client.pull(offset=3, sys_flag=SUSPEND)).code == ResponseCode.PULL_NOT_FOUND
        assert trio.current_time() - start < 1


async def test_a_held_pull_dies_with_its_connection(autojump_clock: MockClock) -> None:
    async with running() as lab, trio.open_nursery() as nursery:
        client = await filled(lab, 3)
        other = await lab.client("other")
        nursery.start_soon(_lost, other)
        await trio.sleep(1)
        assert len(lab.broker.holds.holds) == 1
        other.conn.close_soon("test")
        await trio.sleep(1)
        assert len(lab.broker.holds.holds) == 0
        assert (await client.send("T")).code == 0


async def _lost(client: Client) -> None:
    with pytest.raises(ConnectionLost):
        await client.pull(offset=3, sys_flag=SUSPEND)


async def test_a_group_that_is_forbidden_while_it_waits_is_told(autojump_clock: MockClock) -> None:
    async with running() as lab, trio.open_nursery() as nursery:
        client = await filled(lab, 3)
        later = Later(nursery, client, offset=3, sys_flag=SUSPEND)
        await trio.sleep(1)
        lab.broker.groups.update(SubscriptionGroupConfig(group_name="g", consume_enable=False))
        await client.send("T")
        await trio.sleep(1)
        assert later.answer is not None
        assert later.answer.code == ResponseCode.NO_PERMISSION


async def test_without_long_polling_a_pull_is_held_for_a_second(autojump_clock: MockClock) -> None:
    async with running(long_polling_enable=False) as lab:
        client = await filled(lab, 3)
        start = trio.current_time()
        assert (await client.pull(offset=3, sys_flag=SUSPEND)).code == ResponseCode.PULL_NOT_FOUND
        assert 1.0 <= trio.current_time() - start < 1.5


async def test_lite_pull_is_a_pull(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await filled(lab, 1)
        fields = {
            "consumerGroup": "g", "topic": "T", "queueId": "0", "queueOffset": "0", "maxMsgNums": "32", "sysFlag": "20",
            "commitOffset": "0", "suspendTimeoutMillis": "0", "subVersion": "0", "subscription": "*",
        }
        answer = await client.ask(RequestCode.LITE_PULL_MESSAGE, fields)
        assert bodies(answer) == [b"m0"]


def test_the_tests_know_what_a_tags_code_is() -> None:
    assert tags_code("TagA") == 2598919
