"""What the observer of disks makes of rot: the node sees it, the observer sees what was written."""

from __future__ import annotations

import pytest

from trmq.chaos.disks import DiskLog, records_of
from trmq.chaos.scenario import Scenario, Step
from trmq.chaos.shell import play
from trmq.sim.disk import SimDisk


async def a_log(size: int) -> SimDisk:
    disk = SimDisk()
    file = disk.open(f"commitlog/{0:020d}", 4096)
    for at in range(0, size, 100):
        front = (100).to_bytes(4, "big") + bytes.fromhex("daa320a7") + bytes([at // 100]) * 20
        file.write_at(at, front + at.to_bytes(8, "big") + bytes(64))
    await file.sync()
    await disk.sync_directory("commitlog")
    return disk


@pytest.mark.parametrize("misdirected", [False, True])
async def test_rot_is_there_and_the_observer_sees_through_it(misdirected: bool) -> None:
    disk = await a_log(2000)
    log = DiskLog(disk, 4096)
    before, end = log.read(0, 2000), log.end
    assert end == log.durable == 2000
    assert log.rot(1234, misdirected=misdirected)
    assert bytes(disk.peek(f"commitlog/{0:020d}")[:2000]) != before, "the node reads what is on its disk"
    assert disk.peek(f"commitlog/{0:020d}", durable=True)[:2000] != before, "and the platter has it, too"
    assert log.read(0, 2000) == before
    assert log.end == log.durable == 2000
    file = disk.open(f"commitlog/{0:020d}")
    file.write_at(1000, b"new" * 300)
    assert log.read(1000, 900) == b"new" * 300, "what was written anew is seen as it is"


def test_nothing_rots_where_nothing_is_durable() -> None:
    assert not DiskLog(SimDisk(), 4096).rot(7, misdirected=False)


def test_unsound_records_of_an_answer_are_passed_over() -> None:
    assert [raw for _, raw in records_of(b"\0\0\0\0 garbage")] == [b""], "no size: nothing can be found behind it"
    bad = (20).to_bytes(4, "big") + bytes(16)
    assert [(message, len(raw)) for message, raw in records_of(bad + bad)] == [(None, 20), (None, 20)]


def test_a_rotten_master_ends_no_run() -> None:
    steps = (Step(0.1, "send", ("5",)), Step(12.0, "misdirect", ("a0", "0")), Step(12.5, "power", ("a0",)), Step(13.0, "start", ("a0",)))
    run = play(Scenario("sync-pair", "sync", 4, steps))
    assert run.hits["rot"] == run.hits["power"] == 1
