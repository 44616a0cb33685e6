"""`trmq store resync`: make a slave's next start copy everything from its master.

For a slave whose log is longer than its master's, or is another one: such a slave is never served and never counted. Nothing is deleted.
What was built from the log moves with it into `aside-<date>`; the configuration (topics, groups, offsets) stays, and so does
`trmq/role.json`, which says what this store was. The commit log moves last: whatever interrupts this, running it again completes it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import trio

from trmq.errors import ConfigError, StoreLocked
from trmq.real_host import RealDisk

from . import EXIT_FAILED
from .common import amount, folder_of

ROLE = "trmq/role.json"
PARTS = ("trmq", "consumequeue", "index", "checkpoint", "abort")
"""In this order, then the commit log."""


@attrs.frozen
class Plan:
    """What would move, as paths relative to the store; `size` in bytes."""

    store: Path
    aside: str
    moves: tuple[str, ...]
    size: int
    free: int
    role: dict[str, Any]


def resync_store(store: Path, *, yes: bool = False, master_too: bool = False, commit_log: str = "commitlog") -> int:
    """Set a stopped slave's log aside, so that at its next start it copies everything from its master.

    For a slave that its master refuses: its log is longer than the master's or differs from it. Nothing is deleted: the old log lies
    in aside-<date> in the store's folder until you remove it, and there must be room for both.

    Example: trmq store resync /data/a-1/store

    Parameters
    ----------
    store
        The slave's folder (storePathRootDir). Its broker must be stopped.
    yes
        Don't ask.
    master_too
        Also a store that was a master's the last time. What it has and its slaves have not is then in aside-<date> only.
    commit_log
        Folder of the commit log inside the store (storePathCommitLog).
    """
    from .store import must_be_store

    folder = folder_of(store)
    must_be_store(folder, commit_log)
    disk = RealDisk(folder)
    try:
        disk.lock("lock")
    except StoreLocked as error:
        holder = str(error).partition(" holds ")[0]
        raise ConfigError(f"{holder} is running on {folder}: stop that broker first") from None
    try:
        found = look(folder, commit_log, datetime.now())
        check_role(found, master_too)
        if not found.moves:
            print(f"{folder} holds no log: its next start as a slave copies everything anyway")
            return 0
        print(explanation(found))
        if not yes and not confirmed():
            return EXIT_FAILED
        carry_out(disk, found)
    finally:
        disk.unlock("lock")
    print(f"done; the old log is in {folder / found.aside}")
    return 0


def look(folder: Path, commit_log: str, now: datetime) -> Plan:
    """What there is to move."""
    aside = f"aside-{now:%Y%m%d-%H%M%S}"
    moves = []
    for part in PARTS:
        if part == "trmq" and (folder / part).is_dir():
            moves += [f"trmq/{each.name}" for each in sorted((folder / part).iterdir()) if f"trmq/{each.name}" != ROLE]
        elif (folder / part).exists():
            moves.append(part)
    if (folder / commit_log).is_dir() and any((folder / commit_log).iterdir()):
        moves.append(commit_log)
    size = sum(on_disk(folder / move) for move in moves)
    free = shutil.disk_usage(folder / commit_log if commit_log in moves else folder).free
    return Plan(folder, aside, tuple(moves), size, free, read_role(folder))


def on_disk(path: Path) -> int:
    """Bytes that a file or folder takes, holes not counted."""
    files = [Path(top) / name for top, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)


def read_role(folder: Path) -> dict[str, Any]:
    """What the store was at its last start; {} if nothing says so. Raises `ConfigError` for a file that says nothing sensible."""
    try:
        found = json.loads((folder / ROLE).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / ROLE} cannot be read ({error}): repair or remove it, then say --master-too") from None
    if not isinstance(found, dict) or not isinstance(found.get("role"), str):
        raise ConfigError(f"{folder / ROLE} names no role: repair or remove it, then say --master-too")
    return found


def check_role(found: Plan, master_too: bool) -> None:
    """Raises `ConfigError` unless the store was a slave's, or is meant nevertheless."""
    role = found.role.get("role") or None
    if role == "SLAVE" or master_too:
        return
    if role is None:
        raise ConfigError(
            f"nothing says that {found.store} was a slave's store (there is no {ROLE} in it): say --master-too if its messages are "
            "on another broker too"
        )
    raise ConfigError(
        f"{found.store} was the master ({role}) of broker group {found.role.get('brokerName')} the last time: started as a slave it sets "
        "its surplus tail aside by itself; say --master-too if it shall copy everything nevertheless"
    )


def explanation(found: Plan) -> str:
    who = ""
    if found.role.get("role") == "SLAVE":
        who = f", slave {found.role.get('brokerId')} of group {found.role.get('brokerName')}"
    lines = [
        f"store     {found.store}{who}",
        f"moves to  {found.aside}/: {', '.join(found.moves)} ({amount(found.size)})",
        "stays     config/ (topics, groups, offsets)",
        "then      at its next start the slave copies everything that its master has",
    ]
    if found.free < found.size:
        lines.append(f"room      only {amount(found.free)} are free: move {found.aside} to another disk before that start")
    return "\n".join(lines)


def confirmed() -> bool:
    """Ask on the terminal. Raises `ConfigError` where nobody can answer."""
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to confirm this: say --yes to do it")
    return input("Move it aside? [y/N] ").strip().lower() in ("y", "yes")


def carry_out(disk: RealDisk, found: Plan) -> None:
    """Move everything, the names durable before the next part goes. A commit log behind a symbolic link stays on its disk."""
    for move in found.moves:
        place = found.store / move
        if place.is_symlink() and place.is_dir():
            set_contents_aside(place.resolve(), found.aside)
        else:
            disk.rename(move, f"{found.aside}/{move}")
            for folder in (f"{found.aside}/{move}".rpartition("/")[0], move.rpartition("/")[0], ""):
                trio.run(disk.sync_directory, folder)


def set_contents_aside(folder: Path, aside: str) -> None:
    """Move what is in `folder` to a new folder beside it."""
    beside = folder.with_name(f"{folder.name}-{aside}")
    beside.mkdir()
    for each in sorted(folder.iterdir()):
        each.rename(beside / each.name)
    print(f"{folder} is on another disk: its files are in {beside}")
