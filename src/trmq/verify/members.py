"""Which brokers there are, what they say to be, and whether they answer: asked for all the time, over connections of its own.

A member is *down* when nobody listens at its address (a connection is refused), *silent* when it does not answer in time. The latter may
be a slow machine: it says something only while a --pause is in force, and of questions that were asked after that. Since when and until
when is kept as the times between which it certainly was so: from the end of the first failed question to the beginning of the last one.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio
from specs.history import Gone, Paused, Resumed, Serving

from trmq.client import Client
from trmq.client.admin import BrokerInfo
from trmq.errors import ConnectionLost, RequestTimeout, TrmqError
from trmq.host import Host
from trmq.remoting import RemotingClient
from trmq.wire.codes import RequestCode

from .observer import Observer
from .plan import Expect, Plan

UP, DOWN, SILENT, PAUSED = "up", "down", "silent", "paused"
PROBE_EVERY, PROBE_TIMEOUT, LOOK_EVERY = 0.1, 1.0, 1.0
SYNC_MASTER, SLAVE = "SYNC_MASTER", "SLAVE"


@attrs.define
class Member:
    """One broker process. `away`: (down, silent or paused, from, until) of each time it did not answer."""

    address: str
    group: str
    broker_id: int
    config: Mapping[str, str] = attrs.field(factory=dict)
    version: str = ""
    state: str = UP
    away: list[tuple[str, float, float]] = attrs.field(factory=list)

    @property
    def role(self) -> str:
        return self.config.get("brokerRole", "ASYNC_MASTER" if self.broker_id == 0 else SLAVE)

    @property
    def sync_flush(self) -> bool:
        return self.config.get("flushDiskType") == "SYNC_FLUSH"

    def seconds(self, key: str, otherwise: float) -> float:
        text = self.config.get(key, "")
        return int(text) / 1000 if text.isdigit() else otherwise


def copies_promised(member: Member, expect: Expect) -> int:
    """How many members have what this master answers SEND_OK to, itself included."""
    if expect is Expect.master or (expect is Expect.auto and member.role != SYNC_MASTER):
        return 1
    text = member.config.get("inSyncReplicas", "")
    return max(2, int(text)) if text.isdigit() else 2


class Members:
    """Made and run by `run.verify`. `struck_at`: where in the history the fault that is under way began."""

    def __init__(self, plan: Plan, observer: Observer, client: Client, host: Host, nursery: trio.Nursery) -> None:
        self.plan, self.observer, self.client, self._nursery = plan, observer, client, nursery
        self.remoting = RemotingClient(host, nursery, connect_timeout=PROBE_TIMEOUT)
        self.known: dict[str, Member] = {}
        self.struck_at: int | None = None
        self.struck_s = 0.0
        """When the command that strikes had ended."""
        self.pausing = False
        self.changed = trio.lowlevel.ParkingLot()

    def master(self, group: str) -> Member | None:
        """Who was last seen to be the master: one that answers, if there is one."""
        found = [member for member in self.known.values() if member.group == group and member.broker_id == 0]
        return min(found, key=lambda member: member.state != UP, default=None)

    @property
    def groups(self) -> list[str]:
        return sorted({member.group for member in self.known.values()})

    def all_groups_have_a_master(self) -> bool:
        return all((master := self.master(group)) is not None and master.state == UP for group in self.groups)

    def away(self) -> list[Member]:
        return [member for member in self.known.values() if member.state != UP]

    # --- looking

    async def look(self) -> None:
        """Ask the name server once. Raises what the question raises."""
        for info in await self.client.admin.cluster():
            before = self.known.get(info.address)
            if before is None or (before.group, before.broker_id) != (info.broker_name, info.broker_id):
                await self._introduce(info)

    async def _introduce(self, info: BrokerInfo) -> None:
        member = Member(info.address, info.broker_name, info.broker_id)
        try:
            member.config = await self.client.admin.broker_config(info.address)
            runtime = await self.client.admin.broker_runtime(info.address)
        except TrmqError:
            return  # registered, and already gone again: the next look will see
        member.version = runtime.get("brokerVersionDesc", "")
        new = info.address not in self.known
        if not new:
            member.away = self.known[info.address].away
        self.known[info.address] = member
        self.observer.addresses.add(info.address)
        self._serves(member)
        if new:
            self._nursery.start_soon(self._probe, info.address)

    def _serves(self, member: Member) -> None:
        need = copies_promised(member, self.plan.expect)
        role = SLAVE if member.broker_id else SYNC_MASTER if need > 1 else "ASYNC_MASTER"
        self.observer.events.append(Serving(
            member.address, member.group, member.broker_id, role, member.sync_flush, need,
            slave_timeout_s=member.seconds("slaveTimeout", 3.0), flush_timeout_s=member.seconds("syncFlushTimeout", 5.0),
            at=self.observer.now))  # fmt: skip

    async def keep_looking(self) -> None:
        while True:
            await trio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except TrmqError:
                pass  # no name server: nothing new is heard
            self.changed.unpark_all()

    async def _probe(self, address: str) -> None:
        while True:
            asked = self.observer.now
            try:
                await self.remoting.request(address, RequestCode.GET_BROKER_RUNTIME_INFO, timeout=PROBE_TIMEOUT)
                self._answers(address)
            except ConnectionLost as error:
                if error.definite:
                    self._is_away(address, DOWN, asked)
            except RequestTimeout:
                if self.known[address].state != DOWN:
                    self._is_away(address, SILENT, asked)
            except TrmqError:
                pass
            await trio.sleep(PROBE_EVERY)

    def _answers(self, address: str) -> None:
        member = self.known[address]
        if member.state == UP:
            return
        was, member.state = member.state, UP
        if was == DOWN:
            self._serves(member)
        elif member.away[-1][0] == PAUSED:
            self.observer.events.append(Resumed(address, self.observer.now))
        self.changed.unpark_all()

    def _is_away(self, address: str, state: str, asked: float) -> None:
        member, now = self.known[address], self.observer.now
        what = state
        if state == SILENT and self.struck_at is not None and self.pausing and asked >= self.struck_s:
            what = PAUSED
        if member.state == state and member.away and member.away[-1][0] == what:
            began = member.away[-1][1]
            member.away[-1] = (what, began, max(began, asked))
            return
        if what == SILENT and member.away and member.away[-1][0] == PAUSED and member.state == state:
            return  # resumed, and not awake yet
        member.state = state
        member.away.append((what, now, now))
        if state == DOWN:
            how = "kill" if self.struck_at is None or self.pausing else self.plan.fault
            self.observer.insert(Gone(address, how, now), self.struck_at)
        elif what == PAUSED:
            self.observer.insert(Paused(address, now), self.struck_at)
        self.changed.unpark_all()
