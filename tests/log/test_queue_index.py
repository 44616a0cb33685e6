"""The consume queue index: bytes as Apache writes them, idempotent appends, both ends, lives of a topic, many queues."""

from __future__ import annotations

import struct

import pytest

from trmq.errors import StoreMismatch
from trmq.log.index_files import CorruptIndex
from trmq.log.queue_index import DUMMY, UNIT, QueueIndex, valid_prefix
from trmq.log.queue_table import QueueIndexSet
from trmq.log.time_search import offset_by_time
from trmq.sim.disk import SimDisk

FOLDER = "consumequeue/T/0"


def queue_on(disk: SimDisk, *, clean: bool = False) -> QueueIndex:
    queue = QueueIndex(disk, FOLDER, units_per_file=10)
    queue.recover(clean=clean)
    return queue


def fill(queue: QueueIndex, first: int, end: int, size: int = 100, base: int = 0) -> None:
    for i in range(first, end):
        assert queue.append(i, base + i * size, size, i)


def offsets(queue: QueueIndex) -> list[int]:
    raw = bytes(queue.units(queue.min_offset, 10_000))
    return [phy for phy, _, _ in UNIT.iter_unpack(raw)]


def test_bytes_are_apaches():
    disk = SimDisk()
    queue = queue_on(disk)
    for i, (phy, size) in enumerate([(0, 134), (134, 134), (268, 134), (402, 134), (1024, 528)]):
        queue.append(i, phy, size, 2598919)
    queue.write_back()
    content = disk.peek(f"{FOLDER}/00000000000000000000")
    assert content[:20].hex() == "00000000000000000000008600000000" + "0027a807"
    assert struct.unpack_from(">qiq", content, 80) == (1024, 528, 2598919)
    assert content[100:] == bytes(100)


@pytest.mark.parametrize("written", [0, 5, 10, 23])
def test_units_read_across_files_and_memory(written):
    queue = queue_on(SimDisk())
    fill(queue, 0, written)
    queue.write_back()
    fill(queue, written, 37)
    everything = b"".join(UNIT.pack(i * 100, 100, i) for i in range(37))
    for offset in range(38):
        for count in (1, 3, 12, 40):
            assert bytes(queue.units(offset, count)) == everything[offset * 20 : (offset + count) * 20]
    assert queue.units(37, 1) == b""


def test_appending_never_touches_the_disk():
    disk = SimDisk()
    queue = queue_on(disk)
    fill(queue, 0, 25)
    assert disk.calls == 0
    assert queue.dirty
    assert len(queue.write_back()) == 3
    assert queue.write_back() == []


@pytest.mark.parametrize("reload", [False, True])
def test_dispatching_a_suffix_again_changes_nothing(reload):
    disk = SimDisk()
    queue = queue_on(disk)
    fill(queue, 0, 25)
    queue.write_back()
    before = [disk.peek(path) for path in disk.paths()]
    if reload:
        queue = queue_on(disk)
    fill(queue, 3, 25)
    assert not queue._tail
    assert [disk.peek(path) for path in disk.paths()] == before
    fill(queue, 25, 26)
    assert queue.max_offset == 26


def test_a_gap_is_refused_and_shifts_nothing():
    queue = queue_on(SimDisk())
    fill(queue, 0, 3)
    with pytest.raises(CorruptIndex, match="gap"):
        queue.append(5, 5000, 100, 0)
    assert queue.max_offset == 3
    fill(queue, 3, 4)


def test_another_record_at_a_built_unit_is_refused():
    queue = queue_on(SimDisk())
    fill(queue, 0, 3)
    with pytest.raises(CorruptIndex, match="unit 1 points to log offset 100"):
        queue.append(1, 150, 100, 0)


def test_a_queue_that_starts_in_the_middle_has_dummies_before():
    disk = SimDisk()
    queue = queue_on(disk)
    fill(queue, 14, 17)
    assert (queue.min_offset, queue.max_offset) == (14, 17)
    queue.write_back()
    content = disk.peek(f"{FOLDER}/00000000000000000200")
    assert content[:80] == DUMMY * 4
    assert content[80:100] == UNIT.pack(1400, 100, 14)
    again = queue_on(disk)
    assert (again.min_offset, again.max_offset, again.end_phy) == (14, 17, 1700)
    again.correct_min(0)
    assert again.min_offset == 14


def test_dummies_alone_are_an_empty_queue():
    disk = SimDisk()
    disk.open(f"{FOLDER}/00000000000000000200", 200).write_at(0, DUMMY * 4)
    queue = queue_on(disk)
    assert (queue.min_offset, queue.max_offset, queue.end_phy) == (14, 14, 0)
    fill(queue, 14, 15)  # TRAP-S8: a dummy's 0x7FFFFFFF bytes must not make later records "already built"


