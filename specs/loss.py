"""# What may be lost, and what never

Seed `003_c790c013a3e4f038.txt`, 消息可靠性, counts six faults: (1) the broker closes, (2) it crashes, (3) the system crashes, (4) the
power goes, (5) the machine cannot start again, (6) the disk is destroyed. "1-4 ... RocketMQ 在这四种情况下能保证消息不丢，
或丢失少量数据（依赖刷盘方式是同步还是异步）" (none is lost, or a few, depending on the flush). "5-6 属于单点故障，且无法恢复，一旦发生，
在此单点上的消息全部丢失 ... 通过异步复制，可保证 99%的消息不丢，但仍会有极少量的消息可能丢失。通过同步双写技术可以完全避免单点" (on that
machine all is lost; asynchronous replication saves most, synchronous dual write all). And 实际应用: SYNC_MASTER with ASYNC_FLUSH on both,
"这样即使有一台机器出故障，仍然能保证数据不丢".

The model: SEND_OK says that certain copies exist, each in the page cache or on the platter. A fault destroys copies. As long as one of
the copies spoken of is left on a node that is still there, the message can be read; otherwise it may be lost. Asynchronously flushed
bytes are on the platter after at most 10.5 s.

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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .clause import STOPS, clause, reachable
from .history import Asked, Found, Gone, History, Paused, Resumed, Rotten, Serving, Told

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
    slaves: int
    """How many slaves had written it, at least."""
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


def spoken(told: Told, master: Serving, waited: bool, slaves: Iterable[Serving]) -> Owed:
    """The copies that a SEND_OK speaks of: the master's and, of a SYNC_MASTER that waited, those of `need` - 1 of its slaves."""
    waits = master.role == "SYNC_MASTER" and waited
    told_by = replace(master, sync_flush=master.sync_flush and waited)
    return Owed(told, told_by, (master.need or 2) - 1 if waits else 0, all(slave.sync_flush for slave in slaves))


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
    for event in history.events:
        match event:
            case Asked(wait=False):
                unwaited.add((event.id, event.node))
            case Told(status="OK", node=node) if node in serving:
                master = serving[node]
                slaves = [one for one in serving.values() if one.group == master.group and one.role == "SLAVE"]
                debts.append(spoken(event, master, (event.id, node) not in unwaited, slaves))
            case Serving(node=node) | Gone(node=node) | Paused(node=node) | Resumed(node=node) | Rotten(node=node):
                if isinstance(event, Serving):
                    serving[node] = event
                rotten |= {node} if isinstance(event, Rotten) else set()
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
