"""# Acks: what SEND_OK says when there are slaves

Seed document `003_c790c013a3e4f038.txt`, 同步双写 Master: "SYNC_MASTER，等 Master 和 Slave 均写成功后才返回给客户端写成功状态" (it
answers only when both the master and the slave have written it), and 异步复制 Master: "ASYNC_MASTER，只要 Master 写成功即可返回" (as soon
as the master has). Seed `002_44c1a7c5303d32c6.txt`, 2.4: "只有当消息成功写入到 Master 并被所有指定的 Slave 成功复制后，
才会向应用返回成功响应". So: *no ack before the slave's write under SYNC_MASTER.* A record needs `need` members that have written it, the
master among them; a slave counts once, however many connections it has, and only with what its disk really holds (under SYNC_FLUSH: what
would survive losing power).

The same seed, 消息发送高可用: "可能由于 master 接受到数据后，成功同步给 slave 之后，master 未来及返回 producer 成功的 ack，就会导致
producer 认为消息没有发送成功，所以选择另一台 master 发送，导致消息重复" (the ack is lost, the producer turns to another master, the
message is there twice). So: *duplicates are possible after an ack is lost*; a history that shows one is kept.

Nobody there to wait for: the record is stored and SLAVE_NOT_AVAILABLE comes at once. Too slow: FLUSH_SLAVE_TIMEOUT. Fewer in sync than
`minInSyncReplicas`: refused before anything is stored. Other sources: `CommitLog#calcNeedAckNums`, `GroupTransferService` of 5.4.0.

**Not promised**: that a message with any answer but SEND_OK is stored, or is not (a refusal is certain); that a record answered
FLUSH_SLAVE_TIMEOUT is not read before a slave has it; that a peer is found out who speaks the bare protocol, claims offsets that exist
and writes nothing; anything about slaves when one holder is enough (`inSyncReplicas=1`, `WAIT=false`, ASYNC_MASTER).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .clause import PAIRS, SYNC_PAIR, clause, reachable
from .history import (
    LATE,
    NOT_ENOUGH,
    Asked,
    Attached,
    Delayed,
    Detached,
    Event,
    Found,
    Gone,
    Heard,
    History,
    Holds,
    LogSeen,
    Paused,
    Reported,
    Resumed,
    Rotten,
    Serving,
    Told,
    Tried,
    Withdrawn,
)

Witness = Iterator[tuple[object, bool]]
SEED = "seed 003_c790c013a3e4f038.txt"
BOTH_WROTE = f"{SEED}, 同步双写 Master: 等 Master 和 Slave 均写成功后才返回"
ACK_LOST = f"{SEED}, 消息发送高可用: master 未来及返回 producer 成功的 ack … 导致消息重复"
NEED = "org.apache.rocketmq.store.CommitLog#calcNeedAckNums"
TRANSFER = "org.apache.rocketmq.store.ha.GroupTransferService"
SLACK_S = 0.25


class Reports:
    """Model: what slaves told their masters. A record's holders are its master and the slaves that reported its end or more; a slave counts
    once, however many connections it has, and a master that starts or stops has forgotten all of it."""

    def __init__(self) -> None:
        self.furthest: dict[tuple[str, str], int] = {}  # (master, slave) → the furthest that it could believe
        self.latest: dict[tuple[str, str], int] = {}

    def told(self, master: str, slave: str, offset: int) -> None:
        self.furthest[master, slave] = max(offset, self.furthest.get((master, slave), -1))
        self.latest[master, slave] = offset

    def forgotten_by(self, master: str) -> None:
        self.furthest = {pair: offset for pair, offset in self.furthest.items() if pair[0] != master}

    def holders(self, master: str, end: int) -> int:
        return 1 + sum(offset >= end for (to, _), offset in self.furthest.items() if to == master)

    def in_sync(self, master: str, slaves: Iterable[str], end: int, gap: int) -> int:
        """Itself, and those of these slaves that are less than `gap` bytes behind `end`."""
        return 1 + sum(end - self.latest.get((master, slave), -gap) < gap for slave in slaves)


class Board:
    """The observer's notes: who serves, who is connected to whom, what each slave has reported and what it holds."""

    def __init__(self) -> None:
        self.serving: dict[str, Serving] = {}  # the latest of each
        self.sessions: dict[int, Attached] = {}
        self.open: dict[int, None] = {}
        self.left: dict[int, float] = {}
        self.stopped: dict[str, float] = {}
        self.spoke: set[int] = set()
        self.reports = Reports()
        self.need: dict[tuple[str, str], int] = {}  # (message, master) → how many must have it, fixed when it is read
        self.wrote: dict[str, tuple[int, int]] = {}  # the most its disk was seen to hold of this master's log, and durably

    def step(self, event: Event) -> None:
        match event:
            case Serving(node=node):
                self.serving[node] = event
                self.reports.forgotten_by(node)
                self.open = {number: None for number in self.open if self.sessions[number].master != node}
                if event.broker_id == 0:
                    self.wrote = {name: seen for name, seen in self.wrote.items() if self.group(name) != event.group}
            case Gone(node=node):
                self.reports.forgotten_by(node)
            case Asked(id=id, node=node) if node in self.serving:
                self.need[id, node] = self.serving[node].need or max(2, 1 + len(self.attached(node, heard=True)))
            case Attached(session=session):
                self.sessions[session] = event
                self.open[session] = None
            case Detached(session=session):
                self.open.pop(session, None)
                self.left[session] = event.at
            case Paused(node=node):
                self.stopped[node] = event.at
            case Resumed(node=node):  # only now it learns who has left
                missed = [number for number, at in self.left.items() if self.sessions[number].master == node]
                self.left |= {number: event.at for number in missed if self.left[number] >= self.stopped.get(node, event.at)}
            case Reported(session=session, offset=offset) if session in self.sessions and 0 <= offset <= event.master_end:
                self.spoke.add(session)
                self.reports.told(self.sessions[session].master, self.sessions[session].slave, offset)
            case Holds(node=node):
                end, durable = self.wrote.get(node, (0, 0))
                self.wrote[node] = (max(end, event.end), max(durable, event.durable))

    def group(self, node: str) -> str:
        return self.serving[node].group if node in self.serving else ""

    def attached(self, master: str, *, heard: bool = False, now: float | None = None) -> set[str]:
        """The slaves connected to it (`heard`: and it has read a report); at `now` those as well that it may not know to be gone yet."""
        links = [number for number in self.open if not heard or number in self.spoke]
        if now is not None:
            links += [number for number, at in self.left.items() if now - at <= SLACK_S]
        return {self.sessions[number].slave for number in links if self.sessions[number].master == master}

    def in_sync(self, master: str, end: int, gap: int, now: float) -> int:
        return self.reports.in_sync(master, self.attached(master, now=now), end, gap)


