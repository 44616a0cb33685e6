"""The replication cores without a shell: one master, its slaves and strangers, and bytes on their way, moved by dice or by hand.

`Cores` plays what the shell does around `MasterEnd`, `SlaveEnd` and `Holders`: it appends, pushes, reports, asks `Holders` for acks. Every
byte goes through a pipe and arrives in pieces of any size; connections die at any byte; master and slaves lose the tails of their logs.
What happens is written down as a `History`.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Sequence

import attrs
from specs.history import (
    NOT_ENOUGH,
    Asked,
    Attached,
    Carried,
    Detached,
    Event,
    Fed,
    Gone,
    History,
    Holds,
    LogSeen,
    Reported,
    Said,
    Serving,
    Stored,
    Told,
)

from trmq import record
from trmq.replica import ack
from trmq.replica.transfer import MasterEnd, PeerRefused, SlaveEnd, encode_header, encode_report

SEGMENT = 1024
BATCH = 300
HOST = bytes(8)


class Log:
    """A commit log in memory: records and blanks from `start` on."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.data = bytearray()
        self.ends = [start]
        self.expired = 0  # records that are not kept any more

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def append(self, id: str, size: int) -> int:
        properties = f"UNIQ_KEY\x01{id}\x02".encode()
        length = record.record_size(size, 1, len(properties))
        room = SEGMENT - self.end % SEGMENT
        if length + record.BLANK_SIZE_MIN > room:
            self.data += (room.to_bytes(4, "big") + record.MAGIC_BLANK.to_bytes(4, "big")).ljust(room, b"\0")
        body = (id.encode() * size)[:size]
        self.data += record.encode_record(b"T", 0, self.expired + len(self.ends), self.end, body, properties, 0, 0, 1, HOST, 2, HOST)
        self.ends.append(self.end)
        return self.end

    def cut(self, end: int) -> None:
        del self.data[end - self.start :]
        self.ends = [at for at in self.ends if at <= end]

    def records(self) -> tuple[Stored, ...]:
        found = []
        for message, raw in read(bytes(self.data), self.start):
            id, place = message.properties["UNIQ_KEY"], (message.queue_offset, message.phy_offset)
            found.append(Stored(id, (message.topic, message.queue_id), *place, len(raw), zlib.crc32(raw)))
        return tuple(found)


def read(data: bytes, start: int) -> Sequence[tuple[record.StoredMessage, bytes]]:
    """The records in `data`, which begins at offset `start`; stops at whatever is none."""
    found, at = [], 0
    while at + 8 <= len(data):
        length, magic = int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
        if magic not in (record.MAGIC_V1, record.MAGIC_V2, record.MAGIC_BLANK) or length < 8 or at + length > len(data):
            break
        if magic != record.MAGIC_BLANK:
            found.append((next(iter(record.decode_records(data[at : at + length]))), data[at : at + length]))
        at += length
    return found


@attrs.define
class Slave:
    name: str
    broker_id: int
    ip: str
    log: Log | None = None


@attrs.define(eq=False)
class Link:
    """One connection: the two machines, and the bytes on their way."""

    session: int
    slave: Slave | None
    announced: bool
    master: MasterEnd
    slave_end: SlaveEnd
    up: bytearray = attrs.Factory(bytearray)
    down: bytearray = attrs.Factory(bytearray)
    half_open: bool = False
    """The slave has given it up; the master does not know."""
    heard: bytearray = attrs.Factory(bytearray)
    """What the master has read and is not a whole word yet."""

    @property
    def ip(self) -> str:
        return self.slave.ip if self.slave else "10.9.9.9"

    @property
    def broker_id(self) -> int | None:
        return self.slave.broker_id if self.slave and self.announced else None


