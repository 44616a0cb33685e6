"""The real host keeps the promises of `host.py` on this machine's file system and loopback interface."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import trmq.real_host as real_host
from trmq.errors import ConfigError, DiskFailed, DiskFull, StoreLocked
from trmq.real_host import MAP_BYTES_MIN, RealDisk, RealHost, raise_file_limit


@pytest.fixture
def disk(tmp_path: Path) -> RealDisk:
    return RealDisk(tmp_path / "store")


async def test_files_are_made_with_their_folders_and_kept(disk: RealDisk) -> None:
    file = disk.open("commitlog/000", 100)
    assert file.size == disk.size_of("commitlog/000") == 100
    file.write_at(98, b"abcd")
    assert file.size == 102
    assert bytes(file.read_at(97, 10)) == b"\0abcd"
    assert bytes(file.read_at(500, 10)) == b""
    await file.sync()
    await disk.sync_directory("commitlog")
    assert not disk._new_folders, "the new folders' own names are durable too"
    file.close()
    file.close()
    again = disk.open("commitlog/000", 5)
    assert again.size == 102, "an existing file is opened as it is"
    assert disk.names("") == ["commitlog"]
    assert disk.names("commitlog") == ["000"]
    assert disk.names("nope") == []
    assert disk.is_folder("commitlog")
    assert disk.exists("commitlog/000")
    with pytest.raises(FileNotFoundError):
        disk.open_read("nope")
    assert not disk.exists("nope")
    with pytest.raises(OSError):
        disk.remove("commitlog")
    disk.rename("commitlog/000", "other/1")
    disk.remove("commitlog")
    disk.remove("commitlog")
    assert disk.names("") == ["other"]
    again.close()


def test_views_follow_writes_and_survive_growth_and_close(disk: RealDisk) -> None:
    size = MAP_BYTES_MIN * 2
    file = disk.open("segment", size)
    view = file.read_at(10, 4)
    file.write_at(10, b"mine")
    assert view == b"mine"
    assert view.readonly
    file.write_at(size, b"tail")  # beyond the mapping
    assert bytes(file.read_at(size - 1, 100)) == b"\0tail"
    file.write_at(size, b"x" * size)
    far = file.read_at(2 * size - 4, 4)
    assert far == b"xxxx"
    file.close()
    assert view == b"mine"
    assert far == b"xxxx"


def test_truncation_drops_the_mapping(disk: RealDisk) -> None:
    file = disk.open("f", MAP_BYTES_MIN)
    file.write_at(0, b"x" * MAP_BYTES_MIN)
    assert file.read_at(0, 1) == b"x"
    file.truncate(10)
    assert file.read_at(0, MAP_BYTES_MIN) == b"x" * 10
    file.truncate(20)
    assert file.read_at(0, 100) == b"x" * 10 + bytes(10)
    file.close()


def test_a_reader_sees_another_handles_growth(disk: RealDisk) -> None:
    writer = disk.open("f")
    reader = disk.open_read("f")
    writer.write_at(0, b"abc")
    assert reader.size == 3
    assert reader.read_at(0, 10) == b"abc"
    writer.close()
    reader.close()


async def test_allocation_reserves(disk: RealDisk) -> None:
    await disk.allocate("commitlog/1", 1 << 20)
    stat = os.stat(os.path.join(disk.root, "commitlog/1"))
    assert stat.st_size == 1 << 20
    await disk.allocate("commitlog/1", 1 << 20)
    assert 0.0 <= disk.usage("commitlog") <= 1.0
    assert disk.usage("not/there/yet") == pytest.approx(disk.usage(""), abs=0.01)


async def test_allocation_without_support_or_without_space(disk: RealDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(code: int):
        def posix_fallocate(fd: int, offset: int, size: int) -> None:
            raise OSError(code, os.strerror(code))

        return posix_fallocate

    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EOPNOTSUPP), raising=False)
    await disk.allocate("a", 4096)
    assert disk.size_of("a") == 4096
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOSPC), raising=False)
    with pytest.raises(DiskFull, match="4096 bytes"):
        await disk.allocate("b", 4096)
    assert not disk.exists("b")


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, DiskFailed)])
def test_a_short_write_is_finished_or_named(disk: RealDisk, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]) -> None:
    file = disk.open("f")
    calls = []
    really = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 3:
            raise OSError(code, os.strerror(code))
        return really(fd, data[:2], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(kind, match="f"):
        file.write_at(0, b"abcdef")
    assert calls == [0, 2, 4]
    assert file.size == 4, "what was written counts, so that the caller can cut it off"
    monkeypatch.undo()
    file.close()


async def test_a_failed_sync_is_named(disk: RealDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    file = disk.open("log/7")
    monkeypatch.setattr(real_host, "_full_sync", fail)
    with pytest.raises(DiskFailed, match="log/7"):
        await file.sync()
    file.close()


async def test_closing_waits_for_a_sync_under_way(disk: RealDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the descriptor's number could belong to another file by the time it is synced."""
    file = disk.open("f")
    started, release = trio.Event(), real_host.threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow(fd: int) -> None:
        token.run_sync_soon(started.set)
        release.wait(10)
        os.fsync(fd)  # EBADF if it was closed

    monkeypatch.setattr(real_host, "_full_sync", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.sync)
        await started.wait()
        file.close()
        release.set()
    with pytest.raises(OSError):
        os.fstat(file._fd)
    with pytest.raises(DiskFailed, match="closed"):
        await file.sync()


