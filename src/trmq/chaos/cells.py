"""The matrix: every kind of fault in every deployment and flush mode, each a scenario that strikes while sends are on their way.

    python -m trmq.chaos.cells --level shell --runs 20 --jobs 2 --out docs/runs/l3-cells.json

What is written has the form that the page of guarantees is made from.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from trmq.chaos import judged, judging
from trmq.chaos.atlas import FAULTS
from trmq.chaos.noises import draw as draw_noise
from trmq.chaos.scenario import CLIENT, FLUSHES, MODES, NAMES, NODES, PAIRS, Flush, Mode, Scenario, Step, port_of
from trmq.errors import ConfigError

Cell = tuple[Mode, Flush, str]
CELLS: tuple[Cell, ...] = tuple((mode, flush, fault) for mode in MODES for flush in FLUSHES for fault in FAULTS)


def scenario_of(mode: Mode, flush: Flush, fault: str, turn: int) -> Scenario:
    """The `turn`-th scenario of a cell: a first load, the fault once or twice among sends, more sends, then whoever fell starts."""
    number = list(FAULTS).index(fault) + 100 * (MODES.index(mode) * 2 + FLUSHES.index(flush)) + 10_000 * turn
    dice = random.Random(f"cell/{mode}/{flush}/{fault}/{turn}")
    node = NODES[mode][turn % len(NODES[mode])]
    steps = [Step(0.1, "send", ("3",)), Step(0.5, "send", ("3",))]
    at = 12.0 if turn % 4 == 1 else 1.0  # what came before was flushed, or was not
    near = round(at + dice.choice((0.0, 0.001)), 3)
    steps += [Step(at, "send", ("4",)), *(Step(near, verb, args) for verb, args in _strike(fault, node, mode, dice))]
    steps += [Step(round(at + 0.002, 3), "send", ("2",)), Step(at + 0.5, "send", ("2",)), Step(at + 3.0, "send", ("3",))]
    if mode in PAIRS and fault in ("kill", "os-crash", "power", "machine", "disk", "close") and node == "a0" and (
        turn % 3 == 2 or fault in ("machine", "disk")
    ):
        steps += [Step(at + 6.0, "promote", ("a1",)), Step(at + 8.0, "send", ("2",))]
    steps += [Step(at + 9.0, "heal"), Step(at + 9.0, "resume", (node,)), Step(at + 9.0, "disk-free", (node,))]
    steps += [Step(at + 9.5, "start", (node,)), Step(at + 11.0, "send", ("2",))]
    return Scenario(mode, flush, number, tuple(steps), f"faults: {fault}")


def _strike(fault: str, node: str, mode: Mode, dice: random.Random) -> list[tuple[str, tuple[str, ...]]]:
    other = next((name for name in NODES[mode] if name != node and mode in PAIRS), CLIENT)
    place = dice.choice((other, CLIENT))
    match fault:
        case "cut":
            return [(dice.choice(("cut", "cut-one-way", "part")), (node, place))]
        case "link":
            seconds = dice.choice(("0.05", "0.5", "2.0"))
            return [dice.choice((
                ("reset", (node, place)), ("slow", (place, node, seconds)), ("drop", (place, node, "100")), ("clog", (node,)),
                ("split", ()), ("slow-disk", (node, "0.2")),
            ))]  # fmt: skip
        case "io-error":
            return [(dice.choice(("sync-fails", "write-fails", "read-fails")), (node,))]
        case "rot":
            return [(dice.choice(("rot", "misdirect")), (node, str(dice.randrange(1 << 16))))]
        case "clock":
            jump = ("jump", (node, dice.choice(("-3600", "3600", "-5"))))
            return [jump if dice.random() < 0.6 else ("drift", (node, dice.choice(("0", "0.5", "2"))))]
        case "stranger":
            lie = ("stranger", (node, dice.choice(("1", "4000", "1099511627776"))))
            return [lie, *(("noise", (port, draw_noise(dice, port_of(port)[1]))) for port in (node, f"{NODES[mode][0]}/ha", NAMES))]
        case _:
            return [(fault, (node,))]


def play_cell(level: judged.Level, runs: int, cell: Cell) -> dict[str, Any]:
    """What `runs` plays of a cell gave."""
    mode, flush, fault = cell
    logging.disable(logging.CRITICAL)
    play = judged.player(level)
    found: dict[str, Any] = {"runs": 0, "hits": 0, "witnesses": Counter(), "lost": 0}
    sometimes: Counter[str] = Counter()
    violations: list[dict[str, Any]] = []
    events, simulated_s = 0, 0.0
    for turn in range(runs):
        scenario = scenario_of(mode, flush, fault, turn)
        run = play(scenario)
        judgement = judging.judge(run, judging.CLUSTER)
        found["runs"] += 1
        found["hits"] += run.hits[fault]
        found["witnesses"].update(judgement.witnesses)
        found["lost"] += judgement.lost
        sometimes += run.sometimes
        events, simulated_s = events + run.events, simulated_s + run.simulated_s
        told = scenario.render()
        violations += [{"seed": scenario.seed, "clause": id, "witness": said[:400], "scenario": told} for id, said in judgement.violations]
    return {"cell": found, "sometimes": sometimes, "violations": violations, "events": events, "simulated_s": simulated_s}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trmq.chaos.cells", description="Play and judge every cell of the matrix of faults.")
    parser.add_argument("--level", choices=("cores", "shell"), default="shell")
    parser.add_argument("--runs", type=int, default=20, help="plays of each cell")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures to this file, as JSON")
    parser.add_argument("--profile", default="long")
    parser.add_argument("--commit", default="")
    given = parser.parse_args(arguments)
    if given.runs < 1:
        raise ConfigError("--runs must be at least 1")
    began = time.monotonic()
    with ProcessPoolExecutor(given.jobs) as pool:
        done = list(pool.map(partial(play_cell, given.level, given.runs), CELLS))
    cells = {"|".join(cell): one["cell"] for cell, one in zip(CELLS, done, strict=True)}
    sometimes, witnesses = Counter[str](), Counter[str]()
    for one in done:
        sometimes += one["sometimes"]
        witnesses += one["cell"]["witnesses"]
    result = {
        "level": given.level, "profile": given.profile, "commit": given.commit, "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seeds": len(CELLS) * given.runs, "first_seed": 0, "events": sum(one["events"] for one in done),
        "simulated_s": round(sum(one["simulated_s"] for one in done), 1), "wall_s": round(time.monotonic() - began, 1), "cells": cells,
        "sometimes": sometimes, "witnesses": witnesses, "violations": [found for one in done for found in one["violations"]],
    }  # fmt: skip
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    never = [name for name, cell in cells.items() if not cell["hits"]]
    lines = [
        f"{len(cells)} cells, {result['seeds']} plays, {result['simulated_s']} simulated s in {result['wall_s']} s",
        f"cells that were never struck: {', '.join(never) or 'none'}",
        *(f"VIOLATION of {found['clause']} by\n{found['scenario']}{found['witness']}" for found in result["violations"][:20]),
        f"{len(result['violations'])} violations",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
