"""The official Go client, unmodified, against trmq: it parses routes by hand and sends single messages with the V1 header."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from . import jvm
from .cluster import Cluster


@pytest.fixture(scope="module")
def go_client() -> Path:
    """The compiled program of `go/`; its modules come from the Go proxy once."""
    if shutil.which("go") is None:
        pytest.skip("Go is needed for this test")
    with jvm.locked():
        program = jvm.CACHE / "go-client"
        source = jvm.HERE / "go"
        if not program.exists() or program.stat().st_mtime < (source / "main.go").stat().st_mtime:
            built = subprocess.run(["go", "build", "-o", str(program), "."], cwd=source, capture_output=True, text=True)
            assert built.returncode == 0, built.stderr
    return program


def test_go_client_sends_and_consumes(trmq: Cluster, go_client: Path) -> None:
    done = subprocess.run(
        [str(go_client), trmq.name_server, "go_topic", "go_group", f"127.0.0.1:{trmq.port}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["topics"] == ["go_topic"]
    expected = [f"sync-{i}" for i in range(20)] + [f"async-{i}" for i in range(20)] + [f"batch-{i}" for i in range(10)] + ["oneway"]
    assert sorted(seen["bodies"]) == sorted([*expected, "sync-7"]), "each once, the failed one twice, none of the other tag"
    assert seen["reconsume"] == [1]
