"""Every clause of the cluster holds in every scenario and had something to say; a seeded bug is caught by the clauses that list it."""

from __future__ import annotations

import pytest
from specs import CLUSTER
from specs.clause import REGISTRY, Verdict, checks

from chaos.every import MUTANTS, SCENARIOS
from property.judging import holds_and_speaks

SEED = "pinned"


@checks(*CLUSTER)
def test_every_clause_holds_and_had_something_to_say() -> None:
    holds_and_speaks(SCENARIOS.values(), SEED, CLUSTER, judged=CLUSTER)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_seeded_bug_is_caught_by_every_clause_that_lists_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is the baseline: the same scenarios and seed are green without the bug."""
    mutant = MUTANTS[name]
    listed = {id for id, clause in REGISTRY.items() if name in clause.mutants}
    assert listed <= set(mutant.kills), f"{name}: {sorted(listed - set(mutant.kills))} list it, but it says to break {mutant.kills}"
    mutant.seed(monkeypatch)
    verdict = Verdict()
    for scenario in mutant.scenarios:
        for history in SCENARIOS[scenario](SEED, True):
            verdict.judge(history, CLUSTER)
            if listed <= set(verdict.broken()):
                print(f"{name}: {verdict.broken()} in {scenario} after {verdict.histories} histories")
                return
    missed = sorted(listed - set(verdict.broken()))
    raise AssertionError(f"{name}: {missed} did not see it in {verdict.histories} histories; broken: {verdict.broken()}")
