"""# Replication: a slave's log is its master's log

Seed `000_962224688e51e41c.txt`, 主从复制机制: "当生产者将消息发送到Master Broker时，Master Broker会立即将消息持久化并同步到其Slave
Broker上，确保数据的一致性" (the master at once persists a message and copies it to its slaves, so that the data agree). Seed
`003_c790c013a3e4f038.txt`, 消息主从复制: "如果一个 Broker 组有 Master 和 Slave，消息需要从 Master 复制到 Slave 上，
有同步和异步两种复制方式". Seed `001_8e740201b086beaf.txt`: a slave belongs to a master by cluster name, broker name and an id above 0.

A slave dials the master's HA port and says, in 8-byte words, how far its log reaches; the master sends stretches of its log, each with
its offset and size, and heartbeats of size 0. Both sides check what the other says: a report that cannot be true, or bytes that do not
continue the log, end the connection, with a sentence, and nothing is believed. A slave that has more than its master is not a copy of it:
the master neither serves nor counts it. An old master that comes back as a slave puts what the new master lacks into a file of its own.

Sources: `DefaultHAConnection`, `DefaultHAClient` of 5.4.0, and where they break the promise: apache/rocketmq #3015, #1155 (a report
beyond the log is believed), #10666 (a truncated tail is still valid on disk), reference "ha" traps H1, H2, H5, H6.

**Not promised**: that a slave has what its master has not yet sent; that two logs are compared below the point where a connection begins
(a bare-protocol peer whose log differs there and is not longer is not found out by the protocol); that a silent peer is noticed sooner
than after 20 seconds; that damage on a master's disk is not copied where no CRC covers it (a record's body has one, its head, topic and
properties have their checksum in a file that is compared at starts and by `trmq store check`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from .clause import PAIRS, clause, reachable
from .history import (
    Attached,
    Carried,
    Cut,
    Detached,
    Fed,
    Gone,
    History,
    LogSeen,
    Paused,
    Reported,
    Resumed,
    Rotten,
    Said,
    Serving,
    Settled,
)

Witness = Iterator[tuple[object, bool]]
SEED = "seed 000_962224688e51e41c.txt, 主从复制机制: 同步到其Slave Broker上，确保数据的一致性"
CONNECTION = "org.apache.rocketmq.store.ha.DefaultHAConnection"
CLIENT = "org.apache.rocketmq.store.ha.DefaultHAClient"
SILENT_S = 20.0
HEARTBEAT_S = 5.0
SLACK_S = 1.0
CATCH_UP_S, CATCH_UP_AGAIN_S = 10.0, 15.0


class Wire:
    """Model: of each connection, what may come next. A slave's reports grow; the master's pieces follow one another without a gap."""

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.said: dict[int, int] = {}
        self.next: dict[int, int] = {}
        self.refused: dict[int, Reported] = {}

    def report(self, event: Reported) -> bool:
        """Whether the master may believe it."""
        if event.session in self.refused:
            return False
        good = self.said.get(event.session, 0) <= event.offset <= event.master_end
        if good:
            self.said[event.session] = event.offset
            self.first.setdefault(event.session, event.offset)
        else:
            self.refused[event.session] = event
        return good

    def piece(self, event: Carried) -> bool:
        """Whether it continues what was sent, or begins where the slave's log ends (an empty slave's anywhere)."""
        asked = self.first.get(event.session)
        expected = self.next.get(event.session, asked)
        good = asked is not None and (event.offset == expected or (expected == 0 and event.session not in self.next))
        if event.size or event.offset:
            self.next[event.session] = event.offset + event.size
        return good


def looks(history: History) -> Iterator[list[LogSeen]]:
    """Looks at the members of one group at one moment."""
    found: dict[tuple[int, str], list[LogSeen]] = {}
    for seen in history.all(LogSeen):
        found.setdefault((seen.moment, seen.group), []).append(seen)
    yield from found.values()


def agree(one: LogSeen, other: LogSeen) -> bool:
    low, high = max(one.start, other.start), min(one.end, other.end)
    return one.data[low - one.start : high - one.start] == other.data[low - other.start : high - other.start] or high <= low


def followed(history: History) -> Iterator[tuple[LogSeen, LogSeen]]:
    """A master's log and that of a slave it serves, at one moment."""
    sessions: dict[int, Attached] = {}
    served: set[int] = set()
    last: dict[str, LogSeen] = {}
    rotten = {event.node for event in history.all(Rotten)}
    for event in history.events:
        match event:
            case Serving(node=node):
                served -= {session for session in served if sessions[session].master == node}
            case Attached(session=session):
                sessions[session] = event
            case Carried(session=session) if session in sessions:
                served.add(session)
            case Detached(session=session):
                served.discard(session)
            case LogSeen(node=node):
                last[node] = event
                for link in [sessions[session] for session in sorted(served)]:
                    one, other = last.get(link.master), last.get(link.slave)
                    if rotten.intersection((link.master, link.slave)):
                        continue  # what was altered behind its back is not what it copied
                    if node in (link.master, link.slave) and one and other and one.moment == other.moment:
                        yield one, other


