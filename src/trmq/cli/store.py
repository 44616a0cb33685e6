"""`trmq store`: look at a store on disk, offline. `check` writes nothing, not even a lock; the others have modules of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from trmq.errors import ConfigError
from trmq.log.check import check_store as verify
from trmq.log.report import Finding, Report
from trmq.real_host import RealDisk

from . import EXIT_DAMAGED
from .common import folder_of, when
from .output import Output, show, show_one
from .resync import resync_store as resync_store
from .session import Format
from .tail import tail_store as tail_store

PARTS = ("consumequeue", "index", "checkpoint", "abort", "config")
"""One of these, or the commit log, must be in a folder for it to be a store."""
KEYS_MAX = 100_000


def check_store(
    dir: Path, *, commit_log: str = "commitlog", slots: int | None = None, entries: int | None = None, keys: int = KEYS_MAX,
    output: Format = Output.table,
) -> int:
    """Verify log, queues, index, checkpoint and configuration of a store, trmq's or Apache's. Read-only; exit code 7 on damage.

    Example: trmq store check ~/.trmq/store
    Example: trmq store check /data/rocketmq/store -o json | jq .findings

    Parameters
    ----------
    dir
        The store's folder (storePathRootDir). A broker may be running on it; what it writes meanwhile can look unfinished.
    commit_log
        Folder of the commit log inside it (storePathCommitLog).
    slots, entries
        maxHashSlotNum and maxIndexNum, if the index files were made with neither the defaults nor four entries to a slot.
    keys
        How many keys to look up in the index; the links of all index files are followed in any case.
    """
    folder = folder_of(dir)
    must_be_store(folder, commit_log)
    if (slots is None) != (entries is None):
        raise ConfigError("--slots and --entries belong together: give both or none")
    layout = None if slots is None or entries is None else (slots, entries)
    progress = Progress() if sys.stderr.isatty() else None
    report = verify(RealDisk(folder), commit_log=commit_log, progress=progress, index_layout=layout, keys_max=keys)
    if progress is not None:
        progress.end()
    if output is Output.json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    elif output is Output.jsonl:
        plain = report.to_dict()
        for finding in plain.pop("findings"):
            print(json.dumps(finding, ensure_ascii=False))
        print(json.dumps(plain, ensure_ascii=False))
    else:
        show_report(folder, report)
    return 0 if report.ok else EXIT_DAMAGED


def must_be_store(folder: Path, commit_log: str) -> None:
    """Raises `ConfigError` saying what is there instead."""
    if not folder.exists():
        raise ConfigError(f"{folder} does not exist: give the folder of a store (storePathRootDir)")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file: give the folder of a store (storePathRootDir)")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"{folder} may not be read by this user: run as the broker's user")
    if (folder / commit_log).is_dir() or any((folder / part).exists() for part in PARTS):
        return
    if is_log(folder):
        raise ConfigError(f"{folder} is a commit log: give the store's folder around it, {folder.parent}")
    inside = next((each for each in sorted(folder.iterdir()) if (each / commit_log).is_dir()), None)
    hint = f"; did you mean {inside}?" if inside else f": there is no {commit_log} in it"
    raise ConfigError(f"{folder} is no store{hint}")


def is_log(folder: Path) -> bool:
    return any(len(each.name) == 20 and each.name.isdecimal() for each in folder.iterdir())


def show_report(folder: Path, report: Report) -> None:
    """Facts, findings (worst first) and a verdict in one line."""
    facts: dict[str, Any] = {"store": folder}
    for name, value in report.facts.items():
        if name == "checkpoint":
            value = ", ".join(f"{mark.removesuffix('_ms')} {when(ms) or 'none yet'}" for mark, ms in value.items())
        facts[name.replace("_", " ")] = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
    show_one(facts, Output.table)
    rank = {"error": 0, "warning": 1, "info": 2}
    found = sorted(report.findings, key=lambda finding: rank[finding.severity])
    if found:
        print()
        show([row(finding) for finding in found], Output.table)
    for kind, more in report.hidden.items():
        print(f"and {more} more of kind {kind}")
    errors = report.facts.get("errors", 0)
    print("\nThe store is fine." if report.ok else f"\nThe store is DAMAGED: {errors} error{'s' * (errors != 1)}.")


def row(finding: Finding) -> dict[str, Any]:
    text = finding.message + (f"; {finding.remedy}" if finding.remedy else "")
    return {"severity": finding.severity, "file": finding.file, "byte": "" if finding.offset is None else finding.offset, "finding": text}


class Progress:
    """One line on standard error that is written over."""

    def __init__(self) -> None:
        self._width = 0

    def __call__(self, what: str, done: int, of: int) -> None:
        share = f"{done * 100 // of}%" if of else ""
        text = f"checking {what}: {done >> 20:,} of {of >> 20:,} MiB {share}" if what == "log" else f"checking {what}: {done:,} of {of:,}"
        print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(text)

    def end(self) -> None:
        print(f"\r{'':<{self._width}}\r", end="", file=sys.stderr, flush=True)
