"""A disk that is full, for real: sends are refused, reads go on, space returns, sends go on by themselves, nothing acked is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from process.server import PULL, Server, pull_fields, wait_until

UNAVAILABLE = 14
MIB = 1 << 20
DISK, BALLAST = 40 * MIB, 16 * MIB
KEEP = {"cleanFileForciblyEnable": "false", "diskMaxUsedSpaceRatio": 100, "cleanResourceInterval": 100, "mappedFileSizeCommitLog": 4 * MIB,
        "mappedFileSizeConsumeQueue": 20_000, "maxHashSlotNum": 1_000, "maxIndexNum": 20_000}  # fmt: skip
"""Small files, and no file deleted to make room: the test owns what is there."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    done = None if os.name == "nt" or os.geteuid() else subprocess.run(command, capture_output=True)
    if done is None or done.returncode:
        pytest.skip("SKIPPED LOUDLY: a full disk needs a file system of its own, and only root may mount one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(("warning", "refusal"), [(100, "no space for the next commit log segment"), (90, "disk")])
@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
def test_full_and_free_again(disk: Path, flush: str, warning: int, refusal: str) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(BALLAST))
    server = Server(disk / "b", flushDiskType=flush, diskSpaceWarningLevelRatio=warning, **KEEP).start()
    try:
        def refused() -> str | None:
            answer = server.put(b"%d " % len(server.acked) + b"m" * 200_000)
            if answer.code == 0:
                return None
            assert answer.code == UNAVAILABLE, answer
            return answer.remark

        remark = wait_until(refused, "the disk is full", 60)
        assert refusal in remark
        full = len(server.acked)
        assert full * 200_000 < DISK - BALLAST
        with server.peer() as peer:
            for _ in range(5):
                assert refused() is not None
            assert peer.ask(PULL, pull_fields(server.topic, 0, 0)).code == 0
            assert server.everything(peer) == set(server.acked)
        assert server.running

        ballast.unlink()
        wait_until(lambda: refused() is None, "sends go on by themselves", 30)
        for _ in range(20):
            assert refused() is None
        server.end(signal.SIGKILL)
        server.start().check()
        assert len(server.acked) >= full + 21
        assert "Traceback" not in server.errors()
        assert server.end() == 0
    finally:
        server.end(signal.SIGKILL)
        os.sync()


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_start_on_a_full_disk(disk: Path, stop: int) -> None:
    """It serves what is there and refuses sends, or says in one line what is missing; with room everything is back."""
    server = Server(disk / "b", **KEEP).start()
    for n in range(20):
        assert server.put(b"%d" % n).code == 0
    server.end(stop)
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass
    try:
        server.start()
    except AssertionError:
        assert server.errors().startswith("trmq: no space left to ")
        assert len(server.errors().splitlines()) == 1
    else:
        for _ in range(5):
            assert server.put(b"m" * 200_000).code in (0, UNAVAILABLE)
        with server.peer() as peer:
            assert server.everything(peer) >= set(server.acked)
    server.end(signal.SIGKILL)
    assert "Traceback" not in server.errors(), server.errors()
    ballast.unlink()
    server.start().check()
    assert server.end() == 0
