"""What goes out and what comes in: limits before sending, records decoded like the general decoder does, compression."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.client.client import parse_name_servers
from trmq.client.filters import subscribe
from trmq.client.messages import Received, compress, decode_received, decompress, make_message
from trmq.client.retry import Verdict, judge_send, retry_level, shard
from trmq.errors import ConfigError, CorruptRecord, MessageIllegal
from trmq.message import MessageQueue, decode_properties, encode_host, encode_properties
from trmq.record import decode_records, encode_record

QUEUE = MessageQueue("T", "b", 3)
V4, V6 = encode_host(("10.0.0.9", 10911)), encode_host(("fd00::9", 10911))


def record(body: bytes = b"hello", topic: str = "T", born: bytes = V4, store: bytes = V4, sys_flag: int = 0, **properties: str) -> bytes:
    return encode_record(
        topic.encode(), 3, 17, 4096, body, encode_properties({"UNIQ_KEY": "U1", **properties}), 5, sys_flag, 1_000, born, 2_000, store, 2)


@pytest.mark.parametrize("topic", ["T", "%RETRY%" + "g" * 150])
@pytest.mark.parametrize("born", [V4, V6])
@pytest.mark.parametrize("store", [V4, V6])
def test_decoding_agrees_with_the_general_decoder(topic: str, born: bytes, store: bytes) -> None:
    data = record(topic=topic, born=born, store=store, TAGS="t", KEYS="a b") + record(b"second", topic=topic, born=born, store=store)
    for fast, slow in zip(decode_received(data, "b", Received), decode_records(data), strict=True):
        assert fast.queue == MessageQueue(slow.topic, "b", slow.queue_id)
        assert (fast.body, dict(fast.properties)) == (slow.body, dict(slow.properties))
        assert (fast.offset, fast.phy_offset, fast.size, fast.flag) == (slow.queue_offset, slow.phy_offset, slow.size, slow.flag)
        assert (fast.born_ms, fast.store_ms, fast.reconsume_times) == (slow.born_ms, slow.store_ms, slow.reconsume_times)
        assert (fast.born_host, fast.store_host) == (encode_host(slow.born_host), encode_host(slow.store_host))


@given(st.integers(0, len(record()) - 1), st.integers(0, 255))
def test_a_damaged_record_is_an_error_never_a_short_list(at: int, value: int) -> None:
    """Java drops the rest of an answer in silence; here a wrong length is seen, or the damage lies in a field that no check covers."""
    data = bytearray(record() * 2)
    data[at] = value
    try:
        assert len(decode_received(bytes(data), QUEUE, Received)) == 2
    except CorruptRecord:
        pass


@pytest.mark.parametrize("cut", [1, 50, 90, len(record()) + 1, 2 * len(record()) - 1])
def test_a_cut_answer_is_an_error(cut: int) -> None:
    with pytest.raises(CorruptRecord):
        decode_received((record() * 2)[:cut], QUEUE, Received)


def test_what_an_application_sees() -> None:
    (m,) = decode_received(record(topic="%RETRY%g", RETRY_TOPIC="orders", TAGS="t", KEYS="a b", __SHARDINGKEY="s"), QUEUE, Received)
    assert m.topic == "T", "the queue decides whether it came through a retry topic"
    (m,) = decode_received(record(topic="%RETRY%g", RETRY_TOPIC="orders", TAGS="t", KEYS="a b", __SHARDINGKEY="s"), "b", Received)
    assert (m.topic, m.tag, m.keys, m.sharding_key, m.message_id) == ("orders", "t", ("a", "b"), "s", "U1")
    assert m.offset_message_id == "0A00000900002A9F0000000000001000"


def test_properties_carry_the_key_first_and_everything_given() -> None:
    m = make_message("T", "b", "KEY", tag="t", keys=["a", "b"], properties={"x": "y"}, delay_level=3, sharding_key="s", wait=False)
    assert decode_properties(m.properties) == {
        "UNIQ_KEY": "KEY", "WAIT": "false", "TAGS": "t", "KEYS": "a b", "x": "y", "DELAY": "3", "__SHARDINGKEY": "s"}
    assert m.delayed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"topic": "no topic!"}, "no topic!"), ({"topic": ""}, "opic"), ({"topic": "t" * 128}, "127"), ({"body": b""}, "body"),
        ({"tag": "a || b"}, "tag"), ({"keys": ["a", ""]}, "key"), ({"delay_level": -1}, "delay_level"),
        ({"properties": {"UNIQ_KEY": "x"}}, "reserved"), ({"properties": {"n": ""}}, "value"), ({"properties": {"n": "a\x02b"}}, "control"),
        ({"properties": {"n": "ü" * 16384}}, "32767"), ({"sharding_key": "\x01"}, "control"),
    ],
)
def test_bad_messages(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(MessageIllegal, match=complaint):
        make_message(**{"topic": "T", "body": b"x", "unique_key": "K", **arguments})


def test_only_long_bodies_are_compressed() -> None:
    assert compress(b"a" * 4096, 4096) == (b"a" * 4096, 0)
    body, flag = compress(b"a" * 4097, 4096)
    assert (zlib.decompress(body), flag) == (b"a" * 4097, 0x301)
    assert compress(b"a" * 9999, None) == (b"a" * 9999, 0)


@pytest.mark.parametrize("kind", ["zlib", "go", "lz4", "zstd"])
def test_every_compression_can_be_read(kind: str) -> None:
    plain = b"many words " * 500
    if kind == "lz4":
        packed, flag = pytest.importorskip("lz4.frame").compress(plain), 0x101
    elif kind == "zstd":
        packed, flag = pytest.importorskip("backports.zstd").compress(plain), 0x201
    else:
        packed, flag = zlib.compress(plain), 0x301 if kind == "zlib" else 0x1
    (m,) = decode_received(record(packed, sys_flag=flag), QUEUE, Received)
    assert m.body == plain
    assert m.body == plain, "decoded once, read often"


def test_a_damaged_compressed_body_is_a_clear_error() -> None:
    with pytest.raises(MessageIllegal, match="cannot be read"):
        decompress(b"nonsense", 0x301)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [(code, Verdict.STORED) for code in (0, 10, 11, 12)]
    + [(code, Verdict.TRY_ANOTHER) for code in (17, 14, 1, 2, 16, 204, 205, 1500)]
    + [(code, Verdict.REFUSED) for code in (3, 13, 29, 604, 215)],
)
def test_which_answers_are_tried_again(code: int, verdict: Verdict) -> None:
    assert judge_send(code) is verdict


def test_retry_levels_follow_javas_ladder() -> None:
    assert [retry_level(times) for times in range(3)] == [3, 4, 5]


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(1, 16))
def test_a_key_stays_with_its_queue(key_hash: int, count: int) -> None:
    queues = [MessageQueue("T", "b", i) for i in range(count)]
    assert shard(queues, key_hash) is shard(queues, key_hash)


@pytest.mark.parametrize(("text", "tags"), [("*", set()), ("", set()), ("a", {"a"}), (" a||b || c ", {"a", "b", "c"})])
def test_filters(text: str, tags: set[str]) -> None:
    subscription = subscribe("T", text, 1)
    assert subscription.tags == tags
    assert subscription.wants("a") is (not tags or "a" in tags)
    assert subscription.wants(None) is (not tags)


def test_a_filter_with_a_hole_is_refused() -> None:
    with pytest.raises(ConfigError, match="paid"):
        subscribe("T", "a || ", 1)


@pytest.mark.parametrize("text", ["a:1;b:2", "a:1, b:2", ["a:1", "b:2"], "a:1;b:2;"])
def test_name_server_lists(text: Any) -> None:
    assert parse_name_servers(text) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("text", ["", ";", "a", "a:", ":1", "a:0", "a:65536", "a:x"])
def test_bad_name_servers(text: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        parse_name_servers(text)
