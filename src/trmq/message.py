"""Messages as values: property names and their text form, hashes, hosts and ids. Shared by the log, the wire and the client.

Nothing here does I/O. Everything that goes on the wire or to disk is big-endian and signed, as in Java.
Source: reference "protocol" sections 8.1, 8.3, 8.4; `MessageConst`, `MessageDecoder`, `MessageSysFlag` of Apache RocketMQ.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from operator import mul

import attrs

from .errors import MessageIllegal

# --- property names (MessageConst)
KEYS = "KEYS"
TAGS = "TAGS"
WAIT = "WAIT"
DELAY = "DELAY"
RETRY_TOPIC = "RETRY_TOPIC"
REAL_TOPIC = "REAL_TOPIC"
REAL_QID = "REAL_QID"
PRODUCER_GROUP = "PGROUP"
MIN_OFFSET = "MIN_OFFSET"
MAX_OFFSET = "MAX_OFFSET"
ORIGIN_MESSAGE_ID = "ORIGIN_MESSAGE_ID"
RECONSUME_TIME = "RECONSUME_TIME"
MSG_REGION = "MSG_REGION"
TRACE_ON = "TRACE_ON"
UNIQ_KEY = "UNIQ_KEY"
MAX_RECONSUME_TIMES = "MAX_RECONSUME_TIMES"
CLUSTER = "CLUSTER"
SHARDING_KEY = "__SHARDINGKEY"
INNER_NUM = "INNER_NUM"
POP_CK = "POP_CK"
TRAN_MSG = "TRAN_MSG"
TIMER_DELAY_SEC = "TIMER_DELAY_SEC"
TIMER_DELAY_MS = "TIMER_DELAY_MS"
TIMER_DELIVER_MS = "TIMER_DELIVER_MS"
CRC32 = "__CRC32#"
KEY_SEPARATOR = " "

# --- sysFlag bits (MessageSysFlag)
COMPRESSED = 0x1
MULTI_TAGS = 0x2
TRANSACTION_MASK = 0xC
TRANSACTION_PREPARED = 0x4
TRANSACTION_COMMIT = 0x8
TRANSACTION_ROLLBACK = 0xC
BORN_HOST_V6 = 0x10
STORE_HOST_V6 = 0x20
NEED_UNWRAP = 0x40
INNER_BATCH = 0x80
COMPRESSION_MASK = 0x700
COMPRESSION_LZ4 = 0x100
COMPRESSION_ZSTD = 0x200
COMPRESSION_ZLIB = 0x300

# --- system names
SCHEDULE_TOPIC = "SCHEDULE_TOPIC_XXXX"
RETRY_PREFIX = "%RETRY%"
DLQ_PREFIX = "%DLQ%"
AUTO_CREATE_TOPIC = "TBW102"

PROPERTIES_BYTES_MAX = 32767
TOPIC_BYTES_MAX = 127
RETRY_TOPIC_BYTES_MAX = 255

NAME_SEPARATOR = "\x01"
PROPERTY_SEPARATOR = "\x02"


def encode_properties(properties: Mapping[str, str]) -> bytes:
    """`name 0x01 value 0x02` repeated, UTF-8. Raises `MessageIllegal` if a name or value holds a separator."""
    for name, value in properties.items():
        if NAME_SEPARATOR in name or PROPERTY_SEPARATOR in name or NAME_SEPARATOR in value or PROPERTY_SEPARATOR in value:
            raise MessageIllegal(f"property {name!r} contains a reserved control character (0x01 or 0x02)")
    return "".join(f"{name}\x01{value}\x02" for name, value in properties.items()).encode()


def decode_properties(text: str | bytes | bytearray | memoryview) -> dict[str, str]:
    """The pairs of a properties text; tolerates a missing final 0x02 and drops pairs without a name or a value, as Java does."""
    if not isinstance(text, str):
        text = bytes(text).decode("utf-8", "replace")
    found = {}
    for pair in text.split("\x02"):
        name, mark, value = pair.partition("\x01")
        if mark and name and value:
            found[name] = value
    return found


_UNIQUE = f"{UNIQ_KEY}\x01"
_SPLIT_MAX = 512


def split_unique(text: str) -> tuple[str, str]:
    """The UNIQ_KEY of a properties text, and the text without that pair: messages of one producer mostly differ in nothing else, so what
    the rest means can be remembered. ("", text) where it is not that simple, or too long to be remembered."""
    before, _, after = text.partition(_UNIQUE)
    unique, _, after = after.partition("\x02")
    if not unique or (before and before[-1] != "\x02") or _UNIQUE in after or len(text) > _SPLIT_MAX:
        return "", text
    return unique, before + after


_POWERS: list[int] = [pow(31, i, 1 << 32) for i in range(65)]
_SUFFIX = [list(reversed(_POWERS[:n])) for n in range(65)]  # multipliers of an n-character text, first character first


def java_hash_extend(start: int, text: str) -> int:
    """`String.hashCode` of `prefix + text` (unsigned 32 bit), given that of `prefix`."""
    units: bytes | list[int]
    if text.isascii():
        units = text.encode()
    else:
        wide = text.encode("utf-16-be", "surrogatepass")
        units = [(wide[i] << 8) | wide[i + 1] for i in range(0, len(wide), 2)]
    n = len(units)
    if n <= 64:
        scaled: int = start * _POWERS[n] + sum(map(mul, units, _SUFFIX[n]))
        return scaled & 0xFFFFFFFF
    h = start
    for unit in units:
        h = (h * 31 + unit) & 0xFFFFFFFF
    return h


def java_hash(text: str) -> int:
    """Java's `String.hashCode`: signed 32 bit over UTF-16 code units."""
    h = java_hash_extend(0, text)
    return h - (1 << 32) if h & 0x80000000 else h


