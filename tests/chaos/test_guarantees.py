"""The page of guarantees: generated from the kept results, current, with a promise and figures or a reason in each cell."""

from __future__ import annotations

from pathlib import Path

import pytest
from specs.clause import REGISTRY

from trmq.chaos.atlas import FAULTS
from trmq.chaos.guarantees import LEVELS, cells_of, clauses, empty_without_reason, load, page, promise
from trmq.chaos.scenario import FLUSHES, MODES
from trmq.chaos.sometimes import ENOUGH, never
from trmq.errors import ConfigError

DOCS = Path(__file__).parent.parent.parent / "docs"
RUNS = load(DOCS / "runs")


def test_the_page_is_current() -> None:
    assert (DOCS / "guarantees.md").read_text() == page(RUNS), "run `python -m trmq.chaos.guarantees docs/runs > docs/guarantees.md`"


def test_no_cell_is_empty_without_a_reason() -> None:
    assert empty_without_reason(cells_of(RUNS)) == []


def test_nothing_was_violated_and_nothing_rare_was_missed() -> None:
    for run in RUNS:
        assert run["violations"] == [], run["level"]
        assert [name for name, count in run.get("sometimes", {}).items() if not count] == []


def test_no_long_search_missed_what_has_to_come_about() -> None:
    """Of those that drew everything and played enough seeds (a search says how long its scenarios were, the matrix of cells does not)."""
    long = [run for run in RUNS if run["level"] in ENOUGH and "length" in run and run["seeds"] >= ENOUGH[run["level"]]]
    assert "cores" in {run["level"] for run in long}
    for run in long:
        assert never(run["level"], run["sometimes"]) == [], f"{run['level']}, {run['seeds']} seeds from {run['first_seed']}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flush", FLUSHES)
def test_every_cell_has_a_promise_and_its_clauses(mode: str, flush: str) -> None:
    for fault in FAULTS:
        assert promise(mode, flush, fault)  # type: ignore[arg-type]
        assert set(clauses(mode, flush, fault)) <= set(REGISTRY)  # type: ignore[arg-type]


def test_an_empty_cell_is_noticed() -> None:
    cells = cells_of(RUNS)
    gone = ("shell", "sync-pair", "async", "kill")
    assert empty_without_reason({place: cell for place, cell in cells.items() if place != gone}) == [gone]


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match=r"x\.json: not JSON"):
        load(tmp_path)


def test_what_other_checks_keep_beside_the_searches_is_passed_over(tmp_path: Path) -> None:
    for number, text in enumerate(('{"level": "L0"}', '{"level": "L1"}', '[{"level": "cores"}]', '{"rows": []}')):
        (tmp_path / f"{number}.json").write_text(text)
    assert load(tmp_path) == []
    assert {run["level"] for run in RUNS} == set(LEVELS)
