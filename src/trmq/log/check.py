"""Read-only verification of a whole store, Apache's or trmq's: log, consume queues, key index, checkpoint, configuration.

The log is the truth; everything else is compared with it in one pass over its records. Segment, queue and index file sizes are
taken from the files. What an unclean stop leaves behind (an unfinished record at the end, indexes that lag or run ahead) is told
apart from damage: a bad record *followed by good ones* is damage, a bad tail is not.

Source: reference "store" sections 1 to 3, 7, 9. Checks P-LOG-1, P-CQ-1, P-CQ-2, P-IDX-2.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from trmq.host import Disk, File
from trmq.log.check_index import IndexCheck
from trmq.log.check_queues import QueueCheck
from trmq.log.check_witness import WitnessCheck
from trmq.log.report import Progress, Report
from trmq.message import BORN_HOST_V6, STORE_HOST_V6
from trmq.record import _HEADS, HEAD_V4, MAGIC_BLANK, MAGIC_V1, MAGIC_V2

REPAIR = "refetch the data from a replica or restore a copy; recovery must not cut here"
_WINDOW = 16 << 20
_RECORD_MAX = 8 << 20
_PAIR = struct.Struct(">iI")


class Seen(NamedTuple):
    """What the other checks need of one record. Offsets are log bytes."""

    phy: int
    size: int
    topic: bytes
    queue_id: int
    queue_offset: int
    sys_flag: int
    store_ms: int
    properties: bytes


def check_store(
    disk: Disk, *, commit_log: str = "commitlog", progress: Progress | None = None, index_layout: tuple[int, int] | None = None,
    keys_max: int = 100_000,
) -> Report:
    """Verify the store at the disk's root and return what was found; nothing is written. `index_layout` is (slots, entries) if the
    index files have unusual ones; `keys_max` bounds how many key look-ups are tried (the facts say how many were)."""
    report = Report()
    facts = report.facts
    facts["clean"] = not disk.exists("abort")
    if disk.exists("abort"):
        report.add("info", "not-stopped", "abort", None, "the store was not stopped cleanly, or a broker is running on it")
    log = LogCheck(disk, commit_log, report, progress)
    topics = check_config(disk, report)
    queues = QueueCheck(disk, report, topics, clean=facts["clean"], min_phy=log.min_phy)
    index = IndexCheck(disk, report, index_layout, clean=facts["clean"], keys_max=keys_max)
    last_ms = 0
    for seen in log.records():
        queues.record(seen.phy, seen.size, seen.topic, seen.queue_id, seen.queue_offset, seen.sys_flag, seen.store_ms, seen.properties)
        index.record(seen.phy, seen.topic, seen.sys_flag, seen.properties)
        last_ms = seen.store_ms
    queues.finish(log.max_phy)
    index.finish(log.min_phy, log.max_phy)
    check_checkpoint(disk, report, last_ms)
    facts["errors"] = sum(finding.severity == "error" for finding in report.findings) + sum(report.hidden.values())
    return report


class LogCheck:
    """Walks the segments. After `records()` is exhausted `max_phy` is the end of the last good record."""

    def __init__(self, disk: Disk, folder: str, report: Report, progress: Progress | None) -> None:
        self._disk = disk
        self._folder = folder
        self._report = report
        self._progress = progress
        self._witness = WitnessCheck(disk)
        names = [name for name in disk.names(folder) if len(name) == 20 and name.isdecimal()]
        self._bases = [int(name) for name in names]
        self.min_phy = self._bases[0] if names else 0
        self.max_phy = self.min_phy
        self.size = 0
        if not names:
            report.add("info", "no-log", folder, None, "there are no segments: the store is empty")
            return
        self.size = self._bases[1] - self._bases[0] if len(names) > 1 else disk.size_of(f"{folder}/{names[0]}")
        for name, base in zip(names, self._bases, strict=True):
            have = disk.size_of(f"{folder}/{name}")
            if have != self.size:
                report.add("error", "segment-size", f"{folder}/{name}", None, f"has {have} bytes where segments have {self.size}",
                           "a half-made last segment is removed at the next start; any other must be restored")
            if self.size and (base - self.min_phy) % self.size:
                report.add("error", "segment-name", f"{folder}/{name}", None, f"the name is no multiple of the segment size {self.size}")
        for before, after in pairwise(self._bases):
            if after != before + self.size:
                hole = f"the log has a hole: {before + self.size} to {after}"
                report.add("error", "segment-missing", f"{folder}/{after:020d}", None, hole, REPAIR)
        report.facts.update(segments=len(names), segment_size=self.size, min_phy=self.min_phy)

    def records(self) -> Iterator[Seen]:
        """Every good record in order; findings about the others."""
        count = 0
        total = len(self._bases) * self.size
        for number, base in enumerate(self._bases):
            path = f"{self._folder}/{base:020d}"
            file = self._disk.open_read(path)
            position = 0
            for item in self._segment(file, path, base):
                if isinstance(item, int):
                    position = item
                    if self._progress is not None:
                        self._progress("log", number * self.size + position, total)
                    continue
                count += 1
                yield item
            file.close()
            if position < 0:
                continue  # the segment is complete
            self.max_phy = base + position
            if self._judge_end(number, position):
                break
        self._report.facts.update(records=count, records_with_checksum=self._witness.checked)
        self._report.facts.update(max_phy=self.max_phy, bytes=self.max_phy - self.min_phy)

    def _segment(self, file: File, path: str, base: int) -> Iterator[Seen | int]:
        """Records, and now and then a position; the last position is where it ended, or -1 at the end of the segment."""
        position, size = 0, file.size
        self._witness.segment(base)
        view = memoryview(b"")
        start = reported = 0
        while position < size:
            if position - start + _RECORD_MAX > len(view) and start + len(view) < size:
                start, view = position, file.read_at(position, _WINDOW)
            seen = self._parse(view, position - start, base + position, path, position)
            if seen is None:
                length, magic = _PAIR.unpack_from(view, position - start) if len(view) - (position - start) >= 8 else (0, 0)
                if magic == MAGIC_BLANK and length == size - position:
                    yield -1
                    return
                break
            at = position - start
            self._witness.record(seen.phy, view[at : at + seen.size], self._report, path, position, REPAIR)
            yield seen
            position += seen.size
            if position - reported >= _WINDOW:
                reported = position
                yield position
        yield position if position < size else -1

    def _parse(self, view: memoryview, at: int, phy: int, path: str, position: int) -> Seen | None:
        """The record at `at` of `view`; None if there is none that holds together. A wrong CRC or offset is reported, the record kept."""
        if len(view) - at < HEAD_V4.size:
            return None
        fields = HEAD_V4.unpack_from(view, at)
        size, magic, sys_flag = fields[0], fields[1], fields[7]
        if (magic != MAGIC_V1 and magic != MAGIC_V2) or size > len(view) - at or size < 91:
            return None
        head = HEAD_V4
        if sys_flag & (BORN_HOST_V6 | STORE_HOST_V6):
            head = _HEADS[bool(sys_flag & BORN_HOST_V6), bool(sys_flag & STORE_HOST_V6)]
            if size < head.size:
                return None
            fields = head.unpack_from(view, at)
        body_size = fields[14]
        body_at = at + head.size
        width = 1 if magic == MAGIC_V1 else 2
        topic_at = body_at + body_size + width
        if body_size < 0 or topic_at > at + size:
            return None
        topic_size = view[topic_at - 1] if width == 1 else int.from_bytes(view[topic_at - 2 : topic_at], "big")
        properties_at = topic_at + topic_size + 2
        if properties_at > at + size or properties_at + (view[properties_at - 2] << 8 | view[properties_at - 1]) != at + size:
            return None
        if zlib.crc32(view[body_at : body_at + body_size]) & 0x7FFFFFFF != fields[2]:
            problem = f"the body of the record at log offset {phy} does not match its CRC"
            self._report.add("error", "body-crc", path, position, problem, REPAIR)
        if fields[6] != phy:
            problem = f"the record at log offset {phy} says it is at {fields[6]}"
            self._report.add("error", "physical-offset", path, position, problem, REPAIR)
        topic = bytes(view[topic_at : topic_at + topic_size])
        return Seen(phy, size, topic, fields[3], fields[5], sys_flag, fields[10], bytes(view[properties_at : at + size]))

    def _judge_end(self, number: int, position: int) -> bool:
        """Say what lies behind the end at `position` of a segment: nothing, an unfinished record, or good records behind a bad
        one. True if the log ends here."""
        good = self._good_behind(number, position)
        path = f"{self._folder}/{self._bases[number]:020d}"
        phy = self._bases[number] + position
        if good is None:
            return True
        if good < 0:
            self._report.add("info" if not self._report.facts["clean"] else "warning", "unfinished-tail", path, position,
                             f"an unfinished record behind the end of the log ({phy})",
                             "recovery cuts it off; nothing acknowledged is in it")
            return True
        self._report.add("error", "bad-record", path, position,
                         f"no record can be read at log offset {phy}, but a good one follows at {good}", REPAIR)
        return False

    def _good_behind(self, number: int, position: int) -> int | None:
        """Log offset of a good record behind the bad place, -1 if only other bytes are there, None if nothing but zeros."""
        other = False
        for base in self._bases[number:]:
            file = self._disk.open_read(f"{self._folder}/{base:020d}")
            at = position if base == self._bases[number] else 0
            while at < file.size:
                chunk = bytes(file.read_at(at, _WINDOW))
                if chunk.count(0) != len(chunk):
                    other = True
                    found = self._find_record(file, chunk, at, base, position if base == self._bases[number] else -1)
                    if found is not None:
                        return found
                at += max(len(chunk) - 64, 1) if at + len(chunk) < file.size else len(chunk)
            file.close()
        return -1 if other else None

    def _find_record(self, file: File, chunk: bytes, start: int, base: int, bad: int) -> int | None:
        for magic in (MAGIC_V1, MAGIC_V2):
            pattern = magic.to_bytes(4, "big")
            at = chunk.find(pattern)
            while at >= 0:
                position = start + at - 4
                whole = at >= 4 and at + 32 <= len(chunk)
                if position > bad and whole and int.from_bytes(chunk[at + 24 : at + 32], "big") == base + position:
                    quiet = LogCheck.__new__(LogCheck)
                    quiet._report = Report()
                    view = file.read_at(position, _RECORD_MAX)
                    if quiet._parse(view, 0, base + position, "", 0) is not None and quiet._report.ok:
                        return base + position
                at = chunk.find(pattern, at + 1)
        return None


def check_checkpoint(disk: Disk, report: Report, last_ms: int) -> None:
    """Apache's `checkpoint`: its times must not lie behind the last record's."""
    if not disk.exists("checkpoint"):
        if last_ms:
            report.add("warning", "checkpoint", "checkpoint", None, "missing", "the next start parses the whole log")
        return
    raw = bytes(disk.open_read("checkpoint").read_at(0, 40))
    if len(raw) < 40:
        problem = f"has {len(raw)} bytes, 4096 are expected"
        report.add("warning", "checkpoint", "checkpoint", None, problem, "the next start parses the whole log")
        return
    log_ms, queues_ms, index_ms, _, _ = struct.unpack(">qqqqq", raw)
    report.facts["checkpoint"] = {"log_ms": log_ms, "queues_ms": queues_ms, "index_ms": index_ms}
    for name, ms in (("log", log_ms), ("queue", queues_ms), ("index", index_ms)):
        if ms > last_ms and ms:
            report.add("warning", "checkpoint", "checkpoint", None, f"its {name} time {ms} is later than the last record's {last_ms}",
                       "records that were once durable may be missing")


def check_config(disk: Disk, report: Report) -> set[str] | None:
    """Every `config/*.json` must be readable, or its `.bak`. Returns the topics of topics.json, None if it isn't there."""
    topics = None
    for name in disk.names("config"):
        if not name.endswith(".json"):
            continue
        path = f"config/{name}"
        data = _json(disk, path)
        if data is None:
            backup = _json(disk, path + ".bak")
            if backup is None:
                report.add("error", "config", path, None, "is not readable as JSON, and there is no readable .bak", "restore the file")
            else:
                report.add("warning", "config", path, None, "is not readable as JSON", f"{name}.bak is and will be used")
            data = backup
        if name == "topics.json" and isinstance(data, dict) and isinstance(data.get("topicConfigTable"), dict):
            topics = set(data["topicConfigTable"])
    return topics


def _json(disk: Disk, path: str) -> object | None:
    """The value of a JSON file, with the unquoted integer keys that Apache writes; None if missing, empty or not JSON."""
    if not disk.exists(path):
        return None
    text = bytes(disk.open_read(path).read_at(0, disk.size_of(path))).decode("utf-8", "replace")
    for candidate in (text, re.sub(r"([{,]\s*)(-?\d+)(\s*:)", r'\1"\2"\3', text)):
        try:
            found: object = json.loads(candidate)
            return found
        except ValueError:
            continue
    return None
