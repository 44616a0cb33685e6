"""`trmq spec`: the promises on a command line, for people and for programs."""

from __future__ import annotations

import json

import pytest
from specs.clause import REGISTRY
from specs.manual import prose

from trmq.cli import run
from trmq.cli.spec import NAMES

Captured = pytest.CaptureFixture[str]


def told(capsys: Captured, *words: str) -> tuple[int, str, str]:
    code = run(["spec", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_list_has_every_clause(capsys: Captured) -> None:
    code, out, err = told(capsys, "list", "-o", "json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["id"] for row in rows] == list(REGISTRY)
    assert all(row["says"] and row["source"] and row["apache"] and row["judged_by"] for row in rows)
    table = told(capsys, "list")[1]
    assert all(id in table for id in REGISTRY)


def test_filters_of_the_list(capsys: Captured) -> None:
    def ids(*words: str) -> set[str]:
        return {row["id"] for row in json.loads(told(capsys, "list", *words, "-o", "json")[1])}

    assert "P-ACK-8" in ids("--page", "ack")
    assert "P-LOG-1" not in ids("--page", "ack")
    assert ids("--kind", "may") == {id for id, clause in REGISTRY.items() if clause.kind == "may"}
    assert "P-ACK-8" in ids("--mode", "sync-pair")
    assert ids("--page", "ack", "--kind", "may") == ids("--page", "ack") & ids("--kind", "may")


def test_a_clause_is_shown_with_its_page(capsys: Captured) -> None:
    code, out, err = told(capsys, "show", "p-ack-8")
    clause = REGISTRY["P-ACK-8"]
    assert (code, err) == (0, "")
    assert "**Not promised**" in out
    assert all(word in out for word in (clause.says, clause.source, clause.upstream, *clause.mutants, "test_scenarios.py"))
    shown = json.loads(told(capsys, "show", "P-ACK-8", "-o", "json")[1])
    assert (shown["id"], shown["mutants"], shown["prose"]) == ("P-ACK-8", list(clause.mutants), prose(NAMES["ack"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_shown_with_all_of_its_clauses(name: str, capsys: Captured) -> None:
    code, out, _ = told(capsys, "show", name)
    assert code == 0
    assert prose(NAMES[name]) in out
    assert all(clause.says in out for clause in REGISTRY.values() if clause.page == name)
    shown = json.loads(told(capsys, "show", name, "-o", "json")[1])
    assert [one["id"] for one in shown["clauses"]] == [clause.id for clause in REGISTRY.values() if clause.page == name]


@pytest.mark.parametrize(("words", "near"), [
    (["show", "P-ACK-88"], "P-ACK-8"), (["show", "flsh"], "flush"), (["list", "--page", "recovry"], "recovery"),
])  # fmt: skip
def test_an_unknown_name_is_one_sentence_with_the_nearest(words: list[str], near: str, capsys: Captured) -> None:
    code, out, err = told(capsys, *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert f"Did you mean {near}?" in err


def test_a_wrong_filter_is_refused(capsys: Captured) -> None:
    code, out, err = told(capsys, "list", "--kind", "perhaps")
    assert (code, out) == (2, "")
    assert "perhaps" in err
