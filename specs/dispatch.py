"""# Dispatch: queues are built from the log

Seed `002_44c1a7c5303d32c6.txt`, BrokerServer: "主要职责包括消息存储、消息投递、查询以及服务的高可用保证" (its duties are to store messages,
to deliver them, to answer queries, and to be highly available); Producer: "选择相应的 Broker 集群队列进行消息投递" (it chooses a queue to
deliver to). Seed `003_c790c013a3e4f038.txt`, 消息发送高可用: "把 Topic 的多个 Message Queue 创建在多个 Broker 组上" (a topic's queues are
made at several broker groups). So what is stored goes to consumers by queue. That there is one log for all queues, and how a queue finds
its messages in it, the seeds leave to the implementation.

A consume queue is an index: entry *i* of a queue names the record whose queue offset is *i*. It is built from the log in order, up to the
confirm bound, and can be thrown away and built again.

Other sources: Apache RocketMQ `ReputMessageService`, `ConsumeQueue`; reference "ha semantics" C2.

**Not promised**: that the index is durable before the log (it may always be rebuilt); that a queue's entries lie close to each other in the
log; that a message can be read the moment it is acknowledged (within a second it can: P-CQ-4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .clause import STOPS, clause
from .history import Delivered, History, Idle, Image, Put, QueueName, QueuesRemoved, Refused, Stopped, Unit

Witness = Iterator[tuple[object, bool]]
QUEUE = "org.apache.rocketmq.store.ConsumeQueue"
DISPATCH_BOUND_S = 1.0


class Rebuilt:
    """Model: the queues as somebody would write them who reads the log from front to end and has nothing else: one entry for each record,
    at the place that the record names."""

    def __init__(self, image: Image) -> None:
        self.entries: dict[QueueName, list[Unit]] = {queue: [] for queue in image.queues}
        for r in image.records:
            self.entries.setdefault(r.queue, []).append(Unit(r.queue_offset, r.position, r.size, tags_agree=True))

    def true(self, queue: QueueName, unit: Unit) -> bool:
        return unit in self.entries[queue]

    def whole(self, queue: QueueName, units: Iterable[Unit]) -> bool:
        """Whether there is an entry for each record, and no second one."""
        return sorted(unit.phy_offset for unit in units) == [unit.phy_offset for unit in self.entries[queue]]


@clause("P-CQ-1", "Entry i of a queue points to the record with that topic, queue and queue offset i, with its size and tags.",
        source=QUEUE, mutants=("wrong_tags",))
def entries_are_true(history: History) -> Witness:
    for image in history.all(Image):
        rebuilt = Rebuilt(image)
        for queue, state in image.queues.items():
            yield from ((unit, rebuilt.true(queue, unit)) for unit in state.units)


@clause("P-CQ-2", "There is exactly one entry for each record of the queue.", source=QUEUE, mutants=("dispatch_twice",))
def one_entry_each(history: History) -> Witness:
    for image in history.all(Image):
        rebuilt = Rebuilt(image)
        for queue in rebuilt.entries:
            yield queue, queue in image.queues and rebuilt.whole(queue, image.queues[queue].units)


@clause("P-CQ-3", "Dispatching a stretch of log again changes nothing: across starts, entries of the same record are the same.",
        source=QUEUE + "#putMessagePositionInfo", mutants=("dispatch_twice",),
        faults=STOPS)
def dispatch_is_idempotent(history: History) -> Witness:
    before: dict[tuple[object, str], list[Unit]] = {}
    for image in history.all(Image):
        names = {r.position: r.id for r in image.records}
        now: dict[tuple[object, str], list[Unit]] = {}
        for queue, state in image.queues.items():
            for unit in state.units:
                now.setdefault((queue, names.get(unit.phy_offset, "?")), []).append(unit)
        for key in now.keys() & before.keys():
            yield key, now[key] == before[key] and len(now[key]) == 1
        before = now


@clause("P-CQ-4", "At most 1 s after the last put each queue has an entry for each of its messages.",
        source="org.apache.rocketmq.store.DefaultMessageStore", kind="eventually", mutants=("dispatch_stops",))
def dispatch_catches_up(history: History) -> Witness:
    ends: dict[object, int] = {}
    for event in history.events:
        if isinstance(event, Put):
            ends[event.queue] = event.queue_offset + 1
        elif isinstance(event, Refused):
            ends.pop(event.queue, None)
        elif isinstance(event, Stopped):
            ends.clear()
        elif isinstance(event, Idle) and event.seconds >= DISPATCH_BOUND_S:
            for queue, end in ends.items():
                yield queue, event.queue_ends.get(queue) == end  # type: ignore[call-overload]


@clause("P-CQ-5", "A consumer is never given a record that ends beyond the confirm bound.", source="CommitLog#getConfirmOffset",
        mutants=("dispatch_ignores_confirm",))
def nothing_beyond_confirm(history: History) -> Witness:
    for event in history.all(Delivered):
        yield event, event.end <= event.confirm


@clause("P-CQ-6", "Queues thrown away and built again from the log are the same.", source=QUEUE, mutants=("rebuild_differs",))
def rebuilt_queues_are_equal(history: History) -> Witness:
    last: Image | None = None
    removed = False
    for event in history.events:
        if isinstance(event, Put):
            last = None
        elif isinstance(event, QueuesRemoved):
            removed = True
        elif isinstance(event, Image):
            if last is not None and removed:
                yield event.max_phy, event.queues == last.queues
                yield "keys", all(r.by_key for r in event.records)
            last, removed = event, False


@clause("P-CQ-7", "Of a queue consumers hear min <= max, neither ever decreases in one incarnation, and what they get lies between.",
        source=QUEUE, mutants=("max_offset_back",))
def ends_only_grow(history: History) -> Witness:
    for life in history.lives():
        last: dict[object, tuple[int, int]] = {}
        for event in life:
            if isinstance(event, Delivered):
                low, high = last.get(event.queue, (0, 0))
                grown = low <= event.min_offset <= event.max_offset and high <= event.max_offset
                yield event, grown and event.min_offset <= event.queue_offset < event.max_offset
                last[event.queue] = (event.min_offset, event.max_offset)
