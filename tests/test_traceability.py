"""Clauses, tests and seeded bugs agree: nothing is promised that no test judges, and no clause passes because it cannot fail.

That each clause has witnesses and each seeded bug is caught is run in `property/test_scenarios.py` and `chaos/test_scenarios.py`.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from specs import PAGES
from specs.clause import REGISTRY
from specs.manual import JUDGED, judged_by, judged_text, manual, models, name_of, prose

from chaos.every import MUTANTS as CLUSTER_MUTANTS
from property.upkeep_mutants import MUTANTS as STORE_MUTANTS
from trmq.chaos.atlas import FAULTS

TESTS = Path(__file__).parent
SPECS = TESTS.parent / "specs"
KEPT = TESTS / "chaos" / "kept"
MUTANTS = STORE_MUTANTS | CLUSTER_MUTANTS
MODEL_LINES = 40
WITHOUT_SEED = {"retention": "The seeds do not speak of it"}
"""Page → what it says instead."""


def test_every_clause_is_judged_by_a_test_and_no_test_names_an_unknown_one() -> None:
    named = judged_by(TESTS)
    assert not set(named) - set(REGISTRY), "tests name clauses that do not exist"
    assert not set(REGISTRY) - set(named), "clauses that no test judges"


@pytest.mark.parametrize("id", REGISTRY)
def test_every_clause_names_its_source_and_seeded_bugs_that_exist(id: str) -> None:
    clause = REGISTRY[id]
    assert clause.says.endswith(".")
    assert set(clause.faults) <= set(FAULTS), f"{id} is about faults that the atlas does not have"
    assert clause.source
    assert clause.mutants or clause.kind == "may", f"{id}: no seeded bug shows that it can fail"
    assert clause.kind != "may" or (KEPT / f"{id}.txt").exists(), f"{id}: no history is kept that shows it"
    for name in clause.mutants:
        assert name in MUTANTS, f"{id} names the seeded bug {name}, which does not exist"
        assert id in MUTANTS[name].kills, f"{id} says to catch {name}, which does not say so"


def test_every_seeded_bug_is_listed_by_a_clause() -> None:
    assert not set(STORE_MUTANTS) & set(CLUSTER_MUTANTS)
    listed = {name for clause in REGISTRY.values() for name in clause.mutants}
    assert set(MUTANTS) == listed


def test_specs_use_nothing_of_what_they_judge() -> None:
    for path in SPECS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not [n for n in names if n.split(".")[0] in ("trmq", "tests", "property")], f"{path.name}:{getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_has_a_model_that_is_small_enough_to_be_obviously_right_and_is_used(page: ModuleType) -> None:
    """The simplest thing that obeys. What no check asks is no model but an ornament."""
    found = models(page)
    assert found, f"{page.__name__}: no class of it says `Model: ...`"
    source = inspect.getsource(page)
    for model in found:
        lines = len(inspect.getsource(model).removeprefix("@dataclass\n").splitlines())
        assert lines <= MODEL_LINES, f"{page.__name__}: {model.__name__} has {lines} lines"
        assert len(re.findall(rf"\b{model.__name__}\b", source)) > 1, f"{page.__name__}: {model.__name__} is not used"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_begins_with_prose_that_quotes_its_source_and_says_what_is_not_promised(page: ModuleType) -> None:
    """A seed document by its file's name, its sentence in its own words, and what that says in English."""
    said, _, not_promised = prose(page).partition("**Not promised**: ")
    assert len(not_promised) > 40, "it says what is not promised"
    assert not_promised.endswith(".")
    if name_of(page) in WITHOUT_SEED:
        assert WITHOUT_SEED[name_of(page)] in said
        assert re.search(r'"[^"]{20,}"', said), "it quotes what it stands on"
        return
    assert re.search(r"`\d{3}_[0-9a-f]{16}\.txt`", said), "it names a seed document"
    quotes = re.findall(r'"[^"]*[\u4e00-\u9fff][^"]*"(\s\([a-z(])?', said)
    assert quotes, "it quotes a sentence of it"
    assert any(quotes), "it says in English what the sentence says"


def test_the_manual_is_current() -> None:
    """When two lines of work meet here: `python -m specs --write` again."""
    assert JUDGED.read_text() == judged_text(TESTS), "run `python -m specs --write`"
    assert (SPECS.parent / "docs" / "spec.md").read_text() == manual(), "run `python -m specs --write`"
    assert "docs/spec.md" in (SPECS / "README.md").read_text()
