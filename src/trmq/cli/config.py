"""`trmq config`: what a broker would run with, and all keys there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from trmq.config import BrokerConfig, NamesrvConfig, load_broker, load_namesrv, pairs
from trmq.config.load import attributes

from .common import pairs_of, text_of
from .output import Output, show


def show_config(
    file: Path | None = None,
    *,
    namesrv: bool = False,
    changed: bool = False,
    set: Annotated[list[str] | None, Parameter(name="--set", negative="", consume_multiple=False)] = None,
    output: Annotated[Output, Parameter(name=["--output", "-o"])] = Output.table,
) -> int:
    """The effective configuration: file, environment and flags merged, each value with its origin.

    Parameters
    ----------
    file
        A broker.conf (or, with --namesrv, a namesrv.conf).
    namesrv
        Read the file as a name server's.
    changed
        Only what differs from the default.
    set
        KEY=VALUE as `trmq serve --set` takes it.
    """
    loaded: Any
    if namesrv:
        loaded = load_namesrv(*text_of(file, "namesrv.conf"), environment=os.environ, flags=pairs_of(set))
    else:
        loaded = load_broker(*text_of(file, "broker.conf"), environment=os.environ, flags=pairs_of(set))
    rows = [{"key": key, "value": value, "origin": loaded.origins[key]} for key, value in pairs(loaded.config)]
    rows += [{"key": key, "value": "", "origin": "known, not needed: no effect"} for key in loaded.unneeded]
    show([row for row in rows if not changed or row["origin"] != "default"], output, empty="everything has its default")
    return 0


def keys_config(
    *,
    namesrv: bool = False,
    output: Annotated[Output, Parameter(name=["--output", "-o"])] = Output.table,
) -> int:
    """Every key that trmq honours, with its default and meaning."""
    kind: type[BrokerConfig] | type[NamesrvConfig] = NamesrvConfig if namesrv else BrokerConfig
    defaults = dict(pairs(kind()))
    show([{"key": key, "default": defaults[key], "meaning": a.metadata["doc"]} for key, a in attributes(kind).items()], output)
    return 0
