"""A name server, brokers and clients together in one simulated world: no socket, and time that jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

import trmq
from trmq.broker.service import Broker
from trmq.config import BrokerConfig, NamesrvConfig
from trmq.remoting import Answer, Connection, Job, RemotingClient, serve_remoting
from trmq.route import NameServer
from trmq.sim.world import SimHost, World
from trmq.wire.bodies import (
    ConsumerList,
    HeartbeatData,
    RegisterBrokerBody,
    TopicConfig,
    TopicConfigSerializeWrapper,
    decode_body,
    encode_body,
)
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers.pull import PullMessageResponse
from trmq.wire.headers.route import RegisterBroker
from trmq.wire.headers.send import SendMessageResponse

NAMES = "10.0.0.1"
SMALL: dict[str, Any] = {
    "broker_cluster_name": "C", "bind_address": "0.0.0.0", "namesrv_addr": f"{NAMES}:9876", "mapped_file_size_commit_log": 1 << 20,
    "mapped_file_size_consume_queue": 2000, "max_hash_slot_num": 500, "max_index_num": 2000,
}


class Lab:
    """Starts and stops the servers; gives out clients, each on a host of its own."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self.world = world
        self.nursery = nursery
        self.brokers: dict[str, Broker] = {}
        world.host("names", NAMES)

    async def start_names(self) -> None:
        async def main(host: SimHost, *, task_status: trio.TaskStatus[object]) -> None:
            await NameServer(host, NamesrvConfig(bind_address=NAMES)).run(task_status=task_status)

        await self._start("names", main)

    async def start_broker(self, name: str = "a", **config: Any) -> Broker:
        """Start it and return when the name server knows it."""
        found: list[Broker] = []

        async def main(host: SimHost, *, task_status: trio.TaskStatus[object]) -> None:
            broker = Broker(host, BrokerConfig(**(SMALL | {"broker_name": name} | config)))
            found.append(broker)
            await broker.run(task_status=task_status)

        await self._start(f"broker-{name}", main)
        self.brokers[name] = found[0]
        await trio.sleep(1)  # simulated: the registration arrives
        return found[0]

    async def start_master(self, **config: Any) -> Broker:
        return await self.start_broker("a", **({"broker_role": "ASYNC_MASTER"} | config))

    async def start_slave(self, number: int = 1, **config: Any) -> Broker:
        """Of group "a", on host "broker-a<number>"."""
        return await self.start_broker(f"a{number}", **({"broker_name": "a", "broker_role": "SLAVE", "broker_id": number} | config))

    def address(self, name: str) -> str:
        return f"{self.world.host(f'broker-{name}').ip}:{self.brokers[name].address[1]}"

    async def _start(self, name: str, main: Callable[..., Any]) -> None:
        started = trio.Event()

        async def program(host: SimHost) -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(main, host)
                started.set()

        self.nursery.start_soon(self.world.host(name).run, program)
        await started.wait()

    def crash(self, name: str = "a") -> None:
        """The broker's process dies; its disk keeps what the kernel had."""
        self.world.host(f"broker-{name}").crash("kill")

    def connect(self, name: str = "client", **options: Any) -> AbstractAsyncContextManager[trmq.Client]:
        return trmq.connect(f"{NAMES}:9876", host=self.world.host(name), **options)


@asynccontextmanager
async def running(*brokers: str, seed: int = 1) -> AsyncIterator[Lab]:
    """A name server and these brokers (one called "a" by default)."""
    async with trio.open_nursery() as nursery:
        lab = Lab(World(seed), nursery)
        await lab.start_names()
        for name in brokers or ("a",):
            await lab.start_broker(name)
        yield lab
        nursery.cancel_scope.cancel()


async def take(consumer: trmq.Consumer, count: int, within: float = 120.0) -> list[trmq.Delivery]:
    """Ack and return the next `count` messages."""
    found: list[trmq.Delivery] = []
    with trio.fail_after(within):
        async for message in consumer:
            async with message:
                found.append(message)
            if len(found) == count:
                break
    return found


def own(consumer: trmq.Consumer, topic: str) -> list[trmq.MessageQueue]:
    return sorted(queue for queue in consumer.queues if queue.topic == topic)


