"""A master on the heap: `MasterEnd` and `Holders` decide, this carries. What `trmq.broker.service`, `.waiting` and `trmq.replica.master` do
around them is played: append, commit, push, reports, acks, deadlines."""

from __future__ import annotations

from typing import Any

from specs.history import NOT_ENOUGH, Asked, Attached, Carried, Detached, Reported, Told, Withdrawn

from trmq.chaos.heap_node import Node, Role
from trmq.chaos.heap_store import SEGMENT
from trmq.chaos.heap_world import Conn, Host, S
from trmq.errors import DiskFailed, DiskFull
from trmq.replica import ack
from trmq.replica.ack import Holders
from trmq.replica.consent import Verdict, consent
from trmq.replica.master import TOKEN_LIFE_S
from trmq.replica.transfer import APACHE_BATCH_BYTES, BATCH_BYTES, REPORT, MasterEnd, PeerRefused, encode_header
from trmq.wire.codes import ResponseCode

BEAT, SILENCE, TOKEN_LIFE = 5 * S, 20 * S, int(TOKEN_LIFE_S * S)
FLUSH_TIMEOUT, SLAVE_TIMEOUT = 5 * S, 3 * S
BATCH = 700
"""What a trmq slave gets at most in one frame here: small, so that frames are many."""
CODES = {"OK": 0, "FLUSH_DISK_TIMEOUT": 10, "SLAVE_NOT_AVAILABLE": 11, "FLUSH_SLAVE_TIMEOUT": 12}
NO_ROOM, NO_MASTER = "DISK_FULL", "NO_MASTER"


class Feed:
    """One HA connection, seen from its master."""

    __slots__ = ("attached", "conn", "end", "gone", "heard", "heard_at", "number", "slave", "who", "written_at")

    def __init__(self, number: int, slave: str, now: int) -> None:
        self.number = number
        self.slave = slave
        self.end = MasterEnd(APACHE_BATCH_BYTES)
        self.who: int | None = None
        self.heard = b""
        self.heard_at = self.written_at = now
        self.attached = self.gone = False
        self.conn: Conn


class Request:
    """A send that a broker has read."""

    __slots__ = ("attempt", "began", "body", "conn", "end", "id", "need", "open", "phy", "queue_id", "queue_offset", "wait")

    def __init__(self, id: str, attempt: int, queue_id: int, body: bytes, wait: bool) -> None:
        self.id, self.attempt, self.queue_id, self.body, self.wait = id, attempt, queue_id, body, wait
        self.began = self.end = self.need = self.phy = 0
        self.queue_offset = -1
        self.open = True
        self.conn: Conn


