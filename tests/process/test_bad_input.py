"""Bad input against a real process: the right answer or one clear sentence, and afterwards the broker lives and has all it acked."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest

from process.server import PULL, SEND, Peer, Server, frame, pull_fields, request, send_fields, wait_until

SYSTEM_ERROR, NOT_SUPPORTED, MESSAGE_ILLEGAL, NO_PERMISSION, NO_TOPIC, OFFSET_MOVED, INVALID = 1, 3, 13, 16, 17, 21, 29
CREATE_TOPIC, CREATE_GROUP, HEART_BEAT, MAX_OFFSET, MIN_OFFSET, BY_TIME, VIEW, UPDATE_OFFSET, LOCK = 17, 200, 34, 30, 31, 29, 33, 15, 41
MIB = 1 << 20


def topic_fields(topic: str, **changes: object) -> dict[str, object]:
    return {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": 4, "writeQueueNums": 4, "perm": 6, "topicFilterType": "SINGLE_TAG",
            "topicSysFlag": 0, "order": "false"} | changes  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("bad"), autoCreateTopicEnable="false", mappedFileSizeCommitLog=16 * MIB).start()
    assert server.ask(CREATE_TOPIC, topic_fields(server.topic)).code == 0
    for n in range(40):
        assert server.put(b"before %d" % n, n % 4).code == 0
    yield server
    assert server.end() == 0
    assert "Traceback" not in server.errors()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The one broker of this file; after each test it must still keep its promises."""
    yield running
    running.check()


# ---------------------------------------------------------------------------------------------------------------------- frames

GOOD = request(28)
JSON_START = b'{"code":28,"language":"JAVA","version":493,"opaque":1,"flag":0,"extFields":'
BINARY_START = struct.pack(">HBHiI", 28, 0, 493, 1, 0)  # code, language, version, opaque, flag

