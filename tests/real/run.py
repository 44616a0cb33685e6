"""Many lives, some at the same time, and the report of all of them."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio
from specs.checker import CLAUSES

from interop import jvm
from real.draw import DEPLOYMENTS, ELSEWHERE, FAULTS, OF_PAIRS, ROUNDS, Plan, draw, may_mount
from real.life import Life, Round, Told
from trmq.chaos.scenario import PAIRS

JAVA_TURN = 3
"""In each deployment every third life has the official client in it, where Java is."""
LIFE_SECONDS_MAX = 300
"""The watchdog over everything: longer is a hang."""


def live(plan: Plan, folder: Path, *, java: bool = False) -> Told:
    """One life from start to end in `folder`, which is its own. `java`: the official client sends, too."""

    async def main() -> Told:
        with trio.move_on_after(LIFE_SECONDS_MAX):
            return await Life(plan, folder, java=java).live()
        return Told(plan, wrong=[f"a hang: this life was not over after {LIFE_SECONDS_MAX} s"])

    return trio.run(main)


def live_somewhere(plan: Plan) -> Told:
    """In a folder that is kept if something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="trmq-real-"))
    java = plan.seed // len(DEPLOYMENTS) % JAVA_TURN == 1 and jvm.available()
    told = live(plan, folder / "life", java=java)
    if told.wrong:
        told.wrong.append(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return told


def run(rounds: int, first: int, jobs: int, say: Callable[[str], None]) -> tuple[list[Told], float]:
    """`rounds` rounds in lives from seed `first` on; the second is how many seconds that took."""
    mounts = may_mount()
    if jvm.available():
        jvm.classes()  # once, before lives wait for it
    plans = [draw(seed, mounts=mounts) for seed in range(first, first + -(-rounds // ROUNDS))]
    begin, told = time.monotonic(), []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for one in pool.map(live_somewhere, plans):
            told.append(one)
            say(line(one))
    return told, time.monotonic() - begin


def line(told: Told) -> str:
    gap = max((r.longest_gap_s for r in told.rounds), default=0.0)
    text = f"{told.plan}: {told.acks} SEND_OK, {told.lost} lost, {told.given} given, longest gap {gap:.1f} s, {told.seconds:.0f} s"
    if told.java_statuses:
        text += f"; the official client: {dict(told.java_statuses)}"
    return "\n".join([text, *(f"  WRONG: {wrong}" for wrong in told.wrong)])


def report(lives: Sequence[Told], seconds: float, first: int) -> dict[str, Any]:
    cells: dict[str, dict[str, Any]] = {}
    for told in lives:
        for each in told.rounds:
            _add(cells, told, each)
    witnesses: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for told in lives:
        statuses.update(told.statuses)
        for rule, count in told.witnesses.items():
            witnesses[CLAUSES[rule]] += count
    rounds = [each for told in lives for each in told.rounds]
    return {
        "level": "L4", "profile": "long", "commit": _commit(), "date": datetime.now(UTC).strftime("%Y-%m-%d"), "first_seed": first,
        "seeds": len(lives), "rounds": len(rounds), "events": sum(told.events for told in lives), "simulated_s": 0,
        "wall_s": round(seconds, 1), "acks": sum(told.acks for told in lives), "lost": sum(told.lost for told in lives),
        "given": sum(told.given for told in lives), "statuses": dict(statuses),
        "java": dict(sum((told.java_statuses for told in lives), Counter())),
        "longest_gap_s": round(max((each.longest_gap_s for each in rounds), default=0.0), 2),
        "longest_send_s": round(max((told.longest_send_s for told in lives), default=0.0), 2),
        "cells": cells, "elsewhere": ELSEWHERE | _unmounted(cells), "witnesses": dict(witnesses), "sometimes": _sometimes(lives),
        "violations": [f"{told.plan}: {wrong}" for told in lives for wrong in told.wrong],
    }  # fmt: skip


def _add(cells: dict[str, dict[str, Any]], told: Told, one: Round) -> None:
    empty = {"runs": 0, "hits": 0, "acks": 0, "lost": 0, "longest_gap_s": 0.0}
    cell = cells.setdefault(f"{told.plan.mode}|{told.plan.flush}|{one.fault}", empty)
    cell["runs"] += 1
    cell["hits"] += one.hit
    cell["acks"] += one.acks
    cell["lost"] += told.lost
    cell["longest_gap_s"] = round(max(cell["longest_gap_s"], one.longest_gap_s), 2)


def _unmounted(cells: dict[str, Any]) -> dict[str, str]:
    drawn = any(cell.endswith("|disk-full") for cell in cells)
    return {} if drawn or may_mount() else {"disk-full": "needs a file system of its own, and only root may mount one"}


def _sometimes(lives: Sequence[Told]) -> dict[str, int]:
    """What must have happened in some run of many, or they show little."""
    rounds = [each for told in lives for each in told.rounds]
    return {
        "a fault struck while a send was on its way": sum(each.hit for each in rounds),
        "a send was refused for certain": sum(told.statuses.get("FAILED", 0) for told in lives),
        "a send ended without an answer": sum(told.statuses.get("UNKNOWN", 0) for told in lives),
        "a slave was too late": sum(told.statuses.get("FLUSH_SLAVE_TIMEOUT", 0) for told in lives),
        "there was no slave": sum(told.statuses.get("SLAVE_NOT_AVAILABLE", 0) for told in lives),
    }


def missing(found: dict[str, Any]) -> list[str]:
    """Cells that ought to have rounds and have none."""
    possible = [fault for fault in FAULTS if fault not in found["elsewhere"]]
    return [
        f"{mode}|{flush}|{fault}" for mode, flush in DEPLOYMENTS for fault in possible
        if (mode in PAIRS or fault not in OF_PAIRS) and f"{mode}|{flush}|{fault}" not in found["cells"]
    ]  # fmt: skip


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def write(found: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def sentences(found: dict[str, Any]) -> str:
    return (
        f"{found['rounds']} rounds in {found['seeds']} lives from seed {found['first_seed']}: "
        f"{found['acks']} SEND_OK, {found['lost']} lost, {found['given']} given, "
        f"{len(found['violations'])} violations; longest gap {found['longest_gap_s']} s, longest send "
        f"{found['longest_send_s']} s; {found['wall_s']} s in all; cells without a round: {', '.join(missing(found)) or 'none'}"
    )
