"""What an application sends and receives: `Message` going out, `Received` coming in, `SendResult` in between.

All are values; nothing here waits. Limits are checked when a message is made, before anything reaches a socket.
Source: reference "protocol" sections 7, 8; `MessageClientIDSetter`, `DefaultMQProducerImpl#sendKernelImpl`, `MessageDecoder`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeVar

import attrs

from trmq.errors import CorruptRecord, MessageIllegal
from trmq.message import (
    COMPRESSED,
    COMPRESSION_LZ4,
    COMPRESSION_MASK,
    COMPRESSION_ZLIB,
    COMPRESSION_ZSTD,
    DELAY,
    KEY_SEPARATOR,
    KEYS,
    NAME_SEPARATOR,
    PROPERTIES_BYTES_MAX,
    PROPERTY_SEPARATOR,
    RETRY_PREFIX,
    RETRY_TOPIC,
    SHARDING_KEY,
    TAGS,
    UNIQ_KEY,
    WAIT,
    MessageQueue,
    StoredMessage,
    decode_host,
    decode_properties,
    encode_host,
    encode_properties,
    message_id,
)
from trmq.record import HEAD_V4, MAGIC_V1, decode_record
from trmq.wire.names import check_topic

BODY_BYTES_MAX = 4 << 20
COMPRESS_OVER = 4096
COMPRESS_LEVEL = 5
DELAY_LEVEL_MAX = 18
RESERVED = frozenset({KEYS, TAGS, WAIT, DELAY, UNIQ_KEY, SHARDING_KEY})
"""Properties that have an argument of their own; a user property may not shadow them."""


class SendStatus(IntEnum):
    """How a stored message was stored; the response codes as Java's SendStatus. All four mean: the broker has it."""

    SEND_OK = 0
    FLUSH_DISK_TIMEOUT = 10
    SLAVE_NOT_AVAILABLE = 11
    FLUSH_SLAVE_TIMEOUT = 12


@attrs.frozen
class SendResult:
    """The broker's answer to a send. `message_id` is the UNIQ_KEY (of a batch: comma-joined); `offset` the (first) queue offset."""

    status: SendStatus
    message_id: str
    offset_message_id: str
    queue: MessageQueue
    offset: int


@attrs.frozen
class Message:
    """A message ready to be sent, with the UNIQ_KEY it will carry. Made by `Producer.prepare`, which checks it."""

    topic: str
    body: bytes
    unique_key: str
    properties: str
    """Encoded properties, UNIQ_KEY included."""
    sharding_key: str | None = None
    flag: int = 0
    delayed: bool = False


def make_message(
    topic: str, body: bytes | bytearray | memoryview | str, unique_key: str, *, tag: str | None = None, keys: Sequence[str] | str = (),
    properties: Mapping[str, str] | None = None, delay_level: int = 0, sharding_key: str | None = None, flag: int = 0, wait: bool = True,
) -> Message:
    """A checked message. Raises `MessageIllegal` naming what is wrong: topic, body, tag, keys, a property or their total size."""
    if (problem := check_topic(topic)) is not None:
        raise MessageIllegal(problem)
    data = body.encode() if isinstance(body, str) else bytes(body)
    if not data:
        raise MessageIllegal("the body is empty; RocketMQ stores no message without a body")
    if len(data) > BODY_BYTES_MAX:
        raise MessageIllegal(f"the body has {len(data)} bytes; at most {BODY_BYTES_MAX} are allowed")
    text = f"{UNIQ_KEY}\x01{unique_key}\x02{WAIT}\x01{'true' if wait else 'false'}\x02"
    if tag or keys or properties or delay_level or sharding_key is not None:
        text += _encode_extra(tag, keys, properties, delay_level, sharding_key)
        if len(text) > PROPERTIES_BYTES_MAX // 4 and len(text.encode()) > PROPERTIES_BYTES_MAX:
            raise MessageIllegal(f"the properties take {len(text.encode())} bytes; at most {PROPERTIES_BYTES_MAX} are allowed")
    return Message(topic, data, unique_key, text, sharding_key, flag, delay_level > 0)


