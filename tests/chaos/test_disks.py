"""What the observer of disks makes of rot: the node sees it, the observer sees what was written."""

from __future__ import annotations

import random

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


def record(at: int) -> bytes:
    return (100).to_bytes(4, "big") + bytes.fromhex("daa320a7") + bytes(20) + at.to_bytes(8, "big") + bytes(64)


@pytest.mark.parametrize("number", range(8))
async def test_what_was_seen_is_looked_at_again_when_it_changed(seed: int, number: int) -> None:
    """An observer that remembers, and one that forgets before each question: whatever happens to the disk, they see the same."""
    dice, size, seen = random.Random(f"{seed} {number}"), 1000, set()
    disk = SimDisk(rng=random.Random(number))
    one, other = DiskLog(disk, size), DiskLog(disk, size)
    at = 0
    for step in range(300):
        path = f"commitlog/{at // size * size:020d}"
        match dice.randrange(9):
            case 0 | 1 | 2 | 3:
                disk.open(path, size).write_at(at % size, record(at))
                at += 100
            case 4:
                for name in disk.names("commitlog"):
                    await disk.open(f"commitlog/{name}").sync()
            case 5:
                await disk.sync_directory("commitlog")
            case 6 if at % size > 300:  # cut, as a slave does
                at -= 200
                file = disk.open(path)
                file.truncate(at % size)
                file.truncate(size)
            case 7 if at and dice.random() < 0.3:
                disk.remove(f"commitlog/{(at - 1) // size * size:020d}")
                at = (at - 1) // size * size
            case 8 if dice.random() < 0.2:
                disk = disk.crash("power", dice)
                one.disk = other.disk = disk
                at = max(one.end, other.end)
        if dice.random() < 0.7:
            other._seen, other._kept = (), ()
            assert (one.end, one.durable) == (other.end, other.durable), f"seed {seed}, number {number}, step {step}"
            seen.add((one.end, one.durable))
    assert len(seen) > 30


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
