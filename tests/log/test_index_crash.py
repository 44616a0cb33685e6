"""A crash at every disk call while the indexes are written back: after reload and dispatching again, the answers are those of a run
that never crashed. The log is a plain list here; after losing power it may have lost its tail, and other records follow then."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import NamedTuple

import pytest

from trmq.log.key_index import KeyIndex
from trmq.log.queue_index import UNIT
from trmq.log.queue_table import QueueIndexSet
from trmq.sim.disk import Dead, SimDisk

BEGIN = 1_700_000_000_000
ROUNDS = (7, 16, 40, 55, 70)


class Record(NamedTuple):
    topic: str
    queue_id: int
    queue_offset: int
    phy: int
    size: int
    keys: list[str]
    store_ms: int


def make_log(start: list[Record], count: int, salt: str) -> list[Record]:
    """`start` and what follows: other keys and queues for another salt."""
    log = list(start)
    dice = random.Random(salt)
    for n in range(len(log), count):
        topic, queue_id = dice.choice((("T", 0), ("T", 0), ("T", 1), ("U", 0)))
        offset = sum((r.topic, r.queue_id) == (topic, queue_id) for r in log)
        phy = log[-1].phy + log[-1].size if log else 0
        keys = [f"{salt}-{n}", f"k{dice.randrange(5)}"]
        log.append(Record(topic, queue_id, offset, phy, dice.randrange(100, 400), keys, BEGIN + n * 300))
    return log


class Indexes:
    """Both indexes as one incarnation has them. `proven` is what the store's checkpoint would say."""

    def __init__(self, disk: SimDisk, proven: int, log: list[Record], *, clean: bool = False) -> None:
        self.disk = disk
        self.proven = proven
        self.queues = QueueIndexSet(disk, units_per_file=8)
        self.index = KeyIndex(disk, lambda: BEGIN, slots=1500, entries_max=40)
        self.queues.load(clean=clean)
        self.index.load(clean=clean)
        assert self.index.rebuild_from is None, self.index.problems
        if not clean:
            self.queues.truncate(proven)
            self.index.truncate(proven)
            self.dispatch([record for record in log if record.phy >= proven])

    def dispatch(self, records: list[Record]) -> None:
        for record in records:
            assert self.queues.get_or_create(record.topic, record.queue_id).append(record.queue_offset, record.phy, record.size, 1)
            self.index.put(record.topic, record.keys, record.phy, record.store_ms)

    async def write_back(self, dispatched: int) -> None:
        for steps in (self.queues.write_back(batch=2), self.index.write_back()):
            for step in steps:
                for file in step.files:
                    await file.sync()
                for folder in step.folders:
                    await self.disk.sync_directory(folder)
        self.proven = dispatched

    def check(self, log: list[Record]) -> None:
        for topic, queue_id in {(r.topic, r.queue_id) for r in log}:
            queue = self.queues.get(topic, queue_id)
            assert queue is not None
            mine = [r for r in log if (r.topic, r.queue_id) == (topic, queue_id)]
            assert (queue.min_offset, queue.max_offset) == (0, len(mine))
            assert bytes(queue.units(0, 1000)) == b"".join(UNIT.pack(r.phy, r.size, 1) for r in mine)
        for topic, key in {(r.topic, key) for r in log for key in r.keys}:
            found = list(self.index.candidates(topic, key, 0, 1 << 60))
            assert found == [r.phy for r in reversed(log) if r.topic == topic and key in r.keys], (topic, key)


async def work(state: Indexes, log: list[Record], done: int = 0) -> None:
    """Dispatch the rest of the log with a write-back now and then."""
    for end in ROUNDS:
        if end > done:
            state.dispatch(log[done:end])
            done = end
            await state.write_back(log[end - 1].phy + log[end - 1].size)


async def crashed(disk: SimDisk, how: str, fuse: int, log: list[Record], proven: int, kept: str | None) -> tuple[SimDisk, int, bool]:
    """Run on `disk` until its `fuse` burns; returns the disk of the next incarnation, what was proven, and whether it died."""
    disk.fuse = fuse
    died = True
    state = None
    with suppress(Dead):
        state = Indexes(disk, proven, log[: sum(r.phy < proven for r in log)])
        await work(state, log, sum(r.phy < proven for r in log))
        died = False
    return disk.crash(how, kept=kept), state.proven if state else proven, died


def survivors(log: list[Record], proven: int, how: str, dice: random.Random) -> list[Record]:
    """What the next incarnation finds of the log: all after a kill; after losing power at least what was proven."""
    sure = sum(r.phy < proven for r in log)
    return log if how == "kill" else log[: dice.randrange(sure, len(log) + 1)]


@pytest.mark.parametrize(("how", "kept"), [("kill", None), *(("power", kept) for kept in ("none", "all", "prefix", "random"))])
async def test_a_crash_at_every_call(how, kept):
    log = make_log([], ROUNDS[-1], "a")
    fuse = 0
    died = True
    while died:
        fuse += 1
        dice = random.Random(f"{how}/{kept}/{fuse}")
        disk, proven, died = await crashed(SimDisk(seed=fuse), how, fuse, log, 0, kept)
        kept_log = survivors(log, proven, how, dice)
        state = Indexes(disk, proven, kept_log)
        state.check(kept_log)
        other = make_log(kept_log, ROUNDS[-1] + 10, "b")
        state.dispatch(other[len(kept_log) :])
        await state.write_back(other[-1].phy + other[-1].size)
        state.check(other)
        Indexes(disk, state.proven, other, clean=True).check(other)
    assert fuse > 100


@pytest.mark.parametrize("seed", range(150))
async def test_crash_upon_crash(seed):
    dice = random.Random(seed)
    disk, proven, kept_log = SimDisk(seed=seed), 0, list[Record]()
    for round_ in range(4):
        log = make_log(kept_log, ROUNDS[-1], f"{seed}/{round_}")
        how = dice.choice(("kill", "power", "power"))
        disk, proven, _ = await crashed(disk, how, dice.randrange(1, 60), log, proven, None)
        kept_log = survivors(log, proven, how, dice)
        Indexes(disk.clone(), proven, kept_log).check(kept_log)
    log = make_log(kept_log, ROUNDS[-1], "end")
    state = Indexes(disk, proven, kept_log)
    state.dispatch(log[len(kept_log) :])
    await state.write_back(log[-1].phy + log[-1].size)
    state.check(log)
    disk = disk.crash("power", kept="none")
    Indexes(disk, state.proven, log).check(log)
