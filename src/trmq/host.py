"""The outside world as trmq sees it: a disk, a network, a clock and dice, as protocols only.

Core rooms take data and return data; whatever touches the machine goes through a `Host`. There are two: the real
one (`real_host.py`, the only module that imports os, socket, mmap, threading) and the simulated one (`sim/`), which
loses unsynced writes, tears sectors and cuts connections from one seed. Both must behave the same otherwise.

Writing is synchronous and cheap (it reaches the page cache, and every reader sees it at once); durability is
asynchronous (`sync`). That is what page cache and platter do, and it keeps the only hop to a thread at one per
*group* of records.

Paths are relative to the disk's root, use "/" and never start with it. Sizes and offsets are bytes; ends are exclusive.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import trio.abc

Buffer: TypeAlias = bytes | bytearray | memoryview
Address: TypeAlias = tuple[str, int]
"""(ip, port); the ip is a literal IPv4 or IPv6 address or a host name to be resolved."""


class File(Protocol):
    """An open file of one incarnation of a host. Readers see every write at once; only `sync` makes it durable."""

    @property
    def path(self) -> str: ...
    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> memoryview:
        """Up to `size` bytes from `offset`; shorter at the end of the file. Zero-copy where possible: the view
        shows later writes to the same place and keeps the mapping alive, so do not keep it for long."""
        ...

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write all of `data`, extending the file if needed. Raises `DiskFull` (some of it may be written) or `DiskFailed`."""
        ...

    def truncate(self, size: int) -> None: ...

    async def sync(self) -> None:
        """Return when every write made before this call is durable. Raises `DiskFailed`: never to be retried. Cancelled at its
        beginning or not at all."""
        ...

    def close(self) -> None:
        """Give back the handle. Views handed out by `read_at` stay valid."""
        ...


class Disk(Protocol):
    def open(self, path: str, size: int = 0) -> File:
        """Open for reading and writing. A missing file is created (with its folders) and, if `size` is given, made
        exactly `size` zero bytes, allocated if the file system can. Raises `DiskFull`, `DiskFailed`."""
        ...

    def open_read(self, path: str) -> File:
        """Open an existing file for reading only. Raises `FileNotFoundError`."""
        ...

    async def allocate(self, path: str, size: int) -> None:
        """Create `path` with `size` zero bytes, space reserved and size durable, off the loop. Raises `DiskFull`."""
        ...

    def exists(self, path: str) -> bool: ...
    def size_of(self, path: str) -> int: ...

    def names(self, folder: str) -> list[str]:
        """Names (not paths) directly inside `folder`, files and folders alike, sorted; [] if there is no such folder."""
        ...

    def is_folder(self, path: str) -> bool: ...
    def remove(self, path: str) -> None:
        """Remove a file or an empty folder; a missing one is no error."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Atomically, replacing `new`."""
        ...

    async def sync_files(self, files: Sequence[File]) -> None:
        """`File.sync` of each, in any order or at the same time. Raises `DiskFailed` if one fails."""
        ...

    async def sync_directory(self, folder: str) -> None:
        """Make creations, renames and removals inside `folder` durable."""
        ...

    def lock(self, path: str) -> None:
        """Take the store's process lock on `path` (byte 0, exclusive, as Java's FileLock), held until the process
        ends or `unlock`. Raises `StoreLocked`."""
        ...

    def unlock(self, path: str) -> None: ...

    def usage(self, folder: str) -> float:
        """Share of the file system under `folder` in use, 0.0 to 1.0."""
        ...

    def space(self, folder: str) -> tuple[int, int]:
        """(total, free) bytes of the file system under `folder`."""
        ...


class Host(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def disk(self) -> Disk: ...
    @property
    def random(self) -> random.Random: ...
    @property
    def process_id(self) -> int: ...

    def wall_ms(self) -> int:
        """Wall clock, ms since the epoch. May jump and drift; durations and deadlines use Trio's clock."""
        ...

    async def connect(self, address: Address) -> trio.abc.Stream:
        """Raises `OSError` when refused or unreachable."""
        ...

    async def listen(self, address: Address) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """Port 0 picks a free one; see `bound`. Raises `OSError`."""
        ...

    def bound(self, listener: trio.abc.Listener[trio.abc.Stream]) -> Address: ...

    def ends(self, stream: trio.abc.Stream) -> tuple[Address, Address]:
        """(local, peer) addresses of a connected stream, as numbers."""
        ...

    def send_now(self, stream: trio.abc.Stream, data: Buffer) -> int:
        """Hand to the transport what it takes without waiting, and return how many bytes that was (0 when it is full).

        Only while nobody is inside the stream's `send_all`. Raises `trio.BrokenResourceError`.
        """
        ...

    def memory_bytes(self) -> int:
        """The machine's memory."""
        ...

    def local_ip(self) -> str:
        """The address other machines would reach this host at (best guess)."""
        ...

    def trace(self, event: object) -> None: ...
