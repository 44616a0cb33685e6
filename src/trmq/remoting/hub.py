"""What the connections of one server or client share: the task that empties outboxes, and the one that ends idle and dripping peers.

Both exist once, however many connections there are: an idle connection costs its reader and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trmq.host import Host
from trmq.remoting.service import Limits

if TYPE_CHECKING:
    from trmq.remoting.connection import Connection


class Hub:
    def __init__(self, host: Host, limits: Limits, nursery: trio.Nursery) -> None:
        self.host = host
        self.limits = limits
        self.nursery = nursery  # of writers and jobs
        self.connections: dict[Connection, None] = {}  # an ordered set
        self._marked: list[Connection] = []
        self._bell = trio.Event()

    def mark(self, conn: Connection) -> None:
        """Empty this connection's outbox soon, together with the others marked meanwhile."""
        conn.marked = True
        self._marked.append(conn)
        self._bell.set()

    async def run(self) -> None:
        """Run both tasks until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reap)
            await self._empty()

    async def _empty(self) -> None:
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            marked, self._marked = self._marked, []
            for conn in marked:
                conn.flush_now()

    async def _reap(self) -> None:
        """Look at all connections now and then: cheaper than a deadline that moves with each message, exact to an eighth."""
        limits = self.limits
        while True:
            await trio.sleep(min(limits.idle_timeout, limits.frame_timeout) / 8)
            now = trio.current_time()
            for conn in list(self.connections):
                if conn.used:
                    conn.used = False
                    conn.idle_since = now
                elif now - conn.idle_since >= limits.idle_timeout:
                    conn.close_soon(f"idle for {limits.idle_timeout:g} s")
                if conn.partial_since and now - conn.partial_since >= limits.frame_timeout:
                    conn.close_soon(f"a frame was not complete after {limits.frame_timeout:g} s")
