"""A broker in a simulated world, and a bare connection to it: requests in, answers out, nothing between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from trmq.broker.service import Broker
from trmq.config import BrokerConfig
from trmq.message import encode_properties
from trmq.record import decode_records
from trmq.remoting import Connection, RemotingClient
from trmq.sim.world import SimHost, World
from trmq.wire.bodies import ConsumerData, HeartbeatData, ProducerData, SubscriptionData, encode_body
from trmq.wire.codes import RequestCode
from trmq.wire.command import Command
from trmq.wire.headers.pull import PullMessage
from trmq.wire.headers.send import SendMessageV2

CONFIG: dict[str, Any] = {
    "broker_name": "b", "broker_cluster_name": "C", "bind_address": "0.0.0.0", "mapped_file_size_commit_log": 1 << 20,
    "mapped_file_size_consume_queue": 2000, "max_hash_slot_num": 500, "max_index_num": 2000,
}


class Client:
    """One connection to the broker. Notifications that come in are kept in `told`."""

    def __init__(self, conn: Connection, told: list[Command], name: str) -> None:
        self.conn = conn
        self.told = told
        self.name = name

    async def ask(self, code: int, fields: Any = None, body: bytes = b"", timeout: float = 60.0) -> Command:
        return await self.conn.request(code, fields, body, timeout=timeout)

    async def send(
        self, topic: str = "T", body: bytes = b"hello", properties: Mapping[str, str] | str | None = None, code: int = 310, **header: Any
    ) -> Command:
        text = properties if isinstance(properties, str) else encode_properties(properties or {}).decode()
        return await self.ask(code, send_header(topic, text, **header), body)

    async def pull(self, topic: str = "T", offset: int = 0, **header: Any) -> Command:
        fields: dict[str, Any] = {
            "consumer_group": "g", "topic": topic, "queue_id": 0, "queue_offset": offset, "max_msg_nums": 32, "sys_flag": 4,
            "commit_offset": 0, "suspend_timeout_millis": 15_000, "sub_version": 0, "subscription": "*", "expression_type": "TAG",
        }
        fields.update(header)
        return await self.ask(RequestCode.PULL_MESSAGE, PullMessage(**fields))

    async def heartbeat(
        self, group: str = "g", topics: Mapping[str, str] | None = None, *, producer: str = "", model: str = "CLUSTERING",
        version: int = 1, fingerprint: int = 0, without: bool = False,
    ) -> Command:
        subscriptions = [
            SubscriptionData(topic=topic, sub_string=tags, tags_set=[] if tags == "*" else tags.split(" || "), sub_version=version)
            for topic, tags in (topics or {"T": "*"}).items()
        ]
        consumer = ConsumerData(group_name=group, message_model=model, subscription_data_set=[] if without else subscriptions)
        data = HeartbeatData(
            client_id=self.name, consumer_data_set=[consumer] if group else [],
            producer_data_set=[ProducerData(producer)] if producer else [], heartbeat_fingerprint=fingerprint, without_sub=without,
        )
        return await self.ask(RequestCode.HEART_BEAT, None, encode_body(data))


def send_header(topic: str, properties: str, **header: Any) -> SendMessageV2:
    fields: dict[str, Any] = {
        "producer_group": "p", "topic": topic, "default_topic": "TBW102", "default_topic_queue_nums": 4, "queue_id": 0, "sys_flag": 0,
        "born_timestamp": 1_600_000_000_000, "flag": 7, "properties": properties,
    }
    fields.update(header)
    return SendMessageV2(**fields)


class Lab:
    """A running broker and as many clients as a test wants."""

    def __init__(self, world: World, nursery: trio.Nursery, broker: Broker) -> None:
        self.world = world
        self.broker = broker
        self.disk = world.host("broker").disk
        self._nursery = nursery

    async def client(self, name: str = "client", port: int = 0) -> Client:
        told: list[Command] = []

        def on_request(conn: Connection, command: Command) -> None:
            told.append(command)

        remoting = RemotingClient(self.world.host(name), self._nursery, on_request=on_request)
        ip = self.world.host("broker").ip
        return Client(await remoting.connection((ip, port or self.broker.address[1])), told, name)


@asynccontextmanager
async def running(world: World | None = None, **config: Any) -> AsyncIterator[Lab]:
    """A broker, started; stopped in order at the end unless its host has crashed."""
    world = world or World(7)
    async with trio.open_nursery() as nursery:
        broker = Broker(world.host("broker"), BrokerConfig(**(CONFIG | config)))
        started, stopped = trio.Event(), trio.Event()

        async def main(host: SimHost) -> None:
            async with trio.open_nursery() as inner:
                await inner.start(broker.run)
                started.set()
            stopped.set()

        host = world.host("broker")
        nursery.start_soon(host.run, main)
        await started.wait()
        yield Lab(world, nursery, broker)
        broker.stop()
        if not host.dead:
            with trio.fail_after(30):
                await stopped.wait()
            host.crash("kill")  # the process has ended; the next start is a new one
        nursery.cancel_scope.cancel()


def bodies(answer: Command) -> list[bytes]:
    return [message.body for message in decode_records(answer.body)]


def numbers(answer: Command) -> tuple[int, int, int, int]:
    """(suggested broker, next, min, max) of a pull answer."""
    ext = answer.ext
    return int(ext["suggestWhichBrokerId"]), int(ext["nextBeginOffset"]), int(ext["minOffset"]), int(ext["maxOffset"])
