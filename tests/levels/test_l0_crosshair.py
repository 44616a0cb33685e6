"""L0: the pure decisions hold for *all* inputs in a bound. CrossHair runs them on symbols and says "confirmed over all paths", or shows
an input that breaks the contract.

The catalogue (`prove.PROOFS`) lists what is to be confirmed, each with a seeded bug. Not confirmed is a failure here, though CrossHair
calls it a success. `python tests/levels/prove.py` prints the report by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from levels import runs
from levels.prove import BY_NAME, PROOFS

ROOT = Path(__file__).parent.parent.parent
SAMPLED = ("held", "sliced", "shared_out")
"""Seeded bugs that are looked for at every commit; all of them in the long profile."""


def report(*arguments: str, seconds: float) -> list[dict[str, str]]:
    """What CrossHair said, one entry per postcondition."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("src", "tests", "."))
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests/levels/prove.py"), "--seconds", str(seconds), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_decision_of_the_catalogue_is_confirmed_over_all_paths(profile: str) -> None:
    wanted = [proof.function for proof in PROOFS if profile == "long" or not proof.slow]
    began = time.perf_counter()
    found = report(*wanted, seconds=60)
    spent = round(time.perf_counter() - began, 1)
    print(f"L0: {len(found)} postconditions of {len(wanted)} functions in {spent} s")
    unproved = [f"{entry['function']} ({entry['condition']}): {entry['state']}" for entry in found if entry["state"] != "CONFIRMED"]
    assert not unproved, "\n".join(unproved)
    count = Counter(entry["function"] for entry in found)
    assert sorted(count) == sorted(wanted), "CrossHair looked at other functions than the catalogue lists"
    if profile == "long":
        runs.write("l0", functions=len(count), postconditions=len(found), wall_s=spent, confirmed=sorted(count), seeded_bugs=len(PROOFS))


@pytest.mark.parametrize("function", BY_NAME)
def test_a_seeded_bug_is_found(function: str, profile: str) -> None:
    if profile != "long" and function not in SAMPLED:
        pytest.skip("runs with --profile long")
    found = report("--mutant", function, seconds=60)
    shown = [entry["state"] for entry in found if entry["state"].startswith("POST_FAIL") or entry["state"].startswith("EXEC_ERR")]
    print(*shown, sep="\n")
    assert shown, f"{function} holds with {BY_NAME[function].wrong!r} in it"
