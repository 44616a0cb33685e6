"""A link between whoever dials a broker and the broker: what passes can be held, cut in the middle, trickle, or be lost on one side only.

The broker listens on 127.0.0.2 and tells everybody that it is at 127.0.0.1, where this listens on the same port.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

BEHIND = "127.0.0.2"
BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Pipe:
    """One connection through the link."""

    def __init__(self, near: trio.SocketStream, far: trio.SocketStream) -> None:
        self.near, self.far = near, far
        self.left: int | None = None  # bytes until it dies
        self.deaf = False  # the broker's side is gone, and nobody tells the other
        self.scope = trio.CancelScope()


class Link:
    """`passed` counts connections. `hold` and `trickle` are knobs; `reset`, `die_after` and `go_deaf` strike what is connected now."""

    def __init__(self, port: int, dice: random.Random) -> None:
        self.port, self.dice = port, dice
        self.pipes: set[Pipe] = set()
        self.passed = 0
        self.trickle = False
        self._open = trio.Event()
        self._open.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        await trio.serve_listeners(self._serve, listeners, task_status=task_status)  # type: ignore[arg-type]  # it starts with them

    async def _serve(self, near: trio.SocketStream) -> None:
        async with near:
            await self._open.wait()
            try:
                far = await trio.open_tcp_stream(BEHIND, self.port)
            except OSError:
                return
            async with far:
                pipe = Pipe(near, far)
                self.pipes.add(pipe)
                self.passed += 1
                with suppress(*BROKEN), pipe.scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pump, pipe, near, far)
                        nursery.start_soon(self._pump, pipe, far, near)
                self.pipes.discard(pipe)
                if pipe.scope.cancelled_caught:  # an end that nobody could mistake for an orderly one
                    for stream in (near, far):
                        with suppress(OSError):
                            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def _pump(self, pipe: Pipe, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(*BROKEN):
            while data := await source.receive_some(self.dice.randrange(1, 50) if self.trickle else 65536):
                await self._open.wait()
                if self.trickle:
                    await trio.sleep(0.0005)
                if pipe.deaf:
                    continue
                if pipe.left is not None:
                    data, pipe.left = data[: pipe.left], pipe.left - len(data)
                await sink.send_all(data)
                if pipe.left is not None and pipe.left <= 0:
                    break
        if not pipe.deaf:
            pipe.scope.cancel()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Nothing passes meanwhile; it waits in the sockets."""
        self._open = trio.Event()
        try:
            yield
        finally:
            self._open.set()

    def reset(self) -> None:
        for pipe in list(self.pipes):
            pipe.scope.cancel()

    def die_after(self, count: int) -> None:
        """Each connection ends after so many bytes more, in both directions together."""
        for pipe in self.pipes:
            pipe.left = count

    async def go_deaf(self) -> None:
        for pipe in list(self.pipes):
            pipe.deaf = True
            await pipe.far.aclose()
