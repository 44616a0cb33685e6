"""Our encoders and decoders against bytes that the real 5.4.0 classes wrote; see record/README.md."""

from __future__ import annotations

import ipaddress
import json
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trmq.message import decode_message_id, decode_properties, encode_host, encode_properties, java_hash, message_id
from trmq.record import decode_record, encode_record
from trmq.wire import bodies, headers
from trmq.wire.batch import decode_batch, encode_batch
from trmq.wire.bodies import decode_body, encode_body
from trmq.wire.command import Command, encode_request, encode_response, fields_of, pull_answer, send_ok
from trmq.wire.fastjson import loads
from trmq.wire.frame import FrameDecoder
from trmq.wire.registration import decode_registration, encode_registration
from trmq.wire.unique_key import UniqueKeys, month_start_ms, time_of

HERE = Path(__file__).parent


def golden(name: str) -> dict[str, bytes]:
    return {key: bytes.fromhex(text) for key, text in json.loads((HERE / name).read_text()).items()}


HEADERS, FRAMES, BODIES = golden("headers.json"), golden("frames.json"), golden("bodies.json")
MESSAGES, STORE = golden("messages.json"), golden("store.json")
FORMS = {"JSON": 0, "ROCKETMQ": 1}


def decode(frame: bytes) -> Command:
    decoder = FrameDecoder()
    (command,) = decoder.feed(frame)
    assert decoder.failed is None
    assert decoder.pending == 0
    return command


# ------------------------------------------------------------------------------------------------------------------- headers

OTHER_NAMES = {
    "GetRouteInfo": "GetRouteInfo", "UnRegisterBroker": "UnregisterBroker", "ReplyMessage": "PushReplyMessage",
    "ConsumeMessageDirectlyResult": "ConsumeMessageDirectly", "ResetOffset": "ResetConsumerClientOffset",
    "GetConsumeStatsInBroker": "GetBrokerConsumeStats", "ExchangeHAInfoResponse": "ExchangeHAInfo",
    "QueryConsumerOffsetResponse": "OffsetResponse", "GetMaxOffsetResponse": "OffsetResponse",
    "GetMinOffsetResponse": "OffsetResponse", "SearchOffsetResponse": "OffsetResponse",
}  # fmt: skip
NO_FIELDS = {"Heartbeat", "GetAllProducerInfo", "LockBatchMq", "UnlockBatchMq", "CreateTopicList"}
BASE_FIELDS = {"ns", "nsd", "bname", "oway", "lo"}


def our_type(java: str) -> type[headers.Header]:
    name = java.removesuffix("Header").removesuffix("Request")
    found: type[headers.Header] = getattr(headers, OTHER_NAMES.get(name, name))
    return found


@pytest.mark.parametrize("key", [key for key in HEADERS if key.split("Request")[0] not in NO_FIELDS])
def test_every_header_reads_and_writes_the_fields_of_its_java_class(key: str) -> None:
    """Java filled each member with a value of its own: all of them arrive, and only they are sent."""
    command = decode(HEADERS[key])
    kind = our_type(key.split("/")[0])
    fields = fields_of(command.header(kind))
    theirs = {name: value for name, value in command.ext.items() if name not in BASE_FIELDS or name in fields}
    ours = {name: value for name, value in fields.items() if name in theirs}
    assert ours == theirs
    extra = {name for name, wire in headers.header_fields(kind) if wire not in theirs}
    assert all(msgspec.structs.fields(kind)[kind.__struct_fields__.index(name)].default is None for name in extra), "Java would not send it"


def test_both_forms_of_a_header_say_the_same() -> None:
    for key, frame in HEADERS.items():
        name, form = key.split("/")
        if form == "JSON":
            assert decode(frame).ext == decode(HEADERS[f"{name}/ROCKETMQ"]).ext, name


# -------------------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("key", [key for key in FRAMES if key.startswith("send_") and not key.startswith("send_ok")])
def test_requests_are_encoded_as_java_does(key: str) -> None:
    command = decode(FRAMES[key])
    again = encode_request(
        command.code, command.opaque, command.ext, command.body, oneway=command.is_oneway, serialize=command.serialize, language="JAVA"
    )
    assert again == FRAMES[key]


