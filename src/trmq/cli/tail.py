"""`trmq store tail`: the messages of a tail that was cut off a former master's log, for a person to look at or to send again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from trmq.client.messages import Received, decode_received
from trmq.errors import ConfigError, CorruptRecord
from trmq.real_host import RealDisk
from trmq.record import BLANK_SIZE_MIN, MAGIC_BLANK, decode_record

from .common import folder_of, when
from .output import Output, printable, show
from .session import Format


def tail_store(file: Path, *, topic: str | None = None, output: Format = Output.table) -> int:
    """Print the messages of a file trmq/tail-<from>-<to>.log: what a former master had and its successor had not.

    Example: trmq store tail /data/a/store/trmq/tail-40960-43008.log
    Example: trmq store tail TAIL --topic orders -o jsonl | trmq produce orders --jsonl

    Parameters
    ----------
    file
        The file. It is only read.
    topic
        Only this topic's messages.
    """
    path = folder_of(file)
    if not path.is_file():
        raise ConfigError(f"{path} is no file: give a file trmq/tail-<from>-<to>.log of a store")
    found = (message for message in messages_of(path) if topic in (None, message.topic))
    if output is Output.jsonl:
        for message in found:
            print(json.dumps(message.as_dict() | {"body": printable(message.body)}, ensure_ascii=False))
    elif output is Output.json:
        show([message.as_dict() | {"body": printable(message.body)} for message in found], output)
    else:
        rows = [
            {"topic": message.topic, "queue": message.queue.queue_id, "offset": message.offset, "stored": when(message.store_ms),
             "unique_key": message.message_id, "body": printable(message.body)[:60]}
            for message in found
        ]  # fmt: skip
        show(rows, output, empty="no message" if topic is None else f"no message of topic {topic}")
    return 0


def messages_of(path: Path) -> Iterator[Received]:
    """The records of the file, one after the other; what fills the end of a log file is passed over. Raises `CorruptRecord`."""
    file = RealDisk(path.parent).open_read(path.name)
    try:
        at, end = 0, file.size
        while at < end:
            head = bytes(file.read_at(at, BLANK_SIZE_MIN))
            size, magic = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
            if magic == MAGIC_BLANK and size >= BLANK_SIZE_MIN:
                at += size
                continue
            record = bytes(file.read_at(at, size)) if size <= end - at else b""
            try:
                decode_record(record)
                yield from decode_received(record, "", Received)
            except CorruptRecord as error:
                raise CorruptRecord(f"{path} at byte {at}: {error}: is this a file trmq/tail-<from>-<to>.log?") from None
            at += size
    finally:
        file.close()
