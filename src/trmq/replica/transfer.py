"""The default HA protocol, both ends, as plain machines: bytes in, bytes and decisions out.

The slave dials the master's HA port. There is no handshake, and nobody says who he is:

    slave -> master    offset 8                                     how far my log reaches; the first one is also where to begin
    master -> slave    offset 8 | size 4 | body (size bytes)        the log from `offset` on; size 0 is a heartbeat

All big-endian, signed. A frame never crosses the edge of a segment, its offset is the end of what was sent before it, and its body is a
stretch of raw log: it may begin and end within a record. Between two trmq brokers the slave's first word is a token, negative and so
never an offset, that the master gave it over the remoting port together with its consent (`trmq.replica.master`).

**Nobody is trusted.** The master drops a peer that reports what it cannot have, and the slave one that sends what cannot be a log
(`PeerRefused`). The slave keeps back what is not a whole record yet: its log ends at a record's end at all times, so an offset it
reports never lies within one.

Source: reference "ha" section 1; `DefaultHAConnection`, `DefaultHAClient`. Upholds P-HA-1 to P-HA-4, P-HA-7, P-HA-8.
"""

from __future__ import annotations

import struct
import zlib

from trmq.errors import RemoteProtocolError
from trmq.host import Buffer
from trmq.message import BORN_HOST_V6, STORE_HOST_V6
from trmq.record import BLANK_SIZE_MIN, FIXED_SIZE, MAGIC_BLANK, MAGIC_V1, MAGIC_V2

REPORT = struct.Struct(">q")
HEADER = struct.Struct(">qi")
HEADER_SIZE = HEADER.size
APACHE_BATCH_BYTES = 32 * 1024
"""What Apache's master sends at most in one frame."""
BATCH_BYTES = 1 << 20
"""What a trmq slave gets at most in one frame."""
FRAME_BYTES_MAX = 64 << 20
"""No master sends more in a frame: its size is configurable, but a peer of another kind is found out by it."""
UNIT_BYTES_MAX = 64 << 20
"""No record or blank is larger; a peer that says otherwise must not make us keep what it sends."""
_FRONT = struct.Struct(">III16xqi44xi")  # size, magic, body CRC, own offset, flags, body size (where both hosts are IPv4)
_BODY_SIZE = struct.Struct(">i")
TOPICS_MAX = 10_000
"""So many topics that were looked at are remembered."""
DAMAGED = (
    "what the master sent for offset {} is damaged, {}: run `trmq store check` on the master's store; if it is damaged there, make a sound "
    "copy the master"
)
_crc32 = zlib.crc32
_PREFIX = struct.Struct(">II")
MAGICS = (MAGIC_V1, MAGIC_V2)
HOSTS_V6 = BORN_HOST_V6 | STORE_HOST_V6


class PeerRefused(RemoteProtocolError):
    """The other side cannot be right; the connection is closed, and the sentence is logged and counted."""


def encode_report(offset: int) -> bytes:
    assert offset >= 0
    return REPORT.pack(offset)


def encode_header(offset: int, size: int) -> bytes:
    assert offset >= 0
    assert 0 <= size <= FRAME_BYTES_MAX
    return HEADER.pack(offset, size)


def beginning(requested: int, min_phy: int, max_phy: int, segment_size: int, last_segment: bool) -> int:
    """Where a slave whose log ends at `requested` gets its first byte from. Below `min_phy`: from nowhere, the master has it no more.

    pre: 0 <= min_phy <= max_phy <= 8192 and 0 <= requested <= max_phy and segment_size == 1024 and min_phy % segment_size == 0
    post: implies(requested > 0, __return__ == requested)
    post: implies(requested == 0, min_phy <= __return__ <= max_phy and __return__ % segment_size == 0)
    post: implies(requested == 0 and max_phy > min_phy, __return__ < max_phy)
    """
    if requested:
        return requested
    start = max_phy - max_phy % segment_size if last_segment else min_phy
    if start == max_phy and last_segment and max_phy > min_phy:
        start -= segment_size  # the log ends exactly at an edge
    return max(start, min_phy)


