"""# Sharing queues: who of a group consumes what

Seed `002_44c1a7c5303d32c6.txt`: "Consumer：负责消息消费，同样支持分布式集群方式部署 ... 可以以集群或广播的方式消费消息"
(consumers run as a cluster, and consume as one or each for itself). Seed `000_962224688e51e41c.txt`:
"在一个或多个Broker不可用时，其他Broker能够接管工作，保证消息的正常生产和消费" (others take over, consumption goes on).

The members of a group do not talk to each other. Each asks a broker who is a member, sorts queues and members, and lets the same
function say what falls to it: so the shares fit together as long as all see the same two lists. They look again when a broker tells them
that somebody came or went, when a route changes, and every 20 s. Until all have looked, a queue may be held twice (its messages may come
twice) or by nobody (they wait). Sources: `RebalanceImpl`, `AllocateMessageQueueAveragely` of 5.4.0; reference "client behaviour"
section 5.

**Not promised**: that nothing is given twice while queues change hands; that shares are equal in number of messages; that a member whose
machine falls silent is missed before its 120 s are over; anything while members and brokers
cannot reach each other; anything in a group whose members subscribe to different topics or use different
strategies; that strategies which leave queues out (by configuration, by machine room) share them all.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause, reachable
from .history import Assigned, Created, Eased, Event, Found, Gone, Hindered, History, Joined, Left, Paused, Resumed, Serving, Shared

Witness = Iterator[tuple[object, bool]]
CLUSTERED = "seed 002_44c1a7c5303d32c6.txt: Consumer 同样支持分布式集群方式部署 … 以集群或广播的方式消费消息"
AVERAGELY = "org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely"
REBALANCE = "org.apache.rocketmq.client.impl.consumer.RebalanceImpl"
SETTLES_S = 21.0
"""A round every 20 s, and a second for what a broker has to tell."""
SILENT_S, RETURN_S = 130.0, 40.0
"""A silent connection is missed after 120 s, looked for every 10 s; routes are asked for every 30 s."""
Held = frozenset[tuple[str, int]]


class Fleet:
    """Model: which brokers are there, and who stands still or has links or disks that are not as they should be."""

    def __init__(self) -> None:
        self.serving: dict[str, Serving] = {}
        self.still: set[str] = set()
        self.hindered: set[str] = set()

    @property
    def troubled(self) -> bool:
        """Then nobody is told or asked anything in time."""
        return bool(self.still or self.hindered)

    def groups(self, *, led: bool) -> set[str]:
        """Those of which somebody is there; `led`: their master."""
        return {one.group for one in self.serving.values() if one.broker_id == 0 or not led}

    def step(self, event: Event) -> None:
        match event:
            case Serving(node=node):
                self.serving[node] = event
            case Gone(node=node):
                self.serving.pop(node, None)
                self.still.discard(node)
            case Paused(node=node):
                self.still.add(node)
            case Resumed(node=node):
                self.still.discard(node)
            case Hindered(node=node):
                self.hindered.add(node)
            case Eased():
                self.hindered.clear()


class Roll:
    """Model: who is a member of each group, what each holds, and from when on nothing has disturbed them."""

    def __init__(self) -> None:
        self.members: dict[str, dict[str, Held]] = {}
        self.queues: set[tuple[str, int]] = set()
        self.calm: dict[str, float] = {}
        self.orderly: set[str] = set()
        self.fleet = Fleet()

    def step(self, event: Event) -> None:
        self.fleet.step(event)
        match event:
            case Joined(consumer_group=of, broadcasting=False):
                self.members.setdefault(of, {})[event.consumer] = frozenset()
                self.orderly |= {of} if event.orderly else set()
                self.disturb(event.at, of)
            case Left(consumer_group=of) if of in self.members:
                self.members[of].pop(event.consumer, None)
                self.disturb(event.at + SILENT_S * (event.how == "power"), of)
            case Assigned(consumer_group=of) if event.consumer in self.members.get(of, ()):
                self.members[of][event.consumer] = event.queues
            case Created() | Serving() | Gone() | Resumed() | Eased():
                self.queues |= {(event.group, id) for id in range(event.queues)} if isinstance(event, Created) else set()
                self.disturb(event.at + RETURN_S, *self.members)

    def served(self, of: str) -> bool:
        """Who consumes in order needs the masters: nobody else grants locks."""
        return {group for group, _ in self.queues} <= self.fleet.groups(led=of in self.orderly)

    def since(self, of: str) -> float:
        """From when on nothing has disturbed a group."""
        return float("inf") if self.fleet.troubled else self.calm.get(of, 0.0)

    def disturb(self, at: float, *groups: str) -> None:
        self.calm |= {of: max(at, self.calm.get(of, 0.0)) for of in groups}

    def shares(self, of: str) -> dict[tuple[str, int], int]:
        """Queue → how many members hold it."""
        return {queue: sum(queue in held for held in self.members[of].values()) for queue in self.queues}


@clause("P-REB-1", "What falls to a member is a function of the sorted queues and the sorted members alone, and every queue falls to one.",
        source=AVERAGELY, mutants=("allocation_depends_on_who_asks", "allocation_forgets_the_rest"))
def shares_fit_together(history: History) -> Witness:
    asked: dict[tuple[str, tuple[str, ...], tuple[str, ...]], dict[str, tuple[str, ...]]] = {}
    for event in history.all(Shared):
        answers = asked.setdefault((event.strategy, event.queues, event.members), {})
        yield event, answers.setdefault(event.me, event.mine) == event.mine
        if answers.keys() >= set(event.members):
            yield event, sorted(queue for mine in answers.values() for queue in mine) == sorted(event.queues)


@clause("P-REB-2", "21 s after the last join, leave or crash of a member every queue of the topic is held by exactly one of them.",
        source=REBALANCE, kind="eventually", mutants=("nobody_looks_again", "the_dead_stay_members"))
def every_queue_has_one_owner(history: History) -> Witness:
    roll = Roll()
    for event in history.events:
        if isinstance(event, Joined | Left | Created | Serving | Gone | Found):
            for of, members in roll.members.items():
                if members and roll.served(of) and event.at - roll.since(of) >= SETTLES_S:
                    shares = roll.shares(of)
                    yield (of, sorted(members), event), all(count == 1 for count in shares.values())
        roll.step(event)


@reachable("P-REB-R1", "While queues change hands two members hold one queue.", source=f"{REBALANCE}; {CLUSTERED}")
def held_twice(history: History) -> Iterator[object]:
    roll = Roll()
    for event in history.events:
        roll.step(event)
        if isinstance(event, Assigned) and event.consumer_group in roll.members:
            others = [held for name, held in roll.members[event.consumer_group].items() if name != event.consumer]
            if any(event.queues & held for held in others):
                yield event
