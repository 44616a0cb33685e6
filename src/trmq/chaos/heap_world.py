"""One heap of events, and a network on it. Times are whole microseconds; of two events at one moment the one planned first comes first.

A connection is two ordered pipes. Bytes arrive split and late, never out of order; they are lost only together with their connection.
A pipe whose way is cut keeps what arrives until the way is healed. A machine that loses its power says nothing to anybody: the other end
learns of it from silence, or once the machine is up again and knows nothing of the connection.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from specs.history import Event, Found, LogSeen

from trmq.chaos.run import Strikes

MS, S = 1_000, 1_000_000
Call = Callable[..., None]


class Host:
    """A machine with a process on it. `life` numbers the process; what was planned for an earlier one does not happen."""

    __slots__ = ("backlog", "conns", "life", "name", "number", "paused", "powered", "up")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.life = 0
        self.up = False
        self.powered = True
        self.paused = False
        self.backlog: list[tuple[Call, tuple[Any, ...]]] = []
        self.conns: dict[Conn, None] = {}


class Pipe:
    """One direction of a connection. `budget`: after so many bytes more the connection dies, None: it does not."""

    __slots__ = ("budget", "conn", "free", "held", "open", "source", "take", "target")

    def __init__(self, conn: Conn, source: Host, target: Host, take: Callable[[Any], None]) -> None:
        self.conn = conn
        self.source = source
        self.target = target
        self.take = take
        self.free = 0
        self.held: list[Any] = []
        self.budget: int | None = None
        self.open = True
        """Its target still listens."""


class Conn:
    """`ended` is called at each end that learns of the end: with the host, and whether the other side closed it."""

    __slots__ = ("back", "ended", "knows", "lives", "there")

    def __init__(self, one: Host, other: Host, there: Callable[[Any], None], back: Callable[[Any], None], ended: Callable[[Host], None]):
        self.there = Pipe(self, one, other, there)
        self.back = Pipe(self, other, one, back)
        self.ended = ended
        self.lives = (one.life, other.life)
        self.knows = [False, False]
        """Which end knows that it is over."""


EOF = object()
RESET = object()


class World:
    """`events` counts what happened; `note` writes the history."""

    def __init__(self, name: str, seed: object) -> None:
        self.now = 0
        self.events = 0
        self.heap: list[tuple[int, int, Host | None, int, Call, tuple[Any, ...]]] = []
        self.seq = 0
        self.words: list[Event] = []
        self.note = self.words.append
        self.trail = array("q")
        self.kinds: dict[str, int] = {}
        self.seed = f"{name}/{seed}"
        self.dice = self.stream("net")
        self.random = self.dice.random
        self.hits = Strikes()
        self.sometimes: Counter[str] = Counter()
        self.blocked: set[tuple[str, str]] = set()
        self.slow: dict[tuple[str, str], int] = {}
        self.split = False
        self.masters_too = False
        """Masters' own disks are looked at before each answer under SYNC_FLUSH; slaves' always are."""
        self.conns: dict[Conn, None] = {}

    def stream(self, concern: str) -> random.Random:
        return random.Random(f"{concern}/{self.seed}")

    @property
    def seconds(self) -> float:
        return self.now / S

    def fingerprint(self) -> str:
        """Of everything that happened, when and where, and of what is left of it on the disks and for readers."""
        digest = hashlib.sha256(self.trail.tobytes())
        for word in reversed(self.words):
            if isinstance(word, LogSeen):
                digest.update(word.data)
            elif isinstance(word, Found):
                digest.update(" ".join(word.ids).encode())
            else:
                break  # the looks stand at the end
        return digest.hexdigest()

    # --- events

    def after(self, delay: int, host: Host | None, call: Call, *args: Any) -> None:
        """Plan a call for the process that now runs on `host`."""
        self.seq += 1
        heappush(self.heap, (self.now + delay, self.seq, host, 0 if host is None else host.life, call, args))

    def run(self, until: int, stop: Callable[[], bool] | None = None) -> None:
        """Let everything happen that is planned up to `until` (or until `stop` says so, looked at after each event)."""
        heap, kinds, trail = self.heap, self.kinds, self.trail
        while heap and heap[0][0] <= until:
            at, _, host, life, call, args = heappop(heap)
            if host is not None:
                if host.life != life:
                    continue
                if host.paused:
                    host.backlog.append((call, args))
                    continue
                trail.append(host.number)
            self.now = at
            self.events += 1
            name = call.__name__
            kind = kinds.get(name)
            if kind is None:
                kind = kinds[name] = len(kinds)
            trail.append(at)
            trail.append(kind)
            call(*args)
            if stop is not None and stop():
                return
        self.now = until

    def resume(self, host: Host) -> None:
        """What waited happens now, in its order and before anything else."""
        host.paused = False
        backlog, host.backlog = host.backlog, []
        life = host.life
        for call, args in backlog:
            if host.life == life:
                self.events += 1
                call(*args)

    # --- connections

    def way(self, one: str, other: str) -> bool:
        """Whether both directions are open."""
        return (one, other) not in self.blocked and (other, one) not in self.blocked

    def connect(
        self, one: Host, other: Host, there: Callable[[Any], None], back: Callable[[Any], None], ended: Callable[[Host], None]
    ) -> Conn:
        conn = Conn(one, other, there, back, ended)
        self.conns[conn] = None
        one.conns[conn] = None
        other.conns[conn] = None
        return conn

    def send(self, pipe: Pipe, data: Any, size: int) -> None:
        """Put bytes (or one message of `size` bytes) on the wire."""
        conn = pipe.conn
        if not pipe.open:
            self._into_nothing(pipe)
            return
        dies = False
        if pipe.budget is not None:
            if size > pipe.budget:
                data = data[: pipe.budget] if isinstance(data, bytes) else None
                dies = True
            pipe.budget -= size
        if data:
            delay = 100 + int(self.random() * 300)
            if self.slow:
                delay += self.slow.get((pipe.source.name, pipe.target.name), 0)
            at = self.now + delay
            if at <= pipe.free:
                at = pipe.free + 1
            pipe.free = at
            if self.split and isinstance(data, bytes) and size > 1:
                cut = 1 + int(self.random() * (size - 1))
                self._deliver(at, pipe, data[:cut])
                data, pipe.free = data[cut:], at + 50
                self.hits["link"] += 1
            self._deliver(pipe.free, pipe, data)
        if dies:
            self.hits["link"] += 1
            self.break_off(conn)

    def _deliver(self, at: int, pipe: Pipe, data: Any) -> None:
        self.seq += 1
        target = pipe.target
        heappush(self.heap, (at, self.seq, target, target.life, self.arrive, (pipe, data)))

    def arrive(self, pipe: Pipe, data: Any) -> None:
        if pipe.held or (self.blocked and (pipe.source.name, pipe.target.name) in self.blocked):
            pipe.held.append(data)
            if len(pipe.held) == 1:
                self.hits["cut"] += 1
            return
        if not pipe.open:
            return
        if data is EOF or data is RESET:
            self._learn(pipe.conn, pipe.target)
        else:
            pipe.take(data)

    def release(self, pipe: Pipe) -> None:
        if (pipe.source.name, pipe.target.name) not in self.blocked:
            held, pipe.held = pipe.held, []
            for data in held:
                self.arrive(pipe, data)

    def _into_nothing(self, pipe: Pipe) -> None:
        """The machine at the other end knows nothing of this connection; if it is up and can be reached, it says so."""
        if pipe.target.powered and self.way(pipe.source.name, pipe.target.name) and not pipe.conn.knows[self._side(pipe.conn, pipe.source)]:
            self.after(200, pipe.source, self._learn, pipe.conn, pipe.source)

    @staticmethod
    def _side(conn: Conn, host: Host) -> int:
        return 0 if conn.there.source is host else 1

    def _learn(self, conn: Conn, host: Host) -> None:
        """`host` learns that the connection is over."""
        side = self._side(conn, host)
        if conn.knows[side]:
            return
        conn.knows[side] = True
        host.conns.pop(conn, None)
        (conn.back if side == 0 else conn.there).open = False
        if all(conn.knows):
            self.conns.pop(conn, None)
        conn.ended(host)

    def close(self, conn: Conn, host: Host, *, silent: bool = False) -> None:
        """`host` ends it; unless `silent`, the other end is told behind what was sent before."""
        side = self._side(conn, host)
        if conn.knows[side]:
            return
        conn.knows[side] = True
        host.conns.pop(conn, None)
        mine, theirs = (conn.there, conn.back) if side == 0 else (conn.back, conn.there)
        theirs.open = False
        if not silent and mine.open:
            at = max(self.now + 200, mine.free + 1)
            mine.free = at
            self._deliver(at, mine, EOF)
        if all(conn.knows):
            self.conns.pop(conn, None)

    def break_off(self, conn: Conn, *, one_end: bool = False) -> None:
        """The network ends it: both ends learn of it at once, or only one, by chance, and the other never does."""
        hosts = [conn.there.source, conn.there.target]
        if one_end:
            hosts = [hosts[self.random() < 0.5]]
        conn.there.open = conn.back.open = False
        conn.there.held, conn.back.held = [], []
        for host in hosts:
            if not conn.knows[self._side(conn, host)]:
                if host.paused:
                    host.backlog.append((self._learn, (conn, host)))
                else:
                    self._learn(conn, host)

    def between(self, one: str, other: str) -> list[Conn]:
        return [conn for conn in self.conns if {conn.there.source.name, conn.there.target.name} == {one, other} and not all(conn.knows)]

    def heal(self) -> None:
        was, self.blocked = self.blocked, set()
        self.slow.clear()
        for conn in self.conns:
            for pipe in (conn.there, conn.back):
                if pipe.held and (pipe.source.name, pipe.target.name) in was:
                    self.seq += 1
                    at = max(self.now + 200, pipe.free + 1)
                    heappush(self.heap, (at, self.seq, pipe.target, pipe.target.life, self.release, (pipe,)))

    # --- processes

    def kill(self, host: Host, *, silent: bool) -> None:
        """The process is gone; its kernel ends its connections, unless that is gone as well (`silent`)."""
        for conn in list(host.conns):
            self.close(conn, host, silent=silent)
        host.life += 1
        host.up = host.paused = False
        host.backlog.clear()
