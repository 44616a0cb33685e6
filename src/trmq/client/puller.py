"""One task per assigned queue: ask, wait at the broker (long poll), hand over, ask again. Pauses while the cache is full.

Source: `DefaultMQPushConsumerImpl#pullMessage`; reference "client behaviour" section 4.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from trmq.errors import ConnectionLost, TrmqError
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command
from trmq.wire.headers.pull import PullMessageResponse

from .delivery import OPEN, Delivery, Owner
from .filters import Subscription
from .instance import Instance
from .messages import decode_received
from .process_queue import ProcessQueue
from .routes import MASTER

logger = logging.getLogger("trmq.client")

HOLD_MS = 15_000
PULL_TIMEOUT = 30.0
ERROR_DELAY = 1.0
FLOW_CONTROL_DELAY = 0.02
QUICK = 0.005
"""A "nothing new" that comes back faster than this was not held by the broker."""
COMMIT, SUSPEND = 1, 2
FORGOTTEN = frozenset({
    ResponseCode.SUBSCRIPTION_NOT_EXIST, ResponseCode.SUBSCRIPTION_NOT_LATEST, ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST,
})
"""Answers of a broker that does not know us (any more)."""


class PullFor(Owner, Protocol):
    """What a puller needs of its consumer."""

    group: str
    instance: Instance
    pull_batch: int
    commits_with_pull: bool

    def arrived(self, cell: ProcessQueue[Delivery], messages: list[Delivery]) -> None: ...
    def moved(self, cell: ProcessQueue[Delivery], to: int) -> None: ...


class Puller:
    """Runs until its queue is dropped or it is cancelled."""

    def __init__(self, consumer: PullFor, cell: ProcessQueue[Delivery], subscription: Subscription) -> None:
        self._consumer = consumer
        self._instance = consumer.instance
        self._cell = cell
        self._subscription = subscription
        self._idle_answers = 0
        queue = cell.queue
        self._fixed = {
            "consumerGroup": consumer.group, "topic": queue.topic, "queueId": str(queue.queue_id), "bname": queue.broker_name,
            "maxMsgNums": str(consumer.pull_batch), "maxMsgBytes": str(256 << 10), "suspendTimeoutMillis": str(HOLD_MS),
            "subVersion": str(subscription.version), "expressionType": "TAG",
        }

    async def run(self) -> None:
        cell = self._cell
        while not cell.dropped:
            if cell.full:
                room = trio.Event()
                cell.on_room = room.set
                await room.wait()
                continue
            try:
                await self._pull()
            except ConnectionLost as error:
                logger.info("pull of %s: %s", cell.queue, error)
                self._instance.refresh_soon(cell.queue.topic)
                self._instance.heartbeat_soon()
                await trio.sleep(ERROR_DELAY)
            except TrmqError as error:
                logger.warning("pull of %s failed, next try in %s s: %s", cell.queue, ERROR_DELAY, error)
                self._instance.refresh_soon(cell.queue.topic)
                await trio.sleep(ERROR_DELAY)

    async def _pull(self) -> None:
        cell = self._cell
        address, flags, commit = self._where()
        fields = {**self._fixed, "queueOffset": str(cell.pull_offset), "sysFlag": str(flags), "commitOffset": str(commit)}
        started = trio.current_time()
        cell.last_pull = started
        answer = await self._instance.remoting.request(address, RequestCode.PULL_MESSAGE, fields, timeout=PULL_TIMEOUT)
        if cell.dropped:
            return
        code = answer.code
        if code == ResponseCode.SUCCESS:
            self._found(answer, address)
        elif code in (ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY):
            cell.add((), max(cell.pull_offset, self._take_hints(answer)))
            await self._breathe(started, code)
        elif code == ResponseCode.PULL_OFFSET_MOVED:
            self._consumer.moved(cell, self._take_hints(answer))
        elif code == ResponseCode.FLOW_CONTROL:
            await trio.sleep(FLOW_CONTROL_DELAY)
        else:
            logger.info("pull of %s refused: %s (code %d)", cell.queue, answer.remark, code)
            if code in FORGOTTEN:
                await self._instance.heartbeat_to(address)  # a restarted broker has forgotten us
                await trio.sleep(FLOW_CONTROL_DELAY)
            else:
                self._instance.refresh_soon(cell.queue.topic)
                await trio.sleep(ERROR_DELAY)

    def _where(self) -> tuple[str, int, int]:
        """(address, sysFlag, commitOffset): the suggested member, or whoever is left; only masters take offsets with a pull."""
        cell = self._cell
        route = self._instance.known_route(cell.queue.topic)
        member = None if route is None else route.any_address(cell.queue.broker_name, cell.broker_id)
        if member is None:
            raise ConnectionLost(f"no address of broker {cell.queue.broker_name!r} is known", definite=True)
        commit = cell.commit_offset if self._consumer.commits_with_pull and member[0] == MASTER else 0
        return member[1], SUSPEND | (COMMIT if commit > 0 else 0), commit

    def _found(self, answer: Command, address: str) -> None:
        cell = self._cell
        messages = decode_received(answer.body, cell.queue, Delivery)
        tags = self._subscription.tags
        if tags:
            messages = [message for message in messages if message.tag in tags]
        owner = self._consumer
        for message in messages:
            message.cell, message.owner, message.state = cell, owner, OPEN
            message.served_by = address
        cell.add(messages, self._take_hints(answer))
        self._idle_answers = 0
        if messages:
            self._consumer.arrived(cell, messages)

    def _take_hints(self, answer: Command) -> int:
        """Note what the answer says beside messages; returns where the next pull starts. Raises `RemoteProtocolError`."""
        header = answer.header(PullMessageResponse)
        self._cell.broker_id = header.suggest_which_broker_id
        self._cell.max_offset = header.max_offset
        return header.next_begin_offset

    async def _breathe(self, started: float, code: int) -> None:
        """A broker that answers "nothing" at once, again and again, must not be asked in a tight loop."""
        if code == ResponseCode.PULL_NOT_FOUND and trio.current_time() - started < QUICK:
            self._idle_answers += 1
            if self._idle_answers > 3:
                await trio.sleep(min(ERROR_DELAY, FLOW_CONTROL_DELAY * self._idle_answers))
        else:
            self._idle_answers = 0
