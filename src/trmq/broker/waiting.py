"""Answers that wait for what the configuration promises: first the flush, then the slaves; the deadlines of both begin at the append.

Both waits run side by side: while the flush is under way the slaves write, so waiting in turn takes no longer than waiting for both. At a
deadline the *value* decides, and where both are missing the replica's status wins over the disk's, as in Java.

Source: `CommitLog#handleDiskFlushAndHA`; design D5. Upholds P-FLUSH-1, P-FLUSH-4, P-ACK-1, P-ACK-3, P-ACK-4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import trio

from trmq.remoting import Connection
from trmq.watermark import Watermark
from trmq.wire.codes import ResponseCode

from .acks import AckDriver
from .stored import Stored


class Sent(NamedTuple):
    """What one connection stored in one read batch and waits for: `began` is when it was appended (Trio's clock), `need` how many holders
    it needs (1: nobody is waited for)."""

    conn: Connection
    answers: list[Stored]
    began: float
    need: int


class Waiting:
    """`run` must be running. `held(need)` is the mark up to which so many holders hold the log; `done(count, ms)` is told of each batch."""

    def __init__(
        self, flushed: Watermark, held: Callable[[int], Watermark], done: Callable[[int, float], None], *, flush_timeout_s: float,
        slave_timeout_s: float,
    ) -> None:
        self.flush: AckDriver[Sent] = AckDriver(flushed, self._flush_settled)
        self._held = held
        self._done = done
        self._flush_timeout_s = flush_timeout_s
        self._slave_timeout_s = slave_timeout_s
        self._slaves: dict[int, AckDriver[Sent]] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Never returns."""
        async with trio.open_nursery() as self._nursery:
            await self.flush.run()

    def add_flush(self, sent: Sent) -> None:
        """Wait for the flush, then for the slaves if any are needed."""
        self.flush.add(sent.answers[-1].end, sent.began + self._flush_timeout_s, sent)

    def add_slaves(self, sent: Sent) -> None:
        """Wait for the slaves alone."""
        self._driver(sent.need).add(sent.answers[-1].end, sent.began + self._slave_timeout_s, sent)

    def __len__(self) -> int:
        return len(self.flush.board) + sum(len(driver.board) for driver in self._slaves.values())

    def _driver(self, need: int) -> AckDriver[Sent]:
        driver = self._slaves.get(need)
        if driver is None:

            def settled(ready: list[Sent], late: list[Sent], mark: int) -> None:
                for sent in (both := ready + late):
                    self._give(sent, 1 << 62, mark)
                self._write(both)

            driver = self._slaves[need] = AckDriver(self._held(need), settled)
            assert self._nursery is not None
            self._nursery.start_soon(driver.run)
        return driver

    def _flush_settled(self, ready: list[Sent], late: list[Sent], flushed: int) -> None:
        written = []
        now = trio.current_time()
        for sent in ready:
            if sent.need > 1:
                mark = self._held(sent.need).value
                if mark < sent.answers[-1].end and now < sent.began + self._slave_timeout_s:
                    self.add_slaves(sent)
                    continue
                self._give(sent, flushed, mark)
            else:
                self._give(sent, flushed, 1 << 62)
            written.append(sent)
        for sent in late:
            self._give(sent, flushed, self._held(sent.need).value if sent.need > 1 else 1 << 62)
            written.append(sent)
        self._write(written)

    def _give(self, sent: Sent, flushed: int, held: int) -> None:
        """Post the answers of a batch, each by what is true of its own end. The replica's status wins."""
        frames = []
        for one in sent.answers:
            if one.end > held:
                frame = one.late(ResponseCode.FLUSH_SLAVE_TIMEOUT)
            elif one.end > flushed:
                frame = one.late(ResponseCode.FLUSH_DISK_TIMEOUT)
            else:
                frame = one.answer
            if frame is not None:
                frames.append(frame)
        sent.conn.post(b"".join(frames), soon=False)

    def _write(self, batches: list[Sent]) -> None:
        """One write per connection; counted is when the answers have left."""
        for conn in {sent.conn: None for sent in batches}:
            conn.flush_now()
        now = trio.current_time()
        for sent in batches:
            self._done(len(sent.answers), (now - sent.began) * 1000)
