"""A disk for the heap: the faults of `trmq.sim.disk` without its tasks, as fast as plain bytearrays allow.

Two layers per file, the page cache and the platter, and the writes in between; two views of the names, what is there and what is there
after losing power. Nothing waits here: a sync that takes time is `begin_sync`, and its `end_sync` later; the writes made meanwhile are
not covered. What the shell awaits (`Checkpoints.save`, the set-aside of a tail) is run by `at_once`.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from trmq.errors import DiskFailed, DiskFull
from trmq.host import Buffer, File

SECTOR, PAGE = 512, 4096
HOWS = ("none", "all", "prefix", "random")
T = TypeVar("T")


def at_once(steps: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError(f"{steps} waits")


class Inode:
    """A file without its name. `dirty`: (offset, bytes) written, or (size, None) truncated to, since the last sync."""

    __slots__ = ("cache", "dirty", "durable")

    def __init__(self, size: int = 0) -> None:
        self.cache = bytearray(size)
        self.durable = bytearray()
        self.dirty: list[tuple[int, bytes | None]] = [(size, None)] if size else []


def _apply(layer: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if len(layer) > offset:
            del layer[offset:]
        else:
            layer.extend(bytes(offset - len(layer)))
        return
    end = offset + len(data)
    if len(layer) < offset:
        layer.extend(bytes(offset - len(layer)))
    layer[offset:end] = data


class HeapFile:
    """An open file. Closing it means nothing."""

    __slots__ = ("_disk", "_inode", "path")

    def __init__(self, disk: HeapDisk, path: str, inode: Inode) -> None:
        self._disk = disk
        self.path = path
        self._inode = inode

    @property
    def size(self) -> int:
        return len(self._inode.cache)

    def read_at(self, offset: int, size: int) -> memoryview:
        disk = self._disk
        if disk.failing:
            disk.fail("read", self.path)
        return memoryview(bytes(self._inode.cache[offset : offset + size]))

    def write_at(self, offset: int, data: Buffer) -> None:
        disk, inode = self._disk, self._inode
        if disk.failing:
            disk.fail("write", self.path)
        data = bytes(data)
        cache, end = inode.cache, offset + len(data)
        if disk.full and end > len(cache):
            disk.refused += 1
            short = data[: max(0, len(cache) - offset)]  # a short write, then the error
            if short:
                cache[offset : offset + len(short)] = short
                inode.dirty.append((offset, short))
            raise DiskFull(f"{self.path}: no space left")
        if len(cache) < offset:
            cache.extend(bytes(offset - len(cache)))
        cache[offset:end] = data
        inode.dirty.append((offset, data))

    def truncate(self, size: int) -> None:
        _apply(self._inode.cache, size, None)
        self._inode.dirty.append((size, None))

    async def sync(self) -> None:
        self._disk.sync(self._inode, self.path)

    def close(self) -> None: ...


class HeapDisk:
    """Implements `host.Disk`. `failing`: operations of which the next on a file of the log fails; `full`: no room."""

    __slots__ = ("changes", "durable_names", "failing", "full", "names_now", "random", "refused", "struck")

    def __init__(self, rng: random.Random) -> None:
        self.random = rng
        self.names_now: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.changes: list[tuple[str, str, Inode | None]] = []
        self.failing: list[str] = []
        self.full = False
        self.refused = 0
        self.struck = 0

    # --- host.Disk

    def open(self, path: str, size: int = 0) -> File:
        inode = self.names_now.get(path)
        if inode is None:
            if self.full and size:
                self.refused += 1
                raise DiskFull(f"{path}: no space left")
            inode = self.names_now[path] = Inode(size)
            self.changes.append((path, path, inode))
        return HeapFile(self, path, inode)

    def open_read(self, path: str) -> File:
        inode = self.names_now.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return HeapFile(self, path, inode)

    async def allocate(self, path: str, size: int) -> None:
        self.open(path, size)

    def exists(self, path: str) -> bool:
        return path in self.names_now or self.is_folder(path)

    def size_of(self, path: str) -> int:
        return len(self.names_now[path].cache)

    def names(self, folder: str) -> list[str]:
        start = f"{folder}/" if folder else ""
        cut = len(start)
        return sorted({path[cut:].partition("/")[0] for path in self.names_now if path.startswith(start)})

    def is_folder(self, path: str) -> bool:
        start = f"{path}/"
        return any(name.startswith(start) for name in self.names_now)

    def remove(self, path: str) -> None:
        if self.names_now.pop(path, None) is not None:
            self.changes.append((path, path, None))

    def rename(self, old: str, new: str) -> None:
        inode = self.names_now.pop(old)
        self.names_now[new] = inode
        self.changes.append((old, new, inode))

    async def sync_files(self, files: Sequence[File]) -> None:
        for file in files:
            await file.sync()

    async def sync_directory(self, folder: str) -> None:
        self.sync_names(folder)

    def lock(self, path: str) -> None: ...
    def unlock(self, path: str) -> None: ...

    def usage(self, folder: str) -> float:
        return 0.1

    def space(self, folder: str) -> tuple[int, int]:
        return 1 << 40, 1 << 39

    # --- what is durable

    def sync(self, inode: Inode, path: str) -> None:
        if self.failing:
            try:
                self.fail("sync", path)
            except DiskFailed:
                inode.dirty.clear()  # marked clean, not durable
                raise
        self.settle(inode, len(inode.dirty))

    @staticmethod
    def settle(inode: Inode, count: int) -> None:
        """The first `count` writes reach the platter."""
        durable = inode.durable
        for offset, data in inode.dirty[:count]:
            _apply(durable, offset, data)
        del inode.dirty[:count]

    def sync_names(self, folder: str, count: int | None = None) -> None:
        """Of the first `count` changes of names those in `folder` reach the platter; None: of all."""
        left = [] if count is None else self.changes[count:]
        for change in self.changes[:count]:
            if change[0].rpartition("/")[0] == folder or change[1].rpartition("/")[0] == folder:
                self._name(change)
            else:
                left.append(change)
        self.changes = left

    def _name(self, change: tuple[str, str, Inode | None]) -> None:
        old, new, inode = change
        if old != new or inode is None:
            self.durable_names.pop(old, None)
        if inode is not None:
            self.durable_names[new] = inode

    def fail(self, op: str, path: str) -> None:
        """Raise if this call is to fail."""
        if op in self.failing and path.startswith("commitlog/"):
            self.failing.remove(op)
            self.struck += 1
            raise DiskFailed(f"{path}: {op} failed: input/output error")

    # --- crashes

    def lose_power(self, *, torn: bool) -> int:
        """What was not synced survives by chance: by sectors and torn, or (`torn` False: the system crashed) by pages. How many writes
        were at risk."""
        rng, lost = self.random, 0
        seen: dict[int, Inode] = {}
        for inode in (*self.names_now.values(), *self.durable_names.values()):
            if id(inode) in seen:
                continue
            seen[id(inode)] = inode
            if inode.dirty:
                lost += len(inode.dirty)
                self._survive(inode, rng, torn)
        for change in self.changes:
            if rng.random() < 0.5:
                self._name(change)
        self.changes = []
        self.names_now = dict(self.durable_names)
        self.failing.clear()
        return lost

    @staticmethod
    def _survive(inode: Inode, rng: random.Random, torn: bool) -> None:
        how = HOWS[int(rng.random() * 4)]
        pieces: list[tuple[int, bytes | None]] = inode.dirty
        if how == "none":
            pieces = []
        elif how != "all":
            grain = SECTOR if torn else PAGE
            pieces = [piece for offset, data in inode.dirty for piece in _sectors(offset, data, grain)]
            pieces = pieces[: rng.randrange(len(pieces) + 1)] if how == "prefix" else [p for p in pieces if rng.random() < 0.5]
            if torn and pieces and pieces[-1][1] is not None and rng.random() < 0.5:
                offset, data = pieces[-1]
                assert data is not None
                pieces[-1] = (offset, data[: rng.randrange(len(data) + 1)])
        for offset, data in pieces:
            _apply(inode.durable, offset, data)
        inode.cache = bytearray(inode.durable)
        inode.dirty = []

    def destroy(self) -> None:
        self.names_now, self.durable_names, self.changes = {}, {}, []
        self.failing.clear()


def _sectors(offset: int, data: bytes | None, grain: int) -> list[tuple[int, bytes | None]]:
    if data is None:
        return [(offset, None)]
    found: list[tuple[int, bytes | None]] = []
    at = 0
    while at < len(data):
        size = min(grain - (offset + at) % grain, len(data) - at)
        found.append((offset + at, data[at : at + size]))
        at += size
    return found