@lru_cache(maxsize=4096)
def tags_code(tags: str | None) -> int:
    """What a consume-queue unit carries for filtering: `hashCode` of the TAGS property, 0 without tags."""
    return java_hash(tags) if tags else 0


@lru_cache(maxsize=8192)
def encode_host(address: tuple[str, int]) -> bytes:
    """ip (4 or 16 bytes) and port as **four** bytes (TRAP-S2). Raises `MessageIllegal` for a host name."""
    ip, port = address
    try:
        packed = ipaddress.ip_address(ip.partition("%")[0]).packed
    except ValueError:
        raise MessageIllegal(f"{ip!r} is not an IP address; a record holds only literal addresses") from None
    if len(packed) == 16 and packed[:12] == b"\0" * 10 + b"\xff\xff":
        packed = packed[12:]  # an IPv4 peer seen through an IPv6 socket
    return packed + port.to_bytes(4, "big")


def decode_host(data: bytes | memoryview) -> tuple[str, int]:
    """The inverse of `encode_host`: 8 bytes are IPv4, 20 are IPv6."""
    raw = bytes(data)
    return str(ipaddress.ip_address(raw[:-4])), int.from_bytes(raw[-4:], "big")


def message_id(store_host: bytes, phy_offset: int) -> str:
    """offsetMsgId: upper-case hex of the encoded store host and the 8-byte physical offset; 32 or 56 characters."""
    return (store_host + phy_offset.to_bytes(8, "big")).hex().upper()


def decode_message_id(text: str) -> tuple[tuple[str, int], int]:
    """((ip, port), phy_offset) of an offsetMsgId. Raises `MessageIllegal` if it isn't one."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) not in (16, 28):
        raise MessageIllegal(f"{text!r} is not an offset message id: 32 or 56 hexadecimal digits are expected")
    return decode_host(raw[:-8]), int.from_bytes(raw[-8:], "big")


@attrs.frozen(order=True)
class MessageQueue:
    """One queue of a topic on one broker group. Orders as Java's MessageQueue: topic, broker name, queue id."""

    topic: str
    broker_name: str
    queue_id: int


@attrs.frozen
class StoredMessage:
    """One decoded record. `body` is as stored (possibly compressed, see `sys_flag`); offsets as in the record."""

    topic: str
    queue_id: int
    queue_offset: int
    phy_offset: int
    body: bytes
    properties: Mapping[str, str]
    flag: int
    sys_flag: int
    body_crc: int
    born_ms: int
    born_host: tuple[str, int]
    store_ms: int
    store_host: tuple[str, int]
    reconsume_times: int
    prepared_offset: int
    size: int