def watched(history: History) -> Iterator[tuple[Event, Board]]:
    """Each event with what was known just before it."""
    board = Board()
    for event in history.events:
        yield event, board
        board.step(event)


def waited_for(event: Event, board: Board, unwaited: set[tuple[str, str]]) -> bool:
    """Whether this is a SEND_OK for which somebody had to be waited for."""
    if not isinstance(event, Told) or event.status != "OK" or event.node not in board.serving:
        return False
    server = board.serving[event.node]
    return server.role == "SYNC_MASTER" and server.need != 1 and (event.id, event.node) not in unwaited


def waiting(history: History) -> Iterator[tuple[Told, Board]]:
    unwaited: set[tuple[str, str]] = set()
    for event, board in watched(history):
        if isinstance(event, Asked) and not event.wait:
            unwaited.add((event.id, event.node))
        if waited_for(event, board, unwaited):
            assert isinstance(event, Told)
            yield event, board


@clause("P-ACK-1", "Under SYNC_MASTER with need k, SEND_OK leaves the master after k-1 distinct slaves reported the record's end or more.",
        source=BOTH_WROTE, mutants=("ack_before_report", "two_connections_count_twice", "believes_any_report"),
        upstream="holds with inSyncReplicas=2; its default 1 waits for nobody; one slave on two connections counts twice",
        modes=SYNC_PAIR)
