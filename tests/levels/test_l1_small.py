"""L1: every order of steps in a small scope, over the shipped replication cores. The seeded bugs are found with their shortest schedules,
whose lengths are written down: a longer one means that a step has become dearer, or that the search no longer goes level by level.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import pytest

from levels import runs
from trmq.chaos.small import Scope, explore
from trmq.replica import ack, transfer
from trmq.replica.transfer import MasterEnd

SCOPES = {
    "pair": Scope(records=3, tails=1, promotions=1, stales=1, strangers=True),
    "two slaves, two needed": Scope(slaves=2, records=2, tails=1, promotions=1, stales=0, in_flight_max=1),
    "two slaves, three needed, unannounced": Scope(slaves=2, records=1, need=3, tails=0, promotions=0, stales=2, announced=False),
}
LONG = {
    "pair": Scope(records=4, tails=2, promotions=2, stales=2),
    "two slaves, two needed": Scope(slaves=2, records=3, tails=1, promotions=1, stales=1),
    "two slaves, three needed, unannounced": Scope(
        slaves=2, records=2, need=3, tails=0, promotions=0, stales=2, announced=False, in_flight_max=1,
    ),
    "asynchronous": Scope(need=1, records=4, tails=2, promotions=2, stales=1),
}
SOMETIMES = {"acknowledged", "promoted with all that was acknowledged", "put aside", "longer slave", "refused"}


def test_everything_holds_in_every_state(profile: str) -> None:
    figures, seen = {}, set()
    for name, scope in (LONG if profile == "long" else SCOPES).items():
        began = time.perf_counter()
        found = explore(scope)
        spent = time.perf_counter() - began
        print(f"L1, {name}: {found}, {spent:.1f} s, {found.states / spent:,.0f} states/s, {scope}")
        assert found.schedule is None, str(found)
        seen |= set(found.seen)
        figures[name] = {"states": found.states, "transitions": found.transitions, "depth": found.depth, "wall_s": round(spent, 1),
                         "seen": dict(sorted(found.seen.items())), **attrs.asdict(scope)}  # fmt: skip
    assert seen >= SOMETIMES, f"never seen: {SOMETIMES - seen}"
    if profile == "long":
        runs.write("l1", scopes=figures, states=sum(int(str(entry["states"])) for entry in figures.values()),
                   transitions=sum(int(str(entry["transitions"])) for entry in figures.values()))  # fmt: skip


def longer_slave_accepted(patch: pytest.MonkeyPatch) -> None:
    def report(self: MasterEnd, offset: int, max_phy: int) -> None:
        self.acked = offset
        self.requested = offset if self.requested is None else self.requested

    patch.setattr(MasterEnd, "_report", report)


def counted_when_sent(patch: pytest.MonkeyPatch) -> None:
    shipped = MasterEnd.receive

    def receive(self: MasterEnd, data: bytes, max_phy: int) -> bool:
        said = shipped(self, data, max_phy)
        self.acked = max(self.acked, self.next_offset)
        return said

    patch.setattr(MasterEnd, "receive", receive)


def whoever_connects_has_all(patch: pytest.MonkeyPatch) -> None:
    shipped = MasterEnd.receive

    def receive(self: MasterEnd, data: bytes, max_phy: int) -> bool:
        said = shipped(self, data, max_phy)
        self.acked = max_phy
        return said

    patch.setattr(MasterEnd, "receive", receive)


def two_connections_count_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ack, "counted", lambda acks, allowed: acks)


def one_too_few(patch: pytest.MonkeyPatch) -> None:
    shipped = ack.held
    patch.setattr(ack, "held", lambda acks, need: shipped(acks, need - 1))


def begins_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """A slave that has something is not sent what it missed while it was away; it is told that nothing is missing."""
    patch.setattr(transfer, "beginning", lambda requested, min_phy, max_phy, *_: max_phy)
    patch.setattr(transfer.SlaveEnd, "_begin_frame", lambda self, offset, length, gathered: setattr(self, "_body_left", length))
    patch.setattr(transfer.SlaveEnd, "_whole", lambda self, run: len(run))


BUGS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Scope, int, str]] = {
    "believes a stranger": (longer_slave_accepted, Scope(strangers=True), 1, "a report beyond the end of the log counts"),
    "accepts a longer slave": (longer_slave_accepted, Scope(), 7, "a report beyond the end of the log counts"),
    "counts what was sent": (counted_when_sent, Scope(), 8, "is acknowledged, and 0 slaves"),
    "whoever connects has all": (whoever_connects_has_all, Scope(), 3, "is acknowledged, and 0 slaves"),
    "two connections count twice": (
        two_connections_count_twice, Scope(slaves=2, records=1, need=3, tails=0, promotions=0, announced=False), 9, "and 1 slaves",
    ),
    "one too few": (one_too_few, Scope(slaves=2, records=1, need=3, tails=0, promotions=0, stales=0), 6, "and 1 slaves"),
    "begins at the end": (begins_at_the_end, Scope(), 6, "is served and has"),
}  # fmt: skip


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_is_found_by_its_shortest_schedule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, scope, steps, broken = BUGS[name]
    patch(monkeypatch)
    found = explore(scope)
    print(f"{name}: {found}")
    assert found.schedule is not None, f"{name} is not found in {found.states} states"
    assert broken in found.broken
    assert len(found.schedule) == steps, found.schedule
