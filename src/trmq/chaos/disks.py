"""What nodes' disks hold of a log, read from the files by an observer: where it ends, what of it would survive, where two logs part."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from specs.history import Stored

from trmq.errors import CorruptRecord
from trmq.message import StoredMessage
from trmq.record import MAGIC_BLANK, MAGIC_V1, MAGIC_V2, decode_record
from trmq.sim.disk import SimDisk
from trmq.sim.pages import Pages
from trmq.sim.platter import SECTOR

FOLDER = "commitlog"
FRONT = 100
"""Bytes of a record by which it is known again."""


def records_of(data: bytes) -> Iterator[tuple[StoredMessage | None, bytes]]:
    """The records of an answer with their bytes, None for one that is not sound; ends after one that has no size."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if not 0 < size <= len(data) - at:
            yield None, b""
            return
        raw = data[at : at + size]
        try:
            yield decode_record(raw), raw
        except CorruptRecord:
            yield None, raw
        at += size


class DiskLog:
    """The commit log on one disk. `end` moves on as records appear; `restart` after the log was cut, or its node came back.

    The observer sees through rot: a sector that was altered behind the node's back reads as it was written, for as long as the node leaves
    it as it is (`scars`: offset -> bytes now and before).
    """

    def __init__(self, disk: SimDisk, segment_size: int, scars: dict[int, tuple[bytes, bytes]] | None = None) -> None:
        self.scars = {} if scars is None else scars
        self.disk = disk
        self.segment_size = segment_size
        self.same = 0  # below this it was found equal to its master's
        self.safe = 0  # below this the platter has what the page cache shows
        self._paths: dict[int, str] = {}
        self.restart()

    def restart(self) -> None:
        self.same = self.safe = 0
        self._first = ""  # the file where it begins
        self._end = self._last = self.start
        self._front = b""
        self._seen: tuple[tuple[str, Pages | None, int], ...] = ()  # the files that `_end` was found in, as they were
        self._kept: tuple[Pages | int | None, ...] = ()  # and those of `safe`

    def came_back(self, end: int) -> None:
        """Its broker serves again, with a log that ends at `end`: what is written behind that from now on is not what was altered there."""
        for at, (now, before) in list(self.scars.items()):
            del self.scars[at]
            if at < end:
                self.scars[at] = (now[: end - at], before[: end - at])
        self.restart()

    def _path(self, offset: int) -> str:
        number = offset // self.segment_size
        path = self._paths.get(number)
        if path is None:
            path = self._paths[number] = f"{FOLDER}/{number * self.segment_size:020d}"
        return path

    def _layer(self, offset: int, durable: bool) -> Pages | None:
        platter = self.disk._platter
        node = (platter.durable_names if durable else platter.names).get(self._path(offset))
        return None if node is None else node.durable if durable else node.cache

    def _stamp(self, offset: int, *, durable: bool = False) -> tuple[Pages | None, int]:
        """Another one as soon as what lies there may be something else."""
        layer = self._layer(offset, durable)
        return layer, -1 if layer is None else layer.changes

    def read(self, offset: int, size: int, *, durable: bool = False) -> bytes:
        """Shorter where there is no file."""
        if self.scars:
            return self._unscarred(offset, self._read(offset, size, durable))
        return self._read(offset, size, durable)

    def _unscarred(self, offset: int, data: bytes) -> bytes:
        for at, (now, before) in self.scars.items():
            low, high = max(at, offset), min(at + len(now), offset + len(data))
            if low < high and data[low - offset : high - offset] == now[low - at : high - at]:
                data = data[: low - offset] + before[low - at : high - at] + data[high - offset :]
        return data

    def rot(self, number: int, *, misdirected: bool) -> bool:
        """Alter a bit of what is durable, or write a sector over another one; False where nothing can be."""
        if self.durable <= self.start:
            return False
        at = self.start + number % (self.durable - self.start)
        if misdirected:
            at = at // SECTOR * SECTOR
        before = self._read(at, min(SECTOR if misdirected else 1, self.durable - at))
        now = self._read((at + SECTOR) % (self.durable - SECTOR or 1), len(before)) if misdirected else bytes([before[0] ^ 1 << number % 8])
        if at in self.scars or len(now) != len(before) or now == before:
            return False
        self.disk.rot(self._path(at), at % self.segment_size, now)
        self.scars[at] = (now, before)
        return True

    def _read(self, offset: int, size: int, durable: bool = False) -> bytes:
        layer = self._layer(offset, durable)
        if layer is not None and offset % self.segment_size + size <= self.segment_size:
            return bytes(layer.read(offset % self.segment_size, size))
        found = []
        while size > 0:
            layer = self._layer(offset, durable)
            if layer is None:
                break
            at = offset % self.segment_size
            piece = bytes(layer.read(at, min(size, self.segment_size - at)))
            if not piece:
                break
            found.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(found)

    @property
    def start(self) -> int:
        names = self.disk._platter.names
        if self._first not in names:
            self._first = min((path for path in names if path.startswith(f"{FOLDER}/")), default="")
        return int(self._first[len(FOLDER) + 1 :] or 0)

    @property
    def end(self) -> int:
        """The end of the whole records (and blanks) from the start on."""
        if self._is_as_seen():
            return self._end
        if self._end < self.start or self.read(self._last, len(self._front)) != self._front:
            self.restart()  # it was cut
        while True:
            front = self.read(self._end, FRONT)
            size, magic = int.from_bytes(front[:4], "big"), int.from_bytes(front[4:8], "big")
            if len(front) < 8 or size < 8 or magic not in (MAGIC_V1, MAGIC_V2, MAGIC_BLANK):
                break
            if magic != MAGIC_BLANK and int.from_bytes(front[28:36], "big") != self._end:
                break  # what stood here belongs elsewhere
            self._last, self._end = self._end, self._end + size
            self._front = front[:size]
        self._seen = tuple((self._path(at), *self._stamp(at)) for at in dict.fromkeys((self._last, self._end)))
        return self._end

    def _is_as_seen(self) -> bool:
        """Whether the log begins in the same file, and nothing was written where it ended."""
        names = self.disk._platter.names
        if self._first not in names:
            return False
        for path, layer, changes in self._seen:
            node = names.get(path)
            if (None if node is None else node.cache) is not layer or (layer is not None and layer.changes != changes):
                return False
        return bool(self._seen)

    @property
    def durable(self) -> int:
        """The end of what would survive losing power now, names included."""
        end = self.end
        self.safe = max(min(self.safe, end), self.start)
        kept = (end, *self._stamp(self.safe), *self._stamp(self.safe, durable=True))
        if kept == self._kept:
            return self.safe
        while self.safe < end:
            size = min(4096, end - self.safe)
            seen, held = self.read(self.safe, size), self.read(self.safe, size, durable=True)
            if seen != held:
                self.safe += next((n for n, (a, b) in enumerate(zip(seen, held, strict=False)) if a != b), min(len(seen), len(held)))
                break
            self.safe += size
        self._kept = (end, *self._stamp(self.safe), *self._stamp(self.safe, durable=True))
        return self.safe

    def common(self, master: DiskLog) -> int:
        """The end of what this log and its master's have in common."""
        end = min(self.end, master.end)
        self.same = max(self.same, self.start, master.start)
        if self.same > end:
            return end if self.start <= end else 0
        while self.same < end:
            size = min(4096, end - self.same)
            mine, theirs = self.read(self.same, size), master.read(self.same, size)
            if mine != theirs:
                return self.same + next(n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b)
            self.same += size
        return end

    def size_at(self, phy: int) -> int:
        return int.from_bytes(self.read(phy, 4), "big")

    def records(self) -> tuple[Stored, ...]:
        found, at, end = [], self.start, self.end
        while at < end:
            size = self.size_at(at)
            raw = self.read(at, size)
            if int.from_bytes(raw[4:8], "big") != MAGIC_BLANK:
                message = decode_record(raw, check_crc=False)
                queue = (message.topic, message.queue_id)
                found.append(Stored(message.properties.get("UNIQ_KEY", "?"), queue, message.queue_offset, at, size, zlib.crc32(raw)))
            at += size
        return tuple(found)
