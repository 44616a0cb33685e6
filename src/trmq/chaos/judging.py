"""What is asked of every run. What must have come about in the runs of one search: `sometimes`."""

from __future__ import annotations

from collections import Counter

import attrs
import specs
from specs.checker import check

from trmq.chaos.run import Run

assert specs.ack, "the pages register their clauses"

CORES: tuple[str, ...] = (
    "P-ACK-1", "P-ACK-2", "P-ACK-3", "P-ACK-4", "P-ACK-5", "P-ACK-6", "P-ACK-7", "P-ACK-8", "P-ACK-9", "P-ACK-R1",
    "P-HA-1", "P-HA-2", "P-HA-3", "P-HA-4", "P-HA-5", "P-HA-6", "P-HA-8", "P-HA-9",
    "P-LOSS-1", "P-LOSS-2", "P-DUP-1", "P-DUP-2", "P-Q-1", "P-Q-2", "P-Q-3",
)  # fmt: skip
"""The clauses whose words the heap writes. Routes, reads of slaves and tables need a shell; the rules of the checker are asked besides."""
CLUSTER = specs.CLUSTER
"""Of the whole shell all is asked."""
ALWAYS: tuple[str, ...] = ("P-LOSS-1", "P-LOSS-2", "P-ACK-1", "P-DUP-1", "P-HA-1")
"""Of these every seed is judged, where not every seed is judged by all."""

@attrs.define
class Judgement:
    """Of one run: witnesses per clause and per rule of the checker, and what was broken, as (id, witness)."""

    witnesses: Counter[str]
    violations: list[tuple[str, str]]
    lost: int


def judge(run: Run, ids: tuple[str, ...] = CORES) -> Judgement:
    """By these clauses, and by the ten rules."""
    verdict = run.judge(ids)
    report = check(run.history)
    witnesses = verdict.witnesses
    witnesses.update({f"check {rule}": count for rule, count in report.witnesses.items() if count})
    violations = [(id, str(witness)) for id, witness, _ in verdict.violations]
    violations += [(f"{found.clause} ({found.rule})", found.witness) for found in report.violations]
    return Judgement(witnesses, violations, report.lost)