@pytest.mark.parametrize("form", FORMS)
def test_send_requests_mean_the_same_in_all_their_forms(form: str) -> None:
    first = decode(FRAMES[f"send_v1/{form}"]).header(headers.SendMessage)
    second = decode(FRAMES[f"send_v2/{form}"]).header(headers.SendMessageV2)
    assert msgspec.structs.asdict(first) == msgspec.structs.asdict(second)
    assert (second.topic, second.queue_id, second.flag, second.unit_mode, second.broker_name) == ("TopicTest", 3, 5, False, None)
    assert decode_properties(second.properties or "") == {"KEYS": 'k "1"', "TAGS": "Täg\\A"}
    assert decode(FRAMES[f"send_oneway/{form}"]).is_oneway


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_encoded_as_java_does(form: str) -> None:
    def to(opaque: int) -> Command:
        return Command(code=310, opaque=opaque, serialize=FORMS[form])

    assert send_ok(to(5), 0, "7F00000100002A9F00000000000004D2", 3, 7, "7F0000010001") == FRAMES[f"send_ok/{form}"]
    assert pull_answer(to(6), 0, "FOUND", 1, 33, 2, 99, [b"\1\2", b"\3"], 3) == FRAMES[f"pull_found/{form}"]
    error = decode(FRAMES[f"error/{form}"])
    ours = encode_response(to(8), 17, remark=error.remark)
    assert ours.replace(b'"extFields":{},', b"")[8:] == FRAMES[f"error/{form}"][8:]  # Java leaves an absent header's fields out
    empty = decode(FRAMES[f"heartbeat_empty/{form}"])
    assert (empty.code, empty.ext, empty.body, empty.version) == (34, {}, b"", 493)


# -------------------------------------------------------------------------------------------------------------------- bodies

BODY_TYPES: dict[str, Any] = {
    "route/bare": bodies.TopicRouteData, "route/quoted": bodies.TopicRouteData, "cluster": bodies.ClusterInfo,
    "heartbeat": bodies.HeartbeatData, "topic_stats": bodies.TopicStatsTable, "consume_stats": bodies.ConsumeStats,
    "reset_offset": bodies.ResetOffsetBody, "lock": bodies.LockBatchRequestBody, "locked": bodies.LockBatchResponseBody,
    "consumer_connection": bodies.ConsumerConnection, "consumer_list": bodies.ConsumerList, "group_config": bodies.SubscriptionGroupConfig,
    "data_version": bodies.DataVersion, "topic_config": bodies.TopicConfig, "running_info": bodies.ConsumerRunningInfo,
    "consume_directly": bodies.ConsumeMessageDirectlyResult, "broker_stats": bodies.BrokerStatsData, "ha_runtime": bodies.HARuntimeInfo,
    "register/plain": bodies.RegisterBrokerBody,
}  # fmt: skip


@pytest.mark.parametrize("key", BODY_TYPES)
def test_bodies_are_read_and_written_byte_for_byte(key: str) -> None:
    value = decode_body(BODIES[key], BODY_TYPES[key])
    assert encode_body(value, quoted_keys=key.endswith("quoted")) == BODIES[key]


def test_no_recorded_body_is_left_out() -> None:
    assert set(BODIES) - set(BODY_TYPES) == {"register/compressed"}


def test_the_compressed_registration_carries_what_java_put_in() -> None:
    body = decode_registration(BODIES["register/compressed"], compressed=True)
    plain = decode_registration(BODIES["register/plain"], compressed=False)
    ours, theirs = body.topic_config_serialize_wrapper, plain.topic_config_serialize_wrapper
    assert (ours.topic_config_table, ours.data_version) == (theirs.topic_config_table, theirs.data_version)
    again = encode_registration(body, compressed=True)
    assert zlib.decompress(again) == zlib.decompress(BODIES["register/compressed"])


# ------------------------------------------------------------------------------------------------------------------ messages


