"""How verbs print: tables for people, `-o json` and `-o jsonl` for programs; colour only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


class Output(StrEnum):
    """What `-o` takes."""

    table = "table"
    json = "json"
    jsonl = "jsonl"


def show(rows: Sequence[Mapping[str, Any]], output: Output, *, title: str | None = None, empty: str = "nothing found") -> None:
    """Rows with equal keys: a table with the keys as headings, one JSON array, or one JSON object a line."""
    if output is Output.json:
        print(json.dumps(list(rows), ensure_ascii=False, default=str))
    elif output is Output.jsonl:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False, default=str))
    elif not rows:
        print(empty, file=sys.stderr)
    else:
        _table(rows, title)


def show_one(fields: Mapping[str, Any], output: Output) -> None:
    """One object: aligned lines for people, one JSON object for programs."""
    if output is not Output.table:
        print(json.dumps(fields, ensure_ascii=False, default=str))
        return
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        print(f"{name:<{width}}  {value}")


def _table(rows: Sequence[Mapping[str, Any]], title: str | None) -> None:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table(rows, title))


def table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> Table:
    """For rich to print; the keys of the first row are the headings, numbers stand to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="right" if isinstance(value, int | float) else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else f"{value:,.1f}" if isinstance(value, float) else str(value) for value in row.values()))
    return table


def printable(body: bytes) -> str:
    """The body as text, or as hexadecimal with a prefix when it is no UTF-8 text (or would look like that prefix)."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "hex:" + body.hex()
    return "hex:" + body.hex() if text.startswith("hex:") else text
