"""The history checker judged: bad histories that one rule must catch and no other, good ones that none may, and rules taken away.

A history is told in few words: one group "a" with the master "a0", one queue, messages m1, m2, ...
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from specs import checker, loss
from specs.checker import Checker, check
from specs.clause import REGISTRY, checks
from specs.history import (
    Asked,
    Attached,
    Carried,
    Committed,
    Drained,
    Event,
    Found,
    Given,
    Gone,
    Handled,
    Heard,
    History,
    LogSeen,
    OffsetTold,
    Outcome,
    Paused,
    QueueRead,
    Rebalanced,
    Resumed,
    Rotten,
    Said,
    Serving,
    Stored,
    Told,
    Tried,
)

from chaos.pair_scenarios import SCENARIOS

Q = ("T", 0)
EVENTS_PER_S = 200_000


def master(node: str = "a0", *, sync: bool = False, pair: bool = False) -> Serving:
    return Serving(node, "a", 0, "SYNC_MASTER" if pair else "ASYNC_MASTER", sync, 2 if pair else 1)


def slave(node: str = "a1", *, sync: bool = False) -> Serving:
    return Serving(node, "a", 1, "SLAVE", sync)


def sent(number: int, offset: int | None = None, *, status: str = "OK", node: str = "a0", at: float = 1.0, attempt: int = 1) -> list[Event]:
    """One attempt, and what every ear hears of it."""
    id, offset = f"m{number}", number - 1 if offset is None else offset
    return [
        Tried(id, "p", "a", 0, attempt, at=at), Asked(id, node, at=at), Told(id, node, status, offset, (offset + 1) * 100, at),
        Heard(id, node, status, at), Outcome(id, status, at, False, at, "a", Q, offset),
    ]  # fmt: skip


def seen(number: int, offset: int | None = None, *, status: str = "OK", at: float = 1.0) -> list[Event]:
    """The same, as a client alone sees it."""
    return [event for event in sent(number, offset, status=status, at=at) if isinstance(event, Tried | Outcome)]


def given(number: int, offset: int | None = None, *, to: str = "c", **options: Any) -> Given:
    return Given(to, f"m{number}", Q, "a", number - 1 if offset is None else offset, **options)


def failed(number: int) -> Handled:
    return Handled("c", "g", f"m{number}", Q, "a", number - 1, good=False)


def three() -> list[Event]:
    """Sent and given."""
    return [*seen(1), *seen(2), *seen(3), given(1), given(2), given(3)]


def read(*numbers: int, start: int = 0) -> QueueRead:
    return QueueRead(Q, "a", start, tuple(f"m{number}" for number in numbers))


def found(*numbers: int) -> Found:
    return Found(tuple(f"m{number}" for number in numbers))


def log(node: str, *records: tuple[int, int], moment: int = 1, data: bytes = b"") -> LogSeen:
    """`records`: (number, queue offset)."""
    stored = tuple(Stored(f"m{number}", Q, offset, at * 100, 100, 0) for at, (number, offset) in enumerate(records))
    return LogSeen(node, "a", moment, 0, data or bytes(100 * len(records)), stored)


def both_fall(*before: Event, attached: bool = True) -> list[Event]:
    """A synchronous pair loses power at both ends: the master after its answer, the slave `before`."""
    asked, told = sent(1)[:2], sent(1)[2:]
    link = [Attached(1, "a0", "a1")] if attached else []
    return [
        master(pair=True), slave(), *link, *asked, *before, *told, Gone("a0", "power", 1.1), master(pair=True), slave(), found(),
    ]  # fmt: skip


BAD: dict[str, tuple[str, list[Event]]] = {
    "lost though nothing happened": ("H1", [master(), *sent(1), *sent(2), found(1)]),
    "lost though only the process died": ("H1", [master(), *sent(1), Gone("a0", "kill"), master(), found()]),
    "lost though it was flushed": ("H1", [master(sync=True), *sent(1), Gone("a0", "power", 1.1), master(sync=True), found()]),
    "lost though flushed long ago": ("H1", [master(), *sent(1), Gone("a0", "power", 20), master(), found()]),
    "lost though the slave had it": (
        "H1", [master(pair=True), slave(), *sent(1), Gone("a0", "disk", 1.1), master("a1", pair=True), found()],
    ),
    "lost, and a fault of another group is no excuse": (
        "H1", [master(), Serving("b0", "b", 0, "ASYNC_MASTER", False), *sent(1), Gone("b0", "disk", 1.1), found()],
    ),
    "lost, and a fault before is no excuse": ("H1", [master(), Gone("a0", "disk"), master(), *sent(1), found()]),
    "lost, and the slave fell before it had written it": ("H1", both_fall(Said(1, 0, 0, 0, 0.8), Gone("a1", "power", 0.9))),
    "lost, and the slave that fell had reported what it had not written": (
        "H1", both_fall(Said(1, 100, 0, 0, 0.8), Gone("a1", "power", 0.9)),
    ),
    "lost, and only the process of the slave died": ("H1", both_fall(Said(1, 100, 100, 0, 0.8), Gone("a1", "kill", 0.9))),
    "lost, and the slave wrote it again after it fell": (
        "H1", both_fall(
            Said(1, 100, 100, 0, 0.7), Gone("a1", "power", 0.8), slave(), Attached(2, "a0", "a1"), Said(2, 100, 100, 0, 0.9),
        ),
    ),
    "lost, and the slave had flushed it long before it fell": (
        "H1", both_fall(Said(1, 100, 100, 0, -20.0), Said(1, 100, 100, 0, 0.8), Gone("a1", "power", 0.9)),
    ),
    "lost, and the slave that fell flushes what it reports": (
        "H1", both_fall(slave(sync=True), Said(1, 100, 100, 100, 0.8), Gone("a1", "power", 0.9)),
    ),
    "lost, and another slave had it": (
        "H1", both_fall(
            slave("a2"), Attached(2, "a0", "a2"), Said(1, 100, 100, 0, 0.8), Said(2, 100, 100, 0, 0.8), Gone("a1", "power", 0.9),
        ),
    ),
    "lost, and what fell is a slave of the master's life before": (
        "H1", both_fall(Said(1, 100, 100, 0, 0.8), master(pair=True), Gone("a1", "power", 0.9)),
    ),
    "lost, and the slave fell, but the master did not": (
        "H1", [event for event in both_fall(Said(1, 100, 100, 0, 0.8), Gone("a1", "power", 0.9)) if event != Gone("a0", "power", 1.1)],
    ),
    "lost, and the slave's machine alone was lost": (
        "H1", [
            Gone("a0", "kill", 1.1) if event == Gone("a0", "power", 1.1) else event
            for event in both_fall(Said(1, 100, 100, 0, 0.8), Gone("a1", "machine", 0.9))
        ],
    ),
    "lost, as a client sees it": ("H1", [*seen(1), *seen(2), read(1)]),
    "the newest of many lost, the oldest flushed": (
        "H1", [master(), *sent(1, at=1), *sent(2, at=15), Gone("a0", "power", 16), master(), found()],
    ),
    "another message at the acknowledged place": ("H2", [*seen(1), *seen(2), read(2, 1)]),
    "another message at the place, in the log": ("H2", [master(), *sent(1), *sent(2), log("a0", (2, 0), (1, 1)), found(1, 2)]),
    "two messages acknowledged at one place": ("H2", [Tried("m1", "p", "a", 0), Tried("m2", "p", "a", 0), *seen(1)[1:], *seen(2, 0)[1:]]),
    "read what nobody sent": ("H3", [*seen(1), read(1, 9)]),
    "given what nobody sent": ("H3", [given(9, 0)]),
    "given before it was sent": ("H3", [given(1), *seen(1), read(1)]),
    "stored what nobody sent": ("H3", [master(), *sent(1), log("a0", (1, 0), (9, 1)), found(1)]),
    "failed for certain, and there": ("H3", [Tried("m1", "p", "a", 0), Outcome("m1", "FAILED"), read(1)]),
    "a phantom twice is no duplicate": ("H3", [*seen(1), read(1, 9, 9)]),
    "more copies than attempts": ("H4", [*seen(1), read(1, 1)]),
    "sent again after success": ("H4", [*seen(1), *seen(1, 1), read(1, 1)]),
    "sent again after success without a promise": ("H4", [*seen(1, status="FLUSH_SLAVE_TIMEOUT"), Tried("m1", "p", "a", 0, 2)]),
    "two copies in one log, one attempt": ("H4", [master(), *sent(1), log("a0", (1, 0), (1, 1)), found(1)]),
    "another message where one was read": ("H5", [Tried("m1", "p", "a", 0), Tried("m2", "p", "a", 0), given(1), read(2)]),
    "another message, and only the process died": (
        "H5", [master(), Tried("m1", "p", "a", 0), Tried("m2", "p", "a", 0), given(1), Gone("a0", "kill"), master(), read(2)],
    ),
    "another message, and the log that rotted has no other bytes for it": (
        "H5", [master(), Tried("m1", "p", "a", 0), Tried("m2", "p", "a", 0), Rotten("a0"), given(1), read(2)],
    ),
    "a hole in a queue": ("H6", [master(), *sent(1), *sent(2), log("a0", (1, 0), (2, 2))]),
    "one offset twice": ("H6", [master(), *sent(1), *sent(2), log("a0", (1, 0), (2, 0))]),
    "a group skips, and what rotted is another group's": (
        "H6", [Serving("b0", "b", 0, "ASYNC_MASTER", True), Rotten("b0"), *seen(1), *seen(2), *seen(3), given(1), given(3)],
    ),
    "a group skips": ("H6", [*seen(1), *seen(2), *seen(3), given(1), given(3)]),
    "stored before what was acknowledged before it was sent": ("H7", [*seen(1, 5), *seen(2, 3)]),
    "the same, with the ears at the broker": ("H7", [master(), *sent(1, 5), *sent(2, 3)]),
    "given in the wrong order": ("H7", [*seen(1), *seen(2), given(2), given(1)]),
    "duplicates in the wrong order": ("H7", [*seen(1), *seen(2), *seen(3), given(1), given(2), given(3), given(1), given(3)]),
    "what did not fail is tried again out of its turn": ("H7", [*three(), failed(2), given(1), given(3)]),
    "another member tries again what one failed with": ("H7", [*three(), failed(1), given(1, to="d"), given(3, to="d")]),
    "what failed once is tried again twice": ("H7", [*three(), failed(1), given(1), given(1), given(3)]),
    "what failed before the queue went and came": (
        "H7", [*three(), failed(1), OffsetTold("c", "a0", "g", "a", Q, 0), given(1), given(3)],
    ),
    "what had failed and was committed": ("H8", [*three(), failed(1), Committed("g", "a", Q, 3), given(1)]),
    "never given": ("H8", [*seen(1), *seen(2), given(1), Drained("g"), read(1, 2)]),
    "never given, and everything is read": ("H8", [master(), *sent(1), *sent(2), given(1), Drained("g"), found(1, 2)]),
    "never given, behind what was lost": (
        "H8", [
            master(), *sent(1), given(1), Gone("a0", "power", 1.1), master(), *sent(2, 0), *sent(3, 1), Drained("g"),
            log("a0", (2, 0), (3, 1)), found(2, 3),
        ],
    ),
    "never given to the second group": ("H8", [*seen(1), given(1), Drained("g"), Drained("h"), read(1)]),
    "again though it was committed": ("H8", [*seen(1), given(1), Committed("g", "a", Q, 1), given(1)]),
    "again, and the member had committed it itself": (
        "H8", [
            *seen(1), *seen(2), OffsetTold("c", "a0", "g", "a", Q, 0), given(1), given(2), Committed("g", "a", Q, 2, 0, "c"), given(1),
        ],
    ),
    "a slave acknowledges": ("H9", [master(), slave(), Tried("m1", "p", "a", 0), Told("m1", "a1", "OK", 0, 100)]),
    "a replaced master acknowledges": ("H9", [master(), Paused("a0"), master("a1"), Resumed("a0"), *sent(1)]),
    "a dead master acknowledges": ("H9", [master(), Gone("a0", "kill"), *sent(1)]),
    "a replaced master acknowledges, as a client sees it": (
        "H9", [master(), Paused("a0"), master("a1"), Resumed("a0"), Tried("m1", "p", "a", 0), Heard("m1", "a0", "OK")],
    ),
    "a slave's log differs": (
        "H10",
        [master(), slave(), Attached(1, "a0", "a1"), Carried(1, 0, 100), *sent(1), log("a0", (1, 0)), log("a1", (1, 0), data=b"x" * 100)],
    ),
}  # fmt: skip
"""What is wrong -> the rule that must see it, and no other may; the history."""

GOOD: dict[str, list[Event]] = {
    "nothing at all": [],
    "all is well": [master(), *sent(1), *sent(2), given(1), given(2), Drained("g"), log("a0", (1, 0), (2, 1)), found(1, 2)],
    "all is well, as a client sees it": [*seen(1), *seen(2), given(1), given(2), Drained("g"), read(1, 2)],
    "sent on after the group rested": [*seen(1), given(1), Drained("g"), *seen(2), read(1, 2)],
    "not flushed, and the power goes": [master(), *sent(1), Gone("a0", "power", 1.1), master(), found()],
    "the disk is destroyed": [master(sync=True), *sent(1), Gone("a0", "disk", 20), master(sync=True), found()],
    "the slave had not got it": [master(), slave(), *sent(1), Gone("a0", "kill"), master("a1"), found()],
    "both lose power": [
        master(pair=True), slave(), *sent(1), Gone("a0", "power", 1.1), Gone("a1", "power", 1.2), master(pair=True), slave(), found(),
    ],
    "both lose power, the slave just before the answer": both_fall(Said(1, 100, 100, 0, 0.8), Gone("a1", "power", 0.9)),
    "the same, and it was written before the master knew who reports": both_fall(
        Said(1, 100, 100, 0, 0.8), Gone("a1", "power", 0.9), Attached(1, "a0", "a1"), attached=False
    ),
    "the slave's log rots just before the answer": both_fall(Said(1, 100, 100, 0, 0.8), Rotten("a1", 0.9)),
    "a slave whose log rotted before falls just before the answer": both_fall(
        Rotten("a1", 0.7), Said(1, 100, 100, 0, 0.8), Gone("a1", "kill", 0.9)
    ),
    "of three, the one that had it falls just before the answer": both_fall(
        slave("a2"), Attached(2, "a0", "a2"), Said(1, 100, 100, 0, 0.8), Said(2, 0, 0, 0, 0.8), Gone("a1", "power", 0.9),
    ),
    "stood still before its flush": [master(), *sent(1), Paused("a0", 1.1), Resumed("a0", 30), Gone("a0", "power", 31), master(), found()],
    "the id of a record has rotted": [master(sync=True), *sent(1), Rotten("a0", 5), given(9, 0), log("a0", (1, 0)), found(1)],
    "a group passes over what has rotted": [
        master(sync=True), *sent(1), *sent(2), *sent(3), Rotten("a0", 5), given(1), given(3), Drained("g"), found(1, 3),
    ],
    "its log rotted": [master(sync=True), *sent(1), Rotten("a0", 5), found()],
    "of two, the newer is lost": [master(), *sent(1, at=1), *sent(2, at=15), Gone("a0", "power", 16), master(), found(1)],
    "did not want to be waited for": [
        master(pair=True, sync=True), slave(), Tried("m1", "p", "a", 0), Asked("m1", "a0", wait=False), Told("m1", "a0", "OK", 0, 100, 1),
        Gone("a0", "power", 1.1), master(pair=True, sync=True), found(),
    ],
    "late answers promise nothing": [master(), *sent(1, status="FLUSH_DISK_TIMEOUT"), *sent(2, status="FLUSH_SLAVE_TIMEOUT"), found()],
    "a second copy after a lost answer": [Tried("m1", "p", "a", 0), *seen(1, 1), read(1, 1)],
    "the answer to the first attempt comes after the second": [
        Tried("m1", "p", "a", 0), *seen(2, 1), Tried("m1", "p", "a", 0, 2), *seen(1, 0)[1:], read(1, 2),
    ],
    "unknown, and there; failed, and not there": [
        Tried("m1", "p", "a", 0), Outcome("m1", "UNKNOWN"), Tried("m2", "p", "a", 0), Outcome("m2", "FAILED"), read(1),
    ],
    "what was lost makes room": [
        master(), *sent(1), given(1), Gone("a0", "power", 1.1), master(), *sent(2, 0), given(2, 0), log("a0", (2, 0)), found(2),
    ],
    "it makes room in a new master's log": [
        master(), *sent(1), *sent(2), Gone("a0", "kill"), master("a1"), *sent(3, 0, node="a1"), found(3),
    ],
    "a group stands behind what was stored after a loss": [
        master(), *sent(1), *sent(2), given(1), given(2), Gone("a0", "power", 1.1), master(), *sent(3, 0), *sent(4, 1), Drained("g"),
        log("a0", (3, 0), (4, 1)), found(3, 4),
    ],
    "retention took the beginning": [*seen(1), *seen(2), *seen(3), read(2, 3, start=1)],
    "again from the last commit, in order": [*seen(1), *seen(2), given(1), given(2), Gone("a0", "kill"), given(1), given(2)],
    "again after a rebalance": [*seen(1), given(1), Committed("g", "a", Q, 1), Rebalanced("g"), given(1)],
    "again, as a slave that was behind told the new member": [
        *seen(1), given(1), OffsetTold("d", "a1", "g", "a", Q, 0), Committed("g", "a", Q, 1, 0, "c"), Given("d", "m1", Q, "a", 0),
    ],
    "again, to a member that had taken the queue before the last one committed": [
        *seen(1), given(1), OffsetTold("d", "a0", "g", "a", Q, 0), Committed("g", "a", Q, 1, 0, "c"), Committed("g", "a", Q, 0, 0, "d"),
        Committed("g", "a", Q, 1, 0, "c"), Given("d", "m1", Q, "a", 0),
    ],
    "handed out after a loss of power, and pulled before": [
        master(), Tried("m1", "p", "a", 0), Gone("a0", "power"), given(1), master(), *seen(2, 0), Given("d", "m2", Q, "a", 0), read(2),
    ],
    "two consumers overlap": [
        *seen(1), *seen(2), *seen(3), *seen(4), given(1), given(2), given(3), given(2), given(4), given(3), given(4),
    ],
    "what failed is tried again alone": [*three(), failed(1), failed(3), given(1), given(3), failed(3), given(3), *seen(4), given(4)],
    "two groups": [*seen(1), *seen(2), given(1), given(1, consumer_group="h"), given(2, consumer_group="h"), given(2)],
    "the old master is back as a slave": [master(), Gone("a0", "kill"), master("a1"), slave("a0"), *sent(1, node="a1"), found(1)],
    "back and forth": [master(), *sent(1), master("a1"), master("a0"), *sent(2, 0), found(2)],
    "sent before the old master was replaced": [
        master(), Tried("m1", "p", "a", 0), Told("m1", "a0", "OK", 0, 100), master("a1"), Heard("m1", "a0", "OK"), found(),
    ],
    "a retried message of a topic of the broker's own": [
        master(), *sent(1),
        LogSeen("a0", "a", 1, 0, bytes(200), (Stored("m1", Q, 0, 0, 100, 0), Stored("m1", ("%RETRY%g", 0), 0, 100, 100, 0))),
    ],
    "a slave that is not served any more": [master(), slave(), *sent(1), log("a0", (1, 0)), log("a1", (1, 0), data=b"x" * 100), found(1)],
}  # fmt: skip


def broken(events: list[Event]) -> list[str]:
    return check(History(tuple(events))).broken()


@checks("P-HIS-2", "P-HIS-3", "P-HIS-5", "P-HIS-6", "P-HIS-7", "P-HIS-8", "P-HIS-9", "P-LOSS-1", "P-DUP-1", "P-HA-1")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_caught_by_its_rule_and_no_other(name: str) -> None:
    rule, events = BAD[name]
    report = check(History(tuple(events)))
    assert report.broken() == [rule], report.violations
    for violation in report.violations:
        assert violation.clause in REGISTRY
        assert report.witnesses[rule] >= 1
        assert violation.witness


@pytest.mark.parametrize("name", [*BAD, *GOOD])
def test_the_clause_of_loss_says_what_the_first_rule_says(name: str) -> None:
    """Both ask the same model, one in a pass of its own."""
    events = BAD[name][1] if name in BAD else GOOD[name]
    history = History(tuple(events))
    if any(True for _ in history.all(Found)):
        lost = [told.id for told, held in REGISTRY["P-LOSS-1"].check(history) if not held]
        assert len(lost) == sum(violation.rule == "H1" for violation in check(history).violations)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_let_pass(name: str) -> None:
    report = check(History(tuple(GOOD[name])))
    assert not report.violations


def test_every_rule_has_a_bad_history_and_a_clause() -> None:
    assert {rule for rule, _ in BAD.values()} == set(checker.CLAUSES)
    assert set(checker.CLAUSES.values()) <= set(REGISTRY)


def weaken(name: str, change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(Checker, name)
        monkeypatch.setattr(Checker, name, lambda self, *args, **more: change(original, self, *args, **more))

    return patch


def without(rule: str) -> Callable[[pytest.MonkeyPatch], None]:
    """The rule sees its occasions and never minds."""
    return weaken("broken", lambda original, self, name, witness: None if name == rule else original(self, name, witness))


def nothing(original: Any, self: Checker, *args: Any) -> None: ...


def stranger_is_known(original: Any, self: Checker, id: str, *where: Any) -> None:
    """The common shortcut: an id that nobody sent counts as a copy of something."""
    self.attempts.setdefault(id, 1)
    original(self, id, *where)


def forgetful(original: Any, self: Checker, event: Given) -> None:
    """Orders are compared by subsequence: a step back starts anew."""
    for line in self.queue(event.group, event.queue).lines.values():
        line.last = max(line.last, event.queue_offset - 1)
        line.first = min(line.first, event.queue_offset)
    original(self, event)


def pass_all_ears(original: Any, self: Checker, event: Outcome) -> None:
    """A client's own view is not listened to."""
    self.debts.setdefault((event.id, event.group), (checker.Cohort(None, 0), 0.0))  # type: ignore[arg-type]
    original(self, event)


