"""`trmq message`: one by id, several by key."""

from __future__ import annotations

from typing import Any

from trmq.client import Client
from trmq.client.messages import Received
from trmq.errors import MessageIllegal, RouteNotFound
from trmq.message import decode_message_id

from . import EXIT_FAILED, fail
from .common import moment_ms, when
from .output import Output, printable, show, show_one
from .session import Format, NameServer, with_client


def get_message(id: str, *, topic: str | None = None, namesrv: NameServer = None, output: Format = Output.table) -> int:
    """One message by its offset message id, or by its unique key with --topic. (mqadmin queryMsgById, queryMsgByUniqueKey)"""

    async def work(mq: Client) -> int | None:
        if topic is not None:
            found = await mq.admin.message_by_unique_key(topic, id)
            if not found:
                return fail(f"topic {topic} has no message with unique key {id}", EXIT_FAILED)
            for message in found:
                show_one(fields(message, output), output)
            return None
        try:
            decode_message_id(id)
        except MessageIllegal as error:
            raise MessageIllegal(f"{error}; a unique key needs --topic") from None
        show_one(fields(await mq.admin.message_by_id(id), output), output)
        return None

    return with_client(work, namesrv)


def query_message(
    topic: str, key: str, *, since: str = "earliest", until: str = "latest", max: int = 32, namesrv: NameServer = None,
    output: Format = Output.table,
) -> int:
    """Messages of a topic that carry a key. (mqadmin queryMsgByKey)

    Parameters
    ----------
    since, until
        Times of storing: 2026-11-20T08:00:00 (local) or milliseconds since 1970.
    max
        At most this many (a broker gives at most 64).
    """
    begin, end = moment_ms(since), moment_ms(until)

    async def work(mq: Client) -> int | None:
        try:
            found = await mq.admin.messages_by_key(topic, key, max_count=max, begin_ms=begin, end_ms=end if end >= 0 else (1 << 63) - 1)
        except RouteNotFound:
            return fail(f"topic {topic} does not exist", EXIT_FAILED)
        if output is not Output.table:
            show([fields(m, output) for m in found], output)
            return None
        rows = [{"id": m.message_id, "queue": f"{m.queue.broker_name}/{m.queue.queue_id}", "offset": m.offset, "stored": when(m.store_ms),
                 "body": printable(m.body)[:60]} for m in found]  # fmt: skip
        show(rows, output, empty=f"no message of {topic} has key {key}")
        return None if found else EXIT_FAILED

    return with_client(work, namesrv)


def fields(message: Received, output: Output) -> dict[str, Any]:
    """Every field by name; times readable for people, the body as text where it is text."""
    found = message.as_dict()
    found["body"] = printable(message.body)
    if output is Output.table:
        found |= {"born_ms": when(message.born_ms), "store_ms": when(message.store_ms)}
    return found
