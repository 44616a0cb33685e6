"""The producers' machine on the heap: `judge_send`, `RoundRobin` and `LatencyFaults` decide, this carries (`trmq.client.producer`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from specs.history import Heard, Outcome, Tried

from trmq.chaos.heap_master import MasterRole, Request
from trmq.chaos.heap_world import MS, Conn, Host, S
from trmq.client import retry
from trmq.client.retry import Verdict, is_definite
from trmq.message import MessageQueue
from trmq.route.latency import LatencyFaults
from trmq.route.selection import BrokerTest, RoundRobin

if TYPE_CHECKING:
    from trmq.chaos.heap import Group
    from trmq.chaos.heap_node import Node
    from trmq.chaos.heap_world import World

TRIES = 3
TIMEOUT = 6 * S
QUEUES = 2
SIZES = (10, 10, 40, 40, 100, 300, 700, 1500)
REFUSED_US = 200
NO_CLIENT = "client"


class Sending:
    """One send, over all its tries."""

    __slots__ = ("attempt", "avoid", "began", "body", "conn", "id", "stored", "turn", "unknown", "wait")

    def __init__(self, id: str, body: bytes, wait: bool, began: int) -> None:
        self.id, self.body, self.wait, self.began = id, body, wait, began
        self.avoid: tuple[str, ...] = ()
        self.unknown = False
        self.turn = self.attempt = 0
        self.conn: Conn | None = None


class Client(Host):
    __slots__ = ("dice", "faults", "groups", "links", "lost", "number_of", "queues", "route", "sending", "turns", "world")

    def __init__(self, world: World, groups: Mapping[str, Group]) -> None:
        super().__init__(NO_CLIENT, 9)
        self.up = True
        self.world = world
        self.groups = groups
        self.dice = world.stream("client")
        self.turns = RoundRobin(self.dice.randrange(4))
        self.faults: LatencyFaults | None = None
        self.route: dict[str, Node] = {}
        self.queues: list[MessageQueue] = []
        self.links: dict[str, Conn] = {}
        self.lost: dict[str, int] = {}
        self.number_of = 0
        self.sending: dict[str, Sending] = {}

    def send(self, count: int) -> None:
        for number in range(count):
            self.world.after(number * MS, self, self.begin)

    def begin(self) -> None:
        self.number_of += 1
        id = f"m{self.number_of}"
        size = self.dice.choice(SIZES)
        sending = Sending(id, (id.encode() * size)[:size], self.dice.random() >= 0.04, self.world.now)
        self.sending[id] = sending
        self.try_once(sending)

    # --- one try

    def refresh(self) -> None:
        """What a name server says now."""
        self.route = {name: master for name, group in self.groups.items() if (master := group.registered_master()) is not None}
        self.queues = [MessageQueue("T", name, number) for name in sorted(self.route) for number in range(QUEUES)]

    def is_lost(self, name: str) -> bool:
        """Its master was dialled in vain, and has not come up since (that its machine lost power as well makes it no better)."""
        master = self.route[name]
        return name in self.lost and (self.lost[name] == master.life or not master.up)

    def preferences(self, avoid: tuple[str, ...]) -> tuple[BrokerTest, ...]:
        """As `Sender._preferences`."""
        faults, now_ms = self.faults, self.world.now / MS
        there = {name for name in self.route if self.is_lost(name)}.union(avoid)
        if faults is None:
            return (lambda name: name not in there), (lambda name: name not in avoid)
        return (
            (lambda name: name not in there and faults.available(name, now_ms)),
            (lambda name: name not in there), (lambda name: name not in avoid),
        )

    def try_once(self, sending: Sending) -> None:
        world = self.world
        left = sending.began + TIMEOUT - world.now
        if sending.turn >= TRIES or left <= 0:
            self.give_up(sending)
            return
        sending.turn += 1
        if not self.route:
            self.refresh()
        avoid = sending.avoid
        normal = not avoid and self.faults is None and not self.lost
        queue = self.turns.choose(self.queues, avoid[-1] if avoid else None, () if normal else self.preferences(avoid))
        if queue is None:
            world.after(50 * MS, self, self.try_once, sending)
            return
        node = self.route[queue.broker_name]
        conn = self.links.get(node.name)
        if conn is None:
            if not node.powered or not world.way(self.name, node.name):
                world.after(max(1, left // (TRIES - sending.turn + 1)), self, self.not_there, sending, queue.broker_name, node)
                return
            if not node.up:
                world.after(REFUSED_US, self, self.not_there, sending, queue.broker_name, node)
                return
            conn = self.dial(node)
        self.lost.pop(queue.broker_name, None)
        sending.attempt += 1
        writable = dict.fromkeys(sorted(self.route), QUEUES)
        known = {} if self.faults is None else self.faults._faults
        slow = {name for name, fault in known.items() if fault.available_at > world.now / MS}
        bad = frozenset(slow | {name for name in self.route if self.is_lost(name)})
        world.note(Tried(
            sending.id, self.name, queue.broker_name, queue.queue_id, sending.attempt, "T", writable, bad, at=world.seconds,
        ))  # fmt: skip
        sending.conn = conn
        world.after(left, self, self.timed_out, sending, sending.attempt, queue.broker_name)
        world.send(conn.there, (sending.id, sending.attempt, queue.queue_id, sending.body, sending.wait), len(sending.body) + 150)

    def dial(self, node: Node) -> Conn:
        made: list[Conn] = []

        def read(message: tuple[str, int, int, bytes, bool]) -> None:
            id, attempt, queue_id, body, wait = message
            request = Request(id, attempt, queue_id, body, wait)
            request.conn = made[0]
            node.role.request(request)

        def over(host: Host) -> None:
            if host is self:
                self.link_lost(node, made[0])
            elif isinstance(node.role, MasterRole):
                node.role.client_ended(made[0])

        made.append(self.world.connect(self, node, read, self.answer, over))
        self.links[node.name] = made[0]
        return made[0]

    # --- what becomes of it

    def answer(self, message: tuple[str, int, int, str, str]) -> None:
        id, attempt, code, remark, status = message
        world = self.world
        sending = self.sending.get(id)
        if sending is None or sending.attempt != attempt or sending.conn is None:
            world.sometimes["a send was answered late"] += 1
            return
        node = sending.conn.there.target
        world.note(Heard(id, node.name, status, world.seconds))
        sending.conn = None
        verdict = retry.judge_send(code)
        if verdict is Verdict.STORED:
            del self.sending[id]
            world.note(Outcome(id, status, sending.began / S, at=world.seconds))
            return
        sending.unknown = sending.unknown or not is_definite(code, remark)
        if verdict is Verdict.REFUSED:
            self.give_up(sending)
            return
        sending.avoid = (*sending.avoid, node.name[0])
        self.refresh()
        world.after(1 * MS, self, self.try_once, sending)

    def link_lost(self, node: Node, conn: Conn) -> None:
        if self.links.get(node.name) is conn:
            del self.links[node.name]
        for sending in list(self.sending.values()):
            if sending.conn is conn:
                sending.conn = None
                sending.unknown = True
                self._failed(sending, node.name[0], node)

    def not_there(self, sending: Sending, name: str, node: Node) -> None:
        self._failed(sending, name, node)

    def _failed(self, sending: Sending, name: str, node: Node) -> None:
        self.lost[name] = node.life
        sending.avoid = (*sending.avoid, name)
        self.refresh()
        self.world.after(1 * MS, self, self.try_once, sending)

    def timed_out(self, sending: Sending, attempt: int, name: str) -> None:
        if sending.conn is None or sending.attempt != attempt or sending.id not in self.sending:
            return
        if self.faults is None:
            self.faults = LatencyFaults()
        self.faults.report(name, TIMEOUT / MS, self.world.now / MS, isolate=True, reachable=False)
        sending.conn = None
        sending.unknown = True
        self.give_up(sending)

    def give_up(self, sending: Sending) -> None:
        del self.sending[sending.id]
        status = "UNKNOWN" if sending.unknown else "FAILED"
        self.world.note(Outcome(sending.id, status, sending.began / S, at=self.world.seconds))
        self.world.sometimes["a send's outcome is unknown" if sending.unknown else "a send failed for certain"] += 1
