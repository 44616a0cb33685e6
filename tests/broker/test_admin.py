"""Administration over the wire: topics, groups, consumption, connections, queries, the broker's own state."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.harness import Client, Lab, bodies, running
from trmq.message import MessageQueue
from trmq.remoting import Connection, RemotingClient
from trmq.sim.world import World
from trmq.wire.bodies import (
    ConsumerOffsetWrapper,
    CreateTopicListBody,
    DataVersion,
    DelayOffsetWrapper,
    GroupList,
    KVTable,
    SubscriptionGroupConfig,
    SubscriptionGroupWrapper,
    TopicConfig,
    TopicConfigSerializeWrapper,
    TopicList,
    decode_body,
    encode_body,
)
from trmq.wire.bodies.report import (
    BrokerStatsData,
    ConsumerConnection,
    ConsumeStats,
    ConsumeStatsList,
    GetConsumerStatusBody,
    ProducerConnection,
    QueryConsumeQueueResponseBody,
    QueryConsumeTimeSpanBody,
    QueryCorrectionOffsetBody,
    ResetOffsetBody,
    TopicStatsTable,
)
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response

Code = RequestCode


def topic_header(name: str, **more: Any) -> dict[str, str]:
    fields = {"topic": name, "defaultTopic": "TBW102", "readQueueNums": 4, "writeQueueNums": 4, "perm": 6, "topicFilterType": "SINGLE_TAG",
              "order": "false"} | more
    return {key: str(value) for key, value in fields.items()}


async def get(client: Client, code: RequestCode, kind: type[Any], **fields: Any) -> Any:
    answer = await client.ask(code, {name: str(value) for name, value in fields.items()})
    assert answer.code == 0, answer.remark
    return decode_body(answer.body, kind)


async def refused(client: Client, code: RequestCode, body: bytes = b"", **fields: Any) -> tuple[int, str]:
    answer = await client.ask(code, {name: str(value) for name, value in fields.items()}, body)
    assert answer.code != 0
    return answer.code, answer.remark or ""


def queue(topic: str, queue_id: int) -> MessageQueue:
    return MessageQueue(topic, "b", queue_id)


# --- topics


async def test_a_topics_life(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        assert (await client.ask(Code.UPDATE_AND_CREATE_TOPIC, topic_header("N", attributes="+message.type=FIFO"))).code == 0
        config = await get(client, Code.GET_TOPIC_CONFIG, TopicConfig, topic="N")
        assert (config.read_queue_nums, config.attributes) == (4, {"message.type": "FIFO"})
        version = lab.broker.topics.version
        await client.ask(Code.UPDATE_AND_CREATE_TOPIC, topic_header("N", attributes="+message.type=FIFO"))
        assert lab.broker.topics.version == version, "nothing changed: nobody is told"
        await client.ask(Code.UPDATE_AND_CREATE_TOPIC, topic_header("N", perm=4, attributes="-message.type"))
        config = await get(client, Code.GET_TOPIC_CONFIG, TopicConfig, topic="N")
        assert (config.perm, config.attributes) == (4, {})
        assert (await client.ask(Code.DELETE_TOPIC_IN_BROKER, {"topic": "N"})).code == 0
        assert (await refused(client, Code.GET_TOPIC_CONFIG, topic="N"))[0] == ResponseCode.TOPIC_NOT_EXIST


async def test_a_deleted_topic_begins_anew(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await client.send("T", b"old")
        lab.broker.offsets.commit("g", "T", 0, 1)
        await client.ask(Code.DELETE_TOPIC_IN_BROKER, {"topic": "T"})
        assert lab.broker.offsets.query("g", "T", 0) is None
        assert (await client.send("T", b"new")).ext["queueOffset"] == "0"
        assert bodies(await client.pull()) == [b"new"]


@pytest.mark.parametrize(("change", "word"), [
    ({"topic": "bad topic"}, "illegal characters"),
    ({"topic": "TBW102"}, "system topic"),
    ({"topic": "C"}, "system topic"),
    ({"topic": " "}, "blank"),
    ({"perm": 99}, "perm"),
    ({"readQueueNums": -1}, "readQueueNums"),
    ({"writeQueueNums": 70_000}, "writeQueueNums"),
    ({"topicFilterType": "X"}, "topicFilterType"),
    ({"attributes": "+nonsense=1"}, "nonsense"),
    ({"attributes": "message.type=FIFO"}, "+name"),
    ({"attributes": "+queue.type=BatchCQ"}, "BatchCQ"),
    ({"attributes": "+a=1,+a=2"}, "twice"),
    ({"readQueueNums": "many"}, "readQueueNums"),
])
async def test_a_wrong_topic_is_refused_by_name(autojump_clock: MockClock, change: dict[str, Any], word: str) -> None:
    async with running() as lab:
        client = await lab.client()
        before = set(lab.broker.topics.table)
        answer = await client.ask(Code.UPDATE_AND_CREATE_TOPIC, topic_header("N") | {k: str(v) for k, v in change.items()})
        assert answer.code == ResponseCode.INVALID_PARAMETER
        assert word in (answer.remark or "")
        assert set(lab.broker.topics.table) == before


async def test_a_list_of_topics_is_taken_whole_or_not_at_all(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        good, bad = TopicConfig("A"), TopicConfig("SCHEDULE_TOPIC_XXXX")
        answer = await client.ask(Code.UPDATE_AND_CREATE_TOPIC_LIST, None, encode_body(CreateTopicListBody([good, bad])))
        assert answer.code == ResponseCode.INVALID_PARAMETER
        assert "A" not in lab.broker.topics
        await client.ask(Code.UPDATE_AND_CREATE_TOPIC_LIST, None, encode_body(CreateTopicListBody([good, TopicConfig("B")])))
        assert {"A", "B"} <= set(lab.broker.topics.table)


async def test_tables_are_handed_out_whole_or_page_by_page(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        for code, key, kind, first, most, table in (
            (Code.GET_ALL_TOPIC_CONFIG, "totalTopicNum", TopicConfigSerializeWrapper, "topicSeq", "maxTopicNum", "topic_config_table"),
            (Code.GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "totalGroupNum", SubscriptionGroupWrapper, "groupSeq", "maxGroupNum",
             "subscription_group_table"),
        ):
            answer = await client.ask(code)
            whole = decode_body(answer.body, kind)
            names = set(getattr(whole, table))
            assert int(answer.ext[key]) == len(names)
            seen: dict[str, Any] = {}
            version = ""
            while len(seen) < len(names):
                page = await get(client, code, kind, **{first: len(seen), most: 3, "dataVersion": version})
                assert 0 < len(getattr(page, table)) <= 3
                version = encode_body(page.data_version).decode()
                seen |= getattr(page, table)
            assert set(seen) == names
            stale = encode_body(DataVersion(counter=77)).decode()
            again = await get(client, code, kind, **{first: 3, most: 3, "dataVersion": stale})
            owner = lab.broker.topics.table if code == Code.GET_ALL_TOPIC_CONFIG else lab.broker.groups.table
            assert set(getattr(again, table)) == set(list(owner)[:3]), "the table changed: from the start"


async def test_topic_statistics(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        for _ in range(3):
            await client.send("T", queue_id=1)
        stats = await get(client, Code.GET_TOPIC_STATS_INFO, TopicStatsTable, topic="T")
        one = stats.offset_table[queue("T", 1)]
        assert (one.min_offset, one.max_offset, one.last_update_timestamp) == (0, 3, lab.broker.store.store_time("T", 1, 2))
        assert len(stats.offset_table) == 4
        assert stats.topic_put_tps > 0
        assert (await refused(client, Code.GET_TOPIC_STATS_INFO, topic="X"))[0] == ResponseCode.TOPIC_NOT_EXIST
        assert "T" not in (await get(client, Code.GET_SYSTEM_TOPIC_LIST_FROM_BROKER, TopicList)).topic_list


# --- groups


async def test_a_groups_life(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        config = SubscriptionGroupConfig(group_name="g", retry_max_times=3, consume_enable=False)
        assert (await client.ask(Code.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, None, encode_body(config))).code == 0
        assert (await get(client, Code.GET_SUBSCRIPTIONGROUP_CONFIG, SubscriptionGroupConfig, group="g")).retry_max_times == 3
        await client.send("T")
        assert (await client.pull()).code == ResponseCode.NO_PERMISSION
        lab.broker.offsets.commit("g", "T", 0, 1)
        await client.ask(Code.DELETE_SUBSCRIPTIONGROUP, {"groupName": "g", "cleanOffset": "true"})
        assert lab.broker.groups.get("g") is None
        assert lab.broker.offsets.query("g", "T", 0) is None
        bad = SubscriptionGroupConfig(group_name="a b")
        answer = await client.ask(Code.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, None, encode_body(bad))
        assert answer.code == ResponseCode.INVALID_PARAMETER


async def test_a_group_can_be_forbidden_a_topic(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await client.send("T")
        await client.heartbeat("g")
        await client.ask(Code.UPDATE_AND_GET_GROUP_FORBIDDEN, {"group": "g", "topic": "T", "readable": "false"})
        assert (await client.pull(sys_flag=0)).code == ResponseCode.NO_PERMISSION
        await client.ask(Code.UPDATE_AND_GET_GROUP_FORBIDDEN, {"group": "g", "topic": "T", "readable": "true"})
        assert (await client.pull(sys_flag=0, sub_version=1)).code == 0


# --- consumption


async def consumed(lab: Lab, client: Client) -> None:
    for number in range(5):
        await client.send("T", b"%d" % number)
        await trio.sleep(1)
    await client.heartbeat("g")
    await client.pull()
    lab.broker.offsets.commit("g", "T", 0, 2)


async def test_how_far_a_group_is(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await consumed(lab, client)
        stats = await get(client, Code.GET_CONSUME_STATS, ConsumeStats, consumerGroup="g")
        one = stats.offset_table[queue("T", 0)]
        assert (one.broker_offset, one.consumer_offset, one.pull_offset) == (5, 2, 5)
        assert one.last_timestamp == lab.broker.store.store_time("T", 0, 1)
        assert stats.consume_tps > 0
        assert (await get(client, Code.GET_CONSUME_STATS, ConsumeStats, consumerGroup="g", topic="Other")).offset_table == {}
        assert len((await get(client, Code.GET_CONSUME_STATS, ConsumeStats, consumerGroup="x", topicList="T;Other")).offset_table) == 4
        whole = await get(client, Code.GET_BROKER_CONSUME_STATS, ConsumeStatsList, isOrder="false")
        assert (whole.total_diff, whole.total_inflight_diff) == (3, 3)
        assert [len(entry["g"]) for entry in whole.consume_stats_list if "g" in entry] == [1]
        spans = await get(client, Code.QUERY_CONSUME_TIME_SPAN, QueryConsumeTimeSpanBody, topic="T", group="g")
        first = next(span for span in spans.consume_time_span_set if span.message_queue.queue_id == 0)
        times = [lab.broker.store.store_time("T", 0, offset) for offset in range(5)]
        assert (first.min_time_stamp, first.max_time_stamp, first.consume_time_stamp) == (times[0], times[4], times[1])
        assert times[2] is not None
        assert first.delay_time == lab.broker.now_ms() - times[2]


async def test_who_consumes_what(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await consumed(lab, client)
        lab.broker.offsets.commit("gone", "T", 0, 1)
        assert (await get(client, Code.QUERY_TOPIC_CONSUME_BY_WHO, GroupList, topic="T")).group_list == ["g", "gone"]
        assert (await get(client, Code.QUERY_TOPICS_BY_CONSUMER, TopicList, group="gone")).topic_list == ["T"]
        answer = await client.ask(Code.QUERY_SUBSCRIPTION_BY_CONSUMER, {"group": "g", "topic": "T"})
        assert b'"subString":"*"' in answer.body
        await client.ask(Code.CLONE_GROUP_OFFSET, {"srcGroup": "g", "destGroup": "copy", "topic": "T", "offline": "true"})
        assert lab.broker.offsets.query("copy", "T", 0) == 2
        body = await get(client, Code.QUERY_CORRECTION_OFFSET, QueryCorrectionOffsetBody, topic="T", compareGroup="x", filterGroups="gone")
        assert body.correction_offsets == {0: 2}


async def test_a_reset_group_is_told_at_its_next_pull_and_cannot_undo_it(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await consumed(lab, client)
        middle = lab.broker.store.store_time("T", 0, 3)
        every = {"topic": "T", "group": "g", "timestamp": middle, "isForce": "true"}
        body = await get(client, Code.INVOKE_BROKER_TO_RESET_OFFSET, ResetOffsetBody, **every)
        assert body.offset_table[queue("T", 0)] == 3
        assert lab.broker.offsets.commit("g", "T", 0, 5) is False
        told = await client.pull(offset=5)
        assert (told.code, told.ext["nextBeginOffset"]) == (ResponseCode.PULL_OFFSET_MOVED, "3")
        assert bodies(await client.pull(offset=3)) == [b"3", b"4"]
        assert lab.broker.offsets.commit("g", "T", 0, 5)
        one = {"topic": "T", "group": "g", "timestamp": -1, "isForce": "true", "queueId": 0}
        body = await get(client, Code.INVOKE_BROKER_TO_RESET_OFFSET, ResetOffsetBody, **one, offset=1)
        assert body.offset_table == {queue("T", 0): 1}
        body = await get(client, Code.INVOKE_BROKER_TO_RESET_OFFSET, ResetOffsetBody, **one)
        assert body.offset_table == {queue("T", 0): 5}, "a negative time is the end"
        assert "not in consume queue range" in (await refused(client, Code.INVOKE_BROKER_TO_RESET_OFFSET, **one, offset=99))[1]
        for change, code in (
            ({"topic": "X"}, ResponseCode.TOPIC_NOT_EXIST), ({"group": "X"}, ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST),
            ({"queueId": 9}, ResponseCode.INVALID_PARAMETER),
        ):
            assert (await refused(client, Code.INVOKE_BROKER_TO_RESET_OFFSET, **(one | change)))[0] == code


# --- connections and relays


async def test_connections(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client("one")
        await client.heartbeat("g", {"T": "a || b"}, producer="p")
        body = await get(client, Code.GET_CONSUMER_CONNECTION_LIST, ConsumerConnection, consumerGroup="g")
        assert [one.client_id for one in body.connection_set] == ["one"]
        assert body.subscription_table["T"].sub_string == "a || b"
        assert body.message_model == "CLUSTERING"
        producers = await get(client, Code.GET_PRODUCER_CONNECTION_LIST, ProducerConnection, producerGroup="p")
        assert producers.connection_set[0].client_addr == ":".join(map(str, client.conn.local))
        assert b'"remoteIP"' in (await client.ask(Code.GET_ALL_PRODUCER_INFO)).body
        assert (await refused(client, Code.GET_CONSUMER_CONNECTION_LIST, consumerGroup="x"))[0] == ResponseCode.CONSUMER_NOT_ONLINE
        assert (await refused(client, Code.GET_PRODUCER_CONNECTION_LIST, producerGroup="x"))[0] == ResponseCode.SYSTEM_ERROR


async def test_questions_are_passed_on_to_the_client(autojump_clock: MockClock) -> None:
    """The asker's connection goes on being served while the client thinks; a client that never answers ends in a timeout."""
    async with running() as lab, trio.open_nursery() as nursery:
        asker = await lab.client("asker")
        sent = await asker.send("T", b"directly")
        seen: list[Command] = []

        def answer(conn: Connection, command: Command) -> bytes | None:
            seen.append(command)
            if command.code == Code.GET_CONSUMER_STATUS_FROM_CLIENT:
                return encode_response(command, 0, body=encode_body(GetConsumerStatusBody({queue("T", 0): 4})))
            if command.code == Code.GET_CONSUMER_RUNNING_INFO:
                return encode_response(command, 0, body=b'{"properties":{}}')
            return None

        remoting = RemotingClient(lab.world.host("member"), nursery, on_request=answer)
        member = Client(await remoting.connection((lab.world.host("broker").ip, lab.broker.address[1])), [], "m")
        await member.heartbeat("g")
        found = await asker.ask(Code.GET_CONSUMER_RUNNING_INFO, {"consumerGroup": "g", "clientId": "m", "jstackEnable": "false"})
        assert (found.code, found.body) == (0, b'{"properties":{}}')
        status = await get(asker, Code.INVOKE_BROKER_TO_GET_CONSUMER_STATUS, GetConsumerStatusBody, topic="T", group="g")
        assert status.consumer_table == {"m": {queue("T", 0): 4}}
        start = trio.current_time()
        fields = {"consumerGroup": "g", "clientId": "m", "msgId": sent.ext["msgId"], "topic": "T"}
        late = await asker.ask(Code.CONSUME_MESSAGE_DIRECTLY, fields)
        assert late.code == ResponseCode.CONSUME_MSG_TIMEOUT
        assert trio.current_time() - start == pytest.approx(10, abs=0.5)
        asked = seen[-1]
        assert (asked.ext["brokerName"], asked.ext["topicSysFlag"]) == ("b", "0")
        assert b"directly" in asked.body
        offline = await refused(asker, Code.GET_CONSUMER_RUNNING_INFO, consumerGroup="g", clientId="nobody")
        assert "not online" in offline[1]
        assert "msgId" in (await refused(asker, Code.CONSUME_MESSAGE_DIRECTLY, consumerGroup="g", clientId="m", msgId="zz"))[1]
        nursery.cancel_scope.cancel()


