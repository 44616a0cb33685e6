"""# The log and its records

A broker keeps every message in one append-only commit log, cut into segments of equal size. The record is self-describing: it says how
long it is, where it stands, and in which queue at which place; so the queues can be rebuilt from it and nothing else.

Sources: Apache RocketMQ `CommitLog`, `MessageDecoder`; features document, "Message reliability".

**Not promised**: that a store timestamp grows strictly; that a message sent with an unknown outcome is in the log, or is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise

from .clause import clause
from .history import Answered, History, Image, Put, Record, Refused

Witness = Iterator[tuple[object, bool]]
COMMITLOG = "org.apache.rocketmq.store.CommitLog"


@clause("P-LOG-1", "Every record says where it stands, its parts add up to its size, and it lies inside one segment.",
        source=COMMITLOG + "#checkMessageAndReturnSize", mutants=("wrong_phy_offset", "record_spans_segments"))
def record_is_where_it_says(history: History) -> Witness:
    for image in history.all(Image):
        for r in image.records:
            inside = r.position // image.segment_size == (r.end - 1) // image.segment_size
            yield r, r.position == r.phy_offset and r.size == r.parts_size and inside


@clause("P-LOG-2", "Every segment but the last is tiled by records and one blank that ends at the boundary.",
        source=COMMITLOG + "$DefaultAppendMessageCallback", mutants=("no_blank",))
def segments_are_tiled(history: History) -> Witness:
    for image in history.all(Image):
        pieces = sorted([(r.position, r.size) for r in image.records] + list(image.blanks))
        for (at, size), (following, _) in pairwise(pieces):
            yield (at, size), at + size == following
        for at, size in image.blanks:
            yield (at, size), (at + size) % image.segment_size == 0 and size >= 8


@clause("P-LOG-3", "A byte below the confirm bound never changes: a record once delivered stays the same, at the same place.",
        source=COMMITLOG, mutants=("rewrite_after_recovery",))
def delivered_never_changes(history: History) -> Witness:
    seen: dict[tuple[object, int], str] = {}
    for image in history.all(Image):
        for r in image.records:
            key = (r.queue, r.position)
            if key in seen:
                yield r, seen[key] == r.id or not history.sync_flush
            seen[key] = r.id


@clause("P-LOG-4", "In one incarnation the queue offsets of a queue, in log order, are dense.",
        source=COMMITLOG + "#asyncPutMessage", mutants=("queue_offset_skips",))
def queue_offsets_are_dense(history: History) -> Witness:
    for life in history.lives():
        puts = sorted((p for p in life if isinstance(p, Put)), key=lambda p: (p.queue, p.phy_offset))
        for _, group in groupby(puts, key=lambda p: p.queue):
            for a, b in pairwise(group):
                yield (a, b), b.queue_offset == a.queue_offset + 1


@clause("P-LOG-5", "A refused put uses up no queue offset: the next accepted one gets it.",
        source=COMMITLOG + "#asyncPutMessage", mutants=("refused_put_keeps_offset",))
def refusal_costs_nothing(history: History) -> Witness:
    for life in history.lives():
        last: dict[object, int] = {}
        refused: set[object] = set()
        for event in life:
            if isinstance(event, Refused):
                refused.add(event.queue)
            elif isinstance(event, Put):
                if event.queue in refused and event.queue in last:
                    yield event, event.queue_offset == last[event.queue] + 1
                    refused.discard(event.queue)
                last[event.queue] = event.queue_offset


@clause("P-LOG-6", "A batch is stored whole or not at all: contiguous, in order, with consecutive queue offsets, in one segment.",
        source=COMMITLOG + "#asyncPutMessages", mutants=("batch_split",), upstream="broken under DLedger")
def batches_are_whole(history: History) -> Witness:
    by_batch: dict[int, list[Put]] = {}
    for put in history.all(Put):
        if put.batch is not None:
            by_batch.setdefault(put.batch, []).append(put)
    acked = {a.id for a in history.all(Answered) if a.status == "OK"}
    for puts in by_batch.values():
        yield puts, all(b.phy_offset == a.end and b.queue_offset == a.queue_offset + 1 for a, b in pairwise(puts))
        yield puts, len({p.id in acked for p in puts}) == 1


@clause("P-LOG-7", "The place named in an answer is where the message is.",
        source="org.apache.rocketmq.common.message.MessageDecoder#createMessageId", mutants=("wrong_phy_offset",))
def places_are_true(history: History) -> Witness:
    promised = {p.id: p for p in history.all(Put)}
    for image in history.all(Image):
        for r in image.records:
            if r.id in promised:
                put = promised[r.id]
                yield r, (r.position, r.queue, r.queue_offset) == (put.phy_offset, put.queue, put.queue_offset)


@clause("P-LOG-8", "Every stored record carries the CRC of its body.", source=COMMITLOG, mutants=("no_body_crc",))
def crc_holds(history: History) -> Witness:
    for r in records(history):
        yield r, r.crc_holds


def records(history: History) -> Iterator[Record]:
    return (r for image in history.all(Image) for r in image.records)
