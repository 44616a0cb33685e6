"""The kill matrix: which clause catches which seeded bug, after how many histories.

    PYTHONPATH=tests:. python -m chaos.kill_matrix             # all of it, for docs/runs/kill-matrix.json and docs/kill-matrix.md
    PYTHONPATH=tests:. python -m chaos.kill_matrix --stale     # what is new, or is listed by other clauses than in the file
    PYTHONPATH=tests:. python -m chaos.kill_matrix --only NAME ...

Without `--only` and `--stale` everything is played again; with them the other rows of the file stay. The same stories are played without
any bug first: nothing counts as caught where that baseline is not green. A bug that a clause which lists it did not notice is a survivor,
unless `EXPLAINED` says why; the exit code is 1 then. On the heap of cores, where one of the clauses is enough, the number is that of seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from specs import CLUSTER, PAGES, STORE, manual
from specs.clause import REGISTRY, Verdict

from chaos import every, heap_mutants
from property import upkeep, upkeep_mutants
from property.mutants import Mutant
from trmq.chaos import atlas, heap, judging
from trmq.log import service

DOCS = Path(__file__).parent.parent.parent / "docs"
OUT, PAGE = DOCS / "runs" / "kill-matrix.json", DOCS / "kill-matrix.md"
SEED = "pinned"
SMALL_REACH = 6000
FIRST = 1_000
"""The first seed on the heap."""
STORIES, CORES = "stories", "cores"
CONTROLLER = "not yet: there is no controller"
APACHE: dict[str, tuple[str, ...] | str] = {
    "#3015, #1155: a report beyond the log is believed": ("believes_any_report",),
    "#10666: a truncated tail is still valid on disk": ("cut_is_not_durable", "no_zero_after_cut"),
    "#7689: queue offsets are given out again after recovery to the confirm offset": ("queue_hole", "queue_overhang"),
    "#4771: consumer offsets ahead of a truncated log": ("beyond_the_end_waits",),
    "#5663: the sync-state set is known to the controller and not yet to the master": CONTROLLER,
    "#7017: an isolated master goes on acknowledging": CONTROLLER,
    "#9689: an epoch entry is missing when a master keeps its role": CONTROLLER,
    "#6342: two sync-state sets with one epoch": CONTROLLER,
    "unclean election": CONTROLLER,
}
"""Bugs that lost messages of Apache RocketMQ's users, and the seeded bugs that are like them (the nearest that the code here allows)."""
EXPLAINED: dict[str, str] = {}
"""Survivor -> why it may live. Empty is best."""
MUST = tuple(clause.id for one in PAGES for clause in manual.clauses(one) if clause.kind != "may")
"""The clauses that can be broken, in the order of the manual."""
Key = tuple[str, str]
"""Where it is played, and its name: some of the stories' bugs are played on the heap as well."""
Row = dict[str, Any]


def registered() -> dict[Key, tuple[str, ...]]:
    """Every seeded bug, with the clauses (on the heap: or rules) that say they catch it."""
    found: dict[Key, tuple[str, ...]] = {}
    for name in (*upkeep_mutants.MUTANTS, *every.MUTANTS):
        found[STORIES, name] = tuple(sorted(id for id, clause in REGISTRY.items() if name in clause.mutants))
    for name, mutant in heap_mutants.MUTANTS.items():
        found[CORES, name] = mutant.kills
    return found


def key(row: Mapping[str, Any]) -> Key:
    return row["level"], row["mutant"]


def stale(rows: Iterable[Mapping[str, Any]]) -> list[Key]:
    """What these rows do not say of the seeded bugs that there are."""
    known = {key(row): tuple(row["listed_by"]) for row in rows}
    return [one for one, listed in registered().items() if known.get(one) != listed]


# --- playing


def play(
    names: tuple[str, ...], scenarios: Mapping[str, Any], ids: tuple[str, ...], wanted: set[str], patient: bool
) -> tuple[Verdict, dict[str, int]]:
    """(verdict, clause → after how many histories it was first broken), until all that is `wanted` is broken."""
    verdict, first = Verdict(), {}
    for name in names:
        for history in scenarios[name](SEED, patient):
            verdict.judge(history, ids)
            for id in verdict.broken():
                first.setdefault(id, verdict.histories)
            if wanted and wanted <= set(first):
                return verdict, first
    return verdict, first


