"""Streams of frames: any split decodes alike, and whatever makes no sense ends the stream with one clear sentence."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.errors import LocalProtocolError, RemoteProtocolError
from trmq.wire.codes import ResponseCode
from trmq.wire.command import Command, encode_request, encode_response, pull_answer, send_ok
from trmq.wire.frame import FrameDecoder
from trmq.wire.headers import Header, PullMessage, PullMessageResponse, SearchOffset, SendMessage, SendMessageResponse, SendMessageV2

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FIELDS = st.dictionaries(TEXT, TEXT, max_size=5)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
REQUESTS = st.builds(
    encode_request, st.integers(0, 32767), INT32, FIELDS, st.binary(max_size=50), oneway=st.booleans(), serialize=st.sampled_from([0, 1])
)


def answers_with(code: ResponseCode, refusal: RemoteProtocolError) -> None:
    assert refusal.response_code == code


def plain(command: Command) -> tuple[Any, ...]:
    return (command.code, command.opaque, command.flag, command.language, command.version, command.remark, command.ext, command.body)


def frame(header: bytes, kind: int = 0, body: bytes = b"") -> bytes:
    return struct.pack(">II", 4 + len(header) + len(body), kind << 24 | len(header)) + header + body


def failure(data: bytes, **limits: int) -> str:
    decoder = FrameDecoder(**limits)
    decoder.feed(data)
    assert decoder.failed is not None
    assert decoder.failed.fatal
    assert decoder.feed(data) == []
    return str(decoder.failed)


# ----------------------------------------------------------------------------------------------------------------- positive


@given(st.lists(REQUESTS, max_size=6), st.data())
def test_any_split_of_a_stream_decodes_to_the_same_commands(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    whole = FrameDecoder().feed(stream)
    assert len(whole) == len(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder, found = FrameDecoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    assert decoder.failed is None
    assert decoder.pending == 0
    assert list(map(plain, found)) == list(map(plain, whole))


@given(
    st.integers(0, 32767), INT32, FIELDS, st.binary(max_size=99), st.booleans(), st.sampled_from([0, 1]), st.sampled_from(["JAVA", "GO"])
)
def test_requests_come_back_as_sent(
    code: int, opaque: int, fields: dict[str, str], body: bytes, oneway: bool, kind: int, language: str
) -> None:
    data = encode_request(code, opaque, fields, body, oneway=oneway, serialize=kind, language=language)
    (command,) = FrameDecoder().feed(data)
    assert plain(command) == (code, opaque, 2 if oneway else 0, language, 493, None, fields, body)
    assert (command.serialize, command.is_oneway, command.is_response) == (kind, oneway, False)


@given(st.integers(0, 3000), INT32, st.none() | TEXT.filter(bool), FIELDS, st.binary(max_size=9), st.sampled_from([0, 1]))
def test_answers_keep_opaque_and_form(
    code: int, opaque: int, remark: str | None, fields: dict[str, str], body: bytes, kind: int
) -> None:
    data = encode_response(Command(code=1, opaque=opaque, serialize=kind), code, fields, remark=remark, body=body)
    (answer,) = FrameDecoder().feed(data)
    assert plain(answer) == (code, opaque, 1, "JAVA", 493, remark, fields, body)
    assert (answer.serialize, answer.is_response) == (kind, True)


@given(
    INT32, TEXT, st.integers(0, 99), st.integers(0, 1 << 62), TEXT, st.sampled_from([0, 1]),
    st.sampled_from([None, {"recallHandle": "h"}]),
)  # fmt: skip
def test_the_formatted_send_answer_reads_like_an_assembled_one(
    opaque: int, unique_key: str, queue_id: int, offset: int, region: str, kind: int, more: dict[str, str] | None
) -> None:
    region = "".join(c for c in region if c.isalnum())
    data = send_ok(Command(code=310, opaque=opaque, serialize=kind), 10, "AB,CD", queue_id, offset, unique_key, region=region, more=more)
    (answer,) = FrameDecoder().feed(data)
    header = answer.header(SendMessageResponse)
    assert (header.msg_id, header.queue_id, header.queue_offset) == ("AB,CD", queue_id, offset)
    assert (header.transaction_id or "") == unique_key
    assert header.recall_handle == (more or {}).get("recallHandle")
    assert (answer.code, answer.opaque, answer.flag, answer.ext["MSG_REGION"], answer.ext["TRACE_ON"]) == (10, opaque, 1, region, "true")


@pytest.mark.parametrize("kind", [0, 1])
def test_a_pull_answer_carries_its_slices_in_order(kind: int) -> None:
    slices = [memoryview(b"xx abc")[3:], b"def"]
    data = pull_answer(Command(code=11, opaque=9, serialize=kind), 21, 'bad "offset"', 0, 5, 1, 7, slices, 6)
    (answer,) = FrameDecoder().feed(data)
    assert answer.body == b"abcdef"
    assert answer.remark == 'bad "offset"'
    assert answer.header(PullMessageResponse) == PullMessageResponse(0, 5, 1, 7)


def test_a_large_frame_that_drips_byte_by_byte_is_copied_once() -> None:
    """Quadratic copying would need terabytes of memory traffic here, so the test would not end."""
    data = encode_request(310, 1, {"a": "b"}, bytes(4 << 20))
    decoder = FrameDecoder()
    for at in range(0, len(data) - 1, 16):
        assert decoder.feed(data[at : min(at + 16, len(data) - 1)]) == []
    assert decoder.pending == len(data) - 1
    (command,) = decoder.feed(data[-1:])
    assert len(command.body) == 4 << 20
    assert decoder.pending == 0


# ----------------------------------------------------------------------------------------------------------------- bad frames

GOOD = b'{"code":10,"opaque":1}'


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n", "exceeds the limit of 16777216 bytes"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "TLS handshake"),
        (struct.pack(">iI", -5, 0), "frame length -5 is below 4"),
        (struct.pack(">iI", 3, 0), "frame length 3 is below 4"),
        (struct.pack(">II", 20, 21), "header length 21 reaches beyond the frame of 20 bytes"),
        (struct.pack(">II", 20, 0xFFFFFF), "reaches beyond the frame"),
        (struct.pack(">II", (1 << 24), 2 << 20), "header length 2097152 exceeds the limit of 1048576 bytes"),
        (frame(GOOD, 2), "serialize type 2 is neither"),
        (frame(b""), "no command"),
        (frame(b"[]"), "Expected `object`, got `array`"),
        (frame(b"7"), "Expected `object`"),
        (frame(b"{"), "no command"),
        (frame(b"\xff\xfe"), "no command"),
        (frame(b'{"opaque":1}'), "missing required field `code`"),
        (frame(b'{"code":10}'), "missing required field `opaque`"),
        (frame(b'{"code":10,"opaque":9999999999}'), "$.opaque"),
        (frame(b'{"code":{},"opaque":9}'), "$.code"),
        (frame(b'{"code":1,"opaque":1,"extFields":' + b"[" * 100_000), "no command"),
        (frame(b'{"code":1,"opaque":1,"language":"\xff"}'), "no command"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_ends_the_stream_with_a_reason(data: bytes, complaint: str) -> None:
    assert complaint in failure(data)


def test_a_refused_length_is_refused_before_its_bytes_arrive() -> None:
    decoder = FrameDecoder(frame_bytes_max=100)
    decoder.feed(struct.pack(">I", 101))
    assert decoder.failed is not None
    assert decoder.pending == 0


def test_frames_before_the_bad_one_are_delivered() -> None:
    decoder = FrameDecoder()
    (command,) = decoder.feed(frame(GOOD, body=b"x") + frame(b"[]") + frame(GOOD))
    assert command.body == b"x"
    assert decoder.failed is not None


BINARY = struct.pack(">hBhiii", 10, 0, 493, 7, 0, 0)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b"", "fewer than its fixed part"),
        (BINARY, "fewer than its fixed part"),
        (BINARY[:-4] + struct.pack(">ii", 1 << 30, 0), "remark length 1073741824"),
        (BINARY[:-4] + struct.pack(">ii", -1, 0), "remark length -1"),
        (BINARY + struct.pack(">i", 1), "extFields length 1"),
        (BINARY + struct.pack(">i", -1), "extFields length -1"),
        (BINARY + struct.pack(">i", 0x7FFFFFFF), "extFields length 2147483647"),
        (BINARY + struct.pack(">i", 3) + b"\0\0\0", "no field"),
        (BINARY + struct.pack(">ihi", 6, 32767, 0), "key length 32767"),
        (BINARY + struct.pack(">ihi", 6, -1, 0), "key length -1"),
        (BINARY + struct.pack(">ihi", 6, 0, 1 << 30), "value length 1073741824"),
        (BINARY + struct.pack(">ihi", 6, 0, -6), "value length -6"),
        (BINARY + struct.pack(">ih", 7, 1) + b"\xff" + struct.pack(">i", 0), "not UTF-8"),
    ],
)  # fmt: skip
def test_absurd_lengths_in_a_binary_header(header: bytes, complaint: str) -> None:
    assert complaint in failure(frame(header, 1))


@given(st.binary(max_size=200), st.sampled_from([b"", frame(GOOD), frame(BINARY + bytes(4), 1), struct.pack(">II", 60, 1 << 24 | 50)]))
def test_no_bytes_make_the_decoder_raise(data: bytes, start: bytes) -> None:
    decoder = FrameDecoder()
    for command in decoder.feed(start + data):
        try:
            command.header(SendMessage)
        except RemoteProtocolError as refusal:
            answers_with(ResponseCode.INVALID_PARAMETER, refusal)


@given(st.binary(max_size=60))
def test_no_json_like_header_makes_anything_else_raise(noise: bytes) -> None:
    decoder = FrameDecoder()
    for command in decoder.feed(frame(b'{"code":310,"opaque":1,"extFields":{' + noise + b"}}")):
        try:
            assert isinstance(command.ext, dict)
        except RemoteProtocolError as refusal:
            answers_with(ResponseCode.INVALID_PARAMETER, refusal)


# --------------------------------------------------------------------------------------------------------------- typed headers

SEND = {"a": "G", "b": "T", "c": "TBW102", "d": "4", "e": "1", "f": "0", "g": "1700000000000", "h": "0"}


def with_fields(ext: bytes) -> Command:
    (command,) = FrameDecoder().feed(frame(b'{"code":310,"opaque":1,"extFields":%b}' % ext))
    return command


def test_numbers_booleans_and_nulls_without_quotes_are_understood() -> None:
    command = with_fields(
        b'{"a":"G","b":77,"c":"TBW102","d":4,"e":"1","f":0,"g":1700000000000,"h":"0","k":true,"j":null,"m":"FALSE","e":"2","zz":[1]}'
    )
    header = command.header(SendMessageV2)
    assert (header.topic, header.queue_id, header.unit_mode, header.reconsume_times, header.batch) == ("77", 2, True, None, False)
    assert command.ext["d"] == "4"
    assert command.ext["k"] == "true"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("b", None, "missing required field `b` (topic)"),
        ("e", "x", "(queue_id)"),
        ("e", "2147483648", "(queue_id)"),
        ("g", "9223372036854775808", "(born_timestamp)"),
        ("g", "1" * 5000, "(born_timestamp)"),
        ("k", "maybe", "(unit_mode)"),
    ],
)
@pytest.mark.parametrize("kind", [0, 1])
def test_a_missing_or_bad_field_is_named(kind: int, name: str, value: str | None, complaint: str) -> None:
    fields = SEND | {name: value} if value is not None else {key: text for key, text in SEND.items() if key != name}
    (command,) = FrameDecoder().feed(encode_request(310, 1, fields, serialize=kind))  # type: ignore[arg-type]  # None is left out above
    with pytest.raises(RemoteProtocolError) as caught:
        command.header(SendMessageV2)
    assert complaint in str(caught.value)
    assert caught.value.response_code == ResponseCode.INVALID_PARAMETER


@pytest.mark.parametrize("ext", [b"[]", b'"x"', b"5"])
def test_fields_that_are_no_object_are_refused(ext: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="must be an object"):
        with_fields(ext).header(SendMessage)
    assert with_fields(b"null").ext == {}


def test_empty_values_of_optional_fields_count_as_absent() -> None:
    (command,) = FrameDecoder().feed(encode_request(310, 1, SEND | {"j": "", "i": ""}, serialize=1))
    assert command.header(SendMessageV2).reconsume_times is None


def test_an_unknown_or_absent_language_is_no_reason_to_refuse() -> None:
    for language in (b"null", b'"KLINGON"', b"3"):
        (command,) = FrameDecoder().feed(frame(b'{"code":34,"opaque":1,"extFields":{"a":1},"language":%b}' % language))
        assert isinstance(command.language, str)
        assert command.ext == {"a": "1"}


def test_private_members_cannot_be_smuggled_in() -> None:
    header = b'{"code":34,"opaque":1," body":"eHh4"," serialize":1," fields":{"x":"y"},"extFields":{"a":"b"}}'
    (command,) = FrameDecoder().feed(frame(header))
    assert (command.body, command.serialize, command.ext) == (b"", 0, {"a": "b"})


def test_pull_in_both_forms_and_boundaries() -> None:
    pull = PullMessage("G", "T", 1, 2, 32, 3, 0, 15000, 5, subscription="*")
    for kind in (0, 1):
        (command,) = FrameDecoder().feed(encode_request(11, 1, pull, serialize=kind))
        assert command.header(PullMessage) == pull
    for text, expected in ((None, "LOWER"), ("upper", "UPPER"), ("UPPER", "UPPER"), ("nonsense", "LOWER")):
        assert SearchOffset("T", 0, 5, text).boundary == expected


def test_codes_above_int16_have_no_binary_form() -> None:
    with pytest.raises(LocalProtocolError, match="200050"):
        encode_request(200050, 1, serialize=1)


def test_header_types_need_no_gc_and_know_their_names() -> None:
    assert issubclass(SendMessageV2, Header)
    (command,) = FrameDecoder().feed(encode_request(310, 1, SendMessageV2("G", "T", "TBW102", 4, 1, 0, 5, 0, unit_mode=True)))
    assert set(command.ext) == {"a", "b", "c", "d", "e", "f", "g", "h", "k"}
