"""What both indexes share: the error they raise, what they ask to be synced, and a bound on open handles.

A broker may hold 5,000 queues with one file each and be allowed 1,024 open files, so index files are opened through a
`FileCache`: least recently used handles are closed, those that wait for a sync are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from trmq.errors import LogError
from trmq.host import Disk, File

OPEN_FILES_MAX = 512


class CorruptIndex(LogError):
    """An index contradicts itself or the log. Nothing is lost: it is derived data and can be built again from the log."""


class ToSync(NamedTuple):
    """What must become durable before the next step: sync each file, then each folder (`Disk.sync_directory`)."""

    files: list[File]
    folders: list[str]


class FileCache:
    """Open handles by path, at most `limit` of them unless more are pinned."""

    def __init__(self, disk: Disk, limit: int = OPEN_FILES_MAX) -> None:
        self.disk = disk
        self._limit = limit
        self._open: OrderedDict[str, File] = OrderedDict()
        self._pinned: set[str] = set()
        self._leaving: list[File] = []

    def get(self, path: str, size: int = 0) -> File:
        """The handle of `path`; a missing file is created with `size` zero bytes, without reserving space for them."""
        file = self._open.get(path)
        if file is not None:
            self._open.move_to_end(path)
            return file
        file = self.disk.open(path)
        if file.size < size:
            file.truncate(size)
        self._open[path] = file
        if len(self._open) > self._limit:
            self._evict()
        return file

    def pin(self, paths: Iterable[str]) -> None:
        """Keep the handles of these paths open until `unpin`: they wait for a sync."""
        self._pinned.update(paths)

    def unpin(self, paths: Iterable[str]) -> None:
        done = set(paths)
        self._pinned -= done
        for file in [file for file in self._leaving if file.path in done]:
            self._leaving.remove(file)
            file.close()

    def drop(self, path: str) -> None:
        """Close the handle of a file that is about to be removed; if it waits for a sync, only when that is done."""
        file = self._open.pop(path, None)
        if file is not None:
            if path in self._pinned:
                self._leaving.append(file)
            else:
                file.close()

    def close(self) -> None:
        self._pinned.clear()
        for file in (*self._open.values(), *self._leaving):
            file.close()
        self._open.clear()
        self._leaving.clear()

    def __len__(self) -> int:
        return len(self._open)

    def _evict(self) -> None:
        newest = next(reversed(self._open))
        for path in list(self._open):
            if len(self._open) <= self._limit:
                return
            if path not in self._pinned and path != newest:
                self.drop(path)


def first_true(low: int, high: int, true_at: Callable[[int], bool]) -> int:
    """The least i in [low, high) with `true_at(i)`, or `high`; `true_at` must be False up to there and True from there on."""
    while low < high:
        middle = (low + high) // 2
        if true_at(middle):
            high = middle
        else:
            low = middle + 1
    return low