def reported_before_ok(history: History) -> Witness:
    for told, board in waiting(history):
        yield told, board.reports.holders(told.node, told.end) >= board.need.get((told.id, told.node), 2)


@reachable("P-ACK-2", "Where one holder is enough, SEND_OK is given for a record that no slave has.", source=NEED,
           modes=PAIRS)
def ok_without_slaves(history: History) -> Iterator[object]:
    for event, board in watched(history):
        if isinstance(event, Told) and event.status == "OK" and event.node in board.serving and board.serving[event.node].need == 1:
            group = board.serving[event.node].group
            slaves = [s.node for s in board.serving.values() if s.group == group and s.role == "SLAVE"]
            if slaves and all(board.wrote.get(node, (0, 0))[0] < event.end for node in slaves):
                yield event


@clause("P-ACK-3", "A message with WAIT=false waits for neither flush nor slave, and is never answered with a timeout of either.",
        source="org.apache.rocketmq.store.CommitLog#needHandleHA", mutants=("unwaited_waits",))
def unwaited_is_answered_at_once(history: History) -> Witness:
    asked: dict[tuple[str, str], Asked] = {}
    for event in history.events:
        if isinstance(event, Asked):
            asked[event.id, event.node] = event
        elif isinstance(event, Told):
            ask = asked.pop((event.id, event.node), None)
            if ask is not None and not ask.wait:
                yield event, event.status not in LATE and event.at - ask.at <= SLACK_S
        elif isinstance(event, Paused):
            asked = {key: ask for key, ask in asked.items() if ask.node != event.node}


@clause("P-ACK-4", "A send that lacks acks is answered once, within slaveTimeout (or the flush timeout); the record stays stored.",
        source=TRANSFER, kind="eventually", mutants=("slave_timeout_forgotten", "late_record_dropped"),
        upstream="late by what stands before it in the line",
        modes=SYNC_PAIR, faults=("pause", "cut", "link"))
def everyone_is_answered(history: History) -> Witness:
    end = max((e.at for e in history.events if isinstance(e, Asked | Told | Gone | Found | LogSeen)), default=0.0)
    open_asks: dict[tuple[str, str], tuple[Asked, float]] = {}
    late: dict[str, list[Told]] = {}
    rotten: set[str] = set()
    for event, board in watched(history):
        if isinstance(event, Asked) and event.node in board.serving:
            server = board.serving[event.node]
            open_asks[event.id, event.node] = (event, max(server.slave_timeout_s, server.flush_timeout_s) + SLACK_S)
        elif isinstance(event, Told):
            found = open_asks.pop((event.id, event.node), None)
            if found is not None:
                yield event, event.at - found[0].at <= found[1]
            if event.status in LATE:
                late.setdefault(event.node, []).append(event)
        elif isinstance(event, Withdrawn):
            open_asks.pop((event.id, event.node), None)
        elif isinstance(event, Paused):
            open_asks = {key: value for key, value in open_asks.items() if key[1] != event.node}
        elif isinstance(event, Rotten) or (isinstance(event, Serving) and event.role == "SLAVE"):
            late.pop(event.node, None)  # it follows another log now
            rotten |= {event.node} if isinstance(event, Rotten) else set()
        elif isinstance(event, Gone):
            open_asks = {key: value for key, value in open_asks.items() if key[1] != event.node}
            if event.how not in ("close", "kill"):
                late.pop(event.node, None)
        elif isinstance(event, LogSeen) and (event.records or event.node not in rotten):  # a log that rotted may be unreadable
            ids = {record.id for record in event.records}
            for told in late.get(event.node, ()):
                yield told, told.id in ids or told.end <= event.start
    for ask, limit in open_asks.values():
        yield ask, ask.at + limit > end


