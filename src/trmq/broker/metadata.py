"""Small tables on disk: written in the background whenever somebody says that one changed, and once more at a clean stop.

Changes that come while a file is being written are gathered into one more write, so a burst of new topics costs a few
writes, not one each. A failed disk stops the broker; on a full one the tables stay in memory until there is room.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trmq.errors import DiskFull
from trmq.host import Disk
from trmq.log.config_file import persist

FULL_DISK_PAUSE_S = 5.0


class Metadata:
    """The files of `config/` this broker writes: path -> how to make its text."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._encoders: dict[str, Callable[[], bytes]] = {}
        self._dirty: dict[str, None] = {}
        self._bell = trio.Event()
        self._writing = trio.Lock()
        self.on_mark: Callable[[str], None] | None = None
        """Told of every path that is marked: whoever copies these tables wants to know."""

    def register(self, path: str, encode: Callable[[], bytes]) -> None:
        """From now on `mark(path)` leads to a write of what `encode` returns then."""
        self._encoders[path] = encode

    def mark(self, path: str) -> None:
        """The table behind `path` changed. Cheap; may be called at any time."""
        assert path in self._encoders, f"{path} was never registered"
        self._dirty[path] = None
        self._bell.set()
        if self.on_mark is not None:
            self.on_mark(path)

    async def run(self) -> None:
        """Write what is marked, for ever. Raises `DiskFailed`; a full disk is waited out."""
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            try:
                await self.write()
            except DiskFull:
                await trio.sleep(FULL_DISK_PAUSE_S)  # nothing tells when there is room again
                self._bell.set()

    async def write(self, *, everything: bool = False) -> None:
        """Write what is marked (or all) now; returns when it is durable. One write at a time: `persist` asks for that."""
        async with self._writing:
            for path in list(self._encoders) if everything else list(self._dirty):
                self._dirty.pop(path, None)
                try:
                    await persist(self._disk, path, self._encoders[path]())
                except BaseException:
                    self._dirty[path] = None
                    raise
