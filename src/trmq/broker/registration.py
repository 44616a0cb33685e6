"""Telling the name servers what this broker has: to each of them alone, all of the time.

Each name server has one task. It registers everything at the start and every 30 s, tells at once of topics that changed (only
those, once the server knows the rest), tries again with growing pauses while the server is away, and registers everything
anew as soon as its connection was lost: a name server forgets a broker whose connection ends. Name servers don't talk to
each other, so one that is slow or gone must not hold up the others. On a clean stop the broker says goodbye to all.

Source: reference "namesrv" section 2; `BrokerOuterAPI#registerBrokerAll`, `BrokerController#registerBrokerAll`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs
import trio

from trmq.config import BrokerConfig
from trmq.errors import RemoteProtocolError, TrmqError
from trmq.host import Address
from trmq.remoting import RemotingClient, parse_address
from trmq.watermark import Watermark
from trmq.wire.bodies import KVTable, RegisterBrokerBody, decode_body, encode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command
from trmq.wire.headers.route import RegisterBroker, RegisterBrokerResponse, UnregisterBroker

if TYPE_CHECKING:
    from .topics import TopicTable

PERIOD_MIN_S, PERIOD_MAX_S = 10.0, 60.0
RETRY_MIN_S, RETRY_MAX_S = 0.25, 5.0
UNREGISTER_S = 3.0
TELL_S = 3.0


@attrs.frozen
class LinkStatistics:
    address: str
    registered: bool
    registrations: int
    last_error: str | None


class Link:
    """One name server: what it has not been told yet, and the task that tells it."""

    def __init__(self, owner: Registration, address: str) -> None:
        self.owner = owner
        self.address = address
        self.registered = False
        self.registrations = 0
        self.last_error: str | None = None
        self._pending: dict[str, None] = {}
        self._bell = trio.Event()
        self._tidings = 0
        self._told = Watermark()

    def tell(self, topics: Iterable[str]) -> None:
        self._pending.update(dict.fromkeys(topics))
        self._tidings += 1
        self._bell.set()

    async def told(self) -> None:
        """Return once the server knows all that `tell` was called with; at once while it is away, after 3 s at the latest."""
        if self.registered:
            with trio.move_on_after(TELL_S):
                await self._told.reach(self._tidings)

    def lost(self) -> None:
        """The connection ended: whatever the server knew of us is gone."""
        self.registered = False
        self._bell.set()

    async def run(self) -> None:
        pause = RETRY_MIN_S
        while True:
            self._bell = trio.Event()
            tidings = self._tidings
            topics = list(self._pending) if self.registered and self._pending else None
            self._pending.clear()
            if await self._register(topics):
                self._told.advance(tidings)
                pause, wait = RETRY_MIN_S, self.owner.period_s
            else:
                wait, pause = pause, min(pause * 2, RETRY_MAX_S)
            with trio.move_on_after(wait):
                await self._bell.wait()

    async def _register(self, topics: list[str] | None) -> bool:
        """Register `topics` (None: everything). False, with `last_error` set, if the server did not take it."""
        owner = self.owner
        header, body = owner.request(topics)
        try:
            answer = await owner.client.request(self.address, RequestCode.REGISTER_BROKER, header, body, timeout=owner.timeout_s)
            if answer.code != ResponseCode.SUCCESS:
                raise RemoteProtocolError(f"registration refused: {answer.remark} (code {answer.code})")
            owner.heard(answer)
            if answer.body:
                owner.topics.set_order(decode_body(answer.body, KVTable).table)
        except (TrmqError, OSError) as error:
            self.registered = False
            self.last_error = str(error)
            return False
        if topics is None:
            self.registered = True
        self.registrations += 1
        self.last_error = None
        return True

    async def unregister(self) -> None:
        with trio.move_on_after(UNREGISTER_S):
            try:
                await self.owner.client.request(
                    self.address, RequestCode.UNREGISTER_BROKER, self.owner.goodbye(), timeout=UNREGISTER_S
                )
            except (TrmqError, OSError) as error:
                self.last_error = str(error)
        self.registered = False


class Registration:
    """This broker at all its name servers. `start` knows the bound port, which is part of the broker's address."""

    def __init__(self, config: BrokerConfig, topics: TopicTable) -> None:
        self.config = config
        self.topics = topics
        self.period_s = min(max(config.register_name_server_period / 1000, PERIOD_MIN_S), PERIOD_MAX_S)
        self.timeout_s = config.register_broker_timeout_mills / 1000
        self.links = [Link(self, address) for address in config.namesrv_addresses]
        self.broker_addr = ""
        self.ha_port = config.ha_listen_port
        self.master: tuple[str, str] | None = None
        """A slave's: (address, HA address) of its master, as the name servers last said."""
        self.on_master: Callable[[], None] = lambda: None
        self.answered = trio.Event()
        """A name server has answered a registration."""
        self.client: RemotingClient

    def heard(self, answer: Command) -> None:
        """A name server answered a registration: a slave learns from it where its master is."""
        self.answered.set()
        if not self.config.is_slave:
            return
        told = answer.header(RegisterBrokerResponse)
        if told.master_addr and told.ha_server_addr and self.master != (told.master_addr, told.ha_server_addr):
            self.master = (told.master_addr, told.ha_server_addr)
            self.on_master()

    def refresh(self) -> None:
        """Register everything again now: a slave that has no master to follow wants to hear of one."""
        for link in self.links:
            link.lost()

    def topics_changed(self, topics: Iterable[str]) -> None:
        """Tell every name server of these topics at once."""
        names = list(topics)
        for link in self.links:
            link.tell(names)

    async def told(self) -> None:
        """Return once every name server that can be reached knows the topics of `topics_changed`: then the route is there."""
        async with trio.open_nursery() as nursery:
            for link in self.links:
                nursery.start_soon(link.told)

    def connection_lost(self, address: Address) -> None:
        for link in self.links:
            if parse_address(link.address) == address:
                link.lost()

    async def run(self, client: RemotingClient, broker_addr: str) -> None:
        """Keep every name server informed, for ever. `broker_addr` is what clients will dial."""
        self.client = client
        self.broker_addr = broker_addr
        async with trio.open_nursery() as nursery:
            for link in self.links:
                nursery.start_soon(link.run)

    async def unregister(self) -> None:
        """Say goodbye to all, each within 3 s. The client of `run` must still be open."""
        if not self.broker_addr:
            return
        async with trio.open_nursery() as nursery:
            for link in self.links:
                nursery.start_soon(link.unregister)

    def request(self, topics: list[str] | None) -> tuple[RegisterBroker, bytes]:
        body = encode_body(RegisterBrokerBody(topic_config_serialize_wrapper=self.topics.registration(topics)))
        config = self.config
        header = RegisterBroker(
            broker_name=config.broker_name, broker_addr=self.broker_addr, cluster_name=config.broker_cluster_name,
            ha_server_addr=f"{config.broker_ip2}:{self.ha_port}", broker_id=config.broker_id, enable_acting_master=False,
            compressed=False, body_crc32=zlib.crc32(body) & 0x7FFFFFFF,
        )
        return header, body

    def goodbye(self) -> UnregisterBroker:
        config = self.config
        return UnregisterBroker(config.broker_name, self.broker_addr, config.broker_cluster_name, config.broker_id)

    def statistics(self) -> list[LinkStatistics]:
        return [LinkStatistics(link.address, link.registered, link.registrations, link.last_error) for link in self.links]
