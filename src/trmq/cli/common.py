"""What several verbs share: reading a configuration file, KEY=VALUE settings, folders."""

from __future__ import annotations

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
