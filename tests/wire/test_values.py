"""The dialect of JSON, bodies, batches, names, unique keys and registrations."""

from __future__ import annotations

import datetime
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.errors import LocalProtocolError, RemoteProtocolError
from trmq.message import MessageQueue
from trmq.wire import bodies, headers
from trmq.wire.batch import decode_batch, encode_batch
from trmq.wire.bodies import decode_body, encode_body
from trmq.wire.codes import LANGUAGES, RequestCode, ResponseCode
from trmq.wire.fastjson import ObjectKey, dumps, loads
from trmq.wire.names import check_group, check_topic, dlq_topic, is_system_group, is_system_topic, retry_topic
from trmq.wire.registration import decode_registration, encode_registration
from trmq.wire.unique_key import UniqueKeys, month_start_ms, time_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
QUEUES = st.builds(MessageQueue, TEXT, TEXT, st.integers(0, 99))
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.recursive(
    st.booleans() | INT64 | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT, inner, max_size=3)
        | st.dictionaries(INT64, inner, max_size=3)
        | st.dictionaries(QUEUES, inner, max_size=3)
    ),
    max_leaves=12,
)


def answers_with(code: ResponseCode, refusal: RemoteProtocolError) -> None:
    assert refusal.response_code == code


@given(VALUES)
def test_what_the_dialect_writes_it_reads(value: Any) -> None:
    assert loads(dumps(value, quoted_keys=False)) == value


@given(st.dictionaries(TEXT, st.dictionaries(INT64, TEXT, max_size=3), max_size=3))
def test_with_quoted_keys_it_is_standard_json(value: dict[str, dict[int, str]]) -> None:
    text = dumps(value, quoted_keys=True)
    assert json.loads(text) == {name: {str(key): inner for key, inner in table.items()} for name, table in value.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{0:'a',1:\"b\",}", {0: "a", 1: "b"}),
        ("{ -1 : [1, 2.5, true, null,] , name: {} }", {-1: [1, 2.5, True, None], "name": {}}),
        ('{{"queueId":3,"topic":"T","brokerName":"b"}:5}', {MessageQueue("T", "b", 3): 5}),
        ('{{"b":[1],"a":"x"}:5}', {ObjectKey((("a", "x"), ("b", (1,)))): 5}),
        ("{1:'it\\'s \"so\"'}", {1: 'it\'s "so"'}),
        ('{1:"\\u4e16\\n"}', {1: "世\n"}),
    ],
)
def test_the_dialect_in_examples(text: str, value: Any) -> None:
    assert loads(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{1:", "{1:2", "{1:2}}", "{1 2}", "{[1]:2}", '{1:"a', "{1:x}", "[1,,2]", "{1:" + "[" * 5000, "{" * 5000,
        '{1:"\\x"}', "{1:" + "9" * 99,
    ],
)
def test_malformed_text_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"malformed at character \d+") as caught:
        loads(text + ("}" if text.endswith("9") else ""))
    assert caught.value.response_code == ResponseCode.INVALID_PARAMETER


@given(st.text(max_size=30) | st.text('{}[]":,0123456789ab\\\'', max_size=30))
def test_no_text_makes_the_reader_raise_anything_else(text: str) -> None:
    try:
        loads("{1:" + text)
    except RemoteProtocolError:
        pass


# -------------------------------------------------------------------------------------------------------------------- bodies


