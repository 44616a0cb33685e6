"""Scenarios that are kept, as short files: lives that once went wrong, and situations worth seeing again. Each is played at both levels.

A new one comes from `trmq sim --seed N --shrink`, or is written by hand; to see what happens in it: `trmq sim --scenario NAME`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from specs import CLUSTER
from specs.clause import checks
from specs.history import Outcome

from trmq.chaos.atlas import KIND
from trmq.chaos.judged import LEVELS, Level, judge, player
from trmq.chaos.scenario import parse

FOLDER = Path(__file__).parent / "scenarios"
FILES = sorted(FOLDER.glob("*.txt"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@checks(*CLUSTER)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_kept_scenario_holds(path: Path, level: Level) -> None:
    scenario = parse(path.read_text(encoding="utf-8"), path.name)
    assert scenario.comment, "the file says why it is kept"
    judged = judge(scenario, player(level))
    if judged.error is not None:
        raise judged.error
    assert not judged.broken(), judged.violations()[:3]
    assert judged.run is not None
    wanted = {KIND[step.verb] for step in scenario.steps if step.verb in KIND}
    assert wanted & judged.run.hits.keys(), f"none of its faults struck: {wanted}"
    assert any(True for _ in judged.run.history.all(Outcome)), "nobody sent anything"


def test_there_are_some_of_every_mode() -> None:
    modes = {parse(path.read_text(encoding="utf-8"), path.name).mode for path in FILES}
    assert modes == {"single", "masters", "async-pair", "sync-pair"}
