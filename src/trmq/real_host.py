"""The machine: files, sockets, clocks, dice and threads. The one module that imports os, socket, time, mmap and the like.

Errors are translated once, here: no space → `DiskFull`, a refused read, write or sync → `DiskFailed`, a wrong folder, right or
port → `ConfigError` with one sentence that names it and the remedy.

Reading goes through read-only shared mappings (coherent with `pwrite`, no copy, no system call), writing through
`pwrite`, so a full disk is an error and never a SIGBUS. Waiting for the platter happens in worker threads with a limiter of their
own. What a platform lacks (allocation, directory sync, POSIX locks on Windows) is left out there.
"""

from __future__ import annotations

import errno
import mmap
import operator
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import trio

from .errors import ConfigError, DiskFailed, DiskFull, StoreLocked
from .host import Address, Buffer, File

try:  # POSIX only
    import fcntl
    import resource
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]  # the module is absent there
    resource = None  # type: ignore[assignment]  # likewise

MAP_BYTES_MIN = 64 * 1024
"""Smaller files, and smaller tails that grew after mapping, are read with `pread`."""
SYNCS_MAX = 16
"""Syncs that wait for the disk at the same time, of all files together."""
ROOM_MIN, ROOM_MAX = 16 * 1024, 256 * 1024
"""What a stream offers the kernel to fill: more when it was filled, less when hardly used. Large room that stays empty is mapped and given
back by the C library each time, which costs as much as the read."""
BACKLOG = 4096
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
_ONE = (1).to_bytes(8, sys.byteorder)
_locked: set[tuple[int, int]] = set()
"""(device, inode) of the lock files this process holds: POSIX locks do not conflict inside one process."""


