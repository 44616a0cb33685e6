"""The body of REGISTER_BROKER (103): JSON, or the compressed form that brokers send by default from 5.0 on.

Compressed form, inside one zlib stream (lengths are int32, texts UTF-8):

    length, DataVersion JSON | topic count | per topic: length, `name read write perm filterType attributesJson` |
    length, filter server list JSON | from version 413: mapping count | per mapping: length, TopicQueueMappingInfo JSON

`order` and `topicSysFlag` of a topic are not carried. Source: reference "protocol" section 10; `RegisterBrokerBody#encode`, `#decode`,
`TopicConfig#encode`.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

from trmq.errors import RemoteProtocolError

from .bodies import DataVersion, RegisterBrokerBody, TopicConfig, TopicConfigSerializeWrapper, decode_body, encode_body
from .codes import VERSION, VERSION_TOPIC_QUEUE_MAPPING, ResponseCode
from .fastjson import dumps

INFLATED_BYTES_MAX = 256 * 1024 * 1024
"""What a compressed body may become: a million topics fit."""

_LENGTH = struct.Struct(">i")


def encode_registration(body: RegisterBrokerBody, *, compressed: bool, version: int = VERSION) -> bytes:
    """The bytes to send; `body_crc32` of the header is CRC-32 of these."""
    if not compressed:
        return encode_body(body)
    wrapper = body.topic_config_serialize_wrapper
    parts = [_sized(encode_body(wrapper.data_version)), _LENGTH.pack(len(wrapper.topic_config_table))]
    for topic in wrapper.topic_config_table.values():
        attributes = dumps(topic.attributes, quoted_keys=True).decode()
        numbers = f"{topic.read_queue_nums} {topic.write_queue_nums} {topic.perm}"
        parts.append(_sized(f"{topic.topic_name} {numbers} {topic.topic_filter_type} {attributes}".encode()))
    parts.append(_sized(dumps(body.filter_server_list, quoted_keys=True)))
    if version >= VERSION_TOPIC_QUEUE_MAPPING:
        mappings = wrapper.topic_queue_mapping_info_map
        parts.append(_LENGTH.pack(len(mappings)))
        parts += [_sized(dumps(info, quoted_keys=False)) for info in mappings.values()]
    return zlib.compress(b"".join(parts), 6)


def _sized(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def decode_registration(data: bytes, *, compressed: bool, version: int = VERSION) -> RegisterBrokerBody:
    """The inverse. Raises `RemoteProtocolError` naming what cannot be read."""
    if not compressed:
        return decode_body(data, RegisterBrokerBody)
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, INFLATED_BYTES_MAX)
    except zlib.error as error:
        raise _bad(f"it is no zlib stream ({error})") from None
    if not inflater.eof:
        raise _bad(f"its zlib stream is cut off or holds more than {INFLATED_BYTES_MAX} bytes")
    reader = _Reader(plain)
    wrapper = TopicConfigSerializeWrapper(data_version=decode_body(reader.text(), DataVersion))
    for _ in range(reader.count()):
        topic = _topic(reader.text())
        wrapper.topic_config_table[topic.topic_name] = topic
    filters = decode_body(reader.text(), list[str])
    if version >= VERSION_TOPIC_QUEUE_MAPPING and not reader.at_end():
        for _ in range(reader.count()):
            info = decode_body(reader.text(), dict[str, Any])
            wrapper.topic_queue_mapping_info_map[str(info.get("topic"))] = info
    return RegisterBrokerBody(filter_server_list=filters, topic_config_serialize_wrapper=wrapper)


def _topic(text: bytes) -> TopicConfig:
    parts = text.decode("utf-8", "replace").split(" ", 5)
    try:
        name, read, write, perm, filter_type = parts[:5]
        numbers = int(read), int(write), int(perm)
    except ValueError:
        raise _bad(f"{text[:80]!r} is no topic: `name read write perm filterType attributes` is expected") from None
    attributes = decode_body(parts[5], dict[str, str]) if len(parts) > 5 and parts[5] else {}
    return TopicConfig(name, *numbers, topic_filter_type=filter_type, attributes=attributes)


class _Reader:
    """Steps through the inflated form; every length is checked against what is left."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def at_end(self) -> bool:
        return self.at == len(self.data)

    def count(self) -> int:
        if len(self.data) - self.at < 4:
            raise _bad(f"it ends at byte {len(self.data)} where a length is expected")
        (value,) = _LENGTH.unpack_from(self.data, self.at)
        self.at += 4
        if not 0 <= value <= len(self.data) - self.at:
            raise _bad(f"length or count {value} at byte {self.at - 4} with {len(self.data) - self.at} bytes left")
        return int(value)

    def text(self) -> bytes:
        size = self.count()
        self.at += size
        return self.data[self.at - size : self.at]


def _bad(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"the compressed registration body is damaged: {reason}", ResponseCode.INVALID_PARAMETER)