def _encode_extra(
    tag: str | None, keys: Sequence[str] | str, properties: Mapping[str, str] | None, delay_level: int, sharding_key: str | None,
) -> str:
    extra: dict[str, str] = {}
    for name, value in (properties or {}).items():
        if name in RESERVED:
            raise MessageIllegal(f"property {name!r} is reserved: use the argument made for it")
        if not name or not isinstance(value, str) or not value:
            raise MessageIllegal(f"property {name!r} needs a name and a value that is a non-empty string")
        extra[name] = value
    if tag:
        if "||" in tag or tag != tag.strip():
            raise MessageIllegal(f"tag {tag!r} must not contain '||' or blanks at its ends; one message has one tag")
        extra[TAGS] = tag
    if keys:
        found = [keys] if isinstance(keys, str) else list(keys)
        for key in found:
            if not key or KEY_SEPARATOR in key:
                raise MessageIllegal(f"key {key!r} must not be empty or contain a blank, which separates keys")
        extra[KEYS] = KEY_SEPARATOR.join(found)
    if delay_level:
        if not 0 < delay_level <= DELAY_LEVEL_MAX:
            raise MessageIllegal(f"delay_level {delay_level} is outside 1 to {DELAY_LEVEL_MAX}")
        extra[DELAY] = str(delay_level)
    if sharding_key is not None:
        extra[SHARDING_KEY] = sharding_key
    for name, value in extra.items():
        if NAME_SEPARATOR in name + value or PROPERTY_SEPARATOR in name + value:
            raise MessageIllegal(f"property {name!r} contains a reserved control character (0x01 or 0x02)")
    return encode_properties(extra).decode()


def compress(body: bytes, over: int | None) -> tuple[bytes, int]:
    """(body to send, sysFlag bits): zlib level 5 for bodies longer than `over` bytes, as Java's producer; None never compresses."""
    if over is None or len(body) <= over:
        return body, 0
    return zlib.compress(body, COMPRESS_LEVEL), COMPRESSED | COMPRESSION_ZLIB


def decompress(body: bytes, sys_flag: int) -> bytes:
    """The body as the sender wrote it. Raises `MessageIllegal` when it is damaged or needs an extra that isn't installed."""
    if not sys_flag & COMPRESSED:
        return body
    kind = sys_flag & COMPRESSION_MASK
    try:
        if kind == COMPRESSION_LZ4:
            import lz4.frame  # type: ignore[import-untyped, import-not-found, unused-ignore]  # an extra without type information

            return bytes(lz4.frame.decompress(body))
        if kind == COMPRESSION_ZSTD:
            return _unzstd(body)
        return zlib.decompress(body)
    except ImportError as error:
        name = "lz4" if kind == COMPRESSION_LZ4 else "zstd"
        raise MessageIllegal(f"the body is compressed with {name}: install trmq[{name}] to read it") from error
    except Exception as error:
        raise MessageIllegal(f"the compressed body cannot be read: {error}") from error


def _unzstd(body: bytes) -> bytes:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # in the standard library from 3.14 on
    except ImportError:
        from backports import zstd  # type: ignore[import-not-found, no-redef, unused-ignore]  # an extra before
    return bytes(zstd.decompress(body))


