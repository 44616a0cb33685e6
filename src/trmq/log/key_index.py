"""The key index: from `topic#key` to log offsets, in files that Apache's `IndexService` reads and continues.

A file is full at `entries_max - 1` entries; the next one is named by wall time. Keys are known by their hash only, so an
answer is a list of *candidates*: whoever asks reads the records and compares (TRAP-S10).

Rules that hold here
- Apache's index is not crash safe (TRAP-S11). Here an exhausted `write_back` means: everything put before it is durable and found
  after any crash. A file is completed before the next one is begun, so what is on disk is always a prefix of what was put.
- A record's entries go into one file (if they fit into any), and the last record indexed is known exactly; records dispatched again
  are passed over, and one whose keys are there only in part (Apache, killed in the middle) gets the rest.
- The index is derived data: a damaged file is reported in `problems` and left aside, never a reason not to start.

Source: reference "store" section 3; `IndexService`. Upholds P-IDX-1, P-IDX-2, P-IDX-3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice

from trmq.host import Disk, File
from trmq.log.index_file import IndexFile
from trmq.log.index_files import CorruptIndex, FileCache, ToSync
from trmq.message import java_hash_extend

INDEX_SLOTS = 5_000_000
INDEX_ENTRIES = 20_000_000
QUERY_MAX = 64
"""Most offsets one query returns (Apache's maxMsgsNumBatch)."""
UNIQUE_KEY_SIZES = frozenset({32, 56})
"""Characters of a UNIQ_KEY of a client with an IPv4 or an IPv6 address (`MessageClientIDSetter`). All but the last eight, half of the time
and a counter, are the same for a minute of one client's messages."""

Indexed = tuple[str, Sequence[str], int, int]
"""A record for the index: topic, keys, log offset, store time in ms."""


class KeyIndex:
    """All files under `folder`. Call `load` once before anything else; `wall_ms` names new files."""

    def __init__(
        self, disk: Disk, wall_ms: Callable[[], int], folder: str = "index", slots: int = INDEX_SLOTS, entries_max: int = INDEX_ENTRIES
    ) -> None:
        self.folder = folder
        self.problems: list[str] = []
        """What was wrong with files on disk, one sentence each."""
        self.rebuild_from: int | None = None
        """Log offset from which records must be dispatched again because a damaged file was dropped; None if nothing is missing."""
        self._disk = disk
        self._wall_ms = wall_ms
        self._slots = slots
        self._entries_max = entries_max
        self._cache = FileCache(disk, limit=16)
        self._files: list[IndexFile] = []  # oldest first
        self._end = -1  # log offset of the last record indexed
        self._last_name = ""
        self._names_changed = False

    # --- state

    @property
    def end_phy(self) -> int:
        """Log offset of the last record indexed, 0 if there is none."""
        return max(self._end, 0)

    @property
    def last_store_ms(self) -> int:
        """Store time of the last record indexed, 0 if there is none."""
        return self._files[-1].end_ms if self._files else 0

    @property
    def dirty(self) -> bool:
        return self._names_changed or any(file.dirty for file in self._files[-2:])

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self._files]

    # --- put

    def put(self, topic: str, keys: Sequence[str], phy: int, store_ms: int) -> None:
        """Index the record at log offset `phy` under each key (UNIQ_KEY, the KEYS, `T#tags`: the caller decides). Memory only, but for
        slots that are read when first touched. Records come in log order; one at or before the last is passed over."""
        if not keys:
            return
        hashes = [key_hash(topic, key) for key in keys]
        if phy <= self._end:
            if phy < self._end:
                return
            hashes = hashes[len(self._hashes_of_last()) :]
            if not hashes:
                return
        file = self._files[-1] if self._files else self._add_file()
        if file.room < len(hashes):
            # a record's keys stay together, so that one file's header says all about what is in it
            while len(hashes) > self._entries_max - 1:
                part = file.room
                file.put(hashes[:part], phy, store_ms)
                hashes = hashes[part:]
                file = self._add_file()
            if file.room < len(hashes):
                file = self._add_file()
        file.put(hashes, phy, store_ms)
        self._end = phy

    def put_all(self, records: Sequence[Indexed]) -> None:
        """`put` each of these records, at the cost of a few."""
        file = self._files[-1] if self._files else None
        if file is not None and records[0][2] > self._end:
            entries: list[tuple[int, int, int]] = []
            for topic, keys, phy, store_ms in records:
                for key in keys:
                    entries.append((key_hash(topic, key), phy, store_ms))
            if file.room >= len(entries):
                file.put_all(entries)
                self._end = records[-1][2]
                return
        for record in records:
            self.put(*record)

    def _hashes_of_last(self) -> list[int]:
        """Key hashes already there for the last record, over file borders if it has more keys than a file takes."""
        found: list[int] = []
        for file in reversed(self._files):
            here = file.hashes_of_last(self._end)
            found = here + found
            if len(here) < file.count - 1:
                break
        return found

    def _add_file(self) -> IndexFile:
        name = _name_of(self._wall_ms())
        if name <= self._last_name:
            name = _next_name(self._last_name)  # the clock stood still or went back, or the last name is in another time zone
        self._last_name = name
        file = IndexFile(self._cache, f"{self.folder}/{name}", self._slots, self._entries_max)
        self._files.append(file)
        self._names_changed = True
        return file

    # --- query

    def query(self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int) -> list[int]:
        """Log offsets of records that may have this key and were stored in [begin_ms, end_ms], newest first, at most 64."""
        return list(islice(self.candidates(topic, key, begin_ms, end_ms), min(max_count, QUERY_MAX)))

    def candidates(self, topic: str, key: str, begin_ms: int, end_ms: int) -> Iterator[int]:
        """As `query`, one after the other and without end: for who wants to fill up after sorting out hash collisions. Each offset
        comes once. A damaged chain ends the search in its file and is noted in `problems`."""
        wanted = key_hash(topic, key)
        last = -1
        for file in self._files[::-1]:
            try:
                for phy in file.find(wanted, begin_ms, end_ms):
                    if phy != last:
                        last = phy
                        yield phy
            except CorruptIndex as error:
                self._note(str(error))
            if file.begin_ms < begin_ms:
                return

    # --- load and the two ends

    def load(self, *, clean: bool, trusted_ms: int | None = None) -> None:
        """Open what is there. After an unclean stop of Apache's broker give its checkpoint's indexMsgTimestamp as `trusted_ms`: files
        that end later can't be relied upon and are removed, as Apache does (`IndexService#load`)."""
        lost = False
        for name in self._disk.names(self.folder):
            if not (name.isdecimal() and len(name) == 17):
                continue
            self._last_name = name
            file = IndexFile(self._cache, f"{self.folder}/{name}", self._slots, self._entries_max)
            unfinished = self._disk.size_of(file.path) == 0  # it was being made when power went
            if not lost and not unfinished:
                try:
                    file.load(clean=clean)
                    unfinished = file.count <= 1
                    if file.repaired:
                        self._note(f"{file.path}: the header did not fit the entries and was derived from them again")
                    lost = trusted_ms is not None and file.end_ms > trusted_ms and not unfinished
                except CorruptIndex as error:
                    self._note(str(error))
                    lost = True
                if lost:
                    self.rebuild_from = self.end_phy
            if lost or unfinished:
                self._remove(file)  # and what comes after a lost one: entries are put in log order only
                continue
            self._files.append(file)
            self._end = file.end_phy
        if self._files and not clean:
            # a killed predecessor may have been about to sync the newest header and the file's name
            self._files[-1].save_again()
            self._names_changed = True

    def truncate(self, phy: int) -> None:
        """Drop everything about records at or behind log offset `phy`. After an unclean stop with the last proven point; with
        the end of the log only if a `write_back` follows before anything else is appended there."""
        while self._files and self._files[-1].end_phy >= phy:
            file = self._files[-1]
            file.truncate(phy)
            if file.count > 1:
                self._end = file.end_phy
                return
            self._files.pop()
            self._remove(file)
            self._end = self._files[-1].end_phy if self._files else -1

    def delete_below(self, min_phy: int) -> None:
        """Remove files that hold only records below log offset `min_phy`; never the newest."""
        while len(self._files) > 1 and self._files[0].end_phy < min_phy:
            self._remove(self._files.pop(0))

    def remove_all(self) -> None:
        """Remove every file: the index is to be built again."""
        for file in self._files:
            self._remove(file)
        self._files.clear()
        self._end = -1

    def _remove(self, file: IndexFile) -> None:
        self._cache.drop(file.path)
        self._disk.remove(file.path)
        self._names_changed = True

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    # --- write back

    def write_back(self) -> Iterator[ToSync]:
        """Write everything put before the call, in steps. Sync what a step yields before asking for the next one; when the iterator
        is exhausted, everything put before the call is durable. Puts may go on in between.

        Raises `DiskFull` or `DiskFailed`; nothing is forgotten then. The same if the caller gives up between two steps."""
        for file in [file for file in self._files if file.dirty]:
            for handle in file.write_back():
                self._cache.pin((handle.path,))
                yield from self._step([handle])
                self._cache.unpin((handle.path,))
                if file not in self._files:
                    break  # truncated or expired away meanwhile
        if self._names_changed:
            yield from self._step([])

    def _step(self, files: list[File]) -> Iterator[ToSync]:
        changed, self._names_changed = self._names_changed, False
        done = False
        try:
            yield ToSync(files, sorted({self.folder, self.folder.rpartition("/")[0]}) if changed else [])
            done = True
        finally:
            self._names_changed |= changed and not done

    def close(self) -> None:
        """Give back the handles. Nothing is written: `write_back` comes before."""
        self._cache.close()


def key_hash(topic: str, key: str) -> int:
    """|String.hashCode| of `topic#key`, with Integer.MIN_VALUE taken as 0 (`IndexFile#indexKeyHashMethod`)."""
    if len(key) in UNIQUE_KEY_SIZES and key.isascii():
        a, b, c, d, e, f, g, h = key[-8:].encode()
        low = e * 29791 + f * 961 + g * 31 + h
        code = _start(topic, key[:-8]) * 852891037441 + (a * 29791 + b * 961 + c * 31 + d) * 923521 + low & 0xFFFFFFFF
    else:
        code = java_hash_extend(_start(topic, ""), key)
    return code if code < 0x80000000 else 0x100000000 - code & 0x7FFFFFFF


@lru_cache(maxsize=4096)
def _start(topic: str, head: str) -> int:
    return java_hash_extend(0, f"{topic}#{head}")


def _name_of(ms: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}"


def _next_name(name: str) -> str:
    """The name one millisecond later; if it isn't a time at all, the next number."""
    try:
        at = datetime.strptime(name + "000", "%Y%m%d%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        return f"{int(name) + 1:017d}"
    return _name_of(round((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)) + 1)