class TestLivesOfATopic:
    def test_records_of_the_earlier_life_are_passed_over(self):
        queue = queue_on(SimDisk())
        fill(queue, 0, 5, base=10_000)
        assert not queue.append(0, 0, 100, 0)
        assert not queue.append(4, 400, 100, 0)
        assert not queue.append(5, 500, 100, 0)
        assert not queue.append(9, 900, 100, 0)
        assert (queue.max_offset, queue.end_phy) == (5, 10_500)

    def test_building_from_the_log_ends_with_the_later_life(self):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 7, 25)
        queue.write_back()
        fill(queue, 0, 3, base=10_000)
        queue.write_back()
        assert offsets(queue) == [10_000, 10_100, 10_200]
        assert disk.paths() == [f"{FOLDER}/00000000000000000000"]
        assert offsets(queue_on(disk)) == [10_000, 10_100, 10_200]


class TestTruncate:
    @pytest.mark.parametrize("written", [0, 12, 30])
    @pytest.mark.parametrize("keep", [0, 1, 9, 10, 11, 20, 29, 30])
    def test_dropped_units_never_come_back(self, written, keep):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 0, written)
        queue.write_back()
        fill(queue, written, 30)
        queue.truncate(keep * 100)
        assert (queue.min_offset, queue.max_offset, queue.end_phy) == (0, keep, keep * 100)
        queue.append(keep, 7000, 50, 1)
        queue.write_back()
        for clean in (False, True):
            assert offsets(queue_on(disk, clean=clean)) == [i * 100 for i in range(keep)] + [7000]

    def test_units_behind_a_hole_never_come_back(self):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 0, 8)
        queue.write_back()
        disk.rot(f"{FOLDER}/00000000000000000000", 60, bytes(20))
        queue = queue_on(disk)
        assert queue.max_offset == 3
        queue.append(3, 9_000, 10, 0)
        queue.write_back()
        assert offsets(queue_on(disk)) == [0, 100, 200, 9_000]

    def test_a_record_that_starts_before_but_ends_behind_stays(self):
        queue = queue_on(SimDisk())
        fill(queue, 0, 5)
        queue.truncate(350)
        assert queue.max_offset == 4


class TestMinimum:
    def test_files_below_are_removed_but_never_the_last(self):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 0, 30)
        queue.write_back()
        queue.correct_min(1150)
        assert queue.min_offset == 12
        assert disk.paths() == [f"{FOLDER}/{i:020d}" for i in (200, 400)]
        queue.correct_min(50)
        assert queue.min_offset == 12
        queue.correct_min(10**9)
        assert (queue.min_offset, queue.max_offset) == (30, 30)
        assert disk.paths() == [f"{FOLDER}/00000000000000000400"]
        again = queue_on(disk)
        again.correct_min(10**9)
        assert (again.min_offset, again.max_offset) == (30, 30)
        fill(again, 30, 31, base=10**9)

    def test_an_emptied_queue_may_go_on_further_up(self):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 0, 3)
        queue.correct_min(10_000)
        fill(queue, 6, 8, base=10_000)
        queue.write_back()
        again = queue_on(disk)
        again.correct_min(10_000)
        assert (again.min_offset, offsets(again)) == (6, [10_600, 10_700])


class TestLoading:
    def test_a_hole_in_an_earlier_file_ends_the_queue_after_an_unclean_stop(self):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 0, 25)
        queue.write_back()
        disk.rot(f"{FOLDER}/00000000000000000200", 100, bytes(20))
        queue = queue_on(disk)
        assert queue.max_offset == 15
        assert len(disk.paths()) == 2

    def test_empty_files_at_the_end_are_no_end(self):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 0, 20)
        queue.write_back()
        disk.open(f"{FOLDER}/00000000000000000400", 200)
        disk.open(f"{FOLDER}/00000000000000000600")
        assert queue_on(disk.clone()).max_offset == 20
        assert queue_on(disk, clean=True).max_offset == 20

    def test_a_short_last_file_is_what_a_crash_may_leave(self):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 0, 13)
        queue.write_back()
        disk.open(f"{FOLDER}/00000000000000000200").truncate(60)
        queue = queue_on(disk)
        fill(queue, 13, 14)
        queue.write_back()
        assert disk.size_of(f"{FOLDER}/00000000000000000200") == 200
        assert queue_on(disk).max_offset == 14

    def test_files_of_another_size_are_refused_with_the_remedy(self):
        disk = SimDisk()
        disk.open(f"{FOLDER}/00000000000000000000", 400)
        with pytest.raises(StoreMismatch, match="mappedFileSizeConsumeQueue"):
            queue_on(disk)

    def test_a_missing_file_in_the_middle_is_corruption(self):
        disk = SimDisk()
        queue = queue_on(disk)
        fill(queue, 0, 35)
        queue.write_back()
        disk.remove(f"{FOLDER}/00000000000000000200")
        with pytest.raises(CorruptIndex, match="missing"):
            queue_on(disk, clean=True)
        assert queue_on(disk).max_offset == 10  # an unclean stop may have lost the name: what comes after is built again


@pytest.mark.parametrize("bad", [UNIT.pack(-1, 5, 0), UNIT.pack(5, 0, 0), UNIT.pack(5, -5, 0), bytes(20)])
@pytest.mark.parametrize("at", [0, 1, 6])
def test_valid_prefix_ends_at_the_first_bad_unit(bad, at):
    good = UNIT.pack(1 << 40, 256, -1)
    assert valid_prefix(good * at + bad + good * 3) == at
    assert valid_prefix(good * at) == at