class MasterEnd:
    """The master's end of one connection: what the slave said, and what it gets next."""

    __slots__ = ("_rest", "acked", "batch_bytes", "next_offset", "requested", "token")

    def __init__(self, batch_bytes: int = APACHE_BATCH_BYTES) -> None:
        self.batch_bytes = batch_bytes
        self.token: int | None = None
        """The first word, if it was one of ours."""
        self.requested: int | None = None
        """The first offset the slave sent: where it wants to begin."""
        self.acked = -1
        """The last offset the slave reported (exclusive end of its log), -1 before the first."""
        self.next_offset = -1
        """Where the next frame begins, -1 before `begin`."""
        self._rest = b""

    def receive(self, data: Buffer, max_phy: int) -> bool:
        """Take in bytes of the slave; True if it said something. `max_phy` is the end of the master's log.

        Raises `PeerRefused` for an offset the slave cannot have: beyond the master's log, or lower than one it reported before.
        """
        data = self._rest + bytes(data)
        count = len(data) // REPORT.size
        self._rest = data[count * REPORT.size :]
        for (word,) in REPORT.iter_unpack(data[: count * REPORT.size]):
            if word < 0 and self.requested is None and self.token is None:
                self.token = word
            else:
                self._report(word, max_phy)
        return count > 0

    def _report(self, offset: int, max_phy: int) -> None:
        if offset < 0:
            raise PeerRefused(f"it sent {offset}, which is no offset")
        if offset > max_phy:
            raise PeerRefused(
                f"it reports {offset} but this master's log ends at {max_phy}: its log is longer, so it is not a copy of this one; "
                "make it the master if it holds what this one lost, or run `trmq store resync` on it"
            )
        if offset < self.acked:
            raise PeerRefused(f"it reports {offset} after {self.acked}: a slave's log does not shrink while it is connected")
        self.acked = offset
        if self.requested is None:
            self.requested = offset

    def begin(self, min_phy: int, max_phy: int, segment_size: int, *, last_segment: bool = False) -> int:
        """Decide where to send from: where the slave's log ends, or for an empty slave where the master's begins (`last_segment`: where
        its last segment does, as Apache). Raises `PeerRefused` if the master does not have those bytes any more."""
        assert self.requested is not None
        start = beginning(self.requested, min_phy, max_phy, segment_size, last_segment)
        if start < min_phy:
            raise PeerRefused(
                f"it ends at {start} but this master's log begins at {min_phy}: what lies between has expired here; "
                "run `trmq store resync` on the slave, it then copies everything from the beginning"
            )
        self.next_offset = start
        return start

    def next_slice(self, max_phy: int, segment_size: int) -> tuple[int, int] | None:
        """(offset, size) of the next stretch to send, and note it as sent; None when the slave has been sent all."""
        start = self.next_offset
        if not 0 <= start < max_phy:
            return None
        edge = start - start % segment_size + segment_size
        end = min(max_phy, edge, start + self.batch_bytes)
        self.next_offset = end
        return start, end - start


