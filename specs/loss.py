"""# What may be lost, and what never

Seed `003_c790c013a3e4f038.txt`, 消息可靠性, counts six faults: (1) the broker closes, (2) it crashes, (3) the system crashes, (4) the
power goes, (5) the machine cannot start again, (6) the disk is destroyed. "1-4 ... RocketMQ 在这四种情况下能保证消息不丢，
或丢失少量数据（依赖刷盘方式是同步还是异步）" (none is lost, or a few, depending on the flush). "5-6 属于单点故障，且无法恢复，一旦发生，
在此单点上的消息全部丢失 ... 通过异步复制，可保证 99%的消息不丢，但仍会有极少量的消息可能丢失。通过同步双写技术可以完全避免单点" (on that
machine all is lost; asynchronous replication saves most, synchronous dual write all). And 实际应用: SYNC_MASTER with ASYNC_FLUSH on both,
"这样即使有一台机器出故障，仍然能保证数据不丢".

The model: SEND_OK says that certain copies exist, each in the page cache or on the platter. A fault destroys copies. As long as one of
the copies spoken of is left on a node that is still there, the message can be read; otherwise it may be lost. Asynchronously flushed
bytes are on the platter after at most 10.5 s. A slave's copy exists from when it was written and reported on, and the answer is on its way
for a while: a fault that takes that copy in between has taken one that the answer spoke of (reference "ha semantics" B3, "both machines
F3/F4 at once ... A/A: min of both windows may be lost", whichever falls first). A fault before the slave had written it takes nothing; nor
does one after which it wrote it again, or while as many others as the answer speaks of still have it.

What that comes to for each fault of the master, as reference "ha semantics" table B has it for these stricter rules: `may_lose`.

| SEND_OK from | its copies |
| --- | --- |
| any master | the master's: page cache, under SYNC_FLUSH the platter |
| SYNC_MASTER with need k | and those of k-1 slaves, each as its own flush mode says |

**Not promised**: anything about messages that were not answered SEND_OK; anything when all copies spoken of are destroyed by faults that
overlap, or when a slave that lacks them is made master by hand, or a master that lost its tail goes on with a second slave that lacks it
too; that a message is readable while the only node that has it is down.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .clause import STOPS, clause, reachable
from .history import Asked, Attached, Found, Gone, History, Paused, Resumed, Rotten, Said, Serving, Told

Witness = Iterator[tuple[object, bool]]
SEED = "seed 003_c790c013a3e4f038.txt, 消息可靠性"
FLUSHED_S = 10.5
TAKES_CACHE = frozenset({"os", "power"})
TAKES_ALL = frozenset({"machine", "disk"})


SINGLE, MASTERS, ASYNC_PAIR, SYNC_PAIR = "single master", "several masters", "asynchronous pair", "synchronous pair"
MODES = (SINGLE, MASTERS, ASYNC_PAIR, SYNC_PAIR)
FAULTS = ("close", "kill", "os", "power", "machine", "disk", "power of both")
RETURNS, PROMOTED = "it returns", "its slave is made master"


def may_lose(mode: str, sync_flush: bool, fault: str, ending: str) -> str:
    """Table B, for messages answered SEND_OK just before the master's fault; what is older than the flush and the replication take is
    lost only where all is. "": nothing may be lost; "W": what was not flushed; "R": what the slave did not have yet; "W and R": what was
    neither; "all": everything of that group. A master that returns with less than its slave has is replaced by it."""
    cache_lost = fault in ("os", "power", "power of both") and not sync_flush
    if mode in (SINGLE, MASTERS):
        return "all" if fault in ("machine", "disk") else "W" if cache_lost else ""
    if mode == SYNC_PAIR:
        return "W" if fault == "power of both" and not sync_flush else ""
    if ending == PROMOTED:
        return "R"
    return ("W" if fault == "power of both" else "W and R") if cache_lost else ""


@dataclass
class Owed:
    """Model: a message that was answered SEND_OK, and how many of its copies the faults since may have destroyed."""

    told: Told
    master: Serving
    slaves: int  # how many had written it, at least
    slaves_durable: bool
    flushed: set[str] = field(default_factory=set)
    since: dict[str, float] = field(default_factory=dict)
    own_gone: bool = False
    slaves_gone: set[str] = field(default_factory=set)

    def replaced(self, event: Serving) -> None:
        """Another member was made master: what only the old one has is not in the group's log any more."""
        if event.group == self.master.group and event.broker_id == 0 and event.node != self.master.node:
            self.own_gone = True

    def stands_still(self, node: str, at: float, until: float) -> None:
        """While its process is stopped, or there is none, nothing is flushed."""
        if self.flushed_by(node, at):
            self.flushed.add(node)
        self.since[node] = until

    def flushed_by(self, node: str, at: float) -> bool:
        return node in self.flushed or at - self.since.get(node, self.told.at) >= FLUSHED_S

    def hit(self, event: Gone, group: str) -> None:
        if group != self.master.group:
            return
        settled = self.flushed_by(event.node, event.at)
        durable = settled or (self.master.sync_flush if event.node == self.master.node else self.slaves_durable)
        if event.how in TAKES_ALL or (event.how in TAKES_CACHE and not durable):
            if event.node == self.master.node:
                self.own_gone = True
            else:
                self.slaves_gone.add(event.node)

    @property
    def may_be_lost(self) -> bool:
        return self.own_gone and len(self.slaves_gone) >= self.slaves


