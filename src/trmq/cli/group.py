"""`trmq group`: create, list, show (lag), reset offsets, delete."""

from __future__ import annotations

from trmq.client import Client
from trmq.errors import ConfigError

from .common import moment_ms, when
from .output import Output, show
from .session import Format, NameServer, with_client


def list_group(*, namesrv: NameServer = None, output: Format = Output.table) -> int:
    """All consumer groups with members and lag. (mqadmin consumerProgress)"""

    async def work(mq: Client) -> None:
        rows = []
        for name, settings in (await mq.admin.groups()).items():
            progress = await mq.admin.progress(name)
            rows.append({
                "group": name, "members": len(await mq.admin.members(name)), "lag": sum(p.lag for p in progress),
                "topics": ", ".join(sorted({p.queue.topic for p in progress if not p.queue.topic.startswith("%RETRY%")})),
                "retries": settings.get("retryMaxTimes"),
            })  # fmt: skip
        show(rows, output, empty="no groups")

    return with_client(work, namesrv)


def create_group(
    group: str, *, retries: int = 16, broadcast: bool = True, enabled: bool = True, cluster: str | None = None, namesrv: NameServer = None
) -> int:
    """Create a group, or change one that exists. (mqadmin updateSubGroup)

    Parameters
    ----------
    retries
        Redeliveries before a message goes to the dead letters (retryMaxTimes).
    broadcast
        Whether broadcasting is allowed.
    enabled
        Whether the group may consume at all.
    """

    async def work(mq: Client) -> None:
        await mq.admin.create_group(
            group, cluster=cluster, retryMaxTimes=retries, consumeBroadcastEnable=broadcast, consumeEnable=enabled
        )

    return with_client(work, namesrv)


def show_group(group: str, *, topic: str | None = None, namesrv: NameServer = None, output: Format = Output.table) -> int:
    """Offsets and lag per queue, and the members. (mqadmin consumerProgress -g, consumerConnection)"""

    async def work(mq: Client) -> None:
        progress = await mq.admin.progress(group, topic)
        rows = [
            {"topic": p.queue.topic, "broker": p.queue.broker_name, "queue": p.queue.queue_id, "broker_offset": p.broker_offset,
             "consumer_offset": p.consumer_offset, "lag": p.lag, "last_consumed": when(p.last_ms)}
            for p in progress
        ]  # fmt: skip
        show(rows, output, empty=f"group {group} has not consumed anything")
        members = await mq.admin.members(group)
        if output is Output.table:
            show([{"client": m.get("clientId"), "address": m.get("clientAddr"), "language": m.get("language")} for m in members],
                 output, empty="no member is online")  # fmt: skip

    return with_client(work, namesrv)


def reset_group(group: str, topic: str, to: str, *, yes: bool = False, namesrv: NameServer = None, output: Format = Output.table) -> int:
    """Set the group's offsets of a topic; needs --yes. (mqadmin resetOffsetByTime)

    Example: trmq group reset billing orders 2026-11-20T08:00:00 --yes

    Parameters
    ----------
    to
        earliest, latest, a time as 2026-11-20T08:00:00 (local) or milliseconds since 1970.
    """
    ms = moment_ms(to)
    if not yes:
        raise ConfigError(f"resetting {group} on {topic} skips or repeats messages; say --yes to do it")

    async def work(mq: Client) -> None:
        moved = await mq.admin.reset_offset(group, topic, to_ms=ms)
        show([{"broker": q.broker_name, "queue": q.queue_id, "offset": offset} for q, offset in sorted(moved.items())], output)

    return with_client(work, namesrv)


def delete_group(group: str, *, yes: bool = False, cluster: str | None = None, namesrv: NameServer = None) -> int:
    """Delete a group, its offsets, retry and dead-letter topics; needs --yes. (mqadmin deleteSubGroup)"""
    if not yes:
        raise ConfigError(f"deleting group {group} loses its offsets and dead letters; say --yes to do it")

    async def work(mq: Client) -> None:
        await mq.admin.delete_group(group, cluster=cluster)

    return with_client(work, namesrv)
