"""The simulated disk forgets exactly what was not synced, and nothing else."""

from __future__ import annotations

import errno
import random

import pytest
import trio

from trmq.errors import DiskFailed, DiskFull, StoreLocked
from trmq.sim.disk import Dead, SimDisk
from trmq.sim.pages import PAGE, Pages

SEEDS = range(60)


async def synced(disk: SimDisk, path: str, data: bytes = b""):
    file = disk.open(path)
    if data:
        file.write_at(0, data)
    await file.sync()
    await disk.sync_directory(path.rpartition("/")[0])
    return file


async def test_synced_bytes_and_names_survive_everything() -> None:
    for seed in SEEDS:
        disk = SimDisk(seed)
        await synced(disk, "commitlog/0", b"acked")
        disk = disk.crash("power").crash("kill").crash("power")
        assert bytes(disk.open_read("commitlog/0").read_at(0, 100)) == b"acked"
        assert disk.names("") == ["commitlog"]
        assert disk.names("commitlog") == ["0"]


async def test_kill_keeps_the_page_cache_and_forgets_nothing_else() -> None:
    disk = SimDisk(1)
    disk.open("a/b").write_at(3, b"xyz")
    disk = disk.crash("kill")
    assert disk.peek("a/b") == b"\0\0\0xyz"
    disk = disk.crash("power", kept="none")
    assert disk.paths() == []


async def test_power_loss_shows_every_kind_of_remainder() -> None:
    """none, all, a prefix in whole sectors, holes, a torn sector, a missing name: each happens for some seed."""
    data = bytes([1]) * 512 + bytes([2]) * 512 + bytes([3]) * 512
    seen = set()
    for seed in range(300):
        disk = SimDisk(seed)
        file = await synced(disk, "f")
        file.write_at(0, data)
        after = disk.crash("power").peek("f")
        kept = [after[i : i + 512] for i in (0, 512, 1024)]
        seen.add(
            "none" if not after else
            "all" if after == data else
            "torn" if any(0 < len(k.rstrip(b"\0")) < 512 for k in kept) else
            "zeros" if not after.strip(b"\0") else
            "hole" if not kept[0].strip(b"\0") else
            "prefix"
        )  # fmt: skip
        for mine, whole in zip(kept, (data[:512], data[512:1024], data[1024:]), strict=True):
            assert whole.startswith(mine.rstrip(b"\0")), "only bytes that were written may appear"
    assert seen == {"none", "all", "torn", "zeros", "hole", "prefix"}


async def test_a_system_crash_keeps_or_loses_whole_pages() -> None:
    seen: set[bytes] = set()
    for seed in range(60):
        disk = SimDisk(seed)
        file = await synced(disk, "f", bytes(8192))
        file.write_at(1000, b"x" * 6000)
        after = disk.crash("os").peek("f")
        for page in (after[1000:4096], after[4096:7000]):
            assert len(set(page)) == 1, "no page is torn"
        seen.add(after[1000:1001] + after[4096:4097])
    assert seen == {b"xx", bytes(2), b"x\0", b"\0x"}


async def test_names_hold_or_not_until_the_directory_is_synced() -> None:
    outcomes = set()
    for seed in SEEDS:
        disk = SimDisk(seed)
        old = await synced(disk, "c/x", b"old")
        file = disk.open("c/x.tmp")
        file.write_at(0, b"new")
        await file.sync()
        disk.rename("c/x.tmp", "c/x")
        disk = disk.crash("power")
        outcomes.add(disk.peek("c/x"))
        assert disk.exists("c/x"), "a rename is atomic: the old or the new file, never none"
        assert old.path == "c/x"
    assert outcomes == {b"old", b"new"}
    for seed in SEEDS:
        disk = SimDisk(seed)
        await synced(disk, "gone", b"1")
        disk.remove("gone")
        await disk.sync_directory("")
        assert not disk.crash("power").exists("gone")


async def test_sync_covers_what_was_written_before_the_call_only(autojump_clock: trio.testing.MockClock) -> None:
    disk = SimDisk(3)
    file = await synced(disk, "f")
    disk.latency = 2.0
    file.write_at(0, b"A" * 512)

    async def write_meanwhile() -> None:
        await trio.sleep(1)
        file.write_at(512, b"B" * 512)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_meanwhile)
        await file.sync()
    assert trio.current_time() == 2.0
    assert disk.peek("f", durable=True) == b"A" * 512
    assert disk.crash("power", kept="none").peek("f") == b"A" * 512


