"""`Source`: at which member of its broker group one queue is read.

Brokers suggest with every answer who should be asked next (a slave, when the master is busy with a reader far behind; the
master again later). The suggestion is followed while that member answers; else the master, else anybody. A slave that
refuses is left alone for a while, whatever is suggested: its answer costs a turn and brings nothing.

Offsets belong to the master. What a slave says about them is believed only as far as messages prove it: it never moves a reader
back, nor forward over messages that it doesn't show, except over those that a filter leaves out.

Source: `PullAPIWrapper#pullKernelImpl`; reference "client behaviour" section 4.1. Upholds P-SLV-4.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio

from trmq.errors import ConnectionLost, RequestTimeout
from trmq.message import MessageQueue
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command

from .instance import Instance
from .members import Choice
from .routes import MASTER

ERROR_DELAY = 1.0
REFUSED = 10.0
"""How long a member that refused is left alone if anybody else can be asked."""
SHORT = 0.1
"""An answer without news that comes back faster than this (seconds) was not held by the broker."""
IDLE_FREE = 3
"""So many of those in a row are nothing unusual."""
IDLE_DELAY = 0.02
BUSY = frozenset({ResponseCode.SYSTEM_BUSY, ResponseCode.SERVICE_NOT_AVAILABLE, ResponseCode.GO_AWAY})
"""Refusals of a master that a slave may still serve; any other is the master's word for the whole group."""


class Source:
    """Of one queue, for one consumer group (None: one that brokers need not know)."""

    def __init__(self, instance: Instance, queue: MessageQueue, group: str | None = None) -> None:
        self.instance = instance
        self.queue = queue
        self.wanted = MASTER
        """The member that was suggested last."""
        self._group = group
        self._refused: dict[str, float] = {}
        self._idle = 0

    def order(self) -> list[Choice]:
        """Everybody, the best first: those that answer, those that refused lately, those that are lost."""
        members = self.instance.members
        found = members.order(self.instance.known_route(self.queue.topic), self.queue.broker_name, self.wanted)
        if not self._refused:
            return found
        now = trio.current_time()
        self._refused = {address: at for address, at in self._refused.items() if now - at < REFUSED}
        return sorted(found, key=lambda choice: (members.is_lost(choice.address), choice.address in self._refused))

    def choose(self) -> Choice | None:
        """Whom to ask now; None while nobody answers, or all refused a moment ago."""
        for choice in self.order():
            if self.instance.members.is_lost(choice.address):
                continue
            refused = self._refused.get(choice.address)
            if refused is None or trio.current_time() - refused >= ERROR_DELAY:
                return choice
        return None

    async def nobody(self) -> None:
        """Wait a little for somebody to ask."""
        self.instance.refresh_soon(self.queue.topic)
        with trio.move_on_after(ERROR_DELAY):
            await self.instance.members.news()

    async def ask(self, choice: Choice, fields: Mapping[str, str], timeout: float) -> Command | None:
        """Send a pull. None if it is better asked again elsewhere. Raises `ConnectionLost`, `RequestTimeout`; the member is lost then."""
        members = self.instance.members
        deadline = trio.current_time() + timeout
        try:
            with members.holding(choice):
                conn = await self.instance.remoting.connection(choice.address, timeout=timeout)
                if self._group is not None and not members.knows(conn, self._group):
                    await members.introduce(choice.address)
                return await conn.request(RequestCode.PULL_MESSAGE, fields, timeout=max(0.0, deadline - trio.current_time()))
        except (ConnectionLost, RequestTimeout):
            members.lost(choice.address)
            self.instance.refresh_soon(self.queue.topic)
            raise
        return None

    def refused(self, choice: Choice, code: int) -> bool:
        """Note a refusal; whether another member may be asked instead."""
        if choice.broker_id == MASTER and code not in BUSY:
            return False
        self._refused[choice.address] = trio.current_time()
        return True

    def spoilt(self, choice: Choice) -> None:
        """What it answered is damaged: another member may have it sound."""
        self._refused[choice.address] = trio.current_time()

    def next_offset(self, choice: Choice, position: int, told: int, *, filtered: bool) -> int:
        """Where reading goes on after an answer without messages that told so."""
        return max(position, told) if choice.broker_id == MASTER or filtered else position

    async def breathe(self, choice: Choice, started: float, *, moved: bool) -> bool:
        """After an answer; `moved`: reading goes on from another offset. A broker that brings nothing at once, again and again, must not
        be asked in a tight loop, and a slave that does not before anybody else. Whether that is the case."""
        if moved or trio.current_time() - started >= SHORT:
            self._idle = 0
            return False
        self._idle += 1
        if self._idle <= IDLE_FREE:
            return False
        if choice.broker_id != MASTER:
            self._refused[choice.address] = trio.current_time()
        await trio.sleep(min(ERROR_DELAY, IDLE_DELAY * self._idle))
        return True
