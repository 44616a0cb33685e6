"""Seeded bugs for the cores on the heap: some of those that whole clusters are judged with, and others that only reach this level."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from chaos import mutants
from property.mutants import wrap
from trmq.chaos import heap_client, heap_master
from trmq.chaos.heap_slave import SlaveRole
from trmq.chaos.scenario import Flush, Mode
from trmq.client import retry
from trmq.client.retry import Verdict
from trmq.log import scan
from trmq.log.commit_log import CommitLog
from trmq.log.follower import Follower
from trmq.log.recovery import _Recovery
from trmq.replica import ack
from trmq.replica.ack import Holders

Patch = pytest.MonkeyPatch


@attrs.frozen
class HeapMutant:
    """`kills`: clauses (or rules of the checker), of which one must be broken; where to look, and among how many seeds at most."""

    name: str
    kills: tuple[str, ...]
    seed: Callable[[Patch], None]
    mode: Mode | None = None
    flush: Flush | None = None
    faults: tuple[str, ...] | None = None
    seeds: int = 300


MUTANTS: dict[str, HeapMutant] = {}


def mutant(*kills: str, **where: Any) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(seed: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[seed.__name__] = HeapMutant(seed.__name__, kills, seed, **where)
        return seed

    return register


for name, where in {
    "ack_before_report": {"mode": "sync-pair"}, "believes_any_report": {"mode": "sync-pair", "faults": ("stranger",)},
    "lowered_to_one": {"mode": "sync-pair"}, "gap_ignored": {"mode": "sync-pair", "seeds": 600},
    "slice_from_wrong_place": {"mode": "sync-pair"},
    "piece_crosses_segment": {"mode": "async-pair"}, "push_stops": {"mode": "async-pair"},
    "tail_is_dropped": {"mode": "async-pair", "seeds": 1500},
    "empty_slave_starts_late": {"mode": "async-pair", "faults": ("disk",)},
    "stays_with_the_failed": {"mode": "masters", "faults": ("disk-full", "link")},
    "queue_beyond_writable": {"mode": "masters"},
    "bad_ones_first": {"mode": "masters", "faults": ("pause", "cut"), "seeds": 600},
}.items():  # fmt: skip
    MUTANTS[name] = HeapMutant(name, mutants.MUTANTS[name].kills, mutants.MUTANTS[name].seed, **where)  # type: ignore[arg-type]


@mutant("P-HA-1", "P-HA-4", "P-LOSS-1", mode="async-pair", faults=("os-crash", "power"), seeds=600)
def longer_slave_accepted(patch: Patch) -> None:
    """A slave that has more than its master is served all the same (H6)."""
    patch.setattr(heap_master, "consent", lambda *args: "follow")
    mutants.believe(patch, lambda end, offset, max_phy: offset > max_phy and end.requested is None)


@mutant("P-ACK-9", mode="sync-pair")
def nobody_is_enough(patch: Patch) -> None:
    """With no slave connected nobody is waited for."""
    wrap(patch, Holders, "held", lambda original, self, need: original(self, need) if self.acks() else ack.EVERYTHING)
    patch.setattr(Holders, "connected", property(lambda self: 1))


@mutant("P-ACK-9", mode="sync-pair")
def waits_for_nobody(patch: Patch) -> None:
    """With no slave connected the timeout is waited out."""
    patch.setattr(Holders, "connected", property(lambda self: 1))


@mutant("P-HA-3", mode="sync-pair")
def report_before_write(patch: Patch) -> None:
    """A slave reports what arrived, and then writes it."""
    roles: list[SlaveRole] = []

    def take(original: Any, self: SlaveRole, data: bytes) -> None:
        roles[:] = [self]
        original(self, data)

    def append(original: Any, self: Follower, offset: int, records: Any) -> int:
        roles[0].say(offset + len(records))
        return int(original(self, offset, records))

    wrap(patch, SlaveRole, "take", take)
    wrap(patch, Follower, "append", append)


@mutant("P-HA-3", "P-ACK-8", mode="sync-pair", flush="sync")
def report_before_sync(patch: Patch) -> None:
    """Under SYNC_FLUSH a slave reports what is in the page cache (H4)."""

    def take(original: Any, self: SlaveRole, data: bytes) -> None:
        original(self, data)
        if self.feed is not None and self.log.max_phy > self.reported:
            self.reported = self.log.max_phy
            self.say(self.reported)

    wrap(patch, SlaveRole, "take", take)


@mutant("P-LOSS-1", "P-ACK-8", "P-HA-3", flush="sync", faults=("power", "os-crash"))
def flush_lies(patch: Patch) -> None:
    """A flush forgets the files that it should sync."""
    wrap(patch, CommitLog, "take_dirty", lambda original, self: original(self)[:0])


@mutant("P-HIS-3 (H3)", "P-HIS-6 (H6)", flush="async", faults=("power",), seeds=1500)
def recovery_keeps_torn(patch: Patch) -> None:
    """A record counts if its lengths add up, whatever its bytes are."""
    original = scan.parse_record

    def parse(view: Any, at: int, room: int, phy: int, *, check_body: bool = True) -> Any:
        return original(view, at, room, phy, check_body=False)

    patch.setattr(scan, "parse_record", parse)
    patch.setattr(scan.Scan, "_load_witnesses", lambda self, segment: self.__dict__.update(_witnessed={}, group_kept=[]))
    patch.setattr(scan.Scan, "_doubtful", lambda self, record: False)


@mutant("P-LOSS-1", "P-HA-3", "P-ACK-8", flush="sync", faults=("io-error", "power", "os-crash"), seeds=3000)
def recovery_trusts_the_cache(patch: Patch) -> None:
    """After a failed sync a restart believes what the page cache shows, and does not write it again (S15)."""
    patch.setattr(_Recovery, "_rewrite", lambda self, start, end: None)


@mutant("P-DUP-1")
def retries_after_success(patch: Patch) -> None:
    """Every other answer is not taken for a success, and the message is sent again."""
    verdicts = itertools.cycle((Verdict.STORED, Verdict.TRY_ANOTHER))
    patch.setattr(retry, "judge_send", lambda code: next(verdicts))


@mutant("P-Q-3", mode="masters", faults=("kill",), seeds=600)
def sends_once(patch: Patch) -> None:
    patch.setattr(heap_client, "TRIES", 1)
