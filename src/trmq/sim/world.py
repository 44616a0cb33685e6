"""`World`: hosts, their disks, their network and their clocks, all from one seed; the place where hosts are crashed.

Each concern draws from dice of its own (`World.dice(name)`), so that a new draw in one place does not move all others. A `SimHost` is
one *incarnation* of a host. `crash` unplugs it first and cancels its tasks after: cancellation runs `finally` blocks, a power cut does
not, and whatever those blocks try on disk or network raises `Dead`. `World.host(name)` is the current incarnation, booted if needed:

    world = World(seed=7)
    nursery.start_soon(world.host("broker").run, serve)
    world.host("broker").crash("power")
    nursery.start_soon(world.host("broker").run, serve)

Monotonic time is Trio's, the same everywhere; wall time is each node's own and may be wrong.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import trio

from trmq.errors import ConfigError
from trmq.host import Address, Buffer
from trmq.sim import determinism
from trmq.sim.disk import Crash, Dead, SimDisk
from trmq.sim.net import SimListener, SimNet, SimStream
from trmq.sim.platter import Kept

START_MS = 1_700_000_000_000


class Clock:
    """The wall clock of a node: milliseconds, `skew_ms` wrong, `rate` times as fast as it should be (0: frozen)."""

    def __init__(self) -> None:
        self.skew_ms = 0
        self._rate = 1.0
        self._since = 0.0
        self._elapsed_ms = 0.0
        self.struck: Counter[str] = Counter()
        self._said: object = None

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        now = trio.current_time()
        self._elapsed_ms += (now - self._since) * 1000 * self._rate
        self._since, self._rate = now, rate

    def now_ms(self) -> int:
        fault = (self.skew_ms, self._rate)
        if fault not in ((0, 1.0), self._said):
            self._said = fault
            self.struck["clock"] += 1
        return START_MS + self.skew_ms + int(self._elapsed_ms + (trio.current_time() - self._since) * 1000 * self._rate)


class World:
    """Everything outside the programs under test. `events` is what they traced, `fingerprint` its hash. `struck` counts, per kind, faults
    that a program ran into (a cut that held bytes back, a clock that was asked while it was wrong), `steps` deliveries and disk calls."""

    def __init__(self, seed: object) -> None:
        self.seed = seed
        self.net = SimNet(self)
        self.hosts: dict[str, SimHost] = {}  # the latest incarnation of each
        self.events: list[tuple[float, str, object]] = []
        self._hash = hashlib.sha256()
        self.struck: Counter[str] = Counter()
        self.steps = 0

    def dice(self, name: str) -> random.Random:
        """Dice for one concern, the same for the same seed whatever else is drawn."""
        return random.Random(f"{name}/{self.seed}")

    def host(self, name: str, ip: str | None = None) -> SimHost:
        """The current incarnation of a host, made or booted if there is none."""
        last = self.hosts.get(name)
        if last is not None and not last.crashed:
            assert not last.dead, f"{name} burnt its fuse: say with crash() what became of the machine"
            return last
        if last is None:
            ip = ip or f"10.0.0.{len(self.hosts) + 1}"
            assert all(other.ip != ip for other in self.hosts.values()), f"{ip} is taken"
            host = SimHost(self, name, ip, 1, SimDisk(rng=self.dice(f"disk {name}")), Clock())
            host.clock.struck = host.disk.struck = self.struck
        else:
            host = SimHost(self, name, last.ip, last.incarnation + 1, last.next_disk, last.clock)
        self.hosts[name] = host
        self.note(name, ("boot", host.incarnation))
        self.net.booted(name)
        self.net.wake()
        return host

    def is_up(self, name: str) -> bool:
        host = self.hosts.get(name)
        return host is not None and not host.dead

    def find(self, asking: SimHost, ip: str) -> str:
        """The name of the host at an address: an ip, a host name, or loopback."""
        if ip in ("127.0.0.1", "localhost"):
            return asking.name
        for host in self.hosts.values():
            if ip in (host.ip, host.name):
                return host.name
        raise OSError(f"{ip}: name or address not known")

    def note(self, name: str, event: object) -> None:
        """Part of the history: what happened, when, on which node."""
        entry = (round(trio.current_time(), 9) if trio.lowlevel.in_trio_run() else 0.0, name, event)
        self.events.append(entry)
        self._hash.update(repr(entry).encode())

    @property
    def fingerprint(self) -> str:
        return self._hash.hexdigest()


class SimHost:
    """One incarnation of a node. Implements `host.Host`."""

    def __init__(self, world: World, name: str, ip: str, incarnation: int, disk: SimDisk, clock: Clock) -> None:
        self.name = name
        self.ip = ip
        self.world = world
        self.incarnation = incarnation
        self.clock = clock
        self.disk = disk
        self.next_disk = disk
        self.random = world.dice(f"host {name} {incarnation}")
        self.process_id = 1000 + incarnation
        self.dead = False  # nothing of it works any more
        self.crashed = False  # and the world knows
        self.streams: dict[SimStream, None] = {}
        self.listeners: dict[int, SimListener] = {}
        self.paused: Callable[[], None] | None = None
        self._scope = trio.CancelScope()
        self._port = 40_000
        disk.on_death = self._die

    def __repr__(self) -> str:
        return f"<SimHost {self.name} {self.ip} #{self.incarnation}{' dead' if self.dead else ''}>"

    # --- living and dying

    async def run(self, main: Callable[[SimHost], Awaitable[object]]) -> None:
        """Run a program on this incarnation until it ends or the incarnation does."""
        determinism.RUNS_ON.set(self)
        with self._scope:
            try:
                await main(self)
            except* Dead:
                assert self.dead

    def alive(self) -> None:
        if self.dead:
            raise Dead(f"{self!r}")

    def _die(self) -> None:
        self.dead = True

    def crash(self, how: Crash | Literal["disk"] = "kill", *, kept: Kept | None = None) -> None:
        """End this incarnation: first its handles die, then its tasks are cancelled.

        "kill": the kernel lives, so peers see the connections closed and the page cache stays. "os", "power": peers see nothing, and
        `kept` says what of the unsynced writes is left (None: chance). "disk": the same, and the next incarnation has an empty disk.
        """
        if self.crashed:
            return
        self.world.note(self.name, ("crash", how))
        self.dead = self.crashed = True
        dice = self.world.dice(f"crash {self.name} {self.incarnation}")
        self.next_disk = self.disk.crash("power" if how == "disk" else how, dice, kept=kept)
        if how == "disk":
            self.next_disk = SimDisk(rng=self.world.dice(f"disk {self.name} {self.incarnation}"))
            self.next_disk.struck = self.world.struck
        for listener in list(self.listeners.values()):
            listener.shut()
        for stream in list(self.streams):
            if how == "kill":
                stream.hang_up()
            else:
                stream.fall_silent()
        self.streams.clear()
        self._scope.cancel()
        self.resume()

    def pause(self) -> None:
        """As SIGSTOP: the program does nothing more, though its kernel takes what comes in. Time goes on without it."""
        self.paused = self.paused or determinism.hold_back(self)

    def resume(self) -> None:
        """As SIGCONT: it goes on where it was, all at once."""
        if self.paused is not None:
            self.paused()
            self.paused = None

    # --- what a program sees

    def wall_ms(self) -> int:
        return self.clock.now_ms()

    async def connect(self, address: Address) -> SimStream:
        return await self.world.net.connect(self, address)

    async def listen(self, address: Address) -> Sequence[SimListener]:
        await trio.lowlevel.checkpoint()
        self.alive()
        port = address[1] or self.free_port()
        if port in self.listeners:
            raise ConfigError(f"port {port} is in use on {self.name}: set listenPort to a free port")
        ip = self.ip if address[0] in ("", "0.0.0.0", "::") else address[0]
        listener = self.listeners[port] = SimListener(self, (ip, port))
        return [listener]

    def free_port(self) -> int:
        self._port += 1
        return self._port

    def bound(self, listener: trio.abc.Listener[trio.abc.Stream]) -> Address:
        assert isinstance(listener, SimListener)
        return listener.address

    def ends(self, stream: trio.abc.Stream) -> tuple[Address, Address]:
        assert isinstance(stream, SimStream)
        return stream.local, stream.remote

    def send_now(self, stream: trio.abc.Stream, data: Buffer) -> int:
        assert isinstance(stream, SimStream)
        return stream.send_now(data)

    memory = 1 << 30

    def memory_bytes(self) -> int:
        return self.memory

    def local_ip(self) -> str:
        return self.ip

    def trace(self, event: object) -> None:
        self.alive()
        self.world.note(self.name, event)
