"""Level 2: the pure cores on one heap of events, without Trio. `play(scenario)` gives a `Run`; the same scenario, the same run.

    heap_world   events, connections, faults of the network      heap_master  `MasterEnd`, `Holders`, acks
    heap_disk    page cache and platter                           heap_slave   `SlaveEnd`, `Follower`, who may follow
    heap_store   the shipped log and recovery on that disk        heap_client  queue choice, retries

Everything that decides is the code that ships; what is played here is what the shell does between two decisions. So it finds wrong
decisions and orders of events, fast; whether the shell really does what is played, the level above says (`trmq.chaos.shell`).
"""

from __future__ import annotations

from collections import Counter

import attrs
from specs.history import Done, Eased, Found, Hindered, History, LogSeen, Paused, Resumed, Rotten, Settled

from trmq.chaos.atlas import KIND
from trmq.chaos.heap_client import Client
from trmq.chaos.heap_master import Feed, MasterRole
from trmq.chaos.heap_node import Node, Role
from trmq.chaos.heap_slave import SlaveRole
from trmq.chaos.heap_store import SEGMENT, records_of, visible
from trmq.chaos.heap_world import MS, Conn, Host, S, World
from trmq.chaos.run import Run
from trmq.chaos.scenario import CLIENT, HINDERS, LINKS, Scenario, Step
from trmq.chaos.sometimes import in_flight
from trmq.replica.transfer import encode_report

SETTLE = 15 * S
HOW = {"kill": "kill", "os-crash": "os", "power": "power", "machine": "machine", "disk": "disk"}


@attrs.frozen
class Table:
    """The configuration of the masters: `need` holders (0: all), at least `minimum` in sync, no more than `gap` bytes behind."""

    sync: bool
    need: int = 2
    minimum: int = 1
    gap: int = 1 << 28
    auto: bool = False


UNUSUAL = ({"need": 0}, {"minimum": 2}, {"minimum": 2, "gap": 900}, {"minimum": 2, "auto": True})
"""Besides the usual configuration; one synchronous pair in four has one of these."""


class Group:
    """A broker group, and what the name servers say of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.master: Node
        self.known: Node | None = None
        self.replaced: set[Node] = set()
        self.sessions = 0

    def registered_master(self) -> Node | None:
        return self.known

    def registered_slaves(self) -> int:
        return sum(node.up for node in self.nodes if node is not self.master)

    def slaves(self) -> list[Node]:
        return [node for node in self.nodes if node is not self.master]

    def make_role(self, node: Node, master: bool) -> Role:
        if master:
            node.was_master = True
            self.known = node
            return MasterRole(node)
        return SlaveRole(node)

    def left(self, node: Node, *, silent: bool) -> None:
        """The node's process ends; if that is `silent`, the name servers do not learn of it."""
        if node is self.known and not silent:
            self.known = None
        if isinstance(node.role, MasterRole):
            node.role.withdrawn()

    def look_again(self, node: Node) -> None:
        """The log of `node` is not what it was."""
        for other in self.nodes if node is self.master else (node,):
            other.same = 0
        node.safe = 0


