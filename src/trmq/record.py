"""The stored message record: commit-log entry and pull answer are the same bytes (so reads never re-encode).

Layout (big-endian, signed; N = 8 for IPv4 hosts, 20 for IPv6):

    totalSize 4 | magic 4 | bodyCRC 4 | queueId 4 | flag 4 | queueOffset 8 | physicalOffset 8 | sysFlag 4 |
    bornTimestamp 8 | bornHost N | storeTimestamp 8 | storeHost N | reconsumeTimes 4 | preparedTransactionOffset 8 |
    bodyLen 4, body | topicLen 1 (V1) or 2 (V2), topic | propertiesLen 2, properties

`bodyCRC` is CRC-32 of the stored body & 0x7FFFFFFF. V2 is used only for topics longer than 127 bytes.
Source: reference "store" section 1; `MessageDecoder`, `CommitLog#checkMessageAndReturnSize`. Upholds P-LOG-1, P-LOG-8.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from .errors import CorruptRecord
from .message import BORN_HOST_V6, STORE_HOST_V6, StoredMessage, decode_host, decode_properties

MAGIC_V1 = 0xDAA320A7
MAGIC_V2 = 0xDAA320AB
MAGIC_BLANK = 0xCBD43194
BLANK_SIZE_MIN = 8
FIXED_SIZE = 91
"""Bytes of a V1 record with two IPv4 hosts beside body, topic and properties."""

HEAD_V4 = struct.Struct(">IIIiiqqiq8sq8siqi")
"""totalSize to bodyLen when both hosts are IPv4: the one that matters on the hot path."""
_HEADS = {
    (False, False): HEAD_V4,
    (True, False): struct.Struct(">IIIiiqqiq20sq8siqi"),
    (False, True): struct.Struct(">IIIiiqqiq8sq20siqi"),
    (True, True): struct.Struct(">IIIiiqqiq20sq20siqi"),
}
SYS_FLAG_AT = 36
PHY_OFFSET_AT = 28
QUEUE_OFFSET_AT = 20
_PREFIX = struct.Struct(">II")


def record_size(body_size: int, topic_size: int, properties_size: int, born_host_size: int = 8, store_host_size: int = 8) -> int:
    """Bytes of the record with these parts (sizes in bytes; hosts are 8 or 20)."""
    return 75 + born_host_size + store_host_size + body_size + topic_size + properties_size + (1 if topic_size > 127 else 0)


def encode_record(
    topic: bytes, queue_id: int, queue_offset: int, phy_offset: int, body: bytes | memoryview, properties: bytes, flag: int,
    sys_flag: int, born_ms: int, born_host: bytes, store_ms: int, store_host: bytes, reconsume_times: int = 0, prepared_offset: int = 0,
) -> bytes:
    """One record. Hosts are already encoded; sysFlag's address bits are set here from their sizes."""
    born_v6, store_v6 = len(born_host) == 20, len(store_host) == 20
    sys_flag = sys_flag & ~(BORN_HOST_V6 | STORE_HOST_V6) | (BORN_HOST_V6 if born_v6 else 0) | (STORE_HOST_V6 if store_v6 else 0)
    v2 = len(topic) > 127
    size = record_size(len(body), len(topic), len(properties), len(born_host), len(store_host))
    head = _HEADS[born_v6, store_v6].pack(
        size, MAGIC_V2 if v2 else MAGIC_V1, zlib.crc32(body) & 0x7FFFFFFF, queue_id, flag, queue_offset, phy_offset, sys_flag,
        born_ms, born_host, store_ms, store_host, reconsume_times, prepared_offset, len(body),
    )
    return b"".join((head, body, len(topic).to_bytes(2 if v2 else 1, "big"), topic, len(properties).to_bytes(2, "big"), properties))


def decode_record(data: bytes | memoryview, offset: int = 0, *, check_crc: bool = True) -> StoredMessage:
    """The record that starts at `offset` of `data`. Raises `CorruptRecord` with the reason when it is not a whole, consistent one."""
    view = memoryview(data)[offset:]
    if len(view) < 8:
        raise CorruptRecord(f"{len(view)} bytes are no record")
    size, magic = _PREFIX.unpack_from(view)
    if magic not in (MAGIC_V1, MAGIC_V2):
        raise CorruptRecord(f"magic {magic:#010x} is no message")
    if size < FIXED_SIZE or size > len(view):
        raise CorruptRecord(f"record size {size} with {len(view)} bytes at hand")
    sys_flag = int.from_bytes(view[SYS_FLAG_AT : SYS_FLAG_AT + 4], "big")
    head = _HEADS[bool(sys_flag & BORN_HOST_V6), bool(sys_flag & STORE_HOST_V6)]
    if size < head.size:
        raise CorruptRecord(f"record size {size} is shorter than its header")
    fields = head.unpack_from(view)[2:]
    crc, queue_id, flag, queue_offset, phy_offset, sys_flag, born_ms, born_host = fields[:8]
    store_ms, store_host, reconsume, prepared, body_size = fields[8:]
    body_at = head.size
    topic_len_size = 2 if magic == MAGIC_V2 else 1
    topic_at = body_at + body_size + topic_len_size
    if body_size < 0 or topic_at > size:
        raise CorruptRecord(f"body length {body_size} does not fit a record of {size}")
    topic_size = int.from_bytes(view[topic_at - topic_len_size : topic_at], "big", signed=True)
    properties_at = topic_at + topic_size + 2
    if topic_size < 0 or properties_at > size:
        raise CorruptRecord(f"topic length {topic_size} does not fit a record of {size}")
    properties_size = int.from_bytes(view[properties_at - 2 : properties_at], "big", signed=True)
    if properties_size < 0 or properties_at + properties_size != size:
        raise CorruptRecord(f"the parts add up to {properties_at + properties_size}, not to the record size {size}")
    body = bytes(view[body_at : body_at + body_size])
    if check_crc and zlib.crc32(body) & 0x7FFFFFFF != crc:
        raise CorruptRecord("the body does not match its CRC")
    return StoredMessage(
        topic=bytes(view[topic_at : topic_at + topic_size]).decode("utf-8", "replace"), queue_id=queue_id, queue_offset=queue_offset,
        phy_offset=phy_offset, body=body, properties=decode_properties(view[properties_at:size]), flag=flag, sys_flag=sys_flag,
        body_crc=crc, born_ms=born_ms, born_host=decode_host(born_host), store_ms=store_ms, store_host=decode_host(store_host),
        reconsume_times=reconsume, prepared_offset=prepared, size=size,
    )


def decode_records(data: bytes | memoryview) -> Iterator[StoredMessage]:
    """The concatenated records of a pull, query or view answer. Raises `CorruptRecord` at a bad one (Java drops the rest)."""
    view, at = memoryview(data), 0
    while at < len(view):
        message = decode_record(view, at)
        yield message
        at += message.size
