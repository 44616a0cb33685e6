"""`Delivery`: one message in the hands of a consumer's application, and the decision about it.

`async with m:` acks when its body ends, nacks when it raises. An `Exception` stops at the `async with` (it is logged; the
message comes back later), so that `async for` goes on; cancellation passes through and leaves the message undecided: the
consumer redelivers it if it lives on, the next owner of the queue does if not. `ack` and `nack` only record the decision, so
neither can be interrupted half-way; the consumer carries it out, and leaving the consumer waits for that.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Protocol

import trio

from .messages import Received
from .process_queue import ProcessQueue

logger = logging.getLogger("trmq.client")

OPEN, DECIDED = 0, 1
DELAY_LEVEL_MAX = 18


class Owner(Protocol):
    """The consumer, as a delivery needs it."""

    raise_errors: bool

    def acked(self, message: Delivery) -> None: ...
    def nacked(self, message: Delivery, delay_level: int) -> None: ...
    def abandoned(self, message: Delivery) -> None: ...


class Delivery(Received):
    """A message to be acked or nacked exactly once; later decisions change nothing."""

    __slots__ = ("cell", "owner", "served_by", "state")

    cell: ProcessQueue[Delivery]
    owner: Owner
    served_by: str
    """Address of the broker it was read from: a master's, or a slave's."""
    state: int

    async def ack(self) -> None:
        """It is done: the group will not see it again."""
        if self.state == OPEN:
            self.state = DECIDED
            self.owner.acked(self)

    async def nack(self, *, delay_level: int = 0) -> None:
        """It failed: bring it back later. `delay_level` 1..18 sets the wait, 0 lets it grow with each try, -1 goes to the dead letters."""
        if not -1 <= delay_level <= DELAY_LEVEL_MAX:
            raise ValueError(f"delay_level {delay_level} is outside -1 to {DELAY_LEVEL_MAX}")
        if self.state == OPEN:
            self.state = DECIDED
            self.owner.nacked(self, delay_level)

    async def __aenter__(self) -> Delivery:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if self.state != OPEN:
            return False
        if error is None:
            self.state = DECIDED
            self.owner.acked(self)
            return False
        self.state = DECIDED
        if isinstance(error, Exception):
            if self.owner.raise_errors:
                self.owner.nacked(self, 0)
                return False
            logger.warning("handling %r failed; it comes back later", self, exc_info=error)
            self.owner.nacked(self, 0)
            return True
        if _is_cancellation(error):
            self.owner.abandoned(self)
        return False


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_cancellation(inner) for inner in error.exceptions)
    return isinstance(error, trio.Cancelled)
