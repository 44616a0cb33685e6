"""Comparing the consume queues with the records of the log, in bulk: expected units are gathered per queue and compared as bytes."""

from __future__ import annotations

from trmq.host import Disk, File
from trmq.log.queue_index import DUMMY, UNIT, UNIT_SIZE, valid_prefix
from trmq.log.report import FINDINGS_PER_KIND_MAX, Report
from trmq.message import INNER_BATCH, SCHEDULE_TOPIC, TRANSACTION_MASK, TRANSACTION_PREPARED, TRANSACTION_ROLLBACK, java_hash

REBUILD = "stop the broker and remove the whole consumequeue folder: the next start builds all queues again from the log"
_COMPARE_BYTES = 64_000
_OPEN_MAX = 256
_ADDRESS_BELOW = -(1 << 31)
_pack = UNIT.pack


class QueueFiles:
    """Read-only view of one queue's files; sizes as found."""

    def __init__(self, disk: Disk, folder: str, handles: dict[str, File]) -> None:
        self.folder = folder
        self._disk = disk
        self._handles = handles
        names = [name for name in disk.names(folder) if len(name) == 20 and name.isdecimal()]
        self.starts = [int(name) // UNIT_SIZE for name in names]
        self.per_file = disk.size_of(f"{folder}/{names[0]}") // UNIT_SIZE if names else 0
        if len(names) > 1:
            self.per_file = self.starts[1] - self.starts[0]

    def path(self, unit: int) -> str:
        start = unit // self.per_file * self.per_file if self.per_file else 0
        return f"{self.folder}/{start * UNIT_SIZE:020d}"

    def read(self, unit: int, count: int) -> bytes:
        """`count` units from `unit`; zeros where there is no file."""
        if not self.per_file:
            return bytes(count * UNIT_SIZE)
        parts = []
        while count:
            start = unit // self.per_file * self.per_file
            n = min(count, start + self.per_file - unit)
            raw = bytes(self._file(start).read_at((unit - start) * UNIT_SIZE, n * UNIT_SIZE)) if start in self.starts else b""
            parts.append(raw.ljust(n * UNIT_SIZE, b"\0"))
            unit, count = unit + n, count - n
        return b"".join(parts)

    def end(self) -> int:
        """Behind the last valid unit of the last file that has one."""
        for start in reversed(self.starts):
            valid = valid_prefix(self.read(start, self.per_file))
            if valid:
                return start + valid
        return self.starts[0] if self.starts else 0

    def _file(self, start: int) -> File:
        path = f"{self.folder}/{start * UNIT_SIZE:020d}"
        file = self._handles.get(path)
        if file is None:
            if len(self._handles) >= _OPEN_MAX:
                self._handles.pop(next(iter(self._handles))).close()
            file = self._handles[path] = self._disk.open_read(path)
        return file


class _Queue:
    __slots__ = ("expected", "files", "first", "last_phy", "missing", "next", "schedule", "suspects", "topic")

    def __init__(self, topic: str, files: QueueFiles) -> None:
        self.topic = topic
        self.schedule = topic == SCHEDULE_TOPIC
        self.files = files
        self.expected = bytearray()  # units [first, next)
        self.first = self.next = -1
        self.last_phy = -1
        self.missing = -1  # first unit that isn't there
        self.suspects: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []  # units that point further on than they should


class QueueCheck:
    """Fed with every record in log order, then `finish`."""

    def __init__(self, disk: Disk, report: Report, topics: set[str] | None, *, clean: bool, min_phy: int) -> None:
        self._disk = disk
        self._report = report
        self._topics = topics
        self._clean = clean
        self._min_phy = min_phy
        self._queues: dict[tuple[bytes, int], _Queue] = {}
        self._handles: dict[str, File] = {}
        self._codes: dict[bytes, int] = {}
        self._units = 0

    def record(
        self, phy: int, size: int, topic: bytes, queue_id: int, queue_offset: int, sys_flag: int, store_ms: int, properties: bytes
    ) -> None:
        """Expect the record's unit. All but PREPARED and ROLLBACK records have one."""
        if sys_flag & TRANSACTION_MASK in (TRANSACTION_PREPARED, TRANSACTION_ROLLBACK) or sys_flag & INNER_BATCH:
            return
        queue = self._queues.get((topic, queue_id))
        if queue is None:
            name = topic.decode("utf-8", "replace")
            queue = self._queues[topic, queue_id] = _Queue(name, QueueFiles(self._disk, f"consumequeue/{name}/{queue_id}", self._handles))
            queue.first = queue.next = queue_offset
        if queue_offset != queue.next:
            self._compare(queue)
            if queue_offset != 0:
                self._report.add(
                    "error", "queue-order", queue.files.folder, None,
                    f"the record at log offset {phy} has queue offset {queue_offset} where {queue.next} comes next",
                    "the log itself is inconsistent; restore it or refetch it from a replica",
                )
            else:  # the topic was deleted and created again: the files hold the new life
                queue.missing = -1
                queue.suspects.clear()
            queue.first = queue_offset
        at = properties.find(b"TAGS\x01")
        code = 0
        if at >= 0 and (at == 0 or properties[at - 1] == 2):
            end = properties.find(b"\x02", at)
            tags = properties[at + 5 : end if end >= 0 else len(properties)]
            known = self._codes.get(tags)
            code = self._codes[tags] = java_hash(tags.decode("utf-8", "replace")) if known is None else known
        queue.expected += _pack(phy, size, code)
        queue.next = queue_offset + 1
        queue.last_phy = phy
        self._units += 1
        if len(queue.expected) >= _COMPARE_BYTES:
            self._compare(queue)

    def _compare(self, queue: _Queue) -> None:
        """Compare the gathered units with the files, all at once; one by one only if they differ."""
        expected, first = bytes(queue.expected), queue.first
        queue.expected.clear()
        queue.first = queue.next
        found = queue.files.read(first, len(expected) // UNIT_SIZE) if expected else b""
        if found == expected:
            return
        pairs = zip(UNIT.iter_unpack(expected), UNIT.iter_unpack(found), strict=True)
        for number, (want, have) in enumerate(pairs, first):
            if want == have:
                continue
            if want[:2] == have[:2] and (queue.schedule or have[2] < _ADDRESS_BELOW):
                continue  # a deliver time, or the address of an extension
            if have[1] == 0:
                queue.missing = number if queue.missing < 0 else queue.missing
            elif have[0] > want[0]:
                if len(queue.suspects) < FINDINGS_PER_KIND_MAX:
                    queue.suspects.append((number, want, have))
            else:
                self._wrong(queue, number, want, have)

    def _wrong(self, queue: _Queue, number: int, want: tuple[int, ...], have: tuple[int, ...]) -> None:
        path = queue.files.path(number)
        at = number % queue.files.per_file * UNIT_SIZE
        problem = f"unit {number} is (offset, size, tags) {have}, the record is {want}"
        self._report.add("error", "queue-unit", path, at, problem, REBUILD)

    def _missing(self, queue: _Queue, unit: int) -> None:
        files = queue.files
        if not files.starts and self._topics is not None and queue.topic not in self._topics:
            problem = "records of a topic that does not exist any more are still in the log"
            self._report.add("info", "deleted-topic", files.folder, None, problem)
        elif self._clean:
            self._report.add("error", "queue-missing", files.folder, None, f"the unit of queue offset {unit} is missing", REBUILD)
        else:
            self._report.add("info", "queue-behind", files.folder, None, f"units from queue offset {unit} on are not written yet",
                             "the next start builds them")

    def finish(self, max_phy: int) -> None:
        """Compare the rest, then look for units that no record stands behind."""
        for queue in self._queues.values():
            self._compare(queue)
            for suspect in queue.suspects:
                self._wrong(queue, *suspect)
            if queue.missing >= 0:
                self._missing(queue, queue.missing)
        count = 0
        for topic in self._disk.names("consumequeue"):
            for name in self._disk.names(f"consumequeue/{topic}"):
                if not name.isdecimal():
                    continue
                count += 1
                known = self._queues.get((topic.encode(), int(name)))
                files = known.files if known else QueueFiles(self._disk, f"consumequeue/{topic}/{name}", self._handles)
                self._check_end(files, known, max_phy)
        for file in self._handles.values():
            file.close()
        self._handles.clear()
        self._report.facts.update(queues=count, units=self._units)

    def _check_end(self, files: QueueFiles, known: _Queue | None, max_phy: int) -> None:
        end = files.end()
        if known is None or end > known.next:
            unit = end - 1 if known is None else known.next
            raw = files.read(unit, 1) if end > 0 and files.starts and end > files.starts[0] else bytes(UNIT_SIZE)
            phy, size, _ = UNIT.unpack(raw)
            if raw == DUMMY or not size or phy < self._min_phy:
                return
            at = unit % files.per_file * UNIT_SIZE
            if phy >= max_phy and not self._clean:
                problem = f"unit {unit} points behind the end of the log"
                self._report.add("info", "queue-ahead", files.path(unit), at, problem, "recovery cuts it off")
            else:
                self._report.add("error", "queue-phantom", files.path(unit), at,
                                 f"unit {unit} points to log offset {phy}, where no record of this queue is", REBUILD)
