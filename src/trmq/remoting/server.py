"""The listening side: one reader per accepted connection, everything else shared (see `Hub`)."""

from __future__ import annotations

import logging

import trio

from trmq.errors import ConnectionLost
from trmq.host import Address, Host
from trmq.remoting.connection import Connection
from trmq.remoting.hub import Hub
from trmq.remoting.service import Limits, Service

log = logging.getLogger("trmq.remoting")


async def serve_remoting(
    host: Host,
    service: Service,
    address: Address,
    limits: Limits | None = None,
    *,
    task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on `address` and serve every connection until cancelled; `task_status.started` gets the bound address.

    A connection that fails ends alone; a bug in the service (an AssertionError) ends the server. Raises `ConfigError` if
    the port cannot be had.
    """
    limits = limits or Limits()
    listeners = list(await host.listen(address))
    bound = host.bound(listeners[0])
    full = False

    async def serve_one(stream: trio.abc.Stream) -> None:
        nonlocal full
        if len(hub.connections) >= limits.connections_max:
            if not full:  # once, not for each of a flood
                log.warning("port %d has %d connections, the limit: closing new ones at once", bound[1], limits.connections_max)
            full = True
            return
        full = False
        try:
            local, peer = host.ends(stream)
        except (OSError, ConnectionLost):
            return  # gone before it was accepted
        await Connection(hub, stream, service, local, peer).run()

    async with trio.open_nursery() as nursery:
        hub = Hub(host, limits, nursery)
        nursery.start_soon(hub.run)
        task_status.started(bound)
        await trio.serve_listeners(serve_one, listeners, handler_nursery=nursery)
