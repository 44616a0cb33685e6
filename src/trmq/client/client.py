"""`connect` and `Client`: the door to everything a program does with RocketMQ.

    async with trmq.connect("127.0.0.1:9876") as mq, mq.producer(group="shop") as producer:
        await producer.send("orders", b"...", tag="paid", keys=["o-17"])

Everything that lives is opened by a context manager and ends with it. The connections and periodic tasks of a client are
shielded from the cancellation of the program around them, so that whatever is inside can still say good-bye; leaving
`connect` ends them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from trmq.errors import ConfigError
from trmq.host import Address, Host
from trmq.route import rebalance

from .admin import Admin
from .consumer import Consumer
from .delivery import Delivery
from .instance import Instance
from .messages import COMPRESS_OVER
from .offsets import BrokerOffsets, LocalOffsets, Offsets
from .options import ConsumerOptions, FromWhere, check, subscriptions_of
from .process_queue import CacheLimits
from .producer import SEND_TIMEOUT, Producer, check_group_name, make_sender
from .reader import READER_GROUP, Reader
from .scopes import open_scope
from .serving import serve

Topics = str | Sequence[str] | Mapping[str, str]
STRATEGIES = {"average": rebalance.average, "circular": rebalance.circular, "consistent_hash": rebalance.consistent_hash}


def parse_name_servers(text: str | Sequence[str]) -> list[Address]:
    """"host:port;host:port" (or a list) as addresses. Raises `ConfigError` naming the part that is wrong."""
    found = []
    for part in [piece for entry in ([text] if isinstance(text, str) else text) for piece in entry.replace(",", ";").split(";")]:
        if not part.strip():
            continue
        host, _, port = part.strip().removeprefix("http://").rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"name server {part.strip()!r}: expected 'host:port', several separated by ';'")
        found.append((host.strip("[]"), int(port)))
    if not found:
        raise ConfigError("no name server address: give namesrv as 'host:port', several separated by ';'")
    return found


class Client:
    """What `connect` yields: makes producers, consumers, readers, and holds `admin`."""

    def __init__(self, instance: Instance, drain_timeout: float) -> None:
        self._instance = instance
        self._drain_timeout = drain_timeout
        self.admin = Admin(instance)

    @property
    def client_id(self) -> str:
        return self._instance.client_id

    @asynccontextmanager
    async def producer(
        self, *, group: str = "trmq_producer", timeout: float = SEND_TIMEOUT, retries: int = 2, compress_over: int | None = COMPRESS_OVER,
        create_topics: bool = True, avoid_slow: bool = False, retry_other_broker_when_not_stored_ok: bool = False,
    ) -> AsyncIterator[Producer]:
        """A producer of `group`.

        `timeout`: seconds for one send with all its tries. `retries`: further tries on other brokers. `compress_over`: bodies longer than
        this many bytes are sent zlib-compressed, None never. `create_topics`: let the broker create unknown topics (autoCreateTopicEnable).
        `avoid_slow`: leave slow brokers alone for a while, as Java's sendLatencyFaultEnable; ones that failed are avoided anyway.
        `retry_other_broker_when_not_stored_ok`: a status other than SEND_OK (stored, but not on disk or on the slaves in time) is tried on
        another broker too, which stores the message once more; if no try gets SEND_OK, the last status is returned.
        """
        sender = make_sender(
            self._instance, group, retries=retries, timeout=timeout, compress_over=compress_over, create_topics=create_topics,
            avoid_slow=avoid_slow, retry_not_ok=retry_other_broker_when_not_stored_ok)
        producers = self._instance.producers
        producers[group] = producers.get(group, 0) + 1
        try:
            yield Producer(sender)
        finally:
            producers[group] -= 1
            if not producers[group]:
                del producers[group]
                with trio.move_on_after(self._drain_timeout, shield=True):
                    await self._instance.unregister(producer=group)

    @asynccontextmanager
    async def consumer(
        self, topic: Topics, *, group: str, filter: str = "*", orderly: bool = False, broadcasting: bool = False,
        from_where: FromWhere = FromWhere.LAST, from_ms: int | None = None, strategy: str = "average", pull_batch: int = 32,
        prefetch_messages: int = 1000, prefetch_bytes: int = 100 << 20, max_reconsume_times: int | None = None, raise_errors: bool = False,
        drain_timeout: float | None = None,
    ) -> AsyncIterator[Consumer]:
        """A member of `group`, consuming `topic`: a name, several, or a mapping of names to filters. Iterate it with `async for`.

        `filter`: "*" or tags like "paid || refunded". `orderly`: per queue one message at a time, in order, under a broker lock; a
        failing message holds its queue. `broadcasting`: every member gets everything, progress is kept in a local file, failures are
        not repeated. `from_where`, `from_ms`: where a new group starts. `max_reconsume_times`: redeliveries before the dead letters (16;
        orderly: unlimited). `raise_errors`: let an exception leave `async with message` after the nack. `prefetch_*`: cache per queue.

        Raises `ConfigError`, `RouteNotFound`, `ConnectionLost` before anything is consumed.
        """
        instance = self._instance
        if strategy not in STRATEGIES:
            raise ConfigError(f"strategy {strategy!r} is unknown; known are {', '.join(sorted(STRATEGIES))}")
        if (from_where is FromWhere.TIMESTAMP) != (from_ms is not None):
            raise ConfigError("from_ms and from_where=FromWhere.TIMESTAMP go together")
        options = check(ConsumerOptions(
            group=group, subscriptions=subscriptions_of(topic, filter, instance.host.wall_ms()), orderly=orderly, broadcasting=broadcasting,
            from_where=from_where, from_ms=from_ms or 0, strategy=strategy, pull_batch=pull_batch,
            limits=CacheLimits(prefetch_messages, prefetch_bytes, None if orderly else 2 * prefetch_messages),
            max_reconsume_times=max_reconsume_times, raise_errors=raise_errors,
            drain_timeout=self._drain_timeout if drain_timeout is None else drain_timeout))
        sender = make_sender(instance, "CLIENT_INNER_PRODUCER", create_topics=False)
        offsets: Offsets = BrokerOffsets(instance, group)
        if broadcasting:
            offsets = LocalOffsets(instance.host.disk, f"{instance.host.local_ip()}@DEFAULT/{group}")
        consumer = Consumer(instance, options, offsets, sender, STRATEGIES[strategy])
        async with open_scope() as work:
            try:
                async with open_scope() as pulls:
                    try:
                        await consumer.open(pulls, work)
                        yield consumer
                    finally:
                        consumer.stop()
            finally:
                if consumer.opened:
                    with trio.move_on_after(options.drain_timeout, shield=True):
                        await consumer.close()
                consumer.detach()

    async def serve(
        self, topic: Topics, handler: Callable[[Delivery], Awaitable[object]], *, group: str, concurrency: int = 16,
        ordered_by: str | None = None, **options: Any,
    ) -> None:
        """Consume until cancelled: up to `concurrency` calls of `handler(message)` at a time; returning acks, raising nacks.

        `ordered_by="sharding_key"`: messages with the same sharding key are handled one after the other, in the order they arrive here.
        `options` as for `consumer`.
        """
        async with self.consumer(topic, group=group, **options) as consumer:
            await serve(consumer, handler, concurrency, ordered_by)

    @asynccontextmanager
    async def reader(self, topic: str, *, group: str = READER_GROUP, filter: str = "*") -> AsyncIterator[Reader]:
        """Read a topic's queues by offset, without a group's coordination. `group` is used for `committed` and `commit` only."""
        check_group_name(group)
        (subscription,) = subscriptions_of(topic, filter, self._instance.host.wall_ms())
        async with open_scope() as nursery:
            reader = Reader(self._instance, subscription, group, nursery)
            await reader.open()
            yield reader


@asynccontextmanager
async def connect(
    namesrv: str | Sequence[str], *, host: Host, default_topic_queues: int = 4, drain_timeout: float = 5.0,
) -> AsyncIterator[Client]:
    """A client of the cluster behind these name servers ("host:port;host:port"). Nothing is dialled before it is needed.

    `default_topic_queues`: queues per broker of a topic that a send creates. `drain_timeout`: seconds each thing inside gets to
    leave in order.
    """
    addresses = parse_name_servers(namesrv)
    async with open_scope() as nursery:
        shielded = trio.CancelScope(shield=True)
        instance: Instance = await nursery.start(_serve_instance, shielded, host, addresses, default_topic_queues)
        try:
            yield Client(instance, drain_timeout)
        finally:
            with trio.move_on_after(drain_timeout, shield=True):
                await instance.remoting.aclose()
            shielded.cancel()


async def _serve_instance(
    scope: trio.CancelScope, host: Host, name_servers: list[Address], default_topic_queues: int,
    *, task_status: trio.TaskStatus[Instance],
) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            instance = Instance(host, name_servers, nursery, default_topic_queues=default_topic_queues)
            task_status.started(instance)
            try:
                await instance.run()
            finally:  # whoever still drains gets ConnectionLost, not a nursery that takes no more tasks
                with trio.CancelScope(shield=True):
                    await instance.remoting.aclose()
