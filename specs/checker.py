"""# The history checker: one pass, ten rules

What a client may conclude from its own sends and reads, however the brokers got there. Messages have unique ids, so that queues can be
checked by looking things up: no search for a linearization is needed, and a history is read once, from its first word to its last.

| rule | says | clause |
| --- | --- | --- |
| H1 | nothing promised is lost | P-LOSS-1 |
| H2 | the place that an answer named holds that message | P-HIS-2 |
| H3 | whatever is stored or delivered was sent before; what failed for certain is nowhere | P-HIS-3 |
| H4 | no more copies than attempts, and no attempt after a success | P-DUP-1 |
| H5 | what was read at an offset stays there | P-HIS-5 |
| H6 | the offsets of a queue are dense, and a group skips none | P-HIS-6 |
| H7 | sent after the answer to another one means stored and delivered after it | P-HIS-7 |
| H8 | every group is given everything, and again only for a reason | P-HIS-8 |
| H9 | one master answers for a group | P-HIS-9 |
| H10 | the copies are equal | P-HA-1 |

Seed `003_c790c013a3e4f038.txt`, 消息可靠性: "RocketMQ 在这四种情况下能保证消息不丢，或丢失少量数据（依赖刷盘方式是同步还是异步）"
(in these four cases none is lost, or a few, depending on the flush): whether a message may be gone depends on the mode and on the faults,
so H1, H2, H5 and H7 ask the table of promises (`loss.promise`) with the copies that SEND_OK spoke of and the faults that really hit since,
and never the test. FLUSH_DISK_TIMEOUT, FLUSH_SLAVE_TIMEOUT and
SLAVE_NOT_AVAILABLE are successes without a promise. The same seed, 消息发送高可用: an ack that is lost leads to "消息重复", a second copy;
H4 lets that pass and no other. The rest is the reference "ha semantics": P-LOG-3, P-LOG-4, P-ORD-1, P-ORD-3, P-ALO-1, P-ALO-2, P-SEND-1:
at least once, in order within a queue.

In order is by the offsets, with one exception: what a member of a group that does not ask for order failed with, and no broker took back,
it tries again alone, after 5 s (P-RTY-2). No document says that what stood behind it comes again as well, nor that it waits.

An id that nobody sent is a phantom and not a duplicate; orders are compared place by place, so that duplicates in the wrong order are seen.
Where a history has the inside words (`Told`, `LogSeen`, `Found`) they are used; where it has only what a client sees (`Tried`, `Heard`,
`Outcome`, `Given`, `QueueRead`, and the faults that it caused itself as `Serving`, `Gone`, `Paused`) those do.

**Not promised**: an order between queues; that a message without SEND_OK is there, or is not; that a group is given each message only
once, when a fault or a rebalance lies between; anything about consumers that filter; that a queue offset is not used again for another
message after its first one was lost with every copy that its answer spoke of, and that a group which was given the first one is given the
other, too; that what was altered behind a broker's back is given.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from .clause import Check, clause
from .ha_transfer import agree
from .history import (
    LATE,
    Asked,
    Assigned,
    Attached,
    Carried,
    Committed,
    Delayed,
    Detached,
    Drained,
    Found,
    Given,
    Gone,
    Handled,
    Heard,
    History,
    Joined,
    Left,
    LogSeen,
    OffsetTold,
    Outcome,
    Paused,
    QueueName,
    QueueRead,
    Rebalanced,
    Resumed,
    Rotten,
    Said,
    Serving,
    Told,
    Tried,
)
from .loss import TAKES_ALL, TAKES_CACHE, Copies, Fault, Owed, after, promise, spoken

CLAUSES = {
    "H1": "P-LOSS-1", "H2": "P-HIS-2", "H3": "P-HIS-3", "H4": "P-DUP-1", "H5": "P-HIS-5", "H6": "P-HIS-6", "H7": "P-HIS-7",
    "H8": "P-HIS-8", "H9": "P-HIS-9", "H10": "P-HA-1",
}  # fmt: skip
"""Rule -> the clause that says it."""
GOOD = frozenset({"OK", *LATE})
INSIDE = ("%", "SCHEDULE_TOPIC", "RMQ_SYS_", "TBW102")
"""What the names of topics begin with that brokers write to themselves: retries, dead letters, delays."""


class Violation(NamedTuple):
    rule: str
    clause: str
    witness: str
    """What happened, as a sentence."""


@dataclass
class Report:
    """`witnesses`: how often each rule had something to say. `owed`: messages that were answered SEND_OK; `promised`: those of them whose
    promise still stands after all faults; `lost`: those that are gone, and may be."""

    events: int = 0
    witnesses: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    owed: int = 0
    promised: int = 0
    lost: int = 0

    def broken(self) -> list[str]:
        """The rules that were violated, each once."""
        return sorted({violation.rule for violation in self.violations}, key=lambda rule: int(rule[1:]))


class Cohort:
    """Messages answered SEND_OK by one master between two faults. They differ only in when that was, and what is older is safer."""

    __slots__ = ("debt", "ids", "index", "times")

    def __init__(self, debt: Owed, index: int) -> None:
        self.debt, self.index = debt, index
        self.times: list[float] = []
        self.ids: list[str] = []

    def at(self, at: float) -> Owed:
        return replace(self.debt, told=replace(self.debt.told, at=at))

    def stands(self, at: float, faults: list[tuple[Fault, str]]) -> bool:
        return promise(self.at(at), faults[self.index :])

    def standing(self, faults: list[tuple[Fault, str]]) -> int:
        """How many of them, from the oldest on, must still be readable."""
        if not self.times or self.stands(self.times[-1], faults):
            return len(self.times)
        return bisect_left(self.times, True, key=lambda at: not self.stands(at, faults))


class Line:
    """Model: a consumer group's way through one queue: on by one place at a time, back only to where it has been, and on from there. What
    it committed does not come again, unless something has happened since. A member may try again, alone, what it failed with."""

    __slots__ = ("committed", "failed", "first", "given", "last", "lasts", "next", "reasons")

    def __init__(self, first: int, reasons: int) -> None:
        self.first = self.next = first
        self.last = first - 1
        self.lasts: dict[str, int] = {}
        self.given: set[int] = set()
        self.failed: set[tuple[str, int]] = set()
        self.committed, self.reasons = 0, reasons

    def step(self, consumer: str, offset: int) -> None:
        self.first, self.next = min(self.first, offset), max(self.next, offset + 1)
        self.given.add(offset)
        if (consumer, offset) in self.failed:
            self.failed.discard((consumer, offset))
        else:
            self.last = self.lasts[consumer] = offset

    def asked_again(self, consumer: str) -> None:
        """It begins where it was told, and has nothing in hand."""
        self.failed = {one for one in self.failed if one[0] != consumer}

    def latest(self, consumer: str) -> int:
        return max(self.last, self.lasts.get(consumer, -1))  # a member that is losing the queue still hands on what it has

    def may_return(self, consumer: str, offset: int, *, happened: bool) -> bool:
        """Whether it may be given what lies below where it was."""
        alone = (consumer, offset) in self.failed
        return alone or (offset < self.first and happened) or self.first <= offset <= self.latest(consumer) + 1


class Queue:
    """`placed`: offset -> the id whose answer named it; `seen`: offset -> what was read there, and how many faults had struck before;
    `front`: the last place that was acknowledged; `told`: (consumer group, member) -> where a broker said that its group is."""

    __slots__ = ("final", "front", "group", "lines", "name", "placed", "seen", "start", "told")

    def __init__(self, group: str, name: QueueName) -> None:
        self.group, self.name = group, name
        self.placed: dict[int, str] = {}
        self.seen: dict[int, tuple[str, int]] = {}
        self.front: tuple[int, str, int] | None = None
        self.lines: dict[str, Line] = {}
        self.told: dict[tuple[str, str], int] = {}
        self.final: dict[int, str] | None = None
        self.start = 0

    def __str__(self) -> str:
        return f"{self.group}/{self.name[0]}/{self.name[1]}"


class Attempt:
    """A message and a broker group: the queue it was sent to (None: several), and what was in front of it there when it was first sent."""

    __slots__ = ("faults", "front", "offset", "queue")

    def __init__(self, queue: Queue | None, front: tuple[int, str, int] | None, faults: int) -> None:
        self.queue, self.front, self.faults = queue, front, faults
        self.offset = -1


class Checker:
    """`feed` it every word, then `end`."""

    def __init__(self) -> None:
        self.report = Report()
        self.witnesses = self.report.witnesses
        self.handlers: dict[type, Callable[[Any], None]] = {
            Tried: self.tried, Asked: self.asked, Told: self.told, Heard: self.heard, Outcome: self.outcome, Given: self.given,
            Committed: self.committed, Rebalanced: self.rebalanced, Joined: self.rebalanced,
            Left: self.rebalanced, Assigned: self.rebalanced,
            OffsetTold: self.offset_told, Handled: self.handled, Drained: self.drained, QueueRead: self.queue_read, Found: self.found,
            LogSeen: self.log_seen, Serving: self.serves, Gone: self.gone, Paused: self.struck, Resumed: self.struck, Rotten: self.struck,
            Attached: self.attached, Said: self.said, Carried: self.carried, Detached: self.detached,
            Delayed: lambda event: self.delayed.add(event.id),
        }  # fmt: skip
        self.attempts: dict[str, int] = {}
        self.tries: dict[tuple[str, str], Attempt] = {}
        self.good: set[str] = set()
        self.failed: set[str] = set()
        self.unwaited: set[tuple[str, str]] = set()
        self.queues: dict[tuple[str, QueueName], Queue] = {}
        self.debts: dict[tuple[str, str], tuple[Cohort, float]] = {}
        self.cohorts: list[Cohort] = []
        self.current: dict[tuple[str, bool], Cohort] = {}
        self.serving: dict[str, Serving] = {}
        self.masters: dict[str, Serving] = {}
        self.down: set[str] = set()
        self.replaced: dict[str, int] = {}
        self.faults: dict[str, list[tuple[Fault, str]]] = {}
        self.delayed: set[str] = set()
        self.reasons: Counter[str] = Counter()
        self.shown: set[str] = set()
        self.had: dict[str, set[str]] = {}
        self.rested: list[Drained] = []
        self.found_at_end: Found | None = None
        self.places: dict[str, list[tuple[Queue, int]]] = {}
        self.sessions: dict[int, Attached] = {}
        self.served: set[int] = set()
        self.looks: dict[str, LogSeen] = {}
        self.takeovers: set[Any] = set()
        """The `Serving` by which another member became its group's master."""
        self.rotten: set[str] = set()
        self.copies = Copies()

    def broken(self, rule: str, witness: str) -> None:
        self.report.violations.append(Violation(rule, CLAUSES[rule], witness))

    def queue(self, group: str, name: QueueName) -> Queue:
        found = self.queues.get((group, name))
        if found is None:
            found = self.queues[group, name] = Queue(group, name)
        return found

    # --- faults, and who is the master

    def struck(self, event: Any) -> None:
        group = self.serving[event.node].group if event.node in self.serving else event.node
        self.faults.setdefault(group, []).append((event, group))
        self.copies.step(event)
        if isinstance(event, Rotten):
            self.rotten.add(event.node)
        elif isinstance(event, Gone) and event.node in self.rotten:  # its next start may cut the log where it rotted
            self.faults[group].append((Rotten(event.node, event.at), group))
        self.current.clear()

    def serves(self, event: Serving) -> None:
        self.serving[event.node] = event
        self.down.discard(event.node)
        self.struck(event)
        self.served -= {session for session in self.served if self.sessions[session].master == event.node}
        if event.broker_id == 0:
            before = self.masters.get(event.group)
            self.masters[event.group] = event
            if before is not None and before.node != event.node:
                self.takeovers.add(event)
                self.replaced[before.node] = len(self.faults[event.group])
            self.replaced.pop(event.node, None)

    def gone(self, event: Gone) -> None:
        self.down.add(event.node)
        self.struck(event)

    def excused(self, id: str, group: str, since: int, *, everywhere: bool = False) -> bool:
        """Whether what stood in the log of the master of `group` may be gone from there (or `everywhere`) by now. `since`: how many faults
        had struck when it was seen there."""
        faults = self.faults.get(group, [])
        debt = self.debts.get((id, group))
        if debt is not None:
            left = after(debt[0].at(debt[1]), faults[debt[0].index :])
            return left.may_be_lost if everywhere else left.own_gone
        return any(
            isinstance(fault, Rotten) or fault in self.takeovers or (isinstance(fault, Gone) and fault.how in TAKES_CACHE | TAKES_ALL)
            for fault, _ in faults[since:]
        )

    # --- sends

    def tried(self, event: Tried) -> None:
        id = event.id
        self.rested.clear()  # it was not the end
        self.attempts[id] = self.attempts.get(id, 0) + 1
        self.witnesses["H4"] += 1
        if id in self.good:
            self.broken("H4", f"{id} was sent again after it had been answered with success")
        queue = self.queue(event.group, (event.topic, event.queue_id))
        before = self.tries.get((id, event.group))
        if before is None:
            self.tries[id, event.group] = Attempt(queue, queue.front, len(self.faults.get(event.group, ())))
        elif before.queue is not queue:
            before.queue = None

    def asked(self, event: Asked) -> None:
        self.attempts.setdefault(event.id, 0)  # where nobody listened at the producer, this shows that it was sent
        if not event.wait:
            self.unwaited.add((event.id, event.node))

    def told(self, event: Told) -> None:
        server = self.serving.get(event.node)
        if server is None or event.status != "OK":
            return
        master = self.masters.get(server.group)
        self.witnesses["H9"] += 1
        if master is None or master.node != event.node or event.node in self.down:
            who = master.node if master is not None and master.node != event.node else "down"
            said = f"{event.node} answered {event.id} with SEND_OK at {event.at:.3f}"
            self.broken("H9", f"{said}, though the master of {server.group} is {who}")
        self.owes(event, server, (event.id, event.node) not in self.unwaited)
        attempt = self.tries.get((event.id, server.group))
        if attempt is not None and attempt.queue is not None and event.queue_offset >= 0:
            self.place(event.id, attempt.queue, event.queue_offset, attempt)

    def owes(self, told: Told, master: Serving, waited: bool, index: int | None = None) -> None:
        copies = self.copies.of(told)
        cohort = self.current.get((master.node, waited)) if index is None and not copies else None
        if cohort is None:
            slaves = [one for one in self.serving.values() if one.group == master.group and one.role == "SLAVE"]
            debt = spoken(told, master, waited, slaves, copies)
            cohort = Cohort(debt, len(self.faults.get(master.group, ())) if index is None else index)
            self.cohorts.append(cohort)
            if index is None and not copies:
                self.current[master.node, waited] = cohort
        cohort.times.append(told.at)
        cohort.ids.append(told.id)
        self.debts[told.id, master.group] = (cohort, told.at)

    def heard(self, event: Heard) -> None:
        if event.status in GOOD:
            self.good.add(event.id)
            server = self.serving.get(event.node)
            if server is not None and event.status == "OK" and (event.id, server.group) not in self.debts:
                attempt = self.tries.get((event.id, server.group))
                late = self.replaced.get(event.node)
                self.witnesses["H9"] += 1
                if late is not None and attempt is not None and attempt.faults >= late:
                    self.broken("H9", f"{event.node} answered {event.id} with SEND_OK, though that was sent after it had been replaced")

    def outcome(self, event: Outcome) -> None:
        """Of the place and the promise it tells news only where nobody listened at the broker."""
        if event.status == "FAILED":
            self.failed.add(event.id)
        if event.status not in GOOD:
            return
        self.good.add(event.id)
        if event.status == "OK" and event.queue is not None and (event.id, event.group) not in self.debts:
            attempt = self.tries.get((event.id, event.group)) or Attempt(None, None, len(self.faults.get(event.group, ())))
            master = self.masters.get(event.group) or Serving(event.group, event.group, 0, "ASYNC_MASTER", False)
            told = Told(event.id, master.node, "OK", event.queue_offset, at=event.at)
            same = attempt.faults == len(self.faults.get(event.group, ()))
            self.owes(told, master, True, None if same else attempt.faults)
            if event.queue_offset >= 0:
                self.place(event.id, self.queue(event.group, event.queue), event.queue_offset, attempt)

    def place(self, id: str, queue: Queue, offset: int, attempt: Attempt) -> None:
        """An answer says: `id` stands at `offset` of `queue`."""
        other = queue.placed.get(offset)
        self.witnesses["H2"] += 1
        if other is not None and other != id and not self.excused(other, queue.group, attempt.faults):
            self.broken("H2", f"both {other} and {id} were acknowledged at {queue} offset {offset}")
        queue.placed[offset] = id
        attempt.offset = offset
        front = attempt.front if attempt.queue is queue else None
        if front is not None:
            self.witnesses["H7"] += 1
            if offset <= front[0] and not self.excused(front[1], queue.group, front[2]):
                said = f"{id} was sent after {front[1]} had been acknowledged at {queue} offset {front[0]}"
                self.broken("H7", f"{said}, and stands at {offset}")
        last = queue.front
        if last is None or offset > last[0] or self.excused(last[1], queue.group, last[2]):
            queue.front = (offset, id, len(self.faults.get(queue.group, ())))

    # --- consumers

    def known(self, id: str, where: str, *place: object) -> None:
        """`where` takes `place`."""
        self.shown.add(id)
        self.witnesses["H3"] += 1
        if id not in self.attempts and not self._rotten():  # a record's CRC covers its body, not its id
            self.broken("H3", f"{id}, {where.format(*place)}, was never sent before")

    def _rotten(self) -> set[str]:
        """The groups of nodes whose log was altered behind their back."""
        return {group for group, faults in self.faults.items() if any(isinstance(fault, Rotten) for fault, _ in faults)}

    def saw(self, queue: Queue, offset: int, id: str, since: int | None = None) -> None:
        """`since`: how many faults had struck when it certainly stood there; None: now."""
        self.witnesses["H5"] += 1
        before = queue.seen.get(offset)
        if before is None or before[0] != id:
            altered = {before[0], id} - self.attempts.keys() if before is not None and queue.group in self._rotten() else ()
            if before is not None and not altered and not self.excused(before[0], queue.group, before[1]):
                self.broken("H5", f"at {queue} offset {offset} stood {before[0]}, and now {id}")
            queue.seen[offset] = (id, len(self.faults.get(queue.group, ())) if since is None else since)

    def given(self, event: Given) -> None:
        queue, offset, who = self.queue(event.group, event.queue), event.queue_offset, event.consumer_group
        self.known(event.id, "given to {} from {} offset {}", event.consumer, queue, offset)
        self.had.setdefault(who, set()).add(event.id)
        self.saw(queue, offset, event.id, self.pulled_before(event))
        line = queue.lines.get(who)
        if line is None:
            line = queue.lines[who] = Line(offset, self.reasons_for(who, queue.group))
        self.witnesses["H6"] += 1
        self.witnesses["H7"] += 1
        if offset > line.next and queue.group not in self._rotten():  # what is damaged is passed over
            self.broken("H6", f"group {who} was given {queue} offset {offset} and skipped {line.next}")
        elif offset < line.next:
            self.again(line, queue, event)
        line.step(event.consumer, offset)

    def pulled_before(self, event: Given) -> int | None:
        """How many faults had struck before the first end of a broker since it was sent: a consumer may have had it in hand since then."""
        attempt = self.tries.get((event.id, event.group))
        faults = self.faults.get(event.group, [])
        first = len(faults) if attempt is None else attempt.faults
        return next((number for number in range(first, len(faults)) if isinstance(faults[number][0], Gone)), None)

    def again(self, line: Line, queue: Queue, event: Given) -> None:
        """The group was given something below where it had been."""
        offset, who = event.queue_offset, event.consumer_group
        happened = self.reasons_for(who, queue.group) > line.reasons
        if not line.may_return(event.consumer, offset, happened=happened):
            said = f"after {line.latest(event.consumer)}, and before that up to {line.next - 1}"
            self.broken("H7", f"group {who} was given {queue} offset {offset} {said}")
        self.witnesses["H8"] += 1
        if offset < line.committed and not happened and offset < queue.told.get((who, event.consumer), offset + 1):
            said = f"though it had committed {line.committed} and nothing had happened"
            self.broken("H8", f"group {who} was given {queue} offset {offset} again, {said}")

    def reasons_for(self, who: str, group: str) -> int:
        """Counts what may make a group be given something again."""
        return self.reasons[who] + len(self.faults.get(group, ()))

    def committed(self, event: Committed) -> None:
        queue = self.queue(event.group, event.queue)
        if (event.consumer_group, event.client) in queue.told:  # it goes on from there, whatever others have committed meanwhile
            queue.told[event.consumer_group, event.client] = event.offset
        line = queue.lines.get(event.consumer_group)
        if line is not None:
            line.committed, line.reasons = event.offset, self.reasons_for(event.consumer_group, event.group)

    def offset_told(self, event: OffsetTold) -> None:
        """Whether that broker should have known better is not asked here."""
        queue = self.queue(event.group, event.queue)
        queue.told[event.consumer_group, event.client] = event.offset
        if event.consumer_group in queue.lines:
            queue.lines[event.consumer_group].asked_again(event.client)

    def handled(self, event: Handled) -> None:
        line = self.queue(event.group, event.queue).lines.get(event.consumer_group)
        if line is not None and not event.good:
            line.failed.add((event.consumer, event.queue_offset))

    def rebalanced(self, event: Rebalanced | Joined | Left | Assigned) -> None:
        self.reasons[event.consumer_group] += 1

    def drained(self, event: Drained) -> None:
        self.rested.append(event)

    # --- what is there at the end

    def queue_read(self, event: QueueRead) -> None:
        queue = self.queue(event.group, event.queue)
        queue.start, queue.final = event.start, dict(enumerate(event.ids, event.start))
        for offset, id in queue.final.items():
            self.known(id, "read from {} offset {}", queue, offset)
            self.saw(queue, offset, id)

    def found(self, event: Found) -> None:
        self.found_at_end = event
        for id in event.ids:
            self.known(id, "read at the end")

    def log_seen(self, event: LogSeen) -> None:
        self.looks[event.node] = event
        ends: dict[QueueName, int] = {}
        copies: Counter[str] = Counter()
        self.witnesses["H6"] += len(event.records)
        for record in event.records:
            if not record.queue[0].startswith(INSIDE):
                self.known(record.id, "stored by {} at byte {}", event.node, record.phy_offset)
                copies[record.id] += 1
            expected = ends.get(record.queue, record.queue_offset)
            if record.queue_offset != expected:
                self.broken("H6", f"{event.node} has {record.queue} offset {record.queue_offset} where {expected} belongs")
            ends[record.queue] = record.queue_offset + 1
        for id, count in copies.items():
            self.few_enough(id, count, event.node)
        for link in [self.sessions[session] for session in sorted(self.served)]:
            one, other = self.looks.get(link.master), self.looks.get(link.slave)
            if event.node in (link.master, link.slave) and one and other and one.moment == other.moment:
                if self.rotten.intersection((link.master, link.slave)):
                    continue  # what was altered behind its back is not what it copied
                self.witnesses["H10"] += 1
                if not agree(one, other):
                    self.broken("H10", f"the logs of {link.master} and its slave {link.slave} differ where both have something")

    def few_enough(self, id: str, count: int, where: str) -> None:
        if count > 1 and id in self.attempts:  # what nobody sent is a phantom, and H3's
            sent = max(1, self.attempts[id])
            if id in self.delayed:
                return  # its broker may have died before it noted that it had delivered it (P-DUP-4, P-DUP-R4)
            self.witnesses["H4"] += 1
            if count > sent:
                self.broken("H4", f"{id} is there {count} times in {where}, and was sent {sent} times")

    def attached(self, event: Attached) -> None:
        self.sessions[event.session] = event
        self.copies.step(event)

    def said(self, event: Said) -> None:
        self.copies.step(event)

    def carried(self, event: Carried) -> None:
        if event.session in self.sessions:
            self.served.add(event.session)

    def detached(self, event: Detached) -> None:
        self.served.discard(event.session)

    # --- the verdict

    def end(self) -> Report:
        if self.found_at_end is not None:
            self._logs_of_masters()
        read = [queue for queue in self.queues.values() if queue.final is not None]
        copies: Counter[str] = Counter()
        for queue in read:
            copies.update((queue.final or {}).values())
        if self.found_at_end is not None:
            copies = Counter(self.found_at_end.ids)
        for id, count in copies.items():
            self.few_enough(id, count, "all logs together")
        for id in sorted(self.failed & self.shown):
            self.broken("H3", f"{id} failed for certain, its sender was told, and it is there")
        if read or self.found_at_end is not None:
            self._nothing_is_lost(copies)
        for queue in read:
            self._places_are_true(queue)
        self._everybody_had_everything(copies)
        return self.report

    def _logs_of_masters(self) -> None:
        """The last look at each group's master shows its queues like a final read, where nobody read them."""
        last = max((look.moment for look in self.looks.values()), default=0)
        for group, master in self.masters.items():
            look = self.looks.get(master.node)
            if look is not None and look.moment == last and master.node not in self.down:
                for record in look.records:
                    queue = self.queue(group, record.queue)
                    self.saw(queue, record.queue_offset, record.id)
                    self.places.setdefault(record.id, []).append((queue, record.queue_offset))
                    self._check_place(queue, record.queue_offset, record.id)

    def _check_place(self, queue: Queue, offset: int, id: str) -> None:
        named = queue.placed.get(offset)
        if named is not None:
            self.witnesses["H2"] += 1
            if named != id and not self.excused(named, queue.group, 0, everywhere=True):
                self.broken("H2", f"{named} was acknowledged at {queue} offset {offset}, and there stands {id}")

    def _places_are_true(self, queue: Queue) -> None:
        for offset, id in (queue.final or {}).items():
            self._check_place(queue, offset, id)
            self.places.setdefault(id, []).append((queue, offset))

    def _nothing_is_lost(self, there: Counter[str]) -> None:
        for cohort in self.cohorts:
            group = cohort.debt.master.group
            standing = cohort.standing(self.faults.get(group, []))
            self.report.owed += len(cohort.ids)
            self.report.promised += standing
            self.witnesses["H1"] += len(cohort.ids)
            for number, id in enumerate(cohort.ids):
                if id in there or self._expired(id, group):
                    continue
                self.report.lost += number >= standing
                if number < standing:
                    said = f"{cohort.debt.told.node} answered {id} with SEND_OK at {cohort.times[number]:.3f}"
                    self.broken("H1", f"{said}, and it is nowhere, though no fault excuses that")

    def _expired(self, id: str, group: str) -> bool:
        """Whether its place lies below what is kept."""
        attempt = self.tries.get((id, group))
        return attempt is not None and attempt.queue is not None and 0 <= attempt.offset < attempt.queue.start

    def _everybody_had_everything(self, there: Counter[str]) -> None:
        for rest in self.rested:
            had = self.had.get(rest.consumer_group, set())
            topics = self._ids_of(rest.topic)
            for id in there:
                if topics is None or id in topics:
                    self.witnesses["H8"] += 1
                    if id not in had and not self._passed(id, rest.consumer_group):
                        self.broken("H8", f"{id} can be read, and group {rest.consumer_group} was never given it")

    def _passed(self, id: str, who: str) -> bool:
        """Whether it stands where the group was given another message, before that was lost, or may stand behind one that has rotted."""
        rotten = self._rotten()
        return (bool(rotten) and id not in self.attempts) or any(
            queue.group in rotten or (who in queue.lines and offset in queue.lines[who].given) for queue, offset in self.places.get(id, ())
        )

    def _ids_of(self, topic: str) -> set[str] | None:
        read = [queue for queue in self.queues.values() if queue.final is not None and queue.name[0] == topic]
        return {id for queue in read for id in (queue.final or {}).values()} if read else None


