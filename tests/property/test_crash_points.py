"""A crash inside every single disk call of a workload: killed or out of power, in both flush modes, and what follows is judged.

The log, its queues and the answers are compared with what the producers sent and heard: see `specs/`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from specs.clause import Verdict, checks
from specs.history import History

from property.sweep import RETENTION, WORKLOAD, crashes_in_recovery, sweep

EVERY = [f"P-LOG-{n}" for n in range(1, 9)] + [f"P-REC-{n}" for n in range(1, 10)] + [f"P-CQ-{n}" for n in range(1, 8)]
WORKLOADS = {"work": WORKLOAD, "retention": RETENTION}


def judge(histories: Iterable[History], at_least: int) -> Verdict:
    """Every clause on every history; fails with the origin of the first bad one."""
    verdict = Verdict()
    for history in histories:
        verdict.judge(history)
        assert not verdict.violations, "\n".join(f"{id} {origin}: {witness}" for id, witness, origin in verdict.violations[:5])
    print(f"{verdict.histories} histories, {sum(verdict.witnesses.values())} witnesses")
    assert verdict.histories >= at_least
    return verdict


@checks(*EVERY, "P-FLUSH-1", "P-FLUSH-2", "P-FLUSH-3")
@pytest.mark.parametrize("sync_flush", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_crash_in_every_disk_call(workload: str, sync_flush: bool, profile: str) -> None:
    for seed in range(20 if profile == "long" else 1):
        dice = 6 if profile == "long" else 1
        judge(sweep(f"{workload}/{seed}", WORKLOADS[workload], sync_flush=sync_flush, dice=dice), at_least=100)


@checks("P-REC-2", "P-REC-3", "P-REC-5", "P-REC-6", "P-REC-7")
@pytest.mark.parametrize("sync_flush", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_crash_in_every_disk_call_of_a_recovery(workload: str, sync_flush: bool, profile: str) -> None:
    every = 1 if profile == "long" else 3
    for fuse in range(14, 200, 4 if profile == "long" else 61):
        judge(crashes_in_recovery(f"recovery/{fuse}", WORKLOADS[workload], fuse, sync_flush=sync_flush, step=every), at_least=0)
