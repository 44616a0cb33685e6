"""A whole cluster in one simulated world: a name server, groups of masters and slaves, clients, and everything that can go wrong.

Nodes are called after their group and id: "a0" is the master of group a, "a1" its first slave. `Cluster` starts and stops them and deals
out faults; an `Ear` at the wire and the disks write the `History`. All brokers, clients and the name server are the shipped code.

    async with running(seed, groups={"a": 1}) as cluster:
        await cluster.send("hello")
        cluster.power("a0")
        await cluster.restart("a0")
        await cluster.finish()
    judge(cluster.history())
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio
from specs.history import Changed, Cut, Drained, Ended, Found, Given, Gone, History, LogSeen, NamesUp, Outcome, Serving, Settled, TableSeen

import trmq
from trmq.broker.service import Broker
from trmq.chaos.disks import DiskLog, records_of
from trmq.chaos.ear import HA_PORT, PORT, Ear
from trmq.chaos.faults import Faults
from trmq.chaos.tables import MEMBERS, TABLES, flat
from trmq.config import BrokerConfig, NamesrvConfig
from trmq.errors import ConnectionLost, SendFailed, TrmqError
from trmq.message import AUTO_CREATE_TOPIC
from trmq.route import NameServer
from trmq.sim.world import SimHost, World
from trmq.wire import fastjson
from trmq.wire.codes import RequestCode
from trmq.wire.command import Command, fields_of
from trmq.wire.headers.pull import PullMessage
from trmq.wire.headers.send import SendMessageV2

NAMES = "10.0.0.1"
SEGMENT = 4096
CONSUMERS_KNOW_S = 60.0
"""A client asks for routes every 30 s, and shares queues anew every 20 s."""
TOPIC = "T"
SMALL: dict[str, Any] = {
    "broker_cluster_name": "C", "bind_address": "0.0.0.0", "namesrv_addr": f"{NAMES}:9876", "listen_port": PORT, "ha_listen_port": HA_PORT,
    "mapped_file_size_commit_log": SEGMENT, "mapped_file_size_consume_queue": 400, "max_hash_slot_num": 50, "max_index_num": 200,
    "max_message_size": 2000, "default_topic_queue_nums": 2, "register_name_server_period": 10_000,
}
Flush = Literal["SYNC_FLUSH", "ASYNC_FLUSH"]


class Interrupted(Exception):
    """A node fell while it was being started."""


class Cluster(Faults):
    """See the module. `groups`: name -> number of slaves. `sync`: masters are SYNC_MASTER. Further configuration as keyword arguments."""

    def __init__(
        self, world: World, nursery: trio.Nursery, groups: Mapping[str, int], *, sync: bool = False, flush: Flush = "ASYNC_FLUSH",
        memory: int = 1 << 30, **config: Any,
    ) -> None:
        super().__init__(world)
        self.nursery = nursery
        self.groups = dict(groups)
        self.sync, self.flush, self.config = sync, flush, config
        self.random = random.Random(f"cluster/{world.seed}")
        self.roles: dict[str, int] = {}  # node -> broker id, now or last
        self.masters: dict[str, str] = {}  # group -> the node that was last started as its master
        self.befores: dict[str, tuple[int, bytes]] = {}  # node -> its log when it began to serve
        self.memory = memory
        self.named: set[str] = set()
        self.consuming: list[str] = []
        self.served_at = 0.0
        self.moment = self.queues = 0
        self.sending = self.passed_over = 0  # sends without an outcome; damaged records that nobody was given
        self.starting: set[str] = set()
        self.slow: dict[tuple[str, str], float] = {}
        self.ear = world.net.tap = Ear(self)
        self._clients: dict[str, trmq.Client] = {}
        self._producers: dict[str, trmq.Producer] = {}
        self._leaving = trio.Event()
        self._tables: dict[tuple[str, str], dict[str, str]] = {}
        self.names_address = str(config.get("namesrv_addr", f"{NAMES}:9876"))
        self.name_servers = [f"names{number or ''}" for number in range(self.names_address.count(":"))]
        for node, address in zip(self.name_servers, self.names_address.split(";"), strict=True):
            world.host(node, address.partition(":")[0])
        for number, group in enumerate(groups, 1):
            for id in range(groups[group] + 1):
                world.host(f"{group}{id}", f"10.0.{number}.{id + 1}")
        world.net.delay = self._delay

    def _delay(self, source: str, target: str, dice: random.Random) -> float:
        slow = self.slow.get((source, target), 0.0) if self.slow else 0.0
        if slow:
            self.world.struck["slow"] += 1
        return slow + dice.random() / 5000

    # --- what the ear asks

    def log_of(self, node: str) -> DiskLog | None:
        return self.logs.get(node)

    def group_of(self, node: str) -> str:
        return node.rstrip("0123456789")

    def slaves_of(self, group: str) -> list[str]:
        return [node for node in self.roles if node != self.masters.get(group) and self.group_of(node) == group]

    def choice_of(self, producer: str, topic: str, group: str) -> tuple[dict[str, int], frozenset[str]]:
        if producer not in self._producers:
            return {}, frozenset()
        sender, now_ms = self._producers[producer]._sender, trio.current_time() * 1000
        known = sender._faults._faults if sender._faults is not None else {}
        bad = {name for name, fault in known.items() if fault.available_at > now_ms}
        route = sender.instance.known_route(topic)
        if route is not None:
            masters = {name: route.address(name) for name in route.brokers}
            lost = {name for name, master in masters.items() if master is None or sender.instance.members.is_lost(master)}
            bad |= lost - {group}  # that it is lost may have been learnt since it was chosen
        return self.ear.writable(producer, topic), frozenset(bad)

    def comfortable(self, node: str) -> int:
        return self.memory * 40 // 100

    def master_of(self, group: str) -> str:
        return self.masters[group]

    def address(self, node: str) -> str:
        return f"{self.world.hosts[node].ip}:{PORT}"

    # --- starting

    async def start(self) -> None:
        """Name server, masters, then slaves; returns when every slave follows."""
        for node in self.name_servers:
            await self.start_names(node)
        for group, slaves in self.groups.items():
            await self.start_broker(f"{group}0")
            for id in range(1, slaves + 1):
                await self.start_broker(f"{group}{id}")
        await trio.sleep(1)

    async def start_names(self, node: str = "names") -> None:
        """Start a name server, or start it again; it knows nobody."""
        ip = self.world.hosts[node].ip
        await self._run(node, lambda host: NameServer(host, NamesrvConfig(bind_address=ip)))
        self.down.discard(node)
        self.note(NamesUp(node, trio.current_time()))

    async def start_broker(self, node: str, broker_id: int | None = None, **config: Any) -> Broker:
        """Start (or start again) a node, by default in the place its name says. Raises what its start raises."""
        id = int(node[len(self.group_of(node)) :]) if broker_id is None else broker_id
        role = "SLAVE" if id else "SYNC_MASTER" if self.sync else "ASYNC_MASTER"
        options: dict[str, Any] = SMALL | {"flush_disk_type": self.flush} | self.config | config
        options = {"broker_name": self.group_of(node), "broker_id": id, "broker_role": role, **options}
        broker_config = BrokerConfig(**options)
        host = self.world.host(node)
        host.memory = self.memory
        if id == 0:
            self.masters[self.group_of(node)] = node
        log = self.logs[node] = DiskLog(host.disk, SEGMENT, self.logs[node].scars if node in self.logs else None)
        for other in self.logs.values():
            other.same = 0
        self.roles[node] = id
        need = self.need_of(broker_config)
        self.served_at = trio.current_time()
        self.note(Serving(
            node, broker_config.broker_name, id, broker_config.broker_role, broker_config.flush_disk_type == "SYNC_FLUSH", need,
            broker_config.min_in_sync_replicas, broker_config.ha_max_gap_not_in_sync,
            segment_size=SEGMENT, from_last_segment=broker_config.sync_from_last_file, log_min=log.start,
            log_end=log.end, at=trio.current_time(),
        ))  # fmt: skip
        self.starting.add(node)
        try:
            broker = await self._run(node, lambda host: Broker(host, broker_config))
        except Interrupted:
            raise
        except BaseException:
            self.note(Gone(node, "close", trio.current_time()))
            raise
        finally:
            self.starting.discard(node)
        self.brokers[node] = broker
        self.down.discard(node)
        log.came_back(broker.store.max_phy)
        self.befores[node] = (log.start, log.read(log.start, log.end - log.start))
        return broker  # type: ignore[no-any-return]

    def need_of(self, config: BrokerConfig) -> int:
        if config.broker_role != "SYNC_MASTER":
            return 1
        wanted = getattr(config, "in_sync_replicas", "2")
        return 0 if wanted == "all" else int(wanted or 2)

    async def _run(self, node: str, make: Callable[[SimHost], Any]) -> Any:
        """Run a server on a host until it ends; returns it when it serves."""
        made: list[Any] = []
        failed: list[BaseException] = []
        ready = trio.Event()

        async def program(host: SimHost) -> None:
            try:
                server = make(host)
                made.append(server)
                async with trio.open_nursery() as nursery:
                    await nursery.start(server.run)
                    ready.set()
            except Exception as error:
                failed.append(Interrupted(node) if host.dead else error)
                if ready.is_set() and not host.dead and not isinstance(root(error), TrmqError):
                    raise
            finally:
                ready.set()
                if node in self.roles and not host.dead and ready.is_set():
                    self._ended(node, host)

        self.nursery.start_soon(self.world.host(node).run, program)
        incarnation = self.world.host(node)
        await ready.wait()
        if failed:
            raise root(failed[0])
        if incarnation.crashed:
            raise Interrupted(node)
        return made[0]

    def _ended(self, node: str, host: SimHost) -> None:
        """The program ended by itself: after a stop, or because its disk failed."""
        if node not in self.down:
            self.down.add(node)
            if node not in self._stopping:
                self.note(Ended(node, trio.current_time()))
            self.note(Gone(node, "close" if node in self._stopping else "kill", trio.current_time()))
        host.crash("kill")

    # --- clients

    async def client(self, name: str) -> trmq.Client:
        """Connected until the cluster ends, on a host of its own."""
        if name not in self._clients:
            self._clients[name] = await self.nursery.start(self._keep_client, name)
        return self._clients[name]

    async def _keep_client(self, name: str, *, task_status: trio.TaskStatus[trmq.Client]) -> None:
        host = self.world.host(name, f"10.0.9.{len(self.world.hosts)}") if name not in self.world.hosts else self.world.host(name)
        async with trmq.connect(self.names_address, host=host) as client:
            task_status.started(client)
            await self._leaving.wait()

    async def producer(self, name: str = "producer", **options: Any) -> trmq.Producer:
        if name not in self._producers:
            self._producers[name] = await self.nursery.start(self._keep_producer, name, options)
        return self._producers[name]

    async def _keep_producer(self, name: str, options: Mapping[str, Any], *, task_status: trio.TaskStatus[trmq.Producer]) -> None:
        async with (await self.client(name)).producer(group="p", **options) as producer:
            task_status.started(producer)
            await self._leaving.wait()

    async def send(self, body: str = "x", *, producer: str = "producer", queue: Any = None, timeout: float = 10.0, **options: Any) -> str:
        """Send one message; its outcome is noted. Returns its id."""
        sender = await self.producer(producer)
        message = sender.prepare(TOPIC, body, **options)
        id = message.unique_key
        if queue is not None:
            self.named.add(id)
        began = trio.current_time()
        place: tuple[Any, ...] = ()
        self.sending += 1
        try:
            result = await sender.send(message, queue=queue, timeout=timeout)
            status = str(result.status.name).removeprefix("SEND_")
            place = (result.queue.broker_name, (result.queue.topic, result.queue.queue_id), result.offset)
        except SendFailed as error:
            status = "UNKNOWN" if error.unknown else "FAILED"
        except trmq.RouteNotFound:
            status = "FAILED"  # every broker that had the topic is gone
        finally:
            self.sending -= 1
        self.note(Outcome(id, status, began, queue is not None, trio.current_time(), *place))
        return id

    async def send_many(self, count: int, **options: Any) -> list[str]:
        """One after the other."""
        return [await self.send(str(number), **options) for number in range(count)]

    async def create_topic(self, queues: int = 2, topic: str = TOPIC) -> None:
        if topic == TOPIC:
            self.queues = queues
        await (await self.client("producer")).admin.create_topic(topic, queues=queues)

    async def consume(self, name: str, group: str = "g", *, task_status: trio.TaskStatus[trmq.Consumer] = trio.TASK_STATUS_IGNORED) -> None:
        """A consumer that notes and acknowledges whatever it is given, until cancelled."""
        client = await self.client(name)
        async with client.consumer(TOPIC, group=group, from_where=trmq.FromWhere.FIRST) as consumer:
            task_status.started(consumer)
            self.consuming.append(group)
            async for message in consumer:
                async with message:
                    queue = (message.queue.topic, message.queue.queue_id)
                    self.note(Given(
                        name, message.message_id, queue, message.queue.broker_name, message.offset, trio.current_time(), group,
                    ))  # fmt: skip

    async def read_all(self) -> list[str]:
        """Every id that can be read now, once per copy: of each group from its master, or while that is down from its slaves."""
        found: list[str] = []
        for group in self.groups:
            up = [node for node in self.roles if self.group_of(node) == group and node not in self.down and node in self.brokers]
            up.sort(key=lambda node: (node != self.masters[group], node))
            rotten = up and bool(self.logs[up[0]].scars)
            for node in up if rotten else up[:1]:
                ids = [id for queue_id in range(self.queues) for id in await self._read_queue(node, queue_id)]
                found += ids if node == up[0] else sorted(set(ids) - set(found))
        return found

    async def _read_queue(self, node: str, queue_id: int) -> list[str]:
        """As a consumer: past what is damaged, and nothing that stands behind it in one answer is trusted."""
        found: list[str] = []
        offset = 0
        while True:
            began, answer = offset, await self.pull_from(node, offset, queue_id)
            for message, _ in records_of(answer.body) if answer.code == 0 else ():
                if message is None or message.queue_offset != offset:
                    break
                found.append(message.properties.get("UNIQ_KEY", "?"))
                offset += 1
            if offset == began and answer.code and not (self.logs[node].scars and offset < int(answer.ext.get("maxOffset", "0"))):
                return found
            self.passed_over += offset == began
            offset += offset == began

    # --- looking

    def look(self) -> None:
        """What every disk holds, at this moment."""
        self.moment += 1
        self._note_cuts()
        for node, log in sorted(self.logs.items()):
            data = log.read(log.start, log.end - log.start)
            now = trio.current_time()
            self.note(LogSeen(node, self.group_of(node), self.moment, log.start, data, log.records(), now))

    def _note_cuts(self) -> None:
        """Who dropped the end of the log that it began to serve with, and what is kept of it."""
        for node, (start, before) in list(self.befores.items()):
            log = self.logs.get(node)
            if log is None or node in self.down:
                continue
            now = log.read(start, len(before))
            if now[: len(before)] == before or log.start > start:
                continue
            same = next((n for n, (a, b) in enumerate(zip(now, before, strict=False)) if a != b), min(len(now), len(before)))
            kept: dict[str, bytes] = {path: log.disk.peek(path) for path in log.disk.paths() if path.startswith("trmq/tail-")}
            path = next((path for path in kept if int(path.split("-")[1]) <= start + same), None)
            low = start + same if path is None else int(path.split("-")[1])
            aside = None if path is None else kept[path]
            self.note(Cut(node, low, start + len(before), before[low - start :], aside, trio.current_time()))
            self.befores[node] = (log.start, log.read(log.start, log.end - log.start))

    # --- talking to nodes without a client's manners

    async def ask(self, node: str, code: int, fields: Mapping[str, str] | None = None, body: bytes = b"", timeout: float = 20.0) -> Command:
        """One request and its answer, whatever it is. A connection to an earlier life of the node is replaced once."""
        remoting = (await self.client("probe"))._instance.remoting
        try:
            return await remoting.request(self.address(node), code, fields or {}, body, timeout=timeout)
        except ConnectionLost:
            return await remoting.request(self.address(node), code, fields or {}, body, timeout=timeout)

    async def send_to(self, node: str, body: bytes = b"x", queue_id: int = 0) -> Command:
        """A send to exactly this node, master or not."""
        key = (await self.client("probe"))._instance.new_key()
        self.named.add(key)
        fields = SendMessageV2(
            producer_group="p", topic=TOPIC, default_topic=AUTO_CREATE_TOPIC, default_topic_queue_nums=4, queue_id=queue_id, sys_flag=0,
            born_timestamp=1_600_000_000_000, flag=0, properties=f"UNIQ_KEY\x01{key}\x02",
        )  # fmt: skip
        return await self.ask(node, RequestCode.SEND_MESSAGE_V2, fields_of(fields), body)

    async def pull_from(self, node: str, offset: int, queue_id: int = 0, *, hold_ms: int = 0) -> Command:
        fields = PullMessage(
            consumer_group="TOOLS_CONSUMER", topic=TOPIC, queue_id=queue_id, queue_offset=offset, max_msg_nums=32,
            sys_flag=4 | (2 if hold_ms else 0), commit_offset=0, suspend_timeout_millis=hold_ms, sub_version=0, subscription="*",
            expression_type="TAG",
        )  # fmt: skip
        return await self.ask(node, RequestCode.PULL_MESSAGE, fields_of(fields))

    async def see_tables(self, *nodes: str) -> None:
        """Ask each for its tables. A master's are what there is; a slave's are what somebody is shown."""
        for node in nodes:
            for table, code in TABLES.items():
                entries = flat(fastjson.loads((await self.ask(node, code)).body).get(MEMBERS[table], {}))
                if self.masters[self.group_of(node)] != node:
                    self.note(TableSeen(node, table, entries, trio.current_time()))
                    continue
                known = self._tables.setdefault((node, table), {})
                for key in sorted(known.keys() | entries.keys()):
                    if known.get(key) != entries.get(key):
                        self.note(Changed(node, table, key, entries.get(key, ""), trio.current_time()))
                self._tables[node, table] = entries

    async def settle(self, seconds: float = 15.0) -> None:
        """Nobody sends, every link is up, for so long; where there are consumers for as long as it takes them to learn of all brokers."""
        self.heal()
        began = trio.current_time()
        await trio.sleep(seconds)
        for group in self.groups:
            master = self.logs.get(self.masters[group])
            if master is None:
                continue
            up = [node for node in self.roles if self.group_of(node) == group and node not in self.down]
            ends = {node: self.logs[node].end for node in up if self.logs[node].common(master) == self.logs[node].end}  # copies only
            self.note(Settled(seconds, group, ends, True, trio.current_time()))
        if self.consuming:
            await trio.sleep_until(max(began, self.served_at) + CONSUMERS_KNOW_S)
        for group in dict.fromkeys(self.consuming):
            self.note(Drained(group, TOPIC, trio.current_time()))

    async def finish(self) -> None:
        """Look at the disks, and read everything that can be read."""
        await trio.sleep(2)
        self.look()
        self.note(Found(tuple(await self.read_all()), frozenset(self.down), trio.current_time()))

    def history(self, origin: str = "") -> History:
        return History(tuple(self.events), origin=f"seed={self.world.seed!r} {origin}")


def root(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def running(seed: object, groups: Mapping[str, int] | None = None, **config: Any) -> AsyncIterator[Cluster]:
    """A started cluster; its clients leave and its nodes die at the end."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(World(seed), nursery, {"a": 0} if groups is None else groups, **config)
        await cluster.start()
        yield cluster
        cluster.down.update(cluster.roles)
        nursery.cancel_scope.cancel()


Story = Callable[[Cluster], Awaitable[None]]
