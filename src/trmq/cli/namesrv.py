"""`trmq namesrv`: the options of a name server's start. What they do is in `starting_namesrv`, which does not need Cyclopts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from . import starting_namesrv


def namesrv(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    listen_port: Annotated[int | None, Parameter(name=["--listen-port", "-p"])] = None,
    bind: str | None = None,
    store: Path = Path("~/.trmq/namesrv"),
    end_with: Literal["stdin"] | None = None,
    set: Annotated[list[str] | None, Parameter(name="--set", negative="", consume_multiple=False)] = None,
) -> int:
    """Run a name server until Ctrl-C.

    Parameters
    ----------
    config
        An Apache namesrv.conf, taken unchanged.
    listen_port
        Port for clients and brokers (listenPort). Default 9876; 0 takes a free one.
    bind
        Address to listen on (bindAddress). Default: loopback only.
    store
        Folder for the KV configuration.
    end_with
        stdin: end, as after SIGTERM, when standard input closes. For programs that start this one and may be killed themselves.
    set
        Any other configuration key, as KEY=VALUE; may be repeated.
    """
    return starting_namesrv.namesrv(config=config, listen_port=listen_port, bind=bind, store=store, end_with=end_with, set=set)
