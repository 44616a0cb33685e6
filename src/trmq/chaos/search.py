"""Many seeds, in several processes: `python -m trmq.chaos.search --level cores --seeds 100000 --jobs 2 --out FILE`.

A seed draws its scenario (`atlas.draw`), the level plays it, the clauses judge it. What is printed and written: seeds, events, simulated
seconds, how often each kind of fault really struck, what came about, witnesses of every clause, and every violation with the seed and the
scenario that shows it. Stops early after twenty different violations.

Exit code 1: a violation. 3: nothing was violated, but something of the list of what must come about (`sometimes.SOMETIMES`) never did, in
so many seeds that it had to (`sometimes.ENOUGH`: 10,000 of the cores, 4,000 of the shell; only where modes, flushes and faults were drawn).
The last line of what is printed names it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from trmq.chaos import atlas, judged, judging, sometimes
from trmq.chaos.run import Run
from trmq.chaos.scenario import FLUSHES, MODES, Flush, Mode, Scenario

DISTINCT_MAX = 20
VIOLATED, NEVER = 1, 3
"""Exit codes."""
CHUNK = {"cores": 250, "shell": 2}


@attrs.define
class Tally:
    """What some seeds gave. `cells`: "mode|flush|fault" -> runs, hits, witnesses, lost."""

    seeds: int = 0
    judged_by_all: int = 0
    events: int = 0
    words: int = 0
    simulated_s: float = 0.0
    busy_s: float = 0.0
    """Processor time, of playing and judging."""
    played_s: float = 0.0
    """Of playing alone."""
    hits: Counter[str] = attrs.Factory(Counter)
    sometimes: Counter[str] = attrs.Factory(Counter)
    witnesses: Counter[str] = attrs.Factory(Counter)
    cells: dict[str, dict[str, Any]] = attrs.Factory(dict)
    violations: list[dict[str, Any]] = attrs.Factory(list)

    def add(self, scenario: Scenario, faults: Sequence[str], run: Run, found: judging.Judgement) -> None:
        self.seeds += 1
        self.events += run.events
        self.words += len(run.history.events)
        self.simulated_s += run.simulated_s
        self.hits.update(run.hits)
        self.sometimes.update(run.sometimes)
        self.witnesses.update(found.witnesses)
        for fault in faults or ("none",):
            cell = self.cells.setdefault(
                f"{scenario.mode}|{scenario.flush}|{fault}", {"runs": 0, "hits": 0, "witnesses": Counter(), "lost": 0}
            )  # fmt: skip
            cell["runs"] += 1
            cell["hits"] += run.hits[fault]
            cell["lost"] += found.lost
            cell["witnesses"].update(found.witnesses)
        for clause, witness in found.violations:
            self.broke(scenario, clause, witness)

    def broke(self, scenario: Scenario, clause: str, witness: str) -> None:
        self.violations.append({"seed": scenario.seed, "clause": clause, "witness": witness[:400], "scenario": scenario.render()})

    def merge(self, other: Tally) -> None:
        for name in ("seeds", "judged_by_all", "events", "words", "simulated_s", "busy_s", "played_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("hits", "sometimes", "witnesses"):
            getattr(self, name).update(getattr(other, name))
        for key, cell in other.cells.items():
            mine = self.cells.setdefault(key, {"runs": 0, "hits": 0, "witnesses": Counter(), "lost": 0})
            for name in ("runs", "hits", "lost"):
                mine[name] += cell[name]
            mine["witnesses"].update(cell["witnesses"])
        self.violations += other.violations

    def distinct(self) -> int:
        """Violations of one seed by one clause are one."""
        return len({(found["seed"], found["clause"]) for found in self.violations})


@attrs.frozen
class Order:
    """What to draw and how to judge. `every`: all clauses judge one seed in so many, the few of `ALWAYS` and the checker the others."""

    level: judged.Level
    mode: Mode | None = None
    flush: Flush | None = None
    faults: tuple[str, ...] | None = None
    length: int = 12
    every: int = 1


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def search(order: Order, first: int, count: int) -> Tally:
    """Play and judge `count` seeds from `first` on."""
    tally, play = Tally(), judged.player(order.level)
    for seed in range(first, first + count):
        scenario = atlas.draw(seed, order.mode, order.flush, order.faults, length=order.length)
        faults = scenario.comment.removeprefix("faults: ").split(", ")
        faults = [] if faults == ["none"] else faults
        began = time.process_time()
        try:
            run = play(scenario)
        except Exception as error:
            tally.seeds += 1
            tally.broke(scenario, f"raised {type(error).__name__}", str(error))
            continue
        played = time.process_time()
        whole = seed % order.every == 0
        every = judging.CORES if order.level == "cores" else judging.CLUSTER
        tally.add(scenario, faults, run, judging.judge(run, every if whole else judging.ALWAYS))
        tally.judged_by_all += whole
        tally.played_s += played - began
        tally.busy_s += time.process_time() - began
    return tally


def search_all(order: Order, first: int, count: int, jobs: int) -> Tally:
    """The same in so many processes; says how far it is every ten seconds, and stops early at twenty different violations."""
    tally, at, end, chunk = Tally(), first, first + count, CHUNK[order.level]
    began = said = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        running: set[Future[Tally]] = set()
        while running or at < end:
            while at < end and len(running) < 2 * jobs:
                running.add(pool.submit(search, order, at, min(chunk, end - at)))
                at += chunk
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                part = one.result()
                for found in part.violations:
                    say(told(found))
                tally.merge(part)
            if tally.distinct() >= DISTINCT_MAX:
                at = end
            if time.monotonic() - said >= 10:
                said = time.monotonic()
                rate = tally.seeds / (said - began)
                say(f"{tally.seeds} of {count} seeds, {rate:.0f} a second, {tally.distinct()} violations")
    return tally


def told(violation: Mapping[str, Any]) -> str:
    return f"VIOLATION of {violation['clause']} by seed {violation['seed']}: {violation['witness']}"


def report(order: Order, first: int, tally: Tally, wall_s: float) -> str:
    """For people."""
    lines = [
        f"level {order.level}: {tally.seeds} seeds from {first}, {tally.events} events, {tally.words} words, "
        f"{tally.simulated_s:.0f} simulated s in {wall_s:.1f} s",
        f"{tally.judged_by_all} judged by all clauses, the others by {', '.join(judging.ALWAYS)} and the checker",
        f"a core: {tally.events / max(tally.played_s, 1e-9):.0f} events/s while playing, "
        f"{tally.simulated_s / max(tally.played_s, 1e-9):.0f} simulated s/s while playing, "
        f"{tally.seeds / max(tally.busy_s, 1e-9):.1f} seeds/s with judging, "
        f"{tally.simulated_s / max(tally.busy_s, 1e-9):.0f} simulated s/s",
        f"faults that struck: {counts(tally.hits)}",
        f"came about: {counts(tally.sometimes)}",
        f"witnesses: {counts(tally.witnesses)}",
    ]  # fmt: skip
    lines += [told(found) for found in tally.violations[:50]]
    lines.append("no violation" if not tally.violations else f"{tally.distinct()} violations; play one again: trmq sim --seed N")
    little = "" if is_enough(order, tally) else ", which is no wonder with so few seeds or not all drawn"
    lines.append(f"never came about{little}: {', '.join(zeros(order, tally)) or 'nothing'}")
    return "\n".join(lines)


def zeros(order: Order, tally: Tally) -> list[str]:
    return sometimes.never(order.level, tally.sometimes)


def is_enough(order: Order, tally: Tally) -> bool:
    """Whether all that must come about had its chance."""
    drawn = (order.mode, order.flush, order.faults) == (None, None, None)
    return drawn and tally.seeds >= sometimes.ENOUGH[order.level]


def counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {found[name]}" for name in sorted(found))


def record(order: Order, first: int, tally: Tally, wall_s: float, profile: str, commit: str) -> dict[str, Any]:
    """For programs."""
    return {
        "level": order.level, "profile": profile, "commit": commit, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "seeds": tally.seeds,
        "first_seed": first, "every": order.every, "judged_by_all": tally.judged_by_all, "length": order.length, "events": tally.events,
        "simulated_s": round(tally.simulated_s, 1), "wall_s": round(wall_s, 1), "busy_s": round(tally.busy_s, 1),
        "played_s": round(tally.played_s, 1), "hits": tally.hits, "cells": tally.cells, "sometimes": tally.sometimes,
        "witnesses": tally.witnesses, "never": zeros(order, tally), "violations": tally.violations[:200],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trmq.chaos.search", description="Play and judge many seeds.")
    parser.add_argument("--level", choices=sorted(CHUNK), default="cores")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures to this file, as JSON")
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--flush", choices=FLUSHES)
    parser.add_argument("--faults", help="kinds, with commas between them; none are drawn then")
    parser.add_argument("--length", type=int, default=12, help="most steps of a scenario")
    parser.add_argument("--every", type=int, default=1, help="judge one seed in so many by all clauses, the others by a few")
    parser.add_argument("--profile", default="long", help="a name for the run, written to the file")
    parser.add_argument("--commit", default="", help="the commit, written to the file")
    given = parser.parse_args(arguments)
    faults = None if given.faults is None else tuple(part for part in given.faults.split(",") if part)
    order = Order(given.level, given.mode, given.flush, faults, given.length, given.every)
    began = time.monotonic()
    tally = search_all(order, given.first, given.seeds, given.jobs)
    wall_s = time.monotonic() - began
    say(report(order, given.first, tally, wall_s))
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        content = record(order, given.first, tally, wall_s, given.profile, given.commit)
        given.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return VIOLATED if tally.violations else NEVER if is_enough(order, tally) and zeros(order, tally) else 0


if __name__ == "__main__":
    sys.exit(main())
