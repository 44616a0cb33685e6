"""The shipped servers and clients in simulated time: whatever a scenario does to them, every clause of the cluster holds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from specs import CLUSTER
from specs.clause import Verdict, checks

from trmq.chaos.atlas import draw
from trmq.chaos.scenario import Scenario
from trmq.chaos.shell import play

CI_SEEDS, CI_EXAMPLES = 60, 15


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def judge(scenario: Scenario, verdict: Verdict | None = None) -> Verdict:
    verdict = Verdict() if verdict is None else verdict
    verdict.judge(play(scenario).history, CLUSTER)
    assert not verdict.violations, "\n".join(f"{id} {witness}\n{origin}" for id, witness, origin in verdict.violations[:3])
    return verdict


@checks(*CLUSTER)
def test_seeds(seed: int, profile: str) -> None:
    """Fresh ones in the long profile, the same at every commit otherwise."""
    verdict, hits = Verdict(), Counter[str]()
    for number in range(seed, seed + 2000) if profile == "long" else range(CI_SEEDS):
        run = play(draw(number))
        hits += run.hits
        verdict.judge(run.history, CLUSTER)
        assert not verdict.violations, "\n".join(f"{id} {witness}\n{origin}" for id, witness, origin in verdict.violations[:3])
    print(f"{verdict.histories} scenarios from seed {seed}: hits {dict(sorted(hits.items()))}, {dict(sorted(verdict.witnesses.items()))}")


@checks(*CLUSTER)
@settings(max_examples=CI_EXAMPLES, derandomize=True)
@given(seed=st.integers(0, 2**32), schedule=st.integers(0, 2**32), kept=st.sets(st.integers(0, 30), max_size=30))
def test_whatever_is_done_every_clause_holds(seed: int, schedule: int, kept: set[int]) -> None:
    """Hypothesis draws the steps' seed, the schedule's seed and which steps are played, and shrinks what fails."""
    drawn = draw(seed)
    steps = [step for number, step in enumerate(drawn.steps) if number not in kept]
    scenario = Scenario(drawn.mode, drawn.flush, schedule, tuple(steps), drawn.comment)
    note(scenario.render())
    judge(scenario)