CHECKER_MUTANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    **{f"without_{rule}": without(rule) for rule in checker.CLAUSES},
    "everything_is_excused": lambda patch: patch.setattr(checker, "promise", lambda debt, faults: False),
    "nothing_is_excused": lambda patch: patch.setattr(checker, "promise", lambda debt, faults: True),
    "places_are_always_excused": lambda patch: patch.setattr(Checker, "excused", lambda *args, **more: True),
    "places_are_never_excused": lambda patch: patch.setattr(Checker, "excused", lambda *args, **more: False),
    "phantoms_are_duplicates": weaken("known", stranger_is_known),
    "order_by_subsequence": weaken("given", forgetful),
    "client_is_not_heard": weaken("outcome", pass_all_ears),
    "late_is_promised": lambda patch: patch.setattr(checker, "GOOD", frozenset({"OK"})),
    "asks_are_not_read": weaken("asked", nothing),
    "pauses_are_not_read": weaken("struck", lambda original, self, event: isinstance(event, Paused | Resumed) or original(self, event)),
    "rot_is_not_read": weaken("struck", lambda original, self, event: isinstance(event, Rotten) or original(self, event)),
    "all_have_one_fate": lambda patch: patch.setattr(
        checker.Cohort, "standing", lambda self, faults: len(self.ids) * self.stands(self.times[-1], faults)
    ),
    "faults_before_count": lambda patch: patch.setattr(checker.Cohort, "stands", _from_the_first),
    "faults_before_the_write_count": lambda patch: patch.setattr(loss.Copies, "of", _whatever_was_written),
    "faults_before_the_answer_never_count": lambda patch: patch.setattr(loss.Copies, "of", lambda self, told: {}),
    "reports_are_believed": weaken("said", lambda original, self, event: original(self, replace(event, held=event.offset))),
    "what_is_written_again_stays_lost": lambda patch: patch.setattr(loss, "_gone", _once_lost),
    "copies_are_never_flushed": lambda patch: patch.setattr(loss, "_gone", _never_flushed),
    "other_copies_do_not_count": lambda patch: patch.setattr(checker, "spoken", _no_other_counts),
    "deaths_of_slaves_take_all": lambda patch: patch.setattr(loss, "TAKES_CACHE", loss.TAKES_CACHE | {"kill"}),
    "replaced_masters_are_forgotten": weaken("serves", lambda original, self, event: (self.masters.clear(), original(self, event))),
    "deaths_are_not_read": weaken("gone", nothing),
    "passed_by_number": lambda patch: patch.setattr(
        Checker, "_passed", lambda self, id, who: any(who in queue.lines for queue, _ in self.places.get(id, ()))
    ),
    "logs_are_not_read": weaken("log_seen", nothing),
    "rest_is_not_ended_by_a_send": weaken("tried", lambda original, self, event: _keeping_rests(original, self, event)),
    "expired_is_lost": lambda patch: patch.setattr(Checker, "_expired", lambda *args: False),
    "commits_are_not_read": weaken("committed", nothing),
    "told_offsets_are_not_read": weaken("offset_told", nothing),
    "told_offsets_never_end": lambda patch: patch.setattr(checker.Queue, "__init__", _told_for_ever),
    "failures_are_not_read": weaken("handled", nothing),
    "whoever_failed": weaken("given", lambda original, self, event: (_as_if_it_had_failed(self, event), original(self, event))),
    "failures_never_end": lambda patch: patch.setattr(checker.Line, "asked_again", nothing),
    "rebalances_are_not_read": weaken("rebalanced", nothing),
    "last_attempt_decides": weaken("tried", lambda original, self, event: (self.tries.clear(), original(self, event))),
    "own_topics_count": lambda patch: patch.setattr(checker, "INSIDE", ("?",)),
}


