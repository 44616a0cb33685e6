"""`python -m real.recorded FILE BUG serve ...`: the installed program on its real disk, with every call that changes the disk written down.

FILE gets one pickled `Call` after the other, in the order in which the broker's loop made them; a sync appears twice, when it was asked for
and when it was known to be done. Syncs take `SYNC_SECONDS` longer than they would: what is answered without waiting for them then stands
between the two. BUG names a seeded bug of tests/property or tests/chaos, or is
"-".
"""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import trio

from trmq.host import Buffer, File
from trmq.real_host import RealDisk, RealFile, RealHost

SYNC_SECONDS = 0.004


class Call(NamedTuple):
    """`key` numbers an open file, or pairs "sync", "sync_directory" and "allocate" with their "... done"."""

    at: float
    op: str
    path: str
    key: int
    offset: int = 0
    data: bytes = b""


class RecordedDisk:
    """Implements `host.Disk`: everything is done by a `RealDisk`, and noted."""

    def __init__(self, real: RealDisk, file: BinaryIO) -> None:
        self.real, self.file = real, file
        self.number = 0

    def note(self, op: str, path: str, key: int = 0, offset: int = 0, data: Buffer = b"") -> None:
        self.file.write(pickle.dumps(tuple(Call(time.monotonic(), op, path, key, offset, bytes(data)))))

    def next(self) -> int:
        self.number += 1
        return self.number

    def __getattr__(self, name: str) -> Any:  # what changes nothing: names, exists, size_of, is_folder, usage, space, unlock
        return getattr(self.real, name)

    def open(self, path: str, size: int = 0) -> RecordedFile:
        key = self.next()
        self.note("open", path, key, size)
        return RecordedFile(self, self.real.open(path, size), key)

    def open_read(self, path: str) -> RealFile:
        return self.real.open_read(path)

    async def allocate(self, path: str, size: int) -> None:
        key = self.next()
        self.note("allocate", path, key, size)
        await self.real.allocate(path, size)
        self.note("allocate done", path, key, size)

    def remove(self, path: str) -> None:
        self.note("remove", path)
        self.real.remove(path)

    def rename(self, old: str, new: str) -> None:
        self.note("rename", old, data=new.encode())
        self.real.rename(old, new)

    async def sync_files(self, files: Sequence[File]) -> None:
        asked = [(self.next(), file) for file in files if isinstance(file, RecordedFile)]
        assert len(asked) == len(files)
        for key, file in asked:
            self.note("sync", file.path, key, file.key)
        await slowly()
        await self.real.sync_files([file.real for _, file in asked])
        for key, file in asked:
            self.note("sync done", file.path, key)

    async def sync_directory(self, folder: str) -> None:
        key = self.next()
        self.note("sync_directory", folder, key)
        await self.real.sync_directory(folder)
        self.note("sync_directory done", folder, key)

    def lock(self, path: str) -> None:
        self.note("lock", path)
        self.real.lock(path)


class RecordedFile:
    """Implements `host.File`."""

    def __init__(self, disk: RecordedDisk, real: RealFile, key: int) -> None:
        self.disk, self.real, self.key = disk, real, key
        self.read_at, self.close, self.path = real.read_at, real.close, real.path

    @property
    def size(self) -> int:
        return self.real.size

    def write_at(self, offset: int, data: Buffer) -> None:
        self.disk.note("write", self.path, self.key, offset, data)
        self.real.write_at(offset, data)

    def truncate(self, size: int) -> None:
        self.disk.note("truncate", self.path, self.key, size)
        self.real.truncate(size)

    async def sync(self) -> None:
        key = self.disk.next()
        self.disk.note("sync", self.path, key, self.key)
        await slowly()
        await self.real.sync()
        self.disk.note("sync done", self.path, key)


async def slowly() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(SYNC_SECONDS)


def read(path: Path) -> list[Call]:
    """The recording of a process that has ended."""

    def calls(file: BinaryIO) -> Iterator[Call]:
        try:
            while True:
                yield Call(*pickle.load(file))
        except EOFError:
            return

    with open(path, "rb") as file:
        return list(calls(file))


class RecordedHost(RealHost):
    """The broker's host; the name server in the same process has one of its own, which nobody records."""

    recording: BinaryIO

    def __init__(self, root: Path, *, name: str = "") -> None:
        super().__init__(root, name=name)
        self.disk = RecordedDisk(self.disk, self.recording)  # type: ignore[assignment]  # the same interface


def main() -> None:
    file, bug = sys.argv[1:3]
    del sys.argv[1:3]
    if bug != "-":
        import pytest

        from chaos.mutants import MUTANTS as OF_CLUSTERS
        from property.mutants import MUTANTS as OF_STORES

        (OF_STORES | OF_CLUSTERS)[bug].seed(pytest.MonkeyPatch())
    from trmq.cli import main as trmq
    from trmq.cli import starting

    RecordedHost.recording = open(file, "ab", buffering=0)  # noqa: SIM115  # for as long as the process lives
    starting.RealHost = RecordedHost  # type: ignore[misc,assignment]
    trmq()


if __name__ == "__main__":
    main()
