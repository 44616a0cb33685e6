"""The page of the kill matrix speaks of every seeded bug and every clause that there are, and of no survivor that nobody explains.

That the bugs are caught is run elsewhere, at every commit (`test_scenarios.py`, `property/test_scenarios.py`, `test_heap.py`); here names
are compared. To mend: `PYTHONPATH=tests:. python -m chaos.kill_matrix --stale`.
"""

from __future__ import annotations

import json

import pytest
from specs.clause import REGISTRY

from chaos.kill_matrix import APACHE, EXPLAINED, OUT, PAGE, key, page, registered, stale, summary, table_row

MEND = "run `PYTHONPATH=tests:. python -m chaos.kill_matrix --stale`"
FOUND = json.loads(OUT.read_text())


def test_it_speaks_of_every_seeded_bug_as_its_clauses_do() -> None:
    assert stale(FOUND["rows"]) == [], MEND
    assert {key(row) for row in FOUND["rows"]} == set(registered()), f"some are gone: {MEND}"


def test_the_page_says_what_the_file_says() -> None:
    assert {**summary(FOUND["rows"])} == FOUND, MEND
    assert PAGE.read_text() == page(FOUND), MEND


def test_every_seeded_bug_is_dead_or_explained_and_every_clause_has_killed() -> None:
    assert FOUND["survivors"] == []
    assert [id for id, killed in FOUND["clauses"].items() if not killed] == []
    assert set(FOUND["clauses"]) == {id for id, clause in REGISTRY.items() if clause.kind != "may"}, MEND
    assert set(EXPLAINED) <= {name for _, name in registered()}


def test_bugs_of_apache_are_seeded_as_bugs_that_exist() -> None:
    names = {name for like in APACHE.values() if not isinstance(like, str) for name in like}
    assert names <= {name for _, name in registered()}


@pytest.mark.parametrize("what", ["gone", "listed otherwise", "survives", "not green"])
def test_what_is_wrong_is_noticed(what: str) -> None:
    rows = [dict(row) for row in FOUND["rows"]]
    first = rows[0]
    if what == "gone":
        assert stale(rows[1:]) == [key(first)]
        return
    if what == "listed otherwise":
        first["listed_by"] = ["P-ACK-1", *first["listed_by"]]
        assert stale(rows) == [key(first)]
        return
    first.update(killed=False, green=what != "not green", missed_by=first["listed_by"] if what == "survives" else [])
    assert summary(rows)["survivors"] == [f"{first['level']} {first['mutant']}"]
    if what == "survives":
        assert "**not by" in table_row(first)
