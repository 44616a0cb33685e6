"""# Strangers: who comes to a port and does not belong there

Seed `000_962224688e51e41c.txt`: "通过主从架构和数据复制确保数据不丢失且服务连续" (data are not lost, and service goes on). Ports are open
to whoever reaches them: a browser, a scanner, a client of another version, a peer that died in the middle of a word. Nothing that such a
one says may cost those who are served.

Commands come in frames. What is no frame ends the connection that it came on; nothing after it can have a meaning. A frame that is no good
request is answered with an error: its sender may have another one. What was begun and does not go on is waited for, for a while; so is who
says nothing. All of that concerns one connection. Sources: `NettyDecoder`, `NettyRemotingAbstract#processRequestCommand`,
`NettyServerConfig` of 5.4.0; reference "protocol" sections 1 and 4, "ha" section 1.

**Not promised**: that whoever can reach a port and speaks the protocol well is kept from anything: there are no accounts; that a flood is
borne (so many connections are kept as are configured, the others are closed at once); that half a frame is kept for as long as a whole idle
connection.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .history import Dismissed, Ended, Event, Gone, Hindered, History, NamesUp, Neighboured, Paused, Rebuked, Resumed, Serving, Visited

Witness = Iterator[tuple[object, bool]]
GOES_ON = "seed 000_962224688e51e41c.txt: 通过主从架构和数据复制确保数据不丢失且服务连续"
DECODER = "org.apache.rocketmq.remoting.netty.NettyDecoder"
REQUESTS = "org.apache.rocketmq.remoting.netty.NettyRemotingAbstract#processRequestCommand"
IDLE = "org.apache.rocketmq.remoting.netty.NettyServerConfig, serverChannelMaxIdleTimeSeconds; haHousekeepingInterval"
AT_ONCE_S, SERVED_S = 1.0, 1.0
BORNE_S = {"half": 60.0 + 8.0, "silence": 120.0 + 16.0}
"""How long it may last, and an eighth of it, for the looks are that far apart."""
SLAVES_BORNE_S = 20.0 + 1.0
DISK = frozenset({"disk-full", "sync-fails", "write-fails", "read-fails"})


class Door:
    """Model: what is due to each visitor: by when it is to be ended, or answered. Nothing is due from one that stands still or died."""

    def __init__(self) -> None:
        self.open: dict[int, Visited] = {}
        self.answers: dict[int, list[Rebuked]] = {}
        self.disturbed: dict[str, float] = {}
        self.away: set[str] = set()
        self.deaf: set[str] = set()

    def step(self, event: Event) -> None:
        match event:
            case Visited(node=node) if node not in self.away:
                self.open[event.visit] = event
            case Rebuked():
                self.answers.setdefault(event.visit, []).append(event)
            case Dismissed():
                self.open.pop(event.visit, None)
            case Serving(node=node) | Resumed(node=node) | NamesUp(server=node):
                self.away.discard(node)
                self.disturbed[node] = event.at
            case Gone(node=node) | Paused(node=node):
                self.away.add(node)
                self.disturbed[node] = event.at
                self.open = {visit: one for visit, one in self.open.items() if one.node != node}
            case Hindered(node=node, why="clog"):
                self.deaf.add(node)

    def calm(self, node: str, since: float) -> bool:
        return node not in self.away | self.deaf and self.disturbed.get(node, -1.0) < since


def limit(visit: Visited) -> float:
    """How long after it a connection may go on at most, where it must end."""
    if visit.due == "end":
        return AT_ONCE_S
    return SLAVES_BORNE_S if visit.port == "slaves" else BORNE_S[visit.due]


def endings(history: History, *dues: str) -> Iterator[tuple[Visited, float, list[Rebuked]]]:
    """Each visit of such a kind with when it was ended, or for how long it is known not to have been, and what it was answered."""
    door, now = Door(), 0.0
    for event in history.events:
        now = max(now, getattr(event, "at", 0.0))
        if isinstance(event, Dismissed) and event.visit in door.open and door.open[event.visit].due in dues:
            yield door.open[event.visit], event.at, door.answers.get(event.visit, [])
        door.step(event)
    for visit in door.open.values():
        if visit.due in dues and now > visit.at + limit(visit):
            yield visit, now, door.answers.get(visit.visit, [])


@clause("P-STR-1", "A connection on which something came that is no frame is ended within a second, and nothing is answered on it.",
        source=f"{DECODER}; reference H6", mutants=("junk_is_skipped",), faults=("stranger",))
def no_frame_ends_it(history: History) -> Witness:
    for visit, ended, answers in endings(history, "end"):
        yield visit, ended - visit.at <= limit(visit) and not answers


@clause("P-STR-2", "What is begun at a port and does not go on is waited for at most 60 s, silence 120 s, both 20 s at the port of slaves.",
        source=IDLE, kind="eventually", mutants=("half_a_frame_is_kept",), faults=("stranger",),
        upstream="a frame that was begun is waited for as long as some byte comes every 120 s")
def patience_ends(history: History) -> Witness:
    for visit, ended, _ in endings(history, "half", "silence"):
        yield visit, ended - visit.at <= limit(visit)


@clause("P-STR-3", "A request that nobody knows, or that cannot be understood, is answered with an error within a second; the connection "
        "stays.", source=REQUESTS, mutants=("strange_requests_are_dropped",), faults=("stranger",))
def errors_are_told(history: History) -> Witness:
    door, due = Door(), dict[int, Visited]()
    for event in history.events:
        if isinstance(event, Visited) and event.due == "answer":
            due[event.visit] = event
        if isinstance(event, Dismissed) and event.visit in door.open and door.open[event.visit].due == "answer":
            asked = door.open[event.visit]
            yield asked, event.at - asked.at > AT_ONCE_S  # it was idle
        if isinstance(event, Rebuked) and event.visit in due:
            asked = due.pop(event.visit)
            yield asked, event.code != 0 and event.at - asked.at <= AT_ONCE_S
        door.step(event)
        now = getattr(event, "at", 0.0)
        for visit, asked in list(due.items()):
            if visit not in door.open:
                del due[visit]
            elif now > asked.at + AT_ONCE_S:
                yield due.pop(visit), False


@clause("P-STR-4", "Whatever comes to a port, its server goes on, and who belongs there is connected and answered within a second.",
        source=GOES_ON, mutants=("half_a_frame_holds_up_the_others", "junk_ends_the_server"), faults=("stranger",))
def others_are_served(history: History) -> Witness:
    door = Door()
    visited: dict[str, float] = {}
    spoilt: set[str] = set()  # whose disk failed: it may have to end
    for event in history.events:
        match event:
            case Visited():
                visited[event.node] = event.at
            case Hindered(node=node) if event.why in DISK:
                spoilt.add(node)
            case Ended(node=node) if node in visited and node not in spoilt:
                yield event, event.at - visited[node] > AT_ONCE_S
            case Neighboured(node=node) if door.calm(node, event.began):
                yield event, event.answered and event.at - event.began <= SERVED_S
        door.step(event)