FATAL = {
    "length 2 GiB": (b"\x7f\xff\xff\xff\x00\x00\x00\x10", "exceeds the limit of 16777216 bytes"),
    "length 16 MiB + 1": (struct.pack(">II", (16 << 20) + 1, 100), "exceeds the limit of 16777216 bytes"),
    "negative length": (b"\xff\xff\xff\xff\x00\x00\x00\x10", "below 4"),
    "length 0": (bytes(8), "below 4"),
    "length 3": (struct.pack(">II", 3, 0), "below 4"),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "is the peer speaking RocketMQ?"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), "TLS handshake"),
    "header beyond the frame": (struct.pack(">II", 20, 17) + bytes(16), "header length 17 reaches beyond the frame of 20 bytes"),
    "header above 1 MiB": (struct.pack(">II", 8 * MIB, 2 * MIB), "exceeds the limit of 1048576 bytes"),
    "unknown serialize type": (struct.pack(">IBBH", 40, 7, 0, 20), "serialize type 7"),
    "header that is no JSON": (frame(b"}" * 30), "JSON"),
    "header that is a JSON list": (frame(b"[28,1,0]"), "no command"),
    "header that is a JSON number": (frame(b"28"), "no command"),
    "header that is null": (frame(b"null"), "no command"),
    "header without a code": (frame(b'{"opaque":1,"flag":0}'), "code"),
    "header nested beyond sense": (frame(JSON_START + b"[" * 100_000), "no command"),
    "empty JSON header": (frame(b""), "no command"),
    "empty binary header": (frame(b"", serialize=1), "fewer than its fixed part"),
    "binary: remark of 2 GiB": (frame(BINARY_START + b"\x7f\xff\xff\xff" + bytes(40), serialize=1), "remark length"),
    "binary: negative remark": (frame(BINARY_START + b"\xff\xff\xff\xff" + bytes(40), serialize=1), "remark length"),
    "binary: extFields of 2 GiB": (frame(BINARY_START + bytes(4) + b"\x7f\xff\xff\xff", serialize=1), "extFields length"),
    "binary: key of 32 KiB": (frame(BINARY_START + bytes(4) + struct.pack(">IH", 6, 0x7FFF) + b"topi", serialize=1), "key length"),
    "binary: value of 2 GiB": (
        frame(BINARY_START + bytes(4) + struct.pack(">IHsI", 7, 1, b"a", 0x7FFFFFFF), serialize=1), "value length",
    ),
    "binary: key that is no UTF-8": (
        frame(BINARY_START + bytes(4) + struct.pack(">IH2sI1s", 9, 2, b"\xff\xfe", 1, b"x"), serialize=1), "UTF-8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FATAL)
def test_a_frame_without_sense_ends_its_connection_with_one_line(server: Server, name: str) -> None:
    data, sentence = FATAL[name]
    before = len(server.errors())
    with server.peer() as peer, server.peer() as bystander:
        peer.send(data)
        assert peer.closed_by_the_other_side()
        assert bystander.ask(28).code == 0
    lines = wait_until(lambda: server.errors()[before:].splitlines(), "a line about the connection")
    assert len(lines) == 1, lines
    assert sentence in lines[0]


@pytest.mark.parametrize("name", ["HTTP", "header that is no JSON", "length 2 GiB"])
def test_what_came_before_the_garbage_is_done(server: Server, name: str) -> None:
    with server.peer() as peer:
        body = b"just before the garbage: " + name.encode()
        peer.send(request(SEND, send_fields(server.topic, 1), body) + FATAL[name][0])
        answer = peer.read()
        assert answer is not None
        assert answer.code == 0
        server.acked.append((1, int(answer.ext["queueOffset"]), body))
        assert peer.closed_by_the_other_side()


@pytest.mark.parametrize("size", [1, 4, 7, 8, 60, len(GOOD) - 1])
def test_a_truncated_frame_is_nothing(server: Server, size: int) -> None:
    with server.peer() as peer:
        peer.send(GOOD[:size])
    with server.peer() as peer:
        peer.send(GOOD[:size])
        peer.socket.shutdown(1)
        assert peer.closed_by_the_other_side()


def test_a_truncated_message_is_not_stored(server: Server) -> None:
    whole = request(SEND, send_fields(server.topic, 3), b"y" * 100_000)
    before = server.ask(MAX_OFFSET, {"topic": server.topic, "queueId": 3}).ext["offset"]
    for size in (len(whole) - 1, len(whole) - 100_000, 200):
        with server.peer() as peer:
            peer.send(whole[:size])
            peer.socket.shutdown(1)
            assert peer.closed_by_the_other_side()
    assert server.ask(MAX_OFFSET, {"topic": server.topic, "queueId": 3}).ext["offset"] == before


def test_slow_drips_hold_up_nobody(server: Server) -> None:
    """That a frame must be complete in a minute is tested in simulated time; here twenty drip while others are served."""
    peers = [server.peer() for _ in range(20)]
    for at in range(len(GOOD)):
        for peer in peers:
            peer.send(GOOD[at : at + 1])
        if at % 20 == 0:
            assert server.put(b"meanwhile").code == 0
    for peer in peers:
        answer = peer.read()
        assert answer is not None
        assert answer.code == 0
        peer.socket.close()


def test_random_bytes(server: Server, seed: int) -> None:
    import random

    dice = random.Random(seed)
    for _ in range(100):
        data = bytearray(request(SEND, send_fields(server.topic, 2), dice.randbytes(dice.randrange(200))))
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with server.peer() as peer:
            peer.send(bytes(data))
            peer.socket.shutdown(1)
            answer = peer.read()  # any answer will do, or none
            assert answer is None or -2000 < answer.code < 2000


# -------------------------------------------------------------------------------------------------------------------- requests

LONG = "x" * 128
REFUSED = {
    "unknown request code": (9999, {}, b"", NOT_SUPPORTED, "9999"),
    "request code 0": (0, {}, b"", NOT_SUPPORTED, "request type 0"),
    "negative request code": (-7, {}, b"", NOT_SUPPORTED, "-7"),
    "send without fields": (SEND, {}, b"x", INVALID, "required field"),
    "send without a topic": (SEND, {k: v for k, v in send_fields("T").items() if k != "b"}, b"x", INVALID, "topic"),
    "pull without fields": (PULL, {}, b"", INVALID, "consumerGroup"),
    "pull with a word for a number": (PULL, pull_fields("Acked", 0, 0, queueId="many"), b"", INVALID, "queueId"),
    "pull with a number beyond 64 bits": (PULL, pull_fields("Acked", 0, 1 << 70), b"", INVALID, "queueOffset"),
    "heartbeat that is no JSON": (HEART_BEAT, {}, b"no json", None, "JSON"),
    "heartbeat that is a list": (HEART_BEAT, {}, b"[]", None, "object"),
    "heartbeat that is a number": (HEART_BEAT, {}, b"7", None, "object"),
    "heartbeat without a body": (HEART_BEAT, {}, b"", None, ""),
    "heartbeat of the wrong kinds": (HEART_BEAT, {}, b'{"clientID":"c","consumerDataSet":3}', None, "consumerDataSet"),
    "lock that is a string": (LOCK, {}, b'"all of them"', None, "object"),
    "group that is a list": (CREATE_GROUP, {}, b"[1]", None, "object"),
    "unknown topic with auto-create off": (SEND, send_fields("Nowhere"), b"x", NO_TOPIC, "Nowhere"),
    "pull of an unknown topic": (PULL, pull_fields("Nowhere", 0, 0), b"", NO_TOPIC, "Nowhere"),
    "send to a topic with a space": (SEND, send_fields("a b"), b"x", INVALID, "illegal characters"),
    "send to a topic with a slash": (SEND, send_fields("../../etc"), b"x", INVALID, "illegal characters"),
    "send to a topic with a NUL": (SEND, send_fields("a\0b"), b"x", INVALID, "illegal characters"),
    "send to a blank topic": (SEND, send_fields(""), b"x", INVALID, "blank"),
    "send to a long topic": (SEND, send_fields(LONG), b"x", INVALID, "longer"),
    "send to the schedule topic": (SEND, send_fields("SCHEDULE_TOPIC_XXXX"), b"x", NO_PERMISSION, "forbidden"),
    "create a topic with a slash": (CREATE_TOPIC, topic_fields("../up"), b"", None, "illegal characters"),
    "create a topic with a dot": (CREATE_TOPIC, topic_fields("a.b"), b"", None, "illegal characters"),
    "create a blank topic": (CREATE_TOPIC, topic_fields(" "), b"", None, "blank"),
    "create a long topic": (CREATE_TOPIC, topic_fields(LONG), b"", None, "longer"),
    "create a topic of the system": (CREATE_TOPIC, topic_fields("TBW102"), b"", None, "system topic"),
    "create a topic with no queues": (CREATE_TOPIC, topic_fields("T0", readQueueNums=-1, writeQueueNums=-1), b"", None, "ueue"),
    "create a topic with 2^31 queues": (CREATE_TOPIC, topic_fields("T0", readQueueNums=1 << 31), b"", INVALID, "readQueueNums"),
    "create a topic with a bad permission": (CREATE_TOPIC, topic_fields("T0", perm=99), b"", None, "perm"),
    "create a group with a slash": (CREATE_GROUP, {}, b'{"groupName":"../up"}', None, "illegal characters"),
    "create a blank group": (CREATE_GROUP, {}, b'{"groupName":""}', None, "blank"),
    "create a long group": (CREATE_GROUP, {}, b'{"groupName":"%s"}' % (b"g" * 256), None, "longer"),
    "properties of 32768 bytes": (SEND, send_fields("Acked", 0, "p\x01" + "v" * 32_766), b"x", MESSAGE_ILLEGAL, "32767"),
    "body of 4 MiB + 1": (SEND, send_fields("Acked"), bytes(4 * MIB + 1), MESSAGE_ILLEGAL, "maxMessageSize"),
    "no body": (SEND, send_fields("Acked"), b"", MESSAGE_ILLEGAL, "no body"),
    "batch of garbage": (320, send_fields("Acked", m="true"), b"\x7f" * 50, MESSAGE_ILLEGAL, "batch"),
    "send to queue 4 of 4": (SEND, send_fields("Acked", 4), b"x", INVALID, "queueId"),
    "pull of queue 4 of 4": (PULL, pull_fields("Acked", 4, 0), b"", None, "queueId[4]"),
    "pull of queue -1": (PULL, pull_fields("Acked", -1, 0), b"", None, "queueId[-1]"),
    "view of nothing": (VIEW, {"offset": 1 << 40}, b"", None, "1099511627776"),
    "view of the middle of a record": (VIEW, {"offset": 7}, b"", None, "7"),
    "view of a negative offset": (VIEW, {"offset": -1}, b"", None, "-1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_gets_its_code_and_the_connection_goes_on(server: Server, name: str) -> None:
    code, fields, body, expected, word = REFUSED[name]
    before = server.errors()
    with server.peer() as peer:
        answer = peer.ask(code, fields, body)
        assert answer.code == expected if expected is not None else answer.code not in (0, 10, 11, 12), answer
        assert word in answer.remark
        assert "\n" not in answer.remark
        assert not any(slip in answer.remark for slip in ("Traceback", "Error:", "msgspec"))
        assert peer.ask(28).code == 0
    assert server.errors() == before, "an answer is enough: nothing is logged"


@pytest.mark.parametrize(("right", "offset"), [("min", -5), ("min", -(1 << 63)), ("max", 1 << 40), ("max", (1 << 63) - 1)])
def test_offsets_outside_are_put_right(server: Server, right: str, offset: int) -> None:
    answer = server.ask(PULL, pull_fields(server.topic, 0, offset))
    assert answer.code == OFFSET_MOVED
    assert answer.ext["nextBeginOffset"] == answer.ext[f"{right}Offset"]
    assert int(answer.ext["minOffset"]) < int(answer.ext["maxOffset"])


def test_offsets_of_a_queue_that_is_not(server: Server) -> None:
    for code in (MAX_OFFSET, MIN_OFFSET):
        for queue_id in (99, -1):
            answer = server.ask(code, {"topic": server.topic, "queueId": queue_id})
            assert answer.code != 0 or answer.ext["offset"] in ("0", "-1")
    for ms in (-1, 0, (1 << 63) - 1):
        answer = server.ask(BY_TIME, {"topic": server.topic, "queueId": 0, "timestamp": ms})
        assert answer.code == 0
        assert 0 <= int(answer.ext["offset"]) <= len(server.acked)


def test_the_name_server_takes_garbage_as_well(server: Server) -> None:
    for data in (FATAL["HTTP"][0], FATAL["header beyond the frame"][0], FATAL["binary: value of 2 GiB"][0], GOOD[:20]):
        with Peer(server.ns_port) as peer:
            peer.send(data)
            peer.socket.shutdown(1)
            assert peer.closed_by_the_other_side()
    with Peer(server.ns_port) as peer:
        assert peer.ask(9999).code == NOT_SUPPORTED
        assert peer.ask(105, {}).code == INVALID
        assert peer.ask(105, {"topic": "Nowhere"}).code == NO_TOPIC
        assert peer.ask(103, {"brokerName": "x"}, b"garbage").code != 0
        assert peer.ask(105, {"topic": server.topic}).code == 0


def test_one_way_garbage_is_silent(server: Server) -> None:
    header = b'{"code":310,"flag":2,"opaque":5,"language":"JAVA","version":493,"extFields":{"b":"no such topic"}}'
    with server.peer() as peer:
        peer.send(frame(header, b"x") * 50)
        answer = peer.ask(28)
        assert answer.code == 0


def test_answers_to_nothing_are_dropped(server: Server) -> None:
    header = b'{"code":0,"flag":1,"opaque":%d,"language":"JAVA","version":493}'
    with server.peer() as peer:
        for opaque in (0, 1, 77):
            peer.send(frame(header % opaque, b"x"))
        started = time.monotonic()
        assert peer.ask(28).code == 0
        assert time.monotonic() - started < 20
