"""What the files say: log, queues and their ends, read byte by byte from the disk and not through the store that wrote them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import attrs
from specs.history import Image, QueueState, Record, Unit

from trmq.errors import CorruptRecord
from trmq.log import StoreService, index_keys
from trmq.message import StoredMessage, tags_code
from trmq.record import MAGIC_BLANK, decode_record
from trmq.sim.disk import SimDisk

UNIT = struct.Struct(">qiq")
BODY_LENGTH_AT = 84


@attrs.frozen
class Sent:
    """A message as its producer made it."""

    id: str
    topic: str
    queue_id: int
    body: bytes
    properties: dict[str, str]
    flag: int
    born_ms: int
    reconsume_times: int

    @property
    def queue(self) -> tuple[str, int]:
        return self.topic, self.queue_id


def look(disk: SimDisk, service: StoreService, sent: dict[str, Sent], abort_marker_before: bool, *, final: bool = True) -> Image:
    """The image of a store that has just started. Ends and key queries are the store's answers, all else is read from the files."""
    store = service.store
    size = service.config.segment_size
    records, blanks, end = walk(disk, size, store.min_phy, sent)
    by_key = {r.id for r in records if any(record_id(view) == r.id for view in store.query(r.queue[0], r.id, 64, 0, 1 << 60)[0])}
    queues = {}
    for queue in store.queues():
        index = store.queue(*queue)
        assert index is not None
        queues[queue] = QueueState(index.min_offset, index.max_offset, read_units(disk, queue, store.min_phy, sent, records))
    return Image(
        records=tuple(replace(r, by_key=r.id in by_key) for r in records), queues=queues, min_phy=store.min_phy, max_phy=store.max_phy,
        segment_size=size, abort_marker_before=abort_marker_before, blanks=tuple(blanks),
        behind=tuple(stale_records(disk, size, max(end, store.max_phy))) + (() if end == store.max_phy else (f"log ends at {end}",)),
        final=final,
    )


def segments(disk: SimDisk) -> dict[int, str]:
    return {int(name): f"commitlog/{name}" for name in disk.names("commitlog")}


def walk(disk: SimDisk, size: int, start: int, sent: dict[str, Sent]) -> tuple[list[Record], list[tuple[int, int]], int]:
    """(records, blanks, end): every whole record from `start` on until something is none."""
    records: list[Record] = []
    blanks: list[tuple[int, int]] = []
    at = start
    for base, path in sorted(segments(disk).items()):
        if base != at // size * size and base >= start:
            break
        data = disk.peek(path)
        while at < base + len(data):
            rest = data[at - base :]
            length, magic = struct.unpack_from(">II", rest) if len(rest) >= 8 else (0, 0)
            if magic == MAGIC_BLANK:
                blanks.append((at, length))
                at = base + size
                break
            try:
                records.append(as_record(rest, at, sent))
            except CorruptRecord:
                return records, blanks, at
            at = records[-1].end
    return records, blanks, at


def as_record(raw: bytes, position: int, sent: dict[str, Sent]) -> Record:
    """Raises `CorruptRecord` if none begins here. A wrong body CRC or offset is reported, not refused."""
    message = decode_record(raw, check_crc=False)
    whole = raw[: message.size]
    id = message.properties.get("UNIQ_KEY", "?")
    body = int.from_bytes(whole[BODY_LENGTH_AT : BODY_LENGTH_AT + 4], "big")
    topic = whole[BODY_LENGTH_AT + 4 + body]
    properties = int.from_bytes(whole[BODY_LENGTH_AT + 5 + body + topic :][:2], "big")
    return Record(
        id=id, queue=(message.topic, message.queue_id), queue_offset=message.queue_offset, position=position, phy_offset=message.phy_offset,
        size=message.size, parts_size=BODY_LENGTH_AT + 4 + body + 1 + topic + 2 + properties,
        crc_holds=zlib.crc32(message.body) & 0x7FFFFFFF == message.body_crc, intact=is_intact(message, sent.get(id)),
        digest=zlib.crc32(whole), by_key=False, keys=tuple(index_keys(message.properties)), store_ms=message.store_ms,
    )


def is_intact(message: StoredMessage, sent: Sent | None) -> bool:
    return sent is not None and (
        message.topic, message.queue_id, message.body, dict(message.properties), message.flag, message.born_ms, message.reconsume_times,
    ) == (sent.topic, sent.queue_id, sent.body, sent.properties, sent.flag, sent.born_ms, sent.reconsume_times)


def record_id(view: memoryview) -> str:
    return decode_record(view, check_crc=False).properties.get("UNIQ_KEY", "?")


def decode_delivered(view: memoryview, sent: dict[str, Sent]) -> list[Record]:
    """The records of a pull answer; `position` is what they say."""
    raw, at, found = bytes(view), 0, []
    while at < len(raw):
        found.append(as_record(raw[at:], int.from_bytes(raw[at + 28 : at + 36], "big"), sent))
        at += found[-1].size
    return found


def stale_records(disk: SimDisk, size: int, end: int) -> list[str]:
    """Whole records that stand anywhere behind the end of the log, where a later recovery could run into them."""
    found = []
    for base, path in segments(disk).items():
        data = disk.peek(path)
        for magic in (b"\xda\xa3\x20\xa7", b"\xda\xa3\x20\xab"):
            at = data.find(magic, max(0, end - base))
            while at >= 0:
                try:
                    found.append(decode_record(data[at - 4 :]).properties.get("UNIQ_KEY", "?"))
                except CorruptRecord:
                    pass
                at = data.find(magic, at + 1)
    return found


def read_units(disk: SimDisk, queue: tuple[str, int], min_phy: int, sent: dict[str, Sent], records: list[Record]) -> tuple[Unit, ...]:
    """Every unit that stands in the queue's files, wherever, except dummies and those of records that retention took."""
    folder = f"consumequeue/{queue[0]}/{queue[1]}"
    at = {r.position: r for r in records}
    units = []
    for name in disk.names(folder):
        data = disk.peek(f"{folder}/{name}")
        for start in range(0, len(data) // 20 * 20, 20):
            phy, size, tags = UNIT.unpack_from(data, start)
            if size <= 0 or (phy, size) == (0, 0x7FFFFFFF) or phy < min_phy:
                continue
            r = at.get(phy)
            wanted = tags_code(sent[r.id].properties["TAGS"]) if r is not None and r.id in sent else None
            units.append(Unit((int(name) + start) // 20, phy, size, tags == wanted))
    return tuple(units)


def found_in_log(disk: SimDisk, size: int, end: int) -> int:
    """How far the log up to `end` would survive losing power now: the same names and the same bytes in both layers."""
    files = segments(disk)
    if not files:
        return end
    durable = set(disk.paths(durable=True))
    at = min(files)
    for base in sorted(files):
        if base >= end:
            break
        if base != at or files[base] not in durable:
            return at
        seen = disk.peek(files[base])[: end - base]
        kept = disk.peek(files[base], durable=True)[: end - base]
        if seen != kept:
            return base + next((i for i, (a, b) in enumerate(zip(seen, kept, strict=False)) if a != b), len(kept))
        at = base + size
    return end
