"""Shrinking: of a scenario that breaks something, what is left breaks the same, and no step or number of it can go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.mutants import MUTANTS
from trmq.chaos.atlas import draw
from trmq.chaos.judged import CRASH, Level, breaks, judge, player
from trmq.chaos.run import Run
from trmq.chaos.scenario import Scenario, Step, check, parse
from trmq.chaos.shrink import shrink

ARGS = {"send": ("3",), "kill": ("a0",), "cut": ("a0", "a1"), "start": ("a1",), "slow": ("a0", "a1", "2.0"), "drop": ("a0", "a1", "100")}


def long_one(seed: int) -> Scenario:
    return draw(seed, "sync-pair", length=30)


@given(seed=st.integers(0, 1 << 30), verbs=st.sets(st.sampled_from(sorted(ARGS)), min_size=1, max_size=3))
def test_what_is_left_is_needed(seed: int, verbs: set[str]) -> None:
    def fails(scenario: Scenario) -> bool:
        return verbs <= {step.verb for step in scenario.steps}

    scenario = long_one(seed)
    scenario = scenario.with_steps([*scenario.steps, *(Step(scenario.steps[-1].at + 50, verb, ARGS[verb]) for verb in sorted(verbs))])
    short = shrink(scenario, fails, tries=10_000)
    check(short)
    assert parse(short.render()) == short
    assert sorted(step.verb for step in short.steps) == sorted(verbs), "one of each, and nothing else"
    assert all(step.at == 0 for step in short.steps), "nothing needs to be waited for"
    assert all(step.args[-1] == "0" for step in short.steps if step.verb in ("send", "slow", "drop")), "numbers are as small as can be"
    assert (short.mode, short.flush, short.seed) == (scenario.mode, scenario.flush, scenario.seed)


def test_waits_and_numbers_that_matter_stay() -> None:
    steps = (Step(0.5, "send", ("1",)), Step(1.25, "send", ("7",)), Step(17.5, "kill", ("a0",)), Step(90, "start", ("a0",)))

    def fails(scenario: Scenario) -> bool:
        """A kill at least 4 s after a send of three messages or more."""
        sends = [step.at for step in scenario.steps if step.verb == "send" and int(step.args[0]) >= 3]
        return any(step.verb == "kill" and any(step.at - at >= 4 for at in sends) for step in scenario.steps)

    short = shrink(Scenario("single", "sync", 1, steps), fails)
    assert short.steps == (Step(0, "send", ("5",)), Step(5, "kill", ("a0",)))


def test_it_ends_when_it_may_not_try_any_more() -> None:
    asked: list[Scenario] = []

    def fails(scenario: Scenario) -> bool:
        asked.append(scenario)
        return len(scenario.steps) > 3

    shrink(long_one(3), fails, tries=7)
    assert len(asked) == 7
    assert len({scenario.render() for scenario in asked}) == 7, "nothing is played twice"


def test_a_program_that_crashes_is_a_verdict() -> None:
    def play(scenario: Scenario) -> Run:
        raise AssertionError("a bug") if any(step.verb == "kill" for step in scenario.steps) else RuntimeError("unused")

    scenario = Scenario("single", "sync", 1, (Step(0, "send", ("1",)), Step(1, "kill", ("a0",))))
    judged = judge(scenario, play)
    assert judged.broken() == [CRASH]
    assert judged.violations() == [(CRASH, "AssertionError: a bug")]


@pytest.mark.parametrize(("level", "length", "tries"), [("cores", 20, 200), ("shell", 5, 12)])
def test_a_seeded_bug_that_a_seed_finds_is_shrunk_and_only_fails_with_the_bug(
    level: Level, length: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A master answers before a slave has reported."""
    play = player(level)
    with monkeypatch.context() as patch:
        MUTANTS["ack_before_report"].seed(patch)
        found = next(
            judged for seed in range(1, 40)
            if "P-ACK-1" in (judged := judge(draw(seed, "sync-pair", "async", ("power", "cut"), length=length), play)).broken()
        )  # fmt: skip
        short = shrink(found.scenario, breaks(["P-ACK-1"], play), tries)
        assert "P-ACK-1" in judge(short, play).broken()
        assert len(short.steps) <= 3 < len(found.scenario.steps), short.render()
    assert not judge(short, play).broken(), "without the bug it holds"
    print(short.render())