class SlaveEnd:
    """The slave's end of one connection: frames in, whole records out.

    `end` is the end of the log that the records are to be appended to, None while it is empty.
    """

    __slots__ = ("_body_left", "_head", "_tail", "_topics", "end", "heartbeats", "segment_size", "total")

    def __init__(self, end: int | None, segment_size: int) -> None:
        self.end = end
        self.segment_size = segment_size
        self.heartbeats = 0
        self.total = 0
        """Log bytes received."""
        self._head = b""
        self._body_left = 0
        self._tail = b""  # behind `end`: not a whole record yet
        self._topics: set[bytes] = set()  # that are UTF-8

    @property
    def expected(self) -> int | None:
        """The offset the next byte of the log must have."""
        return None if self.end is None else self.end + len(self._tail)

    def feed(self, data: Buffer) -> tuple[int, memoryview] | None:
        """Take in bytes of the master. The offset and bytes of the whole records that can be appended now, None if there are none;
        `end` has moved past them.

        Raises `PeerRefused` if this cannot be the continuation of the log; nothing of this call is to be appended then.
        """
        view = memoryview(data)
        at, size = 0, len(view)
        if not (self._tail or self._head or self._body_left) and size > HEADER_SIZE:
            offset, length = HEADER.unpack_from(view)
            if HEADER_SIZE + length == size:  # one whole frame, as they come while the slave keeps up
                self._begin_frame(offset, length, 0)
                self._body_left = 0
                self.total += length
                return self._take(view[HEADER_SIZE:])
        bodies: list[Buffer] = [self._tail] if self._tail else []
        while at < size:
            if not self._body_left:
                if self._head or size - at < HEADER_SIZE:
                    taken = min(HEADER_SIZE - len(self._head), size - at)
                    self._head += bytes(view[at : at + taken])
                    at += taken
                    if len(self._head) < HEADER_SIZE:
                        break
                    offset, length = HEADER.unpack(self._head)
                    self._head = b""
                else:
                    offset, length = HEADER.unpack_from(view, at)
                    at += HEADER_SIZE
                self._begin_frame(offset, length, sum(map(len, bodies)))
                continue
            stop = min(size, at + self._body_left)
            bodies.append(view[at:stop])
            self._body_left -= stop - at
            self.total += stop - at
            at = stop
        if not bodies:
            return None
        return self._take(memoryview(bodies[0] if len(bodies) == 1 else b"".join(bodies)))

    def _take(self, run: memoryview) -> tuple[int, memoryview] | None:
        assert self.end is not None
        start, whole = self.end, self._whole(run)
        self._tail = bytes(run[whole:])
        self.end += whole
        return (start, run[:whole]) if whole else None

    def _begin_frame(self, offset: int, length: int, gathered: int) -> None:
        if not 0 <= length <= FRAME_BYTES_MAX:
            raise PeerRefused(f"a frame of {length} bytes at offset {offset}: this is no HA port of RocketMQ, or not its master's")
        if self.end is None:
            if length == 0:
                self.heartbeats += 1
                return  # the master has nothing either, or says where it would begin
            if offset < 0 or offset % self.segment_size:
                raise PeerRefused(
                    f"the master's log begins at {offset}, no multiple of mappedFileSizeCommitLog={self.segment_size}: "
                    "set mappedFileSizeCommitLog to the master's value"
                )
            self.end = offset
        expected = self.end + gathered
        if offset != expected:
            raise PeerRefused(f"the master sends offset {offset} where {expected} follows")
        if length == 0:
            self.heartbeats += 1
        self._body_left = length

    def _whole(self, run: memoryview) -> int:
        """How many bytes at the beginning of `run`, which belongs at `end`, are whole records (and blanks that close a segment)."""
        assert self.end is not None
        at, size = 0, len(run)
        base, segment_size = self.end, self.segment_size
        edge = base - base % segment_size + segment_size
        unpack, front_size, crc32 = _FRONT.unpack_from, _FRONT.size, _crc32
        while size - at >= front_size:
            length, magic, crc, own, flags, body = unpack(run, at)
            room = edge - base - at
            if magic in MAGICS:
                if own != base + at or not FIXED_SIZE <= length <= room - BLANK_SIZE_MIN or length > UNIT_BYTES_MAX:
                    self._refuse(base + at, length, magic, own, room)
                if at + length > size:
                    return at
                body_at = at + front_size
                if flags & HOSTS_V6:
                    body_at += 12 * (bool(flags & BORN_HOST_V6) + bool(flags & STORE_HOST_V6))
                    (body,) = _BODY_SIZE.unpack_from(run, body_at - _BODY_SIZE.size)
                if body and crc32(run[body_at : body_at + body]) & 0x7FFFFFFF != crc:
                    raise PeerRefused(DAMAGED.format(base + at, "its body does not match its checksum"))
                end, wide = at + length, 1 if magic == MAGIC_V1 else 2
                topic_at = body_at + body + wide
                if body < 0 or topic_at + 2 > end:
                    raise PeerRefused(DAMAGED.format(base + at, "its parts do not add up to its size"))
                rest_at = topic_at + (run[topic_at - 1] if wide == 1 else run[topic_at - 2] << 8 | run[topic_at - 1]) + 2
                if rest_at > end or rest_at + (run[rest_at - 2] << 8 | run[rest_at - 1]) != end:
                    raise PeerRefused(DAMAGED.format(base + at, "its parts do not add up to its size"))
                if (topic := bytes(run[topic_at : rest_at - 2])) not in self._topics:
                    self._learn(topic, base + at)
                at = end
            elif magic == MAGIC_BLANK and length == room <= UNIT_BYTES_MAX:
                if at + length > size:
                    return at
                at += length
                edge += segment_size
            else:
                self._refuse(base + at, length, magic, own, room)
        if size - at >= _PREFIX.size:  # a blank may be shorter than any record's front
            length, magic = _PREFIX.unpack_from(run, at)
            if magic == MAGIC_BLANK and length == edge - (base + at) and at + length <= size:
                at += length
        return at

    def _learn(self, topic: bytes, phy: int) -> None:
        try:
            topic.decode()
        except UnicodeDecodeError:
            raise PeerRefused(DAMAGED.format(phy, "its topic is not UTF-8")) from None
        if len(self._topics) >= TOPICS_MAX:
            self._topics.clear()
        self._topics.add(topic)

    def _refuse(self, phy: int, length: int, magic: int, own: int, room: int) -> None:
        raise PeerRefused(
            f"what the master sent for offset {phy} is no record (size {length}, magic {magic:#010x}, own offset {own}, {room} bytes to "
            f"the segment's end): the logs differ, or mappedFileSizeCommitLog={self.segment_size} is not the master's"
        )
