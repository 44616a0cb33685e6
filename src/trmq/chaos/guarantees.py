"""`docs/guarantees.md`: what is promised in each deployment whatever strikes it, and how often that was put to the test.

    python -m trmq.chaos.guarantees docs/runs > docs/guarantees.md

The promises stand here, a row per kind of fault (`atlas.FAULTS`); the figures are read from the files that the searches wrote: `runs` is
how many histories were judged in which that kind was on, `hits` how often it really struck something. A cell without figures has a reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from specs.clause import REGISTRY
from specs.loss import ASYNC_PAIR, MASTERS, PROMOTED, RETURNS, SINGLE, SYNC_PAIR, may_lose

from trmq.chaos.atlas import FAULTS
from trmq.chaos.scenario import FLUSHES, MODES, PAIRS, Mode
from trmq.errors import ConfigError

LEVELS = {"cores": "L2", "shell": "L3", "L4": "L4"}
DEPLOYED: Mapping[Mode, str] = {"single": SINGLE, "masters": MASTERS, "async-pair": ASYNC_PAIR, "sync-pair": SYNC_PAIR}
FLUSH_TYPES = {"async": "ASYNC_FLUSH", "sync": "SYNC_FLUSH"}
TABLE_B = {"close": "close", "kill": "kill", "os-crash": "os", "power": "power", "machine": "machine", "disk": "disk"}
CLAUSES: Mapping[str, tuple[str, ...]] = {
    "close": ("P-REC-1", "P-LOSS-1"), "kill": ("P-REC-2", "P-LOSS-1"), "os-crash": ("P-REC-3", "P-LOSS-1"),
    "power": ("P-REC-3", "P-REC-5", "P-LOSS-1"), "machine": ("P-LOSS-1", "P-Q-3"), "disk": ("P-LOSS-1", "P-HA-8"),
    "pause": ("P-ACK-4", "P-LOSS-1"), "cut": ("P-Q-1", "P-DUP-1"), "link": ("P-HA-7", "P-DUP-1"), "disk-full": ("P-LOG-5", "P-LOSS-1"),
    "io-error": ("P-FLUSH-6", "P-LOSS-1"), "rot": ("P-REC-4",), "clock": ("P-LOG-4", "P-ACK-4"), "stranger": ("P-STR-1", "P-STR-4"),
}  # fmt: skip
WITH_SLAVE: Mapping[str, tuple[str, ...]] = {
    "kill": ("P-SLV-6",), "power": ("P-HA-R1",), "disk": ("P-ACK-8",), "machine": ("P-ACK-8", "P-SLV-6"), "pause": ("P-ACK-1", "P-HA-6"),
    "cut": ("P-ACK-1", "P-HA-5", "P-SLV-4"), "link": ("P-HA-2", "P-HA-3"), "rot": ("P-SLV-1",), "stranger": ("P-HA-4", "P-ACK-1"),
}  # fmt: skip
LOST = {
    "": "nothing", "W": "what was not flushed yet", "R": "what the slave did not have yet",
    "W and R": "what was neither flushed nor on the slave", "all": "everything of that group",
}  # fmt: skip
OTHERS: Mapping[str, str] = {
    "pause": "nothing; sends wait and are answered late, or not at all", "cut": "nothing; sends without an answer may be stored",
    "link": "nothing; sends without an answer may be stored", "disk-full": "nothing; sends are refused",
    "io-error": "nothing that was on the platter; a broker whose fsync fails stops", "clock": "nothing",
    "rot": "the altered record: nobody is handed an altered body; a start that finds it refuses",
    "stranger": "nothing; the others are served",
}  # fmt: skip
NO_MACHINE = "a process cannot take the page cache with it; recorded disk calls of a real broker are crashed by the power model instead"
REASONS: Mapping[tuple[str, str], str] = {
    ("L4", "os-crash"): NO_MACHINE, ("L4", "power"): NO_MACHINE,
    ("L4", "machine"): "the same as a kill without a restart, which L4 does not count apart",
    ("L4", "disk"): "without a slave everything of that group is gone, and nothing is left to be judged",
    ("L4", "rot"): "`trmq store check` and the start are tested on altered files",
    ("L4", "clock"): "all processes share the machine's clock",
    ("L4", "io-error"): "a real disk does not fail on demand",
}  # fmt: skip


@attrs.frozen
class Cell:
    runs: int = 0
    hits: int = 0
    lost: int = 0

    def __add__(self, other: Cell) -> Cell:
        return Cell(self.runs + other.runs, self.hits + other.hits, self.lost + other.lost)


Cells = dict[tuple[str, str, str, str], Cell]
"""(level, mode, flush, fault) -> figures."""


def load(folder: Path) -> list[dict[str, Any]]:
    """The results of searches in a folder, in order of name. Raises `ConfigError` naming a file that is none."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            run = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON ({error}): write it again with `python -m trmq.chaos.search --out`") from None
        if isinstance(run, dict) and run.get("level") in LEVELS:
            found.append(run)
    return found


def cells_of(runs: Sequence[Mapping[str, Any]]) -> Cells:
    cells: Cells = {}
    for run in runs:
        for key, value in run.get("cells", {}).items():
            mode, flush, fault = key.split("|")
            place = (run["level"], mode, flush, fault)
            cells[place] = cells.get(place, Cell()) + Cell(value.get("runs", 0), value.get("hits", 0), value.get("lost", 0))
    return cells