class Play:
    """One run."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = world = World("heap", scenario.seed)
        config = world.stream("config")
        sync = scenario.mode == "sync-pair"
        unusual = config.choice(UNUSUAL) if sync and config.random() < 0.25 else {}
        self.table = Table(sync, **unusual)  # type: ignore[arg-type]
        self.groups: dict[str, Group] = {}
        self.nodes: dict[str, Node] = {}
        for number, name in enumerate(scenario.nodes, 1):
            group = self.groups.setdefault(name[0], Group(name[0]))
            node = self.nodes[name] = Node(name, number, world, group, self.table, scenario.flush == "sync")
            group.nodes.append(node)
            if name[1:] == "0":
                group.master = node
        self.client = Client(world, self.groups)
        world.hits.on = self.struck
        self.moment = 0

    def run(self) -> Run:
        world = self.world
        for node in self.nodes.values():
            node.start()
        world.run(20 * MS)
        for step in self.scenario.steps:
            world.run(20 * MS + int(step.at * S))
            self.do(step)
        self.end()
        return Run(
            self.scenario, History(tuple(world.words), origin=f"trmq sim --seed {self.scenario.seed}"), world.events, world.seconds,
            world.hits, world.sometimes, world.fingerprint(),
        )

    # --- verbs

    def do(self, step: Step) -> None:
        self.world.note(Done(" ".join((step.verb, *step.args)), self.world.seconds))
        if step.verb in HINDERS:
            for place in step.args[: 2 if step.verb in LINKS else 1] or self.nodes:
                self.world.note(Hindered(place, step.verb, self.world.seconds))
        struck = getattr(self, "do_" + step.verb.replace("-", "_"))(*step.args)
        if struck:
            self.world.hits[KIND[step.verb]] += 1

    def struck(self, kind: str) -> None:
        if self.client.sending:
            self.world.sometimes[in_flight(kind)] += 1
            self.world.sometimes["a fault struck while a send was in flight"] += 1

    def do_send(self, count: str) -> None:
        self.client.send(int(count))

    def do_start(self, name: str) -> None:
        node = self.nodes[name]
        if not node.up and not node.lost:
            node.start()

    def do_promote(self, name: str) -> None:
        node = self.nodes[name]
        group = node.group
        if group.master.up or node.lost or node is group.master:
            return
        if node.paused:
            self.do_resume(name)
        if node.up:
            node.close()
        self.promote(node)

    def promote(self, node: Node) -> None:
        group = node.group
        if node.up:
            return
        group.replaced.add(group.master)
        group.master = node
        if node.start():
            self.world.sometimes["a slave was promoted"] += 1

    def do_close(self, name: str) -> bool:
        return self.nodes[name].close()

    def _die(self, name: str, verb: str) -> bool:
        node = self.nodes[name]
        was_up = node.up
        return (node.die(HOW[verb]) and was_up) if not node.lost else False

    def do_kill(self, name: str) -> bool:
        return self._die(name, "kill")

    def do_os_crash(self, name: str) -> bool:
        return self._die(name, "os-crash")

    def do_power(self, name: str) -> bool:
        return self._die(name, "power")

    def do_machine(self, name: str) -> bool:
        return self._die(name, "machine")

    def do_disk(self, name: str) -> bool:
        return self._die(name, "disk")

    def do_pause(self, name: str) -> bool:
        node = self.nodes[name]
        if not node.up or node.paused:
            return False
        self.world.note(Paused(name, self.world.seconds))
        node.paused = True
        return True

    def do_resume(self, name: str) -> None:
        node = self.nodes[name]
        if node.up and node.paused:
            self.world.note(Resumed(name, self.world.seconds))
            if node.backlog:
                self.world.sometimes["a resumed process found a backlog"] += 1
            self.world.resume(node)

    def do_cut(self, one: str, other: str) -> bool:
        self.world.blocked |= {(one, other), (other, one)}
        return bool(self.world.between(one, other))

    def do_cut_one_way(self, one: str, other: str) -> bool:
        self.world.blocked.add((one, other))
        return bool(self.world.between(one, other))

    def do_part(self, one: str, other: str) -> bool:
        struck = self.do_cut(one, other)
        for conn in self.world.between(one, other):
            self.world.break_off(conn, one_end=self.world.random() < 0.5)
        return struck

    def do_heal(self) -> None:
        self.world.heal()

    def do_reset(self, one: str, other: str) -> bool:
        found = self.world.between(one, other)
        for conn in found:
            self.world.break_off(conn)
        return bool(found)

    def do_drop(self, one: str, other: str, count: str) -> None:
        for conn in self.world.between(one, other):
            (conn.there if conn.there.source.name == one else conn.back).budget = int(count)

    def do_slow(self, one: str, other: str, seconds: str) -> bool:
        self.world.slow[one, other] = int(float(seconds) * S)
        return bool(self.world.between(one, other))

    def do_clog(self, name: str) -> bool:
        self.world.blocked |= {(other, name) for other in (*self.nodes, CLIENT) if other != name}
        return bool(self.nodes[name].conns)

    def do_split(self) -> bool:
        self.world.split = not self.world.split
        return self.world.split and bool(self.world.conns)

    def do_disk_full(self, name: str) -> None:
        self.nodes[name].disk.full = True

    def do_disk_free(self, name: str) -> None:
        self.nodes[name].disk.full = False

    def do_slow_disk(self, name: str, seconds: str) -> bool:
        self.nodes[name].latency = int(float(seconds) * S)
        return self.nodes[name].up

    def do_sync_fails(self, name: str) -> None:
        self.nodes[name].disk.failing.append("sync")

    def do_write_fails(self, name: str) -> None:
        self.nodes[name].disk.failing.append("write")

    def do_read_fails(self, name: str) -> None:
        self.nodes[name].disk.failing.append("read")

    def do_rot(self, name: str, number: str) -> bool:
        return self._alter(name, int(number), misdirect=False)

    def do_misdirect(self, name: str, number: str) -> bool:
        return self._alter(name, int(number), misdirect=True)

    def _alter(self, name: str, number: int, *, misdirect: bool) -> bool:
        """A sector of the log is not what was written any more, on the platter and in the page cache."""
        node = self.nodes[name]
        start, data = visible(node.disk)
        sectors = (len(data) + 511) // 512
        if not sectors or node.lost:
            return False
        at = start + number % sectors * 512
        low = at % SEGMENT
        high = low + min(512, start + len(data) - at)
        inode = node.disk.names_now[f"commitlog/{at - low:020d}"]
        if any(offset < high and (piece is None or offset + len(piece) > low) for offset, piece in inode.dirty):
            return False  # not on the platter yet
        before = bytes(inode.cache[low:high])
        if misdirect:
            other = start + (number + 1 + number // 7) % sectors * 512
            now = node.raw(other, other + high - low)
        else:
            now = bytes(byte ^ 0x41 if n % 64 == number % 64 else byte for n, byte in enumerate(before))
        if before == now:
            return False
        for layer in (inode.cache, inode.durable):
            layer[low:high] = now
        node.rotten[at] = (before, now)
        self.world.note(Rotten(name, self.world.seconds))
        return True

    def do_jump(self, name: str, seconds: str) -> bool:
        self.nodes[name].skew_ms += int(float(seconds) * 1000)
        return self.nodes[name].up

    def do_drift(self, name: str, number: str) -> bool:
        self.nodes[name].rate = float(number)
        return self.nodes[name].up

    def do_stranger(self, name: str, count: str) -> bool:
        role = self.nodes[name].role
        if not isinstance(role, MasterRole):
            return False
        stranger = Host("x", 8)
        feed = role.accept("x", stranger, lambda data: None, lambda: None)
        self.world.after(200, self.nodes[name], self.lie, role, feed, int(count))
        return False  # counted when it is refused

    def do_noise(self, port: str, what: str) -> bool:
        """The cores have no port at which anything but numbers and pieces of the log could come."""
        return False

    def lie(self, role: MasterRole, feed: Feed, count: int) -> None:
        """What the stranger says arrives; it must be more than there is, or nobody could know."""
        role.heard(feed, encode_report(role.log.max_phy + count))

    # --- the end

    def end(self) -> None:
        """All faults end; whoever can be started is; a slave takes over if only it holds what was acknowledged; then everybody looks."""
        world = self.world
        for name, node in self.nodes.items():
            self.do_resume(name)
            node.disk.full, node.latency = False, 0
            node.disk.failing.clear()
        world.heal()
        world.split = False
        world.note(Eased(world.seconds))
        if self.client.sending:
            world.run(world.now + 8 * S, lambda: not self.client.sending)
        world.run(world.now + 1 * S)
        for group in self.groups.values():
            self.bring_up(group)
        world.run(world.now + 3 * S)
        for group in self.groups.values():
            self.take_over(group)
        world.run(world.now + SETTLE)
        for group in self.groups.values():
            master = group.master
            ends = {node.name: node.end for node in group.nodes if node.up and node.observe()[0] == node.end} if master.up else {}
            world.note(Settled(SETTLE / S, group.name, ends, True, world.seconds))
        self.look()

    def bring_up(self, group: Group) -> None:
        for node in (group.master, *group.nodes):
            if not node.up and not node.lost:
                node.start()

    def take_over(self, group: Group) -> None:
        """As a person would decide: a member that holds what its master lacks, or that is left alone, is made the master."""
        master = group.master
        for node in group.nodes:
            if node is master or node.lost:
                continue
            ahead = node not in group.replaced and not node.rotten and min(node.observe()[0], node.end) < node.end
            if ahead or (node.up and (not master.up or (master.rotten and not node.rotten))):
                if master.up:
                    master.close()
                if node.up:
                    node.close()
                self.promote(node)
                for other in group.nodes:
                    if not other.up and not other.lost:
                        other.start()
                return

    def look(self) -> None:
        """What every disk holds, and all that can be read."""
        world, ids = self.world, []
        self.moment += 1
        for group in self.groups.values():
            up = sorted((node for node in group.nodes if node.up), key=lambda node: (node is not group.master, node.name))
            readable: list[dict[int, str]] = []
            for rotten in [node for node in group.nodes if node.rotten]:
                for node in group.nodes:
                    if node is not rotten:
                        node.caught_from(rotten)
            for node in group.nodes:
                if node.lost:
                    continue
                start, data = visible(node.disk)
                if node.rotten:
                    world.note(LogSeen(node.name, group.name, self.moment, start, data, (), world.seconds))
                    start, data = node.undamaged()
                    seen = node.raw(start, start + len(data))
                records, bad = records_of(start, data)
                if node.rotten:  # whoever reads by the index finds all but what is damaged itself
                    places = [(r.phy_offset, slice(r.phy_offset - start, r.end - start)) for r in records]
                    bad = frozenset(phy for phy, place in places if seen[place] != data[place])
                else:
                    world.note(LogSeen(node.name, group.name, self.moment, start, data, records, world.seconds))
                if node in up:
                    readable.insert(0 if node is up[0] else len(readable), {r.phy_offset: r.id for r in records if r.phy_offset not in bad})
                    if bad:
                        world.sometimes["a damaged record was given to nobody"] += 1
            found = dict(readable[0]) if readable else {}
            for other in readable[1:]:
                found = other | found
            ids += list(found.values())
        world.note(Found(tuple(ids), frozenset(node.name for node in self.nodes.values() if not node.up), world.seconds))
        groups = Counter(ids)
        if any(count > 1 for count in groups.values()):
            world.sometimes["a message is stored twice"] += 1


def play(scenario: Scenario, *, masters_too: bool = False) -> Run:
    """See the module. `masters_too`: the history tells, before each answer, what a master has on its own platter."""
    played = Play(scenario)
    played.world.masters_too = masters_too
    return played.run()


__all__ = ["Conn", "Play", "play"]
