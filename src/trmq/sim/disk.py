"""`SimDisk`: a disk that forgets what was not synced, tears sectors, fills up, fails, and can die inside any call.

Two layers per file: what reads see (`cache`, the page cache) and what survives losing power (`durable`, the platter),
with the list of writes in between. `File.sync` makes the writes durable that were made before it was *called*. Names
have two views as well: a creation, rename or removal is durable after `sync_directory`, never before.

A `SimDisk` is the disk as *one incarnation* of a host sees it. `crash` kills the incarnation and returns the disk as the
next one finds it; whatever the dead one still holds (the disk, its files) raises `Dead` from then on, so that the
`finally` blocks of cancelled tasks cannot say goodbye to a disk that lost its power:

    disk = SimDisk(seed=7)
    disk.fuse = 12                          # the twelfth changing call from now is the last one
    with suppress(Dead): run(disk)
    disk = disk.crash("power")              # reboot

Fair faults: every state that `crash` can leave behind is one a journalling file system on a disk with atomic or torn 512-byte
sectors may show. Not modelled: a directory that is lost although a file in it was synced together with its folders.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

import trio

from trmq.errors import DiskFailed, DiskFull, StoreLocked
from trmq.host import Buffer, File
from trmq.sim.platter import Change, Kept, Node, Platter, apply_names, folder_of, lose_power, parents_of

Crash = Literal["kill", "os", "power"]
CHANGING = frozenset({"create", "write", "truncate", "allocate", "remove", "rename", "sync", "sync_directory"})


FULL = (errno.ENOSPC, errno.EDQUOT)


class Dead(BaseException):
    """This incarnation was killed: nothing it holds reaches the disk or the network any more."""


class Call(NamedTuple):
    """One call on the disk, as `trace` and `on_call` show it, before it takes effect."""

    op: str
    path: str
    offset: int
    size: int


class _Fault(NamedTuple):
    op: str
    path: str
    code: int


class SimDisk:
    """The disk of one incarnation. Implements `host.Disk`; the public attributes are the knobs.

    fuse      n: the n-th changing call (see `CHANGING`) from now raises `Dead`, and all after it; None: never
    capacity  bytes; beyond it writes are short and raise `DiskFull`; None: endless; may be changed at any time
    latency   seconds that `sync`, `sync_directory` and `allocate` take, or a function of (op, path)
    calls     number of changing calls so far
    trace     a list to which every `Call` (reads too) is appended, or None
    on_call   called with every changing `Call` before it takes effect, or None
    on_death  called when the incarnation dies, by `crash` or by the fuse, or None
    struck    counts the faults that a program ran into: "io-error", "disk-full", "slow-disk"
    """

    def __init__(self, seed: object = 0, *, capacity: int | None = None, rng: random.Random | None = None) -> None:
        self.random = rng if rng is not None else random.Random(f"disk/{seed}")
        self.capacity = capacity
        self.latency: float | Callable[[str, str], float] = 0.0
        self.fuse: int | None = None
        self.calls = 0
        self.trace: list[Call] | None = None
        self.on_call: Callable[[Call], None] | None = None
        self.on_death: Callable[[], None] | None = None
        self.struck: Counter[str] = Counter()
        self._platter = Platter()
        self._faults: list[_Fault] = []
        self._dead = False
        self._died = trio.Event()

    # --- knobs

    @property
    def dead(self) -> bool:
        return self._dead

    def fail(self, op: str, code: int = errno.EIO, *, path: str = "*", times: int = 1) -> None:
        """The next `times` calls of `op` ("write", "sync", "read", …) on a path matching the pattern fail with the errno.

        A failing sync is the nasty one: the writes it covered are then clean but not durable, and the next sync succeeds.
        """
        self._faults.extend([_Fault(op, path, code)] * times)

    def flip(self, path: str, offset: int, bit: int = 0) -> None:
        """Flip one bit of a file in both layers: bit rot."""
        byte = self._platter.names[path].cache.read(offset, 1)[0]
        self.rot(path, offset, bytes([byte ^ 1 << bit]))

    def rot(self, path: str, offset: int, data: bytes) -> None:
        """Overwrite part of a file in both layers, behind the back of whoever has it open."""
        node = self._platter.names[path]
        node.cache.write(offset, data)
        node.durable.write(offset, data)

    def peek(self, path: str, *, durable: bool = False) -> bytes:
        """The whole content of a file as reads see it, or as the platter has it."""
        node = (self._platter.durable_names if durable else self._platter.names)[path]
        layer = node.durable if durable else node.cache
        return bytes(layer.read(0, layer.size))

    def paths(self, *, durable: bool = False) -> list[str]:
        return sorted(self._platter.durable_names if durable else self._platter.names)

    @property
    def used(self) -> int:
        """Bytes taken, counting allocated zeros."""
        return sum(node.cache.size for node in self._platter.names.values())

    def clone(self) -> SimDisk:
        """An independent disk in the same state: crash the copy as often as you like, in every way."""
        return self._next(self._platter.copy())

    def another_process(self) -> SimDisk:
        """The same disk as a second process on the same machine sees it: same files, its own locks."""
        self._alive()
        return self._next(self._platter)

    def crash(self, how: Crash = "kill", rng: random.Random | None = None, *, kept: Kept | None = None) -> SimDisk:
        """Kill this incarnation and return the disk that the next one finds.

        "kill": the process died, the page cache lives. "power": of each file's unsynced writes none, all, a prefix or
        random sectors are kept (`kept` forces one of them), the last kept sector may be torn, and each unsynced change
        of names holds or not. "os": the same with whole pages, none of them torn.
        """
        self._die()
        platter = self._platter
        platter.locks.clear()
        if how != "kill":
            lose_power(platter, rng or self.random, kept, torn=how == "power")
        return self._next(platter)

    def _next(self, platter: Platter) -> SimDisk:
        other = SimDisk(capacity=self.capacity, rng=random.Random(self.random.random()))
        other.latency, other.struck = self.latency, self.struck
        other._platter = platter
        return other

    # --- the disk

    def open(self, path: str, size: int = 0) -> SimFile:
        node = self._platter.names.get(path)
        if node is not None:
            self._alive()
            return SimFile(self, path, node, writable=True)
        if path in self._platter.folders:
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)
        self._call("create", path, 0, size)
        self._room(path, size)
        return SimFile(self, path, self._create(path, size), writable=True)

    def open_read(self, path: str) -> SimFile:
        self._alive()
        return SimFile(self, path, self._node(path), writable=False)

    async def allocate(self, path: str, size: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._call("allocate", path, 0, size)
        await self._wait("allocate", path)
        self._room(path, size)
        node = self._platter.names.get(path)
        if node is None:
            node = self._create(path, size)
        node.settle_creation()

    def exists(self, path: str) -> bool:
        self._alive()
        return path in self._platter.names or self.is_folder(path)

    def size_of(self, path: str) -> int:
        self._alive()
        return self._node(path).cache.size

    def names(self, folder: str) -> list[str]:
        self._alive()
        prefix = f"{folder}/" if folder else ""
        every = (*self._platter.names, *self._platter.folders)
        return sorted({path[len(prefix) :].split("/", 1)[0] for path in every if path.startswith(prefix)} - {""})

    def is_folder(self, path: str) -> bool:
        self._alive()
        return path in self._platter.folders

    def remove(self, path: str) -> None:
        if path in self._platter.names:
            self._call("remove", path)
            del self._platter.names[path]
            self._platter.changes.append(Change(frozenset({folder_of(path)}), {path: None}))
        elif self.is_folder(path):
            if self.names(path):
                raise OSError(errno.ENOTEMPTY, "folder not empty", path)
            self._call("remove", path)
            self._platter.folders.discard(path)

    def rename(self, old: str, new: str) -> None:
        platter = self._platter
        self._call("rename", old)
        moved: dict[str, Node | None] = {}
        for path in [old] if old in platter.names else [p for p in platter.names if p.startswith(f"{old}/")]:
            node = platter.names.pop(path)
            moved[path], moved[new + path[len(old) :]] = None, node
        if not moved and old not in platter.folders:
            raise FileNotFoundError(errno.ENOENT, "no such file", old)
        platter.names.update({path: node for path, node in moved.items() if node is not None})
        for folder in [f for f in platter.folders if f == old or f.startswith(f"{old}/")]:
            platter.folders.discard(folder)
            platter.folders.add(new + folder[len(old) :])
        platter.folders.update(parents_of(new))
        platter.changes.append(Change(frozenset({folder_of(old), folder_of(new)}), moved))

    async def sync_files(self, files: Sequence[File]) -> None:
        failed: list[DiskFailed] = []

        async def sync(file: File) -> None:
            try:
                await file.sync()
            except DiskFailed as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for file in files:
                nursery.start_soon(sync, file)
        if failed:
            raise failed[0]

    async def sync_directory(self, folder: str) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        changes = [change for change in self._platter.changes if folder in change.folders]
        error = self._call("sync_directory", folder, defer_error=True)
        await self._wait("sync_directory", folder)
        if error:
            raise DiskFailed(f"cannot make the names in {folder or '.'} durable: {_text(error)}")
        for change in changes:
            apply_names(self._platter.durable_names, change)
        done = {id(change) for change in changes}
        self._platter.changes = [change for change in self._platter.changes if id(change) not in done]

    def lock(self, path: str) -> None:
        self._alive()
        holder = self._platter.locks.get(path)
        if holder is not None and holder is not self:
            raise StoreLocked(f"another process holds {path}: stop it, or give this one a store folder of its own")
        if path not in self._platter.names:
            self._create(path, 0)
        self._platter.locks[path] = self

    def unlock(self, path: str) -> None:
        self._alive()
        if self._platter.locks.get(path) is self:
            del self._platter.locks[path]

    def space(self, folder: str) -> tuple[int, int]:
        self._alive()
        total = 1 << 40 if self.capacity is None else self.capacity
        return total, max(0, total - self.used)

    def usage(self, folder: str) -> float:
        self._alive()
        return 0.0 if self.capacity is None else min(1.0, self.used / self.capacity)

    # --- inside

    def _node(self, path: str) -> Node:
        try:
            return self._platter.names[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", path) from None

    def _create(self, path: str, size: int) -> Node:
        node = self._platter.names[path] = Node(size)
        self._platter.folders.update(parents_of(path))
        self._platter.changes.append(Change(frozenset({folder_of(path)}), {path: node}))
        return node

    def _room(self, path: str, size: int) -> None:
        if self.capacity is not None and size and self.used + size > self.capacity:
            self.struck["disk-full"] += 1
            raise DiskFull(f"no space left for {path} ({size} bytes)")

    def _alive(self) -> None:
        if self._dead:
            raise Dead("this incarnation was killed; the next one has the disk that crash() returned")

    def _die(self) -> None:
        self._dead = True
        self._died.set()
        if self.on_death is not None:
            self.on_death()

    def _call(self, op: str, path: str, offset: int = 0, size: int = 0, *, defer_error: bool = False) -> int:
        """Count a call, burn the fuse, inject an error. Returns the errno instead of raising if `defer_error`."""
        self._alive()
        call = Call(op, path, offset, size)
        if self.trace is not None:
            self.trace.append(call)
        if op in CHANGING:
            self.calls += 1
            if self.on_call is not None:
                self.on_call(call)
            if self.fuse is not None:
                self.fuse -= 1
                if self.fuse <= 0:
                    self._die()
                    self._alive()
        for number, fault in enumerate(self._faults):
            if fault.op == op and fnmatchcase(path, fault.path):
                del self._faults[number]
                self.struck["disk-full" if fault.code in FULL else "io-error"] += 1
                if defer_error:
                    return fault.code
                raise _error(fault.code, f"{op} {path}")
        return 0

    async def _wait(self, op: str, path: str) -> None:
        """The time an operation takes; a thread in the kernel cannot be cancelled, so neither can this. Dies with the incarnation."""
        seconds = self.latency(op, path) if callable(self.latency) else self.latency
        if seconds > 0:
            self.struck["slow-disk"] += 1
            with trio.move_on_after(seconds, shield=True):
                await self._died.wait()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        self._alive()


class SimFile:
    """An open file of one incarnation. Implements `host.File`."""

    __slots__ = ("_disk", "_node", "_writable", "closed", "path")

    def __init__(self, disk: SimDisk, path: str, node: Node, *, writable: bool) -> None:
        self.path = path
        self.closed = False
        self._disk = disk
        self._node = node
        self._writable = writable

    @property
    def size(self) -> int:
        return self._node.cache.size

    def read_at(self, offset: int, size: int) -> memoryview:
        disk = self._disk
        assert not self.closed
        assert offset >= 0
        if disk._dead or disk._faults or disk.trace is not None:
            disk._call("read", self.path, offset, size)
        return self._node.cache.read(offset, size)

    def write_at(self, offset: int, data: Buffer) -> None:
        assert not self.closed
        assert self._writable
        assert offset >= 0
        disk, node = self._disk, self._node
        size = memoryview(data).nbytes
        try:
            disk._call("write", self.path, offset, size)
        except Dead:
            if disk.fuse == 0:  # the call in which it died: the kernel may have taken a part of it
                disk.fuse = -1
                self._put(offset, data, disk.random.choice((0, disk.random.randrange(size + 1))))
            raise
        except (DiskFull, DiskFailed):
            self._put(offset, data, disk.random.randrange(size + 1))
            raise
        grown = offset + size - node.cache.size
        if disk.capacity is not None and grown > 0 and disk.used + grown > disk.capacity:
            fits = max(0, disk.capacity - disk.used)
            self._put(offset, data, min(size, max(0, node.cache.size + fits - offset)))
            disk.struck["disk-full"] += 1
            raise DiskFull(f"no space left to write {size} bytes to {self.path}")
        self._put(offset, data, size)

    def _put(self, offset: int, data: Buffer, size: int) -> None:
        if size:
            kept = bytes(memoryview(data).cast("B")[:size])
            self._node.cache.write(offset, kept)
            self._node.note(offset, kept)

    def truncate(self, size: int) -> None:
        assert not self.closed
        assert self._writable
        disk = self._disk
        disk._call("truncate", self.path, size)
        if size > self.size:
            disk._room(self.path, size - self.size)
        self._node.cache.resize(size)
        self._node.note(size, None)

    async def sync(self) -> None:
        assert not self.closed
        await trio.lowlevel.checkpoint_if_cancelled()
        node = self._node
        snapshot = node.order
        error = self._disk._call("sync", self.path, defer_error=True)
        await self._disk._wait("sync", self.path)
        node.settle(snapshot, lost=bool(error))
        if error:
            raise DiskFailed(f"cannot make {self.path} durable: {_text(error)}")

    def close(self) -> None:
        self.closed = True


def _text(code: int) -> str:
    return errno.errorcode.get(code, str(code))


def _error(code: int, what: str) -> OSError | DiskFull | DiskFailed:
    if code in FULL:
        return DiskFull(f"no space left: {what}")
    if code == errno.EIO:
        return DiskFailed(f"input/output error: {what}")
    return OSError(code, _text(code), what)