@clause("P-HA-1", "What a slave's log and its master's both have is equal, byte for byte, while it is served.", source=SEED,
        mutants=("longer_slave_accepted", "slave_serves_other_bytes"),
        upstream="broken after a master lost its tail: the logs differ from there on",
        modes=PAIRS, faults=("os-crash", "power", "cut"))
def logs_are_equal(history: History) -> Witness:
    for one, other in followed(history):
        yield (one.node, other.node, one.moment), agree(one, other)


@clause("P-HA-2", "Each piece continues what was sent before, begins where the slave's log ends, lies in one segment and within the limit.",
        source=f"{CONNECTION}$WriteSocketService", mutants=("slice_from_wrong_place", "piece_crosses_segment", "pieces_too_long"),
        modes=PAIRS)
def pieces_follow(history: History) -> Witness:
    wire, sessions, segment = Wire(), {}, {}
    for event in history.events:
        if isinstance(event, Serving):
            segment[event.node] = event.segment_size
        elif isinstance(event, Attached):
            sessions[event.session] = event
        elif isinstance(event, Reported):
            wire.report(event)
        elif isinstance(event, Carried) and event.session in sessions:
            about = sessions[event.session]
            size = segment.get(about.master, 1 << 30)
            within = event.offset // size == max(event.offset, event.offset + event.size - 1) // size
            yield event, wire.piece(event) and within and event.size <= about.limit


@clause("P-HA-3", "On one connection a slave's reports never fall, and never exceed what it has written (under SYNC_FLUSH: durably).",
        source=f"{CLIENT}#reportSlaveMaxOffset", mutants=("report_before_write", "report_before_sync"),
        upstream="holds for the page cache; what is flushed is not asked",
        modes=PAIRS)
def reports_are_true(history: History) -> Witness:
    said: dict[int, int] = {}
    sessions: dict[int, Attached] = {}
    slaves: dict[str, Serving] = {}
    for event in history.events:
        if isinstance(event, Serving):
            slaves[event.node] = event
        elif isinstance(event, Attached):
            sessions[event.session] = event
        elif isinstance(event, Said) and event.session in sessions:
            slave = slaves.get(sessions[event.session].slave)
            if slave is not None and not slave.plain:
                holds = event.durable if slave.sync_flush else event.held
                yield event, said.get(event.session, 0) <= event.offset <= holds
            said[event.session] = event.offset


@clause("P-HA-4", "Who reports more than the master's log holds, or less than before, gets nothing more and is disconnected.",
        source="apache/rocketmq #3015, #1155; reference H6",
        mutants=("longer_slave_accepted", "believes_any_report", "falling_report_believed"),
        upstream="broken: it is served with heartbeats, and its reports count as acks",
        modes=PAIRS, faults=("stranger",))
def liars_are_dropped(history: History) -> Witness:
    wire = Wire()
    ended: set[int] = set()
    carried_after: set[int] = set()
    for event in history.events:
        if isinstance(event, Reported):
            wire.report(event)
        elif isinstance(event, Carried) and event.session in wire.refused:
            carried_after.add(event.session)
        elif isinstance(event, Detached):
            ended.add(event.session)
    for session, lie in wire.refused.items():
        yield lie, session in ended and session not in carried_after


@clause("P-HA-5", "With the link up and nobody sending, a slave has all its master has within 10 s, after a reconnect within 15 s.",
        source=CLIENT, kind="eventually", mutants=("push_stops", "no_reconnect"),
        modes=PAIRS, faults=("cut", "link", "kill"))
def slaves_catch_up(history: History) -> Witness:
    rotten = {event.node for event in history.all(Rotten)}
    for event in history.all(Settled):
        if not rotten.intersection(event.ends) and event.seconds >= (CATCH_UP_AGAIN_S if event.again else CATCH_UP_S):
            yield event, len(set(event.ends.values())) <= 1


@clause("P-HA-6", "A peer silent for 20 s is dropped; both sides speak at least every 5 s, so that an idle connection stays.",
        source="org.apache.rocketmq.store.config.MessageStoreConfig, haHousekeepingInterval", kind="eventually",
        mutants=("silence_is_borne", "no_heartbeat"),
        modes=PAIRS, faults=("pause", "cut", "stranger"))
