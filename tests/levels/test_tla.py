"""S: a TLA+ model of log, flush, replication and acks, written from the documents; what it promises holds, what it does not can be lost.
And histories of the shipped cores are histories that the model allows, be they moved by dice or by the heap of level 2 with its disks and
faults: judged by its twin in Python for many, by TLC for a few.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from specs.history import Asked, History, Told
from specs.tla_twin import Act, Rules, Twin, module, rules_of, told

from chaos.cores import SETTINGS, VERBS, Cores, play
from chaos.heap_mutants import MUTANTS
from levels import runs, tlc
from trmq.chaos import heap
from trmq.chaos.atlas import FAULTS, KIND, draw
from trmq.chaos.scenario import FLUSHES, PAIRS, Scenario, parse

CONFIGS = sorted(tlc.MODELS.glob("*.cfg"), key=lambda path: path.name)
EXPECTED = {"lost": "NoLoss", "apache": "AckImpliesHeld"}
"""By the first word of a configuration's name: the invariant that must be seen to fail."""
AT_EVERY_COMMIT = {
    "sync_async_one_machine", "async_sync_power", "lost_async_promoted", "lost_sync_async_power_of_both", "apache_longer_slave",
}  # fmt: skip
FOUND: dict[str, dict[str, object]] = {}
MODELLED = [verb for verb in VERBS if verb != "expire_segments"]
"""Retention is not in the model."""
UNKNOWN = {"rot"}
"""Nor is a disk that gives back something else than what was written."""
KNOWN = sorted(set(FAULTS) - UNKNOWN)
KEPT = Path(__file__).parent.parent / "chaos" / "scenarios"
TRACES: dict[str, object] = {}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_model_promises_what_it_says_and_nothing_more(path: object, profile: str) -> None:
    name = str(getattr(path, "stem", path))
    config = (tlc.MODELS / f"{name}.cfg").read_text()
    if profile != "long":
        if name not in AT_EVERY_COMMIT:
            pytest.skip("runs with --profile long")
        config = config.replace("MaxRecords = 3", "MaxRecords = 2")
    began = time.perf_counter()
    found = tlc.check("Replication", config)
    spent = round(time.perf_counter() - began, 1)
    end = f"{found.violated} fails after {found.steps} steps" if found.violated else "holds"
    print(f"TLA+, {name}: {found.distinct} states, {spent} s, {end}")
    assert found.violated == EXPECTED.get(name.partition("_")[0], "")
    FOUND[name] = {"distinct_states": found.distinct, "violated": found.violated, "steps": found.steps, "wall_s": spent}


def test_the_twin_and_the_model_have_the_same_states() -> None:
    config = (tlc.MODELS / "sync_async_one_machine.cfg").read_text().replace("MaxRecords = 3", "MaxRecords = 2")
    assert tlc.check("Replication", config).distinct == Twin(Rules(need=2, faults_max=1, most=2)).states()


def lived(seed: object, steps: int) -> History:
    """A random life of the shipped cores."""
    rng = random.Random(f"trace/{seed}")
    need, minimum, gap, slaves, auto = SETTINGS[rng.randrange(len(SETTINGS))]
    lab = Cores(seed, need=need, minimum=minimum, gap=gap, slaves=slaves, auto=auto)
    return play(lab, [(rng.choice(MODELLED), rng.randrange(6)) for _ in range(steps)]).history(f"trace {seed}")


def scene(seed: int) -> Scenario:
    """Of a pair, with faults that the model knows."""
    dice = random.Random(f"trace/{seed}")
    mode, flush = dice.choice(PAIRS), dice.choice(FLUSHES)
    return draw(seed, mode, flush, dice.sample(KNOWN, dice.choice((1, 1, 2, 3))), length=16)


def allowed(histories: Iterable[History]) -> dict[str, object]:
    """All of these are; how many events of which kind they were."""
    kinds: Counter[str] = Counter()
    count = 0
    for history in histories:
        acts = told(history)
        found = Twin(rules_of(history)).rejected(acts)
        assert found is None, f"{history.origin}: the model does not allow event {found}, after {acts[max(0, found[0] - 8) : found[0]]}"
        unwaited = {event.id for event in history.all(Asked) if not event.wait}
        acked = [event for event in history.all(Told) if event.status == "OK" and event.id not in unwaited]
        assert sum(act[0] == "ack" for act in acts) == len(acked)
        kinds.update(str(act[0]) for act in acts)
        count += 1
    print(f"TLA+: {count} histories, {sum(kinds.values())} events of the model: {dict(kinds.most_common())}")
    return {"histories": count, "events": sum(kinds.values()), "kinds": dict(sorted(kinds.items()))}


