"""The lots of a search make what the search of all their seeds would have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trmq.chaos import lots, search
from trmq.errors import ConfigError

TIMES = ("wall_s", "busy_s", "played_s", "date")


def found(folder: Path, first: int, seeds: int) -> Any:
    path = folder / f"{first}-{seeds}.json"
    search.main(["--level", "cores", "--first", str(first), "--seeds", str(seeds), "--jobs", "1", "--commit", "c", "--out", str(path)])
    return path


def test_lots_make_the_whole(tmp_path: Path) -> None:
    parts = [found(tmp_path, first, seeds) for first, seeds in ((0, 30), (30, 30), (60, 20))]
    assert lots.main([*map(str, parts), "--out", str(tmp_path / "joined.json")]) == 0
    joined, whole = (json.loads(path.read_text()) for path in (tmp_path / "joined.json", found(tmp_path, 0, 80)))
    assert joined.keys() == whole.keys()
    assert joined["simulated_s"] == pytest.approx(whole["simulated_s"], abs=0.2)
    for key in joined.keys() - {*TIMES, "simulated_s"}:
        assert joined[key] == whole[key], key


def test_lots_that_do_not_belong_together_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = json.loads(found(tmp_path, 0, 3).read_text())
    with pytest.raises(ConfigError, match="begins at seed 4, but the one before ends at 3"):
        lots.join([one, one | {"first_seed": 4}])
    with pytest.raises(ConfigError, match="has length 7, the one before 12"):
        lots.join([one, one | {"first_seed": 3, "length": 7}])
    assert lots.join([one, one | {"first_seed": 3, "commit": "d"}, one | {"first_seed": 6}])["commit"] == "c and d"
    assert lots.main([str(tmp_path / "none.json"), "--out", str(tmp_path / "out.json")]) == 2
    assert "none.json" in capsys.readouterr().err
