"""From text to a checked configuration: flag over environment over file over default, each value with its origin.

Nothing is guessed and nothing is dropped in silence. A key is one of: honoured (an attribute of the class); known to
Apache 5.4.0 and harmless to ignore (collected, to be listed once at start); known and changing what the broker promises
(refused while it differs from Apache's default, see `keys.py`); or a mistake (refused with the nearest match).

Environment: `TRMQ_` and the key, any case, underscores as you like (`TRMQ_BROKER_NAME`, `TRMQ_brokerName`), for a name
server `TRMQ_NAMESRV_`; and RocketMQ's own `NAMESRV_ADDR`. A variable with the prefix that resembles no key is not ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import attrs

from trmq.errors import ConfigError

from . import keys
from .broker import BrokerConfig
from .fields import in_java, key_of
from .namesrv import NamesrvConfig
from .properties import format_properties, parse_properties

C = TypeVar("C", BrokerConfig, NamesrvConfig)
Kind: TypeAlias = type[BrokerConfig] | type[NamesrvConfig]

ALIASES = {"mapedFileSizeCommitLog": "mappedFileSizeCommitLog", "mapedFileSizeConsumeQueue": "mappedFileSizeConsumeQueue"}
"""Older spellings that Apache's own documents and launchers still use."""


@attrs.frozen
class Loaded(Generic[C]):
    """A configuration, where each of its values came from, and the keys that were recognised but are not needed."""

    config: C
    origins: Mapping[str, str]
    """key -> "default", "broker.conf line 3", "environment TRMQ_BROKER_NAME" or "flag"."""
    unneeded: tuple[str, ...]


class KeyBarred(ConfigError):
    """A key that only the file may set, in an admin command."""


class Setting(NamedTuple):
    key: str
    value: str
    origin: str


_BROKER = {key_of(a): a for a in attrs.fields(BrokerConfig)}
_NAMESRV = {key_of(a): a for a in attrs.fields(NamesrvConfig)}


def attributes(kind: Kind) -> dict[str, attrs.Attribute[Any]]:
    """camelCase key -> attribute, in the order of the class."""
    return _BROKER if kind is BrokerConfig else _NAMESRV


def _others(kind: Kind) -> frozenset[str]:
    return keys.BROKER_OTHERS if kind is BrokerConfig else keys.NAMESRV_OTHERS


def _folded(kind: Kind) -> dict[str, str]:
    return {key.lower(): key for key in (*attributes(kind), *ALIASES, *_others(kind))}


