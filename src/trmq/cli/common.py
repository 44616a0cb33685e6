"""What several verbs share: reading a configuration file, KEY=VALUE settings, folders."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from trmq.errors import ConfigError


def folder_of(path: Path) -> Path:
    return path.expanduser().absolute()


def text_of(path: Path | None, default: str) -> tuple[str, str]:
    """(content, name for messages) of a configuration file. Raises `ConfigError` when it cannot be read."""
    if path is None:
        return "", default
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the configuration file {path} is not UTF-8 text") from None


def pairs_of(settings: list[str] | None) -> dict[str, str]:
    found = {}
    for setting in settings or []:
        key, mark, value = setting.partition("=")
        if not mark:
            raise ConfigError(f"--set {setting}: KEY=VALUE is expected")
        found[key.strip()] = value.strip()
    return found


def when(ms: int) -> str:
    """A time for people: local, to the second; empty for 0."""
    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if ms > 0 else ""


def moment_ms(text: str) -> int:
    """ms since the epoch of "earliest" (0), "latest" (-1), a local ISO time or a plain number. Raises `ConfigError`."""
    if text in ("earliest", "latest"):
        return 0 if text == "earliest" else -1
    if text.isdigit():
        return int(text)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise ConfigError(f"{text!r} is no time: give earliest, latest, 2026-11-20T08:00:00 or milliseconds since 1970") from None


def amount(count: float) -> str:
    """Bytes for people: `0 B`, `512 B`, `1.5 KiB`, `98.3 GiB`."""
    value, units = float(count), iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = "B"
    while abs(value) >= 1024 and (larger := next(units, None)) is not None:
        value, unit = value / 1024, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def ago(ms: int, now: int) -> str:
    """How long before `now` the moment `ms` was; both ms since 1970, 0 is never."""
    if ms <= 0:
        return "never"
    seconds = max(0, now - ms) / 1000
    return f"{seconds:.1f} s ago" if seconds < 60 else f"{seconds / 60:.0f} min ago" if seconds < 3600 else f"{seconds / 3600:.1f} h ago"