GONE = loss._gone


def _whatever_was_written(self: loss.Copies, told: Told) -> dict[str, list[loss.Word]]:
    slaves = {self.slaves[session] for session in self.links.get(told.node, ())}
    return {slave: [(0, 0.0, None), *((when, fault.at, fault) for when, fault in self.faults.get(slave, ()))] for slave in slaves}


def _once_lost(debt: loss.Owed, slave: str, words: list[loss.Word]) -> bool:
    return GONE(debt, slave, [min(words, key=lambda word: word[0]), *(word for word in words if word[2] is not None)])


def _never_flushed(debt: loss.Owed, slave: str, words: list[loss.Word]) -> bool:
    return GONE(debt, slave, [(when, float("inf") if fault is None else at, fault) for when, at, fault in words])


def _no_other_counts(told: Told, server: Serving, waited: bool, slaves: Any, copies: Any = None) -> loss.Owed:
    debt = loss.spoken(told, server, waited, slaves, copies)
    debt.slaves_gone |= {slave for slave, words in (copies or {}).items() if GONE(debt, slave, words)}
    return debt


def _told_for_ever(self: checker.Queue, group: str, name: Any) -> None:
    class Forever(dict[Any, int]):
        def __setitem__(self, key: Any, offset: Any) -> None:
            self.setdefault(key, offset)

    QUEUE_INIT(self, group, name)
    self.told = Forever()


