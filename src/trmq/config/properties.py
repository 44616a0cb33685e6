"""Java's properties format: text to numbered entries, and values back to text.

Rules (`java.util.Properties`): `#` or `!` starts a comment line; an odd number of backslashes at the end joins the next
line, whose leading blanks are dropped; the key ends at the first unescaped `=`, `:` or blank; backslash escapes are t, n,
r, f and uXXXX, any other escaped character stands for itself. Unlike Java, blanks at the end of a value are dropped: no
key of RocketMQ wants them and they are how a file goes wrong unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

_BLANK = " \t\f"
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)


class Entry(NamedTuple):
    key: str
    value: str
    line: int
    """Number of the line the entry starts on, from 1."""


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    pending, start = "", 0
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        line = raw.lstrip(_BLANK)
        if not pending:
            if not line or line[0] in "#!":
                continue
            start = number
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            pending += line[:-1]
            continue
        yield start, pending + line
        pending = ""
    if pending:
        yield start, pending


def _unescape(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        what = found[1]
        return chr(int(what[1:], 16)) if len(what) == 5 else _ESCAPES.get(what, what)

    plain = _ESCAPED.sub(one, text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # \uD83D\uDE00 is one character


def parse_properties(text: str) -> list[Entry]:
    """Every entry in file order; a key given twice appears twice (Java lets the last one win, and so do our callers)."""
    found = []
    for number, line in _logical_lines(text.removeprefix("\ufeff")):
        end = 0
        while end < len(line) and line[end] not in "=:" + _BLANK:
            end += 2 if line[end] == "\\" else 1
        rest = line[end:].lstrip(_BLANK)
        if rest[:1] in {"=", ":"}:
            rest = rest[1:].lstrip(_BLANK)
        found.append(Entry(_unescape(line[:end]), _unescape(rest).rstrip(), number))
    return found


def format_properties(values: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """`key=value` lines that `parse_properties` and Java read back to the same values."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return "".join(f"{key}={value.translate(_QUOTE)}\n" for key, value in pairs)


_QUOTE = {ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r", ord("\f"): "\\f", ord("\t"): "\\t"}
