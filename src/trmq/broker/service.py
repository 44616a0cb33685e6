"""`Broker`: one broker of one group; the nursery tree, the handler table and the end of every read batch.

A handler is a plain function `(broker, conn, command) -> Answer`, registered in its module's `HANDLERS`. It reads top to
bottom and never waits. What it stores through `put` (or the store's own `append`) exists only after `commit`; a
handler therefore returns a `Stored`, and `finish` commits once for the whole read batch before anything is
answered. A background service calls `put …; commit()` itself, with no checkpoint in between: that is what keeps a full
disk a failure of exactly the messages that were appended since the last commit.

    run ─ open store ─ load config/*.json ─ store service, delay, acks, holds, metadata ─ listeners ─ started ─ registration
    stop is the reverse: unregister, close the listeners, persist, close the store.

Source: `BrokerController` of Apache RocketMQ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from ..errors import DiskFull
from ..remoting import Answer, Connection, Deferred
from ..wire.codes import RequestCode, ResponseCode
from ..wire.command import Command, encode_response

if TYPE_CHECKING:
    from ..config import BrokerConfig
    from ..host import Buffer, Host
    from ..log import Put, Store, StoreService


class Stored(Deferred):
    """The answer to a stored message: sent only after `commit` (and, with `waits`, after the flush the configuration asks for).

    `answer` is the finished frame of success, None for a one-way request. `end` is the exclusive physical end of the last
    record; `late` makes the frame for a code like FLUSH_DISK_TIMEOUT, for which the message is stored but not yet safe.
    """

    __slots__ = ("answer", "end", "request", "waits")

    def __init__(self, request: Command, answer: bytes | None, end: int, waits: bool) -> None:
        self.request = request
        self.answer = answer
        self.end = end
        self.waits = waits


class Broker:
    """Attributes other modules use: host, config, store, store_service, topics, groups, offsets, clients, locks, holds, acks,
    delay, stats, registration, metadata."""

    def __init__(self, host: Host, config: BrokerConfig) -> None:
        self.host = host
        self.config = config

    def now_ms(self) -> int:
        """Wall clock, ms."""
        return self.host.wall_ms()

    def put(
        self, topic: str, queue_id: int, body: Buffer, properties: Mapping[str, str] | bytes, *, flag: int = 0, sys_flag: int = 0,
        born_ms: int | None = None, born_host: bytes | None = None, reconsume_times: int = 0, prepared_offset: int = 0,
    ) -> Put:
        """Append a message of the broker's own (send-back, delayed delivery, dead letter); `commit` makes it exist.

        Tags code and keys are computed from the properties; a DELAY level sends it through SCHEDULE_TOPIC_XXXX by
        `delay.rewrite(topic, queue_id, properties, now_ms) -> (topic, queue_id, properties, tags_code) | None`.
        """
        raise NotImplementedError

    def commit(self) -> int:
        """Make everything appended since the last commit exist. Raises `DiskFull`: then none of it does."""
        return self.store.commit()
