"""What all header types share: camelCase on the wire, numbers and booleans read from texts, ranges as wide as Java's.

A number outside its Java type is refused here, at the border, so that inner code may pack it without asking.
The five fields that every 5.x client may add (`ns`, `nsd`, `bname`, `oway`, `lo`) are not listed in the types; `Command.ext` has them.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

Int32 = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Header(msgspec.Struct, rename="camel", gc=False):
    """Base of the typed headers: one type per request code or answer. Optional members default to None and stay off the wire."""


H = TypeVar("H", bound=Header)

_decoders: dict[type[Header], msgspec.json.Decoder[Any]] = {}


def header_decoder(kind: type[H]) -> msgspec.json.Decoder[H]:
    """The decoder of a type's JSON extFields; made once."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, strict=False)
    return decoder


@cache
def header_fields(kind: type[Header]) -> tuple[tuple[str, str], ...]:
    """(attribute, wire name) of each member, in the order of the declaration."""
    return tuple((field.name, field.encode_name) for field in msgspec.structs.fields(kind))


class Empty(Header):
    """A request or answer without fields."""
