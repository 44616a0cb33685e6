"""`trmq sim`: a cluster's life in a simulated world, told and judged. The same seed, the same life."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Parameter
from specs.clause import REGISTRY

from trmq.chaos.atlas import draw
from trmq.chaos.judged import CRASH, Judged, Level, Play, breaks, judge, player
from trmq.chaos.scenario import Flush, Mode, Scenario, parse
from trmq.chaos.shrink import shrink as shortest
from trmq.chaos.story import tell
from trmq.errors import ConfigError

from . import EXIT_VIOLATED
from .common import text_of

KEPT = Path("tests/chaos/scenarios")
"""Where scenarios are kept, seen from the top of the source tree."""
SHOWN = 5
"""Witnesses shown of each broken clause."""


def sim(
    *, seed: int | None = None, mode: Mode | None = None, flush: Flush | None = None, faults: str | None = None, level: Level = "shell",
    scenario: str | None = None, shrink: bool = False, story: bool = True,
    output: Annotated[Literal["text", "json"], Parameter(name=["--output", "-o"])] = "text",
) -> int:  # fmt: skip
    """Play a cluster's life from a seed, print what happened, and judge it by every clause. Exit code 6 if a promise was broken.

    The brokers, clients and (at level shell) servers are the shipped code; disk, network, clocks and dice are simulated.

    Example: trmq sim --seed 7 --mode sync-pair --faults power,cut
    Example: trmq sim --scenario both-lose-power --level cores -o json
    Example: trmq sim --seed 7 --shrink

    Parameters
    ----------
    seed
        Decides everything that is left open: what happens when, delays, what a disk keeps. 1 unless given; in a scenario, its own.
    mode
        single, masters (two groups), async-pair or sync-pair. Drawn from the seed unless given.
    flush
        async or sync. Drawn from the seed unless given.
    faults
        Kinds of fault that may strike, with commas: kill,power. `none` for none; drawn from the seed unless given.
    level
        shell: whole servers and clients. cores: only what decides, on a heap of events; some thousand times faster.
    scenario
        Play this file, or the one of this name in tests/chaos/scenarios, instead of drawing one.
    shrink
        If a promise is broken: leave out of the scenario whatever is not needed for that, and keep the short one as a file.
    story
        Print what happened, event by event (text only).
    output
        text or json.
    """
    chosen = load(scenario, seed, mode, flush, faults) if scenario is not None else draw(
        1 if seed is None else seed, mode, flush, kinds(faults)
    )
    logging.disable(logging.CRITICAL)  # of brokers that die as they should
    try:
        play = player(level)
        judged = judge(chosen, play)
        broken = judged.broken()
        kept = keep(judged, play, level) if shrink and broken else None
    finally:
        logging.disable(logging.NOTSET)
    if output == "json":
        print(json.dumps(facts(judged, level) | ({} if kept is None else {"kept": str(kept)}), ensure_ascii=False))
    else:
        show(judged, level, story=story)
        if kept is not None:
            print(f"\nThe shortest that still breaks {broken[0]} is kept: {kept}")
        elif shrink:
            print("\nThere is nothing to shrink.")
    return EXIT_VIOLATED if broken else 0


def kinds(faults: str | None) -> tuple[str, ...] | None:
    if faults is None:
        return None
    return () if faults == "none" else tuple(dict.fromkeys(fault.strip() for fault in faults.split(",") if fault.strip()))


def load(name: str, seed: int | None, mode: Mode | None, flush: Flush | None, faults: str | None) -> Scenario:
    """Raises `ConfigError` if there is none, it is none, or the other arguments contradict it."""
    if faults is not None:
        raise ConfigError("--faults is for drawing a scenario; the file says itself which faults strike")
    path = Path(name)
    if not path.is_file():
        path = KEPT / f"{name.removesuffix('.txt')}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in KEPT.glob("*.txt")))
        hint = f"; known by name: {known}" if known else f", and no folder {KEPT} here that it could be a name in"
        raise ConfigError(f"there is no scenario file {name}{hint}")
    text, where = text_of(path, "")
    found = parse(text, where)
    for what, given, said in (("mode", mode, found.mode), ("flush", flush, found.flush)):
        if given is not None and given != said:
            raise ConfigError(f"{where} is a scenario of {what} {said}, which --{what} {given} contradicts")
    return found if seed is None else attrs.evolve(found, seed=seed)


def keep(judged: Judged, play: Play, level: Level) -> Path:
    """Shrink the scenario and write it where scenarios are kept (in the source tree) or here; returns the file."""
    broken = judged.broken()
    short = shortest(judged.scenario, breaks(broken, play))
    says = "a program crashes" if broken[0] == CRASH else REGISTRY[broken[0]].says
    short = attrs.evolve(short, comment=f"breaks {broken[0]} at level {level}: {says}\nshrunk from {len(judged.scenario.steps)} steps")
    folder = KEPT if Path("src/trmq").is_dir() and KEPT.parent.is_dir() else Path()
    folder.mkdir(exist_ok=True)
    stem = f"{broken[0].lower()}-seed-{judged.scenario.seed}"
    path, text = folder / f"{stem}.txt", short.render()
    number = 2
    while path.exists() and path.read_text(encoding="utf-8") != text:
        path = folder / f"{stem}-{number}.txt"
        number += 1
    path.write_text(text, encoding="utf-8")
    return path


def facts(judged: Judged, level: Level) -> dict[str, Any]:
    """Everything about a life, for programs."""
    run, scenario = judged.run, judged.scenario
    found: dict[str, Any] = {
        "seed": scenario.seed, "mode": scenario.mode, "flush": scenario.flush, "level": level, "scenario": scenario.render(),
        "held": not judged.broken(), "broken": judged.broken(), "witnesses": judged.witnesses(),
        "violations": [{"clause": id, "witness": str(witness)} for id, witness in judged.violations()],
    }  # fmt: skip
    if run is not None:
        found |= {
            "events": run.events, "simulated_s": run.simulated_s, "hits": dict(sorted(run.hits.items())),
            "sometimes": dict(sorted((name, count) for name, count in run.sometimes.items() if count)),
            "owed": judged.report.owed, "promised": judged.report.promised, "lost": judged.report.lost, "fingerprint": run.fingerprint,
            "story": [attrs.asdict(line) for line in tell(run.history)],
        }  # fmt: skip
    return found


def show(judged: Judged, level: Level, *, story: bool) -> None:
    """The scenario, what happened, and the verdict."""
    print(judged.scenario.render())
    if judged.run is not None and story:
        for line in tell(judged.run.history):
            print(line)
        print()
    verdict(judged)
    run, report = judged.run, judged.report
    if run is None:
        return
    print(f"\nfaults that hit: {counts(run.hits) or 'none'}")
    print(f"what came about: {counts(run.sometimes) or 'nothing unusual'}")
    print(f"messages: {report.owed} answered SEND_OK, the promise stands for {report.promised}; {report.lost} lost that may be")
    print(f"{run.events} events in {run.simulated_s:.1f} simulated seconds at level {level}; fingerprint {run.fingerprint[:16]}")


def counts(of: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(of.items()) if count)


def verdict(judged: Judged) -> None:
    """Per clause: held or broken, and how often it had something to say."""
    broken, witnesses = judged.broken(), judged.witnesses()
    silent = [id for id, count in witnesses.items() if not count]
    for id, count in witnesses.items():
        if id not in broken and count:
            print(f"held    {id:<10} {count:>6}  {REGISTRY[id].says}")
    if silent:
        print(f"silent  {', '.join(silent)}: nothing happened that they speak of")
    for id in broken:
        says = "a program ended by an error that it should not raise" if id == CRASH else REGISTRY[id].says
        print(f"BROKEN  {id:<10} {witnesses.get(id, 0):>6}  {says}")
        found = [witness for name, witness in judged.violations() if name == id]
        for witness in found[:SHOWN]:
            print(f"        {witness}")
        if len(found) > SHOWN:
            print(f"        and {len(found) - SHOWN} more")