async def test_syncs_at_the_same_time_all_happen(disk: RealDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept thread takes one of them, others take the rest; each caller gets the outcome of its own."""
    files = [disk.open(f"log/{number}") for number in range(5)]
    synced: list[int] = []
    together = real_host.threading.Barrier(5)

    def sync(fd: int) -> None:
        together.wait(10)
        synced.append(fd)
        if fd == files[3]._fd:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(real_host, "_full_sync", sync)
    failed: list[str] = []

    async def one(file: real_host.RealFile) -> None:
        try:
            await file.sync()
        except DiskFailed:
            failed.append(file.path)

    async with trio.open_nursery() as nursery:
        for file in files:
            nursery.start_soon(one, file)
    assert sorted(synced) == sorted(file._fd for file in files)
    assert failed == ["log/3"]


async def test_a_cancelled_sync_ends_when_the_disk_is_done(disk: RealDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled in the middle, it must not leave its outcome to whoever syncs next."""
    file, next_file = disk.open("a"), disk.open("b")
    started, release = trio.Event(), real_host.threading.Event()
    token, ended = trio.lowlevel.current_trio_token(), []

    def slow(fd: int) -> None:
        token.run_sync_soon(started.set)
        release.wait(10)
        ended.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    async def sync() -> None:
        with pytest.raises(DiskFailed, match="a durable"):
            await file.sync()
        assert ended == [file._fd]

    monkeypatch.setattr(real_host, "_full_sync", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sync)
        await started.wait()
        nursery.cancel_scope.cancel()
        release.set()
    monkeypatch.setattr(real_host, "_full_sync", ended.append)
    await next_file.sync()
    assert ended == [file._fd, next_file._fd]


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="no eventfd, no kept thread")
async def test_the_kept_thread_ends_with_its_disk(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    file = disk.open("a")
    await file.sync()
    threads = [thread for thread in real_host.threading.enumerate() if thread.name == f"disk {tmp_path}"]
    assert len(threads) == 1
    file.close()
    del file, disk
    gc.collect()
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_the_lock_excludes_this_and_other_processes(disk: RealDisk) -> None:
    other = RealDisk(disk.root)
    disk.lock("lock")
    with pytest.raises(StoreLocked, match=r"this process holds the store.*lock"):
        other.lock("lock")
    child = (
        "import sys; from trmq.real_host import RealDisk\n"
        "try: RealDisk(sys.argv[1]).lock('lock')\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    said = subprocess.run([sys.executable, "-c", child, disk.root], capture_output=True, text=True, check=True).stdout
    assert said.startswith("StoreLocked")
    assert str(os.getpid()) in said or not sys.platform.startswith("linux")
    disk.unlock("lock")
    assert subprocess.run([sys.executable, "-c", child, disk.root], capture_output=True, text=True, check=True).stdout == ""
    other.lock("lock")
    other.unlock("lock")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_one_clear_sentence(disk: RealDisk, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", refuse)
    for call in (lambda: disk.open("a/b"), lambda: disk.lock("lock")):
        with pytest.raises(ConfigError) as caught:
            call()
        assert disk.root in str(caught.value)
        assert "storePathRootDir" in str(caught.value)


async def test_a_real_connection_both_ways(tmp_path: Path) -> None:
    host = RealHost(tmp_path, name="me")
    [listener] = await host.listen(("127.0.0.1", 0))
    address = host.bound(listener)
    assert address[0] == "127.0.0.1"
    async with listener, await host.connect(address) as mine, await listener.accept() as theirs:
        assert host.ends(mine) == tuple(reversed(host.ends(theirs)))
        assert host.ends(mine)[1] == address
        await mine.send_all(b"hello")
        assert await theirs.receive_some(100) == b"hello"
    with pytest.raises(OSError):
        await host.connect(address)


@pytest.mark.skipif(os.name == "nt", reason="uses Trio's own stream there")
async def test_streams_are_real_streams(tmp_path: Path) -> None:
    host = RealHost(tmp_path)
    [listener] = await host.listen(("127.0.0.1", 0))

    async def maker():
        mine = await host.connect(host.bound(listener))
        return mine, await listener.accept()

    async def clogged_maker():
        one, other = await maker()
        for stream in (one, other):
            while host.send_now(stream, bytes(1 << 20)):
                pass
        return one, other

    async with listener:
        await trio.testing.check_two_way_stream(maker, clogged_maker)
        await trio.testing.check_half_closeable_stream(maker, clogged_maker)


async def test_a_port_in_use_names_the_key(tmp_path: Path) -> None:
    host = RealHost(tmp_path)
    [listener] = await host.listen(("127.0.0.1", 0))
    port = host.bound(listener)[1]
    async with listener:
        with pytest.raises(ConfigError, match=rf"port {port} is in use.*listenPort"):
            await host.listen(("127.0.0.1", port))
    with pytest.raises(ConfigError, match="bindAddress"):
        await host.listen(("192.0.2.77", 0))
    with pytest.raises(ConfigError, match="listenPort"):
        await host.listen(("127.0.0.1", 123456))


def test_identity_clock_and_limits(tmp_path: Path) -> None:
    host = RealHost(tmp_path)
    assert host.name
    assert host.process_id == os.getpid()
    assert abs(host.wall_ms() - os.stat(tmp_path).st_mtime_ns // 1_000_000) < 3_600_000
    assert host.local_ip().count(".") == 3 or ":" in host.local_ip()
    assert raise_file_limit() > 0 or os.name == "nt"
    seen = []
    host.trace("nobody listens")
    host.on_trace = seen.append
    host.trace("event")
    assert seen == ["event"]
