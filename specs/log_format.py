"""# The log and its records

Seed `002_44c1a7c5303d32c6.txt`, Store Service: "提供 API 接口用于消息存储到物理硬盘及查询功能" (messages are stored on the physical disk,
and can be asked for); seed `001_8e740201b086beaf.txt` draws what a master and a slave each have: "CommitLog" and below it "数据文件" (data
files). Seed `000_962224688e51e41c.txt`, 主从复制机制: "Master Broker会立即将消息持久化" (the master makes a message durable at once). The
seeds do not say what the log looks like; Apache RocketMQ's `CommitLog`, `MessageDecoder` do, and reference "ha semantics" C1.

A broker keeps every message in one append-only commit log, cut into segments of equal size. The record is self-describing: it says how
long it is, where it stands, and in which queue at which place; so the queues can be rebuilt from it and nothing else.

**Not promised**: that a store timestamp grows strictly; that a message sent with an unknown outcome is in the log, or is not; that a batch
nobody was told about is whole after a crash (what remains is a prefix of it); that a put refused for want of space stays away if the power
goes before the next flush.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from .clause import clause
from .history import Answered, Delivered, Flushed, History, Image, Put, Record, Refused, Stopped, Viewed

Witness = Iterator[tuple[object, bool]]
STORED = "seed 002_44c1a7c5303d32c6.txt, Store Service: 消息存储到物理硬盘及查询功能"
COMMITLOG = "org.apache.rocketmq.store.CommitLog"


def records(history: History) -> Iterator[tuple[Image, Record]]:
    return ((image, r) for image in history.all(Image) for r in image.records)


class Numbers:
    """Model: one counter per queue. A place given is taken back when the message is refused; a start counts on from what it found."""

    def __init__(self) -> None:
        self.next: dict[object, int] = {}
        self.given: dict[str, tuple[object, int]] = {}

    def expected(self, put: Put) -> int | None:
        return self.next.get(put.queue)

    def step(self, event: object) -> None:
        if isinstance(event, Put):
            self.given[event.id] = (event.queue, event.queue_offset)
            self.next[event.queue] = event.queue_offset + 1
        elif isinstance(event, Refused) and event.id in self.given:
            queue, number = self.given.pop(event.id)
            self.next[queue] = min(self.next[queue], number)
        elif isinstance(event, Stopped):
            self.next.clear()
        elif isinstance(event, Image) and event.final:
            self.next = {r.queue: r.queue_offset + 1 for r in event.records}


@clause("P-LOG-1", "Every record says where it stands, its parts add up to its size, and it lies inside one segment.",
        source=COMMITLOG + "#checkMessageAndReturnSize", mutants=("wrong_phy_offset",))
def record_is_where_it_says(history: History) -> Witness:
    for image, r in records(history):
        inside = r.position // image.segment_size == (r.end - 1) // image.segment_size
        yield r, r.position == r.phy_offset and r.size == r.parts_size and inside


@clause("P-LOG-2", "Every segment but the last is tiled by records and one blank of at least 8 bytes that ends at the boundary.",
        source=COMMITLOG + "$DefaultAppendMessageCallback", mutants=("no_blank",))
def segments_are_tiled(history: History) -> Witness:
    for image in history.all(Image):
        size = image.segment_size
        for base in range(image.min_phy, image.max_phy // size * size, size):
            blanks = [b for b in image.blanks if base <= b[0] < base + size]
            pieces = sorted([(r.position, r.size) for r in image.records if base <= r.position < base + size] + blanks)
            ends = [base, *(at + length for at, length in pieces)]
            tiled = all(end == at for end, (at, _) in zip(ends, pieces, strict=False))
            yield base, tiled and ends[-1] == base + size and len(blanks) == 1 and blanks[0][1] >= 8 and pieces[-1] == blanks[0]


@clause("P-LOG-3", "What a consumer was given, or a start found, never changes: not in one life, nor across a kill; across a power cut "
        "what a start had found, and under SYNC_FLUSH what was delivered.", source=COMMITLOG, mutants=("rewrite_alters",))
def seen_never_changes(history: History) -> Witness:
    found: dict[int, int] = {}
    delivered: dict[int, int] = {}
    for event in history.events:
        if isinstance(event, Delivered):
            if event.phy_offset in found or event.phy_offset in delivered:
                yield event, event.digest == found.get(event.phy_offset, delivered.get(event.phy_offset))
            delivered[event.phy_offset] = event.digest
        elif isinstance(event, Stopped) and event.how == "power" and not history.sync_flush:
            delivered = {at: d for at, d in delivered.items() if at in found}
        elif isinstance(event, Image):
            for r in event.records:
                if r.position in found or r.position in delivered:
                    yield r, r.digest == found.get(r.position, delivered.get(r.position))
                if event.final:
                    found[r.position] = r.digest


@clause("P-LOG-4", "The queue offsets of a queue are dense: each message gets the one after the last, also after a start.",
        source=COMMITLOG + "#asyncPutMessage", mutants=("queue_offset_skips",))
def queue_offsets_are_dense(history: History) -> Witness:
    model = Numbers()
    for event in history.events:
        if isinstance(event, Put) and model.expected(event) is not None:
            yield event, event.queue_offset == model.expected(event)
        model.step(event)


@clause("P-LOG-5", "A refused put uses up no queue offset and leaves nothing in the log.",
        source=COMMITLOG + "#asyncPutMessage", mutants=("refused_put_keeps_offset", "no_wipe_after_refusal"),
        faults=("disk-full",))
def refusal_costs_nothing(history: History) -> Witness:
    model = Numbers()
    refused: set[object] = set()
    ids: set[str] = set()
    wiped: dict[str, int] = {}  # in the page cache; where
    places: dict[str, int] = {}
    for event in history.events:
        if isinstance(event, Refused):
            refused.add(event.queue)
            wiped[event.id] = places.get(event.id, -1)
        elif isinstance(event, Flushed):
            ids |= {id for id, at in wiped.items() if at < event.end}
        elif isinstance(event, Stopped) and event.how == "power":
            wiped.clear()
        elif isinstance(event, Put):
            places[event.id] = event.phy_offset
            if event.queue in refused and model.expected(event) is not None:
                yield event, event.queue_offset == model.expected(event)
            refused.discard(event.queue)
        elif isinstance(event, Image) and (ids or wiped):
            yield ids, not (ids | wiped.keys()) & {r.id for r in event.records}
        model.step(event)


@clause("P-LOG-6", "A batch is stored contiguously, in order, with consecutive queue offsets, in one segment; answered OK, it is whole.",
        source=COMMITLOG + "#asyncPutMessages", mutants=("batch_split",), upstream="broken under DLedger")
def batches_are_whole(history: History) -> Witness:
    batches: dict[int, list[Put]] = {}
    for put in history.all(Put):
        if put.batch is not None:
            batches.setdefault(put.batch, []).append(put)
    answers = {a.id: a.status for a in history.all(Answered)}
    for puts in batches.values():
        yield puts, all(b.phy_offset == a.end and b.queue_offset == a.queue_offset + 1 for a, b in pairwise(puts))
        yield puts, len({answers.get(p.id) for p in puts}) == 1
        for image in history.all(Image):
            there = [any(r.id == p.id for r in image.records) for p in puts]
            yield puts, there == sorted(there, reverse=True) or image.min_phy > puts[0].phy_offset
            yield puts, len({r.position // image.segment_size for r in image.records if r.id in {p.id for p in puts}}) <= 1


@clause("P-LOG-7", "The place named in an answer is where the message is, on disk and when asked for by it.",
        source=f"{STORED}; org.apache.rocketmq.common.message.MessageDecoder#createMessageId", mutants=("answer_names_wrong_place",))
def places_are_true(history: History) -> Witness:
    promised: dict[str, Put] = {}
    for event in history.events:
        if isinstance(event, Put):
            promised[event.id] = event
        elif isinstance(event, Viewed):
            yield event, event.found == event.id
        elif isinstance(event, Image):
            for r in event.records:
                if put := promised.get(r.id):
                    yield r, (r.position, r.queue, r.queue_offset) == (put.phy_offset, put.queue, put.queue_offset)


@clause("P-LOG-8", "Every stored record carries the CRC of its body.", source=COMMITLOG, mutants=("no_body_crc",))
def crc_holds(history: History) -> Witness:
    for _, r in records(history):
        yield r, r.crc_holds
    for delivered in history.all(Delivered):
        yield delivered, delivered.crc_holds