@clause("P-ACK-5", "What was refused for want of in-sync replicas is in no log.",
        source="org.apache.rocketmq.store.CommitLog#asyncPutMessage", mutants=("refused_is_stored",), upstream="not in DLedger mode",
        modes=SYNC_PAIR)
def refused_is_nowhere(history: History) -> Witness:
    refused: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for event in history.events:
        if isinstance(event, Asked):
            asked[event.id] += 1
        elif isinstance(event, Told):
            refused[event.id] += event.status == NOT_ENOUGH
        elif isinstance(event, LogSeen):
            copies = Counter(record.id for record in event.records)
            for id in [id for id, count in refused.items() if count]:
                yield (event.node, id), copies[id] <= asked[id] - refused[id]


@clause("P-ACK-6", "However few slaves are in sync, SEND_OK says that at least minInSyncReplicas members have the record.",
        source="org.apache.rocketmq.store.CommitLog#calcNeedAckNums, enableAutoInSyncReplicas", mutants=("lowered_to_one",),
        modes=SYNC_PAIR)
def never_below_the_minimum(history: History) -> Witness:
    for told, board in waiting(history):
        minimum = board.serving[told.node].min_in_sync
        if minimum > 1:
            yield told, board.reports.holders(told.node, told.end) >= minimum


@clause("P-ACK-7", "A put is taken only if minInSyncReplicas members are in sync; a slave haMaxGapNotInSync or more behind is not.",
        source="org.apache.rocketmq.store.ha.DefaultHAService#inSyncReplicasNums", mutants=("gap_ignored",),
        modes=SYNC_PAIR)
def stragglers_do_not_count(history: History) -> Witness:
    """By what there was when it was read, or is when it is answered; of several attempts at one master each answer takes its own."""
    before: dict[tuple[str, str], list[int]] = {}
    unwaited: set[tuple[str, str]] = set()
    ends: dict[str, int] = {}
    for event, board in watched(history):
        if isinstance(event, Reported):
            ends[board.sessions[event.session].master] = event.master_end
        elif isinstance(event, Told | Asked) and event.node in board.serving and board.serving[event.node].min_in_sync > 1:
            server = board.serving[event.node]
            now = board.in_sync(event.node, ends.get(event.node, 0), server.gap, event.at)
            if isinstance(event, Asked):
                before.setdefault((event.id, event.node), []).append(now)
                (unwaited.discard if event.wait else unwaited.add)((event.id, event.node))
            elif (event.id, event.node) in unwaited:
                continue
            elif event.status in {"OK", *LATE, NOT_ENOUGH}:
                asked = before.get((event.id, event.node), [])
                mine = min(asked, default=0) if event.status == NOT_ENOUGH else max(asked, default=0)
                if asked:
                    asked.remove(mine)
                yield event, event.status == NOT_ENOUGH or max(now, mine) >= server.min_in_sync
        if isinstance(event, Told):
            ends[event.node] = max(event.end, ends.get(event.node, 0))


@clause("P-ACK-8", "No ack before the slave's write: at SEND_OK under SYNC_MASTER k-1 slaves' disks hold it, durably under SYNC_FLUSH.",
        source=BOTH_WROTE, mutants=("ack_before_report", "report_before_write", "report_before_sync", "believes_any_report"),
        upstream="broken: a slave reports what is in its page cache, whatever its flush mode",
        modes=SYNC_PAIR)
def written_before_ok(history: History) -> Witness:
    for told, board in waiting(history):
        server, enough = board.serving[told.node], 0
        for node, (end, durable) in board.wrote.items():
            if node != told.node and board.group(node) == server.group:
                enough += (durable if board.serving[node].sync_flush else end) >= told.end
        yield told, enough >= board.need.get((told.id, told.node), 2) - 1


