"""Histories that are kept because they show that something *can* happen: one word of `specs.history` per line, as Python writes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from specs import history as words
from specs.clause import REGISTRY, Check
from specs.history import History, LogSeen

FOLDER = Path(__file__).parent / "kept"
WORDS: dict[str, Any] = {name: word for name, word in vars(words).items() if isinstance(word, type) and dataclasses.is_dataclass(word)}
HEAD = "# {id}: {says}\n# Made by {origin}; only the words that the clause needs.\n"


def load(id: str) -> History:
    lines = [line for line in (FOLDER / f"{id}.txt").read_text().splitlines() if line and not line.startswith("#")]
    return History(tuple(eval(line, {"frozenset": frozenset}, dict(WORDS)) for line in lines), origin=f"kept/{id}.txt")


def whole(event: Any) -> str:
    """As `repr`, with the members that it leaves out."""
    members = ", ".join(f"{member.name}={getattr(event, member.name)!r}" for member in dataclasses.fields(event))
    return f"{type(event).__name__}({members})"


def shorten(event: Any) -> Any:
    return dataclasses.replace(event, data=b"") if isinstance(event, LogSeen) else event


def fewer_records(check: Check, events: list[Any], at: int) -> Any:
    """The word at `at`, with only the records that are needed if it is a look at a log."""
    event = events[at]
    for record in event.records if isinstance(event, LogSeen) else ():
        fewer = dataclasses.replace(event, records=tuple(one for one in event.records if one is not record))
        if any(True for _ in check(History((*events[:at], fewer, *events[at + 1 :])))):
            event = fewer
    return event


def keep(id: str, history: History) -> None:
    """Write the shortest history that still shows it: whatever word can be left out is left out."""
    check = REGISTRY[id].check
    events = [shorten(event) for event in history.events]
    assert any(check(History(tuple(events)))), f"{id} is not shown by {history.origin}"
    size = max(1, len(events) // 2)
    while size:
        at = 0
        while at < len(events):
            fewer = events[:at] + events[at + size :]
            if any(True for _ in check(History(tuple(fewer)))):
                events = fewer
            else:
                at += size
        size //= 2
    events = [fewer_records(check, events, at) for at in range(len(events))]
    text = HEAD.format(id=id, says=REGISTRY[id].says, origin=history.origin)
    (FOLDER / f"{id}.txt").write_text(text + "".join(f"{whole(event)}\n" for event in events))