def row(mutant: Mutant, scenarios: Mapping[str, Any], ids: tuple[str, ...], green: dict[str, bool]) -> Row:
    for name in mutant.scenarios:
        if name not in green:
            green[name] = not play((name,), scenarios, ids, set(), False)[0].violations
    listed = set(registered()[STORIES, mutant.name])
    with pytest.MonkeyPatch.context() as patch:
        mutant.seed(patch)
        verdict, first = play(mutant.scenarios, scenarios, ids, listed, True)
    is_green = all(green[name] for name in mutant.scenarios)
    return {
        "level": STORIES, "mutant": mutant.name, "listed_by": sorted(listed), "caught_by": {id: first[id] for id in sorted(first)},
        "missed_by": sorted(listed - set(first)), "histories": verdict.histories, "scenarios": list(mutant.scenarios), "green": is_green,
        "killed": listed <= set(first) and is_green,
    }  # fmt: skip


def heap_row(mutant: heap_mutants.HeapMutant) -> Row:
    """The first seed at which one of its clauses notices; without the bug all seeds up to that one are green."""
    caught, number = set[str](), 0
    with pytest.MonkeyPatch.context() as patch:
        mutant.seed(patch)
        while not caught and number < mutant.seeds:
            caught = broken(mutant, FIRST + number) & set(mutant.kills)
            number += 1
    is_green = not any(broken(mutant, FIRST + one) for one in range(number))
    return {
        "level": CORES, "mutant": mutant.name, "listed_by": list(mutant.kills), "caught_by": dict.fromkeys(sorted(caught), number),
        "missed_by": [] if caught else list(mutant.kills), "histories": number, "green": is_green, "killed": bool(caught) and is_green,
        "scenarios": [part for part in (mutant.mode, mutant.flush and f"{mutant.flush} flush", *(mutant.faults or ())) if part],
    }  # fmt: skip


def broken(mutant: heap_mutants.HeapMutant, seed: int) -> set[str]:
    """What one seed broke: clauses, and rules of the checker both as "P-HIS-3 (H3)" and "P-HIS-3"."""
    run = heap.play(atlas.draw(seed, mutant.mode, mutant.flush, mutant.faults))
    return {part for id, _ in judging.judge(run).violations for part in (id, id.split()[0])}


def rows_of(wanted: Iterable[Key], commit: str) -> list[Row]:
    found, keys = [], set(wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "REACH_BYTES", SMALL_REACH)
        parts = ((upkeep_mutants.MUTANTS, upkeep.SCENARIOS, STORE), (every.MUTANTS, every.SCENARIOS, CLUSTER))
        for mutants, scenarios, ids in parts:
            green: dict[str, bool] = {}
            for mutant in mutants.values():
                if (STORIES, mutant.name) in keys:
                    found.append(said(row(mutant, scenarios, ids, green), commit))
    for other in heap_mutants.MUTANTS.values():
        if (CORES, other.name) in keys:
            found.append(said(heap_row(other), commit))
    return found


def said(one: Row, commit: str) -> Row:
    fate = "SURVIVED" if one["missed_by"] else "" if one["green"] else "NOT GREEN without it"
    sys.stderr.write(f"{one['level']} {one['mutant']}: {one['caught_by']} of {one['histories']} {fate}\n")
    sys.stderr.flush()
    return {**one, "commit": commit}


# --- what came of it


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    every_row = sorted(rows, key=lambda one: (one["level"] == CORES, one["mutant"]))
    return {
        "seed": SEED, "mutants": len(every_row), "killed": sum(one["killed"] for one in every_row), "rows": every_row,
        "survivors": [f"{one['level']} {one['mutant']}" for one in every_row if not one["killed"] and one["mutant"] not in EXPLAINED],
        "clauses": clauses_of(every_row),
    }  # fmt: skip


