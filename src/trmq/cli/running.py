"""What `serve` and `namesrv` share: running until a signal, and the lines they print."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
from typing import Any

import trio

from . import EXIT_INTERRUPTED


def run_until_signal(main: Any, *arguments: Any) -> int:
    """Run `main(stop, ...)`; the first SIGINT or SIGTERM sets `stop` for a clean end, a second SIGINT ends at once."""
    received: list[int] = []

    async def watch(stop: trio.Event, scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                received.append(number)
                if stop.is_set():
                    scope.cancel()
                stop.set()

    async def run() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, stop, nursery.cancel_scope)
            await main(stop, *arguments)
            nursery.cancel_scope.cancel()

    trio.run(run)
    return EXIT_INTERRUPTED if received[:1] == [signal.SIGINT] else 0


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
