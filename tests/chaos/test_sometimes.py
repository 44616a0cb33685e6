"""What a history shows to have come about: each situation in the shortest history that has it, and in none that has it nearly."""

from __future__ import annotations

from typing import Any

import pytest
from specs.history import (
    Asked,
    Attached,
    Carried,
    Cut,
    Detached,
    Done,
    Eased,
    Event,
    Found,
    Given,
    Gone,
    Heard,
    Hindered,
    History,
    Outcome,
    Paused,
    Pulled,
    Reported,
    Resumed,
    Serving,
    Told,
    Tried,
)

from trmq.chaos.sometimes import BY_HAND, ENOUGH, SOMETIMES, came_about, never

Q = ("T", 0)
UP = Serving("a0", "a", 0, "SYNC_MASTER", False, segment_size=100)
SLAVE = Serving("a1", "a", 1, "SLAVE", False)
LINK = Attached(1, "a0", "a1", at=1)


def pulled(node: str) -> Pulled:
    return Pulled("c", node, Q, "a", 0, "FOUND", 1, 0, ((0, 0, 0),))


YES: dict[str, list[Event]] = {
    "a send was answered late": [Outcome("m", "UNKNOWN"), Heard("m", "a0", "OK")],
    "an ack was lost after the write": [Told("m", "a0", "OK"), Outcome("m", "UNKNOWN")],
    "a message is stored twice": [Found(("m", "n", "m"))],
    "a send's outcome is unknown": [Outcome("m", "UNKNOWN")],
    "a send failed for certain": [Outcome("m", "FAILED")],
    "stored, but not as safely as was asked": [Outcome("m", "FLUSH_SLAVE_TIMEOUT")],
    "a send was tried again": [Tried("m", "p", "a", 0, 2)],
    "disk-full refusal": [UP, Hindered("a0", "disk-full"), Told("m", "a0", "REFUSED 14")],
    "a segment rolled during replication": [UP, LINK, Carried(1, 90, 10), Carried(1, 100, 10)],
    "two connections of one slave": [UP, LINK, Attached(2, "a0", "a1")],
    "a silent peer was dropped": [UP, LINK, Reported(1, 0, 0, 2), Detached(1, "a0", 22)],
    "a stranger was refused": [UP, Attached(1, "a0", "stranger"), Reported(1, 200, 100), Detached(1, "a0")],
    "an old master set its tail aside": [Cut("a0", 0, 10, b"x", b"x")],
    "a broker stopped because its disk failed": [UP, Hindered("a0", "sync-fails"), Gone("a0", "kill")],
    "a resumed process found a backlog": [UP, Paused("a0", 1), Resumed("a0", 5), Asked("m", "a0", at=5.01)],
    "two nodes fell": [UP, SLAVE, Gone("a0", "kill"), Gone("a1", "kill")],
    "a group was given a message again": [Given("c", "m", Q, "a", 0), Given("d", "m", Q, "a", 0)],
    "a slave was read from": [UP, SLAVE, pulled("a1")],
}
NO: dict[str, list[Event]] = {
    "a send was answered late": [Heard("m", "a0", "OK"), Outcome("m", "OK")],
    "an ack was lost after the write": [Told("m", "a0", "REFUSED 14"), Outcome("m", "UNKNOWN")],
    "disk-full refusal": [UP, Hindered("a0", "disk-full"), Eased(), Told("m", "a0", "REFUSED 14")],
    "a segment rolled during replication": [UP, LINK, Carried(1, 80, 10), Carried(1, 90, 10)],
    "two connections of one slave": [UP, LINK, Detached(1), Attached(2, "a0", "a1")],
    "a silent peer was dropped": [UP, LINK, Reported(1, 0, 0, 15), Detached(1, "a0", 22)],
    "a stranger was refused": [UP, LINK, Reported(1, 200, 100), Detached(1, "a0")],
    "an old master set its tail aside": [Cut("a0", 0, 10, b"x", None)],
    "a broker stopped because its disk failed": [UP, Hindered("a0", "sync-fails"), Done("kill a0"), Gone("a0", "kill")],
    "a resumed process found a backlog": [UP, Paused("a0", 1), Resumed("a0", 5), Asked("m", "a0", at=6)],
    "two nodes fell": [UP, Gone("a0", "kill"), UP, Gone("a0", "kill")],
    "a group was given a message again": [Given("c", "m", Q, "a", 0), Given("d", "m", Q, "a", 0, consumer_group="h")],
    "a slave was read from": [UP, SLAVE, pulled("a0")],
}


@pytest.mark.parametrize("name", YES)
def test_it_is_counted_when_it_came_about_and_only_then(name: str) -> None:
    assert came_about(History(tuple(YES[name])))[name] == 1
    assert not came_about(History(tuple(NO.get(name, ()))))[name]


def test_every_situation_of_the_shell_is_counted_here_or_by_its_player() -> None:
    by_the_player = {
        "a slave was promoted", "recovery cut a torn record", "unsynced bytes were at risk", "start refused",
        "a damaged record was given to nobody", *BY_HAND,
    }  # fmt: skip
    others = {name for name in (*SOMETIMES["shell"], *BY_HAND) if not name.endswith("a send was in flight")} - by_the_player
    assert others <= set(YES)


@pytest.mark.parametrize("level", SOMETIMES)
def test_what_never_came_about_is_named(level: str) -> None:
    some: dict[str, Any] = dict.fromkeys(SOMETIMES[level][1:], 3)
    assert never(level, some) == [SOMETIMES[level][0]]
    assert never(level, {**some, SOMETIMES[level][0]: 1}) == []
    assert ENOUGH[level] > 0
