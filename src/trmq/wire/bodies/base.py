"""What all JSON bodies share, and the two functions that convert.

Members are camelCase on the wire unless named; unknown ones are ignored, absent or null ones take their defaults. Defaults are those of
the Java classes, so that `SubscriptionGroupConfig(group_name=…)` means the same here and there.
Source: reference "protocol" section 10.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from trmq.errors import RemoteProtocolError
from trmq.wire import fastjson
from trmq.wire.codes import ResponseCode

T = TypeVar("T")

ENUMS = {
    "consumeType": ("CONSUME_ACTIVELY", "CONSUME_PASSIVELY", "CONSUME_POP"),
    "messageModel": ("BROADCASTING", "CLUSTERING"),
    "consumeFromWhere": (
        "CONSUME_FROM_LAST_OFFSET", "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST", "CONSUME_FROM_MIN_OFFSET",
        "CONSUME_FROM_MAX_OFFSET", "CONSUME_FROM_FIRST_OFFSET", "CONSUME_FROM_TIMESTAMP",
    ),
}  # fmt: skip
"""Members whose value is a Java enum, in the enum's order: the C++ client writes the place in it, and fastjson takes both."""


class Body(msgspec.Struct, rename="camel"):
    """Base of the JSON bodies."""


def decode_body(data: bytes | bytearray | memoryview | str, kind: type[T]) -> T:
    """`data` as `kind`. Raises `RemoteProtocolError` (INVALID_PARAMETER) naming the member that is missing or bad."""
    try:
        found: T = _decoder(cast(Any, kind)).decode(data)
        return found
    except (ValueError, TypeError, RecursionError):
        pass  # the dialect, nulls, or really wrong: the slow way knows
    if not data:
        raise RemoteProtocolError(f"{_name(kind)} body is missing", ResponseCode.INVALID_PARAMETER)
    try:
        return msgspec.convert(_plain(fastjson.loads(data)), kind, strict=False, dec_hook=_object_value)
    except (ValueError, TypeError) as error:
        raise RemoteProtocolError(f"{_name(kind)} body: {error}", ResponseCode.INVALID_PARAMETER) from None


def encode_body(value: Any, *, quoted_keys: bool = False) -> bytes:
    """`value` as compact JSON, members in alphabetical order, None left out; integer keys quoted or bare."""
    if isinstance(value, msgspec.Struct) and _text_keys_only(type(value)):
        try:
            data = _sorted_encoder.encode(value)  # many times faster, but leaves None in and refuses integer keys below an Any
        except TypeError:
            data = b":null"
        if b":null" not in data:
            return data
    return fastjson.dumps(value, quoted_keys=quoted_keys)


_sorted_encoder = msgspec.json.Encoder(order="sorted")


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=False)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def _object_value(kind: type, value: Any) -> Any:
    raise NotImplementedError(f"no conversion to {kind}")


def _plain(value: Any) -> Any:
    """`value` without nulls, and with enums by name."""
    if isinstance(value, dict):
        return {key: _by_name(key, inner) if type(inner) is int else _plain(inner) for key, inner in value.items() if inner is not None}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _by_name(key: str, ordinal: int) -> int | str:
    names = ENUMS.get(key, ())
    return names[ordinal] if 0 <= ordinal < len(names) else ordinal


@cache
def _text_keys_only(kind: type[msgspec.Struct]) -> bool:
    """Whether every map that the type declares, at any depth, has texts as keys."""
    seen: set[Any] = set()

    def plain(node: Any) -> bool:
        if isinstance(node, msgspec.inspect.DictType) and not isinstance(node.key_type, msgspec.inspect.StrType):
            return False
        if isinstance(node, msgspec.inspect.StructType):
            if node.cls in seen:
                return True
            seen.add(node.cls)
        parts = [part for name in ("fields", "types", "item_types") for part in getattr(node, name, ())]
        parts += [getattr(node, name, None) for name in ("type", "item_type", "value_type")]
        return all(plain(part) for part in parts if isinstance(part, (msgspec.inspect.Type, msgspec.inspect.Field)))

    return plain(msgspec.inspect.type_info(kind))
