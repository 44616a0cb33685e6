"""Seeded bugs of what is listened to: one stranger costs more than its own connection. Registered beside those of replication."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from chaos.mutants import MUTANTS, Patch, mutant
from property.mutants import wrap
from trmq.broker.service import Broker
from trmq.errors import RemoteProtocolError
from trmq.remoting.connection import Connection
from trmq.remoting.hub import Hub
from trmq.wire.codes import ResponseCode
from trmq.wire.frame import FrameDecoder

__all__ = ["MUTANTS"]
STORY = ("noises_at_every_port",)


@mutant("P-STR-1", scenarios=STORY)
def junk_is_skipped(patch: Patch) -> None:
    """What is no frame is thrown away, and the connection goes on."""

    def feed(original: Any, self: FrameDecoder, data: bytes) -> Any:
        commands = original(self, data)
        self.failed = None
        return commands

    wrap(patch, FrameDecoder, "feed", feed)


@mutant("P-STR-2", scenarios=STORY)
def half_a_frame_is_kept(patch: Patch) -> None:
    wrap(patch, Hub, "__init__", lambda original, self, host, limits, *args: original(
        self, host, attrs.evolve(limits, frame_timeout=1e6, idle_timeout=1e6), *args
    ))  # fmt: skip


@mutant("P-STR-3", scenarios=STORY)
def strange_requests_are_dropped(patch: Patch) -> None:
    """Who asks for what nobody knows waits for ever."""

    def handle(original: Any, self: Broker, conn: Any, command: Any) -> Any:
        answer = original(self, conn, command)
        return None if command.code not in self._handlers else answer

    wrap(patch, Broker, "handle", handle)


@mutant("P-STR-4", scenarios=STORY)
def junk_ends_the_server(patch: Patch) -> None:
    """The error of one connection is everybody's."""

    def close_soon(original: Any, self: Connection, reason: str) -> None:
        if self._decoder.failed is not None:
            raise RemoteProtocolError(reason, ResponseCode.SYSTEM_ERROR)
        original(self, reason)

    wrap(patch, Connection, "close_soon", close_soon)


@mutant("P-STR-4", scenarios=STORY)
def half_a_frame_holds_up_the_others(patch: Patch) -> None:
    """Nobody is answered while somebody's frame is not complete."""

    async def write(original: Any, self: Connection, frames: Any) -> None:
        while any(other.partial_since for other in self._hub.connections):
            await trio.sleep(1)
        await original(self, frames)

    wrap(patch, Connection, "_write", write)
