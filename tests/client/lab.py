"""A name server, brokers and clients together in one simulated world: no socket, and time that jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

import trmq
from trmq.broker.service import Broker
from trmq.config import BrokerConfig, NamesrvConfig
from trmq.route import NameServer
from trmq.sim.world import SimHost, World

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
