"""A slave on the heap: `SlaveEnd` and `Follower` decide and write, this carries (`trmq.replica.slave`, `trmq.broker.following`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specs.history import Asked, Said, Told

from trmq.broker.following import TAIL_BYTES
from trmq.broker.same_log import Records
from trmq.chaos.heap_disk import at_once
from trmq.chaos.heap_master import BEAT, SILENCE, Feed, MasterRole, Request
from trmq.chaos.heap_node import Node, Role
from trmq.chaos.heap_store import SEGMENT
from trmq.chaos.heap_world import MS, S
from trmq.errors import CorruptRecord, DiskFailed, DiskFull
from trmq.replica.slave import PAUSE_MAX_S, PAUSE_MIN_S
from trmq.replica.transfer import REPORT, PeerRefused, SlaveEnd, encode_report
from trmq.wire.codes import ResponseCode

if TYPE_CHECKING:
    from trmq.chaos.heap_world import World

ASK = 3 * S


class SlaveRole(Role):
    def __init__(self, node: Node) -> None:
        self.node = node
        self.world: World = node.world
        assert node.store is not None
        self.store = node.store
        self.log = node.store.log
        self.follower = node.store.follow()
        self.pause = int(PAUSE_MIN_S * S)
        self.feed: Feed | None = None
        self.end: SlaveEnd
        self.reported = -1
        self.heard_at = self.written_at = 0
        self.asking = 0
        self.got = False
        self.planned = True
        """`dial` will be called."""
        self.world.after(1 * MS, node, self.dial)

    def request(self, request: Request) -> None:
        """As `refuse_write`."""
        world, name = self.world, self.node.name
        world.note(Asked(request.id, name, request.wait, world.seconds))
        world.note(Told(request.id, name, "SERVICE_NOT_AVAILABLE", at=world.seconds))
        world.sometimes["a slave was sent a message"] += 1
        world.send(request.conn.back, (request.id, request.attempt, int(ResponseCode.SERVICE_NOT_AVAILABLE), "", "NO_MASTER"), 120)

    # --- finding the master

    def again(self) -> None:
        if self.got:
            self.pause, self.got = int(PAUSE_MIN_S * S), False
        if self.planned:
            return
        self.planned = True
        self.world.after(self.pause, self.node, self.dial)
        self.pause = min(self.pause * 2, int(PAUSE_MAX_S * S))

    def dial(self) -> None:
        """Ask the master whether it may be followed."""
        self.planned = False
        if self.feed is not None:
            return
        node, world = self.node, self.world
        master = node.group.registered_master()
        if node.sync_flush and self.store.unflushed:  # so that what is reported first is where the log ends
            if node.flushing is None:
                node.flush()
            self.planned = True
            world.after(2 * MS + node.latency, node, self.dial)
            return
        if master is None or master is node or not world.way(node.name, master.name) or not master.up:
            self.again()
            return
        self.asking += 1
        end = self.log.max_phy
        try:
            tail = self.store.read(end - min(TAIL_BYTES, end - self.log.min_phy), end)
        except DiskFailed:
            node.failed()
            return
        world.after(300, master, self.asked, master, self.asking, end, bytes(tail), node.life)
        world.after(ASK, node, self.unanswered, self.asking)

    def asked(self, master: Node, number: int, end: int, tail: bytes, life: int) -> None:
        role, world, node = master.role, self.world, self.node
        if not isinstance(role, MasterRole) or node.life != life or not world.way(node.name, master.name):
            return
        try:
            verdict, token = role.join(node, end, tail)
        except DiskFailed:
            master.failed()
            return
        low, high = role.log.min_phy, role.log.max_phy
        world.after(300, node, self.answered, master, number, verdict, token, low, high)

    def unanswered(self, number: int) -> None:
        if number == self.asking and self.feed is None:
            self.asking += 1
            self.again()

    def answered(self, master: Node, number: int, verdict: str, token: int, low: int, high: int) -> None:
        if number != self.asking or self.feed is not None:
            return
        self.asking += 1
        if not master.up or not self.world.way(self.node.name, master.name):
            self.again()
        elif verdict == "follow":
            self.follow(master, token)
        else:
            self.differs(master, low)

    def differs(self, master: Node, low: int) -> None:
        """As `Following._differs`: what an old master has too much is set aside; a slave waits for somebody to decide."""
        node, world = self.node, self.world
        role = master.role
        if not isinstance(role, MasterRole):
            self.again()
            return
        world.sometimes["a slave's log was found to differ from its master's"] += 1

        async def same(start: int, record: bytes) -> bool:
            return start + len(record) <= role.log.max_phy and role.store.read(start, start + len(record)) == record

        try:
            at = at_once(Records(self.log).consistent_point(same, low))
            if at is None or at == self.log.max_phy or not node.was_master:
                self.again()
                return
            node.cut(at, aside=True)
        except DiskFull:
            self.again()
            return
        except DiskFailed:
            node.failed()
            return
        self._start_over()

    def _start_over(self) -> None:
        """As a broker that cut its log: it starts again with what is left."""
        self.follower = self.store.follow()
        self.again()

    # --- one connection

    def follow(self, master: Node, token: int) -> None:
        role, node, world = master.role, self.node, self.world
        if not isinstance(role, MasterRole):
            self.again()
            return
        self.heard_at = world.now
        self.reported = -1
        self.end = SlaveEnd(self.follower.end, SEGMENT)
        feed = role.accept(node.name, node, self.take, self.over)
        self.feed = feed
        if node.was_master:
            node.was_master = False
        world.send(feed.conn.there, REPORT.pack(token), 8)
        self.report()
        world.after(SILENCE, node, self.patience, feed)
        world.after(BEAT, node, self.beat, feed)

    def take(self, data: bytes) -> None:
        """Bytes of the master."""
        feed, node = self.feed, self.node
        if feed is None:
            return
        self.heard_at = self.world.now
        try:
            found = self.end.feed(data)
            if found is None:
                return
            self.follower.append(*found)
            self.got = True
        except (PeerRefused, DiskFull) as error:
            if isinstance(error, DiskFull):
                self.world.hits["disk-full"] += 1
                self.world.sometimes["a slave had no room"] += 1
            self.hang_up()
            return
        except DiskFailed:
            node.failed()
            return
        node.written()
        if not node.sync_flush:
            self.report()
            self.dispatch()

    def dispatch(self) -> None:
        try:
            while self.follower.dispatch(1 << 20):
                pass
            self.follower.witness()
        except DiskFailed:
            self.node.failed()
        except CorruptRecord:
            self.world.sometimes["a slave cut what was damaged"] += 1
            self.hang_up()
            at = self.store.confirm
            self.node.cut(at, aside=False)
            self._start_over()

    def report(self, *, again: bool = False) -> None:
        feed, store = self.feed, self.store
        if feed is None:
            return
        end = (store.flushed if self.node.sync_flush else self.log.max_phy) if self.log.segments else 0
        if end <= self.reported and not again:
            return
        self.reported = end
        self.say(end)

    def say(self, end: int) -> None:
        feed, world = self.feed, self.world
        assert feed is not None
        self.node.observe()
        world.note(Said(feed.number, end, self.node.end, self.node.safe, world.seconds))
        self.written_at = world.now
        world.send(feed.conn.there, encode_report(end), 8)

    def flushed(self) -> None:
        if self.node.sync_flush:
            self.report()
            self.dispatch()

    def beat(self, feed: Feed) -> None:
        if self.feed is not feed:
            return
        due = self.written_at + BEAT
        if self.world.now >= due:
            self.report(again=True)
            due = self.world.now + BEAT
        self.world.after(due - self.world.now, self.node, self.beat, feed)

    def patience(self, feed: Feed) -> None:
        if self.feed is not feed:
            return
        due = self.heard_at + SILENCE
        if self.world.now >= due:
            self.hang_up()
        else:
            self.world.after(due - self.world.now, self.node, self.patience, feed)

    def hang_up(self) -> None:
        if self.feed is not None:
            feed, self.feed = self.feed, None
            self.world.close(feed.conn, self.node)
            self.again()

    def over(self) -> None:
        """The connection has ended."""
        if self.feed is not None:
            self.feed = None
            self.again()
