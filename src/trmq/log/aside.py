"""Cutting a store that is not in use: a slave whose log went another way than its master's.

What is cut off may hold messages that were acknowledged, so it is never thrown away unless it is known to be garbage: the raw bytes go
into `trmq/tail-<from>-<to>.log`, durable before anything is cut: records one after the other, as in the log.

Source: design D7; Apache truncates (`AutoSwitchHAService#truncateInvalidMsg`) and keeps nothing.
"""

from __future__ import annotations

from trmq.host import Host
from trmq.log.config import StoreConfig
from trmq.log.service import StoreService, open_store

COPY_BYTES = 4 << 20


def tail_path(start: int, end: int) -> str:
    return f"trmq/tail-{start}-{end}.log"


async def cut_store(host: Host, config: StoreConfig, at: int, *, aside: bool) -> str | None:
    """Open the store, keep what lies behind log offset `at` (a record's end) in a file if `aside`, cut it, close the store.

    Returns the file's path. Raises as `open_store` does, `DiskFull` (nothing is cut then), `DiskFailed`.
    """
    service = await open_store(host, config)
    try:
        end = service.store.max_phy
        path = None
        if at < end:
            if aside:
                path = await _set_aside(host, service, at, end)
            await service.cut(at)
        return path
    finally:
        await service.close()


async def _set_aside(host: Host, service: StoreService, at: int, end: int) -> str:
    path = tail_path(at, end)
    log = service.store.log
    host.disk.remove(path)
    file = host.disk.open(path)
    try:
        position = at
        while position < end:
            segment = log.segment_at(position)
            assert segment is not None
            stop = min(end, segment.end, position + COPY_BYTES)
            file.write_at(position - at, bytes(segment.file.read_at(position - segment.base, stop - position)))
            position = stop
        await file.sync()
    finally:
        file.close()
    await host.disk.sync_directory("trmq")
    return path
