"""Random lives of a group of brokers, judged by every clause of the cluster; and lives that once went wrong.

To replay one: its origin, which a failure prints, is the call that makes it again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from specs import CLUSTER
from specs.clause import Verdict, checks

from chaos.lives import SETTINGS, VERBS, Step, drawn, play

CI_EXAMPLES, CI_LIVES = 20, 40


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def judge(seed: object, steps: list[Step], setting: int, verdict: Verdict | None = None) -> Verdict:
    verdict = Verdict() if verdict is None else verdict
    verdict.judge(play(seed, steps, setting), CLUSTER)
    assert not verdict.violations, "\n".join(f"{id} {origin}: {witness}" for id, witness, origin in verdict.violations[:5])
    return verdict


@checks(*CLUSTER)
@settings(max_examples=CI_EXAMPLES)
@given(
    seed=st.integers(0, 2**32), setting=st.integers(0, len(SETTINGS) - 1),
    steps=st.lists(st.tuples(st.sampled_from(sorted(set(VERBS))), st.integers(0, 5)), max_size=20),
)
def test_whatever_is_done_every_clause_holds(seed: int, setting: int, steps: list[Step]) -> None:
    """Hypothesis draws the schedule's seed, too, and shrinks what fails."""
    note(f"{dict(judge(seed, steps, setting).witnesses)}")


@checks(*CLUSTER)
def test_fresh_lives(seed: int, profile: str) -> None:
    verdict = Verdict()
    for number in range(2000 if profile == "long" else CI_LIVES):
        judge(seed + number, drawn(seed + number), number, verdict)
    print(f"{verdict.histories} lives from seed {seed}: {dict(sorted(verdict.witnesses.items()))}")


PAST: dict[str, tuple[int, list[Step], int]] = {
    "a report while earlier ones are still being sent": (587, [("send", 4), ("pause", 1), ("send", 1), ("wait", 5)], 3),
    "a flush that waited for one that failed": (764, [("no_sync", 1), ("slow_disk", 1), ("no_sync", 0), ("send", 2)], 4),
    "the same, with the master dead": (692, [("slow_disk", 2), ("send_some", 3), ("die", 0), ("no_sync", 5), ("wait", 4)], 4),
}


@pytest.mark.parametrize("name", PAST)
def test_a_life_that_once_went_wrong(name: str) -> None:
    judge(*PAST[name])


def test_a_failure_says_how_to_play_it_again() -> None:
    history = play(7, [("send", 1)], 0)
    call = re.search(r"chaos\.lives\.play\((.*)\)$", history.origin)
    assert call is not None
    again = play(*eval(f"({call[1]})"))
    assert [repr(event) for event in again.events] == [repr(event) for event in history.events], "one seed, one history"
