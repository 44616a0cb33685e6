"""Two checkpoints: Apache's, kept for Apache, and our own, from which a restart is quick and provable.

**Apache's `checkpoint`** (4096 bytes, first 40 used, no checksum): store times (ms) of the last record that is durable in the log, in all
consume queues, in the key index; then master-flushed and confirm offset, which we leave as found. Only durable facts go in
(TRAP-S19). Source: `StoreCheckpoint`; reference "store" section 7.

**Ours, `trmq/checkpoint`**: two slots of 512 bytes (a sector each) at 0 and 4096; the valid one with the higher sequence counts.

    magic 8 | sequence 8 | clean 4 | incarnation 4 | segment size 8 | flushed 8 | queues 8 | index 8 | checksum position 8 |
    last store ms 8 | reach 8 | has queues 4 | has index 4 | Apache crc, old 4 | Apache crc, new 4 | crc 4        big-endian

`flushed`: every byte of the log below is durable. `queues`, `index`: units and entries of all records below are durable; never above
`flushed`. `reach`: no byte of the log at or above was ever written, so recovery need not look there for remains (0: unknown).
`checksum position`: where in the checksum file the groups from min(queues, index) on begin.

After a clean stop `queues` lies below `flushed` only while queues are built again.

A slot written without a sync (after each flush, so that `kill -9` finds a fine mark) never overwrites the slot that was last synced:
whatever a power cut tears, that one remains.

**Did Apache run on this store since?** Then our marks and checksums speak of bytes that may have been replaced. It shows: Apache's
checkpoint is neither what it was nor what we meant to write (both crcs are in the slot, ours is written first), or `abort` is not
ours (ours ends with a line feed), or it is gone although we did not stop cleanly.
"""

from __future__ import annotations

import struct
import zlib

import attrs

from trmq.host import Disk, File

APACHE_PATH = "checkpoint"
APACHE_SIZE = 4096
ABORT_PATH = "abort"
LOCK_PATH = "lock"
OWN_PATH = "trmq/checkpoint"
_APACHE = struct.Struct(">qqqqq")
_MAGIC = b"trmqckp2"
_SLOT = struct.Struct(">8sQIIQQQQQQQIIII")
_SLOT_POSITIONS = (0, 4096)
_OWN_SIZE = 8192


@attrs.frozen
class ApacheMarks:
    """Apache's five fields; times in ms since the epoch."""

    log_ms: int = 0
    queues_ms: int = 0
    index_ms: int = 0
    master_flushed: int = 0
    confirm: int = 0

    def encode(self) -> bytes:
        return _APACHE.pack(self.log_ms, self.queues_ms, self.index_ms, self.master_flushed, self.confirm)

    @property
    def crc(self) -> int:
        return zlib.crc32(self.encode())


def read_apache(disk: Disk) -> ApacheMarks:
    """Apache's checkpoint; all zero without one."""
    if not disk.exists(APACHE_PATH):
        return ApacheMarks()
    file = disk.open_read(APACHE_PATH)
    try:
        raw = bytes(file.read_at(0, _APACHE.size))
    finally:
        file.close()
    return ApacheMarks(*_APACHE.unpack(raw)) if len(raw) == _APACHE.size else ApacheMarks()


@attrs.frozen
class Marks:
    """What is proven durable; see the module. Offsets are physical and exclusive."""

    clean: bool = False
    incarnation: int = 0
    segment_size: int = 0
    flushed: int = 0
    queues: int = 0
    index: int = 0
    checksum_position: int = 0
    last_store_ms: int = 0
    reach: int = 0
    has_queues: bool = False
    has_index: bool = False
    apache_old: int = 0
    apache_new: int = 0

    def encode(self, sequence: int) -> bytes:
        body = _SLOT.pack(
            _MAGIC, sequence, self.clean, self.incarnation, self.segment_size, self.flushed, self.queues, self.index,
            self.checksum_position, self.last_store_ms, self.reach, self.has_queues, self.has_index, self.apache_old, self.apache_new,
        )
        return body + zlib.crc32(body).to_bytes(4, "big")


def decode_slot(raw: bytes) -> tuple[int, Marks] | None:
    """(sequence, marks) of one slot, None if it is empty or damaged."""
    if len(raw) < _SLOT.size + 4 or zlib.crc32(raw[: _SLOT.size]) != int.from_bytes(raw[_SLOT.size : _SLOT.size + 4], "big"):
        return None
    fields = _SLOT.unpack_from(raw)
    magic, sequence, clean, incarnation, segment, flushed, queues, index, position, ms, reach, has_q, has_i, old, new = fields
    if magic != _MAGIC:
        return None
    return sequence, Marks(
        clean=bool(clean), incarnation=incarnation, segment_size=segment, flushed=flushed, queues=queues, index=index,
        checksum_position=position, last_store_ms=ms, reach=reach,
        has_queues=bool(has_q), has_index=bool(has_i), apache_old=old, apache_new=new,
    )