# --- queries


async def test_finding_messages(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        for number in range(40):
            await client.send("T", b"%d" % number, {"KEYS": f"common k{number}", "TAGS": "a", "UNIQ_KEY": f"U{number}"})
        found = await client.ask(Code.VIEW_MESSAGE_BY_ID, {"offset": "0"})
        assert bodies(found) == [b"0"]
        assert (await refused(client, Code.VIEW_MESSAGE_BY_ID, offset=3))[0] == ResponseCode.SYSTEM_ERROR
        every = {"topic": "T", "maxNum": "10", "beginTimestamp": "0", "endTimestamp": str(1 << 60)}
        assert bodies(await client.ask(Code.QUERY_MESSAGE, every | {"key": "k7"})) == [b"7"]
        assert bodies(await client.ask(Code.QUERY_MESSAGE, every | {"key": "common"})) == [b"%d" % n for n in range(39, 29, -1)]
        unique = await client.ask(Code.QUERY_MESSAGE, every | {"key": "U9", "_UNIQUE_KEY_QUERY": "true", "maxNum": "0"})
        assert bodies(unique) == [b"9"]
        assert int(unique.ext["indexLastUpdatePhyoffset"]) > 0
        assert len(bodies(await client.ask(Code.QUERY_MESSAGE, every | {"key": "a", "indexType": "T", "maxNum": "5"}))) == 5
        assert (await refused(client, Code.QUERY_MESSAGE, **(every | {"key": "none"})))[0] == ResponseCode.QUERY_NOT_FOUND
        early = every | {"key": "k7", "endTimestamp": "5"}
        assert (await refused(client, Code.QUERY_MESSAGE, **early))[0] == ResponseCode.QUERY_NOT_FOUND
        units = await get(client, Code.QUERY_CONSUME_QUEUE, QueryConsumeQueueResponseBody, topic="T", queueId=0, index=38, count=10)
        assert (units.min_queue_index, units.max_queue_index, len(units.queue_data)) == (0, 40, 2)
        assert (await client.ask(Code.VIEW_MESSAGE_BY_ID, {"offset": str(units.queue_data[1].physic_offset)})).code == 0
        assert (await refused(client, Code.QUERY_CONSUME_QUEUE, topic="X", queueId=0, index=0, count=1))[0] == ResponseCode.SYSTEM_ERROR


# --- the broker itself

MONITORED = [
    "brokerVersionDesc", "brokerActive", "putTps", "getTransferredTps", "sendThreadPoolQueueSize", "pullThreadPoolQueueSize",
    "ackThreadPoolQueueSize", "sendThreadPoolQueueHeadWaitTimeMills", "pullThreadPoolQueueHeadWaitTimeMills",
    "ackThreadPoolQueueHeadWaitTimeMills", "pageCacheLockTimeMills", "earliestMessageTimeStamp", "commitLogDiskRatio",
    "timerReadBehind", "timerOffsetBehind", "timerCongestNum", "timerEnqueueTps", "timerDequeueTps", "msgPutTotalYesterdayMorning",
    "msgPutTotalTodayMorning", "msgPutTotalTodayNow", "msgGetTotalYesterdayMorning", "msgGetTotalTodayMorning", "msgGetTotalTodayNow",
    "bootTimestamp", "runtime", "putMessageEntireTimeMax", "putMessageTimesTotal", "putMessageFailedTimes", "putMessageSizeTotal",
    "putMessageDistributeTime", "putMessageAverageSize", "dispatchMaxBuffer", "getMessageEntireTimeMax", "getFoundTps", "getMissTps",
    "getTotalTps", "putLatency99", "putLatency999", "commitLogMinOffset", "commitLogMaxOffset", "consumeQueueDiskRatio",
    "dispatchBehindBytes", "scheduleMessageOffset_1", "scheduleMessageOffset_18", "startAcceptSendRequestTimeStamp",
    "remainHowManyDataToFlush", "commitLogDirCapacity", "sendThreadPoolQueueCapacity", "EndTransactionQueueSize",
    "EndTransactionThreadPoolQueueCapacity", "queryThreadPoolQueueSize", "litePullThreadPoolQueueSize",
]


async def test_runtime_information_has_every_key_in_the_form_tools_parse(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        for _ in range(100):
            await client.send("T", b"x" * 100)
        await client.pull()
        await trio.sleep(12)
        table = (await get(client, Code.GET_BROKER_RUNTIME_INFO, KVTable)).table
        assert not set(MONITORED) - set(table)
        for key in ("putTps", "getTransferredTps", "getFoundTps", "getMissTps", "getTotalTps"):
            assert len([float(part) for part in table[key].split(" ")]) == 3
        assert float(table["putTps"].split(" ")[0]) == pytest.approx(100 / 12, rel=0.3)
        for key in ("putMessageEntireTimeMax", "earliestMessageTimeStamp", "commitLogMaxOffset", "dispatchBehindBytes"):
            int(table[key])
        words = table["commitLogDirCapacity"].split(" ")
        assert (float(words[2]), words[3], float(words[6]) > 0) == (1.0, "TiB,", True)
        assert table["remainHowManyDataToFlush"].endswith("B")
        assert table["msgPutTotalTodayNow"] == "100"
        assert table["msgGetTotalTodayNow"] == "32"
        assert [int(part.rsplit(":", 1)[1]) for part in table["putMessageDistributeTime"].split(" ")]


async def test_counts_of_one_item(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await trio.sleep(15)
        for _ in range(30):
            await client.send("T", b"x")
        await client.pull()
        await trio.sleep(11)
        puts = await get(client, Code.VIEW_BROKER_STATS_DATA, BrokerStatsData, statsName="TOPIC_PUT_NUMS", statsKey="T")
        assert (puts.stats_minute.sum, puts.stats_hour.sum, puts.stats_day.sum) == (30, 30, 30)
        gets = await get(client, Code.VIEW_BROKER_STATS_DATA, BrokerStatsData, statsName="GROUP_GET_NUMS", statsKey="T@g")
        assert (gets.stats_minute.sum, gets.stats_minute.avgpt) == (30, 30.0)
        await trio.sleep(120)
        puts = await get(client, Code.VIEW_BROKER_STATS_DATA, BrokerStatsData, statsName="TOPIC_PUT_NUMS", statsKey="T")
        assert (puts.stats_minute.sum, puts.stats_day.sum) == (0, 30)
        assert "not exist" in (await refused(client, Code.VIEW_BROKER_STATS_DATA, statsName="TOPIC_PUT_NUMS", statsKey="X"))[1]


async def test_statistics_sleep_while_nothing_happens_and_wake_up(autojump_clock: MockClock) -> None:
    async with running() as lab:
        await trio.sleep(3600)
        assert lab.broker.stats._bell is not None
        client = await lab.client()
        await client.send("T")
        await trio.sleep(11)
        assert float(lab.broker.stats.triple("puts").split(" ")[0]) > 0


async def test_totals_since_midnight(autojump_clock: MockClock) -> None:
    async with running() as lab:
        for day in range(3):
            client = await lab.client(f"day{day}")
            await client.send("T")
            if day < 2:
                await trio.sleep(86_400)
        assert lab.broker.stats.mornings()["put"] == (1, 2, 3)


async def test_configuration_that_may_change_while_running(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        answer = await client.ask(Code.GET_BROKER_CONFIG)
        assert b"brokerName=b\n" in answer.body
        assert decode_body(answer.ext["version"], DataVersion).counter == 0
        assert (await client.ask(Code.UPDATE_BROKER_CONFIG, None, b"brokerPermission=4\nfileReservedTime=1\n")).code == 0
        assert (await client.send("T")).code == ResponseCode.NO_PERMISSION
        assert lab.broker.store_service.config.reserve_ms == 3_600_000
        assert (await client.ask(Code.UPDATE_BROKER_CONFIG, None, b"brokerPermission=6")).code == 0
        sent = await client.send("T")
        assert sent.code == 0
        assert bytes.fromhex(sent.ext["msgId"])[4:8] == lab.broker.address[1].to_bytes(4, "big")
        assert decode_body((await client.ask(Code.GET_BROKER_CONFIG)).ext["version"], DataVersion).counter == 2
        for text, word in (
            (b"listenPort=1", "listenPort"), (b"brokerPermision=6", "brokerPermission"), (b"brokerPermission=x", "brokerPermission"),
            (b"brokerConfigPath=/etc", "brokerConfigPath"), (b"longPollingEnable=false\nlistenPort=1", "listenPort"), (b"\xff", "UTF-8"),
        ):
            code, remark = await refused(client, Code.UPDATE_BROKER_CONFIG, text)
            assert code in (ResponseCode.NO_PERMISSION, ResponseCode.INVALID_PARAMETER)
            assert word in remark
        assert lab.broker.config.long_polling_enable, "all or nothing"


async def test_what_a_slave_copies(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        await client.send("T")
        lab.broker.offsets.commit("g", "T", 0, 1)
        assert (await get(client, Code.GET_ALL_CONSUMER_OFFSET, ConsumerOffsetWrapper)).offset_table == {"T@g": {0: 1}}
        assert (await get(client, Code.GET_ALL_DELAY_OFFSET, DelayOffsetWrapper)).offset_table == dict.fromkeys(range(1, 19), 0)
        answer = await client.ask(Code.GET_BROKER_HA_STATUS)
        assert b'"master":true' in answer.body
        assert f'"masterCommitLogMaxOffset":{lab.broker.store.max_phy}'.encode() in answer.body


async def test_cleaning(autojump_clock: MockClock) -> None:
    world = World(7)
    async with running(world, file_reserved_time=1, delete_when="12") as lab:
        for name in "abc":
            client = await lab.client(name)
            for _ in range(20):
                await client.send("T", b"x" * 60_000)
            await trio.sleep(7200)
        client = await lab.client()
        segments = len(lab.broker.store.log.segments)
        assert (await client.ask(Code.DELETE_EXPIRED_COMMITLOG)).code == 0
        assert len(lab.broker.store.log.segments) < segments
        low = lab.broker.store.queue("T", 0)
        assert low is not None
        assert low.min_offset > 0
        assert (await client.ask(Code.CLEAN_EXPIRED_CONSUMEQUEUE)).code == 0
        del lab.broker.topics.table["T"]
        assert (await client.ask(Code.CLEAN_UNUSED_TOPIC)).code == 0
        assert lab.broker.store.queue("T", 0) is None
