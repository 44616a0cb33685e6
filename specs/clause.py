"""The registry of clauses: a sentence with an id, its source, and a check over a history that yields its witnesses.

A clause function takes a `History` and yields `(witness, held)` for each occasion on which the sentence said something.
No witness means "held because nothing happened", which is counted and shown instead of passing for a proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .history import History

Check = Callable[[History], Iterator[tuple[Any, bool]]]


@dataclass(frozen=True)
class Clause:
    """One promise. `kind` is must (safety), eventually (liveness, checked at the end of a run) or may (reachable)."""

    id: str
    says: str
    source: str
    check: Check
    kind: str = "must"
    mutants: tuple[str, ...] = ()
    """Seeded bugs that this clause is known to catch."""
    upstream: str = "holds"
    """What Apache RocketMQ 5.4.0 does: holds, or how it breaks the promise."""


REGISTRY: dict[str, Clause] = {}


def clause(
    id: str, says: str, *, source: str, kind: str = "must", mutants: tuple[str, ...] = (), upstream: str = "holds"
) -> Callable[[Check], Check]:
    """Register the decorated check under `id`."""

    def register(check: Check) -> Check:
        assert id not in REGISTRY, f"clause {id} exists twice"
        REGISTRY[id] = Clause(id, says, source, check, kind, mutants, upstream)
        return check

    return register


@dataclass
class Verdict:
    """What judging histories gave: witnesses per clause and every violation as (clause id, witness)."""

    witnesses: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[str, Any]] = field(default_factory=list)

    def judge(self, history: History, ids: list[str] | None = None) -> Verdict:
        for name in ids or list(REGISTRY):
            for witness, held in REGISTRY[name].check(history):
                self.witnesses[name] += 1
                if not held:
                    self.violations.append((name, witness))
        return self
