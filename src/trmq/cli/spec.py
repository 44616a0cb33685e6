"""`trmq spec`: what is promised, clause by clause, and what is not. All of it comes from the package `specs`."""

from __future__ import annotations

from difflib import get_close_matches
from textwrap import indent
from typing import Annotated, Literal

from cyclopts import Parameter
from specs import PAGES
from specs.clause import REGISTRY, Clause
from specs.manual import clauses, facts, fields, name_of, prose, title

from trmq.errors import ConfigError

from .output import Output, show, show_one

Format = Annotated[Output, Parameter(name=["--output", "-o"])]
NAMES = {name_of(page): page for page in PAGES}


def list_spec(
    *, page: str | None = None, kind: Literal["must", "eventually", "may"] | None = None,
    mode: Literal["single", "masters", "async-pair", "sync-pair"] | None = None, output: Format = Output.table,
) -> int:  # fmt: skip
    """Every clause: a sentence that holds always (must), within a time (eventually), or that can happen (may).

    Example: trmq spec list --page ack
    Example: trmq spec list --mode sync-pair -o json

    Parameters
    ----------
    page
        Only this page.
    kind
        Only clauses of this kind.
    mode
        Only what is said of this deployment.
    """
    if page is not None and page not in NAMES:
        raise ConfigError(unknown("page", page, list(NAMES)))
    found = [c for c in REGISTRY.values() if page in (None, c.page) and kind in (None, c.kind) and (mode is None or mode in c.modes)]
    if output is Output.table:
        show([{"id": c.id, "kind": c.kind, "page": c.page, "says": c.says, "Apache_RocketMQ": c.upstream} for c in found], output)
    else:
        show([fields(clause) for clause in found], output)
    return 0


def show_spec(name: str, *, output: Format = Output.table) -> int:
    """A page with all of its clauses, or a clause with the prose of its page.

    Example: trmq spec show P-ACK-8
    Example: trmq spec show ack

    Parameters
    ----------
    name
        A clause (P-ACK-8) or a page (ack), as `trmq spec list` has them.
    """
    ids = {id.lower(): id for id in REGISTRY}
    key = name.lower()
    if key in ids:
        one = REGISTRY[ids[key]]
        if output is Output.table:
            print(f"{prose(NAMES[one.page])}\n\n{describe(one)}", end="")
        else:
            show_one(fields(one) | {"prose": prose(NAMES[one.page])}, output)
    elif key in NAMES:
        page = NAMES[key]
        if output is Output.table:
            print("\n\n".join([prose(page), *(describe(clause) for clause in clauses(page))]), end="")
        else:
            show_one({"page": key, "title": title(page), "prose": prose(page), "clauses": [fields(c) for c in clauses(page)]}, output)
    else:
        raise ConfigError(unknown("clause or page", name, [*ids, *NAMES], ids))
    return 0


def unknown(what: str, name: str, known: list[str], spelled: dict[str, str] | None = None) -> str:
    near = get_close_matches(name.lower(), known, 1, 0.3)
    hint = f" Did you mean {(spelled or {}).get(near[0], near[0])}?" if near else ""
    return f"there is no {what} {name}.{hint} `trmq spec list` prints all."


def describe(clause: Clause) -> str:
    width = max(len(name) for name in facts(clause))
    lines = "".join(f"{name:<{width}}  {text.replace('`', '')}\n" for name, text in facts(clause).items())
    return f"{clause.id}  {clause.says}\n\n{indent(lines, '  ')}"
