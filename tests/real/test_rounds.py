"""Rounds of faults against real processes: nothing acknowledged is lost, nobody hangs, no answer is wrong, the group gets everything.

12 rounds here; 200 by `PYTHONPATH=tests python -m real --rounds 200 --jobs 2 --out docs/runs/l4.json`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio

from interop.cluster import Broker
from real.draw import DEPLOYMENTS, FAULTS, OF_PAIRS, ROUNDS, Plan, draw, may_mount
from real.life import Life
from real.load import Ack
from real.run import line, live, missing, report
from trmq.chaos.scenario import PAIRS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, mounts and 127.0.0.2 as Linux has them")


@pytest.mark.parametrize("deployment", [(7, "sync-pair", "sync"), (4, "async-pair", "async"), (3, "masters", "sync")], ids=lambda d: d[1])
def test_a_life(tmp_path: Path, seed: int, deployment: tuple[int, str, str]) -> None:
    """Four rounds each; `seed` says which."""
    number, mode, flush = deployment
    plan = draw(number + len(DEPLOYMENTS) * (seed % 1000), mounts=may_mount())
    assert (plan.mode, plan.flush) == (mode, flush)
    told = live(plan, tmp_path / "life")
    print(line(told), told.statuses)
    assert told.wrong == []
    assert told.lost == 0
    assert len(told.rounds) == ROUNDS
    assert told.acks > 20 * ROUNDS, "too few: this life shows nothing"
    assert told.given >= told.acks
    assert told.witnesses["H1"] == told.acks, "the checker was asked for every one of them"


def test_a_seeded_bug_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A master that answers before its slave has it is caught when that slave stands still."""
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (root / "tests", root))))
    start = Broker.start

    def with_bug(self: Broker) -> None:
        self.command = [sys.executable, "-m", "real.mutant", "ack_before_report", *self.command[self.command.index("serve") :]]
        start(self)

    monkeypatch.setattr(Broker, "start", with_bug)
    told = live(Plan(1, "sync-pair", "async", (("pause", "a1"),)), tmp_path / "life")
    assert any("was answered SEND_OK while no slave was alive" in wrong for wrong in told.wrong), told.wrong


def test_what_is_missing_is_found(tmp_path: Path) -> None:
    """The eye for lost messages: an acknowledgement whose message is nowhere, and one whose place another has."""
    life = Life(Plan(2, "single", "async", ()), tmp_path / "life")
    store = tmp_path / "a0" / "store"
    life.nodes["a0"] = Broker("trmq", tmp_path / "a0", {}, store)
    trio.run(life._holds, "a0", [Ack("id", "broker-a", 0, 0, 0, 0.0, 0.0)])
    assert life.told.lost == 1
    assert "is not at its place in the log of a0, there is None" in life.told.wrong[0]


def test_fifty_lives_meet_every_fault_in_every_deployment() -> None:
    plans = [draw(seed) for seed in range(50)]
    drawn = Counter((plan.mode, plan.flush, fault) for plan in plans for fault, _ in plan.faults)
    assert sum(drawn.values()) == 200
    for mode, flush in DEPLOYMENTS:
        for fault in FAULTS:
            assert (drawn[mode, flush, fault] >= 2) == (mode in PAIRS or fault not in OF_PAIRS), (mode, flush, fault)
    assert missing(report([], 0, 0)) != []
    assert draw(17) == draw(17) != draw(25)
    assert all(fault != "disk-full" for seed in range(50) for fault, _ in draw(seed, mounts=False).faults)