async def test_overlapping_syncs_do_not_undo_each_other(autojump_clock: trio.testing.MockClock) -> None:
    disk = SimDisk(3)
    file = await synced(disk, "f")
    latencies = iter((3.0, 1.0))
    disk.latency = lambda op, path: next(latencies)
    file.write_at(0, b"old")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.sync)
        await trio.sleep(1)
        file.write_at(0, b"new")
        await file.sync()
        assert disk.peek("f", durable=True) == b"new"
    assert disk.peek("f", durable=True) == b"new"


async def test_a_crash_during_a_sync_keeps_any_part_and_ends_the_call(autojump_clock: trio.testing.MockClock) -> None:
    kept = set()
    for seed in SEEDS:
        disk = SimDisk(seed)
        file = await synced(disk, "f")
        file.write_at(0, b"x" * 2048)
        disk.latency = 30.0
        dead = []

        async def sync(file=file, dead=dead) -> None:
            try:
                await file.sync()
            except Dead:
                dead.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync)
            await trio.sleep(1)
            kept.add(len(disk.crash("power").peek("f").strip(b"\0")))
            crashed = trio.current_time()
        assert dead == [crashed], "the dead incarnation's sync ends at once, not after its latency"
    assert {0, 2048} < kept


async def test_cancelling_a_sync_does_not_stop_the_disk(autojump_clock: trio.testing.MockClock) -> None:
    disk = SimDisk(0)
    file = await synced(disk, "f")
    file.write_at(0, b"x")
    disk.latency = 2.0
    with trio.move_on_after(1):
        await file.sync()
    assert disk.peek("f", durable=True) == b"x"


async def test_sync_is_a_checkpoint_at_no_latency() -> None:
    disk = SimDisk(0)
    file = disk.open("f")
    with trio.testing.assert_checkpoints():
        await file.sync()
    with trio.testing.assert_checkpoints():
        await disk.sync_directory("")
    with trio.testing.assert_checkpoints():
        await disk.allocate("g", 10)


async def test_a_failed_sync_makes_pages_clean_but_not_durable() -> None:
    disk = SimDisk(5)
    file = await synced(disk, "f", b"....")
    file.write_at(0, b"lost")
    disk.fail("sync")
    with pytest.raises(DiskFailed, match="EIO"):
        await file.sync()
    await file.sync()  # says ok, and lies about the bytes before
    assert disk.peek("f") == b"lost"
    file.write_at(4, b"kept")
    await file.sync()
    assert disk.crash("power", kept="all").peek("f") == b"....kept"


async def test_a_full_disk_writes_short_and_recovers() -> None:
    disk = SimDisk(0, capacity=1000)
    file = disk.open("f")
    file.write_at(0, b"x" * 900)
    with pytest.raises(DiskFull, match="f"):
        file.write_at(900, b"y" * 200)
    assert file.size == 1000
    assert disk.usage("") == 1.0
    file.write_at(0, b"z" * 1000)  # overwriting needs no room
    with pytest.raises(DiskFull):
        await disk.allocate("g", 1)
    with pytest.raises(DiskFull):
        disk.open("g", 1)
    assert not disk.exists("g")
    disk.capacity = 2000
    file.write_at(1000, b"x" * 1000)
    for code, kind in ((errno.EIO, DiskFailed), (errno.ENOSPC, DiskFull)):
        disk.fail("write", code, path="f")
        with pytest.raises(kind):
            file.write_at(0, b"1")


async def test_the_dead_touch_nothing() -> None:
    disk = SimDisk(0)
    file = await synced(disk, "f", b"1")
    disk.lock("lock")
    after = disk.crash("kill")
    for call in (
        lambda: file.write_at(0, b"2"),
        lambda: file.read_at(0, 1),
        lambda: file.truncate(0),
        lambda: disk.open("f"),
        lambda: disk.remove("f"),
        lambda: disk.rename("f", "g"),
        lambda: disk.exists("f"),
        lambda: disk.unlock("lock"),
    ):
        with pytest.raises(Dead):
            call()
    with pytest.raises(Dead):
        await file.sync()
    with pytest.raises(Dead):
        await disk.sync_directory("")
    assert after.peek("f") == b"1"
    after.lock("lock")