def test_absent_and_null_members_take_their_defaults_and_unknown_ones_are_ignored() -> None:
    data = b'{"clientID":"c","producerDataSet":null,"x":{1:2},"consumerDataSet":['
    data += b'{"groupName":"G","subscriptionDataSet":[{"topic":"T","codeSet":null}]}]}'
    heartbeat = decode_body(data, bodies.HeartbeatData)
    assert heartbeat.producer_data_set == []
    assert heartbeat.consumer_data_set[0].subscription_data_set[0] == bodies.SubscriptionData("T")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "HeartbeatData body is missing"),
        (b"[]", "HeartbeatData body: Expected `object`"),
        (b"{}", "`clientID`"),
        (b'{"clientID":"c","consumerDataSet":[{}]}', "`groupName`"),
        (b'{"clientID":"c","heartbeatFingerprint":"x"}', "$.heartbeatFingerprint"),
        (b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_a_bad_body_is_refused_by_name(data: bytes, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_body(data, bodies.HeartbeatData)
    assert complaint in str(caught.value)
    assert caught.value.response_code == ResponseCode.INVALID_PARAMETER


def test_integer_keys_are_read_quoted_or_bare_and_written_as_asked() -> None:
    for text in (b'{0:"h:1",1:"h:2"}', b'{"0":"h:1","1":"h:2"}'):
        data = b'{"brokerAddrs":' + text + b',"brokerName":"b","cluster":"C"}'
        broker = decode_body(data, bodies.BrokerData)
        assert broker.broker_addrs == {0: "h:1", 1: "h:2"}
        assert text in encode_body(broker, quoted_keys=text.startswith(b'{"'))


def test_none_is_left_out_and_queues_are_object_keys() -> None:
    assert encode_body(bodies.TopicList(["T"])) == b'{"topicList":["T"]}'
    assert encode_body(bodies.TopicList(["a:null"], "h")) == b'{"brokerAddr":"h","topicList":["a:null"]}'
    queue = MessageQueue('T"', "b", 1)
    body = bodies.GetConsumerStatusBody({queue: 5}, {"c": {queue: 6}})
    assert b'{{"brokerName":"b","queueId":1,"topic":"T\\""}:5}' in encode_body(body, quoted_keys=True)
    assert decode_body(encode_body(body), bodies.GetConsumerStatusBody) == body
    with pytest.raises(LocalProtocolError, match="object has no JSON form"):
        dumps(object(), quoted_keys=True)


# ------------------------------------------------------------------------------------------------------------------- batches

PARTS = st.tuples(st.integers(-(1 << 31), (1 << 31) - 1), st.binary(max_size=30), st.binary(max_size=30))


@given(st.lists(PARTS, min_size=1, max_size=5))
def test_batches_come_back(parts: list[tuple[int, bytes, bytes]]) -> None:
    body = encode_batch(parts)
    assert decode_batch(body) == parts
    for end in range(1, len(body)):  # a cut anywhere is seen, except between two parts
        try:
            found = decode_batch(body[:end])
        except RemoteProtocolError as refusal:
            answers_with(ResponseCode.MESSAGE_ILLEGAL, refusal)
        else:
            assert found == parts[: len(found)]
            assert len(encode_batch(found)) == end


@given(st.binary(max_size=80))
def test_no_bytes_make_the_batch_reader_raise_anything_else(data: bytes) -> None:
    try:
        decode_batch(data)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ((-1, 0, 0, 0, 0), "size -1"),
        ((22, 0, 0, 0, -1), "body length -1"),
        ((22, 0, 0, 0, 1 << 30), "body length"),
        ((99, 0, 0, 0, 0), "size 99"),
    ],
)
def test_absurd_batch_lengths(fields: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        decode_batch(struct.pack(">iiiii", *fields) + b"\0\0")


def test_properties_too_long_for_a_batch() -> None:
    with pytest.raises(LocalProtocolError, match="32767"):
        encode_batch([(0, b"", bytes(32768))])


# --------------------------------------------------------------------------------------------------------------------- names


def test_names() -> None:
    assert check_topic("Topic_1-%|") is None
    assert check_topic("a" * 127) is None
    assert check_topic(retry_topic("g" * 248)) is None
    assert check_group("g" * 255) is None
    assert "blank" in (check_topic(" ") or "")
    for bad in ("a b", "a/b", "ä", "a\n", "..", "a" * 128):
        assert check_topic(bad) is not None, bad
    assert check_group("g" * 256) is not None
    assert check_topic(dlq_topic("g" * 255)) is not None
    assert is_system_topic("rmq_sys_wheel_timer")
    assert not is_system_topic("%RETRY%G")
    assert is_system_group("CID_RMQ_SYS_TRANS")


# --------------------------------------------------------------------------------------------------------------- unique keys

NOW = st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2100, 1, 1), timezones=st.just(datetime.UTC))


