"""The ear at the wire: every byte between nodes becomes words of the history. Nothing is taken from a broker's own account.

The HA port is read by a decoder of its own (reference "ha" section 1): 8-byte reports one way, frames the other. On the remoting ports
sends and pulls are followed from the producer's write to the broker's read, and the answers back.
"""

from __future__ import annotations

import zlib
from collections import defaultdict, deque
from typing import Protocol

import attrs
import trio
from specs.history import (
    NOT_ENOUGH,
    Asked,
    Attached,
    Carried,
    Detached,
    Event,
    Heard,
    Holds,
    LinkLost,
    Pulled,
    Registered,
    Reported,
    RouteSeen,
    Said,
    Told,
    Tried,
    Unregistered,
    Withdrawn,
)

from trmq.broker.service import Broker
from trmq.chaos.disks import DiskLog, records_of
from trmq.chaos.group_ear import SENDS, GroupEar, properties_of, topic_of
from trmq.message import AUTO_CREATE_TOPIC, DELAY, RETRY_PREFIX
from trmq.sim.pipe import Pipe
from trmq.wire.bodies import TopicRouteData, decode_body
from trmq.wire.codes import RequestCode
from trmq.wire.command import Command
from trmq.wire.frame import FrameDecoder

HA_PORT, PORT, NAMES_PORT = 10912, 10911, 9876
STRANGER = "stranger"
"""The host of whoever does not belong there: what it says to a remoting port is counted, not understood."""
STATUS = {0: "OK", 10: "FLUSH_DISK_TIMEOUT", 11: "SLAVE_NOT_AVAILABLE", 12: "FLUSH_SLAVE_TIMEOUT"}
PULL_STATUS = {0: "FOUND", 19: "EMPTY", 20: "RETRY", 21: "MOVED"}
BROKERS_SAY = (RequestCode.REGISTER_BROKER, RequestCode.UNREGISTER_BROKER, RequestCode.QUERY_DATA_VERSION)
BARE_LIMIT, OWN_LIMIT = 32 * 1024, 1 << 20


class Watched(Protocol):
    """What the ear needs to know of the cluster."""

    def note(self, event: Event) -> None: ...
    def log_of(self, node: str) -> DiskLog | None: ...
    def group_of(self, node: str) -> str: ...
    def slaves_of(self, group: str) -> list[str]: ...
    def master_of(self, group: str) -> str: ...
    def choice_of(self, producer: str, topic: str, group: str) -> tuple[dict[str, int], frozenset[str]]: ...
    def comfortable(self, node: str) -> int: ...

    brokers: dict[str, Broker]
    named: set[str]
    """Ids of messages whose caller chose the queue."""


class Visitor(Protocol):
    """Hears a stranger's connection."""

    def read(self, size: int) -> None: ...
    def answered(self, data: bytes) -> None: ...
    def ended(self, by: str) -> None: ...


@attrs.define(eq=False)
class _Way:
    """One direction of a connection: what is put on it is decoded once, and a command was read when its last byte was."""

    decoder: FrameDecoder = attrs.Factory(FrameDecoder)
    sent: int = 0
    read: int = 0
    under_way: deque[tuple[int, Command]] = attrs.Factory(deque)
    """(where it ends, command) of what was sent and not read yet."""

    def put(self, data: bytes) -> list[Command]:
        """The commands whose last byte this is."""
        begun = self.decoder._tail
        at, stretch = self.sent - len(begun), bytes(begun) + data if begun else data
        self.sent += len(data)
        found = self.decoder.feed(data)
        end = 0
        for command in found:
            end += 4 + int.from_bytes(stretch[end : end + 4], "big")
            self.under_way.append((at + end, command))
        return found

    def take(self, data: bytes) -> list[Command]:
        self.read += len(data)
        found = []
        while self.under_way and self.under_way[0][0] <= self.read:
            found.append(self.under_way.popleft()[1])
        return found


@attrs.define(eq=False)
class _Talk:
    """One connection to a remoting port, and the requests that wait for their answers."""

    ended: bool = False
    open: dict[int, tuple[str, str]] = attrs.Factory(dict)
    """opaque -> (id, node) of sends that were read and not answered yet."""
    ways: dict[Pipe, _Way] = attrs.Factory(lambda: defaultdict(_Way))
    asked: dict[int, Command] = attrs.Factory(dict)


