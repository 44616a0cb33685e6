"""What `serve` and `namesrv` share: running until a signal, and the lines they print."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from typing import Any

import trio

from trmq.errors import ConfigError

from . import EXIT_INTERRUPTED

ORPHAN_GRACE_S = 10.0
"""What a clean end may take once the program that started this one is gone and can no longer end it."""


def run_until_signal(main: Any, *arguments: Any, end_with: str | None = None) -> int:
    """Run `main(stop, ...)`; the first SIGINT or SIGTERM sets `stop` for a clean end, a second SIGINT ends at once.

    `end_with="stdin"`: the end of standard input counts as SIGTERM, and after some seconds as the second signal too.
    """
    received: list[int] = []

    async def watch(stop: trio.Event, scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                received.append(number)
                if stop.is_set():
                    scope.cancel()
                stop.set()

    async def watch_input(stop: trio.Event, scope: trio.CancelScope) -> None:
        await end_of_input()
        stop.set()
        await trio.sleep(ORPHAN_GRACE_S)
        scope.cancel()

    async def run() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, stop, nursery.cancel_scope)
            if end_with == "stdin":
                nursery.start_soon(watch_input, stop, nursery.cancel_scope)
            await main(stop, *arguments)
            nursery.cancel_scope.cancel()

    trio.run(run)
    return EXIT_INTERRUPTED if received[:1] == [signal.SIGINT] else 0


async def end_of_input() -> None:
    """Return when standard input, a pipe or a socket, has been closed by the other side. What comes before is thrown away."""
    while True:
        try:
            await trio.lowlevel.wait_readable(0)
            if not os.read(0, 4096):
                return
        except OSError as error:
            raise ConfigError(f"--end-with stdin: standard input is no pipe ({error.strerror}): leave --end-with out") from None


def settle_memory() -> None:
    """Called once everything is up: what the imports made lives for ever, so the collector need not walk it again at each round, and what
    they needed meanwhile goes back to the system (1 MB)."""
    gc.collect()
    gc.freeze()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # another C library than glibc


def say_namesrv(address: tuple[str, int]) -> None:
    print(f"The Name Server boot success. serializeType=JSON, address {address[0]}:{address[1]}", flush=True)


def list_unneeded(keys: tuple[str, ...]) -> None:
    if keys:
        print(f"trmq: these keys are known but not needed and have no effect: {', '.join(keys)}", file=sys.stderr, flush=True)