def load_broker(
    text: str = "", file: str = "broker.conf", *, environment: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Loaded[BrokerConfig]:
    """The broker's configuration. `text` is the content of `file` (named in errors only). Raises `ConfigError`."""
    loaded = _load(BrokerConfig, text, file, environment or {}, flags or {}, "TRMQ_")
    config, origins = loaded.config, loaded.origins
    if config.role_problem is not None:
        raise ConfigError(f"{config.role_problem} (brokerRole: {origins['brokerRole']}, brokerId: {origins['brokerId']})")
    if config.store_path_root_dir:
        _ = config.commit_log_folder
    return loaded


def load_namesrv(
    text: str = "", file: str = "namesrv.conf", *, environment: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> Loaded[NamesrvConfig]:
    """The name server's configuration; see `load_broker`."""
    return _load(NamesrvConfig, text, file, environment or {}, flags or {}, "TRMQ_NAMESRV_")


def _load(kind: type[C], text: str, file: str, environment: Mapping[str, str], flags: Mapping[str, object], prefix: str) -> Loaded[C]:
    values: dict[str, Any] = {}
    origins = dict.fromkeys(attributes(kind), "default")
    unneeded: dict[str, None] = {}
    for setting in (*_from_file(text, file), *_from_environment(kind, environment, prefix), *_from_flags(kind, flags)):
        key = ALIASES.get(setting.key, setting.key)
        attribute = attributes(kind).get(key)
        if attribute is not None:
            values[attribute.name] = read_value(attribute, setting)
            origins[key] = setting.origin
        elif key in keys.PROMISES:
            refuse_unless_default(setting)
            unneeded[key] = None
        elif key in _others(kind):
            unneeded[key] = None
        else:
            raise ConfigError(f"{setting.origin}: {unknown(kind, setting.key)}")
    return Loaded(kind(**values), origins, tuple(unneeded))


def _from_file(text: str, file: str) -> Iterator[Setting]:
    for entry in parse_properties(text):
        yield Setting(entry.key, entry.value, f"{file} line {entry.line}")


def _from_environment(kind: type[C], environment: Mapping[str, str], prefix: str) -> Iterator[Setting]:
    if kind is BrokerConfig and environment.get("NAMESRV_ADDR"):
        yield Setting("namesrvAddr", environment["NAMESRV_ADDR"], "environment NAMESRV_ADDR")
    folded = _folded(kind)
    for name in sorted(environment):
        if not name.upper().startswith(prefix):
            continue
        plain = name[len(prefix) :].replace("_", "").lower()
        key = folded.get(plain)
        if key is None and plain.startswith("namesrv"):
            continue  # the name server's
        if key is not None:
            yield Setting(key, environment[name], f"environment {name}")
        elif near := difflib.get_close_matches(plain, [k.lower() for k in attributes(kind)], 1, 0.85):
            raise ConfigError(f"environment {name}: there is no such key; did you mean {folded[near[0]]}?")


def _from_flags(kind: type[C], flags: Mapping[str, object]) -> Iterator[Setting]:
    names = {a.name: key for key, a in attributes(kind).items()}
    for name, value in flags.items():
        if value is not None:
            yield Setting(names.get(name, name), in_java(value), "flag")


def read_value(attribute: attrs.Attribute[Any], setting: Setting) -> Any:
    """The checked value of a setting. Raises `ConfigError` naming origin, key, value and what is expected."""
    read: Callable[[str], Any] = attribute.metadata["read"]
    try:
        return read(setting.value.strip())
    except ValueError:
        raise ConfigError(f"{setting.origin}: {setting.key}={setting.value!r} must be {attribute.metadata['expects']}") from None


def refuse_unless_default(setting: Setting) -> None:
    promise = keys.PROMISES[setting.key]
    if setting.value.strip().lower() not in promise.harmless:
        raise ConfigError(f"{setting.origin}: {setting.key}={setting.value} is not supported: {promise.why}")


def unknown(kind: Kind, key: str) -> str:
    """The sentence for a key that neither trmq nor Apache knows."""
    folded = _folded(kind)
    near = difflib.get_close_matches(key.lower(), folded, 1, 0.6)
    hint = f"; did you mean {folded[near[0]]}?" if near else ""
    return f"{key} is not a key of trmq or of Apache RocketMQ 5.4{hint}"


def changed(config: C, text: str, origin: str) -> tuple[C, dict[str, str]]:
    """`config` with the properties of an admin command applied, and what changed (key -> new value as text).

    Keys that are known but not needed change nothing. Raises `KeyBarred` for a key on the black list, `ConfigError` for an
    unknown key or a bad value; then nothing is applied.
    """
    kind = type(config)
    barred = {part.strip() for part in config.config_black_list.split(";")} | {"configBlackList", "rocketmqHome"}
    values: dict[str, Any] = {}
    done: dict[str, str] = {}
    for entry in parse_properties(text):
        key = ALIASES.get(entry.key, entry.key)
        setting = Setting(key, entry.value, origin)
        if key in barred:
            raise KeyBarred(f"{key} may not be changed by an admin command; change it in the file and restart")
        if key in attributes(kind):
            attribute = attributes(kind)[key]
            values[attribute.name] = read_value(attribute, setting)
            done[key] = in_java(values[attribute.name])
        elif key in keys.PROMISES:
            refuse_unless_default(setting)
        elif key not in _others(kind):
            raise ConfigError(unknown(kind, key))
    return attrs.evolve(config, **values), done


def pairs(config: BrokerConfig | NamesrvConfig) -> Iterable[tuple[str, str]]:
    """(key, value as Java prints it) of every honoured key, in the order of the class."""
    return [(key, in_java(getattr(config, a.name))) for key, a in attributes(type(config)).items()]


def properties_text(config: BrokerConfig | NamesrvConfig) -> str:
    """The answer to GET_BROKER_CONFIG and GET_NAMESRV_CONFIG: every honoured key, as `key=value` lines."""
    return format_properties(pairs(config))
