"""JSON in the dialect of Apache's fastjson: bare integer keys, objects as keys, no spaces, members in alphabetical order.

Reading: standard JSON goes through msgspec; only what that refuses is read again by a tolerant parser that also takes bare integer and
name keys, objects as keys, single quotes and a comma too many. A bare integer key becomes an int, a quoted one stays a text (the typed
bodies make an int of it), an object key becomes a `MessageQueue` if it looks like one and an `ObjectKey` otherwise.

Writing: `quoted_keys` says how integer keys leave. Old clients take `brokerAddrs` apart by hand and need them bare, strict parsers
need them quoted (traps 1 and 2); map keys that are queues are always object literals. Members that are None are left out.

Source: reference "protocol" section 10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from trmq.errors import LocalProtocolError, RemoteProtocolError
from trmq.message import MessageQueue

from .codes import ResponseCode

DEPTH_MAX = 64
"""Nesting that is still read; real bodies have at most eight levels."""


@attrs.frozen
class ObjectKey:
    """An object in key position that is no message queue: its members, sorted by name."""

    members: tuple[tuple[str, Any], ...]


_QUEUE_MEMBERS = {"brokerName", "queueId", "topic"}


def loads(data: bytes | bytearray | memoryview | str) -> Any:
    """The value of a JSON text. Raises `RemoteProtocolError` (INVALID_PARAMETER) with the place where it cannot be read."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        pass
    try:
        text = data if isinstance(data, str) else bytes(data).decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"the JSON text is not UTF-8 at byte {error.start}", ResponseCode.INVALID_PARAMETER) from None
    return _Parser(text).document()


_SPACE = re.compile(r"[ \t\r\n]*")
_DOUBLE = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SINGLE = re.compile(r"'((?:[^'\\\x00-\x1f]|\\.)*)'")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_NAME = re.compile(r"[A-Za-z_$][\w$.-]*")
_WORDS = {"true": True, "false": False, "null": None, "NaN": None, "Infinity": None}