async def disown_if_foreign(disk: Disk) -> None:
    """Before recovery touches what the marks speak of: it truncates queues that they call durable. Raises `DiskFull`, `DiskFailed`."""
    checkpoints = Checkpoints(disk)
    if checkpoints.marks is None or not checkpoints.foreign():
        return
    try:
        await checkpoints.disown()
    finally:
        checkpoints.close()


class Checkpoints:
    """Both files, open for the life of a store. `marks` is what was last written."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.apache = read_apache(disk)
        self.marks: Marks | None = None
        self.durable_flushed = 0
        """The `flushed` of what is durable: no power cut takes the mark back behind it."""
        self._sequence = 0
        self._synced_slot: int | None = None
        self._syncing = False
        if disk.exists(OWN_PATH):
            self._load()
        self._own: File | None = None
        self._apache_file: File | None = None

    def _load(self) -> None:
        file = self._disk.open_read(OWN_PATH)
        try:
            for slot, position in enumerate(_SLOT_POSITIONS):
                found = decode_slot(bytes(file.read_at(position, _SLOT.size + 4)))
                if found is not None and found[0] > self._sequence:
                    self._sequence, self.marks = found
                    self._synced_slot = slot
        finally:
            file.close()

    def foreign(self) -> bool:
        """Whether Apache (or nobody we know) wrote the store since `marks`, so that they must not be trusted."""
        if self.marks is None or self.apache.crc not in (self.marks.apache_old, self.marks.apache_new):
            return True
        if not self._disk.exists(ABORT_PATH):
            return not self.marks.clean
        return not self.abort_is_ours()

    def abort_is_ours(self) -> bool:
        file = self._disk.open_read(ABORT_PATH)
        try:
            content = bytes(file.read_at(0, 64))
        finally:
            file.close()
        return content.endswith(b"\n") or not content

    async def disown(self) -> None:
        """After Apache ran: make it durable that `marks` say nothing of this store, whatever a power cut leaves of Apache's file."""
        assert self.marks is not None
        taken = (self.apache.crc, self.marks.apache_old, self.marks.apache_new)
        nobody = next(crc for crc in range(4) if crc not in taken)
        slot = self._write(attrs.evolve(self.marks, clean=False, apache_old=nobody, apache_new=nobody))
        assert self._own is not None
        await self._own.sync()
        self._synced_slot = slot

    @property
    def busy(self) -> bool:
        """Whether a `save` is under way."""
        return self._syncing

    def note(self, marks: Marks, *, at_once: bool = False) -> None:
        """Write `marks` without a sync, unless one is under way (`at_once`: even then). Survives the process, perhaps not the power."""
        if at_once or not self._syncing:
            self._write(marks)

    def _write(self, marks: Marks) -> int:
        if self._own is None:
            fresh = not self._disk.exists(OWN_PATH)
            self._own = self._disk.open(OWN_PATH, _OWN_SIZE)
            if fresh:  # a hole needs room when it is first written, and the disk may be full by then
                self._own.write_at(0, bytes(_OWN_SIZE))
        slot = 1 - self._synced_slot if self._synced_slot is not None else 0
        self._sequence += 1
        self._own.write_at(_SLOT_POSITIONS[slot], marks.encode(self._sequence))
        self.marks = marks
        return slot

    async def save(self, marks: Marks, apache: ApacheMarks) -> None:
        """Make both durable, ours first; marks' crc fields are filled in here."""
        marks = attrs.evolve(marks, apache_old=self.apache.crc, apache_new=apache.crc)
        slot = self._write(marks)
        assert self._own is not None
        self._syncing = True
        try:
            await self._own.sync()
            self._synced_slot = slot
            self.durable_flushed = marks.flushed
            if apache != self.apache or self._apache_file is None:
                if self._apache_file is None:
                    self._apache_file = self._disk.open(APACHE_PATH, APACHE_SIZE)
                self._apache_file.write_at(0, apache.encode())
                self.apache = apache
                await self._apache_file.sync()
        finally:
            self._syncing = False

    def close(self) -> None:
        for file in (self._own, self._apache_file):
            if file is not None:
                file.close()
