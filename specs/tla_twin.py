"""The actions of `specs/tla/Replication.tla` once more, in Python: what may follow what, for one broker group.

Twin and model are held against each other by counting: both find the same number of states in the same scope. The twin then judges the
histories of many runs, each told as a sequence of abstract events (`told`); the same sequences, written as a TLA+ module (`module`), are
judged by TLC for a few.

A history speaks of offsets, the model of records. Every offset in a history at which a record must end is an edge; what lies between two
neighbours is taken for a record, which may be several. That is no loss: what happens to them happens to them together. An observer of
disks compares bytes, so what he sees may end inside a record: that record is not there yet.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .history import Asked, Attached, Carried, Cut, Event, Gone, History, Holds, LogSeen, Reported, Said, Serving, Told

Log = tuple[int, ...]
Act = tuple[str | int, ...]
TAKES_CACHE = frozenset({"os", "power"})


def prefix(one: Log, other: Log) -> bool:
    return one == other[: len(one)]


@dataclass(frozen=True)
class Rules:
    """The constants of the model. `most`: records; None in traces, where faults are not counted either."""

    slaves: tuple[str, ...] = ("s1",)
    need: int = 2
    sync_flush: bool = False
    faults: frozenset[str] = frozenset({"kill", "power", "machine"})
    faults_max: int | None = None
    most: int | None = None
    master: str = "m"

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.master, *self.slaves)


@dataclass(frozen=True)
class State:
    """The variables of the model; per member in the order of `Rules.nodes`."""

    log: tuple[Log, ...]
    dur: tuple[int, ...]
    wrote: tuple[frozenset[int], ...]
    lead: int
    alive: frozenset[int]
    served: frozenset[int]
    said: tuple[int, ...]
    heard: tuple[int, ...]
    waiting: frozenset[int] = frozenset()
    acked: frozenset[int] = frozenset()
    next: int = 1
    faults: int = 0


def put(values: tuple, at: int, value: object) -> tuple:  # type: ignore[type-arg]  # of anything
    return (*values[:at], value, *values[at + 1 :])


@dataclass
class Twin:
    """Next-state relation: `after(state, act)` is the state that follows, None if the model does not let this happen now."""

    rules: Rules
    none: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.none = (0,) * len(self.rules.nodes)

    def start(self) -> State:
        count = len(self.rules.nodes)
        return State(((),) * count, self.none, (frozenset(),) * count, 0, frozenset(range(count)), frozenset(), self.none, self.none)

    def _count(self, log: Log, durable: int) -> Log:
        return log[:durable] if self.rules.sync_flush else log

    def _has(self, s: State, n: int, log: Log, durable: int) -> State:
        wrote = s.wrote[n] | set(self._count(log, durable))
        return replace(s, log=put(s.log, n, log), dur=put(s.dur, n, durable), wrote=put(s.wrote, n, wrote))

    def after(self, s: State, act: Act) -> State | None:
        name, n = str(act[0]), self.rules.nodes.index(str(act[1])) if len(act) > 1 and isinstance(act[1], str) else s.lead
        k = int(act[-1]) if len(act) > 1 and isinstance(act[-1], int) else 0
        found: State | None = getattr(self, f"_{name}")(s, n, k)
        return found

    def _store(self, s: State, n: int, k: int) -> State | None:
        if s.lead not in s.alive or (self.rules.most is not None and s.next > self.rules.most):
            return None
        grown = self._has(s, s.lead, (*s.log[s.lead], s.next), s.dur[s.lead])
        return replace(grown, waiting=s.waiting | {s.next}, next=s.next + 1)

    def _flush(self, s: State, n: int, k: int) -> State | None:
        return self._has(s, n, s.log[n], k) if n in s.alive and s.dur[n] < k <= len(s.log[n]) else None

    def _connect(self, s: State, n: int, k: int) -> State | None:
        good = s.lead in s.alive and n in s.alive and n != s.lead and n not in s.served and prefix(s.log[n], s.log[s.lead])
        return replace(s, served=s.served | {n}) if good else None

    def _refuse(self, s: State, n: int, k: int) -> State | None:
        return s if s.lead in s.alive and n in s.alive and n != s.lead and not prefix(s.log[n], s.log[s.lead]) else None

    def _replicate(self, s: State, n: int, k: int) -> State | None:
        at = len(s.log[n])
        return self._has(s, n, (*s.log[n], s.log[s.lead][at]), s.dur[n]) if n in s.served and at < len(s.log[s.lead]) else None

    def _say(self, s: State, n: int, k: int) -> State | None:
        good = n in s.served and s.said[n] < k <= len(self._count(s.log[n], s.dur[n]))
        return replace(s, said=put(s.said, n, k)) if good else None

    def _hear(self, s: State, n: int, k: int) -> State | None:
        return replace(s, heard=put(s.heard, n, k)) if s.heard[n] < k <= s.said[n] else None

    def _ack(self, s: State, n: int, k: int) -> State | None:
        log = s.log[s.lead]
        if s.lead not in s.alive or not 1 <= k <= len(log) or log[k - 1] not in s.waiting:
            return None
        if sum(s.heard[m] >= k for m in range(len(s.log)) if m != s.lead) < self.rules.need - 1:
            return None
        if self.rules.sync_flush and s.dur[s.lead] < k:
            return None
        return replace(s, acked=s.acked | {log[k - 1]}, waiting=s.waiting - {log[k - 1]})

    def _goes(self, s: State, n: int, kind: str) -> State | None:
        limit = self.rules.faults_max
        if kind not in self.rules.faults or n not in s.alive or (limit is not None and s.faults >= limit):
            return None
        gone = replace(s, served=s.served - {n}, faults=s.faults + (limit is not None))
        return replace(gone, served=frozenset(), said=self.none, heard=self.none, waiting=frozenset()) if n == s.lead else gone

    def _kill(self, s: State, n: int, k: int) -> State | None:
        return self._goes(s, n, "kill")

    def _power(self, s: State, n: int, k: int) -> State | None:
        gone = self._goes(s, n, "power") if s.dur[n] <= k <= len(s.log[n]) else None
        return gone and replace(gone, log=put(s.log, n, s.log[n][:k]))

    def _machine(self, s: State, n: int, k: int) -> State | None:
        gone = self._goes(s, n, "machine")
        return gone and replace(gone, alive=gone.alive - {n})

    def _return(self, s: State, n: int, k: int) -> State | None:
        if n in s.alive or k not in (0, len(s.log[n])):
            return None
        return replace(s, alive=s.alive | {n}, log=put(s.log, n, s.log[n][:k]), dur=put(s.dur, n, min(s.dur[n], k)))

    def _promote(self, s: State, n: int, k: int) -> State | None:
        log = s.log[n]
        if n not in s.alive or n == s.lead or any(len(s.log[t]) > len(log) for t in s.alive if t != s.lead):
            return None
        if s.lead in s.alive and (len(s.log[s.lead]) >= len(log) or not prefix(s.log[s.lead], log)):
            return None
        return replace(s, lead=n, served=frozenset(), said=self.none, heard=self.none, waiting=frozenset())

    def _truncate(self, s: State, n: int, k: int) -> State | None:
        log, lead = s.log[n], s.log[s.lead]
        if n not in s.alive or n == s.lead or s.lead not in s.alive or n in s.served or k >= len(log):
            return None
        if k and (prefix(log, lead) or not prefix(log[:k], lead)):
            return None
        if self.rules.most is not None and not self._careful(s, n, k):
            return None
        return replace(s, log=put(s.log, n, log[:k]), dur=put(s.dur, n, min(s.dur[n], k)))

    def _careful(self, s: State, n: int, k: int) -> bool:
        """Nobody empties the only member that has what was acknowledged. In a history it may have happened."""
        others = {r for m in s.alive - {n} for r in self._count(s.log[m], s.dur[m])}
        return not (s.acked & set(s.log[n][k:])) - others

    def acts(self) -> Iterator[Act]:
        """Every action with every parameter, in a scope that is bounded."""
        most = self.rules.most or 0
        yield ("store",)
        for n in self.rules.nodes:
            for name in ("kill", "machine", "connect", "replicate", "promote"):
                yield (name, n)
            for k in range(most + 1):
                for name in ("flush", "power", "return", "say", "hear", "truncate"):
                    yield (name, n, k)
        for k in range(1, most + 1):
            yield ("ack", k)

    def states(self) -> int:
        """How many states there are."""
        acts, seen = tuple(self.acts()), {self.start()}
        open_ = list(seen)
        while open_:
            state = open_.pop()
            for act in acts:
                found = self.after(state, act)
                if found is not None and found not in seen:
                    seen.add(found)
                    open_.append(found)
        return len(seen)

    def rejected(self, acts: list[Act]) -> tuple[int, Act] | None:
        """The first event of a trace that the model does not let happen there, None if it lets all."""
        state = self.start()
        for at, act in enumerate(acts):
            found = self.after(state, act)
            if found is None:
                return at, act
            state = found
        return None


# --- histories as traces


def rules_of(history: History) -> Rules:
    """Of a history of one group. Who waits for all members (`need` 0) waits in a pair for both."""
    serving = list(history.all(Serving))
    master = next(event for event in serving if event.broker_id == 0)
    slaves = tuple(dict.fromkeys(event.node for event in serving if event.node != master.node))
    need = (master.need or 1 + len(slaves)) if master.role == "SYNC_MASTER" else 1
    return Rules(slaves, need, master.sync_flush, master=master.node)


def told(history: History) -> list[Act]:
    """The history of one group as events of the model: what an observer may conclude, and nothing that it would have to assume.

    Two things are told earlier than they came about, to nobody's knowledge meanwhile. What a node was left with after it went is known
    when it serves again, and told when it went. And what a slave still read of a master that had gone, since it was on its way, it is told
    to have read just before: the model has no wire for pieces of the log.
    """
    return list(_Telling(history).acts())


class _Telling:
    """`end` and `durable`: how far each member's log is known to reach, in records; `slave`: whose session it is; `begun`: the sessions
    there were up to now, `dead` those with a master that has gone; `down`: who does not serve, `out` those that the group has given up."""

    def __init__(self, history: History) -> None:
        self.events, self.rules = history.events, rules_of(history)
        self.edges = sorted({0} | {offset for event in history.events for offset in _offsets(event)})
        self.end = dict.fromkeys(self.rules.nodes, 0)
        self.durable = dict.fromkeys(self.rules.nodes, 0)
        self.said = dict.fromkeys(self.rules.nodes, 0)
        self.heard = dict.fromkeys(self.rules.nodes, 0)
        self.lead = self.rules.master
        self.served: set[str] = set()
        self.down: set[str] = set()
        self.out: set[str] = set()
        self.slave = {event.session: event.slave for event in history.all(Attached)}
        self.begun: set[int] = set()
        self.dead: set[int] = set()
        self.last: dict[int, int] = {}
        self.unwaited: set[str] = set()

    def at(self, offset: int) -> int:
        return bisect_right(self.edges, offset) - 1

    def acts(self) -> Iterator[Act]:
        for number, event in enumerate(self.events):
            match event:
                case Asked(id=id, wait=False):
                    self.unwaited.add(id)
                case Carried(master_end=end):
                    yield from self.grows(end)
                case Gone(node=node) if node in self.end and node not in self.down:
                    yield from self.goes(node, number)
                case Serving():
                    yield from self.serving(event)
                case Holds(node=node) if node in self.end:
                    yield from self.holds(event)
                case Cut(node=node, start=start):
                    yield from self.drops(node, self.at(start))
                case Said(session=session) if self.slave.get(session) in self.end and session not in self.dead:
                    self.begun.add(session)
                    yield from self.says(self.slave[session], self.at(event.offset))
                case Reported(session=session):
                    yield from self.grows(event.master_end)
                    if self.slave.get(session) in self.end:
                        yield from self.hears(event, self.slave[session])
                case Told(status="OK") if event.id not in self.unwaited and event.end:
                    yield from self.grows(event.end)
                    yield ("ack", self.at(event.end))
                case _:
                    pass

    def grows(self, offset: int) -> Iterator[Act]:
        yield from self.reaches(self.lead, self.at(offset))

    def reaches(self, node: str, end: int) -> Iterator[Act]:
        while self.end[node] < end:
            self.end[node] += 1
            yield ("store",) if node == self.lead else ("replicate", node)

    def drops(self, node: str, end: int) -> Iterator[Act]:
        if end < self.end[node]:
            self.end[node], self.durable[node] = end, min(end, self.durable[node])
            yield ("truncate", node, end)

    def goes(self, node: str, number: int) -> Iterator[Act]:
        """However often it goes until it serves again: the worst of that."""
        back = next((n for n in range(number, len(self.events)) if self._serves(self.events[n], node)), None)
        hows = {event.how for event in self.events[number:back] if isinstance(event, Gone) and event.node == node}
        left = None if back is None or "disk" in hows else self.at(_log_end(self.events[back]))
        self.down.add(node)
        if left is not None and (node == self.lead or node in self.served):  # it may have had more than anybody heard of
            yield from self.reaches(node, left)
        if node == self.lead:
            for slave in sorted(self.served):
                yield from self.reaches(slave, self.at(self._read_by(slave, number)))
        if left is None:
            self.out.add(node)
            yield ("machine", node)
        elif hows & TAKES_CACHE:
            self.end[node] = left
            yield ("power", node, left)
        else:
            yield ("kill", node)
        self.served.discard(node)
        if node == self.lead:
            self._reign_ends()

    def _reign_ends(self) -> None:
        self.served.clear()
        self.dead |= self.begun
        self.said = dict.fromkeys(self.said, 0)
        self.heard = dict.fromkeys(self.heard, 0)

    @staticmethod
    def _serves(event: Event, node: str) -> bool:
        return isinstance(event, Serving) and event.node == node

    def _read_by(self, node: str, number: int) -> int:
        """Where the log of a slave turns out to end when whatever was on its way to it has come."""
        for event in self.events[number:]:
            match event:
                case Said(session=session, offset=offset) if self.slave.get(session) == node and session not in self.begun:
                    return offset
                case Serving(log_end=end) | Cut(end=end) | LogSeen(end=end) if event.node == node:
                    return end
                case _:
                    pass
        return 0

    def serving(self, event: Serving) -> Iterator[Act]:
        node, end = event.node, self.at(event.log_end)
        self.down.discard(node)
        if node in self.out:
            self.out.discard(node)
            yield ("return", node, end)
            self.end[node], self.durable[node] = end, min(end, self.durable[node])
        if event.broker_id == 0 and node != self.lead:
            if self.lead not in self.out:
                self.out.add(self.lead)
                yield ("machine", self.lead)
            yield ("promote", node)
            self.lead = node
            self._reign_ends()
        yield from self.drops(node, end)

    def holds(self, event: Holds) -> Iterator[Act]:
        node, end, durable = event.node, self.at(event.end), self.at(event.durable)
        if end > self.end[node] and node != self.lead and node not in self.served:
            return  # a look at one whose connection was not noted yet
        yield from self.reaches(node, end)
        if self.rules.sync_flush and durable > self.durable[node]:
            self.durable[node] = durable
            yield ("flush", node, durable)

    def says(self, node: str, end: int) -> Iterator[Act]:
        if end > self.end[self.lead]:
            yield ("refuse", node)
            return
        if node not in self.served:
            self.served.add(node)
            yield ("connect", node)
        if end > self.said[node]:
            self.said[node] = end
            yield ("say", node, end)

    def hears(self, event: Reported, node: str) -> Iterator[Act]:
        believed = self.last.get(event.session, 0) <= event.offset <= event.master_end
        if believed:
            self.last[event.session] = event.offset
        if believed and self.at(event.offset) > self.heard[node]:
            self.heard[node] = self.at(event.offset)
            yield ("hear", node, self.heard[node])


def _log_end(event: Event) -> int:
    assert isinstance(event, Serving)
    return event.log_end


def _offsets(event: Event) -> Iterator[int]:
    match event:
        case Serving(log_end=end) | Told(end=end):
            yield end
        case Reported(offset=offset, master_end=end) if 0 <= offset <= end:
            yield from (offset, end)
        case Carried(master_end=end):
            yield end
        case Cut(start=start, end=end):
            yield from (start, end)
        case _:
            pass


def module(rules: Rules, acts: list[Act]) -> tuple[str, str]:
    """The trace as a TLA+ module `Trace` and its configuration. TLC "violates" `NotDone` if the model lets all of it happen."""
    names = {"connect": "Connect", "refuse": "Refuse", "replicate": "Replicate", "kill": "Kill", "machine": "Machine",
             "promote": "Promote", "flush": "Flush", "say": "Say", "hear": "Hear", "power": "Power", "return": "Return",
             "truncate": "Truncate"}  # fmt: skip
    rows = []
    for act in acts:
        name, node, k = act[0], act[1] if len(act) > 1 and isinstance(act[1], str) else "", act[-1] if isinstance(act[-1], int) else 0
        rows.append(f'<<"{name}", "{node}", {k}>>')
    two = ("flush", "say", "hear", "power", "return", "truncate")
    cases = [f'E[1] = "{name}" -> {action}({"E[2], E[3]" if name in two else "E[2]"})' for name, action in names.items()]
    cases += ['E[1] = "ack" -> Ack(E[3])', 'E[1] = "store" -> Store']
    text = "\n".join([
        "---- MODULE Trace ----", "EXTENDS Replication", "VARIABLE at", "Events == <<", ",\n".join(rows), ">>", "E == Events[at]",
        "TraceInit == Init /\\ at = 1",
        "TraceNext == at <= Len(Events) /\\ at' = at + 1 /\\ (CASE " + " [] ".join(cases) + ")",
        "TraceSpec == TraceInit /\\ [][TraceNext]_<<vars, at>>", "NotDone == at <= Len(Events)", "====", "",
    ])  # fmt: skip
    slaves = ", ".join(f'"{slave}"' for slave in rules.slaves)
    config = "\n".join([
        "SPECIFICATION TraceSpec", "CONSTANTS", f'Master = "{rules.master}"', f"Slaves = {{{slaves}}}", f"Need = {rules.need}",
        f"SyncFlush = {str(rules.sync_flush).upper()}", 'Faults = {"kill", "power", "machine"}', "MaxFaults = 1000000",
        "MaxRecords = 1000000", "RefuseLonger = TRUE", "INVARIANTS NotDone AckImpliesHeld PrefixCopies NothingBeyond", "",
    ])  # fmt: skip
    return text, config
