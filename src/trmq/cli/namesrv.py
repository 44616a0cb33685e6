"""`trmq namesrv`: a real host with a name server. It imports nothing of the broker, so that it is up sooner and smaller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import trio
from cyclopts import Parameter

from trmq.config import load_namesrv
from trmq.real_host import RealHost, raise_file_limit
from trmq.route import NameServer

from .common import folder_of, pairs_of, text_of
from .running import list_unneeded, run_until_signal, say_namesrv, settle_memory


def namesrv(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    listen_port: Annotated[int | None, Parameter(name=["--listen-port", "-p"])] = None,
    bind: str | None = None,
    store: Path = Path("~/.trmq/namesrv"),
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
    set
        Any other configuration key, as KEY=VALUE; may be repeated.
    """
    flags: dict[str, Any] = {"listen_port": listen_port, "bind_address": bind, **pairs_of(set)}
    loaded = load_namesrv(*text_of(config, "namesrv.conf"), environment=os.environ, flags=flags)

    async def run(stop: trio.Event) -> None:
        list_unneeded(loaded.unneeded)
        raise_file_limit()
        server = NameServer(RealHost(folder_of(store)), loaded.config)
        async with trio.open_nursery() as nursery:
            say_namesrv(await nursery.start(server.run))
            settle_memory()
            await stop.wait()
            nursery.cancel_scope.cancel()

    return run_until_signal(run)
