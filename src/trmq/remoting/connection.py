"""One connection, either side: a reader that works on batches, and an outbox for what is written in between.

The reader takes what the transport has, decodes every complete frame, runs each handler synchronously, lets the service
finish what the batch deferred (a commit, say) and writes all answers that are ready at once. No task, checkpoint or
thread hop per message; a peer that never reads blocks its own reader and nobody else.

Everything else that wants to write (a held pull, a late acknowledgement, a notification, a request of ours) is `post`ed: the frame joins
the outbox, and one task for all connections (`Hub`) hands the outboxes to the transports without waiting. Only a transport that
is full gets a writer task of its own, until it has caught up. Rejected: a writer task per connection, which costs memory for each idle
connection and a hop for each answer.

Source: reference "protocol" section 4; org.apache.rocketmq.remoting.netty.NettyRemotingAbstract#processRequestCommand.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import trio

from trmq.errors import ConnectionLost, RequestTimeout
from trmq.host import Address, Buffer
from trmq.remoting.hub import Hub
from trmq.remoting.service import Deferred, Job, Service, failure
from trmq.wire.codes import ResponseCode
from trmq.wire.command import Command, encode_request, encode_response
from trmq.wire.frame import FrameDecoder
from trmq.wire.headers import Header

log = logging.getLogger("trmq.remoting")

CHUNK_BYTES = 256 * 1024
"""Frames are joined into writes of about this size; a larger frame is written by itself, not copied again."""


class _Pending:
    """A request of ours without an answer yet."""

    __slots__ = ("answer", "event", "number")

    def __init__(self, number: int) -> None:
        self.number = number  # of its frame in the outbox's order
        self.event = trio.Event()
        self.answer: Command | None = None


class Connection:
    """One open stream of commands. `state` belongs to the service; `reason` says why it ended, once it has."""

    __slots__ = (
        "_decoder", "_drained", "_hub", "_jobs", "_next_opaque", "_outbox", "_outbox_bytes", "_posted", "_requests", "_scope", "_sending",
        "_service", "_stream", "_taken", "closed", "heard", "idle_since", "local", "marked", "partial_since", "peer", "reason", "state",
        "used",
    )  # fmt: skip

    def __init__(self, hub: Hub, stream: trio.abc.Stream, service: Service, local: Address, peer: Address) -> None:
        self.local = local
        self.peer = peer
        self.state: dict[str, Any] = {}
        self.closed = False
        self.reason = ""
        self.used = True  # since the hub looked last
        self.heard = 0  # how often something was received: whoever sees it stand still knows that the peer is silent
        self.idle_since = 0.0
        self.partial_since = 0.0  # when the incomplete frame in the decoder began; 0: none
        self.marked = False  # in the hub's list of outboxes to empty
        self._hub = hub
        self._stream = stream
        self._service = service
        self._decoder = FrameDecoder(hub.limits.frame_bytes_max, hub.limits.header_bytes_max)
        self._scope = trio.CancelScope()
        self._outbox: list[Buffer] = []
        self._outbox_bytes = 0
        self._sending = False  # somebody is inside the stream's send_all
        self._drained: trio.Event | None = None
        self._posted = 0  # frames ever posted
        self._taken = 0  # of these, handed to the transport
        self._requests: dict[int, _Pending] = {}
        self._next_opaque = 0
        self._jobs: set[trio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<Connection {self.local[0]}:{self.local[1]} - {self.peer[0]}:{self.peer[1]}{' closed' if self.closed else ''}>"

    # --- reading

    async def run(self) -> None:
        """Serve the stream until either side ends it. The caller closes the stream."""
        self._hub.connections[self] = None
        try:
            self._service.opened(self)
            with self._scope:
                try:
                    await self._read()
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    self.reason = self.reason or f"connection broken: {error}"
        finally:
            self._end()

    async def _read(self) -> None:
        hub, decoder, service = self._hub, self._decoder, self._service
        limits, handle = hub.limits, service.handle
        while True:
            data = await self._stream.receive_some(limits.read_bytes_max)
            if not data:
                self.reason = self.reason or "closed by the peer"
                return
            self.used = True
            self.heard += 1
            ready: list[Buffer] = []
            deferred: list[Deferred] = []
            size = 0
            commands = decoder.feed(bytes(data))
            for command in commands:
                if command.flag & 1:
                    self._answered(command)
                    continue
                try:
                    answer = handle(self, command)
                except AssertionError:
                    raise
                except Exception as error:
                    answer = failure(command, error)
                if answer is None:
                    continue
                if type(answer) is bytes:
                    if not command.flag & 2:
                        ready.append(answer)
                        size += len(answer)
                        if size > limits.batch_bytes_max:
                            ready = await self._deliver(ready, deferred)
                            deferred = []
                            size = 0
                elif isinstance(answer, Deferred):
                    deferred.append(answer)
                elif isinstance(answer, Job):
                    self._start(answer, command)
                else:
                    raise AssertionError(f"a handler of request {command.code} answered {type(answer).__name__}")
            if ready or deferred:
                await self._deliver(ready, deferred)
            if decoder.failed is not None:
                self.close_soon(str(decoder.failed))
                return
            if not decoder.pending:
                self.partial_since = 0.0
            elif commands or not self.partial_since:
                self.partial_since = trio.current_time()

    async def _deliver(self, ready: list[Buffer], deferred: list[Deferred]) -> list[Buffer]:
        """Finish the batch and write its answers; an empty list to gather the next ones in."""
        if deferred:
            ready.extend(self._service.finish(self, deferred))
        if ready:
            await self._write(ready)
        return []

    def _start(self, job: Job, command: Command) -> None:
        if len(self._jobs) >= self._hub.limits.jobs_max:
            if not command.is_oneway:
                remark = f"[OVERLOAD]more than {self._hub.limits.jobs_max} waiting requests on one connection"
                self.post(encode_response(command, ResponseCode.SYSTEM_BUSY, remark=remark))
            return
        scope = trio.CancelScope()
        self._jobs.add(scope)
        self._hub.nursery.start_soon(self._run_job, job, command, scope)

    async def _run_job(self, job: Job, command: Command, scope: trio.CancelScope) -> None:
        answer: bytes | None = None
        with scope:
            try:
                answer = await job.run()
            except AssertionError:
                raise
            except Exception as error:
                answer = failure(command, error)
        self._jobs.discard(scope)
        if answer is not None and not command.is_oneway:
            self.post(answer)

    # --- writing

    def post(self, frame: Buffer, *, soon: bool = True) -> None:
        """Queue a frame for the peer, in order with the other posted ones. No checkpoint; on a closed connection nothing happens.

        Without `soon` nobody is woken for it: the caller calls `flush_now` before it waits for anything.
        Closes the connection when the peer lets more than `outbox_bytes_max` pile up.
        """
        if self.closed:
            return
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        self._posted += 1
        if self._outbox_bytes > self._hub.limits.outbox_bytes_max:
            self._outbox.clear()
            self._outbox_bytes = 0
            self.close_soon(f"the peer does not read: more than {self._hub.limits.outbox_bytes_max} bytes wait for it")
        elif soon and not self._sending and not self.marked:
            self._hub.mark(self)

    async def room(self) -> None:
        """Wait while the outbox is so full that more should not be added. Always a checkpoint."""
        while self._outbox_bytes > self._hub.limits.outbox_bytes_high and not self.closed:
            await self._wait_drained()
        await trio.lowlevel.checkpoint()

    async def _wait_drained(self) -> None:
        if self._drained is None:
            self._drained = trio.Event()
        await self._drained.wait()

    def _take(self) -> list[Buffer]:
        frames, self._outbox = self._outbox, []
        self._outbox_bytes = 0
        self._taken = self._posted
        return frames

    async def _write(self, frames: list[Buffer]) -> None:
        """Write what was posted and then `frames`; returns when the transport has taken them. No checkpoint if it takes all at once."""
        if self._sending:  # a writer is behind; go after it, which also holds this reader back
            self._outbox.extend(frames)
            self._outbox_bytes += sum(map(len, frames))
            await self._wait_drained()
            return
        if self._outbox:
            frames = [*self._take(), *frames]
        rest = self._send_now(frames)
        if rest:
            self._sending = True
            await self.write_rest(rest)

    def flush_now(self) -> None:
        """Hand the outbox to the transport; what it does not take at once gets a writer task. Never raises."""
        self.marked = False
        if self._sending or self.closed or not self._outbox:
            return
        try:
            rest = self._send_now(self._take())
        except trio.BrokenResourceError as error:
            self._break(f"connection broken: {error}")
            return
        if rest:
            self._sending = True
            self._hub.nursery.start_soon(self._write_rest_alone, rest)
        elif self._drained is not None:
            self._drained.set()
            self._drained = None

    def _send_now(self, frames: list[Buffer]) -> list[Buffer]:
        """Send without waiting; the frames (the first one cut) that the transport did not take."""
        chunks = frames if len(frames) == 1 else _joined(frames)
        for number, chunk in enumerate(chunks):
            sent = self._hub.host.send_now(self._stream, chunk)
            if sent < len(chunk):
                return [memoryview(chunk)[sent:], *chunks[number + 1 :]]
        self.used = True
        return []

    async def _write_rest_alone(self, rest: list[Buffer]) -> None:
        try:
            await self.write_rest(rest)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._break(f"connection broken: {error}")

    async def write_rest(self, rest: list[Buffer]) -> None:
        """Wait until the transport has taken `rest` and all that is posted meanwhile."""
        try:
            while rest:
                for chunk in _joined(rest):
                    await self._stream.send_all(chunk)
                    self.used = True
                rest = self._take()
        finally:
            self._sending = False
            if self._drained is not None:
                self._drained.set()
                self._drained = None

    # --- requests of ours

    async def request(
        self, code: int, fields: Header | Mapping[str, str] | None = None, body: Buffer = b"", *, timeout: float
    ) -> Command:
        """Send a request and wait for its answer, of whatever code. `timeout` in seconds.

        Raises `RequestTimeout`, or `ConnectionLost`, definite if no byte of the request left this host.
        """
        pending: _Pending | None = None
        with trio.move_on_after(timeout):
            if self._outbox_bytes > self._hub.limits.outbox_bytes_high:  # no checkpoint otherwise: waiting for the answer is one
                await self.room()
            if not self.closed:
                opaque = self._opaque()
                self.post(encode_request(code, opaque, fields, body))
                pending = self._requests[opaque] = _Pending(self._posted)
                if len(self._requests) == 1:  # alone: save the hop to the hub; else share its write
                    self.flush_now()
                try:
                    await pending.event.wait()
                finally:
                    del self._requests[opaque]
        if pending is not None and pending.answer is not None:  # the value decides, also when it came at the last moment
            return pending.answer
        if self.closed:
            unsent = pending is None or pending.number > self._taken
            raise ConnectionLost(f"lost {self._peer_text} during request {code}: {self.reason}", definite=unsent)
        raise RequestTimeout(f"no answer from {self._peer_text} to request {code} within {timeout:g} s")

    def oneway(self, code: int, fields: Header | Mapping[str, str] | None = None, body: Buffer = b"") -> None:
        """Send a request that gets no answer; it is lost silently with the connection."""
        self.post(encode_request(code, self._opaque(), fields, body, oneway=True))

    def _opaque(self) -> int:
        self._next_opaque = self._next_opaque + 1 & 0x7FFFFFFF
        return self._next_opaque

    def _answered(self, command: Command) -> None:
        pending = self._requests.get(command.opaque)
        if pending is not None:  # else it comes too late, nobody waits any more
            pending.answer = command
            pending.event.set()

    # --- the end

    @property
    def _peer_text(self) -> str:
        return f"{self.peer[0]}:{self.peer[1]}"

    def close_soon(self, reason: str) -> None:
        """Close the connection; what the transport does not take at once is lost. Logged in one line with `reason`."""
        if self.closed or self.reason:
            return
        log.warning("closing the connection from %s to %s: %s", self._peer_text, self.local[1], reason)
        self._break(reason)

    def _break(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._scope.cancel()

    def _end(self) -> None:
        if not self._sending and self._outbox:
            taken = self._taken
            try:  # a goodbye, if the transport takes it
                self._send_now(self._take())
            except trio.BrokenResourceError:
                self._taken = taken
        self.closed = True
        self.reason = self.reason or "shut down"
        self._outbox.clear()
        self._outbox_bytes = 0
        del self._hub.connections[self]
        for pending in self._requests.values():
            pending.event.set()
        for scope in self._jobs:
            scope.cancel()
        if self._drained is not None:
            self._drained.set()
            self._drained = None
        self._service.closed(self)


def _joined(frames: list[Buffer]) -> list[Buffer]:
    """The same bytes in writes of about CHUNK_BYTES, where large frames stay as they are."""
    chunks: list[Buffer] = []
    gathered: list[Buffer] = []
    size = 0
    for frame in frames:
        if gathered and size + len(frame) > CHUNK_BYTES:
            chunks.append(gathered[0] if len(gathered) == 1 else b"".join(gathered))
            gathered, size = [], 0
        gathered.append(frame)
        size += len(frame)
    if gathered:
        chunks.append(gathered[0] if len(gathered) == 1 else b"".join(gathered))
    return chunks
