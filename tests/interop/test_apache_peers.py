"""Apache RocketMQ 5.4.0 at the other end of the replication: as the slave of a trmq master and as the master of a trmq slave."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cluster import Group
from .jvm import Driver
from .pair import QUEUES, Pair, Rounds
from .stores import Log, offset_of

PATIENCE = 90.0
"""Apache's slave tries every 5 s to connect, says nothing in the first 5 s after, and its JVM takes seconds to start."""
SEGMENT = 1 << 20
SETTINGS = {"mappedFileSizeCommitLog": SEGMENT, "slaveReadEnable": "true", "registerNameServerPeriod": 10_000, "slaveTimeout": 1000}
DIRECTIONS = {"apache slave": ("trmq", "apache"), "apache master": ("apache", "trmq")}


@pytest.mark.parametrize("aged", [False, pytest.param(True, marks=pytest.mark.long)], ids=["from its beginning", "some of it expired"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_logs_are_equal_whoever_joins_and_is_killed(
    tmp_path: Path, java_home: Path, direction: str, aged: bool, seed: int, profile: str
) -> None:
    """An empty slave joins an old master and gets all that this one has, not the last segment only. Then either is killed under load
    (10 rounds with `--profile long`, else 1), and what was acknowledged is read from both. Apache waits for its slave only with
    inSyncReplicas=2."""
    print(f"seed {seed}")
    above, below = DIRECTIONS[direction]
    group = Group(tmp_path / "g", **SETTINGS)
    master = group.add("master", above, brokerRole="SYNC_MASTER", inSyncReplicas=2)
    slave = group.add("slave", below, brokerRole="SLAVE", brokerId=1)
    group.start(master)
    java = Driver(group.name_server, tmp_path / "driver")
    try:
        java(do="create_topic", topic="t", queues=QUEUES)
        messages = [{"size": 600, "keys": f"old-{i}", "wait": False} for i in range(3_500)]
        answers = java(do="async", topic="t", inflight=8, messages=messages)
        old = [r for r in answers if r["status"] == "SEND_OK"]  # a JVM that has just started may be too busy for a few
        if aged:
            master.kill()
            (master.store / "commitlog" / f"{0:020}").unlink()
            master.start_and_wait()
        kept = Log(master.store)
        assert kept.end > 2 * SEGMENT
        assert kept.min == SEGMENT * aged

        pair = Pair(group, master, slave, java)
        pair.answers += [r | {"began": 0, "ended": 0} for r in old if offset_of(r["offset_id"]) >= kept.min]
        rounds = Rounds(pair, seed, seconds=2, patience=PATIENCE, pause_us=5000)
        rounds.faults = [rounds.kill_master, rounds.kill_slave]
        if profile == "long":
            rounds.faults += [rounds.pause_slave, rounds.kill_slave_then_master, rounds.kill_master_of_a_paused_slave]
        rounds.run(2 if aged else 10 if profile == "long" else 1)
        pair.check_readable(master, 0)
        pair.check_readable(slave, 1)
        low, high = pair.check_end()
        print(f"{above} master, {below} slave: {dict(rounds.seen)}; {dict(pair.statuses)}; logs equal in [{low}, {high})")
        assert low == kept.min, "the slave began where its master's log begins"
        assert len(pair.acked) > len(old) / 2 + 50 * sum(rounds.seen.values()), "too few: this run tests nothing"
        assert "Traceback" not in "".join(b.output() for b in (master, slave) if b.kind == "trmq")
    finally:
        java.close()
        group.stop()
