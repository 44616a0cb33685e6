"""`Members`: which brokers answer, as this client has seen it, and who stands in for one that does not.

A member of a broker group is *lost* when a connection to it ends or cannot be made, and when it is silent: a heartbeat goes
unanswered for `ANSWER` seconds and nothing else arrives either. All tasks of the client share this knowledge, so one finds out
and nobody else waits for the same broker.

Lost members are left alone by everyone but one task each, which asks every second whether they are back, with a heartbeat: a
member that answers knows our groups already when the first pull comes. A member that no route names any more is forgotten.

A held pull and a dead broker look alike for 15 s. So while pulls wait at a member that somebody could stand in for, and
nothing is heard from it for `QUIET` seconds, it is asked for a sign of life (an empty heartbeat); without one its pulls
go elsewhere. Pulls at a stand-in are called off as soon as there is somebody better to ask.

A half-open connection never recovers, so a connection that two questions in a row found silent is not used for new requests.
Rejected: closing it. Sends on their way over it have time-outs of their own and may still be answered.

Source: `MQClientInstance#findBrokerAddressInSubscribe`, `PullAPIWrapper#recalculatePullFromWhichNode`; reference "client
behaviour" section 4.1. Upholds P-SLV-2, P-SLV-4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

from trmq.errors import ConnectionLost, RequestTimeout
from trmq.remoting import Connection, RemotingClient
from trmq.wire.codes import RequestCode, ResponseCode

from .routes import MASTER, TopicRoute

logger = logging.getLogger("trmq.client")

QUIET = 1.0
ANSWER = 3.0
PROBE = 1.0
RELAPSE = 5.0
"""A member lost again within this many seconds is not asked at once whether it is back."""
INTRODUCED = "groups"
"""In a connection's `state`: the consumer groups its broker was told of."""


@attrs.frozen
class Choice:
    """Whom to ask. `stand_in`: not the one that was wanted. `alone`: there is nobody else."""

    broker_id: int
    address: str
    stand_in: bool
    alone: bool


class Myself:
    """What a heartbeat says. `full` and `groups` belong together."""

    def __init__(self, full: Callable[[], tuple[bytes, frozenset[str]]], empty: bytes) -> None:
        self.full = full
        self.empty = empty


