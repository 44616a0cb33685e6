"""Random lives of a consumer group on a pair, judged by every clause of the cluster and by the checker. A failure prints its call."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from specs import CLUSTER
from specs.checker import check
from specs.clause import Verdict, checks

from chaos.pair_lives import pair_life

LONG_LIVES = 300


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def judge(seed: str, verdict: Verdict) -> Verdict:
    history = pair_life(seed)
    verdict.judge(history, CLUSTER)
    found = [(id, witness, origin) for id, witness, origin in verdict.violations]
    found += [(one.clause, one.witness, history.origin) for one in check(history).violations]
    assert not found, "\n".join(f"{id} {origin}: {witness}" for id, witness, origin in found[:5])
    return verdict


PAST = {
    "a slave that was the master grants a lock to a member with an old route": "44",
    "a member leaves just after its master returned, and commits at the slave": "19",
    "what was given back to a master without a slave is gone with its place": "146",
}


@checks(*CLUSTER)
@pytest.mark.parametrize("name", PAST)
def test_a_life_that_once_went_wrong_or_was_judged_wrongly(name: str) -> None:
    judge(PAST[name], Verdict())


@checks(*CLUSTER)
def test_whatever_happens_to_a_pair_its_groups_are_given_what_they_should(seed: int, profile: str) -> None:
    """Fresh lives in the long profile; two that are known otherwise."""
    verdict = Verdict()
    for number in range(seed, seed + LONG_LIVES) if profile == "long" else range(2):
        judge(str(number), verdict)
    print(f"{verdict.histories} lives: {dict(sorted(verdict.witnesses.items()))}")