def test_properties_batches_hashes_and_ids() -> None:
    assert encode_properties({"A": "1", "B": "世 2"}) == MESSAGES["properties"]
    assert decode_properties(MESSAGES["properties"]) == {"A": "1", "B": "世 2"}
    parts = decode_batch(MESSAGES["batch"])
    assert [body for _, body, _ in parts] == [b"hi", "ü".encode()]
    assert decode_properties(parts[0][2]) == {"KEYS": "k", "WAIT": "true", "TAGS": "TagA"}
    assert encode_batch(parts) == MESSAGES["batch"]
    for key, text in MESSAGES.items():
        if key.startswith("hash/"):
            assert java_hash(text.decode()) == int(key.removeprefix("hash/"))
    for key, ip in (("message_id/v4", "10.0.0.1"), ("message_id/v6", "fd00::2")):
        assert message_id(encode_host((ip, 10911)), 123456789012).encode() == MESSAGES[key]
        assert decode_message_id(MESSAGES[key].decode()) == ((ip, 10911), 123456789012)


@pytest.mark.parametrize("key", [key for key in MESSAGES if key.startswith("record/")])
def test_records_with_either_kind_of_host(key: str) -> None:
    """The client class that wrote these leaves the body CRC 0, unlike a broker; all else agrees."""
    message = decode_record(MESSAGES[key], check_crc=False)
    born, store = ({"v4": "10.0.0.1", "v6": "fd00::2"}[part] for part in key.removeprefix("record/").split("_"))
    assert (message.born_host, message.store_host) == ((born, 4711), (store, 10911))
    assert message.properties == {"KEYS": "k1 k2", "name": "välue", "TAGS": "TagA"}
    again = encode_record(
        message.topic.encode(), message.queue_id, message.queue_offset, message.phy_offset, message.body,
        encode_properties(message.properties), message.flag, message.sys_flag, message.born_ms, encode_host(message.born_host),
        message.store_ms, encode_host(message.store_host), message.reconsume_times, message.prepared_offset,
    )  # fmt: skip
    assert again[:8] + bytes(4) + again[12:] == MESSAGES[key]


def test_unique_keys_have_the_java_layout() -> None:
    """Java's month begins at local midnight and the recorded time is whole seconds: a zone's worth of hours may lie between."""
    text = MESSAGES["unique_key/text"].decode()
    made = int(MESSAGES["unique_key/time_ms"])
    ip = MESSAGES["unique_key/ip"]
    assert bytes.fromhex(text[: 2 * len(ip)]) == ip
    loader, counter = int(text[-20:-12], 16), int(text[-4:], 16)
    keys = UniqueKeys(str(ipaddress.ip_address(ip)), int(MESSAGES["unique_key/pid"]), loader, counter)
    ours = keys.next(month_start_ms(made) + int(text[-12:-4], 16))
    assert len(ours) == len(text)
    assert ours == text
    read = time_of(text, made + 86_400_000)
    assert read is not None
    assert abs(read - made) <= 15 * 3_600_000


# ----------------------------------------------------------------------------------------------------------------- store files


@pytest.mark.parametrize("form", ["", "/compact"])
def test_configuration_files_are_read(form: str) -> None:
    topics = decode_body(STORE[f"topics.json{form}"], bodies.TopicConfigSerializeWrapper)
    assert topics.topic_config_table["TopicTest"].write_queue_nums == 8
    assert topics.topic_config_table["TopicTest"].attributes == {"message.type": "NORMAL"}
    assert topics.data_version == bodies.DataVersion(3, 0, 1795213733476)
    offsets = decode_body(STORE[f"consumerOffset.json{form}"], bodies.ConsumerOffsetWrapper)
    assert offsets.offset_table == {"TopicTest@G": {0: 7, 3: 12345678901}}
    groups = decode_body(STORE[f"subscriptionGroup.json{form}"], bodies.SubscriptionGroupWrapper)
    assert groups.subscription_group_table == {"G": bodies.SubscriptionGroupConfig("G")}
    assert loads(STORE[f"topics.json{form}"])["topicConfigTable"]["%RETRY%G"]["perm"] == 6


def test_the_group_file_is_written_byte_for_byte() -> None:
    compact = STORE["subscriptionGroup.json/compact"]
    assert encode_body(decode_body(compact, bodies.SubscriptionGroupWrapper)) == compact
