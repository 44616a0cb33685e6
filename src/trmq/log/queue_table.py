"""All consume queues of a store, by (topic, queue id): opened when first asked for, written back when dirty.

A start costs one look at the folder names; a queue is read when it is first needed. Open handles are bounded by the shared
`FileCache`, so 5,000 queues live with 1,024 file descriptors. Queues are visited in sorted order wherever order can be seen.
"""

from __future__ import annotations

from collections.abc import Iterator

from trmq.host import Disk, File
from trmq.log.index_files import OPEN_FILES_MAX, CorruptIndex, FileCache, ToSync
from trmq.log.queue_ends import REMEDY, Ends
from trmq.log.queue_index import UNITS_PER_FILE, QueueIndex

SYNC_BATCH_FILES_MAX = 256


class QueueIndexSet:
    """The queues under `folder` ("consumequeue"). Call `load` once before anything else."""

    def __init__(
        self, disk: Disk, folder: str = "consumequeue", units_per_file: int = UNITS_PER_FILE, *, open_files_max: int = OPEN_FILES_MAX
    ) -> None:
        self.folder = folder
        self.files = FileCache(disk, open_files_max)
        self._disk = disk
        self._per_file = units_per_file
        self._open: dict[tuple[str, int], QueueIndex] = {}
        self._closed: set[tuple[str, int]] = set()  # on disk, not looked at yet
        self._dirty: dict[QueueIndex, None] = {}
        self._unsynced: dict[str, File] = {}  # written, to be synced
        self._names: set[str] = set()  # folders to be synced
        self._clean = True
        self._min_phy = 0
        self._expected: dict[tuple[str, int], tuple[int, int]] = {}  # of queues not looked at yet
        self._expected_at = 0  # where the log began when that was noted

    def load(self, *, clean: bool) -> None:
        """Learn which queues exist; their files are read when first asked for. `clean` says how the store was stopped."""
        self._clean = clean
        for topic in self._disk.names(self.folder):
            for name in self._disk.names(f"{self.folder}/{topic}"):
                if name.isdecimal():
                    self._closed.add((topic, int(name)))

    def get(self, topic: str, queue_id: int) -> QueueIndex | None:
        """The queue, or None if no record of it was ever dispatched. Raises `CorruptIndex`, `StoreMismatch` when it is first read."""
        key = (topic, queue_id)
        queue = self._open.get(key)
        if queue is None and key in self._closed:
            queue = self._make(topic, queue_id)
            queue.recover(clean=self._clean, min_phy=self._min_phy)
            queue.correct_min(self._min_phy)
            self._compare(queue, key)
            self._closed.discard(key)
            self._open[key] = queue
        return queue

    def expect(self, ends: Ends, min_phy: int) -> None:
        """How far the queues reached at the clean stop just before, when the log began at `min_phy`: a queue that is first read and says
        something else is refused."""
        self._expected = {key: ends[key] for key in ends if key not in self._open}
        self._expected_at = min_phy

    def _compare(self, queue: QueueIndex, key: tuple[str, int]) -> None:
        low, high = self._expected.get(key, (queue.min_offset, queue.max_offset))
        if queue.max_offset == high and (queue.min_offset <= low or self._min_phy != self._expected_at):
            self._expected.pop(key, None)
            return
        raise CorruptIndex(
            f"queue {queue.folder}: its files hold queue offsets {queue.min_offset} to {queue.max_offset} (exclusive) but held {low} to "
            f"{high} when the store was closed, so they were cut or removed since; {REMEDY}"
        )

    def unknown(self) -> list[tuple[str, int]]:
        """The queues of which `ends` cannot say anything before they are opened."""
        moved = self._min_phy != self._expected_at
        return sorted(key for key in self._closed if moved or key not in self._expected)

    def ends(self) -> dict[tuple[str, int], tuple[int, int]]:
        """(min offset, max offset) by (topic, queue id): of queues in use as they are, of the others as they were at the last stop."""
        found = {key: self._expected[key] for key in self._closed if key in self._expected}
        found.update((key, (queue.min_offset, queue.max_offset)) for key, queue in self._open.items() if queue.max_offset)
        return found

    def get_or_create(self, topic: str, queue_id: int) -> QueueIndex:
        queue = self._open.get((topic, queue_id)) or self.get(topic, queue_id)
        if queue is None:
            queue = self._open[topic, queue_id] = self._make(topic, queue_id)
        return queue

    def _make(self, topic: str, queue_id: int) -> QueueIndex:
        folder = f"{self.folder}/{topic}/{queue_id}"
        return QueueIndex(self._disk, folder, self._per_file, files=self.files, on_dirty=self._note_dirty)

    def _note_dirty(self, queue: QueueIndex) -> None:
        self._dirty[queue] = None

    def keys(self) -> list[tuple[str, int]]:
        """Every known (topic, queue id), sorted."""
        return sorted(self._closed.union(self._open))

    def of_topic(self, topic: str) -> list[tuple[str, int]]:
        return [key for key in self.keys() if key[0] == topic]

    def __len__(self) -> int:
        return len(self._open) + len(self._closed)

    def __iter__(self) -> Iterator[QueueIndex]:
        """Every queue, opened one after the other."""
        for key in self.keys():
            queue = self.get(*key)
            if queue is not None:
                yield queue

    @property
    def dirty(self) -> bool:
        return bool(self._dirty or self._names or self._unsynced)

    def write_back(self, below: int | None = None, batch: int = SYNC_BATCH_FILES_MAX) -> Iterator[ToSync]:
        """Write every queue that is dirty now (only units of records below log offset `below`), a bounded number at a time. Sync what
        each step yields before asking for the next; when the iterator is exhausted, every such unit appended before the call is
        durable. Appends may go on in between.

        Raises `DiskFull` or `DiskFailed`; what was not written stays dirty, what was not synced is yielded again next time."""
        todo = list(self._dirty)
        at = 0
        while at < len(todo) or self._unsynced or self._names:
            for queue in todo[at : at + batch]:
                if queue in self._dirty:  # else its topic was deleted meanwhile
                    self._unsynced.update((file.path, file) for file in queue.write_back(below))
                    self._names |= queue.new_folders
                    queue.new_folders = set()
                    if not queue.dirty:  # else some of its units lie behind `below`
                        self._dirty.pop(queue, None)
            at += batch
            if not (self._unsynced or self._names):
                continue  # nothing below `below` in this lot
            files, folders = self._unsynced, self._names
            self._unsynced, self._names = {}, set()
            done = False
            try:
                yield ToSync(list(files.values()), sorted(folders))
                done = True
            finally:
                if done:
                    self.files.unpin(path for path in files if path not in self._unsynced)
                else:
                    self._unsynced = files | self._unsynced
                    self._names |= folders

    def truncate(self, phy: int) -> None:
        """Drop every unit of records at or behind log offset `phy`, in all queues: after an unclean stop with the last proven
        point, so that what is dispatched again is also written again. Opens every queue."""
        for queue in self:
            queue.truncate(phy)

    def correct_min(self, min_phy: int) -> None:
        """The log now begins at `min_phy`: raise minimums and remove expired files, of the queues in use now, of the others when
        they are first asked for."""
        self._min_phy = min_phy
        for queue in self._open.values():
            queue.correct_min(min_phy)

    def end_phy(self) -> int:
        """The end (exclusive) of the last record that any queue points to. Opens every queue."""
        return max((queue.end_phy for queue in self), default=0)

    def remove_queue(self, topic: str, queue_id: int) -> None:
        """Remove one queue from memory and disk, readable or not: a deleted topic's, or one to be built again."""
        key = (topic, queue_id)
        self._expected.pop(key, None)
        queue = self._open.pop(key, None)
        if queue is None:
            self._closed.discard(key)
            queue = self._make(topic, queue_id)
        self._dirty.pop(queue, None)
        queue.remove_all()
        self._dirty.pop(queue, None)
        self._names |= queue.new_folders

    def delete_topic(self, topic: str) -> None:
        """Remove all queues of a topic. The names are gone for good after the next `write_back` was synced."""
        for _, queue_id in self.of_topic(topic):
            self.remove_queue(topic, queue_id)
        self._disk.remove(f"{self.folder}/{topic}")
        self._names.discard(f"{self.folder}/{topic}")
        self._names.add(self.folder)

    def close(self) -> None:
        """Give back all handles. Nothing is written: `write_back` comes before."""
        self.files.close()