class TestSearchByTime:
    TIMES = [10, 20, 20, 20, 30, 50]

    def search(self, ms, boundary, lost=0):
        queue = queue_on(SimDisk())
        fill(queue, 0, len(self.TIMES))
        return offset_by_time(queue, ms, boundary, lambda phy, _: self.TIMES[phy // 100] if phy >= lost else None)

    @pytest.mark.parametrize(("ms", "lower", "upper"), [(5, 0, 0), (10, 0, 0), (15, 1, 0), (20, 1, 3), (25, 4, 3), (50, 5, 5), (51, 6, 5)])
    def test_boundaries(self, ms, lower, upper):
        assert (self.search(ms, "LOWER"), self.search(ms, "UPPER")) == (lower, upper)

    def test_records_no_longer_kept_are_older_than_any_time(self):
        assert self.search(0, "LOWER", lost=200) == 2


def settle(queues: QueueIndexSet) -> int:
    return sum(len(step.files) for step in queues.write_back(batch=7))


class TestManyQueues:
    def test_only_dirty_queues_are_written_and_handles_stay_bounded(self):
        disk = SimDisk()
        queues = QueueIndexSet(disk, units_per_file=10, open_files_max=16)
        for q in range(100):
            queues.get_or_create(f"T{q % 5}", q).append(0, q * 100, 100, 0)
        assert settle(queues) == 100
        assert len(queues.files) <= 16
        queues.get_or_create("T1", 1).append(1, 100_000, 100, 0)
        assert settle(queues) == 1
        assert settle(queues) == 0
        again = QueueIndexSet(disk, units_per_file=10, open_files_max=16)
        again.load(clean=True)
        assert (len(again), again.end_phy()) == (100, 100_100)
        assert again.of_topic("T1") == [("T1", q) for q in range(1, 100, 5)]
        assert again.get("T9", 0) is None

    def test_units_at_or_behind_a_bound_wait_for_the_next_round(self):
        disk = SimDisk()
        queues = QueueIndexSet(disk, units_per_file=10)
        for q in range(3):
            fill(queues.get_or_create("T", q), 0, 15, base=q * 600)
        assert sum(len(step.files) for step in queues.write_back(600, batch=1)) == 1
        again = QueueIndexSet(disk.clone(), units_per_file=10)
        again.load(clean=False)
        assert (again.keys(), again.end_phy()) == ([("T", 0)], 600)
        assert queues.dirty
        fill(queues.get_or_create("T", 0), 15, 16)
        settle(queues)
        assert not queues.dirty
        again = QueueIndexSet(disk, units_per_file=10)
        again.load(clean=False)
        assert [queue.max_offset for queue in again] == [16, 15, 15]

    def test_a_full_disk_in_the_middle_loses_no_sync(self):
        disk = SimDisk()
        queues = QueueIndexSet(disk, units_per_file=10)
        for q in range(4):
            queues.get_or_create("T", q).append(0, q * 100, 100, 0)
        disk.fail("write", 28, path="consumequeue/T/2/*")
        with pytest.raises(Exception, match="no space"):
            settle(queues)
        assert settle(queues) == 4

    def test_a_deleted_topic_is_gone_and_may_come_back(self):
        disk = SimDisk()
        queues = QueueIndexSet(disk, units_per_file=10)
        for q in range(3):
            fill(queues.get_or_create("T", q), 0, 25)
        steps = queues.write_back()
        next(steps)
        queues.delete_topic("T")
        assert settle(queues) == 0
        assert disk.paths() == []
        assert queues.get("T", 0) is None
        fill(queues.get_or_create("T", 0), 0, 1, base=9_000)
        settle(queues)
        assert disk.paths() == ["consumequeue/T/0/00000000000000000000"]

    async def test_everything_appended_before_is_durable_afterwards(self):
        disk = SimDisk()
        queues = QueueIndexSet(disk, units_per_file=10)
        fill(queues.get_or_create("T", 0), 0, 25)
        for step in queues.write_back():
            fill(queues.get_or_create("T", 0), 25, 26)
            for file in step.files:
                await file.sync()
            for folder in step.folders:
                await disk.sync_directory(folder)
        disk = disk.crash("power", kept="none")
        again = QueueIndexSet(disk, units_per_file=10)
        again.load(clean=False)
        queue = again.get("T", 0)
        assert queue is not None
        assert queue.max_offset == 25

    def test_the_minimum_reaches_queues_opened_later(self):
        disk = SimDisk()
        queues = QueueIndexSet(disk, units_per_file=10)
        fill(queues.get_or_create("T", 0), 0, 25)
        settle(queues)
        again = QueueIndexSet(disk, units_per_file=10)
        again.load(clean=True)
        again.correct_min(1_000)
        queue = again.get("T", 0)
        assert queue is not None
        assert queue.min_offset == 10