class Members:
    """One per client. `known` says whether a route names an address, `changed` is called when somebody was lost or came back."""

    def __init__(
        self, remoting: RemotingClient, nursery: trio.Nursery, myself: Myself, known: Callable[[str], bool], changed: Callable[[], None],
    ) -> None:
        self._remoting = remoting
        self._nursery = nursery
        self._myself = myself
        self._known = known
        self._changed = changed
        self._lost: dict[str, None] = {}
        self._lost_at: dict[str, float] = {}
        self._refuses: set[str] = set()
        """Lost members whose machines said at once that nobody is there, when they were asked last."""
        self._checking: set[str] = set()
        self._watched: set[str] = set()
        self._held: dict[str, dict[trio.CancelScope, None]] = {}
        self._stand_ins: dict[trio.CancelScope, None] = {}
        self._news = trio.Event()

    # --- asking who

    def is_lost(self, address: str) -> bool:
        return address in self._lost

    def may_be_back(self, address: str) -> bool:
        """It is lost, and asking costs no wait: its machine is there."""
        return address in self._lost and address in self._refuses

    @property
    def all_there(self) -> bool:
        return not self._lost

    def order(self, route: TopicRoute | None, broker_name: str, wanted: int = MASTER) -> list[Choice]:
        """Everybody of the group, the best first; the lost ones behind all others."""
        members = [] if route is None else route.members(broker_name, wanted)
        found = [Choice(member, address, member != wanted, len(members) == 1) for member, address in members]
        return sorted(found, key=lambda choice: choice.address in self._lost) if self._lost else found

    async def news(self) -> None:
        """Wait until a member came back or a new one is known."""
        await self._news.wait()

    # --- losing and finding

    def lost(self, address: str) -> None:
        """It could not be reached, or fell silent."""
        if address in self._lost:
            return
        self._lost[address] = None
        if self._remoting.closed:
            return
        now = trio.current_time()
        again = now - self._lost_at.get(address, -RELAPSE) < RELAPSE
        self._lost_at[address] = now
        logger.info("broker %s does not answer; others of its group stand in for it", address)
        for scope in self._held.get(address, ()):
            scope.cancel()
        self._changed()
        self._nursery.start_soon(self._probe, address, PROBE if again else 0.0)

    def look_again(self) -> None:
        """Somebody came back or is new in a route: whoever asks a stand-in chooses anew."""
        for scope in self._stand_ins:
            scope.cancel()
        self._news.set()
        self._news = trio.Event()
        self._changed()

    async def _probe(self, address: str, pause: float) -> None:
        """Until it answers, or no route names it any more (if one does later, that is a new member)."""
        silent = 0
        while True:
            await trio.sleep(pause)
            if not self._known(address):
                break
            conn = self._remoting.connected(address)
            asked = trio.current_time()
            if await self.introduce(address):
                logger.info("broker %s answers again", address)
                break
            (self._refuses.add if trio.current_time() - asked < QUIET else self._refuses.discard)(address)
            silent = silent + 1 if conn is not None and conn is self._remoting.connected(address) else 0
            if silent == 2:
                self._remoting.abandon(address)
            pause = PROBE
        del self._lost[address]
        self._refuses.discard(address)
        self.look_again()

    # --- heartbeats

    def knows(self, conn: Connection, group: str) -> bool:
        """Whether the broker at the other end was told of this consumer group."""
        return group in conn.state.get(INTRODUCED, ())

    async def introduce(self, address: str) -> bool:
        """Tell it who we are; whether it answers."""
        body, groups = self._myself.full()
        try:
            conn = await self._remoting.connection(address, timeout=ANSWER)
        except ConnectionLost as error:
            logger.debug("heartbeat to %s: %s", address, error)
            return False
        return await self._beat(conn, body, groups)

    async def _beat(self, conn: Connection, body: bytes, groups: frozenset[str] | None = None) -> bool:
        heard = conn.heard
        try:
            answer = await conn.request(RequestCode.HEART_BEAT, {}, body, timeout=ANSWER)
        except RequestTimeout:
            await trio.lowlevel.checkpoint()  # if this process was asleep, the reader gets its turn now
            return conn.heard != heard
        except ConnectionLost as error:
            logger.debug("heartbeat: %s", error)
            return False
        if answer.code != ResponseCode.SUCCESS:
            logger.info("a heartbeat was refused: %s (code %d)", answer.remark, answer.code)
        elif groups is not None:
            conn.state[INTRODUCED] = groups
        return True

    def suspect(self, address: str) -> None:
        """A request was not answered in time: find out whether that was the request's fault."""
        if address not in self._lost and address not in self._checking and not self._remoting.closed:
            self._checking.add(address)
            self._nursery.start_soon(self._check, address)

    async def _check(self, address: str) -> None:
        conn = self._remoting.connected(address)
        if conn is not None and not await self._beat(conn, self._myself.empty):
            self.lost(address)
        self._checking.discard(address)

    # --- requests that may be held

    @contextmanager
    def holding(self, choice: Choice) -> Iterator[trio.CancelScope]:
        """Around a request that a broker may hold: cancelled when the broker falls silent, or somebody better can be asked."""
        address = choice.address
        scope = trio.CancelScope()
        held = self._held.setdefault(address, {})
        held[scope] = None
        if choice.stand_in:
            self._stand_ins[scope] = None
        if not choice.alone and address not in self._watched:
            self._watched.add(address)
            self._nursery.start_soon(self._watch, address)
        try:
            with scope:
                yield scope
        finally:
            del held[scope]
            self._stand_ins.pop(scope, None)

    async def _watch(self, address: str) -> None:
        """While requests are held at `address`: is it there?"""
        while self._held[address]:
            conn = self._remoting.connected(address)
            heard = 0 if conn is None else conn.heard
            await trio.sleep(QUIET)
            if conn is None or conn.closed or conn.heard != heard or not self._held[address]:
                continue  # the end of a connection is noticed by itself
            if not await self._beat(conn, self._myself.empty) and not conn.closed:
                self.lost(address)
        self._watched.discard(address)
