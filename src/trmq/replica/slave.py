"""The slave's side: find the master, connect, append what comes, say how far that is; again and again.

    master ─▶ SlaveEnd ─▶ follower.append ─▶ report ─▶ follower.dispatch          one step while the slave keeps up
                                              under SYNC_FLUSH the report waits for the flush, and says what is durable
    far behind: appending goes on at the speed of the wire, and a task of its own dispatches

`find` decides who the master is and whether it may be followed (`trmq.broker.following`): it asks the name servers and the master, and
raises `CannotFollow` with a sentence when it must not be. The sentence is what `trmq ha status` shows.

Source: reference "ha" section 1; `DefaultHAClient`. Differs on purpose: reports at once after connecting (TRAP-H3), under SYNC_FLUSH
reports only what is durable (TRAP-H4), never ends within a record. Upholds P-HA-1, P-HA-3, P-HA-5, P-HA-6, P-SLV-1.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs
import trio

from trmq.errors import CorruptRecord, DiskFailed, DiskFull, ReplicaError
from trmq.host import Address, Host
from trmq.log import StoreService
from trmq.log.follower import Follower
from trmq.nursery import first_cause
from trmq.replica.rate import Rate
from trmq.replica.transfer import REPORT, PeerRefused, SlaveEnd, encode_report

logger = logging.getLogger("trmq.replica")

CONNECT_S = 3.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 1.0
READ_BYTES = 1 << 20
DISPATCH_BYTES = 128 * 1024
"""What is looked at in one step; a slave that serves readers must not be away for long."""
FLOOD_BYTES = 192 * 1024
"""A read of this size says that the log comes in as fast as we take it: then having it comes before looking at it."""
FAR_BEHIND_BYTES = 4 << 20
DISPATCH_BYTES_MEANWHILE = 16 * 1024
"""What is looked at in one step while the log floods in and that much waits."""


class CannotFollow(ReplicaError):
    """There is no master that this slave can follow now; the sentence says why and what helps."""


class Cut(ReplicaError):
    """This log has to end at `at` before it can follow its master. `aside`: what lies behind is kept in a file."""

    def __init__(self, at: int, reason: str, *, aside: bool) -> None:
        super().__init__(reason)
        self.at = at
        self.aside = aside


@attrs.frozen
class Lead:
    """The master to follow. `token` is its consent, None for one that knows none (Apache's). `start`: where an empty slave begins, if
    that must be asked for."""

    ha_address: Address
    name: str
    token: int | None = None
    start: int | None = None


@attrs.frozen
class LinkState:
    """How the slave is doing. `problem` is a sentence, "" when there is none. Times are ms since the epoch, 0 for never."""

    master: str
    connected: bool
    problem: str
    end: int
    waiting: int
    last_read_ms: int
    last_write_ms: int
    bytes_per_second: int


class Slave:
    """`lead` is the master followed now, None without a connection."""

    def __init__(
        self, host: Host, service: StoreService, follower: Follower, find: Callable[[], Awaitable[Lead]], *, heartbeat_s: float = 5.0,
        silence_s: float = 20.0, changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.host = host
        self.lead: Lead | None = None
        self.problem = "not connected yet"
        self._service = service
        self._follower = follower
        self._find = find
        self._heartbeat_s = heartbeat_s
        self._silence_s = silence_s
        self._changed = changed
        self._stream: trio.abc.Stream | None = None
        self._sync_flush = service.config.sync_flush
        self._reported = -1
        self._out = b""
        self._sending = False
        self._wrote_at = 0.0
        self._bell = trio.Event()
        self._work = trio.Event()
        self._last_read_ms = self._last_write_ms = 0
        self._total = 0
        self._rate = Rate(trio.current_time())
        self._sooner = trio.Event()
        service.flushed.watch(self._flushed)

    # --- life

    async def run(self) -> None:
        """Follow for ever. Raises `Cut` when the log must be cut first, `DiskFailed`."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._dispatch_behind)
                await self._follow_for_ever()
        except BaseExceptionGroup as group:
            raise first_cause(group) from None

    async def _follow_for_ever(self) -> None:
        pause = PAUSE_MIN_S
        while True:
            before, since = self._follower.end, trio.current_time()
            self._sooner = trio.Event()
            try:
                lead = await self._find()
                await self._follow(lead)
            except Cut:
                raise
            except (ReplicaError, PeerRefused, DiskFull, OSError, trio.BrokenResourceError) as error:
                self._trouble(str(error))
            if self._follower.end != before or trio.current_time() - since > PAUSE_MAX_S:  # bytes alone may be the same ones again
                pause = PAUSE_MIN_S
            with trio.move_on_after(pause):
                await self._sooner.wait()
            pause = min(pause * 2, PAUSE_MAX_S)

    def try_sooner(self) -> None:
        """Something changed that may help: do not wait any longer."""
        self._sooner.set()

    def _trouble(self, sentence: str) -> None:
        if sentence != self.problem:
            logger.warning("not following a master: %s", sentence)
        self.problem = sentence

    async def finish(self) -> None:
        """Dispatch what is left, before the store is closed."""
        while self._follower.dispatch(1 << 20):
            await trio.lowlevel.checkpoint()

    # --- one connection

    async def _follow(self, lead: Lead) -> None:
        stream = None
        with trio.move_on_after(CONNECT_S):
            stream = await self.host.connect(lead.ha_address)
        if stream is None:
            raise CannotFollow(f"no connection to {lead.ha_address[0]}:{lead.ha_address[1]} within {CONNECT_S:g} s")
        try:
            self._hello(stream, lead)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, stream)
                await self._read(stream)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first_cause(group.split(DiskFailed)[0] or group) from None  # a failed disk before anything else
        finally:
            self._stream = None
            was, self.lead = self.lead, None
            if was is not None:
                self._changed()
            await trio.aclose_forcefully(stream)

    def _hello(self, stream: trio.abc.Stream, lead: Lead) -> None:
        self._stream = stream
        self._reported = -1
        self._out = b"" if lead.token is None else REPORT.pack(lead.token)
        if lead.start is not None and self._follower.end is None:
            self._out += encode_report(lead.start)
            self._flush_out()
        else:
            self._report()
        self.lead = lead
        self.problem = ""
        logger.info("following %s from offset %s", lead.name, self._follower.end)
        self._changed()

    async def _read(self, stream: trio.abc.Stream) -> None:
        follower, silence = self._follower, self._silence_s
        end = SlaveEnd(follower.end, self._service.config.segment_size)
        with trio.move_on_after(silence) as patience:
            while True:
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    raise CannotFollow("the master closed the HA connection; its log says why")
                found = end.feed(data)
                if found is not None:
                    follower.append(*found)
                    if not self._sync_flush:
                        self._report()
                now = trio.current_time()  # all that follows after the report: a producer waits for that one
                if patience.deadline < now + silence * 0.9:
                    patience.deadline = now + silence
                self._last_read_ms = self.host.wall_ms()
                self._total += len(data)
                if found is not None and not self._sync_flush:
                    self._dispatch(len(data))
        raise CannotFollow(f"no sign of life of the master for {silence:g} s")

    # --- saying how far it is

    def _flushed(self, _end: int) -> None:
        if self._sync_flush and self._stream is not None:
            self._report()
            self._work.set()

    def _report(self, *, again: bool = False) -> None:
        """Tell the master where the log ends (under SYNC_FLUSH: where what is durable ends), if it does not know."""
        log, store = self._service.store.log, self._service.store
        end = (store.flushed if self._sync_flush else log.max_phy) if log.segments else 0
        if end <= self._reported and not again:
            return
        self._reported = end
        self._out += encode_report(end)
        self._flush_out()

    def _flush_out(self) -> None:
        if self._stream is None or self._sending:
            return  # its task sends what is left, and then this
        try:
            sent = self.host.send_now(self._stream, self._out)
        except trio.BrokenResourceError:
            sent = 0  # the reader learns of it too
        self._wrote_at = trio.current_time()
        self._last_write_ms = self.host.wall_ms()
        self._out = self._out[sent:]
        if self._out:
            self._bell.set()

    async def _write(self, stream: trio.abc.Stream) -> None:
        """What the transport did not take at once, and a report when nothing was reported for long."""
        while True:
            with trio.move_on_at(self._wrote_at + self._heartbeat_s):
                await self._bell.wait()
            self._bell = trio.Event()
            if not self._out:
                if trio.current_time() >= self._wrote_at + self._heartbeat_s:
                    self._report(again=True)
                continue
            out, self._out = self._out, b""
            self._sending = True
            try:
                await stream.send_all(out)
            finally:
                self._sending = False
            if self._out:
                self._bell.set()

    # --- dispatch

    def _dispatch(self, size: int) -> None:
        if size >= FLOOD_BYTES or self._follower.waiting > FLOOD_BYTES:
            self._work.set()
            return
        try:
            while self._follower.dispatch(FLOOD_BYTES):
                pass
        except CorruptRecord as error:
            raise self._unsound(error) from error

    def _unsound(self, error: CorruptRecord) -> Cut:
        at = self._service.store.confirm
        return Cut(at, f"{error}; the log is cut at {at} and copied again from there", aside=False)

    async def _dispatch_behind(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            seen = -1
            try:
                while True:
                    meanwhile = seen != self._total and self._follower.waiting > FAR_BEHIND_BYTES
                    seen = self._total
                    if not self._follower.dispatch(DISPATCH_BYTES_MEANWHILE if meanwhile else DISPATCH_BYTES):
                        break
                    await trio.lowlevel.checkpoint()
            except CorruptRecord as error:
                raise self._unsound(error) from error

    def state(self) -> LinkState:
        lead = self.lead
        return LinkState(
            "" if lead is None else lead.name, lead is not None, self.problem, self._service.store.max_phy, self._follower.waiting,
            self._last_read_ms, self._last_write_ms, self._rate.look(trio.current_time(), self._total),
        )
