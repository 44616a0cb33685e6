"""`trmq demo failover`, played once with real processes, and what its exit code says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from process.server import ANY_DISK_ENV, trmq
from trmq.cli import demo


def test_failover(tmp_path: Path) -> None:
    """Everything the demonstration promises, by its own account; nothing is left in the temporary folder."""
    done = trmq("demo", "failover", "--json", "--rate", 200, env=ANY_DISK_ENV | {"TMPDIR": str(tmp_path)}, seconds=120)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["lost"] == 0
    assert found["sent"] == found["acked"] + found["refused"] + found["unknown"]
    assert found["received"] >= found["acked"] > 1000
    assert found["acked"] - found["statuses"]["SEND_OK"] < 0.05 * found["acked"]
    assert set(found["received_from"]) == {"a-0", "a-1", "b-0"}, "the slave of group a served, the one of b had no reason to"
    timings = {"first_replicated", "producer_went_on", "consumer_on_slave", "longest_send_pause", "producer_returned", "consumer_returned"}
    assert timings <= set(found["timings_s"])
    assert found["seconds"] < 60
    for sentence in ("kill -9", "from its slave: first message", "to group a again", "from its master again", "all processes are stopped"):
        assert sentence in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (1, 6)])
def test_the_exit_code_says_whether_something_was_lost(
    lost: int, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(self: demo.Play) -> dict[str, Any]:
        (self.folder / "store").mkdir()
        return {"lost": lost}

    monkeypatch.setattr(demo.Play, "run", run)
    monkeypatch.setattr(demo.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    assert demo.failover_demo(as_json=True) == code
    out, err = capsys.readouterr()
    assert json.loads(out) == {"lost": lost}
    assert (tmp_path / "store").exists() == bool(lost), "kept for whoever wants to know why"
    assert bool(lost) == (f"stores and logs are in {tmp_path}" in err)
