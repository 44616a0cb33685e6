"""Answers that wait for the end of the read batch, because what they promise exists only after the commit."""

from __future__ import annotations

from trmq.remoting import Deferred
from trmq.wire.command import Command, send_ok


class Stored(Deferred, gc=False, eq=False):
    """The answer to a request that stored something.

    `answer` is the finished frame of success (None for a one-way request), `end` the exclusive physical end of the last record.
    With `waits` it is given only once the flush the configuration asks for is done. Any handler may return one.
    """

    request: Command
    answer: bytes | None
    end: int
    waits: bool = False

    def late(self, code: int) -> bytes | None:
        """The answer when the record is stored but not as safe as was asked; `code` says what is missing."""
        return self.answer


class Sent(Stored, gc=False, eq=False):
    """The answer to a send: its late form carries the same ids under another code."""

    message_id: str = ""
    queue_id: int = 0
    queue_offset: int = 0
    unique: str = ""

    def late(self, code: int) -> bytes | None:
        if self.answer is None:
            return None
        return send_ok(self.request, code, self.message_id, self.queue_id, self.queue_offset, self.unique)
