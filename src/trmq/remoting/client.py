"""The calling side: at most one connection per address, dialled when needed, by one task for all who wait for it.

A connection that ends is forgotten and dialled again at the next use; whoever must announce itself on a new connection
(heartbeats, registrations) learns of the end by `on_closed` at once. A request is never repeated here: only its caller knows
whether that is safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import trio

from trmq.errors import ConfigError, ConnectionLost
from trmq.host import Address, Buffer, Host
from trmq.remoting.connection import Connection
from trmq.remoting.hub import Hub
from trmq.remoting.service import Answer, Limits
from trmq.wire.codes import ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import Header

Fields = Header | Mapping[str, str] | None


@lru_cache(maxsize=1024)
def parse_address(text: str) -> Address:
    """ "host:port" or "[ipv6]:port" in parts. Raises `ConfigError`."""
    ip, _, port = text.strip().rpartition(":")
    ip = ip.removeprefix("[").removesuffix("]")
    if not ip or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{text!r} is not an address: write host:port")
    return ip, int(port)


class _Peer:
    """An address that is connected or being dialled."""

    def __init__(self) -> None:
        self.settled = trio.Event()  # dialling has ended, one way or the other
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self.conn: Connection | None = None
        self.error = ""


class _Requests:
    """The service of a client's connections: what the other side asks of us, and word of the end."""

    def __init__(self, on_request: Callable[[Connection, Command], Answer] | None, closed: Callable[[Connection], None]) -> None:
        self._on_request = on_request
        self.closed = closed

    def handle(self, conn: Connection, command: Command) -> Answer:
        if self._on_request is None:
            return encode_response(command, ResponseCode.REQUEST_CODE_NOT_SUPPORTED, remark=f" request type {command.code} not supported")
        return self._on_request(conn, command)

    def finish(self, conn: Connection, deferred: list[Any]) -> Iterable[bytes]:
        raise AssertionError("a client's handler deferred an answer")

    def opened(self, conn: Connection) -> None: ...


