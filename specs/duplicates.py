"""# Duplicates: when a message may come twice

Seed `003_c790c013a3e4f038.txt`, 实际应用, asks: "若异步刷盘+同步主从复制，在 master 成功同步数据给 slave 后，没来及返回 producer
就发生 crash，此时 producer 选择另一个 master 发送，导致消息重复，如何解决" (the answer is lost, the producer sends again elsewhere, the
message is there twice: what to do?). The first step is to know every way in which that can happen. A message may be handled twice by a
group

* because it is stored twice: its producer tried again after an answer that it did not get or that said no (P-DUP-1, P-DUP-2);
* because a queue changed hands before its offset was committed (P-DUP-R1), or its member died before it committed (P-DUP-R2);
* because a broker came back with offsets that are up to 5 s old (P-DUP-R3; a slave's are older, P-SLV-R1);
* because a broker died between delivering a delayed message and noting that (P-DUP-R4), which retries are as well;
* because it was given back and the answer to that was lost (P-DUP-R5).

Any other duplicate is a violation. Sources: reference P-DUP-1 and section A, X; `RebalancePushImpl`, `ConsumerOffsetManager` of 5.4.0.

**Not promised**: that none of these happens: a handler has to bear a message that comes twice, by its UNIQ_KEY.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .clause import clause, reachable
from .delivery import RETRY, Line
from .history import Committed, Delayed, Event, Given, Gone, Handled, History, Joined, Left, OffsetTold, Pulled, SentBack, Serving, Tried
from .rebalance import Fleet

Witness = Iterator[tuple[object, bool]]
LOST_ANSWER = "seed 003_c790c013a3e4f038.txt, 实际应用: 没来及返回 producer 就发生 crash … 导致消息重复，如何解决"
CAUSES = "reference P-DUP-1"
Place = tuple[Line, int]


class Takings:
    """Model: what each member finished of a queue since it last asked where its group is, and where it was told to go on."""

    def __init__(self) -> None:
        self.members: set[str] = set()
        self.start: dict[tuple[str, Line], int] = {}
        self.given: dict[tuple[str, Line], set[int]] = {}
        self.finished: dict[tuple[str, Line], set[int]] = {}

    def step(self, event: Event) -> None:
        match event:
            case Joined(consumer=consumer):
                self.members.add(consumer)
                self.start = {key: offset for key, offset in self.start.items() if key[0] != consumer}
                self.finished = {key: done for key, done in self.finished.items() if key[0] != consumer}
            case OffsetTold(client=client, consumer_group=of):
                key = (client, (of, event.group, event.queue))
                self.start[key], self.given[key], self.finished[key] = max(event.offset, 0), set(), set()
            case Pulled(code="MOVED", client=client):
                for key in [key for key in self.finished if key[0] == client and key[1][1:] == (event.group, event.queue)]:
                    self.finished[key], self.start[key] = set(), 0
            case Given(consumer=consumer):
                self.given.setdefault((consumer, line_of(event)), set()).add(event.queue_offset)
            case Handled(consumer=consumer, good=True) if event.queue_offset in self.given.get((consumer, line_of(event)), ()):
                self.finished.setdefault((consumer, line_of(event)), set()).add(event.queue_offset)

    def reached(self, consumer: str, line: Line) -> int:
        """The end of what it has finished itself, without a gap."""
        end = self.start.get((consumer, line), 0)
        while end in self.finished.get((consumer, line), ()):
            end += 1
        return end

    def allows(self, event: Given) -> bool:
        key = (event.consumer, (event.consumer_group, event.group, event.queue))
        return event.queue_offset >= self.start.get(key, 0) and event.queue_offset not in self.finished.get(key, ())


def line_of(event: Given | Handled) -> Line:
    return event.consumer_group, event.group, event.queue


@clause("P-DUP-3", "A member that took a queue is given nothing below the offset it was told, and nothing again that it has finished.",
        source=CAUSES, mutants=("redelivers_consumed", "starts_from_the_beginning"))
def not_without_a_cause(history: History) -> Witness:
    takings = Takings()
    for event in history.events:
        if isinstance(event, Given) and event.consumer in takings.members:
            yield event, takings.allows(event)
        takings.step(event)


@clause("P-DUP-4", "A group finds a message in no more places than there were tries to send it, give-backs, and crashes while it waited.",
        source=f"{CAUSES}; {LOST_ANSWER}", mutants=("delayed_comes_twice", "taken_back_twice"))
def copies_are_counted(history: History) -> Witness:
    tried, crashes, members = Counter[str](), 0, set[str]()
    back, waited = Counter[tuple[str, str]](), dict[str, int]()
    places: dict[tuple[str, str, bool], set[Place]] = {}
    for event in history.events:
        match event:
            case Joined(consumer=consumer):
                members.add(consumer)
            case Tried(id=id):
                tried[id] += 1
            case Gone():
                crashes += 1
            case Delayed(id=id):
                waited.setdefault(id, crashes)
            case SentBack(id=id, consumer_group=of):
                back[of, id] += 1
                waited.setdefault(id, crashes)
            case Given(id=id, consumer=consumer, consumer_group=of) if consumer in members:
                again = event.queue[0] == RETRY + of
                found = places.setdefault((of, id, again), set())
                found.add((line_of(event), event.queue_offset))
                yield event, len(found) <= (back[of, id] if again else tried[id]) + crashes - waited.get(id, crashes)


@clause("P-DUP-5", "What a member finished before it left in order does not come again: it committed first (its master was there).",
        source=f"org.apache.rocketmq.client.impl.consumer.DefaultMQPushConsumerImpl#shutdown; {CAUSES}",
        mutants=("leaves_without_a_commit", "hands_over_to_a_stand_in"))
def nothing_is_left_behind(history: History) -> Witness:
    takings = Takings()
    owed: dict[Line, int] = {}
    taken: dict[Line, str] = {}  # who asked last where the group is
    masters: dict[str, str] = {}
    fleet = Fleet()
    for event in history.events:
        takings.step(event)
        fleet.step(event)
        match event:
            case Serving(broker_id=0):
                masters[event.group] = event.node
            case Left(how="close", consumer=consumer) if not fleet.troubled:
                owed |= {line: takings.reached(consumer, line) for line, who in taken.items() if who == consumer}
            case Left() | Gone():
                owed.clear()
            case OffsetTold(consumer_group=of):
                line = (of, event.group, event.queue)
                taken[line] = event.client
                if line in owed and masters.get(event.group) == event.node:  # a slave's are older (P-SLV-R1)
                    yield event, max(event.offset, 0) >= owed[line]
                owed.pop(line, None)


def handled_before(history: History) -> Iterator[tuple[Given, Handled, list[Event]]]:
    """Each delivery of what the group had finished, with who finished it and what had happened until then."""
    done: dict[Place, tuple[int, Handled]] = {}
    for number, event in enumerate(history.events):
        if isinstance(event, Handled) and event.good:
            done[line_of(event), event.queue_offset] = (number, event)
        elif isinstance(event, Given) and (line_of(event), event.queue_offset) in done:
            since, before = done[line_of(event), event.queue_offset]
            yield event, before, list(history.events[since:number])


@reachable("P-DUP-R1", "A message is handled again because its queue went from one living member to another.", source=CAUSES)
def changed_hands(history: History) -> Iterator[object]:
    for event, before, since in handled_before(history):
        left = any(isinstance(one, Left) and one.consumer == before.consumer for one in since)
        if event.consumer != before.consumer and not left and not any(isinstance(one, Gone) for one in since):
            yield event


@reachable("P-DUP-R2", "A message is handled again because the member that had handled it died before it committed.", source=CAUSES)
def died_before_it_committed(history: History) -> Iterator[object]:
    for event, before, since in handled_before(history):
        died = any(isinstance(one, Left) and one.consumer == before.consumer and one.how != "close" for one in since)
        if died and not any(isinstance(one, Gone) for one in since):
            yield event


@reachable("P-DUP-R3", "A message is handled again, though that was committed: its broker came back with older offsets.", source=CAUSES)
def older_offsets(history: History) -> Iterator[object]:
    for event, _, since in handled_before(history):
        crash = next((number for number, one in enumerate(since) if isinstance(one, Gone) and one.how != "close"), None)
        commits = [one for one in since[: crash or 0] if isinstance(one, Committed)]
        if any((one.consumer_group, one.group, one.queue) == line_of(event) and one.offset > event.queue_offset for one in commits):
            yield event


@reachable("P-DUP-R4", "A delayed message is delivered twice: its broker died before it had noted the first time.", source=CAUSES)
def delivered_twice(history: History) -> Iterator[object]:
    places: dict[tuple[str, str], set[Place]] = {}
    tried = Counter(event.id for event in history.all(Tried))
    delayed = {event.id for event in history.all(Delayed)}
    for event in history.all(Given):
        found = places.setdefault((event.consumer_group, event.id), set())
        found.add((line_of(event), event.queue_offset))
        if event.id in delayed and tried[event.id] == 1 and len(found) > 1:
            yield event


@reachable("P-DUP-R5", "A message comes again twice: it was given back, the answer to that was lost, and it was given back once more.",
           source=CAUSES)
def given_back_twice(history: History) -> Iterator[object]:
    back: Counter[tuple[str, str, int]] = Counter()
    places: dict[tuple[str, str, int], set[Place]] = {}
    for event in history.events:
        if isinstance(event, SentBack):
            back[event.consumer_group, event.id, event.times + 1] += 1
        elif isinstance(event, Given) and event.queue[0] == RETRY + event.consumer_group:
            key = (event.consumer_group, event.id, event.times)
            found = places.setdefault(key, set())
            found.add((line_of(event), event.queue_offset))
            if back[key] > 1 and len(found) > 1:
                yield event
