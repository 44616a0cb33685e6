"""Starting `trmq namesrv`: a real host with a name server. It imports nothing of the broker, so that it is up sooner and smaller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import trio

from trmq.config import load_namesrv
from trmq.real_host import RealHost, raise_file_limit
from trmq.route import NameServer

from .common import folder_of, pairs_of, text_of
from .running import list_unneeded, run_until_signal, say_namesrv, settle_memory


def namesrv(
    *, config: Path | None = None, listen_port: int | None = None, bind: str | None = None, store: Path = Path("~/.trmq/namesrv"),
    end_with: str | None = None, set: list[str] | None = None,
) -> int:  # fmt: skip
    """Run until a signal; the parameters are those of `trmq namesrv`."""
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

    return run_until_signal(run, end_with=end_with)