@attrs.define(eq=False)
class _Session:
    """One HA connection."""

    number: int
    master: str
    slave: str
    said: bytearray = attrs.Factory(bytearray)
    reported: bytearray = attrs.Factory(bytearray)
    head: bytearray = attrs.Factory(bytearray)
    body_left: int = 0
    announced: bool = False
    attached: bool = False
    ended: bool = False


class Ear:
    """A `Tap` of the simulated net."""

    def __init__(self, cluster: Watched) -> None:
        self.cluster = cluster
        self.sessions: dict[Pipe, _Session] = {}
        self.talks: dict[Pipe, _Talk] = {}
        self.visits: dict[Pipe, Visitor] = {}
        self.attempts: dict[str, int] = {}
        self.groups = GroupEar(cluster)
        self.count = 0
        self.registered: set[tuple[str, int, str]] = set()
        self.links: dict[str, bool] = {}
        """Whether the connection to a name server is still there."""
        self.routes: dict[tuple[str, str], TopicRouteData] = {}
        self.earlier: dict[tuple[str, str], list[TopicRouteData]] = {}
        self._seen: dict[str, tuple[int, int]] = {}

    def opened(self, there: Pipe, back: Pipe) -> None:
        if there.ends[1][1] == HA_PORT:
            self.count += 1
            self.sessions[there] = self.sessions[back] = _Session(self.count, there.name[1], there.name[0])
        elif there.ends[1][1] in (PORT, NAMES_PORT) and there.name[0] != STRANGER:
            self.talks[there] = self.talks[back] = _Talk()
            if there.ends[1][1] == NAMES_PORT:
                self.links[f"{there.ends[0]}"] = True

    def sent(self, pipe: Pipe, data: bytes) -> None:
        if pipe in self.sessions:
            session = self.sessions[pipe]
            if pipe.name[0] == session.slave and pipe.ends[1][1] == HA_PORT:
                self._said(session, data)
            else:
                self._carried(session, data)
        elif pipe in self.talks:
            talk = self.talks[pipe]
            for command in talk.ways[pipe].put(data):
                self._remoting(talk, pipe, command, "sent")
        if pipe in self.visits and pipe.name[1] == STRANGER:
            self.visits[pipe].answered(data)

    def read(self, pipe: Pipe, data: bytes) -> None:
        if pipe in self.sessions:
            if pipe.ends[1][1] == HA_PORT and not data:
                self._detached(self.sessions[pipe], pipe.name[0])
            elif pipe.ends[1][1] == HA_PORT:
                self._reported(self.sessions[pipe], data)
        elif pipe in self.talks:
            if not data and pipe.ends[1][1] == NAMES_PORT and self.links.get(f"{pipe.ends[0]}"):
                self._link_lost(pipe)
            talk = self.talks[pipe]
            for command in talk.ways[pipe].take(data):
                self._remoting(talk, pipe, command, "read")
        if pipe in self.visits and pipe.name[0] == STRANGER and data:
            self.visits[pipe].read(len(data))

    def _link_lost(self, pipe: Pipe) -> None:
        self.links[f"{pipe.ends[0]}"] = False
        self.cluster.note(LinkLost(f"{pipe.ends[0]}", trio.current_time(), pipe.name[1]))

    def ended(self, pipe: Pipe, by: str) -> None:
        if pipe in self.visits:
            self.visits[pipe].ended(by)
        if pipe.ends[1][1] == NAMES_PORT and (by != pipe.name[0] or not pipe.blocked):  # else it is heard of when the way is free again
            self._link_lost(pipe)
        talk = self.talks.get(pipe)
        if talk is not None and not talk.ended:
            talk.ended = True
            for id, node in talk.open.values():
                self.cluster.note(Withdrawn(id, node, trio.current_time()))
        session = self.sessions.get(pipe)
        if session is not None and by != session.slave:
            self._detached(session, by)

    def _detached(self, session: _Session, by: str) -> None:
        if session.attached and not session.ended:
            session.ended = True
            self.cluster.note(Detached(session.number, by, trio.current_time()))

    # --- the HA port

    def _said(self, session: _Session, data: bytes) -> None:
        for word in words(session.said, data):
            self._attach(session, word < 0)
            if word >= 0:
                log = self.cluster.log_of(session.slave)
                if log is not None:
                    self.holdings(self.cluster.group_of(session.slave))
                    self.cluster.note(Said(session.number, word, log.end, log.durable, trio.current_time()))

    def _attach(self, session: _Session, announced: bool) -> None:
        if not session.attached:
            session.attached, session.announced = True, announced
            limit = OWN_LIMIT if announced else BARE_LIMIT
            self.cluster.note(Attached(session.number, session.master, session.slave, limit, trio.current_time()))

    def _reported(self, session: _Session, data: bytes) -> None:
        for word in words(session.reported, data):
            log = self.cluster.log_of(session.master)
            if word >= 0:
                self.cluster.note(Reported(session.number, word, 0 if log is None else log.end, trio.current_time()))

    def _carried(self, session: _Session, data: bytes) -> None:
        at = 0
        while at < len(data):
            if session.body_left:
                step = min(session.body_left, len(data) - at)
                session.body_left -= step
                at += step
                continue
            step = min(12 - len(session.head), len(data) - at)
            session.head += data[at : at + step]
            at += step
            if len(session.head) == 12:
                offset, size = int.from_bytes(session.head[:8], "big"), int.from_bytes(session.head[8:], "big")
                session.head.clear()
                session.body_left = size
                log = self.cluster.log_of(session.master)
                start, end = (0, 0) if log is None else (log.start, log.end)
                self.cluster.note(Carried(session.number, offset, size, start, end, trio.current_time()))

    def holdings(self, group: str) -> None:
        """Say what the group's slaves hold of their master's log, where that changed."""
        for node in self.cluster.slaves_of(group):
            log, master = self.cluster.log_of(node), self.cluster.log_of(self.cluster.master_of(group))
            if log is None or master is None:
                continue
            end = log.common(master)
            now = (end, min(end, log.durable))
            if self._seen.get(node) != now:
                self._seen[node] = now
                self.cluster.note(Holds(node, *now, trio.current_time()))

    # --- sends and pulls

    def _remoting(self, talk: _Talk, pipe: Pipe, command: Command, op: str) -> None:
        now = trio.current_time()
        self.groups.heard(talk, pipe, command, op)
        if not command.is_response:
            if command.code in SENDS:
                self._send(talk, pipe, command, op, now)
            elif pipe.ends[1][1] == NAMES_PORT and op == "read" and command.code in BROKERS_SAY:
                self._registration(pipe, command, now)
            elif command.code in (RequestCode.PULL_MESSAGE, RequestCode.GET_ROUTEINFO_BY_TOPIC) and op == "read":
                talk.asked[command.opaque] = command
            return
        request = talk.asked.get(command.opaque)
        if request is None:
            return
        if request.code in SENDS:
            node = pipe.name[0]
            id = key_of(request)
            if op == "sent":
                talk.open.pop(command.opaque, None)
                self.cluster.note(self._told(node, id, command, now, DELAY in properties_of(request)))
            else:
                self.cluster.note(Heard(id, node, status_of(command), now))
        elif request.code == RequestCode.GET_ROUTEINFO_BY_TOPIC:
            self._route(pipe, request.ext["topic"], command, op, now)
        elif op == "sent":
            self._pull(pipe, request, command, now)

    def _send(self, talk: _Talk, pipe: Pipe, command: Command, op: str, now: float) -> None:
        topic = topic_of(command)
        if topic.startswith(RETRY_PREFIX):
            return  # a consumer gives it back (`group_ear`); no producer tries
        talk.asked[command.opaque] = command
        id, producer, node = key_of(command), pipe.name[0], pipe.name[1]
        if op == "read":
            wait = properties_of(command).get("WAIT") != "false"
            self.cluster.note(Asked(id, node, wait, now))
            if talk.ended:
                self.cluster.note(Withdrawn(id, node, now))
            talk.open[command.opaque] = (id, node)
            return
        self.attempts[id] = self.attempts.get(id, 0) + 1
        group = self.cluster.group_of(node)
        writable, bad = self.cluster.choice_of(producer, topic, group)
        if group not in writable:  # it chose by an earlier route, and had to dial
            earlier = [read_route(data) for data in reversed(self.earlier.get((producer, topic), []))]
            writable = next((route for route in earlier if group in route), writable)
        queue = int(command.ext.get("e") or command.ext.get("queueId", "0"))
        chosen = id in self.cluster.named
        self.cluster.note(Tried(id, producer, group, queue, self.attempts[id], topic, writable, bad, chosen, now))

    def _told(self, node: str, id: str, command: Command, now: float, delayed: bool) -> Told:
        status = status_of(command)
        if command.code not in STATUS:
            return Told(id, node, status, at=now)
        self.holdings(self.cluster.group_of(node))
        log = self.cluster.log_of(node)
        phy = int(command.ext["msgId"].split(",")[0][-16:], 16)
        end = 0 if log is None else phy + log.size_at(phy)
        offset = -1 if delayed else int(command.ext["queueOffset"])  # where it waits is not where it will be
        return Told(id, node, status, offset, end, now)

    def _registration(self, pipe: Pipe, command: Command, now: float) -> None:
        """What a broker tells a name server. A question about the version of its topics counts as a sign of life."""
        ext, link = command.ext, f"{pipe.ends[0]}"
        who = (ext["brokerName"], int(ext["brokerId"]), ext["brokerAddr"])
        if command.code == RequestCode.UNREGISTER_BROKER:
            self.registered.discard(who)
            self.cluster.note(Unregistered(*who, now, pipe.name[1]))
        elif command.code == RequestCode.REGISTER_BROKER or who in self.registered:
            self.registered.add(who)
            self.cluster.note(Registered(*who, 0, link, at=now, server=pipe.name[1]))
            if not self.links[link]:  # it had sent this before it died
                self.cluster.note(LinkLost(link, now, pipe.name[1]))

    def _route(self, pipe: Pipe, topic: str, command: Command, op: str, now: float) -> None:
        if command.code != 0:
            if op == "sent":
                self.cluster.note(RouteSeen(topic, {}, at=now, server=pipe.name[0]))
            return
        data = decode_body(command.body, TopicRouteData)
        if op == "read":
            self.routes[pipe.name[1], topic] = data
            self.earlier.setdefault((pipe.name[1], topic), []).append(data)
            del self.earlier[pipe.name[1], topic][:-100]  # a send may wait long for its connection
            return
        brokers = {group.broker_name: dict(group.broker_addrs) for group in data.broker_datas}
        perms = {queue.broker_name for queue in data.queue_datas if queue.perm & 2}
        writable = frozenset(name for name in perms if 0 in brokers.get(name, {}))
        self.cluster.note(RouteSeen(topic, brokers, writable, now, pipe.name[0]))

    def writable(self, client: str, topic: str) -> dict[str, int]:
        """Broker name -> queues that may be written to, as the client's latest route says (of a new topic: the template's)."""
        data = self.routes.get((client, topic)) or self.routes.get((client, AUTO_CREATE_TOPIC))
        return {} if data is None else read_route(data)

    def _pull(self, pipe: Pipe, request: Command, command: Command, now: float) -> None:
        if command.code not in PULL_STATUS:
            return
        node, ask, ext = pipe.name[0], request.ext, command.ext
        log = self.cluster.log_of(node)
        records = [
            (message.queue_offset, message.phy_offset, zlib.crc32(raw))
            for message, raw in (records_of(command.body) if command.code == 0 else ()) if message is not None
        ]
        behind = 0 if log is None or not records else log.end - records[-1][1]
        self.cluster.note(Pulled(
            pipe.name[1], node, (ask["topic"], int(ask["queueId"])), self.cluster.group_of(node), int(ask["queueOffset"]),
            PULL_STATUS[command.code], int(ext["nextBeginOffset"]), int(ext["suggestWhichBrokerId"]), tuple(records), behind,
            self.cluster.comfortable(node), int(ext["minOffset"]), int(ext["maxOffset"]), now,
        ))  # fmt: skip


def read_route(data: TopicRouteData) -> dict[str, int]:
    masters = {group.broker_name for group in data.broker_datas if 0 in group.broker_addrs}
    return {queue.broker_name: queue.write_queue_nums for queue in data.queue_datas if queue.perm & 2 and queue.broker_name in masters}


def words(rest: bytearray, data: bytes) -> list[int]:
    rest += data
    whole = len(rest) // 8 * 8
    found = [int.from_bytes(rest[at : at + 8], "big", signed=True) for at in range(0, whole, 8)]
    del rest[:whole]
    return found


def key_of(command: Command) -> str:
    return properties_of(command).get("UNIQ_KEY", "?")


def status_of(command: Command) -> str:
    if command.code in STATUS:
        return STATUS[command.code]
    remark = command.remark or ""
    return NOT_ENOUGH if remark.startswith(NOT_ENOUGH) else f"REFUSED {command.code}"

