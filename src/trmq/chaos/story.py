"""A history as people read it: when, who, what; one line for each thing that matters, with short names for messages.

    1.022  client    sends m1 to group a, queue 0
    1.022  a0        answers m1: OK, offset 0 of queue 0
    1.023  a1        holds the log up to byte 354, 0 of them flushed
    1.171  a0        loses its power
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import attrs
from specs.history import (
    Asked,
    Attached,
    Carried,
    Cut,
    Detached,
    Dismissed,
    Done,
    Drained,
    Ended,
    Found,
    Given,
    Gone,
    Heard,
    History,
    Holds,
    LogSeen,
    Neighboured,
    Outcome,
    Paused,
    Pulled,
    Rebuked,
    Resumed,
    Rotten,
    Serving,
    Settled,
    Told,
    Tried,
    Visited,
    Withdrawn,
)

FELL: Mapping[str, str] = MappingProxyType({
    "close": "stops", "kill": "is killed", "os": "crashes with its system", "power": "loses its power",
    "machine": "is destroyed with its disk", "disk": "loses its disk",
})  # fmt: skip
MEANS: Mapping[str, str] = MappingProxyType({
    "OK": "is told that %s is safe", "FAILED": "is told that %s failed for certain", "UNKNOWN": "does not know what became of %s",
})  # fmt: skip
CLIENT, SCENARIO, END = "client", "scenario", "at last"


@attrs.frozen
class Line:
    at: float
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.at:9.3f}  {self.who:<9} {self.what}"


def tell(history: History) -> Iterator[Line]:
    """What happened, in order."""
    teller = Teller()
    for event in history.events:
        found = TELL.get(type(event))
        said = found(teller, event) if found is not None else None
        if said is not None:
            yield Line(event.at, *said)  # type: ignore[union-attr]


class Teller:
    """Short names of messages, and what was said before."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.masters: dict[str, str] = {}
        self.sessions: dict[int, Attached] = {}
        self.visits: dict[int, Visited] = {}
        self.carried: dict[int, int] = {}

    def name(self, id: str) -> str:
        return self.names.setdefault(id, f"m{len(self.names) + 1}")

    def several(self, ids: list[str]) -> str:
        shown = " ".join(self.name(id) for id in ids[:12])
        return f"{shown} and {len(ids) - 12} more" if len(ids) > 12 else shown or "nothing"

    def serving(self, event: Serving) -> tuple[str, str]:
        flush = "SYNC_FLUSH" if event.sync_flush else "ASYNC_FLUSH"
        log = f"its log ends at byte {event.log_end}"
        if event.broker_id:
            return event.node, f"starts as slave of group {event.group}, {flush}; {log}"
        before = self.masters.get(event.group, event.node)
        self.masters[event.group] = event.node
        how = "is promoted: it starts as" if before != event.node else "starts as"
        return event.node, f"{how} {event.role} of group {event.group}, {flush}; {log}"

    def tried(self, event: Tried) -> tuple[str, str]:
        again = f", attempt {event.attempt}" if event.attempt > 1 else ""
        return CLIENT, f"sends {self.name(event.id)} to group {event.group}, queue {event.queue_id}{again}"

    def asked(self, event: Asked) -> tuple[str, str] | None:
        return None if event.wait else (event.node, f"reads {self.name(event.id)}, which does not want to be waited for")

    def told(self, event: Told) -> tuple[str, str]:
        stored = f": it is stored at offset {event.queue_offset}, up to byte {event.end}" if event.end else ""
        return event.node, f"answers {self.name(event.id)} with {event.status}{stored}"

    def outcome(self, event: Outcome) -> tuple[str, str]:
        late = f"is told that %s is stored, and not safe ({event.status})"
        return CLIENT, MEANS.get(event.status, late) % self.name(event.id)

    def carried_(self, event: Carried) -> tuple[str, str] | None:
        session = self.sessions.get(event.session)
        if session is None or not event.size:
            return None
        return session.master, f"sends its slave {session.slave} bytes {event.offset} to {event.offset + event.size} of the log"

    def attached(self, event: Attached) -> tuple[str, str]:
        self.sessions[event.session] = event
        return event.slave, f"connects to {event.master}, to copy its log"

    def detached(self, event: Detached) -> tuple[str, str] | None:
        session = self.sessions.get(event.session)
        return None if session is None else (session.master, f"loses the connection of its slave {session.slave}")

    def visited(self, event: Visited) -> tuple[str, str]:
        self.visits[event.visit] = event
        return "stranger", f"says {event.what} at the port for {event.port} of {event.node}"

    def rebuked(self, event: Rebuked) -> tuple[str, str] | None:
        visit = self.visits.get(event.visit)
        return None if visit is None else (visit.node, f"answers {visit.what} with code {event.code}")

    def dismissed(self, event: Dismissed) -> tuple[str, str] | None:
        visit = self.visits.get(event.visit)
        return None if visit is None else (visit.node, f"ends the connection on which {visit.what} came")

    def neighboured(self, event: Neighboured) -> tuple[str, str]:
        how = f"is answered by {event.node} after {event.at - event.began:.3f} s" if event.answered else f"has no answer from {event.node}"
        return "neighbour", how

    def pulled(self, event: Pulled) -> tuple[str, str] | None:
        return None if not event.records else (event.node, f"gives {event.client} {len(event.records)} of queue {event.queue[1]}")

    def given(self, event: Given) -> tuple[str, str]:
        return event.consumer, f"is given {self.name(event.id)}, offset {event.queue_offset} of group {event.group}, queue {event.queue[1]}"

    def cut(self, event: Cut) -> tuple[str, str]:
        kept = "and keeps them in a file" if event.aside is not None else "for good"
        return event.node, f"drops bytes {event.start} to {event.end} of its log, which its master lacks, {kept}"

    def settled(self, event: Settled) -> tuple[str, str]:
        logs = ", ".join(f"{node} at byte {end}" for node, end in sorted(event.ends.items()))
        return END, f"{event.seconds:g} s without faults and sends; the logs of group {event.group} end: {logs or 'none is up'}"

    def log_seen(self, event: LogSeen) -> tuple[str, str]:
        return END, f"the log of {event.node}: bytes {event.start} to {event.end}, {self.several([record.id for record in event.records])}"

    def found(self, event: Found) -> tuple[str, str]:
        gone = f"; {', '.join(sorted(event.lost_for_now))} did not return" if event.lost_for_now else ""
        return END, f"{len(event.ids)} can be read: {self.several(sorted(event.ids, key=lambda id: int(self.name(id)[1:])))}{gone}"


