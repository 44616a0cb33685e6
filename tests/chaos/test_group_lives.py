"""Random lives of a consumer group, on groups of masters and on a pair, judged by every clause of the cluster and by the checker. A
failure prints its call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from specs import CLUSTER
from specs.checker import check
from specs.clause import Verdict, checks
from specs.history import History

from chaos.group_lives import group_life
from chaos.pair_lives import pair_life

LONG_LIVES = 500
LIVES: dict[str, Callable[[str], History]] = {"masters": group_life, "pair": pair_life}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def judge(on: str, seed: str, verdict: Verdict) -> Verdict:
    history = LIVES[on](seed)
    verdict.judge(history, CLUSTER)
    found = [(id, witness, origin) for id, witness, origin in verdict.violations]
    found += [(one.clause, one.witness, history.origin) for one in check(history).violations]
    assert not found, "\n".join(f"{id} {origin}: {witness}" for id, witness, origin in found[:5])
    return verdict


PAST = {
    "a master that restarts has forgotten a lock that a member relies on": ("masters", "109"),
    "a queue goes and comes back while its message is in hand": ("masters", "101"),
    "a message is tried again where it lies in the retry topic": ("masters", "208"),
    "a member leaves that finished a message of a queue which had gone": ("masters", "214"),
    "a message fails after its queue has gone to another member": ("masters", "103"),
    "a slave that was the master grants a lock to a member with an old route": ("pair", "44"),
    "a member leaves just after its master returned, and commits at the slave": ("pair", "19"),
    "what was given back to a master without a slave is gone with its place": ("pair", "146"),
}


@checks(*CLUSTER)
@pytest.mark.parametrize("name", PAST)
def test_a_life_that_once_went_wrong_or_was_judged_wrongly(name: str) -> None:
    judge(*PAST[name], Verdict())


@checks(*CLUSTER)
@pytest.mark.parametrize("on", LIVES)
def test_whatever_happens_groups_are_given_what_they_should(on: str, seed: int, profile: str) -> None:
    """Fresh lives in the long profile; two that are known otherwise."""
    verdict = Verdict()
    for number in range(seed, seed + LONG_LIVES) if profile == "long" else range(2):
        judge(on, str(number), verdict)
    print(f"{verdict.histories} lives: {dict(sorted(verdict.witnesses.items()))}")