class RealFile:
    """A file opened by `RealDisk`. Implements `host.File`. One handle per file may write; its `size` is its own count."""

    __slots__ = ("_closing", "_disk", "_fd", "_lock", "_mapped", "_size", "_syncing", "_view", "_writable", "path")

    def __init__(self, disk: RealDisk, path: str, fd: int, *, writable: bool) -> None:
        self.path = path
        self._disk = disk
        self._fd = fd
        self._writable = writable
        self._size = os.fstat(fd).st_size
        self._mapped = 0  # bytes of _view
        self._view = memoryview(b"")
        self._lock = threading.Lock()  # guards the two below: a sync runs in a thread, and a closed descriptor may be someone else's
        self._syncing = 0
        self._closing = False

    @property
    def size(self) -> int:
        return self._size if self._writable else os.fstat(self._fd).st_size

    def read_at(self, offset: int, size: int) -> memoryview:
        end = offset + size
        if end <= self._mapped:
            return self._view[offset:end]
        return self._read_unmapped(offset, size)

    def _read_unmapped(self, offset: int, size: int) -> memoryview:
        """Map the file (again) when what is not mapped yet is worth it, else copy."""
        end = min(offset + size, self.size)
        if end <= offset:
            return memoryview(b"")
        if self.size - self._mapped >= max(MAP_BYTES_MIN, self._mapped // 4):
            with _errors(f"map {self.path}", self._disk.root):
                self._view = memoryview(mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ))
            self._mapped = len(self._view)
        if end <= self._mapped:
            return self._view[offset:end]
        with _errors(f"read {self.path}", self._disk.root):
            return memoryview(os.pread(self._fd, end - offset, offset))

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`, extending the file if needed. Raises `DiskFull`, `DiskFailed`."""
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        done = 0
        try:
            done = os.pwrite(self._fd, data, offset)
            while done < size:  # a nearly full disk, or more than 2 GiB
                done += os.pwrite(self._fd, memoryview(data).cast("B")[done:], offset + done)
        except OSError as error:
            _raise(error, f"write to {self.path}", self._disk.root)
        finally:
            if offset + done > self._size and done:
                self._size = offset + done

    def truncate(self, size: int) -> None:
        """Cut or extend (with zeros). Views of bytes that are cut away must not be touched afterwards: the kernel kills who does."""
        self._view, self._mapped = memoryview(b""), 0
        with _errors(f"truncate {self.path}", self._disk.root):
            os.ftruncate(self._fd, size)
        self._size = size

    async def sync(self) -> None:
        await self._disk.in_thread(self._sync)

    def _sync(self) -> None:
        with self._lock:
            if self._closing:
                raise DiskFailed(f"{self.path} was closed before it was synced")
            self._syncing += 1
        try:
            _full_sync(self._fd)
        except OSError as error:
            raise DiskFailed(f"cannot make {self.path} durable: {error.strerror}") from error
        finally:
            with self._lock:
                self._syncing -= 1
                if self._closing and not self._syncing:
                    os.close(self._fd)

    def close(self) -> None:
        """Give back the descriptor, after the syncs that are under way. Views handed out keep their mapping alive."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._view, self._mapped = memoryview(b""), 0
            if not self._syncing:
                os.close(self._fd)


class Lane:
    """A thread that runs one function at a time, with an eventfd in each direction: waking either side is one write, and neither waits for
    a lock of the interpreter's to be handed over. Linux only."""

    def __init__(self, name: str) -> None:
        self.busy = False
        self._work: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._asked = os.eventfd(0, os.EFD_CLOEXEC)
        self._done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        threading.Thread(target=self._loop, name=name, daemon=True).start()

    async def run(self, work: Callable[[], None]) -> None:
        """Run `work` in the thread and raise what it raises; once begun, cancellation waits for its end. Only when not `busy`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.busy = True  # for ever, should the event loop break down in here
        self._work = work
        os.write(self._asked, _ONE)
        try:
            await trio.lowlevel.wait_readable(self._done)
        except trio.Cancelled:  # comes again at the next checkpoint; a shield from the beginning would be paid for by every group
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(self._done)
        os.read(self._done, 8)
        error, self._error = self._error, None
        self.busy = False
        if error is not None:
            raise error

    def _loop(self) -> None:
        while True:
            os.read(self._asked, 8)
            work, self._work = self._work, None
            if work is None:
                break
            try:
                work()
            except BaseException as error:
                self._error = error
            del work
            os.write(self._done, _ONE)
        os.close(self._asked)
        os.close(self._done)

    def end(self) -> None:
        """Let the thread end. Not while somebody is in `run`."""
        self._work = None
        os.write(self._asked, _ONE)


class RealDisk:
    """The folder `root` and what is below it. Implements `host.Disk`. An absolute path is taken as it is (Apache's storePathCommitLog)."""

    _lane: Lane | None = None

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(root)
        self._new_folders: set[str] = set()  # full paths whose own name is not durable yet
        self._locks: dict[str, tuple[int, tuple[int, int]]] = {}
        self._limiter: trio.CapacityLimiter | None = None

    def sync_limiter(self) -> trio.CapacityLimiter:
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(SYNCS_MAX)
        return self._limiter

    async def in_thread(self, work: Callable[[], None]) -> None:
        """Run `work`, which waits for the disk, in a thread; its result is waited for, also when cancelled meanwhile.

        One after the other goes through a thread that is kept, which takes half the time and CPU of a thread out of Trio's store;
        whoever comes while it is busy takes one of those.
        """
        lane = self._lane
        if lane is None and hasattr(os, "eventfd"):
            lane = self._lane = Lane(f"disk {self.root}")
        if lane is None or lane.busy:
            await trio.to_thread.run_sync(work, limiter=self.sync_limiter())
        else:
            await lane.run(work)

    def __del__(self) -> None:
        if self._lane is not None:
            self._lane.end()

    def _full(self, path: str) -> str:
        return os.path.join(self.root, path) if path else self.root

    # --- files

    def open(self, path: str, size: int = 0) -> RealFile:
        """Open for reading and writing; a missing file is created, sparse, with `size` zero bytes."""
        full = self._full(path)
        with _errors(f"open {full}", self.root):
            try:
                fd = os.open(full, _FLAGS | os.O_RDWR)
            except FileNotFoundError:
                self._make_folders(os.path.dirname(full))
                fd = os.open(full, _FLAGS | os.O_RDWR | os.O_CREAT, 0o644)
                if size:
                    _or_remove(full, fd, lambda: os.ftruncate(fd, size))
        return RealFile(self, path, fd, writable=True)

    def open_read(self, path: str) -> RealFile:
        full = self._full(path)
        with _errors(f"open {full}", self.root):
            return RealFile(self, path, os.open(full, _FLAGS | os.O_RDONLY), writable=False)

    async def allocate(self, path: str, size: int) -> None:
        await self.in_thread(lambda: self._allocate(self._full(path), size))

    def _allocate(self, full: str, size: int) -> None:
        with _errors(f"allocate {size} bytes for {full}", self.root):
            self._make_folders(os.path.dirname(full))
            fd = os.open(full, _FLAGS | os.O_RDWR | os.O_CREAT, 0o644)
            _or_remove(full, fd, lambda: _reserve(fd, size))
            os.close(fd)

    def exists(self, path: str) -> bool:
        return os.path.exists(self._full(path))

    def size_of(self, path: str) -> int:
        return os.stat(self._full(path)).st_size

    def names(self, folder: str) -> list[str]:
        with _errors(f"list {self._full(folder)}", self.root):
            try:
                return sorted(os.listdir(self._full(folder)))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(self._full(path))

    def remove(self, path: str) -> None:
        full = self._full(path)
        with _errors(f"remove {full}", self.root):
            try:
                if os.path.isdir(full):
                    os.rmdir(full)
                else:
                    os.unlink(full)
            except FileNotFoundError:
                pass

    def rename(self, old: str, new: str) -> None:
        with _errors(f"rename {self._full(old)}", self.root):
            self._make_folders(os.path.dirname(self._full(new)))
            os.replace(self._full(old), self._full(new))

    # --- durability of names

    async def sync_files(self, files: Sequence[File]) -> None:
        """A few threads with a share of the files each: a hop per file would cost more than its sync."""
        real = cast("Sequence[RealFile]", files)
        shares = [real[start::SYNCS_MAX] for start in range(min(SYNCS_MAX, len(real)))]
        failed: list[DiskFailed] = []

        async def sync(share: Sequence[RealFile]) -> None:
            try:
                await trio.to_thread.run_sync(_sync_each, share, limiter=self.sync_limiter())
            except DiskFailed as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for share in shares:
                nursery.start_soon(sync, share)
        if failed:
            raise failed[0]

    async def sync_directory(self, folder: str) -> None:
        """Make the names in `folder` durable, and the names of the folders above it that were made here."""
        await self.in_thread(lambda: self._sync_directory(self._full(folder)))

    def _sync_directory(self, full: str) -> None:
        while True:
            try:
                _sync_folder(full)
            except OSError as error:
                raise DiskFailed(f"cannot make the names in {full} durable: {error.strerror}") from error
            if full not in self._new_folders:
                return
            self._new_folders.discard(full)
            full = os.path.dirname(full)

    def _make_folders(self, full: str) -> None:
        missing = []
        while full and not os.path.isdir(full):
            missing.append(full)
            full = os.path.dirname(full)
        for folder in reversed(missing):
            try:
                os.mkdir(folder)
            except FileExistsError:
                continue  # a thread of ours was faster
            except FileNotFoundError as error:  # a file system that takes no folders
                _raise(OSError(errno.EROFS, error.strerror), f"make the folder {folder}", self.root)
            self._new_folders.add(folder)

    # --- the store's lock

    def lock(self, path: str) -> None:
        """Take byte 0 exclusively, as Java's `FileChannel.tryLock(0, 1, false)` does; the two exclude each other.

        Nobody else in this process may open and close `path` meanwhile: closing any descriptor of it gives the lock back.

        Source: org.apache.rocketmq.store.DefaultMessageStore#start.
        """
        full = self._full(path)
        with _errors(f"lock {full}", self.root):
            self._make_folders(os.path.dirname(full))
            before = os.stat(full) if os.path.exists(full) else None
            if before is not None and (before.st_dev, before.st_ino) in _locked:  # not even opened: see above
                raise StoreLocked(_locked_sentence(full, "this process"))
            fd = os.open(full, _FLAGS | os.O_RDWR | os.O_CREAT, 0o644)
            if fcntl is not None:
                try:
                    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0, os.SEEK_SET)
                except (BlockingIOError, PermissionError):
                    holder = _lock_holder(fd)
                    os.close(fd)
                    raise StoreLocked(_locked_sentence(full, f"process {holder}" if holder else "another process")) from None
            stat = os.fstat(fd)
            _locked.add((stat.st_dev, stat.st_ino))
            self._locks[path] = fd, (stat.st_dev, stat.st_ino)

    def unlock(self, path: str) -> None:
        fd, key = self._locks.pop(path, (-1, (0, 0)))
        if fd >= 0:
            _locked.discard(key)
            os.close(fd)

    def space(self, folder: str) -> tuple[int, int]:
        full = self._full(folder)
        while not os.path.exists(full):
            full = os.path.dirname(full)
        if not hasattr(os, "statvfs"):  # pragma: no cover - Windows
            return 0, 0
        stat = os.statvfs(full)
        return stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize

    def usage(self, folder: str) -> float:
        """As `df` shows it: blocks reserved for root count as neither used nor free.

        Source: org.apache.rocketmq.common.UtilAll#getDiskPartitionSpaceUsedPercent.
        """
        full = self._full(folder)
        while not os.path.exists(full):
            full = os.path.dirname(full)
        if not hasattr(os, "statvfs"):  # pragma: no cover - Windows
            return 0.0
        stat = os.statvfs(full)
        used = stat.f_blocks - stat.f_bfree
        return used / (used + stat.f_bavail) if used + stat.f_bavail else 1.0


class RealStream(trio.abc.HalfCloseableStream):
    """A TCP connection. Does what `trio.SocketStream` does with fewer steps per message, and can send without waiting.

    Reading waits first and reads after: a peer that sends one request at a time never has the next one ready, and the vain attempt costs
    as much as the read. Sixteen such peers: 15.7 µs of CPU per request instead of 18.2.
    """

    def __init__(self, sock: trio.socket.SocketType) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self._fd = sock.fileno()
        self._room = ROOM_MIN
        self._sending = False
        self._ended = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        size_max = 65536 if max_bytes is None else operator.index(max_bytes)
        if size_max < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._fd < 0:
            await self._closed()
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                room = self._room
                data = os.read(self._fd, room if room < size_max else size_max)
                if len(data) == room and room < ROOM_MAX:
                    self._room = room * 4
                elif len(data) * 16 < room and room > ROOM_MIN:
                    self._room = room // 4
                return data
            except BlockingIOError:  # woken in vain
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    def send_now(self, data: Buffer) -> int:
        """Bytes that the kernel takes at once. Raises `trio.BrokenResourceError`."""
        if self._fd < 0:
            raise trio.BrokenResourceError("this stream was closed")
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    async def send_all(self, data: Buffer) -> None:
        with self._one_sender():
            await trio.lowlevel.checkpoint()
            if self._fd < 0 or self._ended:
                await self._closed()
            rest = memoryview(data)
            while rest:
                rest = rest[self.send_now(rest) :]
                if rest:
                    await trio.lowlevel.wait_writable(self._fd)

    async def wait_send_all_might_not_block(self) -> None:
        with self._one_sender():
            if self._fd < 0:
                await self._closed()
            await trio.lowlevel.wait_writable(self._fd)

    async def send_eof(self) -> None:
        with self._one_sender():
            await trio.lowlevel.checkpoint()
            if self._fd < 0:
                await self._closed()
            self._ended = True
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    async def aclose(self) -> None:
        self.socket.close()  # wakes whoever waits on it
        self._fd = -1
        await trio.lowlevel.checkpoint()

    async def _closed(self) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError("this stream was closed")

    @contextmanager
    def _one_sender(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False


class RealListener(trio.abc.Listener[trio.abc.HalfCloseableStream]):
    """A listening socket whose connections are `RealStream`s."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self.socket = listener.socket

    async def accept(self) -> trio.abc.HalfCloseableStream:
        return _stream(await self._listener.accept())

    async def aclose(self) -> None:
        await self._listener.aclose()


def _stream(stream: trio.SocketStream) -> RealStream | trio.SocketStream:
    return stream if os.name == "nt" else RealStream(stream.socket)  # a socket is no file descriptor there


class RealHost:
    """This machine. Implements `host.Host`; `root` is the folder of its disk (made when something is written)."""

    def __init__(self, root: str | os.PathLike[str], *, name: str = "") -> None:
        self.name = name or socket.gethostname()
        self.disk = RealDisk(root)
        self.random = random.Random()
        self.process_id = os.getpid()
        self.on_trace: Callable[[object], None] | None = None

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def connect(self, address: Address) -> RealStream | trio.SocketStream:
        """Connect over TCP, IPv4 or IPv6, without Nagle's delay. Raises `OSError`."""
        ip, port = address
        return _stream(await trio.open_tcp_stream(ip, port))

    async def listen(self, address: Address) -> Sequence[RealListener]:
        """Listen on (ip, port); an empty ip is every IPv4 interface. Raises `ConfigError` naming the key to change."""
        ip, port = address
        if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65536
            raise ConfigError(f"listenPort {port} is not a port: give a number from 0 to 65535")
        try:
            return [RealListener(each) for each in await trio.open_tcp_listeners(port, host=ip or "0.0.0.0", backlog=BACKLOG)]
        except socket.gaierror as error:
            raise ConfigError(f"bindAddress {ip!r} cannot be resolved: give an address of this machine") from error
        except OSError as error:
            raise ConfigError(_listen_sentence(ip, port, error)) from error

    def bound(self, listener: trio.abc.Listener[Any]) -> Address:
        assert isinstance(listener, RealListener)
        return _numbers(listener.socket.getsockname())

    def ends(self, stream: trio.abc.Stream) -> tuple[Address, Address]:
        """(local, peer) of a connected stream. Raises `OSError` when the peer is already gone."""
        assert isinstance(stream, RealStream | trio.SocketStream)
        return _numbers(stream.socket.getsockname()), _numbers(stream.socket.getpeername())

    def send_now(self, stream: trio.abc.Stream, data: Buffer) -> int:
        return stream.send_now(data) if isinstance(stream, RealStream) else 0

    def memory_bytes(self) -> int:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):  # pragma: no cover - another system than Linux or macOS
            return 4 << 30

    def local_ip(self) -> str:
        """The address of the interface that the default route leaves by; no packet is sent. Loopback when there is none."""
        for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
            try:
                with socket.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.connect((elsewhere, 9))
                    return str(sock.getsockname()[0])
            except OSError:
                continue
        return "127.0.0.1"

    def trace(self, event: object) -> None:
        if self.on_trace is not None:
            self.on_trace(event)


def raise_file_limit() -> int:
    """Raise this process's limit of open files to what it may have, and return it; 0 where there is no such limit."""
    if resource is None:  # pragma: no cover - Windows
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = hard == resource.RLIM_INFINITY  # which the kernel may refuse as a soft limit
    for wanted in (1 << 20, 1 << 16, 10240) if endless else (hard,):
        if soft != resource.RLIM_INFINITY and wanted > soft:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                break
            except (ValueError, OSError):
                continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _reserve(fd: int, size: int) -> None:
    """Reserve space for `size` zero bytes and make the size durable; where the file system cannot reserve, only the size."""
    try:
        if not hasattr(os, "posix_fallocate"):  # pragma: no cover - macOS, Windows
            raise OSError(errno.EOPNOTSUPP, "no posix_fallocate")
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
    _full_sync(fd)


def _or_remove(full: str, fd: int, work: Callable[[], None]) -> None:
    """Run `work` on a file just made; should it fail, leave neither the descriptor nor the file."""
    try:
        work()
    except BaseException:
        os.close(fd)
        os.unlink(full)
        raise


def _sync_each(files: Sequence[RealFile]) -> None:
    for file in files:
        file._sync()


def _full_sync(fd: int) -> None:
    if sys.platform == "darwin":  # pragma: no cover - fsync does not reach the platter there
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        _fdatasync(fd)


def _sync_folder(full: str) -> None:
    if os.name == "nt":  # pragma: no cover - no such thing
        return
    try:
        fd = os.open(full, _FLAGS | os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # removed meanwhile: nothing in it to keep
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without directory sync
            raise
    finally:
        os.close(fd)


def _lock_holder(fd: int) -> int | None:
    """The pid that holds byte 0, where the system tells (Linux's struct flock)."""
    if not sys.platform.startswith("linux"):  # pragma: no cover
        return None
    layout = "hhqqi4x"
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    pid = int(struct.unpack(layout, answer)[4])
    return pid if pid > 0 else None


def _locked_sentence(full: str, holder: str) -> str:
    return f"{holder} holds the store (lock file {full}): stop it, or set storePathRootDir to another folder"


def _listen_sentence(ip: str, port: int, error: OSError) -> str:
    code = error.errno
    if code == errno.EADDRINUSE:
        return f"port {port} is in use on {ip or 'this machine'}: stop the other process or set listenPort to a free port"
    if code in REFUSED:
        return f"port {port} may not be opened by this user: set listenPort to a port above 1023"
    if code == errno.EADDRNOTAVAIL:
        return f"bindAddress {ip} is not an address of this machine: give one of its own, or 0.0.0.0 for all"
    return f"cannot listen on {ip}:{port}: {error}; change bindAddress or listenPort"


def _numbers(name: tuple[str, int]) -> Address:
    return name[0].removeprefix("::ffff:"), name[1]


@contextmanager
def _errors(what: str, root: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _raise(error, what, root)


def _raise(error: OSError, what: str, root: str) -> NoReturn:
    """Raise what a failed system call means to a caller; a missing file and the like stay `OSError`."""
    code = error.errno
    if code in FULL:
        raise DiskFull(f"no space left to {what}: free some or move the store") from error
    if code == errno.EIO:
        raise DiskFailed(f"the disk refused to {what}: {error.strerror}") from error
    if code in REFUSED:
        remedy = f"give this user the right to write in {root}, or set storePathRootDir to another folder"
        raise ConfigError(f"cannot {what}: {error.strerror}; {remedy}") from error
    if code in (errno.ENOTDIR, errno.EISDIR):
        stands = "a file stands where a folder must be" if code == errno.ENOTDIR else "a folder stands where a file must be"
        raise ConfigError(f"cannot {what}: {stands}; move it away, or set storePathRootDir to another folder") from error
    if code in (errno.EMFILE, errno.ENFILE):
        raise ConfigError(f"cannot {what}: too many open files; raise the limit (ulimit -n), now {raise_file_limit()}") from error
    raise error
