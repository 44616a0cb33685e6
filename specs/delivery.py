"""# Delivery: at least once, and how far a group is

Seed `003_c790c013a3e4f038.txt`, 消息可靠性: "1-4 的四种情况属于硬件资源可理解恢复情况，RocketMQ 在这四种情况下能保证消息不丢，
或丢失少量数据" (what can be recovered from loses no message, or few). 消息消费高可用: "当一个 Master 角色的机器出现故障后，Consumer
仍然可以从 Slave 读取消息，不影响 Consumer 程序". Seed `002_44c1a7c5303d32c6.txt`: "可以以集群或广播的方式消费消息"
(as a cluster, or each for itself).

A group's place in a queue is an offset: everything below it is done with. A member commits the smallest offset that it has not finished,
never more; a broker keeps what it was told last, in memory at once and on disk within 5 s. Whoever takes a queue starts at what the broker
says. So a message is handled at least once, whoever dies: what lies between the committed offset and the end comes again. Sources:
`ProcessQueue`, `ConsumerOffsetManager`, `PullMessageProcessor` of 5.4.0; reference C8, "client behaviour" sections 4 and 5.

**Not promised**: exactly once (see "duplicates"); that a commit survives a crash of the broker at once; that a group is told when its
offset lies beyond the end of a log that lost its tail and has grown past it again: what was written there meanwhile is skipped; anything
for messages that were filtered out, or expired before they were read; offsets after a disk was lost, or was full while they changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .delay import due_at
from .history import (
    Committed,
    Copy,
    Event,
    Found,
    Given,
    Gone,
    Handled,
    Hindered,
    History,
    Joined,
    Left,
    OffsetTold,
    Pulled,
    QueueName,
    SentBack,
    Serving,
    TakenBack,
    Told,
)
from .rebalance import RETURN_S, SILENT_S, Roll

Witness = Iterator[tuple[object, bool]]
RECOVERED = "seed 003_c790c013a3e4f038.txt, 消息可靠性: 在这四种情况下能保证消息不丢"
EACH_FOR_ITSELF = "seed 002_44c1a7c5303d32c6.txt: 以集群或广播的方式消费消息"
PROCESS_QUEUE = "org.apache.rocketmq.client.impl.consumer.ProcessQueue"
OFFSETS = "org.apache.rocketmq.broker.offset.ConsumerOffsetManager"
QUIET_S = 60.0
WRITTEN_S = 5.5
"""Offsets are written every 5 s, and writing takes a moment."""
RETRY, DEAD = "%RETRY%", "%DLQ%"
Line = tuple[str, str, QueueName]
"""Consumer group, broker group, queue."""


class Progress:
    """Model: of each queue of a group the end of what is done with without a gap, and what is done with beyond it."""

    def __init__(self) -> None:
        self.edge: dict[Line, int] = {}
        self.beyond: dict[Line, set[int]] = {}
        self.failed: dict[tuple[str, str, str], list[tuple[Line, int]]] = {}
        self.member_of: dict[str, str] = {}

    def step(self, event: Event) -> None:
        match event:
            case Joined(consumer=consumer, consumer_group=of):
                self.member_of[consumer] = of
            case Handled(consumer_group=of, good=True):
                self.done((of, event.group, event.queue), event.queue_offset)
            case Handled(consumer_group=of, consumer=consumer, id=id):
                self.failed.setdefault((of, consumer, id), []).append(((of, event.group, event.queue), event.queue_offset))
            case TakenBack(consumer_group=of, client=client, id=id, good=True):
                for line, offset in self.failed.pop((of, client, id), []):
                    self.done(line, offset)
            case Pulled(code="MOVED", client=client) if client in self.member_of:
                line = (self.member_of[client], event.group, event.queue)
                self.edge[line], self.beyond[line] = event.next, set()

    def done(self, line: Line, offset: int) -> None:
        beyond = self.beyond.setdefault(line, set())
        beyond.add(offset)
        edge = self.edge.get(line, 0)
        while edge in beyond:
            edge += 1
        self.edge[line] = edge

    def reached(self, line: Line) -> int:
        return self.edge.get(line, 0)


class Kept:
    """Model: what a master may say of each queue of a group: the last it was told in this life, else what its last life can have left."""

    def __init__(self) -> None:
        self.master: dict[str, str] = {}  # broker group → node
        self.told: dict[str, dict[tuple[str, QueueName], list[tuple[float, int]]]] = {}
        self.left: dict[str, dict[tuple[str, QueueName], set[int]]] = {}
        self.unwritten: set[str] = set()  # their disks took nothing for a while in this life
        self.promoted: set[str] = set()  # what these had copied as slaves nobody has heard

    def step(self, event: Event) -> None:
        match event:
            case Hindered(node=node, why="disk-full" | "write-fails" | "sync-fails"):
                self.unwritten.add(node)
            case Serving(node=node, broker_id=0):
                if self.master.get(event.group, node) != node:
                    self.promoted.add(node)
                    self.left.pop(node, None)
                self.master[event.group], self.told[node] = node, {}
            case Serving(node=node):
                self.told.pop(node, None)
                self.left.pop(node, None)
            case Gone(node=node) if event.how in ("disk", "machine") or node in self.unwritten:
                self.left.pop(node, None)
                self.unwritten.discard(node)
            case Gone(node=node) if node in self.told:
                found = {**self.left.get(node, {}), **{key: self.may_be(node, key, event) for key in self.told[node]}}
                self.left[node] = {key: offsets for key, offsets in found.items() if offsets}
            case OffsetTold(node=node) if node in self.promoted and node in self.told:
                self.left.setdefault(node, {}).setdefault((event.consumer_group, event.queue), {max(event.offset, 0)})
            case Committed(node=node) if node in self.told and event.client not in self.told:
                self.told[node].setdefault((event.consumer_group, event.queue), []).append((event.at, event.offset))

    def may_be(self, node: str, key: tuple[str, QueueName], end: Gone) -> set[int]:
        """Nothing: it cannot be known."""
        written = end.at - WRITTEN_S * (end.how != "close")
        late = [offset for at, offset in self.told[node][key] if at > written]
        early = [offset for at, offset in self.told[node][key] if at <= written]
        before = self.left.get(node, {}).get(key, set() if node in self.promoted else {0})
        return {*late, early[-1]} if early else {*late, *before} if before else set()


class Returned:
    """Model: what members gave back is worth as much as a send there: which copies faults may have destroyed since (`gone`). One that a
    slave has as well needs two."""

    def __init__(self) -> None:
        self.master: dict[str, str] = {}
        self.dual: dict[str, bool] = {}
        self.copies: dict[tuple[str, str], tuple[bool, set[str]]] = {}
        self.gone: set[tuple[str, str]] = set()

    def step(self, event: Event) -> None:
        match event:
            case Serving(node=node, broker_id=0):
                if self.master.setdefault(event.group, node) != node:
                    self.strike(node)
                self.master[event.group] = node
                self.dual[node] = event.role == "SYNC_MASTER"
            case Gone(node=node) if event.how not in ("close", "kill"):
                self.strike(node)
            case TakenBack(consumer_group=of, id=id, good=True):
                self.copies[of, id] = (self.dual.get(event.node, False) and not event.late, set())
                self.gone.discard((of, id))

    def strike(self, node: str) -> None:
        for key, (dual, struck) in self.copies.items():
            struck.add(node)
            if len(struck) > dual:
                self.gone.add(key)


def asked(history: History) -> Iterator[tuple[OffsetTold, Kept]]:
    """Every answer of a master to a member that asked where its group is."""
    kept = Kept()
    for event in history.events:
        if isinstance(event, OffsetTold) and kept.master.get(event.group) == event.node and event.node in kept.told:
            yield event, kept
        kept.step(event)


@clause("P-OFF-1", "A master says of a queue of a group the last offset that it was told.", source=OFFSETS,
        mutants=("commits_are_forgotten",))
def the_last_commit_counts(history: History) -> Witness:
    for event, kept in asked(history):
        told = kept.told[event.node].get((event.consumer_group, event.queue))
        if told:  # what the broker reads at one moment is heard at once, and answered one by one
            before = [offset for at, offset in told if at < event.at][-1:]
            now = [offset for at, offset in told if at == event.at]
            yield event, event.offset in (now + before if now else before)


@clause("P-OFF-2", "A committed offset never lies beyond a message that the group has neither finished nor given back with success.",
        source=PROCESS_QUEUE, mutants=("commits_max_instead_of_min", "sendback_failure_passes_offset"))
def nothing_unfinished_is_passed(history: History) -> Witness:
    progress = Progress()
    for event in history.events:
        if isinstance(event, Committed) and event.consumer_group in progress.member_of.values():
            yield event, event.offset <= progress.reached((event.consumer_group, event.group, event.queue))
        progress.step(event)


@clause("P-OFF-3", "Offsets survive a master's clean stop exactly, and a crash or loss of power with what was told until 5 s before.",
        source=f"{OFFSETS}; {RECOVERED}", mutants=("offsets_not_loaded_after_restart", "offsets_not_written_at_a_stop"))
def offsets_survive(history: History) -> Witness:
    for event, kept in asked(history):
        key = (event.consumer_group, event.queue)
        if key not in kept.told[event.node] and key in kept.left.get(event.node, {}):
            yield event, max(event.offset, 0) in kept.left[event.node][key]


@clause("P-OFF-4", "A pull beyond the end of a queue is answered at once by the master, with the end; below its begin, with the begin.",
        source="org.apache.rocketmq.broker.processor.PullMessageProcessor; OFFSET_OVERFLOW_BADLY", mutants=("beyond_the_end_waits",))
def no_silent_wait(history: History) -> Witness:
    masters: set[str] = set()
    for event in history.events:
        if isinstance(event, Serving):
            (masters.add if event.broker_id == 0 else masters.discard)(event.node)
        elif isinstance(event, Pulled) and event.node in masters and not event.min_offset <= event.asked <= event.max_offset:
            nearest = event.max_offset if event.asked > event.max_offset else event.min_offset
            yield event, event.code == "MOVED" and event.next == nearest


@clause("P-ALO-1", "Every acknowledged message that is still there is in the end handled with success by a member of each group, or a "
        "dead letter of it.", source=f"{RECOVERED}; reference P-ALO-1", kind="eventually", mutants=("skips_after_rebalance", "gives_up"))
def everything_is_handled(history: History) -> Witness:
    groups: dict[str, set[str]] = {}
    handled: dict[str, set[str]] = {}
    disturbed, acked, due = 0.0, dict[str, float](), dict[str, float]()
    returned = Returned()
    for event in history.events:
        returned.step(event)
        match event:
            case Joined(consumer_group=of) if not event.broadcasting:
                groups.setdefault(of, set()).add(event.consumer)
                disturbed = event.at
            case Left(consumer_group=of) if of in groups:
                groups[of].discard(event.consumer)
                disturbed = event.at + SILENT_S * (event.how == "power")
            case Serving() | Gone():
                disturbed = max(disturbed, event.at)
            case Told(status="OK", id=id):
                acked.setdefault(id, event.at)
            case Handled(consumer_group=of, id=id, good=True) | Copy(queue=(of, _), id=id):
                handled.setdefault(of.removeprefix(DEAD), set()).add(id)
            case SentBack(id=id):
                due[id] = due_at(event)
            case Found() if event.at - disturbed >= QUIET_S:
                there = {id for id in event.ids if id in acked and event.at - max(acked[id], due.get(id, 0.0)) >= QUIET_S}
                for of in (of for of, members in groups.items() if members):
                    kept = [id for id in sorted(there) if (of, id) not in returned.gone]
                    yield from (((of, id), id in handled.get(of, ())) for id in kept)


@clause("P-ALO-2", "A group is given every message of a queue from the first on: whoever takes a queue over, none is left out.",
        source=f"{PROCESS_QUEUE}; reference P-ALO-2", mutants=("skips_after_rebalance", "commits_max_instead_of_min"))
def none_is_left_out(history: History) -> Witness:
    following: dict[Line, int] = {}
    member_of: dict[str, str] = {}
    for event in history.events:
        if isinstance(event, Joined):
            member_of[event.consumer] = event.consumer_group
        elif isinstance(event, Pulled) and event.code == "MOVED" and event.client in member_of:
            following[member_of[event.client], event.group, event.queue] = event.next
        elif isinstance(event, Given) and event.consumer in member_of:
            line = (event.consumer_group, event.group, event.queue)
            yield event, event.queue_offset <= following.get(line, 0)
            following[line] = max(event.queue_offset + 1, following.get(line, 0))


@clause("P-BRD-1", "A member that consumes for itself is given every message, and in one life none twice, not even one that failed.",
        source=EACH_FOR_ITSELF, kind="eventually", mutants=("broadcasting_is_shared", "broadcasting_repeats"))
def each_for_itself(history: History) -> Witness:
    living: dict[str, float] = {}
    given: dict[str, set[str]] = {}
    seen: set[tuple[str, str, QueueName, int]] = set()
    acked: dict[str, float] = {}
    for event in history.events:
        match event:
            case Joined(broadcasting=True, consumer_group=of):
                living[of] = event.at
                seen = {one for one in seen if one[0] != of}
            case Left(consumer_group=of):
                living.pop(of, None)
            case Told(status="OK", id=id):
                acked.setdefault(id, event.at)
            case Given(consumer_group=of) if of in living:
                place = (of, event.group, event.queue, event.queue_offset)
                yield event, place not in seen
                seen.add(place)
                given.setdefault(of, set()).add(event.id)
            case Found():
                for of in (of for of, since in living.items() if event.at - since >= RETURN_S):
                    yield from (((of, id), id in given.get(of, ())) for id in event.ids if event.at - acked.get(id, event.at) >= QUIET_S)


def rolls(history: History) -> Iterator[tuple[Event, Roll]]:
    """Each event with the roll as it was before it."""
    roll = Roll()
    for event in history.events:
        yield event, roll
        roll.step(event)