Fault = Serving | Gone | Paused | Resumed | Rotten
"""What can take a copy away, or put off its flush."""


Word = tuple[int, float, Fault | None]
"""Of a slave: when it came in the history, at what time, and what struck; None: it reported that it has the record, and did have it."""


class Copies:
    """What slaves reported to have written, and what struck them. `step` takes every word that may matter."""

    def __init__(self) -> None:
        self.moment = 0
        self.slaves: dict[int, str] = {}
        self.links: dict[str, list[int]] = {}
        """The connections to a master, since it was started."""
        self.said: dict[int, list[tuple[int, int, float]]] = {}
        """Connection -> (end, moment, at), whenever that grew."""
        self.faults: dict[str, list[tuple[int, Fault]]] = {}
        self.rotten: set[str] = set()

    def step(self, event: Attached | Said | Fault) -> None:
        self.moment += 1
        if isinstance(event, Said):
            said = self.said.setdefault(event.session, [])
            end = min(event.offset, event.held)
            if not said or end > said[-1][0]:
                said.append((end, self.moment, event.at))
        elif isinstance(event, Attached):
            self.slaves[event.session] = event.slave
            self.links.setdefault(event.master, []).append(event.session)
        else:
            faults = self.faults.setdefault(event.node, [])
            faults.append((self.moment, event))
            if isinstance(event, Serving):
                self.links.pop(event.node, None)
            elif isinstance(event, Rotten):
                self.rotten.add(event.node)
            elif isinstance(event, Gone) and event.node in self.rotten:  # its next start may cut the log where it rotted
                faults.append((self.moment, Rotten(event.node, event.at)))

    def of(self, told: Told) -> dict[str, list[Word]]:
        """Each slave that has reported this record to that master, with what came of it until now: nothing at all if none was struck."""
        found: dict[str, list[Word]] = {}
        for session in self.links.get(told.node, ()) if told.end else ():
            said = self.said.get(session, [])
            first = bisect_left(said, told.end, key=lambda word: word[0])
            if first < len(said):
                found.setdefault(self.slaves[session], []).append((*said[first][1:], None))
        struck = False
        for slave, words in found.items():
            begun = min(words)[0]
            faults = self.faults.get(slave, [])
            for moment, fault in reversed(faults):
                if moment < begun:
                    break
                struck = True
                words.append((moment, fault.at, fault))
        return found if struck else {}


def spoken(told: Told, master: Serving, waited: bool, slaves: Iterable[Serving], copies: dict[str, list[Word]] | None = None) -> Owed:
    """The copies that a SEND_OK speaks of: the master's and, of a SYNC_MASTER that waited, those of `need` - 1 of its slaves. `copies`:
    what is known of these (`Copies.of`), since some may be gone already."""
    waits = master.role == "SYNC_MASTER" and waited
    told_by = replace(master, sync_flush=master.sync_flush and waited)
    debt = Owed(told, told_by, (master.need or 2) - 1 if waits else 0, all(slave.sync_flush for slave in slaves))
    gone = {slave for slave, words in (copies or {}).items() if _gone(debt, slave, words)}
    if len(copies or ()) - len(gone) < debt.slaves:
        debt.slaves_gone |= gone
    return debt


