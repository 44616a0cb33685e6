"""Sending: what is stored, what is answered, and every way to be refused."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from broker.harness import Lab, running, send_header
from trmq.broker.handlers.send import _own, _read
from trmq.message import decode_message_id
from trmq.record import decode_record
from trmq.wire.batch import encode_batch
from trmq.wire.codes import ResponseCode
from trmq.wire.command import Command, encode_request


def stored(lab: Lab, answer: Command, which: int = 0) -> Any:
    _, phy = decode_message_id(answer.ext["msgId"].split(",")[which])
    view = lab.broker.store.record(phy)
    assert view is not None
    return decode_record(view)


async def test_a_message_is_stored_as_it_was_sent_and_stamped(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        own = {"KEYS": "k1 k2", "UNIQ_KEY": "U1", "TAGS": "A", "own": "x"}
        answer = await client.send("T", b"body", own, queue_id=3, reconsume_times=2)
        assert answer.code == 0
        assert answer.version == 493
        assert (answer.ext["queueId"], answer.ext["queueOffset"], answer.ext["transactionId"]) == ("3", "0", "U1")
        (host, _) = decode_message_id(answer.ext["msgId"])
        assert host == ("10.0.0.1", 10911)
        message = stored(lab, answer)
        assert (message.topic, message.queue_id, message.body, message.flag) == ("T", 3, b"body", 7)
        assert (message.reconsume_times, message.born_ms) == (2, 1_600_000_000_000)
        assert message.born_host[0] == "10.0.0.2"
        assert message.properties == {
            "KEYS": "k1 k2", "UNIQ_KEY": "U1", "TAGS": "A", "own": "x", "MSG_REGION": "DefaultRegion", "TRACE_ON": "true", "CLUSTER": "C",
        }
        assert lab.broker.topics.table["T"].write_queue_nums == 4


async def test_properties_are_repaired(autojump_clock: MockClock) -> None:
    """A missing final separator, no UNIQ_KEY, an old POP_CK and the stamps of another broker."""
    async with running() as lab:
        client = await lab.client()
        message = stored(lab, await client.send(properties="a\x01b"))
        assert message.properties["a"] == "b"
        assert len(message.properties["UNIQ_KEY"]) == 32
        message = stored(lab, await client.send(properties={"POP_CK": "x", "CLUSTER": "other", "UNIQ_KEY": "U"}))
        assert "POP_CK" not in message.properties
        assert message.properties["CLUSTER"] == "C"
        assert message.properties["UNIQ_KEY"] == "U"


@pytest.mark.parametrize("code", [10, 310, 320])
async def test_long_header_names_are_taken_under_every_code(autojump_clock: MockClock, code: int) -> None:
    async with running() as lab:
        client = await lab.client()
        fields = {
            "producerGroup": "p", "topic": "T", "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": "1", "sysFlag": "0",
            "bornTimestamp": "1", "flag": "0", "properties": "", "reconsumeTimes": "0", "unitMode": "false", "batch": "false",
        }
        body = encode_batch([(0, b"x", b"")]) if code == 320 else b"x"
        answer = await client.ask(code, fields, body)
        assert answer.code == 0
        assert stored(lab, answer).body == b"x"


async def test_a_batch_becomes_consecutive_records(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        parts = [(i, b"body%d" % i, b"UNIQ_KEY\x01U%d\x02TAGS\x01A" % i) for i in range(3)]
        answer = await client.send("T", encode_batch(parts), {"WAIT": "true"}, code=320, batch=True)
        assert answer.code == 0
        assert answer.ext["queueOffset"] == "0"
        found = [stored(lab, answer, i) for i in range(3)]
        assert [m.body for m in found] == [b"body0", b"body1", b"body2"]
        assert [m.queue_offset for m in found] == [0, 1, 2]
        assert [m.properties["UNIQ_KEY"] for m in found] == ["U0", "U1", "U2"]
        assert {m.properties["CLUSTER"] for m in found} == {"C"}
        again = await client.send("T", encode_batch(parts), batch=True)
        assert again.ext["queueOffset"] == "3", "the flag alone makes a batch, whatever the code"


async def test_a_negative_queue_means_any(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        used = {(await client.send(queue_id=-1)).ext["queueId"] for _ in range(40)}
        assert used == {"0", "1", "2", "3"}


LONG = "x" * 128
REFUSALS = [
    ({"topic": "a b"}, ResponseCode.INVALID_PARAMETER, "illegal characters"),
    ({"topic": " "}, ResponseCode.INVALID_PARAMETER, "blank"),
    ({"topic": LONG}, ResponseCode.INVALID_PARAMETER, "longer"),
    ({"topic": "SCHEDULE_TOPIC_XXXX"}, ResponseCode.NO_PERMISSION, "forbidden"),
    ({"topic": "RMQ_SYS_TRANS_HALF_TOPIC"}, ResponseCode.NO_PERMISSION, "forbidden"),
    ({"topic": "New", "default_topic": "None"}, ResponseCode.TOPIC_NOT_EXIST, "not exist"),
    ({"queue_id": 4}, ResponseCode.INVALID_PARAMETER, "queueId"),
    ({"body": b""}, ResponseCode.MESSAGE_ILLEGAL, "no body"),
    ({"body": b"x" * ((4 << 20) + 1)}, ResponseCode.MESSAGE_ILLEGAL, "maxMessageSize"),
    ({"properties": "p\x01" + "é" * 16_400}, ResponseCode.MESSAGE_ILLEGAL, "32767"),
    ({"properties": {"TRAN_MSG": "true"}}, ResponseCode.NO_PERMISSION, "transaction"),
    ({"properties": {"TIMER_DELAY_SEC": "3"}}, ResponseCode.SYSTEM_ERROR, "timer"),
    ({"properties": {"DELAY": "soon"}}, ResponseCode.MESSAGE_ILLEGAL, "DELAY"),
    ({"batch": True, "body": b"garbage"}, ResponseCode.MESSAGE_ILLEGAL, "batch"),
    ({"batch": True, "body": encode_batch([(0, b"x", b"DELAY\x013\x02")])}, ResponseCode.MESSAGE_ILLEGAL, "batch"),
    ({"batch": True, "topic": "%RETRY%g", "body": encode_batch([(0, b"x", b"")])}, ResponseCode.MESSAGE_ILLEGAL, "retry"),
]


@pytest.mark.parametrize(("request_", "code", "word"), REFUSALS, ids=[f"{r[2]}-{i}" for i, r in enumerate(REFUSALS)])
async def test_every_refusal_has_its_code_and_stores_nothing(
    autojump_clock: MockClock, request_: dict[str, Any], code: int, word: str
) -> None:
    async with running() as lab:
        client = await lab.client()
        assert (await client.send("T")).code == 0
        end = lab.broker.store.max_phy
        answer = await client.send(**request_)
        assert answer.code == code
        assert word in (answer.remark or "")
        assert lab.broker.store.max_phy == end
        assert (await client.send("T")).code == 0, "the connection lives on"


async def test_a_missing_field_is_named(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        answer = await client.ask(310, {"a": "p", "b": "T"}, b"x")
        assert answer.code == ResponseCode.INVALID_PARAMETER
        assert "default_topic" in (answer.remark or "")


async def test_topics_and_brokers_that_may_not_be_written(autojump_clock: MockClock) -> None:
    async with running(broker_permission=4) as lab:
        client = await lab.client()
        assert (await client.send("T")).code == ResponseCode.NO_PERMISSION
    async with running() as lab:
        client = await lab.client()
        await client.send("T")
        lab.broker.topics.table["T"].perm = 4
        assert (await client.send("T")).code == ResponseCode.NO_PERMISSION


async def test_auto_creation_can_be_off(autojump_clock: MockClock) -> None:
    async with running(auto_create_topic_enable=False) as lab:
        client = await lab.client()
        assert (await client.send("T")).code == ResponseCode.TOPIC_NOT_EXIST
        assert "T" not in lab.broker.topics


async def test_a_oneway_message_is_stored_and_not_answered(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        client.conn.post(encode_request(310, 99, send_header("T", ""), b"quiet", oneway=True))
        answer = await client.send("T", b"loud")
        assert answer.ext["queueOffset"] == "1"
        assert not client.told


async def test_a_full_disk_refuses_and_recovers(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        assert (await client.send("T")).code == 0
        await trio.sleep(10)
        lab.disk.capacity = lab.disk.used + 100_000
        end = lab.broker.store.max_phy
        refused = None
        for _ in range(200):
            answer = await client.send("T", b"x" * 40_000)
            if answer.code:
                refused = answer
                break
        assert refused is not None
        assert refused.code == ResponseCode.SERVICE_NOT_AVAILABLE
        assert lab.broker.store.max_phy >= end
        lab.disk.capacity = None
        await trio.sleep(30)
        assert (await client.send("T", b"x" * 40_000)).code == 0


async def test_a_retry_message_beyond_its_limit_is_dead(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        again = stored(lab, await client.send("%RETRY%g", reconsume_times=3, max_reconsume_times=3))
        assert again.topic == "%RETRY%g"
        dead = stored(lab, await client.send("%RETRY%g", properties={"DELAY": "3"}, reconsume_times=4, max_reconsume_times=3))
        assert dead.topic == "%DLQ%g"
        assert "DELAY" not in dead.properties
        assert lab.broker.topics.table["%DLQ%g"].write_queue_nums == 1


async def test_an_unknown_request_is_answered_so(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client()
        answer = await client.ask(31_999)
        assert answer.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
        assert answer.remark == " request type 31999 not supported"


async def test_the_fast_port_serves_everything_but_pulls(autojump_clock: MockClock) -> None:
    async with running() as lab:
        client = await lab.client(port=10909)
        assert (await client.send("T")).code == 0
        assert (await client.pull("T")).code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED


# ------------------------------------------------------------------------------------------------------------- SYNC_FLUSH


async def test_sync_flush_answers_after_the_sync(autojump_clock: MockClock) -> None:
    async with running(flush_disk_type="SYNC_FLUSH") as lab:
        client = await lab.client()
        await client.send("T")
        lab.disk.latency = 0.5
        start = trio.current_time()
        answer = await client.send("T")
        assert answer.code == 0
        assert trio.current_time() - start >= 0.5
        start = trio.current_time()
        answer = await client.send("T", properties={"WAIT": "false"})
        assert answer.code == 0
        assert trio.current_time() - start < 0.5, "who does not wait is answered at once"


async def test_a_late_flush_is_said_with_the_same_ids(autojump_clock: MockClock) -> None:
    async with running(flush_disk_type="SYNC_FLUSH", sync_flush_timeout=2000) as lab:
        client = await lab.client()
        await client.send("T")
        lab.disk.latency = 3.0
        start = trio.current_time()
        answer = await client.send("T")
        assert answer.code == ResponseCode.FLUSH_DISK_TIMEOUT
        assert 2.0 <= trio.current_time() - start < 2.1
        assert answer.ext["queueOffset"] == "1"
        lab.disk.latency = 0.0
        await trio.sleep(10)
        assert stored(lab, answer).body == b"hello"


WORDS = st.sampled_from(["UNIQ_KEY", "UNIQ_KEY\x01", "KEYS", "TAGS", "DELAY", "WAIT", "false", "x", "1 2", "\x01", "\x02", ""])


@given(st.lists(WORDS, max_size=12).map("".join))
def test_what_is_remembered_of_properties_is_what_they_say(text: str) -> None:
    unique, own = _own(text)
    assert (unique, own._replace(unique="")) == (_read(text).unique, _read(text)._replace(unique=""))
