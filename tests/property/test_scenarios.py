"""One fault each: every clause holds in every scenario, and a seeded bug that takes the protection away is caught."""

from __future__ import annotations

import pytest
from specs import STORE
from specs.clause import REGISTRY, Verdict, checks

from property.judging import holds_and_speaks
from property.scenarios import damage
from property.test_crash_points import judge
from property.upkeep import SCENARIOS
from property.upkeep_mutants import MUTANTS

SEED = "pinned"


@checks(*STORE)
def test_every_clause_holds_and_had_something_to_say() -> None:
    holds_and_speaks(SCENARIOS.values(), SEED, STORE, judged=STORE)


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
            verdict.judge(history, STORE)
            if listed <= set(verdict.broken()):
                print(f"{name}: {verdict.broken()} in {scenario} after {verdict.histories} histories")
                return
    missed = sorted(listed - set(verdict.broken()))
    raise AssertionError(f"{name}: {missed} did not see it in {verdict.histories} histories; broken: {verdict.broken()}")


@checks("P-REC-4")
@pytest.mark.parametrize("how", ["flip", "zero", "cut"])
def test_damage_at_every_byte_of_the_last_records(how: str) -> None:
    """The damaged record goes, all before it stay, nothing altered is ever served."""
    judge(damage(SEED, False, (how,), step=1), at_least=200)