def _gone(debt: Owed, slave: str, words: list[Word]) -> bool:
    """Whether a slave that had written it has lost it again."""
    copy: Owed | None = None
    for _, at, fault in sorted(words, key=lambda word: word[0]):
        if fault is None:
            if copy is None or copy.slaves_gone:
                copy = replace(debt, flushed=set(), since={slave: at}, slaves_gone=set())
        elif copy is not None and not (isinstance(fault, Serving) and fault.broker_id == 0):
            strike(copy, fault, debt.master.group)
    return copy is not None and bool(copy.slaves_gone)


def strike(debt: Owed, fault: Fault, group: str) -> None:
    """`group` is that of the node that was struck."""
    match fault:
        case Serving(node=node, at=at):
            debt.replaced(fault)
            debt.stands_still(node, at, at)
        case Paused(node=node, at=at):
            debt.stands_still(node, at, float("inf"))
        case Resumed(node=node, at=at):
            debt.stands_still(node, at, at)
        case Gone(node=node, at=at):
            debt.hit(fault, group)
            debt.stands_still(node, at, float("inf"))  # until it is started again
        case Rotten(node=node, at=at):
            debt.hit(Gone(node, "disk", at), group)


def after(debt: Owed, faults: Iterable[tuple[Fault, str]]) -> Owed:
    """What these faults, each with the group of the node that it struck, leave of it."""
    left = replace(debt, flushed=set(debt.flushed), since=dict(debt.since), slaves_gone=set(debt.slaves_gone))
    for fault, group in faults:
        strike(left, fault, group)
    return left


def promise(debt: Owed, faults: Iterable[tuple[Fault, str]]) -> bool:
    """The table of promises: whether a message must still be readable after these faults. Every judge asks it, and none knows better."""
    return not after(debt, faults).may_be_lost


def owed(history: History) -> Iterator[tuple[Owed, bool]]:
    """Each message answered SEND_OK, as the faults left it, and whether it was found at the end."""
    serving: dict[str, Serving] = {}
    unwaited: set[tuple[str, str]] = set()
    debts: list[Owed] = []
    rotten: set[str] = set()
    copies = Copies()
    for event in history.events:
        match event:
            case Attached() | Said():
                copies.step(event)
            case Asked(wait=False):
                unwaited.add((event.id, event.node))
            case Told(status="OK", node=node) if node in serving:
                master = serving[node]
                slaves = [one for one in serving.values() if one.group == master.group and one.role == "SLAVE"]
                debts.append(spoken(event, master, (event.id, node) not in unwaited, slaves, copies.of(event)))
            case Serving(node=node) | Gone(node=node) | Paused(node=node) | Resumed(node=node) | Rotten(node=node):
                if isinstance(event, Serving):
                    serving[node] = event
                rotten |= {node} if isinstance(event, Rotten) else set()
                copies.step(event)
                for debt in debts if node in serving else ():
                    strike(debt, event, serving[node].group)
                    if isinstance(event, Gone) and node in rotten:  # its next start may cut the log where it rotted
                        strike(debt, Rotten(node, event.at), serving[node].group)
            case Found():
                found = set(event.ids)
                yield from ((debt, debt.told.id in found) for debt in debts)


@clause("P-LOSS-1", "What was answered SEND_OK can be read at the end, unless the faults since destroyed every copy that answer spoke of.",
        source=SEED, mutants=("ack_before_report", "report_before_write", "longer_slave_accepted", "ack_before_the_flush"),
        upstream="broken in the corners that reference \"ha semantics\" B marks",
        faults=(*STOPS, "machine", "disk"))
def nothing_owed_is_lost(history: History) -> Witness:
    for debt, found in owed(history):
        yield debt.told, found or debt.may_be_lost


@reachable("P-LOSS-2", "Where every copy spoken of was destroyed, a message answered SEND_OK is lost.", source=SEED,
           faults=("os-crash", "power", "machine", "disk"))
def lost(history: History) -> Iterator[object]:
    for debt, found in owed(history):
        if not found and debt.may_be_lost:
            yield debt.told