TELL: Mapping[type, Callable[[Teller, Any], tuple[str, str] | None]] = MappingProxyType({
    Done: lambda teller, event: None if event.what.startswith("send ") else (SCENARIO, event.what),
    Serving: Teller.serving, Tried: Teller.tried, Asked: Teller.asked, Told: Teller.told, Outcome: Teller.outcome, Carried: Teller.carried_,
    Attached: Teller.attached, Detached: Teller.detached, Pulled: Teller.pulled, Given: Teller.given, Cut: Teller.cut,
    Visited: Teller.visited, Rebuked: Teller.rebuked, Dismissed: Teller.dismissed, Neighboured: Teller.neighboured,
    Ended: lambda teller, event: (event.node, "ends by itself"),
    Settled: Teller.settled, LogSeen: Teller.log_seen, Found: Teller.found,
    Gone: lambda teller, event: (event.node, FELL[event.how]),
    Paused: lambda teller, event: (event.node, "stands still"),
    Resumed: lambda teller, event: (event.node, "goes on"),
    Rotten: lambda teller, event: (event.node, "has bytes of its log altered behind its back"),
    Holds: lambda teller, event: (event.node, f"holds the log up to byte {event.end}, flushed up to {event.durable}"),
    Heard: lambda teller, event: (CLIENT, f"hears {event.status} for {teller.name(event.id)} from {event.node}"),
    Withdrawn: lambda teller, event: (event.node, f"cannot answer {teller.name(event.id)} any more: the connection ended"),
    Drained: lambda teller, event: (END, f"consumer group {event.consumer_group} had the time to read everything"),
})  # fmt: skip