class Received:
    """A stored message as an application sees it. Properties and compressed bodies are decoded on first use.

    `topic` is the topic it was sent to, also when it comes back through a retry topic; `queue` says where it really lies.
    """

    __slots__ = (
        "_body", "_properties", "_raw_properties", "born_host", "born_ms", "flag", "offset", "phy_offset", "queue", "reconsume_times",
        "size", "store_host", "store_ms", "sys_flag",
    )

    def __init__(
        self, queue: MessageQueue, offset: int, phy_offset: int, body: bytes, properties: bytes, flag: int, sys_flag: int, born_ms: int,
        born_host: bytes, store_ms: int, store_host: bytes, reconsume_times: int, size: int,
    ) -> None:
        self.queue = queue
        self.offset = offset
        self.phy_offset = phy_offset
        self._body: bytes | None = body
        self._raw_properties = properties
        self._properties: dict[str, str] | None = None
        self.flag = flag
        self.sys_flag = sys_flag
        self.born_ms = born_ms
        self.born_host = born_host
        self.store_ms = store_ms
        self.store_host = store_host
        self.reconsume_times = reconsume_times
        self.size = size

    @property
    def body(self) -> bytes:
        """As the sender wrote it. Raises `MessageIllegal` if it is compressed in a way that cannot be read here."""
        if self.sys_flag & COMPRESSED:
            self._body = decompress(self._body or b"", self.sys_flag)
            self.sys_flag &= ~(COMPRESSED | COMPRESSION_MASK)
        return self._body or b""

    @property
    def properties(self) -> Mapping[str, str]:
        if self._properties is None:
            self._properties = decode_properties(self._raw_properties)
        return self._properties

    @property
    def topic(self) -> str:
        if self.queue.topic.startswith(RETRY_PREFIX):
            return self.properties.get(RETRY_TOPIC, self.queue.topic)
        return self.queue.topic

    @property
    def tag(self) -> str | None:
        return self.properties.get(TAGS)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in self.properties.get(KEYS, "").split(KEY_SEPARATOR) if key)

    @property
    def sharding_key(self) -> str | None:
        return self.properties.get(SHARDING_KEY)

    @property
    def message_id(self) -> str:
        """The UNIQ_KEY its producer gave it, or the offset message id without one."""
        return self.properties.get(UNIQ_KEY) or self.offset_message_id

    @property
    def offset_message_id(self) -> str:
        return message_id(self.store_host, self.phy_offset)

    @property
    def origin_message_id(self) -> str:
        """The offset message id of the first copy, when this is a retry."""
        return self.properties.get("ORIGIN_MESSAGE_ID") or self.offset_message_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.message_id} {self.queue.topic} {self.queue.broker_name}/{self.queue.queue_id}@{self.offset}>"

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, the body as bytes: for printing and for programs."""
        return {
            "message_id": self.message_id, "offset_message_id": self.offset_message_id, "topic": self.topic, "tag": self.tag,
            "keys": list(self.keys), "broker_name": self.queue.broker_name, "queue_id": self.queue.queue_id, "queue_offset": self.offset,
            "born_ms": self.born_ms, "born_host": _host_text(self.born_host), "store_ms": self.store_ms,
            "store_host": _host_text(self.store_host), "reconsume_times": self.reconsume_times, "properties": dict(self.properties),
            "body": self.body,
        }


def _host_text(host: bytes) -> str:
    ip, port = decode_host(host)
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


R = TypeVar("R", bound=Received)


def decode_received(data: bytes, queue_of: MessageQueue | str, kind: type[R]) -> list[R]:
    """The records of a pull, query or view answer as `kind`. `queue_of`: the queue they lie in, or the broker's name if they differ.

    Raises `CorruptRecord` at the first bad record: a wrong length would otherwise lose the rest in silence.
    """
    found, problem = decode_sound(data, queue_of, kind)
    if problem is not None:
        raise problem
    return found


def decode_sound(data: bytes, queue_of: MessageQueue | str, kind: type[R]) -> tuple[list[R], CorruptRecord | None]:
    """The same up to the first bad record, and what is wrong with that; None: there is none."""
    found: list[R] = []
    try:
        for record in _walk(data, queue_of, kind):
            found.append(record)
    except CorruptRecord as error:
        return found, error
    return found, None


def _walk(data: bytes, queue_of: MessageQueue | str, kind: type[R]) -> Iterator[R]:
    at, end = 0, len(data)
    while at < end:
        if end - at < HEAD_V4.size:
            raise CorruptRecord(f"{end - at} bytes at the end of an answer are no record")
        (size, magic, crc, queue_id, flag, offset, phy, sys_flag, born_ms, born_host, store_ms, store_host, reconsumed, _prepared,
         body_size) = HEAD_V4.unpack_from(data, at)
        body_at = at + HEAD_V4.size
        topic_at = body_at + body_size + 1
        if magic != MAGIC_V1 or sys_flag & 0x30 or body_size < 0 or topic_at > end:
            message = decode_record(data, at)  # long topics and IPv6 hosts are rare: the general decoder
            yield _from_stored(message, queue_of, kind)
            at += message.size
            continue
        topic_end = topic_at + data[topic_at - 1]
        properties_size = int.from_bytes(data[topic_end : topic_end + 2], "big")
        if topic_end + 2 + properties_size != at + size or at + size > end:
            raise CorruptRecord(f"a record of {size} bytes does not add up")
        body = data[body_at : topic_at - 1]
        if zlib.crc32(body) & 0x7FFFFFFF != crc:
            raise CorruptRecord(f"the body at physical offset {phy} does not match its CRC")
        queue = queue_of
        if isinstance(queue, str):
            queue = MessageQueue(data[topic_at:topic_end].decode("utf-8", "replace"), queue, queue_id)
        yield kind(queue, offset, phy, body, data[topic_end + 2 : at + size], flag, sys_flag, born_ms, born_host, store_ms, store_host,
                   reconsumed, size)
        at += size


def _from_stored(message: StoredMessage, queue_of: MessageQueue | str, kind: type[R]) -> R:
    queue = MessageQueue(message.topic, queue_of, message.queue_id) if isinstance(queue_of, str) else queue_of
    return kind(
        queue, message.queue_offset, message.phy_offset, message.body, encode_properties(message.properties), message.flag,
        message.sys_flag, message.born_ms, encode_host(message.born_host), message.store_ms, encode_host(message.store_host),
        message.reconsume_times, message.size,
    )
