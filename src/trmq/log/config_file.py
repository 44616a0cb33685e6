"""The JSON files under `config/`: at any moment either the old or the new content can be loaded (P-REC-9).

Apache renames the file to `.bak` and writes a new one in its place; between the two, and when power fails while the new one is written,
`.bak` is the truth. Here the new content is complete and durable under a third name before any known name moves: write `.new`, sync
it, rename the file to `.bak`, rename `.new` to the file, sync the folder. Whatever of the two renames a crash keeps, one of the two
names holds whole content. Reading follows Apache's rule, so either side understands what the other left.

Source: `ConfigManager#persist`, `#load`; reference "store" section 9.
"""

from __future__ import annotations

import re

from trmq.errors import StoreMismatch
from trmq.host import Disk

FILE_BYTES_MAX = 256 << 20
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"|["{}\[\]]', re.DOTALL)


def load_json_text(disk: Disk, path: str) -> bytes | None:
    """The content of `path` if it is a whole JSON object, else that of its `.bak`; None if both are missing or empty. The text may be
    in fastjson's dialect; it is checked to be complete, not parsed. Raises `StoreMismatch` if something is there and neither is whole."""
    damaged = False
    for name in (path, f"{path}.bak"):
        if not disk.exists(name):
            continue
        file = disk.open_read(name)
        try:
            content = bytes(file.read_at(0, min(file.size, FILE_BYTES_MAX)))
        finally:
            file.close()
        if is_whole(content):
            return content
        damaged = damaged or bool(content.strip(b"\0 \t\r\n"))
    if damaged:
        raise StoreMismatch(
            f"{path} in the store is damaged and has no whole .bak: restore it from a replica or a backup, or move both away to go on "
            "without what it says"
        )
    return None


async def persist(disk: Disk, path: str, data: bytes) -> None:
    """Replace the content of `path`, durable when it returns. Raises `DiskFull` (the old content stays), `DiskFailed`.

    One call per path at a time: the third name is shared.
    """
    fresh = f"{path}.new"
    disk.remove(fresh)
    file = disk.open(fresh)
    try:
        file.write_at(0, data)
        await file.sync()
    finally:
        file.close()
    if disk.exists(path):
        disk.rename(path, f"{path}.bak")
    disk.rename(fresh, path)
    folder = path.rpartition("/")[0]
    await disk.sync_directory(folder)
    if folder:
        await disk.sync_directory(folder.rpartition("/")[0])


def is_whole(content: bytes) -> bool:
    """Whether `content` is one brace-balanced object with nothing missing: a torn or half-written file isn't."""
    text = content.strip()
    if not text.startswith(b"{") or not text.endswith(b"}") or b"\0" in text:
        return False
    depth = 0
    for mark in _MARKS.finditer(text):
        c = mark.group()
        if c in (b"{", b"["):
            depth += 1
        elif c in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return mark.end() == len(text)
        elif len(c) == 1:  # a quote that nothing closes
            return False
    return False