class _Parser:
    """Reads one document, character by character; only for what msgspec refuses."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def document(self) -> Any:
        value = self._value(0)
        if self._peek():
            raise self._complaint("the end")
        return value

    def _complaint(self, expected: str) -> RemoteProtocolError:
        found = self.text[self.at : self.at + 12] or "the end"
        return RemoteProtocolError(
            f"the JSON text is malformed at character {self.at}: {expected} expected, found {found!r}", ResponseCode.INVALID_PARAMETER
        )

    def _peek(self) -> str:
        match = _SPACE.match(self.text, self.at)
        assert match is not None  # it matches the empty text
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def _take(self, mark: str) -> None:
        if self._peek() != mark:
            raise self._complaint(repr(mark))
        self.at += 1

    def _value(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise self._complaint(f"at most {DEPTH_MAX} levels")
        first = self._peek()
        if first == "{":
            return self._object(depth)
        if first == "[":
            return self._array(depth)
        if first in ('"', "'"):
            return self._string(first)
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            whole = match[1] is None and match[2] is None
            if whole and match.end() - match.start() > 32:
                raise self._complaint("a number that fits 64 bits")
            return int(match[0]) if whole else float(match[0])
        if (match := _NAME.match(self.text, self.at)) and match[0] in _WORDS:
            self.at = match.end()
            return _WORDS[match[0]]
        raise self._complaint("a value")

    def _string(self, quote: str) -> str:
        match = (_DOUBLE if quote == '"' else _SINGLE).match(self.text, self.at)
        if match is None:
            raise self._complaint("the end of a text")
        text = match[0]
        if quote == "'":
            text = '"' + match[1].replace("\\'", "'").replace('"', '\\"') + '"'
        try:
            value: str = msgspec.json.decode(text, type=str)
        except ValueError:
            raise self._complaint("a text with valid escapes") from None
        self.at = match.end()
        return value

    def _array(self, depth: int) -> list[Any]:
        self._take("[")
        found = []
        while self._peek() != "]":
            found.append(self._value(depth + 1))
            if self._peek() != "]":
                self._take(",")
        self.at += 1
        return found

    def _object(self, depth: int) -> dict[Any, Any]:
        self._take("{")
        found = {}
        while self._peek() != "}":
            key = self._key(depth + 1)
            self._take(":")
            found[key] = self._value(depth + 1)
            if self._peek() != "}":
                self._take(",")
        self.at += 1
        return found

    def _key(self, depth: int) -> Any:
        first = self._peek()
        if first in ('"', "'"):
            return self._string(first)
        if first == "{":
            return self._object_key(self._value(depth))
        if match := _NAME.match(self.text, self.at):
            self.at = match.end()
            return match[0]
        number = self._value(depth)
        if isinstance(number, list):
            raise self._complaint("a key that is no array before this place")
        return number

    def _object_key(self, members: dict[Any, Any]) -> Any:
        if members.keys() == _QUEUE_MEMBERS:
            topic, broker, queue_id = members["topic"], members["brokerName"], members["queueId"]
            if isinstance(topic, str) and isinstance(broker, str) and isinstance(queue_id, int):
                return MessageQueue(topic, broker, queue_id)
        return ObjectKey(tuple(sorted((str(name), _hashable(value)) for name, value in members.items())))


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return ObjectKey(tuple(sorted((str(name), _hashable(inner)) for name, inner in value.items())))
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


# ------------------------------------------------------------------------------------------------------------------- writing

_quote = msgspec.json.Encoder().encode


def dumps(value: Any, *, quoted_keys: bool) -> bytes:
    """`value` as JSON text. Takes what msgspec takes (structs too) and message queues, also as map keys.

    Raises `LocalProtocolError` for a value that has no JSON form.
    """
    parts: list[bytes] = []
    _write(value, quoted_keys, parts.append)
    return b"".join(parts)


def _write(value: Any, quoted_keys: bool, put: Any) -> None:
    if value is None or isinstance(value, (str, int, float, bytes)):
        put(_quote(value))
    elif isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        _write_members([(_quote(wire), getattr(value, name)) for wire, name in sorted(names)], quoted_keys, put)
    elif isinstance(value, Mapping):
        _write_members([(_key(name, quoted_keys), value[name]) for name in sorted(value, key=_order)], quoted_keys, put)
    elif isinstance(value, MessageQueue):
        put(_queue_text(value))
    elif isinstance(value, (list, tuple)):
        _write_items(value, quoted_keys, put)
    elif isinstance(value, (set, frozenset)):
        _write_items(sorted(value, key=_order), quoted_keys, put)
    else:
        raise LocalProtocolError(f"a {type(value).__name__} has no JSON form")


def _write_members(members: list[tuple[bytes, Any]], quoted_keys: bool, put: Any) -> None:
    mark = b"{"
    for key, value in members:
        if value is not None:
            put(mark + key + b":")
            _write(value, quoted_keys, put)
            mark = b","
    put(b"{}" if mark == b"{" else b"}")


def _write_items(items: Any, quoted_keys: bool, put: Any) -> None:
    mark = b"["
    for item in items:
        put(mark)
        _write(item, quoted_keys, put)
        mark = b","
    put(b"[]" if mark == b"[" else b"]")


def _order(key: Any) -> tuple[int, Any]:
    """Integers first, then queues, then texts; each in its own order."""
    if isinstance(key, int):
        return 0, key
    return (1, key) if isinstance(key, MessageQueue) else (2, str(key))


def _key(key: Any, quoted_keys: bool) -> bytes:
    if isinstance(key, str):
        return _quote(key)
    if isinstance(key, MessageQueue):
        return _queue_text(key)
    if isinstance(key, int):
        return b'"%d"' % key if quoted_keys else b"%d" % key
    if isinstance(key, ObjectKey):
        return dumps(dict(key.members), quoted_keys=quoted_keys)
    raise LocalProtocolError(f"a {type(key).__name__} cannot be a JSON key")


def _queue_text(queue: MessageQueue) -> bytes:
    return b'{"brokerName":%b,"queueId":%d,"topic":%b}' % (_quote(queue.broker_name), queue.queue_id, _quote(queue.topic))