def promise(mode: Mode, flush: str, fault: str) -> str:
    """What of the messages answered SEND_OK may be lost."""
    if fault not in TABLE_B:
        return OTHERS[fault]
    endings = (RETURNS, PROMOTED) if mode in PAIRS and fault not in ("machine", "disk") else (PROMOTED if mode in PAIRS else RETURNS,)
    lost = [may_lose(DEPLOYED[mode], flush == "sync", TABLE_B[fault], ending) for ending in endings]
    if len(set(lost)) == 1:
        return LOST[lost[0]]
    return f"{LOST[lost[0]]} if it returns; {LOST[lost[1]]} if its slave is made master"


def clauses(mode: Mode, flush: str, fault: str) -> tuple[str, ...]:
    found = CLAUSES[fault] + (WITH_SLAVE.get(fault, ()) if mode in PAIRS else ())
    if fault in ("power", "os-crash") and flush == "sync":
        found = ("P-FLUSH-1", *found)
    return tuple(dict.fromkeys(found))


def why_empty(level: str, fault: str) -> str:
    return REASONS.get((level, fault), "")


def figure(cells: Cells, level: str, mode: Mode, flush: str, fault: str) -> str:
    cell = cells.get((level, mode, flush, fault), Cell())
    if cell.runs:
        return f"{cell.runs:,} / {cell.hits:,}" + (f" / {cell.lost:,} lost" if cell.lost else "")
    return "–"


def links(ids: Sequence[str]) -> str:
    return ", ".join(f"[{id}](spec.md#{id.lower()})" for id in ids)


def table(cells: Cells, mode: Mode, flush: str) -> Iterator[str]:
    yield f"### {DEPLOYED[mode].capitalize()}, {FLUSH_TYPES[flush]}\n"
    yield "| fault of a broker | of what was answered SEND_OK, lost may be | clauses | " + " | ".join(LEVELS.values()) + " |"
    yield "| --- | --- | --- | " + " | ".join("---:" for _ in LEVELS) + " |"
    for fault in FAULTS:
        figures = " | ".join(figure(cells, level, mode, flush, fault) for level in LEVELS)
        yield f"| {fault} | {promise(mode, flush, fault)} | {links(clauses(mode, flush, fault))} | {figures} |"
    yield ""


def whole_runs(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| level | seeds | from | events | simulated | wall | violations | version |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for run in runs:
        yield (
            f"| {LEVELS[run['level']]} {run.get('profile', '')} | {run.get('seeds', 0):,} | {run.get('first_seed', '')} "
            f"| {run.get('events', 0):,} | {run.get('simulated_s', 0):,.0f} s | {run.get('wall_s', 0):,.0f} s "
            f"| {len(run.get('violations', []))} "
            f"| {str(run.get('commit', ''))[:8]}, {run.get('date', '')} |"
        )
    yield ""


def counted(runs: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, int]]:
    """name -> level -> count, over all runs."""
    found: dict[str, dict[str, int]] = {}
    for run in runs:
        for name, count in run.get(key, {}).items():
            levels = found.setdefault(name, {})
            levels[run["level"]] = levels.get(run["level"], 0) + count
    return found


def counts(title: str, found: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    yield f"| {title} | " + " | ".join(LEVELS.values()) + " |"
    yield "| --- | " + " | ".join("---:" for _ in LEVELS) + " |"
    for name in sorted(found):
        yield f"| {name} | " + " | ".join(f"{found[name].get(level, 0):,}" if level in found[name] else "–" for level in LEVELS) + " |"
    yield ""


HEAD = """# Guarantees

Generated from the last long runs by `python -m trmq.chaos.guarantees docs/runs > docs/guarantees.md`; a test fails when it is out of date.

What a deployment promises when a fault strikes one of its brokers, with the clauses that say it ([`spec.md`](spec.md)), and at each level
of checking how many histories were judged with that fault in them and how often it really struck ("runs / hits"; a run may have several
kinds of fault, so rows overlap). L2: the pure cores on a heap of events. L3: the shipped servers and clients on a simulated disk, network
and clock. L4: installed programs, real processes and files. How they work: [`verification.md`](verification.md).

The faults: """


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    cells = cells_of(runs)
    unknown = {id for fault in FAULTS for mode in MODES for flush in FLUSHES for id in clauses(mode, flush, fault)} - set(REGISTRY)
    assert not unknown, f"the table names clauses that do not exist: {sorted(unknown)}"
    lines = [HEAD + "; ".join(f"**{name}**: {says}" for name, says in FAULTS.items()) + ".\n", "## The long runs\n", *whole_runs(runs)]
    lines.append("## Faults, deployments, flush modes\n")
    for mode in MODES:
        for flush in FLUSHES:
            lines += table(cells, mode, flush)
    lines.append("A dash in a column of figures has a reason:\n")
    for (level, fault), reason in REASONS.items():
        if any(not cells.get((level, mode, flush, fault)) for mode in MODES for flush in FLUSHES):
            lines.append(f"* {LEVELS[level]}, {fault}: {reason}.")
    lines.append("\n## What came about\n\nRare situations that must have happened for the runs to mean anything; none may be zero.\n")
    lines += counts("situation", counted(runs, "sometimes"))
    lines.append("## Witnesses\n\nHow often each clause had something to say, and held.\n")
    lines += counts("clause", counted(runs, "witnesses"))
    return "\n".join(lines).rstrip() + "\n"


def empty_without_reason(cells: Cells) -> list[tuple[str, str, str, str]]:
    """Cells in which nothing was run and that have no reason, or where the fault never struck."""
    every = [(level, mode, flush, fault) for level in LEVELS for mode in MODES for flush in FLUSHES for fault in FAULTS]
    return [
        (level, mode, flush, fault) for level, mode, flush, fault in every
        if not cells.get((level, mode, flush, fault), Cell()).hits and not why_empty(level, fault)
    ]  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(page(load(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/runs"))))
