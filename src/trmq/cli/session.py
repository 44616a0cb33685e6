"""Running one verb against a cluster: the client, `-n`, and Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, TypeVar

import trio
from cyclopts import Parameter

from trmq.client import Client, connect
from trmq.real_host import RealHost

from . import EXIT_INTERRUPTED
from .output import Output

NameServer = Annotated[str | None, Parameter(name=["--namesrv", "-n"], help="host:port, several separated by ';'; else NAMESRV_ADDR.")]
Format = Annotated[Output, Parameter(name=["--output", "-o"], help="table, json or jsonl.")]
DEFAULT_NAMESRV = "127.0.0.1:9876"
R = TypeVar("R")


def addresses(namesrv: str | None) -> str:
    return namesrv or os.environ.get("NAMESRV_ADDR") or DEFAULT_NAMESRV


def with_client(work: Callable[[Client], Awaitable[int | None]], namesrv: str | None) -> int:
    """Run `work(client)`; its result is the exit code (None is 0). The first Ctrl-C or SIGTERM cancels it, so that everything drains."""

    host = RealHost(os.path.expanduser("~/.trmq/client"))

    async def main() -> int:
        interrupted = False

        async def watch(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
            nonlocal interrupted
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    interrupted = True
                    scope.cancel()

        code: int | None = None
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                await nursery.start(partial(watch, scope))
                async with connect(addresses(namesrv), host=host) as client:
                    code = await work(client)
            nursery.cancel_scope.cancel()
        return EXIT_INTERRUPTED if interrupted else code or 0

    return trio.run(main)
