"""What a configuration value may be: each attribute of a config class carries its key, its reader and what it expects.

A reader takes the text of a file, a flag or the environment and returns the value, or raises `ValueError`; `expects` says
in words what it would have taken, for the one error sentence a user sees. Sizes and times are Java's plain integers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

INT_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1

DELAY_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s:;,\[\]]+):(\d{1,5})")
_NAME = re.compile(r"[%|a-zA-Z0-9_-]+")


def _field(default: Any, read: Callable[[str], Any], expects: str, key: str | None, doc: str) -> Any:
    return attrs.field(default=default, metadata={"read": read, "expects": expects, "key": key, "doc": doc})


def whole(default: Any, doc: str, low: int = 0, high: int = INT_MAX, *, key: str | None = None, multiple: int = 1) -> Any:
    """An integer from `low` to `high`, both inclusive."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
            raise ValueError
        value = int(text)
        if not low <= value <= high or value % multiple:
            raise ValueError
        return value

    step = f" that is a multiple of {multiple}" if multiple > 1 else ""
    return _field(default, read, f"a whole number from {low} to {high}{step}, in plain digits", key, doc)


def copies(default: str, doc: str) -> Any:
    """A number of copies from 1 on, or `all`; kept as text."""

    def read(text: str) -> str:
        if text.lower() == "all":
            return "all"
        if not re.fullmatch(r"[0-9]{1,3}", text) or not int(text):
            raise ValueError
        return str(int(text))

    return _field(default, read, "a whole number from 1 to 999, or all", None, doc)


def flag(default: bool, doc: str) -> Any:
    def read(text: str) -> bool:
        lower = text.lower()
        if lower not in {"true", "false"}:
            raise ValueError
        return lower == "true"

    return _field(default, read, "true or false", None, doc)


def text(default: str, doc: str, *, key: str | None = None) -> Any:
    return _field(default, str, "a text", key, doc)


def name(default: str, doc: str, *, length_max: int = 127) -> Any:
    """A cluster or broker name: it becomes a topic name too, so a topic's rules hold."""

    def read(value: str) -> str:
        if value and (len(value) > length_max or not _NAME.fullmatch(value)):
            raise ValueError
        return value

    return _field(default, read, f"at most {length_max} letters, digits, '-', '_', '%' or '|'", None, doc)


def choice(default: str, options: tuple[str, ...], doc: str) -> Any:
    def read(value: str) -> str:
        if value not in options:
            raise ValueError
        return value

    return _field(default, read, " or ".join(options), None, doc)


def path(default: str, doc: str) -> Any:
    def read(value: str) -> str:
        if "," in value or "\0" in value:
            raise ValueError
        return value

    return _field(default, read, "one path (several, separated by commas, are not supported)", None, doc)


def parse_endpoints(value: str) -> tuple[str, ...]:
    """`host:port` texts of a list separated by ";" (or ","). Raises `ValueError`."""
    found = tuple(part.strip() for part in re.split("[;,]", value) if part.strip())
    for part in found:
        match = _ENDPOINT.fullmatch(part)
        if not match or not 0 < int(match[2]) < 65536:
            raise ValueError(part)
    return found


def endpoints(default: str, doc: str) -> Any:
    def read(value: str) -> str:
        return ";".join(parse_endpoints(value))

    return _field(default, read, "host:port, several separated by ';'", None, doc)


def endpoint(default: str, doc: str) -> Any:
    def read(value: str) -> str:
        found = parse_endpoints(value)
        if len(found) > 1:
            raise ValueError
        return found[0] if found else ""

    return _field(default, read, "one host:port", None, doc)


def parse_delay_levels(value: str) -> tuple[int, ...]:
    """Milliseconds of each level of a text like `1s 5s 2h`. Raises `ValueError`."""
    levels = []
    for part in value.split():
        unit = DELAY_UNITS_MS.get(part[-1])
        if unit is None or not part[:-1].isdecimal():
            raise ValueError(part)
        levels.append(int(part[:-1]) * unit)
    return tuple(levels)


def delay_levels(default: str, doc: str) -> Any:
    def read(value: str) -> str:
        if not parse_delay_levels(value):
            raise ValueError
        return value

    return _field(default, read, "numbers with a unit s, m, h or d, separated by blanks, as in '1s 5s 1m 2h'", None, doc)


def parse_hours(value: str) -> tuple[int, ...]:
    """Hours of the day of a text like `04` or `04;16`. Raises `ValueError`."""
    hours = tuple(int(part) for part in value.split(";") if part.strip())
    if not hours or not all(0 <= hour < 24 for hour in hours):
        raise ValueError
    return hours


def hours(default: str, doc: str) -> Any:
    def read(value: str) -> str:
        parse_hours(value)
        return value

    return _field(default, read, "hours of the day from 00 to 23, several separated by ';'", None, doc)


def key_of(attribute: attrs.Attribute[Any]) -> str:
    """The camelCase key under which Apache and the files know an attribute."""
    return attribute.metadata["key"] or re.sub(r"_(\w)", lambda found: found[1].upper(), attribute.name)


def in_java(value: object) -> str:
    """A value as Java prints it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
