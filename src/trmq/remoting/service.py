"""What a connection asks of the service behind it, what it lets a peer cost, and how errors become answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs
import msgspec

from trmq.errors import DiskFull, MessageIllegal, RemoteProtocolError, RemoteRefused, TrmqError
from trmq.wire.codes import ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.frame import FRAME_BYTES_MAX, HEADER_BYTES_MAX

if TYPE_CHECKING:
    from trmq.remoting.connection import Connection

log = logging.getLogger("trmq.remoting")


@attrs.frozen
class Limits:
    """What one peer may cost. Bytes and seconds."""

    frame_bytes_max: int = FRAME_BYTES_MAX
    header_bytes_max: int = HEADER_BYTES_MAX
    read_bytes_max: int = 256 * 1024
    batch_bytes_max: int = 4 * 1024 * 1024  # of gathered answers, before they are written early
    outbox_bytes_max: int = 64 * 1024 * 1024  # of posted frames; beyond it the connection is closed
    outbox_bytes_high: int = 4 * 1024 * 1024  # where `request` and `room` begin to wait
    jobs_max: int = 64  # waiting handlers per connection
    connections_max: int = 20_000
    idle_timeout: float = 120.0  # no read and no write
    frame_timeout: float = 60.0  # from a frame's first byte to its last


class Deferred(msgspec.Struct, gc=False, eq=False):
    """Base of answers that may only be given when the read batch is finished (a stored message). One is made for each message, and a
    struct takes a third of the time of a class with an `__init__`."""


class Job:
    """The rare handler that has to wait: `run` gives the answer's frame, or None; an error becomes an error answer."""

    __slots__ = ("run",)

    def __init__(self, run: Callable[[], Awaitable[bytes | None]]) -> None:
        self.run = run


Answer: TypeAlias = bytes | Deferred | Job | None
"""What a handler gives back: a frame, a promise of one, or None (one-way, or answered later through `Connection.post`)."""


class Service(Protocol):
    """Who handles the requests of a connection."""

    def handle(self, conn: Connection, command: Command, /) -> Answer:
        """Synchronous. A `TrmqError` becomes an error answer; an AssertionError is a bug of ours and stops the server."""
        ...

    def finish(self, conn: Connection, deferred: list[Any], /) -> Iterable[bytes]:
        """End of each read batch that deferred answers, before anything of it is written. The frames that are ready now."""
        ...

    def opened(self, conn: Connection, /) -> None: ...
    def closed(self, conn: Connection, /) -> None: ...


def failure(command: Command, error: Exception) -> bytes | None:
    """The answer that tells a peer about an error of its request; None for a one-way one."""
    if isinstance(error, RemoteProtocolError):
        code = error.response_code
    elif isinstance(error, RemoteRefused):
        code = error.code
    elif isinstance(error, DiskFull):
        code = ResponseCode.SERVICE_NOT_AVAILABLE
    elif isinstance(error, MessageIllegal):
        code = ResponseCode.MESSAGE_ILLEGAL
    else:
        code = ResponseCode.SYSTEM_ERROR
    if not isinstance(error, TrmqError):  # a bug, but a client must not be able to stop the server with it
        log.error("request %d failed", command.code, exc_info=error)
        return None if command.is_oneway else encode_response(command, code, remark=f"{type(error).__name__}: {error}")
    return None if command.is_oneway else encode_response(command, code, remark=str(error))
