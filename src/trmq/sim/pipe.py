"""One direction of a simulated connection: bytes in order, on their way, split at any byte; and who hears them."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from trmq.host import Address
from trmq.sim.clock import Bell

if TYPE_CHECKING:
    from trmq.sim.net import SimNet


class Tap(Protocol):
    """Hears every connection of a net. `read` tells of the end, too, as b""; `ended`: no more is put on this pipe; `by` is the host that
    closed it, "" after a reset."""

    def opened(self, there: Pipe, back: Pipe) -> None: ...
    def sent(self, pipe: Pipe, data: bytes) -> None: ...
    def read(self, pipe: Pipe, data: bytes) -> None: ...
    def ended(self, pipe: Pipe, by: str) -> None: ...


class Pipe:
    """One direction of a connection, between two addresses. `broken` says why it was reset, once it was."""

    __slots__ = (
        "_arrived", "_net", "arrival", "broken", "drop_after", "ends", "eof", "name", "queue", "receiver_gone", "rng", "room", "silent",
        "size", "window",
    )  # fmt: skip

    def __init__(self, net: SimNet, source: str, target: str, rng: random.Random, ends: tuple[Address, Address]) -> None:
        self.name = (source, target)
        self.ends = ends
        self.rng = rng
        self.queue: deque[tuple[float, bytes]] = deque()  # (arrival time, bytes)
        self.size = 0  # bytes in the queue
        self.window = net.window
        self.eof: float | None = None  # when the sender's end arrives
        self.broken = ""
        self.receiver_gone = False
        self.silent = False  # the receiver's host lost power: nobody answers, nobody complains
        self.drop_after = net._drops.pop(self.name, None)
        self.arrival = Bell()  # for the receiver
        self.room = Bell()  # for the sender
        self._net = net
        self._arrived = 0.0

    def wake(self) -> None:
        """Something changed: let both ends look."""
        self.arrival.ring()
        self.room.ring()

    def put(self, data: memoryview) -> int:
        """Take what fits into the window; with `split`, sometimes less."""
        if self.silent and self._net.world.is_up(self.name[1]):
            self.reset("reset by a host that restarted")
            return 0
        size = min(len(data), self.window - self.size)
        if size > 1 and self._net.split and self.rng.random() < 0.3:
            size = self.rng.randrange(1, size + 1)
            self._net.world.struck["split"] += 1
        if size <= 0:
            return 0
        piece = bytes(data[:size])
        self._net.world.steps += 1
        self._net.hold(self.name)
        self.queue.append((self._arrival(), piece))
        self.size += size
        if self._net.tap is not None:
            self._net.tap.sent(self, piece)
        self.wake()
        return size

    def end(self) -> None:
        """The sender sends nothing more."""
        if self.eof is None:
            self.eof = self._arrival()
            self.wake()
            if self._net.tap is not None and not self.broken:
                self._net.tap.ended(self, self.name[0])

    def _arrival(self) -> float:
        arrival = trio.current_time() + self._net.delay_of(self.name, self.rng)
        if arrival > self._arrived:
            self._arrived = arrival
        return self._arrived

    def take(self, size_max: int) -> bytes | None:
        """Bytes that have arrived, b"" at the end, None when there is nothing yet."""
        net, queue = self._net, self.queue
        if not queue and self.eof is None:
            return None
        if (net.cuts or net.clogged) and net.blocks(self.name):
            return None
        now = trio.current_time()
        if not queue or queue[0][0] > now:
            if queue or self.eof is None or self.eof > now:
                return None
            if net.tap is not None:
                net.tap.read(self, b"")
            return b""
        pieces, room = [], size_max
        if net.split and self.rng.random() < 0.5:
            room = self.rng.randrange(1, room + 1) if room < 64 or self.rng.random() < 0.5 else self.rng.randrange(1, 64)
        if self.drop_after is not None:
            room = min(room, self.drop_after)
        while room and queue and queue[0][0] <= now:
            arrival, piece = queue.popleft()
            if len(piece) > room:
                queue.appendleft((arrival, piece[room:]))
                piece = piece[:room]
            pieces.append(piece)
            room -= len(piece)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        net.world.steps += 1
        self.size -= len(data)
        if self.drop_after is not None:
            self.drop_after -= len(data)
            net.world.struck["drop"] += self.drop_after == 0
        self.wake()
        if data and net.tap is not None:
            net.tap.read(self, data)
        return data

    @property
    def blocked(self) -> bool:
        """Whether a cut or a clog keeps everything from arriving."""
        return self._net.blocks(self.name)

    def next_arrival(self) -> float | None:
        net = self._net
        if (net.cuts or net.clogged) and net.blocks(self.name):
            return None
        return self.queue[0][0] if self.queue else self.eof

    def reset(self, reason: str) -> None:
        if not self.broken and self.eof is None and self._net.tap is not None:
            self._net.tap.ended(self, "")
        self.broken = self.broken or reason
        self.queue.clear()
        self.size = 0
        self.wake()
