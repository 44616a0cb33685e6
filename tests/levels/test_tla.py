"""S: a TLA+ model of log, flush, replication and acks, written from the documents; what it promises holds, what it does not can be lost.
And histories of the shipped cores are histories that the model allows: judged by its twin in Python for many, by TLC for a few.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from specs.history import History, Told
from specs.tla_twin import Act, Rules, Twin, module, rules_of, told

from chaos.cores import SETTINGS, VERBS, Cores, play
from levels import runs, tlc

CONFIGS = sorted(tlc.MODELS.glob("*.cfg"), key=lambda path: path.name)
EXPECTED = {"lost": "NoLoss", "apache": "AckImpliesHeld"}
"""By the first word of a configuration's name: the invariant that must be seen to fail."""
AT_EVERY_COMMIT = {
    "sync_async_one_machine", "async_sync_power", "lost_async_promoted", "lost_sync_async_power_of_both", "apache_longer_slave",
}  # fmt: skip
FOUND: dict[str, dict[str, object]] = {}
MODELLED = [verb for verb in VERBS if verb != "expire_segments"]
"""Retention is not in the model."""


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


def test_histories_of_the_cores_are_what_the_model_allows(profile: str) -> None:
    first, count = (0, 2000) if profile == "long" else (0, 100)
    kinds: Counter[str] = Counter()
    events = 0
    for seed in range(first, first + count):
        history = lived(seed, 60)
        acts = told(history)
        found = Twin(rules_of(history)).rejected(acts)
        assert found is None, f"{history.origin}: the model does not allow event {found}, after {acts[max(0, found[0] - 8) : found[0]]}"
        assert sum(act[0] == "ack" for act in acts) == sum(event.status == "OK" for event in history.all(Told))
        kinds.update(str(act[0]) for act in acts)
        events += len(acts)
    print(f"TLA+: {count} histories, {events} events of the model: {dict(kinds.most_common())}")
    assert not {"store", "replicate", "say", "hear", "ack", "power", "connect", "refuse", "truncate"} - set(kinds)
    if profile == "long":
        runs.write("tla", configs=FOUND, traces={"histories": count, "events": events, "kinds": dict(sorted(kinds.items()))})


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


def waited() -> tuple[Rules, list[Act]]:
    """A short history in which an ack waited for a slave."""
    for seed in range(200):
        history = lived(seed, 40)
        rules, acts = rules_of(history), told(history)
        if rules.need > 1 and 20 < len(acts) < 150 and any(act[0] == "ack" for act in acts):
            return rules, acts
    raise AssertionError("no such history")


def test_an_ack_before_its_report_is_rejected() -> None:
    rules, acts = waited()
    assert Twin(rules).rejected(acts) is None
    wrong = corrupted(acts, rules)
    found = Twin(rules).rejected(wrong)
    assert found is not None
    assert found[1][0] == "ack"


@pytest.mark.parametrize("damaged", [False, True])
def test_tlc_judges_a_trace_as_the_twin_does(damaged: bool) -> None:
    rules, acts = waited()
    text, config = module(rules, corrupted(acts, rules) if damaged else acts)
    found = tlc.check("Trace", config, more={"Trace": text})
    assert found.violated == ("" if damaged else "NotDone"), "TLC reaches the end of a trace exactly if the model allows it"