@given(NOW, st.sampled_from(["10.0.0.1", "fd00::2"]), st.integers(0, 1 << 40), st.integers(0, 27))
def test_a_unique_key_tells_its_time_for_a_month(now: datetime.datetime, ip: str, pid: int, days: int) -> None:
    ms = int(now.timestamp() * 1000)
    key = UniqueKeys(ip, pid, 0xDEADBEEF).next(ms)
    assert len(key) == (56 if ":" in ip else 32)
    assert key == key.upper()
    assert time_of(key, ms + days * 86_400_000) == ms
    first = datetime.datetime(now.year, now.month, 1, tzinfo=datetime.UTC)
    assert month_start_ms(ms) == int(first.timestamp() * 1000)


def test_unique_keys_differ_also_across_a_month_and_when_the_counter_wraps() -> None:
    keys = UniqueKeys("10.0.0.1", 1, 2, counter=65534)
    end = month_start_ms(1_700_000_000_000, 1)
    made = [keys.next(ms) for ms in (end - 1, end - 1, end - 1, end, end)]
    assert len(set(made)) == 5
    assert made[3][-12:-4] == "00000000"
    assert time_of("no key", 1) is None
    assert time_of("x" * 32, 1) is None
    with pytest.raises(LocalProtocolError, match="broker-a"):
        UniqueKeys("broker-a", 1, 2)


# -------------------------------------------------------------------------------------------------------------- registrations


def registration() -> bodies.RegisterBrokerBody:
    table = {name: bodies.TopicConfig(name, 4, 8, 6, attributes={"+a b": "c d"} if name == "T" else {}) for name in ("T", "%RETRY%G")}
    wrapper = bodies.TopicConfigSerializeWrapper(bodies.DataVersion(1, 2, 3), topic_config_table=table)
    wrapper.topic_queue_mapping_info_map["T"] = {"topic": "T", "currIdMap": {0: 1}}
    return bodies.RegisterBrokerBody(["f:1"], wrapper)


def test_registrations_come_back_in_both_forms() -> None:
    body = registration()
    assert decode_registration(encode_registration(body, compressed=True), compressed=True) == body
    plain = decode_registration(encode_registration(body, compressed=False), compressed=False)
    assert plain.topic_config_serialize_wrapper.topic_config_table == body.topic_config_serialize_wrapper.topic_config_table
    old = decode_registration(encode_registration(body, compressed=True, version=401), compressed=True, version=401)
    assert old.topic_config_serialize_wrapper.topic_queue_mapping_info_map == {}


def test_damaged_registrations_are_refused() -> None:
    data = encode_registration(registration(), compressed=True)
    plain = zlib.decompress(data)
    for bad in (b"", b"junk", data[:-3], *(zlib.compress(plain[:end]) for end in range(0, len(plain), 3))):
        try:
            decode_registration(bad, compressed=True, version=401)
        except RemoteProtocolError as refusal:
            answers_with(ResponseCode.INVALID_PARAMETER, refusal)
        else:
            assert len(zlib.decompress(bad)) > len(plain) // 2, "only the mapping part may be missing"
    with pytest.raises(RemoteProtocolError, match="length or count"):
        decode_registration(zlib.compress(struct.pack(">i", 1 << 30)), compressed=True)


# --------------------------------------------------------------------------------------------------------------------- codes


def test_codes_are_those_of_the_protocol() -> None:
    assert RequestCode(310) is RequestCode.SEND_MESSAGE_V2
    assert RequestCode.GET_ROUTEINFO_BY_TOPIC == 105
    assert ResponseCode.GO_AWAY == 1500
    assert LANGUAGES["PYTHON"] == 3
    assert headers.REQUEST_HEADERS[RequestCode.SEND_BATCH_MESSAGE] is headers.SendMessageV2
