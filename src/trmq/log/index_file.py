"""One file of the key index: a hash table of chains, newest entry first, as Apache's `IndexFile` lays it out.

Header (40 bytes, big-endian): beginTimestamp 8 | endTimestamp 8 | beginPhyOffset 8 | endPhyOffset 8 | slots used 4 | next index 4
Slots: 4 bytes each, the newest entry of the chain, 0 if none. Entry *k* (from 1): keyHash 4 | phyOffset 8 | seconds since begin 4 | prev 4

New entries wait in memory; slots are loaded in pages of 4 KiB when first touched. Nothing is written through a mapping, so that a
full disk is an exception and not a signal. Writing back takes three steps with a sync after each: entries, then slots, then
the header. So whatever a crash leaves,

- entries below the header's next index N are there, and so are the slots that lead to them;
- a slot may already point to an entry >= N. Walking its `prev` links until an index < N gives *exactly* the value the slot had
  when N was the next index: an entry's `prev` is what its slot held the moment it was put, and links only lead to lower
  indexes. The entries >= N that are walked over are durable, because slots are written only after them.

Before an entry >= N may be overwritten (another record may come to be at that place), such slots are put right and synced:
"settled". A slot is 4 bytes on a 4-byte boundary and so never torn by a sector edge; the header lies in one sector.

Source: reference "store" section 3; `IndexFile`, `IndexHeader`.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence

from trmq.host import File
from trmq.log.index_files import CorruptIndex, FileCache, first_true

HEADER = struct.Struct(">qqqqii")
HEADER_SIZE = 40
ENTRY = struct.Struct(">iqii")
ENTRY_SIZE = 20
PAGE_SLOTS = 1024
REMEDY = "the index is built again from the log"
_SECONDS_MAX = 0x7FFFFFFF
_SWAP = sys.byteorder == "little"
_pack = ENTRY.pack


class IndexFile:
    """One index file. `count` is the next index, so `count - 1` entries are in it; `end_phy` and `end_ms` belong to the last one."""

    def __init__(self, files: FileCache, path: str, slots: int, entries_max: int) -> None:
        self.path = path
        self.slots = slots
        self.entries_max = entries_max
        self.size = HEADER_SIZE + slots * 4 + entries_max * ENTRY_SIZE
        self.begin_ms = self.end_ms = self.begin_phy = self.end_phy = 0
        self.slots_used = 0
        self.count = 1
        self._files = files
        self._entries_at = HEADER_SIZE + slots * 4
        self._pages: dict[int, array[int]] = {}
        self._dirty: set[int] = set()  # pages that differ from the file
        self._pending = bytearray()  # entries [_written, count)
        self._written = 1
        self._saved = 1  # next index of the header on disk
        self._repair: tuple[bytes, dict[int, bytes]] | None = None  # header and slots to be durable before entries are overwritten
        self._checked: set[int] = set()  # pages whose values were found possible
        self._generation = 0
        self.repaired = False
        """The header was damaged and has been derived from slots and entries."""

    @property
    def dirty(self) -> bool:
        return bool(self._pending or self._dirty or self._saved != self.count or self._repair)

    @property
    def room(self) -> int:
        """How many more entries fit. Apache leaves the last place unused."""
        return self.entries_max - self.count

    # --- put

    def put(self, hashes: Sequence[int], phy: int, store_ms: int) -> None:
        """Add one entry per key hash (>= 0) of the record at log offset `phy`. There must be room."""
        self.put_all([(key_hash, phy, store_ms) for key_hash in hashes])

    def put_all(self, entries: Sequence[tuple[int, int, int]]) -> None:
        """Add entries of (key hash, log offset, store time), at least one, in log order. There must be room."""
        index = self.count
        if index == 1:
            _, self.begin_phy, self.begin_ms = entries[0]
        begin_ms, last_ms, seconds = self.begin_ms, -1, 0
        slots, pages, pending, dirty, used = self.slots, self._pages, self._pending, self._dirty, 0
        for key_hash, phy, store_ms in entries:
            if store_ms != last_ms:
                # Apache measures the first entry of a file from the end of the file before; here it is 0, which is the truth
                seconds = min(max((store_ms - begin_ms) // 1000, 0), _SECONDS_MAX)
                last_ms = store_ms
            slot = key_hash % slots
            number = slot >> 10
            page = pages.get(number)
            if page is None:
                page = self._page(number)
            at = slot & 1023
            prev = page[at]
            page[at] = index
            dirty.add(number)
            pending += _pack(key_hash, phy, seconds, prev)
            if not prev:
                used += 1
            index += 1
        self.count = index
        self.slots_used += used
        _, self.end_phy, self.end_ms = entries[-1]

    # --- look up

    def find(self, key_hash: int, begin_ms: int, end_ms: int) -> Iterator[int]:
        """Log offsets of entries with this hash stored in [begin_ms, end_ms], to the second, newest first. Every chain walk ends:
        links must lead to lower indexes. Raises `CorruptIndex` if one doesn't."""
        if self.count <= 1 or end_ms < self.begin_ms or begin_ms >= self.end_ms + 1000:
            return
        slot = key_hash % self.slots
        page = self._pages.get(slot >> 10)
        index = page[slot & 1023] if page is not None else self._slot_on_disk(slot)
        while index > 0:
            entry_hash, phy, seconds, prev = self.entry(index)
            at = self.begin_ms + (0 if index == 1 else seconds * 1000)
            if entry_hash == key_hash and at + 999 >= begin_ms and at <= end_ms:
                yield phy
            if prev >= index:
                raise CorruptIndex(f"{self.path}: entry {index} links to entry {prev}; {REMEDY}")
            index = prev

    def entry(self, index: int) -> tuple[int, int, int, int]:
        """(key hash, phy_offset, seconds since begin, prev) of entry `index`, in memory or on disk."""
        if index >= self._written:
            at = (index - self._written) * ENTRY_SIZE
            if at + ENTRY_SIZE <= len(self._pending):
                return ENTRY.unpack_from(self._pending, at)
        if not 0 < index < self.entries_max:
            raise CorruptIndex(f"{self.path}: a chain leads to entry {index}, which can't exist; {REMEDY}")
        return ENTRY.unpack(self._file().read_at(self._entries_at + index * ENTRY_SIZE, ENTRY_SIZE))

    def hashes_of_last(self, phy: int) -> list[int]:
        """Key hashes of the entries at the end of the file that belong to the record at log offset `phy`, in their order."""
        found = []
        index = self.count - 1
        while index > 0:
            entry_hash, at, _, _ = self.entry(index)
            if at != phy:
                break
            found.append(entry_hash)
            index -= 1
        return found[::-1]

    # --- load, settle, truncate

    def load(self, *, clean: bool) -> None:
        """Read the header and, after an unclean stop, put right the slots that are ahead of it. Raises `CorruptIndex`."""
        size = self._files.disk.size_of(self.path)
        if size < self.size and not any(self._files.disk.open_read(self.path).read_at(0, HEADER_SIZE)):
            return  # being made when power went: the length was not durable, so nothing in it was promised
        if size != self.size:
            raise CorruptIndex(
                f"{self.path} has {size} bytes, {self.size} are expected for {self.slots} slots and {self.entries_max} entries; {REMEDY}"
            )
        fields = HEADER.unpack(self._file().read_at(0, HEADER_SIZE))
        self.begin_ms, self.end_ms, self.begin_phy, self.end_phy, self.slots_used, count = fields
        self.count = self._written = self._saved = max(count, 1)
        if count <= 1:
            return
        sane = count <= self.entries_max and 0 <= self.slots_used <= self.slots and 0 <= self.begin_phy <= self.end_phy
        if not sane or self.entry(count - 1)[1] != self.end_phy or self.entry(1)[1] != self.begin_phy:
            self._derive_header()
        if not clean:
            changed, self.slots_used = self._settle(self.entries_max, verify=True)
            if changed:
                self._repair = self._header(), self._copies(changed)

    def save_again(self) -> None:
        """Have the next `write_back` make the header durable before any entry is overwritten: it may only be in the page cache."""
        if self._repair is None:
            self._repair = self._header(), {}

    def _derive_header(self) -> None:
        """A header torn by losing power, made anew: it is written last, so the slots then lead to every entry there is, and the newest
        entry is the head of its chain. The end time is right to the second. Raises `CorruptIndex` if that makes no sense either."""
        self.repaired = True
        pages = range((self.slots + PAGE_SLOTS - 1) // PAGE_SLOTS)
        newest = max(max(self._read_page(number)) for number in pages)
        if not 0 < newest < self.entries_max:
            raise CorruptIndex(f"{self.path}: neither the header nor the slots say how many entries there are; {REMEDY}")
        self.count = self._written = newest + 1
        self._saved = 0
        self.begin_phy = self.entry(1)[1]
        _, self.end_phy, seconds, _ = self.entry(newest)
        self.end_ms = self.begin_ms + seconds * 1000 + 999
        if not 0 <= self.begin_phy <= self.end_phy or seconds < 0:
            raise CorruptIndex(f"{self.path}: the header does not fit the entries, nor do these fit each other; {REMEDY}")
        _, self.slots_used = self._settle(self.entries_max)

    def truncate(self, phy: int) -> None:
        """Drop the entries of all records at or behind log offset `phy`. An emptied file is the caller's to remove."""
        count = first_true(1, self.count, lambda index: self.entry(index)[1] >= phy)
        if count == self.count:
            return
        self._generation += 1
        limit, self.count = self.count, count
        if count > 1:
            _, self.end_phy, seconds, _ = self.entry(count - 1)
            self.end_ms = min(self.end_ms, self.begin_ms + seconds * 1000 + 999)
        changed, self.slots_used = self._settle(limit)
        if count >= self._written:  # what is on disk is as good as before
            del self._pending[(count - self._written) * ENTRY_SIZE :]
            self._dirty |= changed
            return
        self._pending.clear()
        self._written = count
        self._dirty.clear()
        self._repair = self._header(), self._copies(set(self._pages))

    def _settle(self, limit: int, *, verify: bool = False) -> tuple[set[int], int]:
        """Resolve every slot that points at or behind `count`, in memory. Returns the pages that changed and how many slots are in
        use. `limit` bounds the indexes that may be walked over.

        `verify` also looks whether a slot's entry belongs to it: should a slot have been torn after all, it holds leading bytes of the
        new index and trailing ones of the old, hence at least the new one with its two (above 2^24: three) low bytes cleared."""
        floor = self.count if not verify else self.count & ~0xFFFF if self.count < 1 << 24 else 1 << 24
        used = 0
        changed = set()
        empty = bytes(PAGE_SLOTS * 4)
        file = self._file()
        for number in range((self.slots + PAGE_SLOTS - 1) // PAGE_SLOTS):
            page = self._pages.get(number)
            if page is None:
                if self._page_bytes(file, number) == empty:
                    continue
                page = self._read_page(number)
            if max(page) >= floor or min(page) < 0:
                for at, index in enumerate(page):
                    if index < 0 or (index and index >= floor):
                        resolved = self._resolve(number * PAGE_SLOTS + at, index, limit)
                        if resolved != index:
                            page[at] = resolved
                            changed.add(number)
                            self._pages[number] = page
            used += len(page) - page.count(0)
        return changed, used

    def _resolve(self, slot: int, index: int, limit: int) -> int:
        """The newest entry below `count` of the chain that the slot led to when it held `index`."""
        while True:
            if not 0 <= index < limit:
                return self._newest_of(slot)
            if index == 0:
                return 0
            key_hash, _, _, prev = self.entry(index)
            if key_hash < 0 or key_hash % self.slots != slot or not 0 <= prev < index:
                return self._newest_of(slot)
            if index < self.count:
                return index
            index = prev

    def _newest_of(self, slot: int) -> int:
        """The newest entry below `count` that belongs to a slot, found by looking at all of them: for a slot that is damaged."""
        return next((index for index in range(self.count - 1, 0, -1) if self.entry(index)[0] % self.slots == slot), 0)

    # --- write back

    def write_back(self) -> Iterator[File]:
        """Write everything put before the call, in steps; each yields the file to be synced before the next step. Entries may be put
        meanwhile: they belong to the next round. Raises `DiskFull`, `DiskFailed`; everything stays to be written then."""
        generation = self._generation
        if self._repair is not None:
            # the header first: should only it get through, slots ahead of it are resolved again, from entries still intact
            repair_header, repair_pages = self._repair
            self._file().write_at(0, repair_header)
            yield self._file()
            yield from self._write_slots(repair_pages)
            if generation != self._generation:
                return
            self._repair = None
        count, header, pages = self.count, self._header(), self._snapshot_pages()
        try:
            if self._pending:
                data = bytes(self._pending)
                self._file().write_at(self._entries_at + self._written * ENTRY_SIZE, data)
                self._written += len(data) // ENTRY_SIZE
                del self._pending[: len(data)]
            yield self._file()
            if generation != self._generation:
                return
            yield from self._write_slots(pages)
            if generation != self._generation:
                return
            self._file().write_at(0, header)
            yield self._file()
            if generation != self._generation:
                return
            self._saved = count
            pages = {}
            self._forget_pages()
        finally:
            if generation == self._generation:
                self._dirty.update(pages)  # not carried through

    def _snapshot_pages(self) -> dict[int, bytes]:
        """The dirty pages as they are now; they count as clean from here on."""
        taken = self._copies(self._dirty)
        self._dirty.clear()
        return taken

    def _copies(self, numbers: set[int]) -> dict[int, bytes]:
        return {number: _to_disk(self._pages[number]) for number in sorted(numbers)}

    def _write_slots(self, pages: dict[int, bytes]) -> Iterator[File]:
        """Write pages, neighbours in one go, then yield the file."""
        file = self._file()
        run: list[bytes] = []
        first = 0
        for number, data in pages.items():
            if run and number != first + len(run):
                file.write_at(HEADER_SIZE + first * PAGE_SLOTS * 4, b"".join(run))
                run = []
            if not run:
                first = number
            run.append(data)
        if run:
            file.write_at(HEADER_SIZE + first * PAGE_SLOTS * 4, b"".join(run))
            yield file

    def _header(self) -> bytes:
        return HEADER.pack(self.begin_ms, self.end_ms, self.begin_phy, self.end_phy, self.slots_used, self.count)

    def _forget_pages(self) -> None:
        """Let go of the pages that were not touched since the round began: an idle index holds no slots in memory."""
        self._pages = {number: page for number, page in self._pages.items() if number in self._dirty}

    # --- pages

    def _file(self) -> File:
        return self._files.get(self.path, self.size)

    def _page_bytes(self, file: File, number: int) -> bytes:
        slots = min(PAGE_SLOTS, self.slots - number * PAGE_SLOTS)
        return bytes(file.read_at(HEADER_SIZE + number * PAGE_SLOTS * 4, slots * 4))

    def _read_page(self, number: int) -> array[int]:
        page = array("i", self._page_bytes(self._file(), number))
        if _SWAP:
            page.byteswap()
        return page

    def _page(self, number: int) -> array[int]:
        page = self._pages[number] = self._read_page(number)
        if number not in self._checked:
            self._checked.add(number)
            if max(page) >= self.count or min(page) < 0:
                for at, index in enumerate(page):
                    page[at] = index if 0 <= index < self.count else 0  # damage; Apache takes such a slot for empty, too
        return page

    def _slot_on_disk(self, slot: int) -> int:
        """A slot's value without keeping its page; a value no entry can have is an empty slot, as in Apache."""
        value = int.from_bytes(self._file().read_at(HEADER_SIZE + slot * 4, 4), "big", signed=True)
        return value if 0 < value < self.count else 0


def _to_disk(page: array[int]) -> bytes:
    if not _SWAP:
        return page.tobytes()
    swapped = page[:]
    swapped.byteswap()
    return swapped.tobytes()
