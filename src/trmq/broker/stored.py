"""Answers that wait for the end of the read batch, because what they promise exists only after the commit."""

from __future__ import annotations

from trmq.remoting import Deferred
from trmq.wire.command import Command, send_ok


class Stored(Deferred):
    """The answer to a request that stored something.

    `answer` is the finished frame of success (None for a one-way request), `end` the exclusive physical end of the last record.
    With `waits` it is given only once the flush the configuration asks for is done. Any handler may return one.
    """

    __slots__ = ("answer", "end", "request", "waits")

    def __init__(self, request: Command, answer: bytes | None, end: int, waits: bool = False) -> None:
        self.request = request
        self.answer = answer
        self.end = end
        self.waits = waits

    def late(self, code: int) -> bytes | None:
        """The answer when the record is stored but not as safe as was asked; `code` says what is missing."""
        return self.answer


class Sent(Stored):
    """The answer to a send: its late form carries the same ids under another code."""

    __slots__ = ("message_id", "queue_id", "queue_offset", "unique")

    def __init__(
        self, request: Command, answer: bytes | None, end: int, waits: bool, message_id: str, queue_id: int, queue_offset: int, unique: str
    ) -> None:
        self.request = request
        self.answer = answer
        self.end = end
        self.waits = waits
        self.message_id = message_id
        self.queue_id = queue_id
        self.queue_offset = queue_offset
        self.unique = unique

    def late(self, code: int) -> bytes | None:
        if self.answer is None:
            return None
        return send_ok(self.request, code, self.message_id, self.queue_id, self.queue_offset, self.unique)
