"""Where a group's progress is kept: on the brokers (clustering) or in a local file in Java's format (broadcasting).

Source: `RemoteBrokerOffsetStore`, `LocalFileOffsetStore`; reference "client behaviour" sections 5, 13.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

import trio

from trmq.errors import ConnectionLost, LogError, RemoteRefused, RequestTimeout, TrmqError
from trmq.host import Disk
from trmq.message import MessageQueue
from trmq.wire import fastjson
from trmq.wire.codes import RequestCode, ResponseCode

from .instance import Instance

logger = logging.getLogger("trmq.client")

RETURNED_S, ABSENT_S = 1.0, 5.0
"""How long a master gets to show that it is back, when a queue changes hands; for how long it is not asked again."""


class Offsets(Protocol):
    async def read(self, queue: MessageQueue) -> int | None:
        """The stored offset, None if there is none. Raises `TrmqError` when it cannot be known now."""
        ...

    async def commit(self, offsets: Mapping[MessageQueue, int], *, confirmed: bool) -> set[MessageQueue]:
        """Store offsets; the queues that were handed over. `confirmed` waits for the broker's answer."""
        ...


class BrokerOffsets:
    """Offsets of a group on the brokers that hold the queues: at the master, or at a slave while the master does not answer."""

    def __init__(self, instance: Instance, group: str) -> None:
        self._instance = instance
        self._group = group
        self._absent: dict[str, float] = {}
        """Broker name -> until when its master, which is lost, is not looked for."""

    def _fields(self, queue: MessageQueue) -> dict[str, str]:
        return {"consumerGroup": self._group, "topic": queue.topic, "queueId": str(queue.queue_id), "bname": queue.broker_name}

    async def read(self, queue: MessageQueue) -> int | None:
        code, fields = RequestCode.QUERY_CONSUMER_OFFSET, self._fields(queue)
        master = await self._returned(queue)
        try:
            if master is not None:
                offset = await self._instance.ask_offset(master, code, fields, timeout=5.0)
            else:
                offset = await self._instance.ask_group_offset(queue.topic, queue.broker_name, code, fields, timeout=5.0)
        except RemoteRefused as error:
            if error.code == ResponseCode.QUERY_NOT_FOUND:
                return None
            raise
        return offset if offset >= 0 else None

    async def store(self, queue: MessageQueue, offset: int) -> None:
        """Raises `RemoteRefused`, `ConnectionLost`, `RequestTimeout`."""
        code, fields = RequestCode.UPDATE_CONSUMER_OFFSET, {**self._fields(queue), "commitOffset": str(offset)}
        master = await self._returned(queue)
        if master is not None:
            await self._instance.ask(master, code, fields)
        else:
            await self._instance.ask_group(queue.topic, queue.broker_name, code, fields)

    async def _returned(self, queue: MessageQueue) -> str | None:
        """The address of a master that was lost and is back, which nobody has noticed yet; None if none was lost, or it is still away.

        A queue that changes hands is handed over at the master: it never hears of an offset that a stand-in is told, and a stand-in's own
        are older. So one whose process was gone is looked for once more; a silent one is not waited for again. Upholds P-DUP-5.
        """
        instance, name = self._instance, queue.broker_name
        members, master = instance.members, instance.master(queue.topic, name)
        if trio.current_time() < self._absent.get(name, 0.0) or (master is not None and not members.may_be_back(master)):
            return None
        with suppress(TrmqError), trio.move_on_after(RETURNED_S):
            if master is None:
                route = await instance.fresh_route(queue.topic)
                master = None if route is None else route.address(name)
            if master is not None and (not members.is_lost(master) or await members.introduce(master)):
                return master
        self._absent[name] = trio.current_time() + ABSENT_S
        return None

    async def _tell(self, queue: MessageQueue, offset: int) -> None:
        """One-way, to somebody who is there: what could not be told now is told next time. Raises `ConnectionLost`."""
        fields = {**self._fields(queue), "commitOffset": str(offset)}
        members = self._instance.members
        for choice in members.order(self._instance.known_route(queue.topic), queue.broker_name):
            if members.is_lost(choice.address):
                continue
            try:
                await self._instance.remoting.oneway(choice.address, RequestCode.UPDATE_CONSUMER_OFFSET, fields)
            except ConnectionLost:
                members.lost(choice.address)
            else:
                return
        raise ConnectionLost(f"no member of broker {queue.broker_name!r} answers", definite=True)

    async def commit(self, offsets: Mapping[MessageQueue, int], *, confirmed: bool) -> set[MessageQueue]:
        stored = set()
        away: set[str] = set()
        for queue, offset in offsets.items():
            if queue.broker_name in away:
                continue
            try:
                await (self.store if confirmed else self._tell)(queue, offset)
                stored.add(queue)
            except TrmqError as error:
                logger.info("offset %d of %s not committed: %s", offset, queue, error)
                if isinstance(error, ConnectionLost | RequestTimeout):
                    away.add(queue.broker_name)  # once is enough to know
        return stored


class LocalOffsets:
    """`<folder>/offsets.json` and `.bak`, content `{"offsetTable":{<MessageQueue>:offset}}`, replaced as a whole."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._path = f"{folder}/offsets.json"
        self._table: dict[MessageQueue, int] | None = None

    def _load(self) -> dict[MessageQueue, int]:
        for path in (self._path, self._path + ".bak"):
            if not self._disk.exists(path):
                continue
            file = self._disk.open_read(path)
            try:
                found = fastjson.loads(bytes(file.read_at(0, file.size)))
                return {queue: int(offset) for queue, offset in found["offsetTable"].items() if isinstance(queue, MessageQueue)}
            except (TrmqError, ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning("the offset file %s cannot be read (%s)", path, error)
            finally:
                file.close()
        return {}

    async def read(self, queue: MessageQueue) -> int | None:
        if self._table is None:
            self._table = self._load()
        return self._table.get(queue)

    async def commit(self, offsets: Mapping[MessageQueue, int], *, confirmed: bool) -> set[MessageQueue]:
        if self._table is None:
            self._table = self._load()
        self._table |= offsets
        data = fastjson.dumps({"offsetTable": dict(self._table)}, quoted_keys=True)
        try:
            file = self._disk.open(self._path + ".tmp")
            try:
                file.truncate(0)
                file.write_at(0, data)
                if confirmed:
                    await file.sync()
            finally:
                file.close()
            if self._disk.exists(self._path):
                self._disk.rename(self._path, self._path + ".bak")
            self._disk.rename(self._path + ".tmp", self._path)
        except LogError as error:
            logger.warning("the offset file %s was not written: %s", self._path, error)
            return set()
        return set(offsets)
