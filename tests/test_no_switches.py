"""Seeded bugs live in the tests alone: what is shipped names none of them, and importing all of it changes nothing of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from chaos.every import MUTANTS as CLUSTER_MUTANTS
from property.upkeep_mutants import MUTANTS as STORE_MUTANTS

SOURCE = Path(__file__).parent.parent / "src" / "trmq"
COINCIDENCE = {"gives_up"}
"""Also a word for what a client does when its time is over."""
EVERYTHING = """
import importlib, inspect, pkgutil, sys, types
import trmq
names = [m.name for m in pkgutil.walk_packages(trmq.__path__, "trmq.") if not m.name.endswith("__main__")]
modules = [importlib.import_module(name) for name in names]
assert len(modules) > 100
strange = [name for name in sys.modules if name.split(".")[0] in ("chaos", "property", "tests", "hypothesis")]
assert not strange, strange
for module in modules:
    for name, thing in vars(module).items():
        owners = [(name, thing)]
        if isinstance(thing, type) and thing.__module__ == module.__name__:
            owners += [(f"{name}.{inner}", value) for inner, value in vars(thing).items()]
        for label, function in owners:
            if isinstance(function, types.FunctionType) and isinstance(thing, type):
                home = function.__module__
                # what stands in a class comes from its own package, from the standard library, or from what it is built with
                assert home.split(".")[0] not in ("chaos", "property", "tests"), (module.__name__, label, home)
print(len(modules))
"""


def test_production_names_no_seeded_bug() -> None:
    names = sorted((set(STORE_MUTANTS) | set(CLUSTER_MUTANTS)) - COINCIDENCE)
    assert len(names) > 100
    pattern = re.compile(r"\b(" + "|".join(names) + r")\b")
    found = [f"{path.relative_to(SOURCE)}: {hit}" for path in sorted(SOURCE.rglob("*.py")) for hit in pattern.findall(path.read_text())]
    assert not found, f"what is shipped knows of seeded bugs: {found}"


def test_importing_all_of_it_leaves_nothing_patched() -> None:
    """In a process of its own: no test module comes in, and every function of a class is where it was written."""
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    print(f"{done.stdout.strip()} modules")
