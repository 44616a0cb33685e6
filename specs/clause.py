"""The registry of clauses: a sentence with an id, its source, and a check over a history that yields its witnesses.

A clause function takes a `History` and yields `(witness, held)` for each occasion on which the sentence said something.
No witness means "held because nothing happened", which is counted and shown instead of passing for a proof.

Three kinds: *must* (in every history), *eventually* (within the time the sentence names), and *may*: something that can happen and that
nothing here forbids. A `may` clause is made with `reachable`; it cannot be broken, but a history that shows it is kept
(`tests/chaos/kept/`), so that "duplicates are possible" is as much a tested statement as "none is lost".

A test says which clauses it judges with `@checks("P-LOG-1")`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from .history import History

Check = Callable[[History], Iterator[tuple[Any, bool]]]
Sighting = Callable[[History], Iterator[Any]]
F = TypeVar("F", bound=Callable[..., Any])

MODES = ("single", "masters", "async-pair", "sync-pair")
"""Deployments: one master; several without slaves; a master with a slave, replicated asynchronously or synchronously."""
PAIRS = ("async-pair", "sync-pair")
SYNC_PAIR = ("sync-pair",)
KINDS = ("must", "eventually", "may")
STOPS = ("close", "kill", "os-crash", "power")
"""Faults after which a node starts again with what its disk still has."""


@dataclass(frozen=True)
class Clause:
    """One sentence. `kind` is must (safety), eventually (liveness, with its bound in the sentence) or may (can happen)."""

    id: str
    says: str
    source: str
    check: Check
    kind: str = "must"
    mutants: tuple[str, ...] = ()
    """Seeded bugs that this clause is known to catch."""
    upstream: str = "holds"
    """What Apache RocketMQ 5.4.0 does: holds, or how it breaks the promise."""
    modes: tuple[str, ...] = MODES
    """The deployments in which it says something."""
    faults: tuple[str, ...] = ()
    """The kinds of fault it is about, as the atlas of faults names them; (): it holds whatever happens."""
    visible: str = "inside"
    """"client": judged from what clients send and are told, so any cluster can be judged; "inside": from disks and links as well."""

    @property
    def page(self) -> str:
        """Name of the page it stands on."""
        return self.check.__module__.rpartition(".")[2]


REGISTRY: dict[str, Clause] = {}


def clause(
    id: str, says: str, *, source: str, kind: str = "must", mutants: tuple[str, ...] = (), upstream: str = "holds",
    modes: tuple[str, ...] = MODES, faults: tuple[str, ...] = (), visible: str = "inside",
) -> Callable[[Check], Check]:  # fmt: skip
    """Register the decorated check under `id`."""
    assert kind in KINDS, f"{id}: kind {kind!r}"
    assert visible in ("client", "inside"), f"{id}: visible {visible!r}"
    assert set() < set(modes) <= set(MODES), f"{id}: modes {modes}"

    def register(check: Check) -> Check:
        assert id not in REGISTRY, f"clause {id} exists twice"
        REGISTRY[id] = Clause(id, says, source, check, kind, mutants, upstream, modes, faults, visible)
        return check

    return register


def reachable(
    id: str, says: str, *, source: str, upstream: str = "the same", modes: tuple[str, ...] = MODES, faults: tuple[str, ...] = (),
    visible: str = "inside",
) -> Callable[[Sighting], Sighting]:  # fmt: skip
    """Register the decorated function, which yields every sighting in a history, as a `may` clause."""

    def register(sightings: Sighting) -> Sighting:
        @wraps(sightings)
        def check(history: History) -> Iterator[tuple[Any, bool]]:
            return ((sighting, True) for sighting in sightings(history))

        clause(id, says, source=source, kind="may", upstream=upstream, modes=modes, faults=faults, visible=visible)(check)
        return sightings

    return register


def checks(*ids: str) -> Callable[[F], F]:
    """Mark a test as judging these clauses; `test_traceability.py` reads the marks."""

    def mark(test: F) -> F:
        unknown = [id for id in ids if id not in REGISTRY]
        assert not unknown, f"{test.__name__} names clauses that do not exist: {unknown}"
        return test

    return mark


@dataclass
class Verdict:
    """What judging histories gave: witnesses per clause, and every violation as (clause id, witness, origin of the history)."""

    witnesses: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[str, Any, str]] = field(default_factory=list)
    histories: int = 0

    def judge(self, history: History, ids: Iterable[str] | None = None) -> Verdict:
        self.histories += 1
        for name in REGISTRY if ids is None else ids:
            for witness, held in REGISTRY[name].check(history):
                self.witnesses[name] += 1
                if not held:
                    self.violations.append((name, witness, history.origin))
        return self

    def broken(self) -> list[str]:
        """The ids of the clauses that were violated, each once."""
        return sorted({name for name, _, _ in self.violations})