def _as_if_it_had_failed(self: Checker, event: Given) -> None:
    """Who failed with it does not matter."""
    line = self.queue(event.group, event.queue).lines.get(event.consumer_group)
    if line is not None and any(offset == event.queue_offset for _, offset in line.failed):
        line.failed.add((event.consumer, event.queue_offset))


QUEUE_INIT = checker.Queue.__init__


def _from_the_first(self: checker.Cohort, at: float, faults: Any) -> bool:
    return checker.promise(self.at(at), faults)


def _keeping_rests(original: Any, self: Checker, event: Tried) -> None:
    rested = list(self.rested)
    original(self, event)
    self.rested = rested


@pytest.mark.parametrize("name", CHECKER_MUTANTS)
def test_a_rule_that_is_taken_away_or_weakened_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above are the baseline."""
    CHECKER_MUTANTS[name](monkeypatch)
    wrong = [bad for bad, (rule, events) in BAD.items() if broken(events) != [rule]]
    wrong += [good for good, events in GOOD.items() if broken(events)]
    assert wrong, f"{name}: no history notices"
    if name.startswith("without_"):
        assert all(BAD[bad][0] == name.removeprefix("without_") for bad in wrong)
    print(f"{name}: noticed by {wrong}")


def test_the_checker_agrees_with_the_clauses_on_every_story() -> None:
    """H1 and H4 are told twice, once in one pass and once as clauses: they must not differ."""
    judged = 0
    for story in ("dual_write", "asynchronous_pair", "ack_is_lost", "power_goes", "switched_by_hand", "a_master_dies_and_returns"):
        for history in SCENARIOS[story]("agree", False):
            report = check(history)
            assert not report.violations, report.violations
            owed = list(REGISTRY["P-LOSS-1"].check(history))
            assert report.owed == len(owed) == report.witnesses["H1"]
            assert report.lost == sum(1 for _ in REGISTRY["P-LOSS-2"].check(history))
            judged += len(owed)
    assert judged > 100


def long_history(messages: int, queues: int = 8, faults: int = 40) -> Iterator[Event]:
    """Two groups, one of which loses power now and then and what was not flushed with it; a consumer; final reads."""
    names = [(group, ("T", queue)) for group in "ab" for queue in range(queues)]
    logs: dict[Any, list[str]] = {name: [] for name in names}
    read_to: dict[Any, int] = dict.fromkeys(names, 0)
    yield Serving("a0", "a", 0, "ASYNC_MASTER", True)
    yield Serving("b0", "b", 0, "ASYNC_MASTER", False)
    for number in range(messages):
        at, name = number / 100, names[number % len(names)]
        group, queue = name
        id, node, offset = f"m{number}", f"{group}0", len(logs[name])
        logs[name].append(id)
        yield Tried(id, "p", group, queue[1], at=at)
        yield Told(id, node, "OK", offset, number, at)
        yield Outcome(id, "OK", at, False, at, group, queue, offset)
        yield Given("c", id, queue, group, offset, at)
        read_to[name] = offset + 1
        if number % (messages // faults) == 0:
            yield Gone("b0", "power", at)
            for queue in [queue for group, queue in names if group == "b"]:
                del logs["b", queue][max(0, len(logs["b", queue]) - 3) :]
            yield Serving("b0", "b", 0, "ASYNC_MASTER", False, at=at)
    for group, queue in names:
        yield QueueRead(queue, group, 0, tuple(logs[group, queue]))


def test_a_hundred_thousand_messages_are_judged_in_one_pass(profile: str) -> None:
    """How fast is printed; that it is linear is shown by ten times the faults costing about the same number of questions."""
    history = History(tuple(long_history(120_000)))
    began = time.perf_counter()
    report = check(history)
    speed = len(history.events) / (time.perf_counter() - began)
    assert not report.violations, report.violations[:3]
    assert report.owed == 120_000
    assert 0 < report.lost < 2000
    print(f"{len(history.events)} events, {report.lost} lost and excused: {speed:,.0f} events/s")
    if profile == "long":
        assert speed >= EVENTS_PER_S


def test_the_table_of_promises_is_asked_a_number_of_times_that_does_not_grow_with_the_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = checker.promise
    monkeypatch.setattr(checker, "promise", lambda debt, faults: (asked.append(1), original(debt, faults))[1])
    counts = []
    for messages in (2_000, 20_000):
        asked.clear()
        check(History(tuple(long_history(messages))))
        counts.append(len(asked))
    assert counts[1] < 2 * counts[0], f"{counts}: bisection, not a question for each message"
