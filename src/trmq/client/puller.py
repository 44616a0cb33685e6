"""One task per assigned queue: ask, wait at the broker (long poll), hand over, ask again. Pauses while the cache is full.

Whom to ask is the business of `Source`: a broker that is lost is not waited for as long as another of its group answers.

**A record that was damaged** in a broker's log must not keep a group from all that stand behind it, and its length cannot be trusted, so
what stands behind it in the same answer is not looked at. Those before it are handed over. Then it is asked for alone, a few times, of a
slave as well if one answers; in the end the consumer goes on where the master says that the next one is. Rejected: what Java does, which
drops the rest of such an answer.

Source: `DefaultMQPushConsumerImpl#pullMessage`; reference "client behaviour" section 4.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from trmq.errors import ConnectionLost, CorruptRecord, RemoteProtocolError, RequestTimeout, TrmqError
from trmq.wire.codes import ResponseCode
from trmq.wire.command import Command
from trmq.wire.headers.pull import PullMessageResponse

from .delivery import OPEN, Delivery, Owner
from .filters import Subscription
from .instance import Instance
from .members import Choice
from .messages import decode_sound
from .process_queue import ProcessQueue
from .routes import MASTER
from .source import ERROR_DELAY, Source

logger = logging.getLogger("trmq.client")

HOLD_MS = 15_000
PULL_TIMEOUT = 30.0
FLOW_CONTROL_DELAY = 0.02
COMMIT, SUSPEND = 1, 2
DAMAGED_TRIES = 3
"""So often a damaged record is asked for alone before it is passed over."""
NOTHING = frozenset({ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY, ResponseCode.PULL_OFFSET_MOVED})
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
        self._source = Source(consumer.instance, cell.queue, consumer.group)
        self._damaged_at = -1
        """The pull offset at which the next record is known to be damaged."""
        self._damaged_tries = 0
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
            choice = self._source.choose()
            if choice is None:
                await self._source.nobody()
                continue
            try:
                await self._pull(choice)
            except (ConnectionLost, RequestTimeout) as error:
                logger.info("pull of %s: %s", cell.queue, error)  # and on to the next who can be asked
            except TrmqError as error:
                logger.warning("pull of %s failed, next try in %s s: %s", cell.queue, ERROR_DELAY, error)
                self._instance.refresh_soon(cell.queue.topic)
                await trio.sleep(ERROR_DELAY)

    async def _pull(self, choice: Choice) -> None:
        cell, source = self._cell, self._source
        at_master = choice.broker_id == MASTER
        commit = cell.commit_offset if self._consumer.commits_with_pull and at_master else 0  # only masters take offsets with a pull
        fields = {
            **self._fixed, "queueOffset": str(cell.pull_offset), "sysFlag": str(SUSPEND | (COMMIT if commit > 0 else 0)),
            "commitOffset": str(commit),
        }
        if cell.pull_offset == self._damaged_at:
            fields["maxMsgNums"] = "1"
        started = trio.current_time()
        cell.last_pull = started
        answer = await source.ask(choice, fields, PULL_TIMEOUT)
        if answer is None or cell.dropped:
            return
        code, position = answer.code, cell.pull_offset
        if code == ResponseCode.SUCCESS:
            self._found(answer, choice)
            await source.breathe(choice, started, moved=cell.pull_offset > position)
        elif code == ResponseCode.PULL_OFFSET_MOVED and at_master:
            self._consumer.moved(cell, self._take_hints(answer))
        elif code in NOTHING:
            told = self._take_hints(answer)
            filtered = bool(self._subscription.tags) and code != ResponseCode.PULL_OFFSET_MOVED
            cell.add((), source.next_offset(choice, position, told, filtered=filtered))
            await source.breathe(choice, started, moved=cell.pull_offset > position)
        elif code == ResponseCode.FLOW_CONTROL:
            await trio.sleep(FLOW_CONTROL_DELAY)
        else:
            logger.info("pull of %s refused by %s: %s (code %d)", cell.queue, choice.address, answer.remark, code)
            await self._refused(choice, code, started)

    async def _refused(self, choice: Choice, code: int, started: float) -> None:
        if code in FORGOTTEN:
            await self._instance.members.introduce(choice.address)  # a restarted broker has forgotten us
            await trio.sleep(FLOW_CONTROL_DELAY)
            if not await self._source.breathe(choice, started, moved=False):
                return
        self._instance.refresh_soon(self._cell.queue.topic)
        if not self._source.refused(choice, code):
            await trio.sleep(ERROR_DELAY)

    def _found(self, answer: Command, choice: Choice) -> None:
        cell = self._cell
        messages, problem = decode_sound(answer.body, cell.queue, Delivery)
        next_offset = self._take_hints(answer)
        if next_offset < cell.pull_offset:
            raise RemoteProtocolError(f"asked for messages from offset {cell.pull_offset} on, the answer ends at {next_offset}")
        low = cell.pull_offset
        for number, message in enumerate(messages):
            if not low <= message.offset < next_offset:
                problem = CorruptRecord(f"it says that it stands at {message.offset}, among those from {low} to {next_offset}")
                del messages[number:]
                break
            low = message.offset + 1
        if problem is not None:
            next_offset = self._to_damage(low) if messages else self._past_damage(problem, choice, next_offset)
        tags = self._subscription.tags
        if tags:
            messages = [message for message in messages if message.tag in tags]
        owner = self._consumer
        for message in messages:
            message.cell, message.owner, message.served_by, message.state = cell, owner, choice.address, OPEN
        cell.add(messages, next_offset)
        if messages:
            self._consumer.arrived(cell, messages)

    def _to_damage(self, offset: int) -> int:
        """Go on at `offset`; the next record from there on is damaged, and asked for alone."""
        self._damaged_at, self._damaged_tries = offset, 0
        return offset

    def _past_damage(self, problem: CorruptRecord, choice: Choice, next_offset: int) -> int:
        """Where to go on when the first record of an answer that ends before `next_offset` is damaged. Raises `problem` to ask again."""
        cell = self._cell
        if cell.pull_offset != self._damaged_at:
            return self._to_damage(cell.pull_offset)
        self._damaged_tries += 1
        if self._damaged_tries < DAMAGED_TRIES or choice.broker_id != MASTER:  # offsets belong to the master
            self._source.spoilt(choice)
            raise problem
        logger.error(
            "a message of %s is passed over, from offset %d on, before %d: %s has it damaged (%s); run `trmq store check` there",
            cell.queue, cell.pull_offset, next_offset, choice.address, problem,
        )  # fmt: skip
        return max(next_offset, cell.pull_offset + 1)

    def _take_hints(self, answer: Command) -> int:
        """Note what the answer says beside messages; returns where the next pull starts. Raises `RemoteProtocolError`."""
        header = answer.header(PullMessageResponse)
        self._source.wanted = header.suggest_which_broker_id
        self._cell.max_offset = header.max_offset
        return header.next_begin_offset
