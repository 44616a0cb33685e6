"""What a port gets to read that is none of its business: each noise is the whole talk of one connection, and says what is due then.

Plain data, for simulated ports (`strangers`, scenario verb `noise`) and real ones (`tests/real`). Frames are put together here, by hand:
what makes good frames could not make these.

What is due:

    end      it is no frame of the protocol: the connection is ended at once, without an answer
    answer   it is a frame, and no good request: the answer is an error, and the connection stays
    half     something was begun: the rest is waited for, but not for ever
    silence  nothing is wrong, nothing comes: as long as any idle connection
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import attrs

Port = Literal["clients", "names", "slaves"]
Due = Literal["end", "answer", "half", "silence"]
HUGE = 1 << 30


@attrs.frozen
class Noise:
    """`make` draws the bytes with dice; the same for all dice where nothing is left to chance."""

    due: Due
    make: Callable[[random.Random], bytes]


def frame(header: bytes, body: bytes = b"", serialize: int = 0) -> bytes:
    return struct.pack(">II", 4 + len(header) + len(body), serialize << 24 | len(header)) + header + body


def request(code: object, fields: object = None, body: bytes = b"", **changes: object) -> bytes:
    header = {"code": code, "language": "JAVA", "version": 493, "opaque": 1, "flag": 0, "extFields": fields or {},
              "serializeTypeCurrentRPC": "JSON"} | changes  # fmt: skip
    return frame(json.dumps(header).encode(), body)


def always(due: Due, data: bytes) -> Noise:
    return Noise(due, lambda dice: data)


GOOD = request(105, {"topic": "a topic that nobody has"}, b"a body that nobody asked for")
PULL = {"consumerGroup": "x", "topic": "T", "queueId": "0", "queueOffset": "0", "maxMsgNums": "1", "sysFlag": "0", "commitOffset": "0",
        "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0", "expressionType": "TAG"}  # fmt: skip
NUMBERS = ("-1", str(1 << 31), str(-(1 << 63)), str(1 << 70), "1e9", "0x10", " ", "NaN")
BINARY = struct.Struct(">hBhiii")
"""A binary header's begin: code, language, version, opaque, flag, length of the remark."""
BOTH: Mapping[str, Noise] = MappingProxyType({
    "silence": always("silence", b""),
    "ones": always("end", b"\xff" * 64),
    "http": always("end", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
    "tls": always("end", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00"),
    "junk": Noise("end", lambda dice: bytes([dice.randrange(2, 127)]) + dice.randbytes(dice.randrange(15, 4000))),
})  # fmt: skip
"""At any port."""
REMOTING: Mapping[str, Noise] = MappingProxyType({
    **BOTH,
    "zeros": always("end", bytes(8)),
    "half-a-length": always("half", GOOD[:3]),
    "half-a-frame": Noise("half", lambda dice: GOOD[: dice.randrange(4, len(GOOD))]),
    "half-a-body": always("half", struct.pack(">II", 4 + 10 + HUGE // 1024, 10) + b"x" * 500),
    "no-length": always("end", struct.pack(">I", 0)),
    "negative-length": Noise("end", lambda dice: struct.pack(">i", dice.choice((-1, -9, -(1 << 31))))),
    "absurd-length": Noise("end", lambda dice: struct.pack(">II", dice.choice((HUGE, (1 << 24) + 1)), 100)),
    "header-beyond-its-frame": always("end", struct.pack(">II", 100, 97)),
    "huge-header": always("end", struct.pack(">II", 9 << 20, 2 << 20)),
    "unknown-serialization": always("end", frame(b"{}", serialize=9)),
    "half-a-json": always("end", frame(b"{")),
    "a-list": always("end", frame(b"[1]")),
    "no-header": always("end", frame(b"")),
    "words-for-numbers": always("end", request("ten", opaque="eleven")),
    "junk-header": Noise("end", lambda dice: frame(b"\0" + dice.randbytes(40), b"x")),
    "short-binary": always("end", frame(b"\0" * 9, serialize=1)),
    "binary-lies": Noise("end", lambda dice: frame(
        BINARY.pack(11, 0, 493, 1, 0, dice.choice((-1, 1 << 20))) + struct.pack(">i", dice.choice((-5, HUGE))), serialize=1,
    )),
    "junk-before-what-is-good": always("end", b"\x7f" * 8 + GOOD),
    "unknown-request": Noise("answer", lambda dice: request(dice.choice((65_000, -1, 0, 9999)))),
    "no-fields": Noise("answer", lambda dice: request(dice.choice((10, 11, 14, 15, 30, 33, 36, 103, 104, 105, 310)))),
    "fields-in-a-list": always("answer", request(11, [1, 2, 3])),
    "deep-fields": always("end", frame(b'{"code": 11, "opaque": 1, "flag": 0, "extFields": ' + b"[" * 5000 + b"]" * 5000 + b"}")),
    "absurd-fields": Noise("answer", lambda dice: request(11, PULL | {dice.choice(("queueId", "queueOffset")): dice.choice(NUMBERS)})),
    "absurd-place": Noise("answer", lambda dice: request(dice.choice((33, 36)), {
        "offset": str(dice.choice((-1, 1 << 40, (1 << 63) - 1))), "group": "x", "delayLevel": "99", "maxReconsumeTimes": "-9",
    })),
    "heartbeat-of-junk": Noise("answer", lambda dice: request(34, {}, dice.randbytes(50))),
    "lock-of-junk": always("answer", request(41, {}, b'{"mqSet": 7}')),
    "batch-of-junk": Noise("answer", lambda dice: request(320, {
        "a": "p", "b": "T", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "0", "h": "0", "i": "", "j": "0", "k": "false", "l": "0",
        "m": "true",
    }, dice.randbytes(dice.randrange(1, 200)))),
    "registration-of-junk": always("answer", request(103, {
        "brokerName": "x", "brokerAddr": "nowhere", "clusterName": "C", "haServerAddr": "", "brokerId": "-7",
    }, b"\0\1\2")),
    "an-answer-to-nobody": always("silence", request(0, flag=1)),
    "unknown-and-one-way": always("silence", request(65_000, flag=2)),
})  # fmt: skip
"""At a port where commands are spoken."""
FAR = (1 << 40, 1 << 50, 1 << 62)
SLAVES: Mapping[str, Noise] = MappingProxyType({
    **BOTH,
    "half-a-report": Noise("half", lambda dice: bytes(dice.randrange(1, 8))),
    "zeros": always("silence", bytes(8)),
    "far": Noise("end", lambda dice: struct.pack(">q", dice.choice(FAR))),
    "far-often": Noise("end", lambda dice: struct.pack(">q", dice.choice(FAR)) * 50),
    "no-token-of-ours": Noise("end", lambda dice: struct.pack(">qq", -1 - dice.getrandbits(62), 0)),
    "falling": always("end", struct.pack(">qq", 0, -8)),
    "one-and-a-half": Noise("half", lambda dice: bytes(8 + dice.randrange(1, 8))),
})  # fmt: skip
"""At a master's port for slaves, who say 8-byte numbers."""
NOISES: Mapping[Port, Mapping[str, Noise]] = MappingProxyType({"clients": REMOTING, "names": REMOTING, "slaves": SLAVES})


def draw(dice: random.Random, port: Port) -> str:
    """The name of a noise for a port."""
    return dice.choice(list(NOISES[port]))


def talks(dice: random.Random, port: Port, names: Sequence[str] = ()) -> list[tuple[str, Noise, bytes]]:
    """Every noise of a port (or these) with its bytes."""
    return [(name, noise, noise.make(dice)) for name, noise in NOISES[port].items() if not names or name in names]