def clauses_of(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Clause -> the seeded bugs of the stories that it lists and has caught."""
    found: dict[str, list[str]] = {id: [] for id in MUST}
    for one in rows:
        for id in one["caught_by"] if one["level"] == STORIES and one["green"] else ():
            if id in one["listed_by"] and id in found:
                found[id].append(one["mutant"])
    return found


def page(found: Mapping[str, Any]) -> str:
    """The same for readers."""
    told = [one for one in found["rows"] if one["level"] == STORIES]
    cores = [one for one in found["rows"] if one["level"] == CORES]
    lines = [
        "# Which clause catches which seeded bug", "",
        "Generated by `PYTHONPATH=tests:. python -m chaos.kill_matrix`; a test fails when a seeded bug or a clause is missing here. A",
        "seeded bug is the shipped code with one protection taken away. It is played in stories that are green without it, and each clause",
        "that lists it has to notice. The same for programs: [`runs/kill-matrix.json`](runs/kill-matrix.json).", "",
        f"{sum(one['killed'] for one in told)} of {len(told)} are caught by every clause that lists them, "
        f"{sum(one['killed'] for one in cores)} of {len(cores)} on the heap of cores.", "",
        "## In stories of whole stores and clusters", "",
        "The number is that of the history in which the clause first noticed. Playing ends when all have, so that more might.", "",
        "| Seeded bug | Caught by | Stories |", "| --- | --- | --- |",
        *(table_row(one) for one in told),
        "", "## On the heap of cores (L2)", "",
        "Random lives with these deployments and faults; one of the clauses that are listed has to notice. The number is that of the",
        f"seed, counted from {FIRST:,}; without the bug all seeds up to it are green.", "",
        "| Seeded bug | Caught by | Lives |", "| --- | --- | --- |",
        *(table_row(one) for one in cores),
        "", "## Clause by clause", "",
        "What can happen and is forbidden by nothing (*may*) cannot be broken; a history of each such clause is kept instead.", "",
        "| Clause | Seeded bugs that it has caught |", "| --- | --- |",
    ]  # fmt: skip
    for id in MUST:
        lines.append(f"| {link(id)} | {', '.join(f'`{name}`' for name in found['clauses'][id]) or '**none**'} |")
    if EXPLAINED:
        lines += ["", "## Survivors", "", *(f"* `{name}`: {why}" for name, why in EXPLAINED.items())]
    lines += ["", "## Bugs that Apache RocketMQ had", "", "| Bug | Seeded here as |", "| --- | --- |"]
    for bug, like in APACHE.items():
        lines.append(f"| {bug} | {like if isinstance(like, str) else ', '.join(f'`{name}`' for name in like)} |")
    lines += ["", "## Elsewhere", "",
        "The decisions of L0, the small scopes of L1, the history checker, the TLA+ model and the real processes of L4 have seeded bugs of",
        "their own; their tests fail if one of them lives ([`verification.md`](verification.md)).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def table_row(one: Mapping[str, Any]) -> str:
    caught = [f"{link(id)} ({number:,})" for id, number in one["caught_by"].items()]
    caught += [f"**not by {link(id)}**" for id in one["missed_by"]]
    return f"| `{one['mutant']}` | {', '.join(caught)} | {', '.join(one['scenarios']) or 'any'} |"


def link(id: str) -> str:
    return f"[{id}](spec.md#{id.split()[0].lower()})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--page", type=Path, default=PAGE, help="the page for readers")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="play these seeded bugs only")
    parser.add_argument("--stale", action="store_true", help="play only those of which the file does not speak")
    parser.add_argument("--page-only", action="store_true", help="play nothing, write the page again")
    parser.add_argument("--commit", default="", help="the commit, written to the rows")
    given = parser.parse_args()
    began = time.monotonic()
    logging.disable(logging.CRITICAL)
    known = {key(one): one for one in json.loads(given.out.read_text())["rows"]} if given.out.exists() else {}
    wanted = list(registered())
    if given.page_only:
        wanted = []
    elif given.only is not None:
        wanted = [one for one in wanted if one[1] in given.only]
    elif given.stale:
        wanted = stale(known.values())
    rows = known | {key(one): one for one in rows_of(wanted, given.commit)}
    found = summary(one for name, one in rows.items() if name in registered())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    given.page.write_text(page(found))
    silent = [id for id, names in found["clauses"].items() if not names]
    sys.stdout.write(
        f"{len(wanted)} played in {time.monotonic() - began:.0f} s; {found['killed']} of {found['mutants']} killed\n"
        f"survivors: {', '.join(found['survivors']) or 'none'}\nclauses that caught nothing: {', '.join(silent) or 'none'}\n"
    )
    return 1 if found["survivors"] or silent else 0


if __name__ == "__main__":
    sys.exit(main())
