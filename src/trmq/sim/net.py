"""A simulated network: what TCP may do between hosts, and nothing that it may not.

A connection is two `Pipe`s, each in order, without loss and without duplicates, split at any byte and delayed. Bytes are lost only
because a connection dies. Between connections there is no order. No task stands behind a connection: the receiver itself
waits until the next piece has arrived, so an idle connection costs nothing.

Faults, all by host name: `delay`, `split`, `cut` (also one-way; the bytes wait until `heal`), `clog`, `reset`, `refused`, `drop_after`
so many bytes. A `Tap` hears what goes over the wire. A host that is killed closes its connections as its kernel would; one that loses
power falls silent, and its peers learn of it when they write to its next incarnation.
"""

from __future__ import annotations

import errno
import operator
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import ParkingLot, checkpoint

from trmq.host import Address, Buffer
from trmq.sim.pipe import Pipe, Tap

if TYPE_CHECKING:
    from trmq.sim.world import SimHost, World

WINDOW = 64 * 1024
"""Bytes on the way or unread, per direction; a sender that is further ahead waits."""
CONNECT_TIMEOUT = 127.0
"""Seconds until a connect that nobody answers fails, as Linux does by default."""
BACKLOG = 1024


class SimStream(trio.abc.HalfCloseableStream):
    """One end of a connection, as its host sees it. Raises `Dead` when the host's incarnation was killed."""

    def __init__(self, host: SimHost, incoming: Pipe, outgoing: Pipe, local: Address, remote: Address) -> None:
        self.local = local
        self.remote = remote
        self.closed = False
        self._host = host
        self._in = incoming
        self._out = outgoing
        self._receiving = False
        self._sending = False
        self._ended = False
        host.streams[self] = None

    def _check(self, pipe: Pipe) -> None:
        if self._host.dead:
            self._host.alive()
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")
        if pipe.drop_after == 0 and pipe is self._in:
            self.reset("dropped after so many bytes")
        if pipe.broken:
            raise trio.BrokenResourceError(pipe.broken)

    def _check_out(self) -> None:
        self._check(self._out)
        if self._ended:
            raise trio.ClosedResourceError("send_eof was called")
        if self._out.receiver_gone:
            raise trio.BrokenResourceError("the peer closed the connection")

    @contextmanager
    def _one_sender(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    async def send_all(self, data: Buffer) -> None:
        with self._one_sender():
            await checkpoint()
            self._check_out()
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[self._out.put(rest) :]
                self._check_out()
                if rest and self._out.size >= self._out.window:
                    await self._out.room.wait()
                    self._check_out()

    def send_now(self, data: Buffer) -> int:
        """What the window takes without waiting."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._host.dead:
            self._host.alive()
        if self.closed:
            raise trio.BrokenResourceError("this stream was closed")
        self._check_out()
        sent = self._out.put(memoryview(data).cast("B"))
        self._check_out()
        return sent

    async def wait_send_all_might_not_block(self) -> None:
        with self._one_sender():
            await checkpoint()
            self._check_out()
            while self._out.size >= self._out.window:
                await self._out.room.wait()
                self._check_out()

    async def send_eof(self) -> None:
        with self._one_sender():
            await checkpoint()
            self._check(self._out)
            self._ended = True
            self._out.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        size_max = 65536 if max_bytes is None else operator.index(max_bytes)
        if size_max < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            await checkpoint()
            pipe = self._in
            while True:
                self._check(pipe)
                data = pipe.take(size_max)
                if data is not None:
                    return data
                await pipe.arrival.wait(pipe.next_arrival())
        finally:
            self._receiving = False

    def reset(self, reason: str) -> None:
        """The connection dies, both ways; unread bytes are lost."""
        self._in.reset(reason)
        self._out.reset(reason)

    async def aclose(self) -> None:
        self.close()
        await checkpoint()

    def close(self) -> None:
        """As the kernel does for a process that ends: what was sent is still delivered. A dead incarnation's call does nothing."""
        if self.closed or self._host.dead:
            return
        self.hang_up()

    def hang_up(self) -> None:
        self.closed = True
        self._host.streams.pop(self, None)
        self._out.end()
        self._in.receiver_gone = True
        self._in.wake()
        self._out.wake()

    def fall_silent(self) -> None:
        """The host lost power: nobody tells the peer."""
        self._in.silent = True
        self._host.world.net.half_open.append(self)
        self._in.wake()
        self._out.wake()


class SimListener(trio.abc.Listener[SimStream]):
    """Takes connections for one address; up to BACKLOG of them wait to be accepted, connected already as in TCP."""

    def __init__(self, host: SimHost, address: Address) -> None:
        self.address = address
        self.host = host
        self.closed = False
        self._waiting: deque[SimStream] = deque()
        self._arrived = ParkingLot()
        self._accepting = False

    @property
    def full(self) -> bool:
        return len(self._waiting) >= BACKLOG

    def serves(self, host: SimHost) -> bool:
        return host is self.host or self.address[0] != "127.0.0.1"

    def offer(self, stream: SimStream) -> None:
        self._waiting.append(stream)
        self._arrived.unpark_all()

    async def accept(self) -> SimStream:
        if self._accepting:
            raise trio.BusyResourceError("another task is accepting")
        self._accepting = True
        try:
            await checkpoint()
            while True:
                self.host.alive()
                if self.closed:
                    raise trio.ClosedResourceError("this listener was closed")
                if self._waiting:
                    return self._waiting.popleft()
                await self._arrived.park()
        finally:
            self._accepting = False

    async def aclose(self) -> None:
        if not self.closed and not self.host.dead:
            self.shut()
        await checkpoint()

    def shut(self) -> None:
        self.closed = True
        self.host.listeners.pop(self.address[1], None)
        self._arrived.unpark_all()
        for stream in self._waiting:
            stream.reset("connection reset: nobody accepted it")


class SimNet:
    """All connections of a world and their faults.

    delay   seconds that each piece takes, or a function of (source, target) names and dice
    split   True: short sends and receives, at any byte
    window  bytes per direction of connections made from now on
    tap     hears everything, or None
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.delay: float | Callable[[str, str, random.Random], float] = 0.0
        self.split = False
        self.window = WINDOW
        self.tap: Tap | None = None
        self.cuts: set[tuple[str, str]] = set()
        self.clogged: set[str] = set()
        self.refused: set[Address] = set()
        self.half_open: list[SimStream] = []
        self._drops: dict[tuple[str, str], int] = {}
        self._healed = ParkingLot()
        self._count = 0

    def delay_of(self, name: tuple[str, str], rng: random.Random) -> float:
        return self.delay(*name, rng) if callable(self.delay) else self.delay

    # --- faults

    def cut(self, source: str, target: str, *, one_way: bool = False) -> None:
        """Bytes from `source` to `target` (and back) wait until `heal`."""
        self.cuts.add((source, target))
        if not one_way:
            self.cuts.add((target, source))

    def clog(self, name: str) -> None:
        """Nothing from or to this host arrives until it is healed; then everything at once."""
        self.clogged.add(name)

    def blocks(self, name: tuple[str, str]) -> bool:
        if not self.clogged:
            return name in self.cuts
        return name in self.cuts or name[0] in self.clogged or name[1] in self.clogged

    def hold(self, name: tuple[str, str]) -> None:
        """Count a cut or clog that keeps something from arriving."""
        if (self.cuts or self.clogged) and self.blocks(name):
            self.world.struck["cut" if name in self.cuts else "clog"] += 1

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """Take back every cut and clog; or those of one host; or the cuts between two."""
        if one is None:
            self.cuts.clear()
            self.clogged.clear()
        elif other is None:
            self.cuts = {cut for cut in self.cuts if one not in cut}
            self.clogged.discard(one)
        else:
            self.cuts -= {(one, other), (other, one)}
        for stream in self._streams():
            stream._in.wake()
        self._healed.unpark_all()

    def reset(self, one: str, other: str) -> int:
        """Kill every connection between two hosts; how many there were."""
        streams = [s for s in self._streams() if s._in.name in {(one, other), (other, one)}]
        for stream in streams:
            stream.reset("connection reset")
        return len({frozenset((s.local, s.remote)) for s in streams})

    def drop_after(self, source: str, target: str, count: int) -> None:
        """The connection from `source` to `target` (the open ones, else the next) dies once `target` has read `count` more bytes."""
        pipes = [s._in for s in self._streams() if s._in.name == (source, target)]
        for pipe in pipes:
            pipe.drop_after = count
            pipe.wake()
        if not pipes:
            self._drops[source, target] = count

    def _streams(self) -> list[SimStream]:
        """Every end that is open and not broken."""
        return [stream for host in self.world.hosts.values() for stream in list(host.streams) if not stream._in.broken]

    def booted(self, name: str) -> None:
        """A host is back without its connections: it answers what was sent to the old ones with a reset."""
        stale = [stream for stream in self.half_open if stream._host.name == name]
        self.half_open = [stream for stream in self.half_open if stream._host.name != name]
        for stream in stale:
            if stream._in.size or stream._in.eof is not None:
                stream.reset("reset by a host that restarted")

    # --- connecting

    async def connect(self, host: SimHost, address: Address) -> SimStream:
        """As a kernel does it: refused at once, or accepted by the backlog, or nobody answers. Raises `OSError`."""
        await checkpoint()
        host.alive()
        target = self.world.find(host, address[0])
        there, back = (host.name, target), (target, host.name)
        rng = self.world.dice(f"connect {there} {self._count}")
        self._count += 1
        with trio.move_on_after(CONNECT_TIMEOUT):
            await trio.sleep(self.delay_of(there, rng) + self.delay_of(back, rng))
            self.hold(there)
            self.hold(back)
            while self.blocks(there) or self.blocks(back) or not self.world.is_up(target):
                await self._healed.park()
            listener = self.world.hosts[target].listeners.get(address[1])
            host.alive()
            if listener is None or address in self.refused or listener.full or not listener.serves(host):
                raise ConnectionRefusedError(errno.ECONNREFUSED, f"connection to {address[0]}:{address[1]} refused")
            mine = host.ip if address[0] != "127.0.0.1" else "127.0.0.1"
            local, remote = (mine, host.free_port()), (address[0] if address[0] != target else listener.host.ip, address[1])
            out = Pipe(self, *there, self.world.dice(f"pipe {there} {self._count}"), (local, remote))
            incoming = Pipe(self, *back, self.world.dice(f"pipe {back} {self._count}"), (remote, local))
            if self.tap is not None:
                self.tap.opened(out, incoming)
            listener.offer(SimStream(listener.host, out, incoming, remote, local))
            return SimStream(host, incoming, out, local, remote)
        raise TimeoutError(errno.ETIMEDOUT, f"no answer from {address[0]}:{address[1]}")

    def wake(self) -> None:
        """Something changed that a connect may be waiting for."""
        self._healed.unpark_all()
