"""A scripted service, and a peer that speaks raw bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

from trmq.remoting import Answer, Connection, Deferred, Limits, serve_remoting
from trmq.sim.net import SimStream
from trmq.sim.world import World
from trmq.wire.command import Command, encode_request, encode_response
from trmq.wire.frame import FrameDecoder

PORT = 10911


class Late(Deferred):
    command: Command


class Echo:
    """Answers each request with its body; `on` maps a request code to another handler. Writes down what it was asked."""

    def __init__(self, **on: Callable[[Connection, Command], Answer]) -> None:
        self.on = {int(code.removeprefix("code")): handler for code, handler in on.items()}
        self.seen: list[bytes] = []
        self.batches: list[int] = []
        self.conns: list[Connection] = []
        self.ended: list[str] = []

    def handle(self, conn: Connection, command: Command) -> Answer:
        self.seen.append(command.body)
        handler = self.on.get(command.code)
        return handler(conn, command) if handler else encode_response(command, 0, body=command.body)

    def finish(self, conn: Connection, deferred: list[Any]) -> Iterable[bytes]:
        self.batches.append(len(deferred))
        return [encode_response(late.command, 0, body=b"late " + late.command.body) for late in deferred]

    def opened(self, conn: Connection) -> None:
        self.conns.append(conn)

    def closed(self, conn: Connection) -> None:
        self.ended.append(conn.reason)


class Raw:
    """The other end of a connection, byte by byte."""

    def __init__(self, stream: SimStream) -> None:
        self.stream = stream
        self.decoder = FrameDecoder()
        self.commands: list[Command] = []

    async def send(self, *frames: bytes) -> None:
        await self.stream.send_all(b"".join(frames))

    async def answers(self, count: int) -> list[Command]:
        while len(self.commands) < count:
            data = await self.stream.receive_some()
            assert data, f"ended after {len(self.commands)} of {count} answers"
            self.commands += self.decoder.feed(data)
        found, self.commands = self.commands[:count], self.commands[count:]
        return found

    async def until_closed(self) -> list[Command]:
        try:
            while data := await self.stream.receive_some():
                self.commands += self.decoder.feed(data)
        except trio.BrokenResourceError:
            pass
        return self.commands


def request(number: int, body: bytes = b"", code: int = 10, *, oneway: bool = False) -> bytes:
    return encode_request(code, number, {}, body, oneway=oneway)


class Bench:
    def __init__(self, world: World, service: Echo, nursery: trio.Nursery) -> None:
        self.world = world
        self.service = service
        self.nursery = nursery

    async def dial(self, name: str = "client") -> Raw:
        return Raw(await self.world.host(name).connect((self.world.host("server").ip, PORT)))


@asynccontextmanager
async def serving(service: Echo, limits: Limits | None = None, seed: int = 0):
    world = World(seed)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_remoting, world.host("server"), service, ("", PORT), limits)
        yield Bench(world, service, nursery)
        nursery.cancel_scope.cancel()
