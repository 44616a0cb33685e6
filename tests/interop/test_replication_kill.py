"""SYNC_MASTER and its slave under load while either is killed, stopped or paused: a SEND_OK is on both, always."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cluster import Group
from .jvm import Driver
from .pair import Pair, Rounds


@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
def test_no_acknowledged_message_is_on_one_copy_only(tmp_path: Path, java_home: Path, flush: str, seed: int, profile: str) -> None:
    """30 rounds with `--profile long`, half of them in each flush mode; `seed` draws the faults and the pauses."""
    print(f"seed {seed}")
    group = Group(tmp_path / "g", flushDiskType=flush, mappedFileSizeCommitLog=1 << 20, slaveTimeout=1000)
    master = group.add("master", brokerRole="SYNC_MASTER")
    slave = group.add("slave", brokerRole="SLAVE", brokerId=1)
    group.start(master)
    java = Driver(group.name_server, tmp_path / "driver")
    try:
        pair = Pair(group, master, slave, java)
        rounds = Rounds(pair, seed)
        rounds.run(15 if profile == "long" else 2)
        low, high = pair.check_end()
        print(f"{flush}: {dict(rounds.seen)}; {dict(pair.statuses)}; logs equal in [{low}, {high})")
        assert len(pair.acked) > 100 * sum(rounds.seen.values()), "too few: this run tests nothing"
        assert "Traceback" not in master.output() + slave.output()
    finally:
        java.close()
        group.stop()
