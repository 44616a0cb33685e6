"""What the tests of stories have in common: every clause holds in all of them, and each had something to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from specs.clause import Verdict
from specs.history import History

FEWEST = 2
"""Witnesses of a clause in all stories together: a single one may be an accident."""
Scenario = Callable[[str, bool], Iterator[History]]


def holds_and_speaks(scenarios: Iterable[Scenario], seed: str, wanted: Iterable[str], judged: Iterable[str] | None = None) -> None:
    """Judge the histories of `scenarios` by the clauses `judged` (None: all); each of `wanted` must have had some witnesses."""
    verdict = Verdict()
    for scenario in scenarios:
        for history in scenario(seed, False):
            verdict.judge(history, judged)
            assert not verdict.violations, "\n".join(f"{id} {origin}: {witness}" for id, witness, origin in verdict.violations[:5])
    silent = [id for id in wanted if verdict.witnesses[id] < FEWEST]
    assert not silent, f"held only because (nearly) nothing happened: {silent}"
    print({id: verdict.witnesses[id] for id in wanted})
