"""`Instance`: what producers, consumers, readers and admin of one `connect` share: connections, routes, heartbeats.

Three tasks, all in the nursery of `connect`: routes are refreshed every 30 s, at once when a send or pull finds them wrong, and
after 2, 4, 8, 10, 10 … seconds while a group is without its master; heartbeats go out every 30 s and at once on any change of who
takes part (on a new connection before anything else: `Members`); requests that brokers start (members changed, reset offsets,
tell your state) are answered by the consumer they name. Without a name server everything goes on with the routes it has.

Source: `MQClientInstance`, `ClientRemotingProcessor`; reference "client behaviour" sections 1, 2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import trio

from trmq.errors import ConfigError, ConnectionLost, RemoteProtocolError, RemoteRefused, RequestTimeout, RouteNotFound, TrmqError
from trmq.host import Address, Buffer, Host
from trmq.message import AUTO_CREATE_TOPIC
from trmq.remoting import Answer, Connection, RemotingClient
from trmq.wire import fastjson
from trmq.wire.bodies import TopicRouteData, decode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.unique_key import UniqueKeys

from .members import Members, Myself
from .routes import MASTER, TopicRoute, borrow_route, read_route

logger = logging.getLogger("trmq.client")

POLL_NAME_SERVER = 30.0
POLL_MASTERLESS, POLL_MASTERLESS_MAX = 2.0, 10.0
"""The first look for a master that is gone; every further one takes twice as long, up to the second value."""
HEARTBEAT = 30.0
API_TIMEOUT = 3.0
SETTLE = 1.0
"""A refresh that a failure asked for follows the previous one after at least this many seconds."""


class Member(Protocol):
    """A consumer as the instance sees it."""

    group: str

    def heartbeat(self) -> dict[str, Any]:
        """Its ConsumerData."""
        ...

    def rebalance_soon(self) -> None: ...

    def members_changed(self) -> None:
        """Somebody who keeps offsets was lost or came back."""
        ...

    def answer(self, command: Command) -> Answer:
        """The answer to a request (220, 221, 307, 309) that named this group."""
        ...


class Instance:
    """One client id. Open it with `run` in a nursery before use; all methods are for tasks of that same Trio run."""

    def __init__(self, host: Host, name_servers: Sequence[Address], nursery: trio.Nursery, *, default_topic_queues: int = 4) -> None:
        if not name_servers:
            raise ConfigError("no name server address: give namesrv as 'host:port', several separated by ';'")
        self.host = host
        self.name_servers = list(name_servers)
        self.remoting = RemotingClient(host, nursery, on_request=self._on_request, on_closed=self._on_closed)
        serial = host.random.getrandbits(40)
        self.client_id = f"{host.local_ip()}@{host.process_id}#{serial}"
        self.keys = UniqueKeys(host.local_ip(), host.process_id, serial & 0x7FFFFFFF, host.wall_ms())
        self.default_topic_queues = default_topic_queues
        empty = fastjson.dumps({"clientID": self.client_id, "consumerDataSet": [], "producerDataSet": []}, quoted_keys=True)
        self.members = Members(self.remoting, nursery, Myself(self._heartbeat, empty), self._is_known, self._members_changed)
        self.consumers: dict[str, Member] = {}
        self.producers: dict[str, int] = {}
        self._routes: dict[str, TopicRoute] = {}
        self._borrowed: set[str] = set()
        self._fetching: dict[str, trio.Event] = {}
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._name_server = host.random.randrange(len(self.name_servers))
        self._refresh_wanted = trio.Event()
        self._stale: set[str] = set()
        self._heartbeat_wanted = trio.Event()

    def new_key(self) -> str:
        return self.keys.next(self.host.wall_ms())

    # --- asking

    async def ask(
        self, address: Address | str, code: int, fields: Mapping[str, str] | None = None, body: Buffer = b"", *,
        timeout: float = API_TIMEOUT,
    ) -> Command:
        """The answer with code 0. Raises `RemoteRefused` for any other, `ConnectionLost`, `RequestTimeout`."""
        answer = await self.remoting.request(address, code, fields or {}, bytes(body), timeout=timeout)
        if answer.code != 0:
            raise RemoteRefused(answer.code, answer.remark)
        return answer

    async def ask_offset(self, address: Address | str, code: int, fields: Mapping[str, str], *, timeout: float = API_TIMEOUT) -> int:
        """The offset an answer carries. Raises like `ask`, and `RemoteProtocolError` if it carries none."""
        return _offset_of(await self.ask(address, code, fields, timeout=timeout), code)

    async def ask_group(
        self, topic: str, broker_name: str, code: int, fields: Mapping[str, str], *, timeout: float = API_TIMEOUT,
    ) -> Command:
        """Ask the master of a group, or whoever answers while it does not. Raises like `ask`."""
        problem: TrmqError | None = None
        for choice in self.members.order(self._routes.get(topic), broker_name):
            try:
                return await self.ask(choice.address, code, fields, timeout=timeout)
            except (ConnectionLost, RequestTimeout) as error:
                self.members.lost(choice.address)
                self.refresh_soon(topic)
                problem = error
        raise problem or ConnectionLost(f"no address of broker {broker_name!r} is known", definite=True)

    async def ask_group_offset(
        self, topic: str, broker_name: str, code: int, fields: Mapping[str, str], *, timeout: float = API_TIMEOUT,
    ) -> int:
        """The offset that the answer of `ask_group` carries. Raises like it, and `RemoteProtocolError` if there is none."""
        return _offset_of(await self.ask_group(topic, broker_name, code, fields, timeout=timeout), code)

    async def ask_name_server(
        self, code: int, fields: Mapping[str, str] | None = None, body: bytes = b"", *, timeout: float = API_TIMEOUT,
    ) -> Command:
        """Stays with one name server while it answers, else goes on to the next.

        Raises `RemoteRefused`, or `ConnectionLost` if none answers.
        """
        problem: TrmqError | None = None
        for _ in self.name_servers:
            try:
                return await self.ask(self.name_servers[self._name_server], code, fields, body, timeout=timeout)
            except (ConnectionLost, RequestTimeout) as error:
                problem = error
                self._name_server = (self._name_server + 1) % len(self.name_servers)
        names = ", ".join(f"{ip}:{port}" for ip, port in self.name_servers)
        raise ConnectionLost(f"no name server answers ({names}): {problem}", definite=True) from problem

    async def ask_every_name_server(self, code: int, fields: Mapping[str, str] | None = None) -> None:
        """Ask all of them (they don't talk to each other). Raises like `ask` for the first that fails."""
        for address in self.name_servers:
            await self.ask(address, code, fields)

    # --- routes

    def known_route(self, topic: str) -> TopicRoute | None:
        return self._routes.get(topic)

    async def route(self, topic: str, *, create: bool = False) -> TopicRoute:
        """The cached route, fetched on first use. `create`: an unknown topic borrows the route of the auto-create template.

        Raises `RouteNotFound`, or `ConnectionLost` if no name server answers.
        """
        while True:
            route = self._routes.get(topic)
            if route is not None and (create or topic not in self._borrowed):
                return route
            fetching = self._fetching.get(topic)
            if fetching is not None:
                await fetching.wait()
                if self._routes.get(topic) is not None:
                    continue
            await self.refresh(topic, create=create)

    async def fresh_route(self, topic: str, *, create: bool = False) -> TopicRoute | None:
        """The route after a fetch that ends from now on; callers at the same time share one fetch. Raises like `route`."""
        fetching = self._fetching.get(topic)
        if fetching is not None:
            await fetching.wait()
        else:
            await self.refresh(topic, create=create)
        return self._routes.get(topic)

    async def refresh(self, topic: str, *, create: bool = False) -> bool:
        """Fetch a route now; True if it changed. An unknown topic keeps the route it had (brokers may be restarting)."""
        done = self._fetching[topic] = trio.Event()
        try:
            route = await self._fetch(topic, create or topic in self._borrowed)
        finally:
            done.set()
            if self._fetching.get(topic) is done:
                del self._fetching[topic]
        old = self._routes.get(topic)
        self._routes[topic] = route
        if old == route:
            return False
        if old is None or old.brokers != route.brokers:
            self.heartbeat_soon()
            if old is None or route.addresses() - old.addresses():
                self.members.look_again()
        for wake in self._watchers.get(topic, []):
            wake()
        return True

    async def _fetch(self, topic: str, create: bool) -> TopicRoute:
        try:
            route = read_route(topic, await self._route_data(topic))
            self._borrowed.discard(topic)
            return route
        except RemoteRefused as error:
            if error.code != ResponseCode.TOPIC_NOT_EXIST:
                raise
            if topic in self._routes and topic not in self._borrowed:
                return self._routes[topic]
        if create:
            try:
                route = borrow_route(topic, await self._route_data(AUTO_CREATE_TOPIC), self.default_topic_queues)
                self._borrowed.add(topic)
                return route
            except RemoteRefused as error:
                if error.code != ResponseCode.TOPIC_NOT_EXIST:
                    raise
        raise RouteNotFound(f"no route for topic {topic!r}: create it, or let a broker register with autoCreateTopicEnable=true")

    async def _route_data(self, topic: str) -> TopicRouteData:
        answer = await self.ask_name_server(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": topic, "acceptStandardJsonOnly": "true"})
        return decode_body(answer.body, TopicRouteData)

    def is_borrowed(self, topic: str) -> bool:
        """Whether the cached route is the template's, because the topic did not exist yet."""
        return topic in self._borrowed

    def forget_route(self, topic: str) -> None:
        """The topic was deleted."""
        self._routes.pop(topic, None)
        self._borrowed.discard(topic)

    def refresh_soon(self, topic: str) -> None:
        """Something failed that the route may explain: fetch it again without waiting for the next period."""
        self._stale.add(topic)
        self._refresh_wanted.set()

    def watch(self, topic: str, wake: Callable[[], None]) -> None:
        """Call `wake` whenever the topic's route changes, until `unwatch`."""
        self._watchers.setdefault(topic, []).append(wake)

    def unwatch(self, topic: str, wake: Callable[[], None]) -> None:
        self._watchers[topic].remove(wake)

    def _is_known(self, address: str) -> bool:
        return any(address in route.addresses() for route in self._routes.values())

    def _members_changed(self) -> None:
        for consumer in self.consumers.values():
            consumer.members_changed()

    def master(self, topic: str, broker_name: str) -> str | None:
        route = self._routes.get(topic)
        return None if route is None else route.address(broker_name)

    def master_of(self, broker_name: str) -> str | None:
        """The master's address by any cached route."""
        for route in self._routes.values():
            if (address := route.address(broker_name)) is not None:
                return address
        return None

    # --- heartbeats

    def heartbeat_soon(self) -> None:
        self._heartbeat_wanted.set()

    async def heartbeat(self) -> None:
        """Tell every broker of every route in use who we are; masters only if nobody consumes. Brokers that fail are left for later."""
        if not self.consumers and not self.producers:
            return
        addresses = {
            address
            for route in self._routes.values() for members in route.brokers.values() for member, address in members.items()
            if (self.consumers or member == MASTER) and not self.members.is_lost(address)
        }
        async with trio.open_nursery() as nursery:
            for address in sorted(addresses):
                nursery.start_soon(self.heartbeat_to, address)

    async def heartbeat_to(self, address: str) -> None:
        if not await self.members.introduce(address):
            self.members.lost(address)

    def _heartbeat(self) -> tuple[bytes, frozenset[str]]:
        body = fastjson.dumps({
            "clientID": self.client_id, "heartbeatFingerprint": 0, "withoutSub": False,
            "consumerDataSet": [member.heartbeat() for member in self.consumers.values()],
            "producerDataSet": [{"groupName": group} for group in self.producers],
        }, quoted_keys=True)
        return body, frozenset(self.consumers)

    async def unregister(self, *, producer: str = "", consumer: str = "") -> None:
        """Tell every broker that a group leaves this client. Errors are ignored: the closing connection says the same."""
        fields = {"clientID": self.client_id}
        if producer:
            fields["producerGroup"] = producer
        if consumer:
            fields["consumerGroup"] = consumer
        addresses = {
            address for route in self._routes.values() for members in route.brokers.values() for address in members.values()
            if not self.members.is_lost(address)
        }
        async with trio.open_nursery() as nursery:
            for address in sorted(addresses):
                nursery.start_soon(self._unregister_one, address, fields)

    async def _unregister_one(self, address: str, fields: Mapping[str, str]) -> None:
        try:
            await self.ask(address, RequestCode.UNREGISTER_CLIENT, fields, timeout=1.0)
        except TrmqError as error:
            logger.info("unregister at %s: %s", address, error)

    # --- the instance's own tasks

    async def run(self) -> None:
        """Periodic work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_routes)
            nursery.start_soon(self._keep_heartbeats)

    async def _keep_routes(self) -> None:
        pause, polled = POLL_MASTERLESS, trio.current_time()
        while True:
            masterless = any(route.lacks_master for route in self._routes.values())
            if not masterless:
                pause = POLL_MASTERLESS
            with trio.move_on_at(polled + (pause if masterless else POLL_NAME_SERVER)) as period:
                await self._refresh_wanted.wait()
            topics = sorted(self._stale)
            if period.cancelled_caught:
                topics, polled = list(self._routes), trio.current_time()
                pause = min(2 * pause, POLL_MASTERLESS_MAX)
            self._refresh_wanted = trio.Event()
            self._stale.clear()
            for topic in topics:
                try:
                    await self.refresh(topic)
                except TrmqError as error:
                    logger.info("route of %s not refreshed: %s", topic, error)
            await trio.sleep(SETTLE)

    async def _keep_heartbeats(self) -> None:
        while True:
            with trio.move_on_after(HEARTBEAT):
                await self._heartbeat_wanted.wait()
            self._heartbeat_wanted = trio.Event()
            await self.heartbeat()

    def _on_closed(self, address: Address) -> None:
        """A broker that loses our connection forgets our groups: nobody asks it anything before it was introduced to them again."""
        if address not in self.name_servers:
            ip, port = address
            self.members.lost(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}")

    # --- requests of brokers

    def _on_request(self, connection: Connection, command: Command) -> Answer:
        """Answered at once by the consumer of the group; a group that isn't here is said so."""
        group = command.ext.get("consumerGroup") or command.ext.get("group") or ""
        member = self.consumers.get(group)
        if command.code == RequestCode.NOTIFY_CONSUMER_IDS_CHANGED:
            for consumer in list(self.consumers.values()):
                consumer.rebalance_soon()
            return None
        if command.code in ANSWERED_BY_CONSUMERS:
            if member is not None:
                return member.answer(command)
            remark = f"the consumer group {group!r} does not exist in this client"
            return None if command.is_oneway else encode_response(command, ResponseCode.SYSTEM_ERROR, remark=remark)
        if command.is_oneway:
            return None
        remark = f"request code {command.code} is not supported by this client"
        return encode_response(command, ResponseCode.REQUEST_CODE_NOT_SUPPORTED, remark=remark)


def _offset_of(answer: Command, code: int) -> int:
    try:
        return int(answer.ext["offset"])
    except (KeyError, ValueError):
        raise RemoteProtocolError(f"the answer to request {code} carries no offset") from None


ANSWERED_BY_CONSUMERS = frozenset({
    RequestCode.RESET_CONSUMER_CLIENT_OFFSET, RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT, RequestCode.GET_CONSUMER_RUNNING_INFO,
    RequestCode.CONSUME_MESSAGE_DIRECTLY,
})