class Cores:
    """See the module. `need`, `minimum`, `gap`, `auto` (need is lowered to what is in sync): the master's configuration; `announced`:
    slaves say who they are."""

    def __init__(
        self, seed: object, *, need: int = 2, minimum: int = 1, gap: int = 1 << 28, slaves: int = 2, announced: bool = True,
        last_segment: bool = False, auto: bool = False,
    ) -> None:
        self.random = random.Random(f"cores/{seed}")
        self.seed, self.need, self.minimum, self.gap, self.announced, self.last_segment = seed, need, minimum, gap, announced, last_segment
        self.auto = auto
        self.log = Log()
        self.sizes: Sequence[int] = (30, 30, 30, 200, 390)
        self.holders = ack.Holders()
        self.slaves = [Slave(f"s{n}", n, f"10.0.0.{n}") for n in range(1, slaves + 1)]
        self.links: list[Link] = []
        self.pending: list[tuple[int, int, str]] = []  # end, need, id
        self.events: list[Event] = []
        self.number = self.sessions = self.moment = self.step = 0
        self._serve("m", 0, self.log)
        for slave in self.slaves:
            self._serve(slave.name, slave.broker_id, slave.log)

    def _serve(self, node: str, id: int, log: Log | None) -> None:
        need, minimum = (self.minimum if self.auto else self.need, self.minimum) if id == 0 else (1, 1)
        self.events.append(Serving(
            node, "a", id, "SLAVE" if id else "SYNC_MASTER", False, need, minimum, self.gap,
            segment_size=SEGMENT, from_last_segment=bool(id) and self.last_segment, log_min=log.start if log else 0,
            log_end=log.end if log else 0, at=self.now,
        ))  # fmt: skip

    @property
    def now(self) -> float:
        return self.step / 1000

    def history(self, origin: str = "") -> History:
        return History(tuple(self.events), origin=f"Cores(seed={self.seed!r}, need={self.need}) {origin}")

    def do(self, name: str, *args: int) -> None:
        self.step += 1
        getattr(self, name)(*args)

    # --- producers

    def put(self, count: int = 1, wait: bool = True) -> None:
        """`count` messages, committed together."""
        batch = []
        for _ in range(count):
            self.number += 1
            id = f"m{self.number}"
            self.events.append(Asked(id, "m", wait, self.now))
            in_sync = self.holders.in_sync(self.log.end, self.gap)
            if in_sync < self.minimum:
                self.events.append(Told(id, "m", NOT_ENOUGH, at=self.now))
                continue
            need = ack.lowered(self.need, in_sync, self.minimum) if self.auto else self.need
            batch.append((self.log.append(id, self.random.choice(self.sizes)), need, id))
        self._holds()
        for end, need, id in batch:
            if need > 1 and not self.holders.present:
                self.events.append(Told(id, "m", "SLAVE_NOT_AVAILABLE", 0, end, self.now))
            else:
                self.pending.append((end, need, id))
        self._settle()

    def _settle(self) -> None:
        done = [entry for entry in self.pending if entry[0] <= self.holders.held(entry[1])]
        self.pending = [entry for entry in self.pending if entry not in done]
        self.events += [Told(id, "m", "OK", 0, end, self.now) for end, _, id in done]

    def expire(self) -> None:
        self.events += [Told(id, "m", "FLUSH_SLAVE_TIMEOUT", 0, end, self.now) for end, _, id in self.pending]
        self.pending.clear()

    # --- the wire

    def connect(self, n: int = 0, twice: bool = False) -> None:
        """A slave dials; the old connection of one that announces itself ends first."""
        slave = self.slaves[n % len(self.slaves)]
        old = [link for link in self.links if link.slave is slave]
        if (old and not twice) or (slave.log is not None and self._held(slave) < slave.log.end):
            return  # a slave compares its last records with the master's before it follows
        for link in old:
            link.half_open = True
            if self.announced:
                self._close(link, "m")
        link = self._open(slave, None if slave.log is None else slave.log.end)
        link.up += encode_report(slave.log.end if slave.log else 0)
        self._said(link, slave.log.end if slave.log else 0)
        if slave.log is not None and slave.log.end > self.log.end:
            self.arrive(link, 8)  # were the master's log as long when it reads this, only the records could tell

    def connect_again(self, n: int = 0) -> None:
        self.connect(n, twice=True)

    def _open(self, slave: Slave | None, end: int | None) -> Link:
        self.sessions += 1
        link = Link(self.sessions, slave, self.announced, MasterEnd(BATCH), SlaveEnd(end, SEGMENT))
        self.links.append(link)
        self.events.append(Attached(link.session, "m", slave.name if slave else "x", BATCH, self.now))
        self.holders.report(link.broker_id, link.ip, link.session, -1)
        return link

    def _close(self, link: Link, by: str = "") -> None:
        self.links.remove(link)
        self.events.append(Detached(link.session, by, self.now))
        others = [other for other in self.links if other.slave is link.slave and other.announced and link.announced]
        if not others:
            self.holders.leave(link.broker_id, link.ip, link.session)

    def lie(self, word: int = 0) -> None:
        """A stranger dials and claims what cannot be, just beyond the log's end or far."""
        link = self._open(None, None)
        link.up += encode_report([self.log.end + 1, 1 << 62, self.log.end + 4000][word % 3])
        self.arrive(link, 8)

    def shrink(self, n: int = 0) -> None:
        """A slave says less than before on the same connection."""
        for link in self.links[n % 3 : n % 3 + 1]:
            if link.half_open:
                return
            link.up += encode_report(max(0, link.slave_end.end or 0) // 2)

    def to_master(self, n: int = 0) -> None:
        """Some bytes reach the master."""
        if not self.links:
            return
        self.arrive(self.links[n % len(self.links)], self.random.choice((1, 3, 8, 9, 1000)))

    def arrive(self, link: Link, size: int) -> None:
        data, link.up[:size] = bytes(link.up[:size]), b""
        link.heard += data
        while len(link.heard) >= 8:
            word = int.from_bytes(link.heard[:8], "big", signed=True)
            del link.heard[:8]
            if word >= 0:
                self.events.append(Reported(link.session, word, self.log.end, self.now))
        try:
            said = link.master.receive(data, self.log.end)
            if said and link.master.requested is not None and link.master.next_offset < 0:
                link.master.begin(self.log.start, self.log.end, SEGMENT, last_segment=self.last_segment)
        except PeerRefused:
            self._close(link, "m")
            return
        if said:
            self.holders.report(link.broker_id, link.ip, link.session, link.master.acked)
            self._settle()

    def push(self, n: int = 0) -> None:
        """The master sends a piece, or a heartbeat."""
        for link in self.links[n % 3 : n % 3 + 1]:
            if link.master.next_offset < 0:
                continue
            offset, size = link.master.next_slice(self.log.end, SEGMENT) or (link.master.next_offset, 0)
            body = self.log.data[offset - self.log.start :][:size]
            self.events.append(Carried(link.session, offset, size, self.log.start, self.log.end, self.now))
            link.down += encode_header(offset, size) + body

    def to_slave(self, n: int = 0) -> None:
        for link in self.links[n % 3 : n % 3 + 1]:
            size = self.random.choice((1, 5, 12, 13, 100, 5000))
            data, link.down[:size] = bytes(link.down[:size]), b""
            slave = link.slave
            if link.half_open:
                return
            try:
                found = link.slave_end.feed(data)
            except PeerRefused:
                self._close(link, link.slave.name if link.slave else "x")
                return
            if found and slave:
                start, run = found
                slave.log = slave.log or Log(start)
                slave.log.cut(start)  # two connections may bring the same bytes
                slave.log.data += run
                slave.log.ends += [message.phy_offset + len(raw) for message, raw in read(bytes(run), start)]
                self._holds()
                link.up += encode_report(slave.log.end)
                self._said(link, slave.log.end)

    def _held(self, slave: Slave) -> int:
        """The end of what the slave's log has in common with the master's."""
        if slave.log is None:
            return 0
        low, high = max(slave.log.start, self.log.start), min(slave.log.end, self.log.end)
        if slave.log.data[low - slave.log.start : high - slave.log.start] == self.log.data[low - self.log.start : high - self.log.start]:
            return slave.log.end if slave.log.end > high else high
        return 0

    def _said(self, link: Link, offset: int) -> None:
        assert link.slave is not None
        held = self._held(link.slave)
        self.events.append(Said(link.session, offset, held, held, self.now))

    def _holds(self) -> None:
        for slave in self.slaves:
            end = min(self._held(slave), self.log.end)
            self.events.append(Holds(slave.name, end, end, self.now))

    # --- what goes wrong

    def drop(self, n: int = 0) -> None:
        for link in self.links[n % 3 : n % 3 + 1]:
            self._close(link)

    def master_loses_tail(self, n: int = 1) -> None:
        """The master loses power and returns with less; every connection ends, and whoever waited hears nothing."""
        self.events.append(Gone("m", "power", self.now))
        for link in list(self.links):
            self._close(link)
        self.pending.clear()
        keep = self.log.ends[max(0, len(self.log.ends) - 1 - n % 4)]
        self.log.cut(keep)
        self.holders = ack.Holders()
        self._serve("m", 0, self.log)
        self._holds()

    def slave_loses_tail(self, n: int = 0) -> None:
        slave = self.slaves[n % len(self.slaves)]
        self.events.append(Gone(slave.name, "power", self.now))
        for link in [link for link in self.links if link.slave is slave]:
            self._close(link)
        if slave.log is not None:
            slave.log.cut(slave.log.ends[len(slave.log.ends) // 2])
        self._serve(slave.name, slave.broker_id, slave.log)

    def expire_segments(self) -> None:
        """The master's first segment gets too old."""
        if self.log.end - self.log.start > 2 * SEGMENT:
            del self.log.data[:SEGMENT]
            self.log.start += SEGMENT
            ends = [self.log.start, *(end for end in self.log.ends if end > self.log.start)]
            self.log.expired += len(self.log.ends) - len(ends)
            self.log.ends = ends
            for link in [link for link in self.links if 0 <= link.master.next_offset < self.log.start]:
                self._close(link, "m")

    def resync(self, n: int = 0) -> None:
        """A slave whose log is none of the master's begins anew."""
        slave = self.slaves[n % len(self.slaves)]
        if slave.log is not None and (self._held(slave) < slave.log.end or slave.log.end > self.log.end):
            self.slave_loses_tail(n)
            slave.log = None
            self._serve(slave.name, slave.broker_id, None)

    def look(self) -> None:
        self.moment += 1
        for name, log in [("m", self.log), *((slave.name, slave.log) for slave in self.slaves)]:
            if log is not None:
                self.events.append(LogSeen(name, "a", self.moment, log.start, bytes(log.data), log.records(), self.now))

    def settle(self) -> None:
        """Everything arrives, until nothing moves."""
        for _ in range(400):
            before = len(self.events), self.log.end, sum(len(link.up) + len(link.down) for link in self.links)
            for n in range(len(self.links)):
                self.to_master(n)
            for n in range(3):
                if any(link.master.next_offset < self.log.end for link in self.links[n : n + 1]):
                    self.push(n)
                self.to_slave(n)
            if before == (len(self.events), self.log.end, sum(len(link.up) + len(link.down) for link in self.links)):
                break


def fed(seed: object, master: Log, pieces: int) -> list[Fed]:
    """The whole of `master` as frames, and its answers as words, given to both ends in one piece, then cut anywhere."""
    rng = random.Random(f"fed/{seed}")
    sender, down, up = MasterEnd(BATCH), bytearray(), bytearray()
    sender.next_offset = master.start
    while (found := sender.next_slice(master.end, SEGMENT)) is not None:
        offset, size = found
        down += encode_header(offset, size) + master.data[offset - master.start :][:size]
        up += encode_report(offset + size)
        if rng.random() < 0.3:
            down += encode_header(offset + size, 0)
    events = []
    for count in (1, pieces):
        slave, reader, log = SlaveEnd(None, SEGMENT), MasterEnd(BATCH), bytearray()
        for piece in cut(rng, bytes(down), count):
            found_records = slave.feed(piece)
            if found_records:
                log += found_records[1]
        for piece in cut(rng, bytes(up), count):
            reader.receive(piece, master.end)
        events.append(Fed(count, zlib.crc32(log), reader.acked))
    return events


def cut(rng: random.Random, data: bytes, count: int) -> list[bytes]:
    """`data` in `count` pieces; with many, most are a byte or two."""
    edges = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(count - 1))})
    return [data[low:high] for low, high in itertools.pairwise(edges)]


VERBS = (
    "put", "put", "put", "to_master", "to_master", "to_master", "push", "push", "to_slave", "to_slave", "to_slave", "settle",
    "connect", "connect", "connect_again", "drop", "expire", "lie", "shrink", "master_loses_tail", "slave_loses_tail",
    "expire_segments", "resync", "look",
)
BARE = {"settle", "expire", "expire_segments", "look"}
SETTINGS = [
    (2, 1, 1 << 28, 1, False), (2, 1, 1 << 28, 2, False), (3, 2, 1500, 2, True), (2, 2, 1500, 1, False), (3, 1, 1500, 2, False),
    (1, 1, 1 << 28, 1, False),
]
"""need, minimum, gap, slaves, auto."""


def play(lab: Cores, steps: Sequence[tuple[str, int]]) -> Cores:
    for name, number in steps:
        lab.do(name, *(() if name in BARE else (1 + number % 3,) if name == "put" else (number,)))
    lab.do("settle")
    lab.do("look")
    return lab