def silence_ends_a_connection(history: History) -> Witness:
    end = max((e.at for e in history.events if isinstance(e, Carried | Said | Reported | Gone | Detached)), default=0.0)
    heard: dict[int, float] = {}
    spoke: dict[tuple[int, str], float] = {}
    stopped: dict[str, float] = {}  # until then its process stood still
    sessions: dict[int, Attached] = {}
    for event in history.events:
        match event:
            case Attached(session=session):
                sessions[session] = event
                heard[session] = event.at
            case Reported(session=session) if session in heard:
                yield event, event.at - heard[session] <= SILENT_S + SLACK_S
                heard[session] = event.at
            case Said(session=session) | Carried(session=session) if session in heard:
                side = (session, type(event).__name__)
                who = sessions[session].slave if isinstance(event, Said) else sessions[session].master
                if side in spoke and spoke[side] >= stopped.get(who, 0.0):
                    yield event, event.at - spoke[side] <= HEARTBEAT_S + SLACK_S
                spoke[side] = event.at
            case Paused(node=node):
                stopped[node] = float("inf")
            case Resumed(node=node):
                stopped[node] = event.at
                heard = {number: event.at if sessions[number].master == node else at for number, at in heard.items()}
            case Detached(session=session) if session in heard:
                since = heard.pop(session)
                if stopped.get(sessions[session].master, 0.0) <= event.at:
                    yield event, event.at - since <= SILENT_S + SLACK_S
                last = spoke.get((session, "Carried"), event.at)
                if last >= stopped.get(sessions[session].master, 0.0):
                    yield event, event.at - last <= HEARTBEAT_S + SLACK_S
            case Gone(node=node):
                heard = {number: at for number, at in heard.items() if sessions[number].master != node}
    for session, at in heard.items():
        yield sessions[session], end - at <= SILENT_S + SLACK_S


@clause("P-HA-7", "However TCP cuts the stream into pieces, the log and the last report that it gives are the same.", source=CONNECTION,
        mutants=("header_must_arrive_whole", "word_must_arrive_whole"),
        modes=PAIRS, faults=("link",))
def pieces_of_tcp_do_not_matter(history: History) -> Witness:
    fed = list(history.all(Fed))
    for event in fed[1:]:
        yield event, (event.log, event.said) == (fed[0].log, fed[0].said)


@clause("P-HA-8", "An empty slave begins at the beginning of a segment: of the master's first, or (syncFromLastFile) of its last.",
        source="reference H1", mutants=("empty_slave_starts_late",), upstream="always the last segment, without saying so",
        modes=PAIRS)
def empty_slaves_start_at_a_segment(history: History) -> Witness:
    serving: dict[str, Serving] = {}
    sessions: dict[int, Attached] = {}
    first: dict[int, Reported] = {}
    begun: set[int] = set()
    for event in history.events:
        if isinstance(event, Serving):
            serving[event.node] = event
        elif isinstance(event, Attached):
            sessions[event.session] = event
        elif isinstance(event, Reported):
            first.setdefault(event.session, event)
        elif isinstance(event, Carried) and event.size and event.session not in begun:
            begun.add(event.session)
            if event.session not in first or first[event.session].offset:
                continue
            about = sessions[event.session]
            size, slave = serving[about.master].segment_size, serving.get(about.slave)
            last = slave is not None and slave.from_last_segment
            asked = first[event.session]
            start = max(event.master_min, (asked.master_end - 1) // size * size) if last else event.master_min
            right = event.offset == start
            yield event, right and event.offset % size == 0


@clause("P-HA-9", "What an old master drops to follow the new one is kept in a file, and never comes back into its log.",
        source="apache/rocketmq #10666; design D7", mutants=("tail_is_dropped", "cut_is_not_durable"),
        upstream="broken: what was cut is still there after losing power",
        modes=PAIRS, faults=("kill", "os-crash", "power", "machine"))
def what_is_cut_is_kept_and_gone(history: History) -> Witness:
    cuts: dict[str, Cut] = {}
    for event in history.events:
        if isinstance(event, Cut):
            cuts[event.node] = event
            yield event, event.aside == event.dropped
        elif isinstance(event, LogSeen) and event.node in cuts:
            cut = cuts[event.node]
            low = max(cut.start, event.start)
            dropped = cut.dropped[low - cut.start :]
            yield (event.node, event.moment), event.data[low - event.start :][: len(dropped)] != dropped


@clause("P-INT-1", "A peer that speaks the bare protocol only is served as a slave, or followed as a master, to a log equal byte for byte.",
        source="reference P-INT-1", mutants=("token_is_demanded",),
        modes=PAIRS)
def bare_peers_are_served(history: History) -> Witness:
    plain = {event.node for event in history.all(Serving) if event.plain}
    last: dict[str, list[LogSeen]] = {}
    for members in looks(history):
        last[members[0].group] = members
    for members in last.values():
        for one, other in combinations(members, 2):
            if {one.node, other.node} & plain:
                yield (one.node, other.node), agree(one, other) and one.end == other.end


@reachable("P-HA-R1", "Bytes reach a slave before the master has made them durable, so it can be ahead of a master that lost power.",
           source="reference H2",
           modes=PAIRS, faults=("kill", "os-crash", "power", "machine"))
def slave_ahead_of_its_master(history: History) -> Iterator[object]:
    seen: dict[str, LogSeen] = {}
    for event in history.events:
        if isinstance(event, Serving):
            others = [look for look in seen.values() if look.group == event.group and look.node != event.node]
            if event.broker_id == 0 and any(record.end > event.log_end for look in others for record in look.records):
                yield event
        elif isinstance(event, LogSeen):
            seen[event.node] = event
