"""`trmq produce` and `trmq consume`: messages in and out of pipes, a line each.

A text line is a body. A jsonl line is an object: body (text, or "hex:..." as `consume` prints binary), tag, keys, properties,
delay_level, sharding_key. `consume -o jsonl | produce --jsonl` copies messages.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from trmq.client import Client, FromWhere, Message, Producer, SendStatus
from trmq.errors import ConfigError, MessageIllegal

from .output import Output, printable
from .session import Format, NameServer, with_client

IN_FLIGHT = 256
LINE_BYTES_MAX = 32 << 20


def _texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _pairs(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _text(value: object) -> bool:
    return isinstance(value, str)


LINE_FIELDS: dict[str, Callable[[object], bool]] = {
    "body": _text, "tag": _text, "keys": _texts, "properties": _pairs, "sharding_key": _text,
    "delay_level": lambda value: type(value) is int,
}  # fmt: skip
EXPECTED = {
    "body": "a text", "tag": "a text", "keys": "a list of texts", "properties": "an object of texts", "delay_level": "a number",
    "sharding_key": "a text",
}  # fmt: skip


def produce(
    topic: str, *, tag: str | None = None, key: list[str] | None = None, group: str = "trmq_produce", jsonl: bool = False,
    quiet: bool = False, namesrv: NameServer = None, output: Format = Output.table,
) -> int:
    """Send standard input, one message per line, and print each message's id and place.

    Example: seq 10 | trmq produce orders --tag test
    Example: trmq produce orders --jsonl < messages.jsonl

    Parameters
    ----------
    tag
        Tag of every message (a jsonl line's own wins).
    key
        Key of every message; may be repeated.
    jsonl
        Lines are JSON objects with body, tag, keys, properties, delay_level, sharding_key.
    quiet
        Print nothing per message.
    """
    count = 0

    async def work(mq: Client) -> int | None:
        nonlocal count
        free = trio.CapacityLimiter(IN_FLIGHT)
        async with mq.producer(group=group) as producer, trio.open_nursery() as nursery:
            number = 0
            async for line in lines():
                number += 1
                message = parse(producer, topic, line, number, jsonl, tag, tuple(key or ()))
                await free.acquire_on_behalf_of(message)
                nursery.start_soon(send, producer, message, free)
        if not quiet and output is Output.table:
            print(f"{count} messages sent to {topic}", file=sys.stderr)
        return None

    async def send(producer: Producer, message: Message, free: trio.CapacityLimiter) -> None:
        nonlocal count
        try:
            result = await producer.send(message)
        finally:
            free.release_on_behalf_of(message)
        count += 1
        if quiet:
            return
        queue = result.queue
        place = {"message_id": result.message_id, "broker": queue.broker_name, "queue": queue.queue_id, "offset": result.offset}
        if result.status is not SendStatus.SEND_OK:
            place["status"] = result.status.name
        print(json.dumps(place) if output is not Output.table else " ".join(map(str, place.values())), flush=True)

    return with_client(work, namesrv)


async def lines() -> AsyncIterator[bytes]:
    """Lines of standard input without their ends. Raises `MessageIllegal` for one without end.

    The thread that waits for more is left behind on Ctrl-C; it must not hold a lock of `sys.stdin`, hence the bare read.
    """
    rest = b""
    while data := await trio.to_thread.run_sync(os.read, sys.stdin.fileno(), 65536, abandon_on_cancel=True):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")
        if len(rest) > LINE_BYTES_MAX:
            raise MessageIllegal(f"a line of standard input is longer than {LINE_BYTES_MAX} bytes: is it text?")
    if rest:
        yield rest.rstrip(b"\r")


def parse(producer: Producer, topic: str, line: bytes, number: int, jsonl: bool, tag: str | None, keys: tuple[str, ...]) -> Message:
    """The message of one input line. Raises `MessageIllegal` naming the line."""
    fields: dict[str, Any] = {"body": line}
    if jsonl:
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise MessageIllegal(f"line {number} is no JSON: {error}") from None
        if not isinstance(fields, dict) or "body" not in fields or fields.keys() - LINE_FIELDS.keys() - CONSUMED:
            known = ", ".join(sorted(LINE_FIELDS))
            raise MessageIllegal(f"line {number} must be a JSON object with a body and otherwise only {known}")
        fields = {name: value for name, value in fields.items() if name in LINE_FIELDS and value is not None}
        for name, value in fields.items():
            if not LINE_FIELDS[name](value):
                raise MessageIllegal(f"line {number}: {name} is {json.dumps(value)[:60]}: give {EXPECTED[name]}")
    body = fields.pop("body")
    if isinstance(body, str):
        try:
            body = bytes.fromhex(body[4:]) if body.startswith("hex:") else body.encode()
        except ValueError:
            raise MessageIllegal(f"line {number}: body begins with hex: but what follows are no hexadecimal digits") from None
    own = {name: value for name, value in (fields.get("properties") or {}).items() if name not in RESERVED}
    try:
        return producer.prepare(topic, body, **{"tag": tag, "keys": keys, **fields, "properties": own})
    except MessageIllegal as error:
        raise MessageIllegal(f"line {number}: {error}") from None


CONSUMED = {
    "message_id", "offset_message_id", "topic", "broker_name", "queue_id", "queue_offset", "born_ms", "born_host", "store_ms",
    "store_host", "reconsume_times",
}  # fmt: skip
"""What `consume` prints beside a message's own fields: accepted and left out, so that its output can be sent again."""
RESERVED = {
    "UNIQ_KEY", "WAIT", "MSG_REGION", "TRACE_ON", "CLUSTER", "MIN_OFFSET", "MAX_OFFSET", "TAGS", "KEYS", "DELAY", "RETRY_TOPIC",
    "ORIGIN_MESSAGE_ID", "RECONSUME_TIME", "MAX_RECONSUME_TIMES", "REAL_TOPIC", "REAL_QID", "CONSUME_START_TIME", "__SHARDINGKEY",
    "PGROUP", "__BORNHOST", "BORN_TIMESTAMP",
}  # fmt: skip


def consume(
    topic: str, *, group: str = "trmq_consume", filter: str = "*", from_: FromWhere = FromWhere.LAST, count: int | None = None,
    timeout: float | None = None, broadcasting: bool = False, orderly: bool = False, peek: bool = False, namesrv: NameServer = None,
    output: Format = Output.table,
) -> int:
    """Print messages as they arrive, a line each, until Ctrl-C; each is acknowledged once it is printed.

    Example: trmq consume orders --group audit --from first -o jsonl | jq .body

    Parameters
    ----------
    filter
        Tags, as "paid || refunded".
    from_
        Where a group without offsets starts: first or last.
    count
        Stop after this many.
    timeout
        Stop after this many seconds without a message (exit code 0).
    broadcasting
        Get everything, independently of the other members.
    orderly
        Each queue in order, under a broker lock.
    peek
        Read from the beginning without being a member of any group; nothing is acknowledged. Stops at the end.
    """
    if count is not None and count < 1:
        raise ConfigError(f"--count {count}: give at least 1")

    async def work(mq: Client) -> None:
        left = count
        if peek:
            await read(mq)
            return
        async with mq.consumer(topic, group=group, filter=filter, from_where=from_, broadcasting=broadcasting, orderly=orderly) as consumer:
            while left is None or left > 0:
                message = None
                with trio.move_on_after(float("inf") if timeout is None else timeout):
                    message = await consumer.__anext__()
                if message is None:
                    return
                async with message:
                    put(message)
                left = None if left is None else left - 1

    async def read(mq: Client) -> None:
        left = count
        async with mq.reader(topic, filter=filter) as reader:
            await reader.seek_to_beginning()
            while messages := await reader.getmany(32 if left is None else min(32, left)):
                for message in messages:
                    put(message)
                left = None if left is None else left - len(messages)
                if left == 0:
                    return

    def put(message: Any) -> None:
        if output is Output.table:
            sys.stdout.buffer.write(message.body + b"\n")
            sys.stdout.buffer.flush()
            return
        print(json.dumps(message.as_dict() | {"body": printable(message.body)}, ensure_ascii=False), flush=True)

    return with_client(work, namesrv)