class RemotingClient:
    """A pool of connections. Its tasks live in `nursery`; `on_closed(address)` is called when an open connection has ended."""

    def __init__(
        self,
        host: Host,
        nursery: trio.Nursery,
        *,
        on_request: Callable[[Connection, Command], Answer] | None = None,
        on_closed: Callable[[Address], None] | None = None,
        connect_timeout: float = 3.0,
        limits: Limits | None = None,
    ) -> None:
        self._host = host
        self._nursery = nursery
        self._service = _Requests(on_request, self._ended)
        self._on_closed = on_closed
        self._connect_timeout = connect_timeout
        self._hub = Hub(host, limits or Limits(), nursery)
        self._scope = trio.CancelScope()
        self._peers: dict[Address, _Peer] = {}
        self._abandoned: dict[_Peer, None] = {}
        self._running = False
        self._closed = False

    @property
    def addresses(self) -> list[Address]:
        """The addresses that are connected now."""
        return [address for address, peer in self._peers.items() if peer.conn is not None and not peer.conn.reason]

    @property
    def closed(self) -> bool:
        return self._closed

    def connected(self, address: Address | str) -> Connection | None:
        """The open connection to `address`, if there is one."""
        peer = self._peers.get(parse_address(address) if isinstance(address, str) else address)
        return None if peer is None or peer.conn is None or peer.conn.reason else peer.conn

    async def request(
        self, address: Address | str, code: int, fields: Fields = None, body: Buffer = b"", *, timeout: float = 3.0
    ) -> Command:
        """Send a request and wait for its answer, of whatever code; dials first if needed. `timeout` in seconds, for both.

        Raises `RequestTimeout`, or `ConnectionLost`: definite if no byte of the request left this host.
        """
        deadline = trio.current_time() + timeout
        conn = await self.connection(address, timeout=timeout)
        return await conn.request(code, fields, body, timeout=max(0.0, deadline - trio.current_time()))

    async def oneway(self, address: Address | str, code: int, fields: Fields = None, body: Buffer = b"", *, timeout: float = 3.0) -> None:
        """Send a request that gets no answer; waits only while too much is on its way already. Raises `ConnectionLost` (definite)."""
        conn = await self.connection(address, timeout=timeout)
        await conn.room()
        conn.oneway(code, fields, body)

    async def connection(self, address: Address | str, *, timeout: float = 3.0) -> Connection:
        """The open connection to `address`, dialled if needed. Raises `ConnectionLost` (definite)."""
        if isinstance(address, str):
            address = parse_address(address)
        peer = self._peers.get(address)
        if peer is not None and peer.conn is not None and not peer.conn.reason:
            return peer.conn
        if self._closed:
            raise ConnectionLost("this client is closed", definite=True)
        if peer is None or peer.conn is not None:
            peer = self._peers[address] = _Peer()
            self._nursery.start_soon(self._hold, address, peer)
            if not self._running:
                self._running = True
                self._nursery.start_soon(self._run_hub)
        with trio.move_on_after(timeout):
            await peer.settled.wait()
        if peer.conn is None:
            error = peer.error or f"no connection within {timeout:g} s"
            raise ConnectionLost(f"cannot reach {address[0]}:{address[1]}: {error}", definite=True)
        return peer.conn

    async def _run_hub(self) -> None:
        with self._scope:
            await self._hub.run()

    async def _hold(self, address: Address, peer: _Peer) -> None:
        """Dial, and serve the connection until it ends."""
        try:
            with peer.scope:
                stream = await self._dial(address, peer)
                if stream is None:
                    return
                try:
                    local, remote = self._host.ends(stream)
                    peer.conn = Connection(self._hub, stream, self._service, local, remote)
                    peer.conn.state["dialled"] = address
                    peer.settled.set()
                    await peer.conn.run()
                except OSError as error:  # from ends(): gone already
                    peer.error = str(error)
                finally:
                    await trio.aclose_forcefully(stream)
        finally:
            if self._peers.get(address) is peer:
                del self._peers[address]
            self._abandoned.pop(peer, None)
            peer.settled.set()
            peer.ended.set()

    def _ended(self, conn: Connection) -> None:
        """Before whoever waits on the connection learns of its end, so that a new one is announced first."""
        peer = self._peers.get(conn.state["dialled"])
        if not self._closed and self._on_closed is not None and peer is not None and peer.conn is conn:
            self._on_closed(conn.state["dialled"])

    async def _dial(self, address: Address, peer: _Peer) -> trio.abc.Stream | None:
        stream = None
        with trio.move_on_after(self._connect_timeout):
            try:
                stream = await self._host.connect(address)
            except (OSError, UnicodeError) as error:  # the latter for a host name that cannot be one
                peer.error = str(error)
                return None
        if stream is None:
            peer.error = f"no connection within {self._connect_timeout:g} s"
        return stream

    def abandon(self, address: Address | str) -> None:
        """Dial anew for the next request. The old connection takes what is answered to earlier ones, until it ends or was idle too long."""
        peer = self._peers.pop(parse_address(address) if isinstance(address, str) else address, None)
        if peer is not None:
            self._abandoned[peer] = None

    async def close(self, address: Address | str) -> None:
        """Close the connection to `address`, if any; requests under way on it get `ConnectionLost`."""
        peer = self._peers.get(parse_address(address) if isinstance(address, str) else address)
        if peer is not None:
            peer.scope.cancel()
            await peer.ended.wait()

    async def aclose(self) -> None:
        """Close all connections and end all tasks; requests under way get `ConnectionLost`, later ones too."""
        self._closed = True
        peers = [*self._peers.values(), *self._abandoned]
        for peer in peers:
            peer.scope.cancel()
        self._scope.cancel()
        for peer in peers:
            await peer.ended.wait()
        await trio.lowlevel.checkpoint()
