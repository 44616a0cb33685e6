"""The master's HA port: every slave gets the log as soon as it is written, and what slaves report moves the acks.

    commit ─▶ push(max_phy) ─▶ every slave that has all before it gets the new slice in the same step, without a task switch
    a slave that is behind, or whose transport is full ─▶ its own task sends, slice by slice from the log; nothing is kept for it
    report ─▶ holders ─▶ held[need].advance ─▶ the answers that waited for it leave

A trmq slave first asks over the remoting port (`admit`) and gets a token, by which its HA connection is known to be its: it counts under
its broker id, and a second connection of the same slave replaces the first. Who comes without a token (Apache's slaves) is counted by
address (`ack.Holders`). A peer that cannot be right is dropped with a sentence, and never counts.

Source: reference "ha" section 1; `DefaultHAService`, `DefaultHAConnection`. Upholds P-HA-2, P-HA-4, P-HA-6, P-ACK-1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import attrs
import trio

from trmq.errors import DiskFailed
from trmq.host import Address, Host
from trmq.log import StoreService
from trmq.nursery import first_cause
from trmq.replica.ack import Holders
from trmq.replica.rate import Rate
from trmq.replica.transfer import APACHE_BATCH_BYTES, BATCH_BYTES, MasterEnd, PeerRefused, encode_header
from trmq.watermark import Watermark

logger = logging.getLogger("trmq.replica")

SLAVES_MAX = 64
COPY_BYTES_MAX = 64 * 1024
"""A slice up to this size leaves together with its header, copied; a larger one is sent from the mapped log as it is."""
TOKEN_LIFE_S = 30.0
READ_BYTES = 4096


@attrs.frozen
class SlaveIdentity:
    """What a trmq slave says about itself."""

    broker_id: int
    address: str
    store_id: str
    from_last_file: bool = False


@attrs.frozen
class SlaveStatistics:
    """One connected slave. Offsets in bytes of the log; `broker_id` None for one that cannot say who it is."""

    address: str
    broker_id: int | None
    acked: int
    sent: int
    bytes_sent: int
    bytes_per_second: int


class _Feed:
    """One HA connection, seen from the master."""

    def __init__(self, owner: Master, stream: trio.abc.Stream, peer: Address, number: int) -> None:
        self.owner = owner
        self.stream = stream
        self.peer = peer
        self.number = number
        self.end = MasterEnd(APACHE_BATCH_BYTES if owner.batch_bytes is None else owner.batch_bytes)
        self.who: SlaveIdentity | None = None
        self.scope = trio.CancelScope()
        self.reason = ""
        self.bell = trio.Event()
        self.busy = True  # its task is sending, or it has not begun: a commit leaves it alone
        self.written_at = 0.0
        self.bytes_sent = 0
        self.rate = Rate(trio.current_time())
        self.rest: list[memoryview] = []

    @property
    def broker_id(self) -> int | None:
        return None if self.who is None else self.who.broker_id

    @property
    def name(self) -> str:
        where = f"{self.peer[0]}:{self.peer[1]}"
        return where if self.who is None else f"{where} (id {self.who.broker_id}, {self.who.address})"

    def drop(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.scope.cancel()

    # --- reports

    async def read(self) -> None:
        owner, end, silence = self.owner, self.end, self.owner.silence_s
        with trio.move_on_after(silence) as patience:
            while True:
                data = await self.stream.receive_some(READ_BYTES)
                if not data:
                    self.reason = self.reason or "closed by the slave"
                    return
                before = end.acked
                if end.receive(data, owner.max_phy):
                    if self.who is None and end.token is not None:
                        self.who = owner.take_token(end.token, self)
                        end.batch_bytes = BATCH_BYTES
                    if end.acked != before:
                        if before < 0:
                            self.begin()
                        owner.reported(self, first=before < 0)
                now = trio.current_time()  # after the answers have left
                if patience.deadline < now + silence * 0.9:
                    patience.deadline = now + silence
        self.reason = self.reason or f"no sign of life for {silence:g} s"

    def begin(self) -> None:
        owner = self.owner
        last = owner.from_last_file if self.who is None else self.who.from_last_file
        log = owner.store.log
        start = self.end.begin(log.min_phy, log.max_phy, log.segment_size, last_segment=last)
        logger.info("slave %s follows from offset %d of %d", self.name, start, log.max_phy)
        self.bell.set()

    # --- the log

    def push(self) -> None:
        """From the middle of a commit: send what is new, if everything before it is sent. Never raises, never waits."""
        if self.busy:
            return
        try:
            if self._send_one():
                return  # and nothing is left
        except (trio.BrokenResourceError, PeerRefused) as error:
            self.drop(str(error))
        self.busy = True
        self.bell.set()

    def _send_one(self) -> bool:
        """Send one slice without waiting; True if the slave has been sent all. What the transport did not take is in `rest`."""
        log = self.owner.store.log
        found = self.end.next_slice(log.max_phy, log.segment_size)
        if found is None:
            return True
        offset, size = found
        view = self._view(offset, size)
        header = encode_header(offset, size)
        if size <= COPY_BYTES_MAX:
            parts = [memoryview(header + view)]
        else:
            parts = [memoryview(header), view]
        self.bytes_sent += size
        self.written_at = trio.current_time()
        for number, part in enumerate(parts):
            sent = self.owner.host.send_now(self.stream, part)
            if sent < len(part):
                self.rest = [part[sent:], *parts[number + 1 :]]
                return False
        return self.end.next_offset >= log.max_phy

    def _view(self, offset: int, size: int) -> memoryview:
        view = self.owner.store.log.read(offset, size)
        if view is None:
            raise PeerRefused(
                f"it needs offset {offset}, which has expired: this master's log begins at {self.owner.store.log.min_phy}; "
                "run `trmq store resync` on the slave"
            )
        return view

    async def write(self) -> None:
        """Send what a commit could not: to a slave that is behind, or slow. Says something when there was nothing to say for long."""
        beat = self.owner.heartbeat_s
        while True:
            rest, self.rest = self.rest, []
            for part in rest:
                await self.stream.send_all(part)
            if rest:
                continue
            if self.end.next_offset >= 0 and not self._send_one():
                await trio.lowlevel.checkpoint()
                continue
            self.busy = self.end.next_offset < 0
            self.bell = trio.Event()
            with trio.move_on_at(self.written_at + beat):
                await self.bell.wait()
            if not self.busy and trio.current_time() >= self.written_at + beat:
                self.busy = True
                self.written_at = trio.current_time()
                await self.stream.send_all(encode_header(self.end.next_offset, 0))
            elif self.busy and self.end.next_offset < 0:
                self.written_at = trio.current_time()

    def statistics(self) -> SlaveStatistics:
        return SlaveStatistics(
            f"{self.peer[0]}:{self.peer[1]}", self.broker_id, self.end.acked, max(0, self.end.next_offset), self.bytes_sent,
            self.rate.look(trio.current_time(), self.bytes_sent),
        )


class Master:
    """Serves the HA port. `changed` is called when a slave came or went, after the holders say so."""

    def __init__(
        self, host: Host, service: StoreService, *, heartbeat_s: float = 5.0, silence_s: float = 20.0, batch_bytes: int | None = None,
        from_last_file: bool = False, changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.host = host
        self.store = service.store
        self.heartbeat_s = heartbeat_s
        self.silence_s = silence_s
        self.batch_bytes = batch_bytes
        self.from_last_file = from_last_file
        self.holders = Holders()
        self.refused = 0
        """Peers that were dropped because they could not be right."""
        self.last_refusal = ""
        self._held: dict[int, Watermark] = {}
        self._changed = changed
        self._feeds: dict[_Feed, None] = {}
        self._numbers = 0
        self._tokens: dict[int, tuple[float, SlaveIdentity]] = {}
        service.written.watch(self._push)

    @property
    def max_phy(self) -> int:
        return self.store.log.max_phy

    def held(self, need: int) -> Watermark:
        """The mark up to which `need` holders hold the log, this master among them. It moves inside the step that a report comes in."""
        mark = self._held.get(need)
        if mark is None:
            mark = self._held[need] = Watermark(max(0, min(self.holders.held(need), self.max_phy)))
        return mark

    def allow(self, registered: Mapping[str, int]) -> None:
        """How many slaves of this group that cannot say who they are may count, by ip."""
        self.holders.allow(registered)
        self._advance()

    def _push(self, _end: int) -> None:
        for feed in self._feeds:
            feed.push()

    def reported(self, feed: _Feed, *, first: bool) -> None:
        self.holders.report(feed.broker_id, feed.peer[0], feed.number, feed.end.acked)
        self._advance()
        if first:
            self._changed()

    def _advance(self) -> None:
        for need, mark in list(self._held.items()):
            mark.advance(min(self.holders.held(need), self.max_phy))

    # --- who they are

    def connected(self, broker_id: int) -> SlaveIdentity | None:
        """The announced slave that is connected under an id now."""
        return next((feed.who for feed in self._feeds if feed.who is not None and feed.who.broker_id == broker_id), None)

    def admit(self, who: SlaveIdentity) -> int:
        """A token for a slave that was found to be right: the first word it says on the HA port."""
        now = trio.current_time()
        self._tokens = {token: (until, one) for token, (until, one) in self._tokens.items() if until > now}
        token = -1 - self.host.random.getrandbits(62)
        self._tokens[token] = (now + TOKEN_LIFE_S, who)
        return token

    def take_token(self, token: int, feed: _Feed) -> SlaveIdentity:
        found = self._tokens.pop(token, None)
        if found is None or found[0] < trio.current_time():
            raise PeerRefused(f"it sent {token}, which is no offset and no token of ours")
        who = found[1]
        for other in list(self._feeds):
            if other is not feed and other.broker_id == who.broker_id:
                other.drop(f"id {who.broker_id} has connected again from {feed.peer[0]}:{feed.peer[1]}")
                self._forget(other)
        self.holders.leave(None, feed.peer[0], feed.number)
        self.holders.report(who.broker_id, feed.peer[0], feed.number, -1)
        return who

    # --- life

    async def run(self, address: Address, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen for slaves until cancelled. Raises `ConfigError` if the port cannot be had."""
        listeners = list(await self.host.listen(address))
        task_status.started(self.host.bound(listeners[0]))
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            peer = self.host.ends(stream)[1]
        except OSError:
            return
        if len(self._feeds) >= SLAVES_MAX:
            self.refuse(f"{peer[0]}:{peer[1]}", f"{SLAVES_MAX} slaves are connected, the limit")
            return
        self._numbers += 1
        feed = _Feed(self, stream, peer, self._numbers)
        feed.written_at = trio.current_time()
        self._feeds[feed] = None
        self.holders.report(None, peer[0], feed.number, -1)
        for ip, count, allowed in self.holders.surplus():
            logger.warning("%d HA connections from %s, of which %d count as slaves", count, ip, allowed)
        try:
            with feed.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(feed.write)
                    await feed.read()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            self._ended_by(feed, group)
        finally:
            self._forget(feed)
        logger.info("slave %s is gone: %s", feed.name, feed.reason or "shut down")

    def _ended_by(self, feed: _Feed, group: BaseExceptionGroup[BaseException]) -> None:
        """A peer takes only its own connection down; anything else than its doing is raised again."""
        refused, rest = group.split((PeerRefused, trio.BrokenResourceError, trio.ClosedResourceError))
        if rest is not None:
            failed = rest.split(DiskFailed)[0]
            raise failed or rest
        assert refused is not None
        error = first_cause(refused)
        if isinstance(error, PeerRefused):
            self.refuse(feed.name, str(error))
        feed.reason = feed.reason or str(error)

    def refuse(self, name: str, reason: str) -> None:
        """Count and log a peer that cannot be right, at the HA port or before it came there."""
        self.refused += 1
        sentence = f"HA peer {name} refused: {reason}"
        if sentence != self.last_refusal:  # once, not for each of its attempts
            logger.warning("%s", sentence)
        self.last_refusal = sentence

    def _forget(self, feed: _Feed) -> None:
        if feed not in self._feeds:
            return
        del self._feeds[feed]
        self.holders.leave(feed.broker_id, feed.peer[0], feed.number)
        self._changed()

    def statistics(self) -> list[SlaveStatistics]:
        return [feed.statistics() for feed in self._feeds]
