"""A scenario played and judged: by every clause of the cluster and by the history checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

import attrs
from specs import CLUSTER
from specs.checker import CLAUSES, Report, check
from specs.clause import REGISTRY, Verdict

from trmq.chaos.run import Run
from trmq.chaos.scenario import Scenario

Level = Literal["cores", "shell"]
LEVELS: tuple[Level, ...] = ("cores", "shell")
MODULES: Mapping[Level, str] = MappingProxyType({"cores": "heap", "shell": "shell"})
Play = Callable[[Scenario], Run]
CRASH = "CRASH"
"""Stands in the place of a clause where a program ended by an error that it should not raise."""


@attrs.frozen
class Judged:
    """`run` is None when a program crashed, with `error`."""

    scenario: Scenario
    run: Run | None
    verdict: Verdict
    report: Report
    error: Exception | None = None

    def broken(self) -> list[str]:
        """Ids of the clauses that were broken, each once; `CRASH` alone when a program crashed."""
        if self.error is not None:
            return [CRASH]
        return sorted({*self.verdict.broken(), *(violation.clause for violation in self.report.violations)})

    def witnesses(self) -> dict[str, int]:
        """Clause id -> how often it had something to say; by the one pass where that tells it."""
        counts = {id: self.verdict.witnesses[id] for id in CLUSTER}
        for rule, id in CLAUSES.items():
            counts[id] = max(counts.get(id, 0), self.report.witnesses[rule])
        return counts

    def violations(self) -> list[tuple[str, Any]]:
        """Clause id and witness of each violation."""
        found: list[tuple[str, Any]] = [(id, witness) for id, witness, _ in self.verdict.violations]
        known = {id for id, _ in found}
        found += [(violation.clause, violation.witness) for violation in self.report.violations if violation.clause not in known]
        return found if self.error is None else [(CRASH, f"{type(self.error).__name__}: {self.error}")]


def player(level: Level) -> Play:
    """Who plays at this level."""
    play: Play = import_module(f"trmq.chaos.{MODULES[level]}").play
    return play


def judge(scenario: Scenario, play: Play) -> Judged:
    """Play it and judge what happened. An error of a program is a verdict, too; an interrupt is not."""
    try:
        run = play(scenario)
    except Exception as error:
        return Judged(scenario, None, Verdict(), Report(), error)
    return Judged(scenario, run, run.judge(CLUSTER), check(run.history))


def breaks(ids: list[str], play: Play) -> Callable[[Scenario], bool]:
    """Whether a scenario breaks (at least) the first of these clauses."""
    return lambda scenario: ids[0] in judge(scenario, play).broken()


__all__ = ["CRASH", "LEVELS", "REGISTRY", "Judged", "Level", "Play", "breaks", "judge", "player"]
