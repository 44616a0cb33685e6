"""The cores on the heap: many seeds, every clause judged, every rare situation seen; one seed, one run; seeded bugs are found.

To replay one: `trmq sim --seed N`, or `trmq.chaos.heap.play(trmq.chaos.atlas.draw(N))`.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from specs.clause import checks

from chaos.heap_mutants import MUTANTS, HeapMutant
from trmq.chaos import atlas, judging, sometimes
from trmq.chaos.heap import play
from trmq.chaos.judging import CORES
from trmq.chaos.search import NEVER, Order, Tally, counts, main, search

FIRST, CI_SEEDS, FRESH, LONG_SEEDS = 1_000, 1_200, 200, 50_000
CORNERS = (
    (Order("cores", "masters", faults=("link", "cut")), 120),
    (Order("cores", "async-pair", faults=("machine", "kill", "cut")), 200),
    (Order("cores", flush="async", faults=("power",)), 200),
)
"""Where the rare things are: duplicates, promotions, torn records."""


def looked(order: Order, first: int, count: int) -> Tally:
    tally = search(order, first, count)
    assert not tally.violations, f"seeds {first} to {first + count}: {tally.violations[:3]}"
    return tally


@checks(*CORES)
def test_every_clause_holds_and_every_rare_thing_happens(profile: str) -> None:
    """The seeds are always the same, so that the list of what must come about can be without a zero."""
    tally = looked(Order("cores"), FIRST, LONG_SEEDS if profile == "long" else CI_SEEDS)
    for order, count in CORNERS:
        tally.merge(looked(order, FIRST, count))
    rate = tally.events / tally.played_s
    print(f"{tally.seeds} seeds, {tally.events} events, {rate:.0f} events/s a core, {tally.seeds / tally.busy_s:.0f} seeds/s with judging")
    print(f"struck: {counts(tally.hits)}\ncame about: {counts(tally.sometimes)}\nwitnesses: {counts(tally.witnesses)}")
    assert sometimes.never("cores", tally.sometimes) == [], "never came about"
    assert not [id for id in CORES if not tally.witnesses[id]], "clauses that nothing was judged by"
    assert not [fault for fault in atlas.FAULTS if not tally.hits[fault]], "faults that never struck"


@checks(*CORES)
def test_fresh_seeds(seed: int) -> None:
    tally = looked(Order("cores"), seed, FRESH)
    print(f"{tally.seeds} seeds from {seed}: {counts(tally.witnesses)}")


PRINT = "from trmq.chaos import atlas, heap; print(*(heap.play(atlas.draw(seed)).fingerprint for seed in range({first}, {first} + 40)))"


def test_the_same_seed_is_the_same_run_in_every_process(seed: int) -> None:
    prints = []
    for salt in ("0", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": salt}
        done = subprocess.run([sys.executable, "-c", PRINT.format(first=seed)], env=environment, capture_output=True, text=True, check=True)
        prints.append(done.stdout.split())
    assert prints[0] == prints[1], f"seeds from {seed}"
    assert len(set(prints[0])) > 35, "other seeds, other runs"


@pytest.mark.parametrize("name", MUTANTS)
def test_seeded_bugs_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one of the clauses that it names, among a bounded number of seeds of which the shipped code breaks nothing."""
    mutant = MUTANTS[name]
    seed = first_broken(mutant, monkeypatch)
    print(f"{name}: seed {seed}, the {seed - FIRST + 1}th")
    order = Order("cores", mutant.mode, mutant.flush, mutant.faults)
    looked(order, max(FIRST, seed - 100), min(100, seed - FIRST) + 1)


def first_broken(mutant: HeapMutant, monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        mutant.seed(patch)
        for seed in range(FIRST, FIRST + mutant.seeds):
            run = play(atlas.draw(seed, mutant.mode, mutant.flush, mutant.faults))
            broken = {part for id, _ in judging.judge(run).violations for part in (id, id.split()[0])}
            if broken.intersection(mutant.kills):
                return seed
    raise AssertionError(f"{mutant.name} broke none of {mutant.kills} in {mutant.seeds} seeds")


def test_search_writes_its_figures(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "runs" / "cores.json"
    assert main(["--seeds", "60", "--jobs", "1", "--mode", "sync-pair", "--faults", "kill,power", "--out", str(out), "--every", "3"]) == 0
    said = capsys.readouterr().out
    assert "60 seeds" in said
    assert "20 judged by all clauses" in said
    assert '"sync-pair|async|kill"' in out.read_text()


@pytest.mark.parametrize(("more", "code"), [((), NEVER), (("--mode", "sync-pair"), 0)], ids=["all is drawn", "a mode is given"])
def test_search_fails_when_something_never_came_about(
    more: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer seeds than are enough, or not everything drawn, it only says so."""
    few = ["--seeds", "12", "--first", str(FIRST), "--jobs", "1", *more]
    assert main(few) == 0
    assert "no wonder" in capsys.readouterr().out
    monkeypatch.setattr(sometimes, "ENOUGH", {"cores": 12})
    assert main(few) == code
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("never came about")
    assert "a slave had no room" in said