class MasterRole(Role):
    def __init__(self, node: Node) -> None:
        self.node = node
        self.world = node.world
        self.note = node.world.note
        assert node.store is not None
        self.store = node.store
        self.log = node.store.log
        self.holders = Holders()
        self.feeds: dict[Feed, None] = {}
        self.tokens: dict[int, tuple[int, int, str]] = {}
        self.marks: dict[int, int] = {}
        self.batch: list[Request] = []
        self.pending: list[Request] = []
        self.by_conn: dict[Conn, list[Request]] = {}
        self.timer = False
        self.rolled = self.log.max_phy // SEGMENT

    # --- sends

    def request(self, request: Request) -> None:
        """A broker reads a send."""
        node, table = self.node, self.node.table
        self.note(Asked(request.id, node.name, request.wait, self.world.seconds))
        self.by_conn.setdefault(request.conn, []).append(request)
        request.began = self.world.now
        if table.minimum > 1 and request.wait and table.sync and self.holders.in_sync(self.log.max_phy, table.gap) < table.minimum:
            self.world.sometimes["too few in sync: refused"] += 1
            self._answer(request, NOT_ENOUGH, ResponseCode.SYSTEM_ERROR, f"{NOT_ENOUGH}: nothing was stored")
            return
        try:
            placed = self.store.append(request.id, request.queue_id, request.body, node.wall_ms())
        except DiskFull:
            self._no_room([request])
            return
        except DiskFailed:
            node.failed()
            return
        request.phy, request.end, request.queue_offset = placed
        self.batch.append(request)
        if len(self.batch) == 1:
            self.world.after(20, node, self.commit)

    def _no_room(self, requests: list[Request]) -> None:
        self.world.sometimes["disk-full refusal"] += 1
        self.world.hits["disk-full"] += 1
        for request in requests:
            self._answer(request, NO_ROOM, ResponseCode.SERVICE_NOT_AVAILABLE, "nothing was stored")

    def need(self) -> int:
        """As `Replication.need`."""
        node, table = self.node, self.node.table
        if not table.sync:
            return 1
        need = ack.needed(table.need, max(node.group.registered_slaves(), self.holders.present))
        if table.auto:
            need = ack.lowered(need, self.holders.in_sync(self.log.max_phy, table.gap), table.minimum)
        return need

    def commit(self) -> None:
        node, world, batch = self.node, self.world, self.batch
        self.batch = []
        need = self.need()
        try:
            end = self.store.commit()
        except DiskFull:
            self._no_room(batch)
            return
        except DiskFailed:
            node.failed()
            return
        if end // SEGMENT != self.rolled:
            self.rolled = end // SEGMENT
            if self.feeds:
                world.sometimes["a segment rolled during replication"] += 1
        node.written()
        if self.node.role is not self:
            return
        alone = need > 1 and not self.holders.connected
        for request in batch:
            if request.wait and alone:
                self._answer(request, "SLAVE_NOT_AVAILABLE", 11)
            elif request.wait and (need > 1 or node.sync_flush):
                request.need = need
                self.pending.append(request)
                if need > 1 and need not in self.marks:
                    self.marks[need] = max(0, min(self.holders.held(need), end))
            else:
                self._answer(request, "OK", 0)
        if self.pending:
            self.settle()
            self.arm()

    def arm(self) -> None:
        if not self.timer and self.pending:
            self.timer = True
            first = self.pending[0]
            due = first.began + (FLUSH_TIMEOUT if self.node.sync_flush and first.end > self.store.flushed else SLAVE_TIMEOUT)
            self.world.after(max(1, due - self.world.now), self.node, self.expire)

    def expire(self) -> None:
        self.timer = False
        self.settle()
        self.arm()

    def settle(self) -> None:
        """Answer what has all it needs, or has waited long enough. First the flush, then the slaves; the value decides at the deadline."""
        now, flushed, sync, marks = self.world.now, self.store.flushed, self.node.sync_flush, self.marks
        left = []
        for request in self.pending:
            end, need = request.end, request.need
            held = marks[need] >= end if need > 1 else True
            safe = not sync or flushed >= end
            if held and safe:
                self._answer(request, "OK", 0)
            elif safe and now >= request.began + SLAVE_TIMEOUT:
                self._answer(request, "FLUSH_SLAVE_TIMEOUT", 12)
            elif now >= request.began + FLUSH_TIMEOUT:
                self._answer(request, "FLUSH_DISK_TIMEOUT" if held else "FLUSH_SLAVE_TIMEOUT", 10 if held else 12)
            else:
                left.append(request)
        self.pending = left

    def _answer(self, request: Request, status: str, code: int, remark: str = "") -> None:
        if not request.open:
            return
        request.open = False
        world, name = self.world, self.node.name
        stored = status in CODES
        if stored and request.need > 1:
            for slave in self.node.group.slaves():
                slave.observe()
        if stored and world.masters_too and self.node.sync_flush:
            self.node.observe()
        conn = request.conn
        self.note(Told(
            request.id, name, status, request.queue_offset if stored else -1, request.end if stored else 0, world.seconds,
        ))  # fmt: skip
        requests = self.by_conn.get(conn)
        if requests is not None and request in requests:
            requests.remove(request)
        world.send(conn.back, (request.id, request.attempt, code, remark, status), 120)

    def client_ended(self, conn: Conn) -> None:
        for request in self.by_conn.pop(conn, ()):
            if request.open:
                self.note(Withdrawn(request.id, self.node.name, self.world.seconds))
                if request.end:
                    self.world.sometimes["an ack was lost after the write"] += 1

    def withdrawn(self) -> None:
        """The process ends: nobody will be answered."""
        for conn in list(self.by_conn):
            self.client_ended(conn)

    # --- slaves

    def join(self, slave: Node, end: int, tail: bytes) -> tuple[Verdict, int]:
        """As the handler of JOIN: its verdict, and a token for one that may follow."""
        log = self.log
        found = consent(log.min_phy, log.max_phy, end, len(tail), lambda: self.store.read(end - len(tail), end) == tail)
        if found != "follow":
            return found, 0
        token = -1 - slave.world.dice.getrandbits(62)
        self.tokens[token] = (self.world.now + TOKEN_LIFE, slave.broker_id or 9, slave.name)
        return found, token

    def accept(self, slave: str, host: Host, back: Any, ended: Any) -> Feed:
        """A connection to the HA port. `back` takes what the master sends."""
        world, node = self.world, self.node
        node.group.sessions += 1
        feed = Feed(node.group.sessions * 2 + ord(node.group.name) % 2, slave, world.now)
        self.holders.report(None, host.name, feed.number, -1)
        self.feeds[feed] = None

        def over(at: Host) -> None:
            if at is node:
                self.forget(feed, "")
            else:
                ended()

        feed.conn = world.connect(host, node, lambda data: self.heard(feed, data), back, over)
        world.after(SILENCE, node, self.patience, feed)
        world.after(BEAT, node, self.beat, feed)
        return feed

    def heard(self, feed: Feed, data: bytes) -> None:
        if feed.gone:
            return
        world, end, node = self.world, feed.end, self.node
        feed.heard_at = world.now
        feed.heard += data
        whole = len(feed.heard) // 8 * 8
        if whole:
            for (word,) in REPORT.iter_unpack(feed.heard[:whole]):
                if not feed.attached:
                    feed.attached = True
                    self.note(Attached(
                        feed.number, node.name, feed.slave, BATCH_BYTES if word < 0 else APACHE_BATCH_BYTES, world.seconds,
                    ))  # fmt: skip
                if word >= 0:
                    self.note(Reported(feed.number, word, self.log.max_phy, world.seconds))
            feed.heard = feed.heard[whole:]
        before = end.acked
        try:
            if not end.receive(data, self.log.max_phy):
                return
            if feed.who is None and end.token is not None:
                self.take_token(feed, end.token)
                end.batch_bytes = BATCH
            if end.acked == before:
                return
            if before < 0:
                end.begin(self.log.min_phy, self.log.max_phy, SEGMENT)
        except PeerRefused:
            self.refuse(feed)
            return
        self.holders.report(feed.who, feed.slave, feed.number, end.acked)
        for need in self.marks:
            self.marks[need] = max(self.marks[need], min(self.holders.held(need), self.log.max_phy))
        if self.pending:
            self.settle()
        self.push(feed)

    def refuse(self, feed: Feed) -> None:
        if feed.slave == "x":
            self.world.sometimes["a stranger was refused"] += 1
            self.world.hits["stranger"] += 1
        else:
            self.world.sometimes["a slave was refused"] += 1
        self.drop(feed)

    def drop(self, feed: Feed) -> None:
        self.world.close(feed.conn, self.node)
        self.forget(feed, self.node.name)

    def take_token(self, feed: Feed, token: int) -> None:
        found = self.tokens.pop(token, None)
        if found is None or found[0] < self.world.now:
            raise PeerRefused(f"it sent {token}, which is no offset and no token of ours")
        for other in list(self.feeds):
            if other is not feed and other.who == found[1]:
                self.world.sometimes["two connections of one slave"] += 1
                self.drop(other)
        feed.who = found[1]
        self.holders.leave(None, feed.slave, feed.number)
        self.holders.report(feed.who, feed.slave, feed.number, -1)

    def forget(self, feed: Feed, by: str) -> None:
        if feed.gone:
            return
        feed.gone = True
        del self.feeds[feed]
        self.holders.leave(feed.who, feed.slave, feed.number)
        if feed.attached:
            self.note(Detached(feed.number, by, self.world.seconds))

    def push(self, feed: Feed) -> None:
        """Everything the slave has not been sent."""
        end, log, world = feed.end, self.log, self.world
        if end.next_offset < 0:
            return
        while True:
            found = end.next_slice(log.max_phy, SEGMENT)
            if found is None:
                return
            offset, size = found
            try:
                view = log.read(offset, size) if offset % SEGMENT + size <= SEGMENT else self.store.read(offset, offset + size)
            except DiskFailed:
                self.node.failed()
                return
            if view is None:
                self.drop(feed)
                return
            self.note(Carried(feed.number, offset, size, log.min_phy, log.max_phy, world.seconds))
            feed.written_at = world.now
            world.send(feed.conn.back, encode_header(offset, size) + view, size + 12)
            if feed.gone:
                return

    def beat(self, feed: Feed) -> None:
        if feed.gone:
            return
        world = self.world
        due = feed.written_at + BEAT
        if world.now >= due:
            due = world.now + BEAT
            feed.written_at = world.now
            if feed.end.next_offset >= 0:
                self.note(Carried(feed.number, feed.end.next_offset, 0, self.log.min_phy, self.log.max_phy, world.seconds))
                world.send(feed.conn.back, encode_header(feed.end.next_offset, 0), 12)
        world.after(due - world.now, self.node, self.beat, feed)

    def patience(self, feed: Feed) -> None:
        if feed.gone:
            return
        due = feed.heard_at + SILENCE
        if self.world.now >= due:
            self.world.sometimes["a silent peer was dropped"] += 1
            self.drop(feed)
        else:
            self.world.after(due - self.world.now, self.node, self.patience, feed)

    # --- the store says

    def written(self) -> None:
        for feed in list(self.feeds):
            self.push(feed)

    def flushed(self) -> None:
        if self.pending:
            self.settle()
            self.arm()

    def closing(self) -> None:
        """Stopped in order: what was read is stored, and nobody who waits is answered any more."""
        if self.batch:
            self.commit()


__all__ = ["Feed", "MasterRole", "Request"]
