"""Where every queue ended when the store was stopped in order: `trmq/queue-ends`, so that queue files lost or cut since are noticed.

After a clean stop nothing is parsed again; a queue file that was cut, zeroed or removed meanwhile would hide its messages, and new ones
would get their queue offsets once more. A store that was stopped in order therefore says how far each queue reached. The next start
notices missing folders by their names and builds those queues again; a queue whose files say something else is refused when it
is first read.

    magic 8 | incarnation 4 | flushed 8 | log begin 8 | bytes per queue file 8 | count 4 |
    count x (topic length 2 | topic | queue id 4 | min offset 8 | max offset 8) | crc 4                       big-endian

It counts only beside a checkpoint of a clean stop with the same incarnation and mark: not after a crash, not after Apache ran, and not if
it is damaged. It is written before that checkpoint. Upholds P-REC-7, P-LOG-4.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import attrs

from trmq.host import Disk, File

ENDS_PATH = "trmq/queue-ends"
REMEDY = "stop the broker and remove the whole consumequeue folder: the next start builds all queues again from the log"
_MAGIC = b"trmqends"
_HEAD = struct.Struct(">8sIQQQI")
_NAME = struct.Struct(">H")
_QUEUE = struct.Struct(">IQQ")
Ends = Mapping[tuple[str, int], tuple[int, int]]
"""(topic, queue id) → (min offset, max offset)."""


@attrs.frozen
class QueueEnds:
    """What the file says. `min_phy` is where the log began, `flushed` where it ended."""

    incarnation: int
    flushed: int
    min_phy: int
    file_size: int
    ends: Ends

    def encode(self) -> bytes:
        parts = [_HEAD.pack(_MAGIC, self.incarnation, self.flushed, self.min_phy, self.file_size, len(self.ends))]
        for (topic, queue_id), ends in sorted(self.ends.items()):
            name = topic.encode()
            parts += (_NAME.pack(len(name)), name, _QUEUE.pack(queue_id, *ends))
        content = b"".join(parts)
        return content + zlib.crc32(content).to_bytes(4, "big")


def read_ends(disk: Disk) -> QueueEnds | None:
    """The file's content, None if there is none or it is damaged."""
    if not disk.exists(ENDS_PATH):
        return None
    file = disk.open_read(ENDS_PATH)
    try:
        raw = bytes(file.read_at(0, file.size))
    finally:
        file.close()
    if len(raw) < _HEAD.size + 4 or raw[:8] != _MAGIC or zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "big"):
        return None
    _, incarnation, flushed, min_phy, file_size, count = _HEAD.unpack_from(raw)
    ends: dict[tuple[str, int], tuple[int, int]] = {}
    at = _HEAD.size
    for _ in range(count):
        name_at = at + _NAME.size
        at = name_at + int.from_bytes(raw[at:name_at], "big")
        queue_id, low, high = _QUEUE.unpack_from(raw, at)
        ends[raw[name_at:at].decode(), queue_id] = (low, high)
        at += _QUEUE.size
    return QueueEnds(incarnation, flushed, min_phy, file_size, ends)


def write_ends(disk: Disk, ends: QueueEnds) -> File:
    """Replace the file, which must not count at this moment. To be synced, then its folder. Raises `DiskFull`."""
    file = disk.open(ENDS_PATH)
    file.truncate(0)
    file.write_at(0, ends.encode())
    return file


def first_file(disk: Disk, folder: str) -> tuple[str, int] | None:
    """One queue file that is not empty, the first that is found, and its size; None without any."""
    for topic in disk.names(folder):
        for queue in disk.names(f"{folder}/{topic}"):
            here = f"{folder}/{topic}/{queue}"
            names = [name for name in disk.names(here) if len(name) == 20 and name.isdecimal()] if queue.isdecimal() else []
            size = disk.size_of(f"{here}/{names[0]}") if names else 0
            if size:
                return f"{here}/{names[0]}", size
    return None