def test_histories_of_the_cores_are_what_the_model_allows(profile: str) -> None:
    found = allowed(lived(seed, 60) for seed in range(2000 if profile == "long" else 100))
    assert not {"store", "replicate", "say", "hear", "ack", "power", "connect", "refuse", "truncate"} - set(found["kinds"])  # type: ignore[call-overload]
    TRACES["cores"] = found


def scenes(count: int) -> list[Scenario]:
    """The scenarios that are kept, and `count` from seeds."""
    kept = [parse(path.read_text(encoding="utf-8"), path.name) for path in sorted(KEPT.glob("*.txt"))]
    known = [one for one in kept if one.mode in PAIRS and {KIND.get(step.verb, "") for step in one.steps}.isdisjoint(UNKNOWN)]
    return known + [scene(seed) for seed in range(count)]


def test_runs_of_the_heap_are_what_the_model_allows(profile: str) -> None:
    found = allowed(heap.play(one, masters_too=True).history for one in scenes(2000 if profile == "long" else 120))
    wanted = {"store", "flush", "replicate", "say", "hear", "ack", "connect", "kill", "power", "machine", "return", "promote", "truncate"}
    assert not wanted - set(found["kinds"])  # type: ignore[call-overload]
    TRACES["heap"] = found
    if profile == "long" and len(FOUND) == len(CONFIGS) and len(TRACES) == 2:
        runs.write("tla", configs=FOUND, traces=TRACES)


REJECTED = (
    "ack_before_report", "believes_any_report", "lowered_to_one", "nobody_is_enough", "longer_slave_accepted", "empty_slave_starts_late",
    "report_before_write", "report_before_sync", "flush_lies", "recovery_trusts_the_cache",
)
"""Seeded bugs of the heap, by name, whose runs the model must not allow. Others break what it does not speak of: frames, times, tries."""


@pytest.mark.parametrize("name", REJECTED)
def test_the_model_does_not_allow_what_a_seeded_bug_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    for seed in range(mutant.seeds):
        scenario = draw(seed, mutant.mode or "sync-pair", mutant.flush, mutant.faults, length=16)
        with monkeypatch.context() as patch:
            mutant.seed(patch)
            wrong = heap.play(scenario, masters_too=True).history
        found = Twin(rules_of(wrong)).rejected(told(wrong))
        if found is not None:
            print(f"{name}: seed {seed}, the model does not allow event {found}")
            allowed([heap.play(scenario, masters_too=True).history])
            return
    raise AssertionError(f"the model allows what {name} does in {mutant.seeds} runs")


def corrupted(acts: list[Act], rules: Rules) -> list[Act]:
    """The first ack that needed a report moved before that report."""
    for at, act in enumerate(acts):
        before = [n for n in range(at) if acts[n][0] == "hear"]
        if act[0] == "ack" and before and rules.need > 1:
            for n in before:
                moved = [*acts[:n], act, *acts[n:at], *acts[at + 1 :]]
                if Twin(rules).rejected(moved) == (n, act) and acts[n - 1][0] != "store":
                    return moved
    raise AssertionError("no ack that waited for a report")


LIVED = {"cores": lambda seed: lived(seed, 40), "heap": lambda seed: heap.play(scene(seed), masters_too=True).history}


def waited(who: str = "cores") -> tuple[Rules, list[Act]]:
    """A short history in which an ack waited for a slave; of the heap, one in which a slave takes over, too."""
    wanted = {"ack"} if who == "cores" else {"ack", "promote", "return"}
    for seed in range(200):
        history = LIVED[who](seed)
        rules, acts = rules_of(history), told(history)
        if rules.need > 1 and 20 < len(acts) < 150 and wanted <= {act[0] for act in acts}:
            return rules, acts
    raise AssertionError("no such history")


def test_an_ack_before_its_report_is_rejected() -> None:
    rules, acts = waited()
    assert Twin(rules).rejected(acts) is None
    wrong = corrupted(acts, rules)
    found = Twin(rules).rejected(wrong)
    assert found is not None
    assert found[1][0] == "ack"


@pytest.mark.parametrize("who", LIVED)
@pytest.mark.parametrize("damaged", [False, True])
def test_tlc_judges_a_trace_as_the_twin_does(damaged: bool, who: str) -> None:
    rules, acts = waited(who)
    text, config = module(rules, corrupted(acts, rules) if damaged else acts)
    found = tlc.check("Trace", config, more={"Trace": text})
    assert found.violated == ("" if damaged else "NotDone"), "TLC reaches the end of a trace exactly if the model allows it"
