"""The body of a batch: messages of one topic and queue, back to back.

    totalSize 4 | magic 4 (0) | bodyCRC 4 (0) | flag 4 | bodyLen 4, body | propertiesLen 2, properties

Magic and CRC are written as zero and not looked at when read, as in Java. The broker stores each part as a record of its own.
Source: reference "protocol" section 8.5; `MessageDecoder#encodeMessage`, `#decodeMessage`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from trmq.errors import LocalProtocolError, RemoteProtocolError
from trmq.message import PROPERTIES_BYTES_MAX

from .codes import ResponseCode

_HEAD = struct.Struct(">iiiii")
_PROPERTIES = struct.Struct(">h")
FIXED_SIZE = 22
"""Bytes of a part beside its body and properties."""
PARTS_MAX = 1 << 16
"""Parts of one batch; 4 MiB of empty messages would be more."""


Part = tuple[int, bytes, bytes]
"""One message of a batch: flag, body, properties in their text form."""


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
    head, properties_head = _HEAD.unpack_from, _PROPERTIES.unpack_from
    while at + FIXED_SIZE <= end:
        size, _, _, flag, body_size = head(data, at)
        body_end = at + 20 + body_size
        following = at + size
        if body_size < 0 or following > end or body_end + 2 > following:
            raise _bad_sizes(len(parts), size, body_size, end - at)
        (properties_size,) = properties_head(data, body_end)
        if properties_size < 0 or body_end + 2 + properties_size != following:
            raise _bad(len(parts), f"properties length {properties_size} in a part of {size} bytes")
        parts.append((flag, data[at + 20 : body_end], data[body_end + 2 : following]))
        at = following
    if at < end:
        raise _bad(len(parts), f"{end - at} bytes are left, a part has at least {FIXED_SIZE}")
    if len(parts) > PARTS_MAX:
        raise _bad(PARTS_MAX, f"a batch has at most {PARTS_MAX} parts")
    if not parts:
        raise RemoteProtocolError("the batch body is empty", ResponseCode.MESSAGE_ILLEGAL)
    return parts


def _bad_sizes(index: int, size: int, body_size: int, left: int) -> RemoteProtocolError:
    if size < FIXED_SIZE or size > left:
        return _bad(index, f"size {size} with {left} bytes left")
    return _bad(index, f"body length {body_size} in a part of {size} bytes")


def _bad(index: int, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"the batch body is damaged at part {index}: {reason}", ResponseCode.MESSAGE_ILLEGAL)
