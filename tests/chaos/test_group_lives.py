"""Random lives of consumer groups, judged by every clause of the cluster. A failure prints the call that makes its history again."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from specs import CLUSTER
from specs.clause import Verdict, checks

from chaos.group_lives import group_life

LONG_LIVES = 500


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def judge(seed: str, verdict: Verdict) -> Verdict:
    verdict.judge(group_life(seed), CLUSTER)
    assert not verdict.violations, "\n".join(f"{id} {origin}: {witness}" for id, witness, origin in verdict.violations[:5])
    return verdict


PAST = {
    "a master that restarts has forgotten a lock that a member relies on": "109",
    "a queue goes and comes back while its message is in hand": "101",
    "a message is tried again where it lies in the retry topic": "208",
    "a member leaves that finished a message of a queue which had gone": "214",
    "a message fails after its queue has gone to another member": "103",
}


@checks(*CLUSTER)
@pytest.mark.parametrize("name", PAST)
def test_a_life_that_once_was_judged_wrongly(name: str) -> None:
    judge(PAST[name], Verdict())


@checks(*CLUSTER)
def test_whatever_members_and_brokers_do_every_clause_holds(seed: int, profile: str) -> None:
    """Fresh lives in the long profile; two that are known otherwise."""
    verdict = Verdict()
    for number in range(seed, seed + LONG_LIVES) if profile == "long" else range(2):
        judge(str(number), verdict)
    print(f"{verdict.histories} lives: {dict(sorted(verdict.witnesses.items()))}")
