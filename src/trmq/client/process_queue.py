"""`ProcessQueue`: what a consumer holds of one queue, and from which offset the group must go on if it dies now.

The rule of the whole consumer: **the committed offset is the smallest unfinished one** (or where the next pull starts when
nothing is unfinished). A message may be finished in any order; nothing below an unfinished message is ever given up.
Once `dropped` (the queue went to another member, or its offset moved) nothing of it is committed or delivered any more.

Plain data: no clock, no I/O. Source: `ProcessQueue`, `DefaultMQPushConsumerImpl#pullMessage`; reference "client behaviour" section 4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs

from trmq.message import MessageQueue

from .messages import Received

D = TypeVar("D", bound=Received)


@attrs.frozen
class CacheLimits:
    """When pulling one queue pauses: more messages, more bytes, or (concurrent only) a wider span of offsets than this."""

    messages_max: int = 1000
    bytes_max: int = 100 << 20
    span_max: int | None = 2000


class ProcessQueue(Generic[D]):
    """The cache of one queue. `pull_offset` is where the next pull starts; `pending` what nobody has taken (orderly use)."""

    def __init__(self, queue: MessageQueue, pull_offset: int, limits: CacheLimits) -> None:
        self.queue = queue
        self.pull_offset = pull_offset
        self.limits = limits
        self.committed = -1
        """The offset last told to whoever keeps it now, -1 before."""
        self.pending: deque[D] = deque()
        self.busy = False
        """Orderly: a message of this queue is with the application."""
        self.closing = False
        """Orderly: being given back; nothing more is handed out, the message in hand may still finish."""
        self.on_idle: Callable[[], None] | None = None
        """Called when `busy` ends while closing."""
        self.dropped = False
        self.locked_until = 0.0
        self.last_pull = 0.0
        self.last_taken = 0.0
        self.max_offset = pull_offset
        self.on_room: Callable[[], None] | None = None
        """Called once when a pause may end."""
        self._unfinished: dict[int, D] = {}
        self._bytes = 0

    @property
    def commit_offset(self) -> int:
        """Where the group goes on: exclusive end of what is finished without a gap."""
        return next(iter(self._unfinished), self.pull_offset)

    @property
    def count(self) -> int:
        return len(self._unfinished)

    @property
    def size(self) -> int:
        """Bytes cached."""
        return self._bytes

    @property
    def unfinished(self) -> list[D]:
        return list(self._unfinished.values())

    def add(self, messages: Sequence[D], next_offset: int) -> None:
        """Take over the messages of a pull, in offset order, and where the next pull starts."""
        assert next_offset >= self.pull_offset, "pulls only move forward"
        for message in messages:
            assert message.offset >= self.pull_offset, "a pull never returns what was pulled before"
            self._unfinished[message.offset] = message
            self._bytes += message.size
        self.pull_offset = next_offset

    def finish(self, message: D) -> bool:
        """The application is done with it; False if it was finished already or the queue is no longer ours."""
        if self.dropped or self._unfinished.pop(message.offset, None) is None:
            return False
        self._bytes -= message.size
        if self.on_room is not None and not self.full:
            wake, self.on_room = self.on_room, None
            wake()
        return True

    def drop(self) -> None:
        """The queue is no longer ours: forget what is cached, wake a paused puller so that it can end."""
        self.dropped = True
        self.pending.clear()
        if self.on_room is not None:
            wake, self.on_room = self.on_room, None
            wake()

    @property
    def full(self) -> bool:
        """Whether pulling pauses."""
        limits = self.limits
        if len(self._unfinished) >= limits.messages_max or self._bytes >= limits.bytes_max:
            return True
        return limits.span_max is not None and bool(self._unfinished) and self.pull_offset - self.commit_offset > limits.span_max
