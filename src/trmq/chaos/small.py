"""Every order of steps in a small scope: breadth-first search over the shipped replication cores.

A state is a value: the members' logs, each connection with both its ends and what is on its way, who holds how much, which sends wait and
which were acknowledged. A step builds the cores (`MasterEnd`, `SlaveEnd`, `Holders`) from it, lets them do what they do in a broker, and
takes the next value down. Reports and pieces travel whole: how TCP cuts them is the concern of other tests. All records have one size, so
that a log is a tuple of record numbers. Because the search goes level by level, the first violation comes with a shortest schedule.

Faults are counted out by the scope: a member loses its last record with its power, the master's machine goes and a slave is made master,
a connection ends or goes on being open for the master alone, with reports still on their way; a stranger claims what cannot be.

What must hold (`wrong`): an acknowledged record was written by need-1 slaves; it is in some log unless faults destroyed `need` copies; a
slave that is served has a prefix of its master's log; no report beyond the log counts; a new master has what was acknowledged and not hit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import attrs

from trmq import record
from trmq.replica import ack
from trmq.replica.transfer import MasterEnd, PeerRefused, SlaveEnd, encode_header, encode_report

SEGMENT = 1024
SIZE = record.record_size(1, 1, 0)
STRANGER = 99
HOST = bytes(8)
Log = tuple[int, ...]


class Link(NamedTuple):
    """A connection. `number` tells it from others of its slave; `stale`: only the master still takes it for open."""

    slave: int
    number: int
    stale: bool
    requested: int
    acked: int
    next: int
    end: int
    up: tuple[int, ...] = ()
    down: tuple[tuple[int, int], ...] = ()
    """(offset, record) of each piece on its way."""


class State(NamedTuple):
    """`logs` by member; `lead` is the master. `spent`: how often each kind of fault has happened. `lost`: (member, record) that faults
    destroyed. `holders`: what `Holders` keeps, as (announced, strangers)."""

    logs: tuple[Log, ...]
    lead: int
    links: tuple[Link, ...]
    holders: tuple[tuple[tuple[int, int], ...], tuple[tuple[str, int, int], ...]]
    pending: tuple[int, ...]
    acked: frozenset[int]
    records: int
    spent: tuple[int, int, int]
    lost: frozenset[tuple[int, int]]
    error: str = ""


@attrs.frozen
class Scope:
    """How much of everything there is. `tails`: losses of a last record; `promotions`; `stales`: connections that go stale. `announced`:
    slaves say who they are."""

    slaves: int = 1
    records: int = 3
    need: int = 2
    tails: int = 1
    promotions: int = 1
    stales: int = 1
    announced: bool = True
    strangers: bool = False
    in_flight_max: int = 2


@attrs.frozen
class Explored:
    """`schedule` is a shortest one that breaks something, `broken` says what; None if nothing does."""

    states: int
    transitions: int
    depth: int
    seen: Counter[str]
    schedule: tuple[str, ...] | None = None
    broken: str = ""

    def __str__(self) -> str:
        if self.schedule is None:
            return f"holds in all {self.states} states, {self.transitions} transitions, depth {self.depth}"
        return f"{self.broken}, after {len(self.schedule)} steps: {', '.join(self.schedule)} ({self.states} states)"


_bytes: dict[tuple[int, int], bytes] = {}


def raw(offset: int, number: int) -> bytes:
    """The record with this number at this place."""
    if (offset, number) not in _bytes:
        _bytes[offset, number] = record.encode_record(b"T", 0, offset // SIZE, offset, b"%d" % number, b"", 0, 0, 1, HOST, 2, HOST)
    return _bytes[offset, number]


def end(log: Log) -> int:
    return len(log) * SIZE


class Small:
    """The steps and rules of one scope."""

    def __init__(self, scope: Scope) -> None:
        assert SIZE * scope.records < SEGMENT
        assert scope.records <= 9
        self.scope = scope
        self.seen: Counter[str] = Counter()

    def start(self) -> State:
        empty: Log = ()
        return State((empty,) * (1 + self.scope.slaves), 0, (), ((), ()), (), frozenset(), 0, (0, 0, 0), frozenset())

    # --- the cores, out of a state and back

    def who(self, slave: int) -> tuple[int | None, str]:
        return (slave if self.scope.announced and slave != STRANGER else None), f"10.0.0.{slave}"

    def holders(self, state: State) -> ack.Holders:
        board = ack.Holders()
        for broker_id, offset in state.holders[0]:
            board.report(broker_id, "", 0, offset)
        for ip, number, offset in state.holders[1]:
            board.report(None, ip, number, offset)
        return board

    def noted(self, state: State, board: ack.Holders) -> State:
        """The state with what the holders say now, and the sends that they answer."""
        peers = sorted(board._strangers.items())
        strangers = tuple((ip, number, offset) for ip, own in peers for number, offset in sorted(own.items()))
        log = state.logs[state.lead]
        held = board.held(self.scope.need)
        done = frozenset(number for number in state.pending if end(log[: log.index(number) + 1]) <= held)
        error = state.error
        for number in done:
            wrote = sum(number in state.logs[n] or (n, number) in state.lost for n in range(len(state.logs)) if n != state.lead)
            if wrote < self.scope.need - 1:
                error = f"record {number} is acknowledged, and {wrote} slaves have written it"
        if any(offset > end(log) for offset in board.acks()):
            error = error or "a report beyond the end of the log counts"
        self.seen["acknowledged"] += bool(done)
        return state._replace(
            holders=(tuple(sorted(board._announced.items())), strangers), acked=state.acked | done, error=error,
            pending=tuple(number for number in state.pending if number not in done),
        )

    def master_end(self, link: Link) -> MasterEnd:
        master = MasterEnd(SIZE)
        master.requested = None if link.requested < 0 else link.requested
        master.acked, master.next_offset = link.acked, link.next
        return master

    # --- what can happen

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        scope, log = self.scope, state.logs[state.lead]
        if state.records < scope.records:
            number = state.records + 1
            grown = self.with_log(state, state.lead, (*log, number))._replace(records=number, pending=(*state.pending, number))
            yield f"append {number}", self.noted(grown, self.holders(grown))
        if scope.strangers:
            yield "lie", self.lie(state)
        for n in range(len(state.logs)):
            if n != state.lead and not any(link.slave == n and not link.stale for link in state.links):
                yield from self.connect(state, n)
            if state.logs[n] and state.spent[0] < scope.tails:
                yield f"power {n}", self.power(state, n)
        for at, link in enumerate(state.links):
            name = f"{link.slave}{'' if link.number == 0 else '´'}"
            if link.up:
                yield f"report {name}", self.report(state, at)
            if 0 <= link.next < end(log) and len(link.down) < scope.in_flight_max and not link.stale:
                yield f"push {name}", self.push(state, at)
            if link.down and not link.stale:
                yield f"receive {name}", self.receive(state, at)
            yield f"drop {name}", self.close(state, at)
            if not link.stale and state.spent[2] < scope.stales:
                stale = link._replace(stale=True, down=())
                yield f"stale {name}", self.with_link(state, at, stale)._replace(spent=(*state.spent[:2], state.spent[2] + 1))
        if state.spent[1] < scope.promotions:
            yield from self.promote(state)

    def with_log(self, state: State, n: int, log: Log) -> State:
        return state._replace(logs=(*state.logs[:n], log, *state.logs[n + 1 :]))

    def with_link(self, state: State, at: int, link: Link) -> State:
        return state._replace(links=(*state.links[:at], link, *state.links[at + 1 :]))

    def close(self, state: State, at: int) -> State:
        link = state.links[at]
        left = state._replace(links=(*state.links[:at], *state.links[at + 1 :]))
        board = self.holders(state)
        broker_id, ip = self.who(link.slave)
        if broker_id is None or not any(other.slave == link.slave for other in left.links):
            board.leave(broker_id, ip, link.number)
        return self.noted(left, board)

    def connect(self, state: State, n: int) -> Iterator[tuple[str, State]]:
        """A slave compares its log with the master's first: one whose records are others stays away, one that has more is told so. One that
        announces itself ends its older connections."""
        log, own = state.logs[state.lead], state.logs[n]
        if own != log[: len(own)] and len(own) <= len(log):
            return
        for at in reversed(range(len(state.links))):
            if self.scope.announced and state.links[at].slave == n:
                state = self.close(state, at)
        number = int(any(link.slave == n for link in state.links))
        links = sorted([*state.links, Link(n, number, False, -1, -1, -1, end(own), up=(end(own),))])
        fresh = state._replace(links=tuple(links))
        board = self.holders(fresh)
        board.report(*self.who(n), number, -1)
        fresh = self.noted(fresh, board)
        if len(own) > len(log):  # it arrives at once: were the master's log as long by then, only the records could tell
            fresh = self.report(fresh, next(at for at, link in enumerate(fresh.links) if link.slave == n and not link.stale))
            self.seen["longer slave"] += 1
        yield f"connect {n}", fresh

    def report(self, state: State, at: int) -> State:
        link, log = state.links[at], state.logs[state.lead]
        word, *rest = link.up
        master = self.master_end(link)
        try:
            master.receive(encode_report(word), end(log))
            if master.requested is not None and master.next_offset < 0:
                master.begin(0, end(log), SEGMENT)
        except PeerRefused:
            self.seen["refused"] += 1
            return self.close(state, at)
        requested = -1 if master.requested is None else master.requested
        moved = link._replace(requested=requested, acked=master.acked, next=master.next_offset, up=tuple(rest))
        board = self.holders(state)
        board.report(*self.who(link.slave), link.number, master.acked)
        return self.noted(self.with_link(state, at, moved), board)

    def push(self, state: State, at: int) -> State:
        link, log = state.links[at], state.logs[state.lead]
        master = self.master_end(link)
        found = master.next_slice(end(log), SEGMENT)
        assert found is not None
        piece = (found[0], log[found[0] // SIZE])
        return self.with_link(state, at, link._replace(acked=master.acked, next=master.next_offset, down=(*link.down, piece)))

    def receive(self, state: State, at: int) -> State:
        link = state.links[at]
        (offset, number), *rest = link.down
        slave = SlaveEnd(link.end, SEGMENT)
        try:
            found = slave.feed(encode_header(offset, SIZE) + raw(offset, number))
        except PeerRefused:
            self.seen["refused by the slave"] += 1
            return self.close(state, at)
        assert found is not None
        grown = self.with_log(state, link.slave, (*state.logs[link.slave][: found[0] // SIZE], number))
        up = (*link.up, end(grown.logs[link.slave]))
        return self.with_link(grown, at, link._replace(end=slave.end or 0, up=up, down=tuple(rest)))

    # --- what goes wrong

    def lie(self, state: State) -> State:
        """A stranger claims one record more than there is."""
        link = Link(STRANGER, 0, False, -1, -1, -1, 0, up=(end(state.logs[state.lead]) + SIZE,))
        told = self.report(state._replace(links=(*state.links, link)), len(state.links))
        return told._replace(links=tuple(link for link in told.links if link.slave != STRANGER))

    def power(self, state: State, n: int) -> State:
        """A member loses its last record. Of a slave's connections the master hears nothing, and reports may still be on their way."""
        *kept, gone = state.logs[n]
        hit = self.with_log(state, n, tuple(kept))._replace(
            spent=(state.spent[0] + 1, *state.spent[1:]), lost=state.lost | {(n, gone)},
        )  # fmt: skip
        if n == state.lead:
            return hit._replace(links=(), holders=((), ()), pending=())
        return hit._replace(links=tuple(link._replace(stale=True, down=()) if link.slave == n else link for link in hit.links))

    def promote(self, state: State) -> Iterator[tuple[str, State]]:
        """The master's machine goes. A slave that has all that was acknowledged and not hit takes over; there must be one. The old master
        comes back as a slave and puts aside what the new one lacks."""
        owed = {number for number in state.acked if not any((n, number) in state.lost for n in range(len(state.logs)))}
        fit = [n for n in range(len(state.logs)) if n != state.lead and owed <= set(state.logs[n])]
        spent = (state.spent[0], state.spent[1] + 1, state.spent[2])
        base = state._replace(links=(), holders=((), ()), pending=(), spent=spent)
        if not fit and self.scope.need > 1:
            yield "promote", base._replace(error=f"no slave has what was acknowledged: {sorted(owed)}")
        for n in fit:
            log, old = state.logs[n], state.logs[state.lead]
            same = next((at for at, (one, other) in enumerate(zip(log, old, strict=False)) if one != other), min(len(log), len(old)))
            self.seen["put aside"] += same < len(old)
            self.seen["promoted with all that was acknowledged"] += bool(owed)
            yield f"promote {n}", self.with_log(base, state.lead, old[:same])._replace(lead=n, acked=state.acked & set(log))

    def wrong(self, state: State) -> str:
        """What is broken in this state, "" if nothing is."""
        if state.error:
            return state.error
        log = state.logs[state.lead]
        for link in state.links:
            own = state.logs[link.slave]
            if link.next >= 0 and not link.stale and own != log[: len(own)]:
                return f"slave {link.slave} is served and has {own} where its master has {log}"
        for number in state.acked:
            hit = sum(lost == number for _, lost in state.lost)
            if hit < self.scope.need and not any(number in other for other in state.logs):
                return f"record {number} was acknowledged and is nowhere, with {hit} copies destroyed"
        return ""


def explore(scope: Scope) -> Explored:
    """All states of the scope, or up to the first violation."""
    small = Small(scope)
    first = small.start()
    came: dict[State, tuple[State, str] | None] = {first: None}
    level, depth, transitions = [first], 0, 0
    while level:
        following = []
        for state in level:
            for name, after in small.steps(state):
                transitions += 1
                if after in came:
                    continue
                came[after] = (state, name)
                broken = small.wrong(after)
                if broken:
                    return Explored(len(came), transitions, depth + 1, small.seen, _path(came, after), broken)
                following.append(after)
        level, depth = following, depth + bool(following)
    return Explored(len(came), transitions, depth, small.seen)


def _path(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    names = []
    while (step := came[state]) is not None:
        state, name = step
        names.append(name)
    return tuple(reversed(names))