def check(history: History) -> Report:
    """Judge a history by all rules, reading it once."""
    checker = Checker()
    handlers = checker.handlers
    for event in history.events:
        handler = handlers.get(event.__class__)
        if handler is not None:
            handler(event)
    checker.report.events = len(history.events)
    return checker.end()


_latest: list[tuple[History, Report]] = []


def rule(name: str) -> Check:
    """A rule as the check of a clause. The report of the latest history is kept, since its clauses are asked one after the other."""

    def checked(history: History) -> Iterator[tuple[object, bool]]:
        if not _latest or _latest[0][0] is not history:
            _latest[:] = [(history, check(history))]
        report = _latest[0][1]
        broken = [violation for violation in report.violations if violation.rule == name]
        yield from ((violation.witness, False) for violation in broken)
        yield from ((name, True) for _ in range(report.witnesses[name] - len(broken)))

    checked.__module__ = __name__
    return checked


REFERENCE = "reference \"ha semantics\""
clause("P-HIS-2", "The queue and offset that SEND_OK named hold that message, and nobody else was told the same place.",
       source=f"{REFERENCE} P-SEND-1, P-LOG-7", mutants=("answers_name_another_place",))(rule("H2"))  # fmt: skip
clause("P-HIS-3", "Whatever is stored or delivered was sent before, and its sender was not told that it failed for certain.",
       source=f"{REFERENCE} P-SEND-1 and section D, outcomes of a send", mutants=("slave_renames",))(rule("H3"))  # fmt: skip
