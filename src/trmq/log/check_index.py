"""Checking the key index against itself (links, slots, header) and against the log (keys of records are found, up to a bound)."""

from __future__ import annotations

import sys
from array import array
from itertools import count
from operator import ge

from trmq.host import Disk, File
from trmq.log.index_file import ENTRY_SIZE, HEADER_SIZE, PAGE_SLOTS, IndexFile
from trmq.log.index_files import CorruptIndex, FileCache
from trmq.log.key_index import INDEX_ENTRIES, INDEX_SLOTS
from trmq.log.report import Report
from trmq.message import TRANSACTION_MASK, TRANSACTION_ROLLBACK, java_hash

REBUILD = "remove the index folder to have it built again from the log"
_STEPS_MAX = 4_000_000
_CHUNK_ENTRIES = 200_000


class ReadOnlyFiles(FileCache):
    """Opens for reading only and never creates or extends anything."""

    def get(self, path: str, size: int = 0) -> File:
        file = self._open.get(path)
        if file is None:
            file = self._open[path] = self.disk.open_read(path)
        return file


class IndexCheck:
    """Loads all index files at once (headers only); fed with every record, then `finish`."""

    def __init__(self, disk: Disk, report: Report, layout: tuple[int, int] | None, *, clean: bool, keys_max: int) -> None:
        self._report = report
        self._clean = clean
        self._keys_left = keys_max
        self._steps_left = _STEPS_MAX
        self._files: list[IndexFile] = []
        self._cache = ReadOnlyFiles(disk)
        self._checked = self._records = 0
        self._behind = -1
        for name in disk.names("index"):
            if len(name) == 17 and name.isdecimal():
                self._load(disk, f"index/{name}", layout)

    def _load(self, disk: Disk, path: str, layout: tuple[int, int] | None) -> None:
        size = disk.size_of(path)
        slots, entries = layout or (INDEX_SLOTS, INDEX_ENTRIES)
        if layout is None and size != HEADER_SIZE + slots * 4 + entries * ENTRY_SIZE:
            slots = (size - HEADER_SIZE) // 84  # Apache's proportion: four entries to a slot
            entries = slots * 4
            if not size:
                self._report.add("info", "index-empty", path, None, "an empty index file, being made when the store stopped")
                return
            if HEADER_SIZE + slots * 84 != size:
                self._report.add("warning", "index-layout", path, None, f"has {size} bytes: not a usual layout",
                                 "name the slots and entries it was made with")
                return
        file = IndexFile(self._cache, path, slots, entries)
        try:
            file.load(clean=self._clean)
        except CorruptIndex as error:
            self._report.add("error", "index-header", path, 0, str(error))
            return
        if file.count > 1:
            self._files.append(file)

    def record(self, phy: int, topic: bytes, sys_flag: int, properties: bytes) -> None:
        """Look up the UNIQ_KEY and KEYS of the record, as long as the bounds allow."""
        self._records += 1
        if self._keys_left <= 0 or self._steps_left <= 0 or not self._files or sys_flag & TRANSACTION_MASK == TRANSACTION_ROLLBACK:
            return
        file = next((file for file in self._files if file.begin_phy <= phy <= file.end_phy), None)
        if file is None:
            if phy > self._files[-1].end_phy and self._behind < 0 and b"UNIQ_KEY\x01" in properties:
                self._behind = phy
            return
        for pair in properties.split(b"\x02"):
            name, _, value = pair.partition(b"\x01")
            if name == b"UNIQ_KEY" or name == b"KEYS":
                for key in value.split(b" ") if name == b"KEYS" else (value,):
                    if key:
                        self._look_up(file, topic, key, phy)

    def _look_up(self, file: IndexFile, topic: bytes, key: bytes, phy: int) -> None:
        code = abs(java_hash(f"{topic.decode('utf-8', 'replace')}#{key.decode('utf-8', 'replace')}"))
        wanted = code if code < 0x80000000 else 0
        self._keys_left -= 1
        slot = wanted % file.slots
        page = file._pages.get(slot >> 10)
        index = page[slot & 1023] if page is not None else file._slot_on_disk(slot)
        while index > 0 and self._steps_left > 0:
            self._steps_left -= 1
            entry_hash, at, _, prev = file.entry(index)
            if at < phy or prev >= index:
                index = 0
                break
            if at == phy and entry_hash == wanted:
                self._checked += 1
                return
            index = prev
        if index <= 0:
            self._checked += 1
            others = [other for other in self._files if other is not file and other.begin_phy <= phy <= other.end_phy]
            if others:
                return  # the record's keys lie on the border of two files
            self._report.add("error", "index-key", file.path, None,
                             f"key {key.decode('utf-8', 'replace')!r} of the record at log offset {phy} is not found", REBUILD)

    def finish(self, min_phy: int, max_phy: int) -> None:
        entries = 0
        for file in self._files:
            entries += file.count - 1
            self._check_entries(file)
            self._check_slots(file)
            if file.end_phy >= max_phy > min_phy and self._clean:
                problem = f"its last record {file.end_phy} lies behind the end of the log"
                self._report.add("error", "index-ahead", file.path, 24, problem, REBUILD)
        if self._behind >= 0:
            problem = f"records from log offset {self._behind} on are not indexed"
            if self._clean:
                self._report.add("error", "index-behind", self._files[-1].path, None, problem, REBUILD)
            else:
                self._report.add("info", "index-behind", self._files[-1].path, None, problem, "the next start does it")
        if not self._files and self._records:
            self._report.add("info", "no-index", "index", None, "there is no key index")
        bounded = self._keys_left <= 0 or self._steps_left <= 0
        self._report.facts.update(index_files=len(self._files), index_entries=entries, keys_checked=self._checked, keys_sampled=bounded)
        self._cache.close()

    def _check_entries(self, file: IndexFile) -> None:
        """Links must lead to lower indexes, log offsets must not decrease: so every walk ends and truncation finds its place."""
        handle = file._file()
        last = file.begin_phy
        for first in range(1, file.count, _CHUNK_ENTRIES):
            n = min(_CHUNK_ENTRIES, file.count - first)
            words = array("i", bytes(handle.read_at(file._entries_at + first * ENTRY_SIZE, n * ENTRY_SIZE)))
            if sys.byteorder == "little":
                words.byteswap()
            links = words[4::5]
            if any(map(ge, links, count(first))) or min(links) < 0:
                at = next(i for i, prev in enumerate(links, first) if not 0 <= prev < i)
                self._report.add("error", "index-link", file.path, file._entries_at + at * ENTRY_SIZE,
                                 f"entry {at} links to entry {links[at - first]}", REBUILD)
                return
            offsets = [high << 32 | (low & 0xFFFFFFFF) for high, low in zip(words[1::5], words[2::5], strict=True)]
            if offsets[0] < last or offsets != sorted(offsets):
                self._report.add("error", "index-order", file.path, file._entries_at + first * ENTRY_SIZE,
                                 f"log offsets decrease among entries {first} to {first + n - 1}", REBUILD)
                return
            last = offsets[-1]

    def _check_slots(self, file: IndexFile) -> None:
        used = 0
        handle = file._file()
        for number in range((file.slots + PAGE_SLOTS - 1) // PAGE_SLOTS):
            page = file._pages.get(number)
            if page is None:
                if not any(file._page_bytes(handle, number)):
                    continue
                page = file._read_page(number)
            used += len(page) - page.count(0)
            if min(page) < 0 or max(page) >= file.count:
                at = next(i for i, index in enumerate(page) if not 0 <= index < file.count)
                self._report.add("error", "index-slot", file.path, HEADER_SIZE + (number * PAGE_SLOTS + at) * 4,
                                 f"slot {number * PAGE_SLOTS + at} leads to entry {page[at]} of {file.count - 1}", REBUILD)
        if used != file.slots_used:
            self._report.add("warning", "index-header", file.path, 32, f"the header says {file.slots_used} slots are used, {used} are")
