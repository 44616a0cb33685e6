"""The commit log of a store read from its files, without any broker: what it holds, and whether two hold the same."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trmq.log.scan import parse_record
from trmq.message import decode_properties
from trmq.record import BLANK_SIZE_MIN, MAGIC_BLANK

CHUNK = 1 << 20


class Record(NamedTuple):
    offset: int
    size: int
    topic: str
    queue: int
    queue_offset: int
    unique_key: str

    @property
    def end(self) -> int:
        return self.offset + self.size


class Log:
    """The log as it was when this was made: `records` from `start` (default: its first byte) to `end`, where the last good one ends.
    `reason` says what follows there, None: zeros. The broker may run; then what it wrote meanwhile may be in or not."""

    def __init__(self, store: Path, start: int | None = None) -> None:
        folder = store / "commitlog"
        self.files = {int(path.name): path for path in sorted(folder.iterdir()) if path.name.isdigit()} if folder.is_dir() else {}
        self.min = min(self.files, default=0)
        self.end = self.min if start is None else start
        self.reason: str | None = None
        self.records = list(self._scan(self.end))

    def _scan(self, at: int) -> Iterator[Record]:
        for base, path in self.files.items():
            size = path.stat().st_size
            if not base <= at < base + size:
                continue
            with open(path, "rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
                while True:
                    room = base + size - at
                    head = bytes(view[at - base : at - base + BLANK_SIZE_MIN])
                    if int.from_bytes(head[4:], "big") == MAGIC_BLANK and int.from_bytes(head[:4], "big") == room:
                        at = self.end = base + size
                        break
                    if not any(head):
                        return
                    found = parse_record(view, at - base, room, at)
                    if isinstance(found, str):
                        self.reason = found
                        return
                    key = decode_properties(found.properties).get("UNIQ_KEY", "")
                    at = self.end = at + found.size
                    yield Record(found.phy, found.size, found.topic, found.queue_id, found.queue_offset, key)

    def read(self, start: int, size: int) -> bytes:
        """Bytes of one segment, at most to its end."""
        base = max(b for b in self.files if b <= start)
        with open(self.files[base], "rb") as file:
            file.seek(start - base)
            return file.read(size)

    def by_offset(self) -> dict[int, Record]:
        return {record.offset: record for record in self.records}


def check_equal(a: Path, b: Path, at_least: int = 1) -> tuple[int, int]:
    """Both logs hold the same bytes and the same records wherever both have some. Returns that range, which must hold `at_least` bytes."""
    one, two = Log(a), Log(b)
    low, high = max(one.min, two.min), min(one.end, two.end)
    assert high - low >= at_least, f"nothing to compare: [{one.min}, {one.end}) and [{two.min}, {two.end})"
    at = low
    while at < high:
        mine, theirs = one.read(at, min(CHUNK, high - at)), two.read(at, min(CHUNK, high - at))
        size = min(len(mine), len(theirs))
        assert size > 0, f"nothing at {at}, below the end {high}"
        if mine[:size] != theirs[:size]:
            where = at + next(i for i in range(size) if mine[i] != theirs[i])
            near = [next((r for r in log.records if r.offset <= where < r.end), None) for log in (one, two)]
            raise AssertionError(f"the logs [{one.min}, {one.end}) and [{two.min}, {two.end}) differ at {where}: {near[0]} and {near[1]}")
        at += size
    both = [[r for r in log.records if low <= r.offset and r.end <= high] for log in (one, two)]
    assert both[0] == both[1]
    return low, high


def offset_of(message_id: str) -> int:
    """The commit-log offset in an offsetMsgId (IPv4 or IPv6 host, port, offset)."""
    return int(message_id[-16:], 16)