clause("P-HIS-5", "What was read at an offset stays there, unless faults since may have destroyed it.",
       source=f"{REFERENCE} P-LOG-3", mutants=("slave_renames",))(rule("H5"))  # fmt: skip
clause("P-HIS-6", "The offsets of a queue are dense in every log, and a consumer group skips none.",
       source=f"{REFERENCE} P-LOG-4, P-ALO-2", mutants=("switch_skips",))(rule("H6"))  # fmt: skip
clause("P-HIS-7", "What was sent to a queue after the answer to another message stands behind that one, and is given in that order; a "
       "member that failed with one may try that one again, out of its turn.",
       source=f"{REFERENCE} P-ORD-1, P-ORD-3, P-RTY-2", mutants=("given_in_reverse",))(rule("H7"))  # fmt: skip
clause("P-HIS-8", "In the end a group was given every message there is; one again only after a fault, a rebalance or a lost commit.",
       source=f"{REFERENCE} P-ALO-1, P-DUP-1", mutants=("switch_skips",), kind="eventually")(rule("H8"))  # fmt: skip
clause("P-HIS-9", "SEND_OK for a group comes only from the member that was last made its master, and while that is up.",
       source=f"{REFERENCE} P-SLV-3, P-FENCE-2", mutants=("slave_accepts_writes",))(rule("H9"))  # fmt: skip