@clause("P-ACK-9", "With no slave connected, a SYNC_MASTER that needs one answers SLAVE_NOT_AVAILABLE at once, never SEND_OK.",
        source="design D5; the status `SLAVE_NOT_AVAILABLE` of 4.x", mutants=("nobody_is_enough", "waits_for_nobody"),
        upstream="broken: with its defaults it answers SEND_OK; with inSyncReplicas=2 it waits until the timeout",
        modes=SYNC_PAIR, faults=("close", "kill", "cut"))
def nobody_there_is_said_at_once(history: History) -> Witness:
    alone: dict[tuple[str, str], Asked] = {}
    awake: dict[str, float] = {}  # since when its process goes on
    for event, board in watched(history):
        if isinstance(event, Resumed):
            awake[event.node] = event.at
        if isinstance(event, Asked) and event.wait and event.node in board.serving and event.at - awake.get(event.node, -1.0) > SLACK_S:
            server = board.serving[event.node]
            if server.role == "SYNC_MASTER" and server.need != 1 and not board.attached(event.node, now=event.at):
                alone[event.id, event.node] = event
        elif isinstance(event, Paused):
            alone = {key: ask for key, ask in alone.items() if ask.node != event.node}
        elif isinstance(event, Attached):
            alone = {key: ask for key, ask in alone.items() if ask.node != event.master}
        elif isinstance(event, Told) and (event.id, event.node) in alone:
            ask = alone.pop((event.id, event.node))
            yield event, event.status not in ("OK", "FLUSH_SLAVE_TIMEOUT")
            if event.status == "SLAVE_NOT_AVAILABLE" and not board.serving[event.node].sync_flush:
                yield event, event.at - ask.at <= SLACK_S


@clause("P-DUP-1", "A message is stored at most once per attempt, and twice only if an earlier one did not succeed (delayed: P-DUP-4).",
        source="reference P-DUP-1, P-SEND-1", mutants=("retries_after_success",),
        visible="client", faults=("cut", "link", "kill"))
def copies_have_a_reason(history: History) -> Witness:
    attempts: Counter[str] = Counter()
    good: set[str] = set()
    delayed: set[str] = set()
    for event in history.events:
        if isinstance(event, Delayed):
            delayed.add(event.id)
        elif isinstance(event, Tried):
            attempts[event.id] += 1
            yield event, event.id not in good
        elif isinstance(event, Heard) and event.status in {"OK", *LATE}:
            good.add(event.id)
        elif isinstance(event, Found):
            for id, count in Counter(event.ids).items():
                if count > 1 and id not in delayed:
                    yield id, count <= attempts[id]


@reachable("P-DUP-2", "Duplicates are possible after an ack is lost: one message is in two groups, under one UNIQ_KEY.", source=ACK_LOST,
           faults=("cut", "link", "kill"))
def in_two_groups(history: History) -> Iterator[object]:
    acked = {(told.id, told.node) for told in history.all(Told) if told.status == "OK"}
    lost = acked - {(heard.id, heard.node) for heard in history.all(Heard)}
    groups: dict[tuple[int, str], set[str]] = {}
    for seen in history.all(LogSeen):
        for record in seen.records:
            groups.setdefault((seen.moment, record.id), set()).add(seen.group)
    for (moment, id), where in groups.items():
        if len(where) > 1 and any(told == id for told, _ in lost) and any(told == id for told, _ in acked - lost):
            yield moment, id, sorted(where)


@reachable("P-ACK-R1", "A send answered FLUSH_SLAVE_TIMEOUT or SLAVE_NOT_AVAILABLE is stored nevertheless, and read.", source=TRANSFER,
           modes=SYNC_PAIR, faults=("pause", "cut", "link"))
def late_and_stored(history: History) -> Iterator[object]:
    late = {told.id: told for told in history.all(Told) if told.status in ("FLUSH_SLAVE_TIMEOUT", "SLAVE_NOT_AVAILABLE")}
    for found in history.all(Found):
        yield from (late[id] for id in found.ids if id in late)
