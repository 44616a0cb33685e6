"""The clauses for readers: as rows, and as the manual `docs/spec.md`. All prose is the docstring of a page."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from inspect import getdoc
from pathlib import Path
from types import ModuleType
from typing import Any

from . import CLUSTER, PAGES, STORE
from .clause import MODES, REGISTRY, Clause

HERE = Path(__file__).parent
JUDGED = HERE / "judged.txt"
"""Which test judges which clause: a clause and a test a line, read from the tests."""
HEAD = """# What trmq promises

Generated from the pages in [`specs/`](../specs) by `python -m specs --write`; a test fails when it is out of date. On a command line:
`trmq spec list`, `trmq spec show P-ACK-8`.

Each page says in prose what it is about and what is *not* promised; then come its clauses. A clause is one sentence and a function over a
history (its words: `specs/history.py`) that yields each occasion on which the sentence said something, and whether it held. There are three
kinds: *must* holds in every history, *eventually* within the time that it names, and *may* can happen and is forbidden by nothing here: a
history that shows it is kept. Each clause names seeded bugs that it is known to catch, and the tests that judge it. *Seen by clients* are
clauses that need nothing but what a client sends and is told, so that any cluster can be judged by them; the others look at disks and
links as well.
"""
GROUPS = {"REGISTRY": tuple(REGISTRY), "STORE": STORE, "CLUSTER": CLUSTER}
"""What a starred name in `@checks` stands for."""


def name_of(page: ModuleType) -> str:
    return page.__name__.rpartition(".")[2]


def prose(page: ModuleType) -> str:
    return (getdoc(page) or "").strip()


def title(page: ModuleType) -> str:
    return prose(page).partition("\n")[0].lstrip("# ")


def clauses(page: ModuleType) -> list[Clause]:
    return [clause for clause in REGISTRY.values() if clause.check.__module__ == page.__name__]


def models(page: ModuleType) -> list[type]:
    """The classes of the page that say how the thing behaves: the simplest ones that obey."""
    own = [thing for thing in vars(page).values() if isinstance(thing, type) and thing.__module__ == page.__name__]
    return [thing for thing in own if (thing.__doc__ or "").startswith("Model")]


# --- which test judges what


def judged_by(tests: Path) -> dict[str, list[str]]:
    """Clause id → the tests that name it in `@checks`, read from their source; a starred name stands for every clause it can mean."""
    found: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "checks":
                    for id in [id for arg in mark.args for id in _ids(arg)]:
                        found.setdefault(id, []).append(f"{path.relative_to(tests)}::{node.name}")
    return found


def _ids(arg: ast.expr) -> tuple[str, ...]:
    if isinstance(arg, ast.Starred):
        return GROUPS.get(ast.unparse(arg.value), ())
    return (str(arg.value),) if isinstance(arg, ast.Constant) else ()


def judged_text(tests: Path) -> str:
    return "".join(f"{id} {test}\n" for id, names in sorted(judged_by(tests).items()) for test in sorted(set(names)))


@cache
def judged() -> Mapping[str, tuple[str, ...]]:
    """Clause id → tests, as the package carries it."""
    found: dict[str, tuple[str, ...]] = {}
    for line in JUDGED.read_text().splitlines() if JUDGED.exists() else ():
        id, _, test = line.partition(" ")
        found[id] = (*found.get(id, ()), test)
    return found


# --- for readers


def fields(clause: Clause) -> dict[str, Any]:
    """Everything about a clause, as plain data."""
    return {
        "id": clause.id, "kind": clause.kind, "page": clause.page, "says": clause.says, "apache": clause.upstream, "source": clause.source,
        "modes": list(clause.modes), "faults": list(clause.faults), "visible": clause.visible, "mutants": list(clause.mutants),
        "judged_by": list(judged().get(clause.id, ())),
    }  # fmt: skip


def facts(clause: Clause) -> dict[str, str]:
    """What stands below a clause's sentence."""
    kept = f"a kept history, `tests/chaos/kept/{clause.id}.txt`"
    return {
        "Kind": clause.kind + (", seen by clients" if clause.visible == "client" else ""),
        "Where": "every deployment" if clause.modes == MODES else ", ".join(clause.modes),
        "Faults": ", ".join(clause.faults) or "any, and none",
        "Source": clause.source,
        "Apache RocketMQ 5.4.0": clause.upstream,
        "Seeded bugs it catches": ", ".join(f"`{name}`" for name in clause.mutants) or f"none: it is shown by {kept}",
        "Judged by": ", ".join(f"`{name}`" for name in judged().get(clause.id, ())) or "no test",
    }


def entry(clause: Clause) -> str:
    lines = [f"### {clause.id}", "", f"**{clause.says}**", ""]
    return "\n".join([*lines, *(f"- {name}: {text}" for name, text in facts(clause).items()), ""])


def overview() -> str:
    """Every clause in one table, with a link to its entry."""
    rows = ["## All clauses", "", "| Clause | Kind | Says |", "| --- | --- | --- |"]
    rows += [f"| [{c.id}](#{c.id.lower()}) | {c.kind} | {c.says} |" for page in PAGES for c in clauses(page)]
    return "\n".join([*rows, ""])


def manual() -> str:
    """The text of `docs/spec.md`."""
    parts = [HEAD, overview()]
    for page in PAGES:
        parts.append("#" + prose(page) + "\n")
        for model in models(page):
            parts.append(f"The model, `specs/{name_of(page)}.py`, `{model.__name__}`: {' '.join((model.__doc__ or '').split())[7:]}\n")
        parts += [entry(clause) for clause in clauses(page)]
    return "\n".join(parts).rstrip() + "\n"
