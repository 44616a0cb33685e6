"""What a consumer gives back comes again later, and at last lies in the dead-letter topic: P-RTY-1."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.harness import Client, Lab, running
from trmq.message import StoredMessage, decode_message_id
from trmq.record import decode_records
from trmq.sim.world import World
from trmq.wire.bodies import SubscriptionGroupConfig, encode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command
from trmq.wire.headers.send import ConsumerSendMsgBack


async def give_back(client: Client, message: StoredMessage, level: int = 0, group: str = "g", **fields: Any) -> Command:
    header = ConsumerSendMsgBack(
        offset=message.phy_offset, group=group, delay_level=level, origin_msg_id=message.properties.get("UNIQ_KEY"),
        origin_topic=message.topic, **fields,
    )
    return await client.ask(RequestCode.CONSUMER_SEND_MSG_BACK, header)


def all_of(lab: Lab, topic: str) -> list[StoredMessage]:
    return [m for part in lab.broker.store.pull(topic, 0, 0, 100, 1 << 20, None).slices for m in decode_records(part)]


async def test_each_retry_waits_a_level_longer_until_it_is_dead(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        sent = await client.send("T", b"bad", {"KEYS": "k", "TAGS": "a", "UNIQ_KEY": "U"}, queue_id=2)
        [message] = decode_records((await client.pull(queue_id=2)).body)
        first = message
        await client.heartbeat("g")
        for times, delay_s in enumerate((10, 30, 60)):
            start = lab.broker.now_ms()
            assert (await give_back(client, message, max_reconsume_times=3)).code == 0
            while len(all_of(lab, "%RETRY%g")) == times:
                await trio.sleep(0.05)
            message = all_of(lab, "%RETRY%g")[-1]
            assert delay_s <= (message.store_ms - start) / 1000 < delay_s + 2
            assert message.reconsume_times == times + 1
        assert (await give_back(client, message, max_reconsume_times=3)).code == 0
        await trio.sleep(8000)
        assert len(all_of(lab, "%RETRY%g")) == 3, "dead is dead"
        [dead] = all_of(lab, "%DLQ%g")
        assert dead.body == b"bad"
        assert (dead.born_ms, dead.born_host, dead.flag) == (first.born_ms, first.born_host, first.flag)
        kept = {name: dead.properties[name] for name in ("KEYS", "TAGS", "UNIQ_KEY", "RETRY_TOPIC", "ORIGIN_MESSAGE_ID")}
        assert kept == {"KEYS": "k", "TAGS": "a", "UNIQ_KEY": "U", "RETRY_TOPIC": "T", "ORIGIN_MESSAGE_ID": sent.ext["msgId"]}
        assert decode_message_id(kept["ORIGIN_MESSAGE_ID"])[1] == first.phy_offset
        assert "DELAY" not in dead.properties
        assert lab.broker.topics.table["%DLQ%g"].write_queue_nums == 1


async def test_the_consumer_chooses_the_level_or_gives_up_at_once(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await client.send("T", b"x")
        [message] = decode_records((await client.pull()).body)
        assert (await give_back(client, message, level=1)).code == 0
        await trio.sleep(2)
        assert len(all_of(lab, "%RETRY%g")) == 1
        assert (await give_back(client, message, level=-1)).code == 0
        assert len(all_of(lab, "%DLQ%g")) == 1


async def test_the_groups_maximum_counts_when_the_consumer_names_none(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        config = SubscriptionGroupConfig(group_name="g", retry_max_times=0)
        await client.ask(RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, None, encode_body(config))
        await client.send("T", b"x")
        [message] = decode_records((await client.pull()).body)
        assert (await give_back(client, message)).code == 0
        assert len(all_of(lab, "%DLQ%g")) == 1


async def test_a_group_without_retry_queues_drops_it(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        config = SubscriptionGroupConfig(group_name="g", retry_queue_nums=0)
        await client.ask(RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, None, encode_body(config))
        await client.send("T", b"x")
        [message] = decode_records((await client.pull()).body)
        before = lab.broker.store.max_phy
        assert (await give_back(client, message)).code == 0
        assert lab.broker.store.max_phy == before


@pytest.mark.parametrize(("offset", "group", "code"), [
    (999_999, "g", ResponseCode.SYSTEM_ERROR),
    (1, "g", ResponseCode.SYSTEM_ERROR),
    (-5, "g", ResponseCode.SYSTEM_ERROR),
    (0, "no such group!", ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST),
])
async def test_what_cannot_be_given_back(autojump_clock: MockClock, offset: int, group: str, code: int) -> None:
    async with running() as lab:
        client = await lab.client()
        await client.send("T", b"x")
        before = lab.broker.store.max_phy
        answer = await client.ask(RequestCode.CONSUMER_SEND_MSG_BACK, ConsumerSendMsgBack(offset=offset, group=group, delay_level=0))
        assert answer.code == code
        assert answer.remark
        assert lab.broker.store.max_phy == before


async def test_an_answered_give_back_survives_losing_power(autojump_clock: MockClock) -> None:
    """The consumer moves on because of the answer, so under SYNC_FLUSH the copy must be on disk by then."""
    world = World(9)
    async with running(world, flush_disk_type="SYNC_FLUSH") as lab:
        client = await lab.client()
        await client.send("T", b"x")
        [message] = decode_records((await client.pull()).body)
        assert (await give_back(client, message, level=1)).code == 0
        world.host("broker").crash("power")
    async with running(world, flush_disk_type="SYNC_FLUSH") as lab:
        await trio.sleep(3)
        assert [m.body for m in all_of(lab, "%RETRY%g")] == [b"x"]
