"""# Order

The seeds promise no order in so many words; `002_44c1a7c5303d32c6.txt` says what it rests on: "Producer ...
通过负载均衡模块选择相应的 Broker 集群队列进行消息投递" (a producer chooses a queue to deliver to). Within one queue of one broker
messages stand in the order in which they were taken. A producer that waits for each answer and chooses the queue itself decides that order.

To keep it, a group consumes in order: one member at a time holds a queue's lock at the master, has one message in hand, and goes on to the
next only when that one is done; a message that fails holds up its queue and is tried again. Locks are leases: 60 s at the broker, 30 s for
the member that holds one, renewed every 20 s. Sources: `ConsumeMessageOrderlyService`, `RebalanceLockManager` of 5.4.0; reference P-ORD-1,
P-ORD-2, "client behaviour" section 6.

**Not promised**: order across queues, or across a change of the number of queues; order between messages that were on their way at the
same time; order for a group that does not ask for it; that only one member has a message in hand when its handler takes longer than the
lease, or for 30 s after the broker restarted, which forgets its locks; that queues go on without the master: nobody else grants locks.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import PAIRS, clause
from .delivery import Line
from .history import Event, Given, Gone, Handled, Heard, History, Joined, Left, Locked, QueueName, Serving, TakenBack, Told, Tried, Unlocked

Witness = Iterator[tuple[object, bool]]
TAKEN = "seed 002_44c1a7c5303d32c6.txt: Producer 选择相应的 Broker 集群队列进行消息投递"
IN_ORDER = "org.apache.rocketmq.client.impl.consumer.ConsumeMessageOrderlyService"
LOCKS = "org.apache.rocketmq.broker.client.rebalance.RebalanceLockManager"
LOCK_S, LEASE_S, RELEASE_S = 60.0, 30.0, 20.0
SLACK_S = 0.01


class Turn:
    """Model: of each queue of a group that consumes in order, the message whose turn it is and who has it in hand."""

    def __init__(self) -> None:
        self.groups: set[str] = set()
        self.next: dict[Line, int] = {}
        self.hand: dict[Line, tuple[str, float]] = {}
        self.failed: dict[tuple[str, str], tuple[Line, int]] = {}
        self.forgotten: dict[str, float] = {}  # broker group → until when members may rely on locks that it has forgotten

    def step(self, event: Event) -> None:
        match event:
            case Joined(consumer_group=of, orderly=True):
                self.groups.add(of)
            case Serving(group=group):
                self.forgotten[group] = event.at + LEASE_S
            case Left(consumer=consumer):
                self.hand = {line: held for line, held in self.hand.items() if held[0] != consumer}
            case Given(consumer_group=of) if of in self.groups:
                self.hand[of, event.group, event.queue] = (event.consumer, event.at)
            case Handled(consumer_group=of) if of in self.groups:
                line = (of, event.group, event.queue)
                self.hand.pop(line, None)
                if event.good:
                    self.done(line, event.queue_offset)
                else:
                    self.failed[of, event.id] = (line, event.queue_offset)
            case TakenBack(consumer_group=of, id=id, good=True) if (of, id) in self.failed:
                self.done(*self.failed.pop((of, id)))

    def done(self, line: Line, offset: int) -> None:
        self.next[line] = max(offset + 1, self.next.get(line, 0))

    def allows(self, event: Given) -> bool:
        line = (event.consumer_group, event.group, event.queue)
        holder, since = self.hand.get(line, (event.consumer, event.at))
        alone = holder == event.consumer or event.at - since >= RELEASE_S or event.at <= self.forgotten.get(event.group, 0.0)
        return alone and event.queue_offset <= self.next.get(line, 0)


class Leases:
    """Model: who was granted the lock of each queue last, and when; a broker that restarts has forgotten."""

    def __init__(self) -> None:
        self.granted: dict[tuple[str, str, QueueName], tuple[str, float]] = {}
        self.group: dict[str, str] = {}

    def step(self, event: Event) -> None:
        match event:
            case Serving(node=node, group=group):
                self.group[node] = group
            case Gone(node=node):
                self.granted = {key: grant for key, grant in self.granted.items() if key[1] != self.group.get(node)}
            case Locked(client=client, consumer_group=of):
                for queue in event.queues:
                    self.granted[of, self.group[event.node], queue] = (client, event.at)
            case Unlocked(client=client, consumer_group=of):
                for queue in event.queues:
                    if self.granted.get((of, self.group[event.node], queue), ("", 0.0))[0] == client:
                        del self.granted[of, self.group[event.node], queue]


@clause("P-ORD-1", "What is sent to a queue after the answer to another message gets a greater offset than that one.", source=TAKEN,
        mutants=("offsets_in_the_order_of_ids",))
def offsets_ascend(history: History) -> Witness:
    last: dict[tuple[str, str, int], int] = {}
    place: dict[tuple[str, str], tuple[str, str, int]] = {}
    floor: dict[tuple[str, str], int] = {}
    told: dict[tuple[str, str], Told] = {}
    masters: dict[str, str] = {}
    for event in history.events:
        match event:
            case Serving(broker_id=0, node=node, group=group):
                if masters.setdefault(group, node) != node:
                    last = {key: offset for key, offset in last.items() if key[0] != group}
                masters[group] = node
            case Gone() if event.how not in ("close", "kill"):
                last, floor = {}, {}
            case Tried(id=id, group=group):
                place[id, group] = (group, event.topic, event.queue_id)
                floor[id, group] = last.get(place[id, group], -1)
            case Told(id=id, node=node, status="OK") if event.queue_offset >= 0:
                told[id, node] = event
            case Heard(id=id, node=node, status="OK") if (id, node) in told:
                key = next((where for (tried, group), where in place.items() if tried == id and masters.get(group) == node), None)
                if key is not None and (id, key[0]) in floor:
                    yield event, told[id, node].queue_offset > floor[id, key[0]]
                    last[key] = max(told[id, node].queue_offset, last.get(key, -1))


@clause("P-ORD-2", "In a group that consumes in order no message overtakes one that is not done, and one member at a time has one in hand.",
        source=IN_ORDER, mutants=("a_failing_message_is_overtaken", "hands_out_the_next_at_once"))
def none_overtakes(history: History) -> Witness:
    turn = Turn()
    for event in history.events:
        if isinstance(event, Given) and event.consumer_group in turn.groups:
            yield event, turn.allows(event)
        turn.step(event)


@clause("P-LCK-1", "A broker grants the lock of a queue to nobody else while its holder's 60 s last and it was not given up.",
        source=LOCKS, mutants=("lock_not_checked",))
def one_holder(history: History) -> Witness:
    leases = Leases()
    for event in history.events:
        if isinstance(event, Locked):
            for queue in sorted(event.queues):
                key = (event.consumer_group, leases.group[event.node], queue)
                holder, at = leases.granted.get(key, (event.client, event.at))
                yield (event, queue), holder == event.client or event.at - at > LOCK_S
        leases.step(event)


@clause("P-LCK-3", "Only a master grants locks: after a slave took its master's place, the old one, a slave now, grants none.",
        source=f"{LOCKS}; seed 003_c790c013a3e4f038.txt, 分布式集群部署: Slave 角色的 Broker 仅支持读", mutants=("slaves_grant_locks",),
        modes=PAIRS, upstream="broken: a slave grants them as a master does, so a member with an old route shares a queue with another one")
def only_masters_lock(history: History) -> Witness:
    masters: set[str] = set()
    for event in history.events:
        if isinstance(event, Serving):
            (masters.discard if event.broker_id else masters.add)(event.node)
        elif isinstance(event, Locked) and event.queues:
            yield event, event.node in masters


@clause("P-LCK-2", "A member that consumes in order is given a queue's messages only within 30 s of having been granted its lock.",
        source=IN_ORDER, mutants=("consumes_without_a_lock",))
def only_with_a_lock(history: History) -> Witness:
    granted: dict[tuple[str, str, str, QueueName], float] = {}
    group: dict[str, str] = {}
    turn = Turn()
    for event in history.events:
        turn.step(event)
        if isinstance(event, Serving):
            group[event.node] = event.group
        elif isinstance(event, Locked):
            granted.update({(event.client, event.consumer_group, group[event.node], queue): event.at for queue in event.queues})
        elif isinstance(event, Given) and event.consumer_group in turn.groups:
            at = granted.get((event.consumer, event.consumer_group, event.group, event.queue), float("-inf"))
            yield event, event.at - at <= LEASE_S + SLACK_S
