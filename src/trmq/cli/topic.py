"""`trmq topic`: create, list, show, delete."""

from __future__ import annotations

from trmq.client import Client
from trmq.errors import ConfigError

from .common import when
from .output import Output, show, show_one
from .session import Format, NameServer, with_client

PERMISSIONS = {2: "write", 4: "read", 6: "read, write", 7: "read, write, inherit"}


def list_topic(*, all: bool = False, namesrv: NameServer = None, output: Format = Output.table) -> int:
    """All topics; `--all` with the system's own and retry and dead-letter topics. (mqadmin topicList)"""

    async def work(mq: Client) -> None:
        system = {info.broker_name for info in await mq.admin.cluster()} | {info.cluster for info in await mq.admin.cluster()}
        names = [name for name in await mq.admin.topics() if all or not is_system(name, system)]
        show([{"topic": name} for name in names], output, empty="no topics (yet); --all shows the system's own")

    return with_client(work, namesrv)


def is_system(name: str, named_after: set[str]) -> bool:
    from trmq.wire.names import is_system_topic

    return name in named_after or is_system_topic(name) or name.startswith(("%RETRY%", "%DLQ%")) or name.endswith("_REPLY_TOPIC")


def create_topic(
    topic: str, *, queues: int = 8, perm: int = 6, order: bool = False, cluster: str | None = None, broker: str | None = None,
    namesrv: NameServer = None,
) -> int:
    """Create a topic, or change one that exists. (mqadmin updateTopic)

    Example: trmq topic create orders --queues 16

    Parameters
    ----------
    topic
        Letters, digits and %|-_, at most 127 characters.
    queues
        Queues on each broker.
    perm
        2 write, 4 read, 6 both.
    order
        Mark it as an order topic.
    cluster
        Only on this cluster's brokers.
    broker
        Only on the broker at this address (host:port).
    """

    async def work(mq: Client) -> None:
        await mq.admin.create_topic(topic, queues=queues, perm=perm, order=order, cluster=cluster, broker=broker)

    return with_client(work, namesrv)


def show_topic(topic: str, *, namesrv: NameServer = None, output: Format = Output.table) -> int:
    """Brokers, queues, offsets and the newest message's time. (mqadmin topicStatus, topicRoute)"""

    async def work(mq: Client) -> None:
        stats = await mq.admin.topic_stats(topic)
        rows = [
            {"broker": s.queue.broker_name, "queue": s.queue.queue_id, "min": s.min_offset, "max": s.max_offset,
             "messages": s.max_offset - s.min_offset, "newest": when(s.last_update_ms)}
            for s in stats
        ]  # fmt: skip
        if output is Output.table:
            show_one({"topic": topic, "queues": len(stats), "messages": sum(s.max_offset - s.min_offset for s in stats)}, output)
        show(rows, output)

    return with_client(work, namesrv)


def delete_topic(topic: str, *, yes: bool = False, cluster: str | None = None, namesrv: NameServer = None) -> int:
    """Delete a topic and its messages; needs --yes. (mqadmin deleteTopic)"""
    if not yes:
        raise ConfigError(f"deleting topic {topic} loses its messages; say --yes to do it")

    async def work(mq: Client) -> None:
        await mq.admin.delete_topic(topic, cluster=cluster)

    return with_client(work, namesrv)