@asynccontextmanager
async def pair(*others: str, seed: int = 1, slave: Mapping[str, Any] | None = None, **master: Any) -> AsyncIterator[Lab]:
    """Group "a" of a master (host "broker-a") and a slave ("broker-a1"), and these groups of a master alone; one name server."""
    async with trio.open_nursery() as nursery:
        lab = Lab(World(seed), nursery)
        await lab.start_names()
        for name in others:
            await lab.start_broker(name)
        await lab.start_master(**master)
        await lab.start_slave(**(slave or {}))
        yield lab
        nursery.cancel_scope.cancel()


Word = tuple[int, int, int]
"""What a scripted member says to a pull: (code, suggested broker id, next offset)."""


class Scripted:
    """A member of a group that says to every pull what `says` makes of its offset, and notes what it is asked. It never has messages; that
    there is nothing new (19, the offset unchanged) it says after 15 s, all else at once."""

    def __init__(self, lab: Lab, name: str, broker_id: int, says: Callable[[int], Word]) -> None:
        self.host = lab.world.host(f"broker-{name}{broker_id}")
        self.address = f"{self.host.ip}:10911"
        self.says = says
        self.pulls: list[tuple[float, int]] = []
        self.heard: list[int] = []
        self.clients: list[str] = []
        self.thinks = 0.0
        """Seconds before it answers a heartbeat; only then it knows what that says."""
        self.send_code = 0
        """What is said to each send."""
        self.sends: list[float] = []
        self._lab = lab
        self._header = RegisterBroker(
            broker_name=name, broker_addr=self.address, cluster_name="C", ha_server_addr=f"{self.host.ip}:10912", broker_id=broker_id)

    async def start(self, *topics: str, queues: int = 1) -> None:
        """Serve, and register with these topics."""
        started = trio.Event()
        table = {topic: TopicConfig(topic, queues, queues) for topic in (*topics, self._header.broker_name)}
        body = encode_body(RegisterBrokerBody(topic_config_serialize_wrapper=TopicConfigSerializeWrapper(topic_config_table=table)))

        async def program(host: SimHost) -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_remoting, host, self, ("0.0.0.0", 10911))
                names = RemotingClient(host, nursery)
                answer = await names.request((NAMES, 9876), RequestCode.REGISTER_BROKER, self._header, body)
                assert answer.code == 0, answer.remark
                started.set()

        self._lab.nursery.start_soon(self.host.run, program)
        await started.wait()

    def handle(self, conn: Connection, command: Command) -> Answer:
        if command.code == RequestCode.HEART_BEAT:
            client = decode_body(command.body, HeartbeatData).client_id
            self.clients = sorted({*self.clients, client})
            return Job(lambda: self._take_in(command))
        self.heard.append(command.code)
        if command.code == RequestCode.PULL_MESSAGE:
            offset = int(command.ext["queueOffset"])
            assert not self.pulls or len([at for at, _ in self.pulls if at == trio.current_time()]) < 100, "a hot loop, and no time passes"
            self.pulls.append((trio.current_time(), offset))
            code, suggested, next_offset = self.says(offset)
            if code not in (0, 19, 20, 21):
                return encode_response(command, code, remark="as told")
            header = PullMessageResponse(suggest_which_broker_id=suggested, next_begin_offset=next_offset, min_offset=0, max_offset=1000)
            answer = encode_response(command, code, header)

            async def hold() -> bytes:
                await trio.sleep(15)
                return answer

            return Job(hold) if (code, next_offset) == (ResponseCode.PULL_NOT_FOUND, offset) else answer
        if command.code == RequestCode.SEND_MESSAGE_V2:
            self.sends.append(trio.current_time())
            place = SendMessageResponse(msg_id="0" * 32, queue_id=0, queue_offset=len(self.sends))
            return encode_response(command, self.send_code, place, remark="as told")
        if command.code == RequestCode.GET_CONSUMER_LIST_BY_GROUP:
            return encode_response(command, 0, body=encode_body(ConsumerList(consumer_id_list=self.clients)))
        if command.code == RequestCode.QUERY_CONSUMER_OFFSET:
            return encode_response(command, 0, {"offset": "7"})
        return None if command.is_oneway else encode_response(command, 0)

    async def _take_in(self, command: Command) -> bytes:
        await trio.sleep(self.thinks)
        self.heard.append(command.code)
        return encode_response(command, 0)

    def finish(self, conn: Connection, deferred: list[Any]) -> Iterable[bytes]:
        return ()

    def opened(self, conn: Connection) -> None: ...
    def closed(self, conn: Connection) -> None: ...
