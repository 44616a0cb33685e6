"""# Dispatch: queues are built from the log

A consume queue is an index: entry *i* of a queue names the record whose queue offset is *i*. It is built from the log in order, up to the
confirm bound, and can be thrown away and built again.

Sources: Apache RocketMQ `ReputMessageService`, `ConsumeQueue`.

**Not promised**: that the index is durable before the log; it may always be rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .history import Delivered, History, Image, Stopped

Witness = Iterator[tuple[object, bool]]
QUEUE = "org.apache.rocketmq.store.ConsumeQueue"


@clause("P-CQ-1", "Entry i of a queue points to the record with that topic, queue and queue offset i, with its size and tags.",
        source=QUEUE, mutants=("wrong_tags", "queue_shifted"))
def entries_are_true(history: History) -> Witness:
    for image in history.all(Image):
        for queue, state in image.queues.items():
            records = {r.position: r for r in image.records if r.queue == queue}
            for unit in state.units:
                r = records.get(unit.phy_offset)
                yield unit, unit.agrees and r is not None and (r.queue_offset, r.size) == (unit.queue_offset, unit.size)


@clause("P-CQ-2", "There is exactly one entry for each record of the queue.", source=QUEUE, mutants=("queue_hole", "dispatch_twice"))
def one_entry_each(history: History) -> Witness:
    for image in history.all(Image):
        for queue, state in image.queues.items():
            want = sorted(r.position for r in image.records if r.queue == queue)
            yield queue, sorted(u.phy_offset for u in state.units) == want


@clause("P-CQ-3", "Dispatching a stretch of log again changes nothing.", source=QUEUE + "#putMessagePositionInfo", mutants=("dispatch_twice",))
def dispatch_is_idempotent(history: History) -> Witness:
    for image in history.all(Image):
        for queue, state in image.queues.items():
            offsets = [u.queue_offset for u in state.units]
            yield queue, offsets == list(range(state.min_offset, state.min_offset + len(offsets)))


@clause("P-CQ-4", "Once writing stops, every confirmed record is in its queue.", source="org.apache.rocketmq.store.DefaultMessageStore",
        kind="eventually", mutants=("dispatch_stops",))
def dispatch_catches_up(history: History) -> Witness:
    for image in history.all(Image):
        entries = sum(len(state.units) for state in image.queues.values())
        yield entries, entries == len(image.records)


@clause("P-CQ-5", "A consumer is never given a record that ends beyond the confirm bound.", source="CommitLog#getConfirmOffset",
        mutants=("dispatch_before_fsync",))
def nothing_beyond_confirm(history: History) -> Witness:
    for event in history.all(Delivered):
        yield event, event.end <= event.confirm


@clause("P-CQ-6", "Queues thrown away and built again from the log are the same.", source=QUEUE, mutants=("rebuild_differs",))
def rebuilt_queues_are_equal(history: History) -> Witness:
    images = [e for e in history.events if isinstance(e, Image | Stopped)]
    for a, stop, b in zip(images, images[1:], images[2:], strict=False):
        if isinstance(a, Image) and isinstance(b, Image) and isinstance(stop, Stopped) and stop.how == "rebuild":
            yield b.max_phy, a.queues == b.queues


@clause("P-CQ-7", "In one incarnation min and max offset never decrease, and min never passes max.", source=QUEUE,
        mutants=("max_offset_back",))
def ends_only_grow(history: History) -> Witness:
    for image in history.all(Image):
        for queue, state in image.queues.items():
            yield queue, state.min_offset <= state.max_offset
    for life in history.lives():
        last: dict[object, int] = {}
        for event in life:
            if isinstance(event, Delivered):
                yield event, event.queue_offset >= last.get((event.queue, "floor"), 0)
