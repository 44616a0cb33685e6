"""Scenario files: what is written is read back; what is none is refused with a sentence; what is drawn is always playable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.chaos import atlas
from trmq.chaos.scenario import MODES, VERBS, Scenario, Step, check, parse
from trmq.errors import ConfigError

GOOD = "trmq-scenario 1\nmode sync-pair\nflush async\nseed 7\n0.100 send 3\n0.250 power a0\n1.000 start a0\n"


def test_a_file_is_read_and_written() -> None:
    scenario = parse(GOOD)
    steps = (Step(0.1, "send", ("3",)), Step(0.25, "power", ("a0",)), Step(1, "start", ("a0",)))
    assert scenario == Scenario("sync-pair", "async", 7, steps)
    assert scenario.render() == GOOD


@given(seed=st.integers(0, 1 << 40))
def test_what_is_drawn_can_be_written_and_read(seed: int) -> None:
    scenario = atlas.draw(seed)
    assert parse(scenario.render()) == scenario
    assert atlas.draw(seed) == scenario


def test_every_fault_and_every_verb_is_drawn() -> None:
    verbs = {step.verb for seed in range(3000) for step in atlas.draw(seed).steps}
    assert verbs == set(VERBS)
    assert {atlas.KIND[verb] for verb in verbs if verb in atlas.KIND} == set(atlas.FAULTS)
    for mode in MODES:
        kinds = {atlas.KIND.get(step.verb) for seed in range(300) for step in atlas.draw(seed, mode).steps}
        assert kinds >= set(atlas.FAULTS), mode


@pytest.mark.parametrize(("text", "says"), [
    ("", "its first line must be `trmq-scenario 1`"),
    ("hello\n", "its first line must be `trmq-scenario 1`"),
    (GOOD.replace("scenario 1", "scenario 2"), "version 2 of scenarios cannot be played here, only version 1"),
    (GOOD.replace("power a0", "explode a0"), "f.txt, line 6: the verb 'explode' is unknown: use one of send, start"),
    (GOOD.replace("power a0", "power"), "line 6: `power` takes node, not nothing"),
    (GOOD.replace("power a0", "power a7"), "mode sync-pair has no node 'a7', only a0, a1"),
    (GOOD.replace("mode sync-pair", "mode triple"), "mode 'triple' is unknown: use one of single"),
    (GOOD.replace("mode sync-pair", "mode single").replace("power a0", "promote a0"), "needs a slave, and mode single has none"),
    (GOOD.replace("seed 7\n", ""), "there is no line `seed ...`"),
    (GOOD.replace("seed 7", "seed x"), "seed must be an integer, not 'x'"),
    (GOOD.replace("flush async", "flush never"), "flush 'never' is unknown: use one of async, sync"),
    (GOOD.replace("0.250", "soon"), "a step begins with its time in seconds, not with 'soon'"),
    (GOOD.replace("1.000", "0.200"), "comes after one at 0.250: put the steps in order of time"),
    (GOOD.replace("send 3", "send many"), "count must be an integer, not 'many'"),
    (GOOD.replace("send 3", "send -3"), "a count is not negative"),
    (GOOD + "2.0 slow a0 a1 fast\n", "seconds must be a number, not 'fast'"),
    (GOOD + "2.0 cut a0 moon\n", "'moon' is neither a node (a0, a1) nor 'client'"),
    (GOOD + "2.0 noise a0 http\n2.0 noise a7 http\n", "mode sync-pair has no port 'a7', only a0, a1, a0/ha, a1/ha, names"),
    (GOOD + "2.0 noise a0/ha half-a-frame\n", "noise 'half-a-frame' is unknown: use one of silence, ones"),
    (GOOD + "mode single\n", "`mode` stands once, with one value"),
    (GOOD + "nan send 1\n", "between 0 and a million seconds"),
])  # fmt: skip
def test_what_is_no_scenario_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as info:
        parse(text, "f.txt")
    assert says in str(info.value)
    assert str(info.value).startswith("f.txt")


def test_a_fault_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="fault 'meteor' is unknown: use some of close, kill"):
        atlas.draw(1, faults=("meteor",))


def test_at_most_one_copy_is_lost_for_good() -> None:
    for seed in range(2000):
        steps = atlas.draw(seed, "sync-pair", faults=("disk", "machine", "rot")).steps
        check(Scenario("sync-pair", "async", seed, steps))
        assert sum(step.verb in ("disk", "machine", "rot", "misdirect") for step in steps) <= 1
