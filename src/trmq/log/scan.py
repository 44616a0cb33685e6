"""Parsing the log from disk, strictly: what recovery and `trmq store check` believe about its bytes.

A record is good if its magic is known, its lengths add up to its total size, it lies within one segment, its physical offset is its
position (TRAP-S6: a stale record of a truncated log is not), its body matches its CRC, and the rest matches its witness in the
checksum file if there is one (TRAP-S20). The first bad record ends the scan; `Scan` then says where, and why.

Source: `CommitLog#checkMessageAndReturnSize`; reference "store" section 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from typing import NamedTuple

from trmq.log.checksums import read_groups
from trmq.log.commit_log import CommitLog
from trmq.log.segment import BLANK, Segment
from trmq.message import BORN_HOST_V6, STORE_HOST_V6
from trmq.record import _HEADS, BLANK_SIZE_MIN, FIXED_SIZE, HEAD_V4, MAGIC_BLANK, MAGIC_V1, MAGIC_V2

WINDOW = 4 << 20


class Scanned(NamedTuple):
    """A good record, as far as the indexes care. `head_check` covers it without its body."""

    phy: int
    size: int
    topic: str
    queue_id: int
    queue_offset: int
    sys_flag: int
    store_ms: int
    properties: bytes
    head_check: int


def parse_record(view: memoryview, at: int, room: int, phy: int, *, check_body: bool = True) -> Scanned | str:
    """The record at `view[at:]`, which must lie at physical offset `phy` with `room` bytes to the end of its segment; or why there is none.

    The view must hold the whole record or be shorter than what it claims, which is then the answer."""
    if len(view) - at < FIXED_SIZE:
        return "fewer bytes than any record has"
    head, fields = HEAD_V4, HEAD_V4.unpack_from(view, at)
    size, magic = fields[0], fields[1]
    if magic not in (MAGIC_V1, MAGIC_V2):
        return f"magic {magic:#010x} is no message"
    if size < FIXED_SIZE or size + BLANK_SIZE_MIN > room:
        return f"total size {size} cannot be, {room} bytes are left in the segment"
    if at + size > len(view):
        return "total size reaches behind the bytes at hand"
    if fields[7] & (BORN_HOST_V6 | STORE_HOST_V6):
        head = _HEADS[bool(fields[7] & BORN_HOST_V6), bool(fields[7] & STORE_HOST_V6)]
        if size < head.size + 3:
            return "total size is less than the header"
        fields = head.unpack_from(view, at)
    _, _, crc, queue_id, _, queue_offset, own, sys_flag, _, _, store_ms, _, _, _, body_size = fields
    wide = 2 if magic == MAGIC_V2 else 1
    body_at = at + head.size
    topic_at = body_at + body_size + wide
    end = at + size
    if body_size < 0 or topic_at + 2 > end:
        return f"body length {body_size} does not fit total size {size}"
    topic_size = int.from_bytes(view[topic_at - wide : topic_at], "big")
    properties_at = topic_at + topic_size + 2
    if properties_at > end or properties_at + int.from_bytes(view[properties_at - 2 : properties_at], "big") != end:
        return f"the parts do not add up to total size {size}"
    if own != phy:
        return f"it says it belongs at {own}: left over from an earlier life of the log"
    if check_body and zlib.crc32(view[body_at : body_at + body_size]) & 0x7FFFFFFF != crc:
        return "the body does not match its CRC"
    try:
        topic = str(view[topic_at : topic_at + topic_size], "utf-8")
    except UnicodeDecodeError:
        return "the topic is not UTF-8"
    check = zlib.crc32(view[body_at + body_size : end], zlib.crc32(view[at:body_at]))
    return Scanned(phy, size, topic, queue_id, queue_offset, sys_flag, store_ms, bytes(view[properties_at:end]), check)


class Scan:
    """Iterate over the good records from `start`, a record boundary. Afterwards `end` is where the log ends (exclusive), `reason` why
    (None: nothing but zeros follows); of the last segment's checksum file holds what is before `group_position`, and there the group
    `group_kept` of checks from `group_start` on (perhaps none)."""

    def __init__(
        self, log: CommitLog, start: int, *, checksum_position: int | None = None, proven: int | None = None, check_body: bool = True
    ) -> None:
        """`checksum_position` in the file of the segment of `start`; None: believe no checksum file. Records from `proven` on need one."""
        self.start = start
        self.end = start
        self.reason: str | None = None
        self.records = 0
        self.last_store_ms = 0
        self._log = log
        self._check_body = check_body
        self._position = checksum_position
        self._witnessed: dict[int, tuple[int, list[int]]] = {}
        self._suspicious_from = proven if proven is not None else 1 << 63
        self.group_position = 0
        self.group_start = 0
        self.group_kept: list[int] = []

    def __iter__(self) -> Iterator[Scanned]:
        log = self._log
        at = self.start
        while True:
            segment = log.segment_at(at)
            if segment is None:
                self.end = at
                return
            self._load_witnesses(segment)
            following = yield from self._segment(segment, at)
            if following is None:
                return
            at = following

    def _load_witnesses(self, segment: Segment) -> None:
        self._witnessed = {}
        self.group_kept = []
        self.group_position = self._position or 0
        if self._position is None:
            return
        for position, start, checks in read_groups(self._log.disk, segment.base, self._position):
            self._witnessed[start] = (position, list(checks))
        self._position = 0  # the next segment's file from its beginning

    def _doubtful(self, record: Scanned) -> bool:
        """A record whose witness is missing although there should be one lost it to a power cut; zeros in it are lost sectors."""
        return record.phy >= self._suspicious_from and (b"\0" in record.properties or "\0" in record.topic)

    def _segment(self, segment: Segment, at: int) -> Generator[Scanned, None, int | None]:
        """The records of one segment from `at`; returns the next segment's base, or None if the log ends here."""
        view, low = memoryview(b""), at
        witness: list[int] = []
        taken = 0
        while True:
            self.end = at
            room = segment.end - at
            if room == 0:
                return segment.end
            if len(view) - (at - low) < FIXED_SIZE:
                view, low = segment.file.read_at(at - segment.base, min(WINDOW, room)), at
            if len(view) - (at - low) < BLANK.size:
                self.reason = "fewer than 8 bytes are left and no blank closes the segment"
                return None
            size, magic = BLANK.unpack_from(view, at - low)
            if magic == MAGIC_BLANK and size == room:
                return segment.end
            if magic == 0 and size == 0:
                return None
            if at - low + size > len(view) and size <= room:
                view, low = segment.file.read_at(at - segment.base, min(max(WINDOW, size), room)), at
            found = parse_record(view, at - low, room, at, check_body=self._check_body)
            if taken == len(witness) and at in self._witnessed:
                self.group_position, witness = self._witnessed[at]
                self.group_start, taken = at, 0
                self.group_kept = []
            if not isinstance(found, str) and taken < len(witness) and witness[taken] != found.head_check:
                found = "header, topic or properties do not match their checksum"
            elif not isinstance(found, str) and taken >= len(witness) and self._doubtful(found):
                found = "topic or properties hold zero bytes and there is no checksum to say that this is right"
            if isinstance(found, str):
                self.reason = found
                return None
            if taken < len(witness):
                self.group_kept.append(witness[taken])
                taken += 1
            at += found.size
            self.records += 1
            self.last_store_ms = max(self.last_store_ms, found.store_ms)
            self.end = at
            yield found
