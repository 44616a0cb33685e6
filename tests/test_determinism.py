"""One scenario, one run: the same in processes that hash strings differently, at both levels; another seed, another run."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import attrs
import pytest
import trio._core._run as trio_run

from trmq.chaos.atlas import draw

LEVELS = {"cores": "trmq.chaos.heap", "shell": "trmq.chaos.shell"}
SEEDS = (3, 11, 29, 51)
PROGRAM = """
import logging, sys
from importlib import import_module
from trmq.chaos.atlas import draw
logging.disable(logging.CRITICAL)
play = import_module(sys.argv[1]).play
for seed in map(int, sys.argv[2:]):
    print(play(draw(seed)).fingerprint)
"""


def in_a_process(level: str, hash_seed: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, LEVELS[level], *map(str, SEEDS)]
    done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("level", [level for level, module in LEVELS.items() if find_spec(module)])
def test_one_scenario_is_one_run_in_every_process(level: str) -> None:
    one, other = in_a_process(level, "1"), in_a_process(level, "2")
    assert one == other
    assert len(set(one)) == len(SEEDS)
    play = import_module(LEVELS[level]).play
    scenario = draw(SEEDS[0])
    assert play(scenario).fingerprint == one[0], "and here"
    assert play(attrs.evolve(scenario, seed=scenario.seed + 1)).fingerprint != one[0], "the same steps by another schedule"


def test_the_private_names_of_the_scheduler_are_as_pausing_a_process_needs_them() -> None:
    """If this fails, a new Trio has moved its scheduler: look at sim/determinism.py before raising the pinned version."""
    assert trio_run._ALLOW_DETERMINISTIC_SCHEDULING in (True, False)
    assert hasattr(trio_run._r, "seed")
    assert list(inspect.signature(trio_run.Runner.reschedule).parameters)[:2] == ["self", "task"]
    assert {"runq", "deadlines", "waiting_for_idle"} <= {member.name for member in attrs.fields(trio_run.Runner)}
    assert hasattr(trio_run.GLOBAL_RUN_CONTEXT, "__dict__")
    assert "context" in {member.name for member in attrs.fields(trio_run.Task)}
