"""`python -m specs > specs/README.md`: the manual, printed from the clauses."""

from __future__ import annotations

import sys

from . import PAGES
from .clause import REGISTRY, Clause

HEAD = """# What trmq promises

Printed from the clauses in this folder by `python -m specs > specs/README.md`; a test fails when it is out of date. Each page says in
prose what it is about and what is *not* promised; then its clauses. A clause is a function over a history (its words: `history.py`) that
yields each occasion on which it said something, and whether it held. Tests name the clauses they judge with `@checks`. Each clause
names seeded bugs that it is known to catch; a test seeds them.
"""


def row(clause: Clause) -> str:
    mutants = ", ".join(clause.mutants)
    kind = "" if clause.kind == "must" else f" *({clause.kind})*"
    return f"| {clause.id} | {clause.says}{kind} | {clause.source} | {mutants} | {clause.upstream} |"


def manual() -> str:
    parts = [HEAD]
    for page in PAGES:
        assert page.__doc__ is not None
        parts.append("#" + page.__doc__.strip() + "\n")
        parts.append("| Clause | Says | Source | Seeded bugs it catches | Apache RocketMQ 5.4.0 |\n| --- | --- | --- | --- | --- |")
        parts.append("\n".join(row(clause) for clause in REGISTRY.values() if clause.check.__module__ == page.__name__) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(manual())