async def test_the_fuse_stops_at_each_call_in_turn() -> None:
    async def workload(disk: SimDisk) -> None:
        file = disk.open("a", 10)
        file.write_at(0, b"1")
        file.truncate(5)
        await file.sync()
        disk.rename("a", "b")
        await disk.sync_directory("")
        disk.remove("b")

    disk = SimDisk(0)
    disk.trace = []
    await workload(disk)
    assert [call.op for call in disk.trace] == ["create", "write", "truncate", "sync", "rename", "sync_directory", "remove"]
    states = []
    for n in range(1, disk.calls + 2):
        disk = SimDisk(n)
        disk.fuse = n
        try:
            await workload(disk)
        except Dead:
            assert disk.calls == n
        else:
            assert n == disk.calls + 1
        states.append((disk.clone().paths(), disk.clone().crash("power", kept="none").paths()))
    names = [["a"]] * 4 + [["b"]] * 2 + [[]]
    assert [cached for cached, _ in states] == [[], *names]
    assert [durable for _, durable in states] == [[]] * 6 + [["b"], ["b"]]


def test_a_write_interrupted_by_death_is_partly_visible() -> None:
    seen = set()
    for seed in SEEDS:
        disk = SimDisk(seed)
        file = disk.open("f")
        disk.fuse = 1
        with pytest.raises(Dead):
            file.write_at(0, b"abc")
        seen.add(disk.crash("kill").peek("f"))
    assert seen == {b"", b"a", b"ab", b"abc"}


async def test_truncation_is_durable_with_the_next_sync_only() -> None:
    disk = SimDisk(0)
    file = await synced(disk, "f", b"x" * 5000)
    file.truncate(10)
    assert file.size == 10
    assert len(disk.clone().crash("power", kept="none").peek("f")) == 5000
    file.truncate(20)
    await file.sync()
    assert disk.crash("power", kept="none").peek("f") == b"x" * 10 + bytes(10)


async def test_creation_size_and_allocation() -> None:
    disk = SimDisk(0)
    disk.open("seg", 1 << 30)
    await disk.sync_directory("")
    await disk.allocate("next", 1 << 30)
    disk = disk.crash("power", kept="none")
    assert disk.size_of("seg") == 1 << 30, "the directory sync covers the creation with its size"
    assert not disk.exists("next"), "the allocation covers the size, not the name"


async def test_locks_belong_to_a_process() -> None:
    disk = SimDisk(0)
    other = disk.another_process()
    disk.lock("lock")
    with pytest.raises(StoreLocked, match="lock"):
        other.lock("lock")
    disk.unlock("lock")
    other.lock("lock")


def test_bit_rot_and_clones() -> None:
    disk = SimDisk(0)
    disk.open("f").write_at(0, b"\0\0\0")
    other = disk.clone()
    disk.flip("f", 1, 3)
    assert disk.peek("f") == b"\0\x08\0"
    assert other.peek("f") == b"\0\0\0"


def test_folders_and_missing_files() -> None:
    disk = SimDisk(0)
    disk.open("q/T/0/0")
    assert disk.is_folder("q/T")
    assert disk.names("q") == ["T"]
    assert disk.names("nope") == []
    with pytest.raises(OSError, match="not empty"):
        disk.remove("q/T")
    disk.rename("q/T", "q/U")
    assert disk.names("q/U/0") == ["0"]
    disk.remove("q/U/0/0")
    disk.remove("q/U/0/0")
    disk.remove("q/U/0")
    assert disk.names("q/U") == []
    for call in (disk.open_read, disk.size_of):
        with pytest.raises(FileNotFoundError):
            call("q/x")
    with pytest.raises(IsADirectoryError):
        disk.open("q/U")


def test_views_show_later_writes_as_mapped_files_do() -> None:
    disk = SimDisk(0)
    file = disk.open("f", PAGE * 2)
    file.write_at(0, b"one")
    view = file.read_at(0, 3)
    file.write_at(0, b"two")
    assert view == b"two"
    assert view.readonly


def test_pages_agree_with_a_bytearray() -> None:
    rng = random.Random(0)
    target, model = Pages(), bytearray()
    for _ in range(3000):
        offset, size = rng.randrange(4 * PAGE), rng.randrange(2 * PAGE)
        match rng.randrange(3):
            case 0:
                data = rng.randbytes(size)
                target.write(offset, data)
                if size:
                    model.extend(bytes(max(0, offset - len(model))))
                    model[offset : offset + size] = data
            case 1 if rng.random() < 0.2:
                target.resize(offset)
                model = model[:offset] + bytes(max(0, offset - len(model)))
        assert target.size == len(model)
        assert target.read(offset, size) == bytes(model[offset : offset + size])
