"""The body of a batch: messages of one topic and queue, back to back.

    totalSize 4 | magic 4 (0) | bodyCRC 4 (0) | flag 4 | bodyLen 4, body | propertiesLen 2, properties

Magic and CRC are written as zero and not looked at when read, as in Java. The broker stores each part as a record of its own.
Source: reference "protocol" section 8.5; `MessageDecoder#encodeMessage`, `#decodeMessage`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from trmq.errors import LocalProtocolError, RemoteProtocolError
from trmq.message import PROPERTIES_BYTES_MAX

from .codes import ResponseCode

_HEAD = struct.Struct(">iiiii")
_PROPERTIES = struct.Struct(">h")
FIXED_SIZE = 22
"""Bytes of a part beside its body and properties."""
PARTS_MAX = 1 << 16
"""Parts of one batch; 4 MiB of empty messages would be more."""


class Part(NamedTuple):
    """One message of a batch; `properties` in their text form."""

    flag: int
    body: bytes
    properties: bytes


def encode_batch(parts: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """The body of these (flag, body, properties). Raises `LocalProtocolError` for properties that are too long."""
    pieces: list[bytes] = []
    for flag, body, properties in parts:
        if len(properties) > PROPERTIES_BYTES_MAX:
            raise LocalProtocolError(f"properties of {len(properties)} bytes exceed the limit of {PROPERTIES_BYTES_MAX}")
        size = FIXED_SIZE + len(body) + len(properties)
        pieces += (_HEAD.pack(size, 0, 0, flag, len(body)), body, _PROPERTIES.pack(len(properties)), properties)
    return b"".join(pieces)


def decode_batch(body: bytes | memoryview) -> list[Part]:
    """The parts of a batch body. Raises `RemoteProtocolError` (MESSAGE_ILLEGAL) if lengths do not add up or there is no part."""
    data, at, end = bytes(body), 0, len(body)
    parts: list[Part] = []
    while at < end:
        if end - at < FIXED_SIZE:
            raise _bad(len(parts), f"{end - at} bytes are left, a part has at least {FIXED_SIZE}")
        size, _, _, flag, body_size = _HEAD.unpack_from(data, at)
        body_at = at + _HEAD.size
        properties_at = body_at + body_size + 2
        if size < FIXED_SIZE or size > end - at:
            raise _bad(len(parts), f"size {size} with {end - at} bytes left")
        if body_size < 0 or properties_at > at + size:
            raise _bad(len(parts), f"body length {body_size} in a part of {size} bytes")
        (properties_size,) = _PROPERTIES.unpack_from(data, properties_at - 2)
        if properties_size < 0 or properties_at + properties_size != at + size:
            raise _bad(len(parts), f"properties length {properties_size} in a part of {size} bytes")
        if len(parts) == PARTS_MAX:
            raise _bad(PARTS_MAX, f"a batch has at most {PARTS_MAX} parts")
        parts.append(Part(flag, data[body_at : properties_at - 2], data[properties_at : at + size]))
        at += size
    if not parts:
        raise RemoteProtocolError("the batch body is empty", ResponseCode.MESSAGE_ILLEGAL)
    return parts


def _bad(index: int, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"the batch body is damaged at part {index}: {reason}", ResponseCode.MESSAGE_ILLEGAL)
