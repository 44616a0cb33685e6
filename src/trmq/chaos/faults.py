"""What can be done to the nodes of a cluster: end them in six ways, stop them, spoil their disks, cut their links."""

from __future__ import annotations

import errno

import trio
from specs.history import Event, Gone, Paused, Resumed, Rotten

from trmq.broker.service import Broker
from trmq.chaos.disks import DiskLog
from trmq.chaos.ear import HA_PORT, STRANGER
from trmq.sim.platter import Kept
from trmq.sim.world import World


class Faults:
    """All by the name of a node. What is done is noted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.brokers: dict[str, Broker] = {}
        self.logs: dict[str, DiskLog] = {}
        self.down: set[str] = set()
        self.events: list[Event] = []
        self._stopping: set[str] = set()

    def note(self, event: Event) -> None:
        self.events.append(event)

    async def close(self, node: str) -> None:
        self._stopping.add(node)
        self.brokers[node].stop()
        while node not in self.down:  # noqa: ASYNC110 (simulated time; the node may be killed meanwhile)
            await trio.sleep(0.05)
        self._stopping.discard(node)

    def _fell(self, node: str, how: str) -> None:
        self.down.add(node)
        self.note(Gone(node, how, trio.current_time()))

    def kill(self, node: str) -> None:
        self._fell(node, "kill")
        self.world.host(node).crash("kill")

    def os_crash(self, node: str, kept: Kept | None = None) -> None:
        self._fell(node, "os")
        self.world.host(node).crash("os", kept=kept)

    def power(self, node: str, kept: Kept | None = None) -> None:
        self._fell(node, "power")
        self.world.host(node).crash("power", kept=kept)

    def machine(self, node: str) -> None:
        """It does not return."""
        self._fell(node, "machine")
        self.world.host(node).crash("power")
        self.logs.pop(node, None)

    def disk(self, node: str) -> None:
        """Its disk is destroyed; it may return with an empty one."""
        self._fell(node, "disk")
        self.world.host(node).crash("disk")
        self.logs.pop(node, None)

    def disk_full(self, node: str, room: int = 0) -> None:
        disk = self.world.host(node).disk
        disk.capacity = disk.used + room

    def disk_free(self, node: str) -> None:
        self.world.host(node).disk.capacity = None

    def writes_fail(self, node: str, code: int = errno.ENOSPC) -> None:
        """Of the log, from now on."""
        self.world.host(node).disk.fail("write", code, path="commitlog/*", times=10_000)

    def writes_work(self, node: str) -> None:
        self.world.host(node).disk._faults.clear()

    def sync_fails(self, node: str) -> None:
        self.world.host(node).disk.fail("sync", errno.EIO, path="commitlog/*")

    def rot(self, node: str, number: int, *, misdirected: bool = False) -> bool:
        """Behind its back, below what is durable. False: there is nothing that could rot."""
        if not self.logs[node].rot(number, misdirected=misdirected):
            return False
        self.note(Rotten(node, trio.current_time()))
        return True

    def pause(self, node: str) -> None:
        self.note(Paused(node, trio.current_time()))
        self.world.host(node).pause()

    def resume(self, node: str) -> None:
        self.note(Resumed(node, trio.current_time()))
        self.world.host(node).resume()

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        self.world.net.cut(one, other, one_way=one_way)

    def part(self, one: str, other: str) -> None:
        """Cut, and what was on its way between them is lost."""
        self.world.net.cut(one, other)
        self.world.net.reset(one, other)

    async def dial_ha(self, node: str, who: str = STRANGER) -> trio.abc.Stream:
        """A bare connection to a master's HA port."""
        host = self.world.host(who, None if who in self.world.hosts else f"10.0.8.{len(self.world.hosts)}")
        return await host.connect((self.world.hosts[node].ip, HA_PORT))

    def heal(self, *names: str) -> None:
        self.world.net.heal(*names)
