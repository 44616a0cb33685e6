"""Seeded bugs of consumption: in the client, and in what a broker does for groups. Registered beside those of replication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from chaos.mutants import MUTANTS, Patch, mutant
from property.mutants import wrap
from trmq.broker import metadata
from trmq.broker.clients import Clients
from trmq.broker.delay import DelayService, Level
from trmq.broker.handlers import pull as pull_handler
from trmq.broker.handlers import replica as replica_handlers
from trmq.broker.handlers import send as send_handler
from trmq.broker.handlers import sendback
from trmq.broker.locks import QueueLocks
from trmq.broker.offsets import PATH, OffsetTable
from trmq.broker.service import Broker
from trmq.client import assignment
from trmq.client.assignment import Assignment
from trmq.client.consumer import Consumer
from trmq.client.offsets import BrokerOffsets
from trmq.client.process_queue import ProcessQueue
from trmq.log.store import Store
from trmq.message import KEYS, ORIGIN_MESSAGE_ID, UNIQ_KEY
from trmq.route import rebalance
from trmq.wire.codes import RequestCode, ResponseCode

__all__ = ["MUTANTS"]


# --- who holds what


@mutant("P-REB-1", scenarios=("shares",))
def allocation_depends_on_who_asks(patch: Patch) -> None:
    """Each member puts itself first."""

    def average(original: Any, queues: Sequence[Any], members: Sequence[str], me: str) -> Any:
        return original(queues, sorted(members, key=lambda member: (member != me, member)), me)

    wrap(patch, rebalance, "average", average)


@mutant("P-REB-1", scenarios=("shares",))
def allocation_forgets_the_rest(patch: Patch) -> None:
    """What does not come out even falls to nobody."""

    def average(queues: Sequence[Any], members: Sequence[str], me: str) -> Any:
        share, index = len(queues) // len(members), members.index(me)
        return list(queues[index * share : (index + 1) * share])

    patch.setattr(rebalance, "average", average)


@mutant("P-REB-2", scenarios=("members_come_and_go",))
def nobody_looks_again(patch: Patch) -> None:
    patch.setattr(assignment, "REBALANCE", 1e9)
    patch.setattr(Assignment, "rebalance_soon", lambda self: None)


@mutant("P-REB-2", scenarios=("members_come_and_go",))
def the_dead_stay_members(patch: Patch) -> None:
    patch.setattr(Clients, "drop", lambda self, conn: [])


# --- how far a group is


@mutant("P-OFF-1", scenarios=("members_come_and_go",))
def commits_are_forgotten(patch: Patch) -> None:
    """A broker takes only a queue's first commit."""
    wrap(patch, OffsetTable, "commit", lambda original, self, group, topic, queue, offset: (
        True if self.table.get(f"{topic}@{group}", {}).get(queue) else original(self, group, topic, queue, offset)
    ))  # fmt: skip


@mutant("P-OFF-2", "P-ALO-2", scenarios=("handlers_fail", "members_come_and_go"))
def commits_max_instead_of_min(patch: Patch) -> None:
    patch.setattr(ProcessQueue, "commit_offset", property(lambda self: self.pull_offset))


@mutant("P-OFF-2", "P-RTY-2", scenarios=("handlers_fail",))
def sendback_failure_passes_offset(patch: Patch) -> None:
    """What no broker takes back counts as done."""

    async def give_back(self: Consumer, message: Any, delay_level: int) -> None:
        await self._send_back(message, delay_level) or await self._republish(message, delay_level)
        message.cell.finish(message)

    patch.setattr(Consumer, "_give_back", give_back)


@mutant("P-OFF-3", scenarios=("brokers_return",))
def offsets_not_loaded_after_restart(patch: Patch) -> None:
    patch.setattr(OffsetTable, "load", lambda self, data: None)


@mutant("P-OFF-3", scenarios=("brokers_return",))
def offsets_not_written_at_a_stop(patch: Patch) -> None:
    """A clean stop leaves the file as it was written last."""

    async def write(original: Any, self: Any, *, everything: bool = False) -> None:
        if everything:
            self._encoders.pop(PATH, None)
        await original(self, everything=everything)

    wrap(patch, metadata.Metadata, "write", write)


@mutant("P-OFF-4", scenarios=("brokers_return",))
def beyond_the_end_waits(patch: Patch) -> None:
    """A pull beyond the end is held as one at the end is."""

    def look(original: Any, broker: Any, header: Any, subscription: Any, offset: int) -> Any:
        pull, code = original(broker, header, subscription, offset)
        return (pull._replace(next_offset=offset), pull_handler.EMPTY) if offset > pull.max_offset else (pull, code)

    wrap(patch, pull_handler, "look", look)


@mutant("P-ALO-1", "P-ALO-2", scenarios=("members_come_and_go",))
def skips_after_rebalance(patch: Patch) -> None:
    """Who takes a queue for the first time starts one message after where the group is."""
    taken: set[Any] = set()

    async def start_offset(original: Any, self: Assignment, queue: Any) -> int:
        found = await original(self, queue)
        first = bool(found) and (id(self), queue) not in taken
        taken.add((id(self), queue))
        return int(found) + first

    wrap(patch, Assignment, "_start_offset", start_offset)


@mutant("P-ALO-1", scenarios=("handlers_fail",))
def gives_up(patch: Patch) -> None:
    """A message that fails is dropped."""
    patch.setattr(Consumer, "nacked", lambda self, message, delay_level: self.acked(message))


@mutant("P-BRD-1", scenarios=("each_for_itself",))
def broadcasting_is_shared(patch: Patch) -> None:
    wrap(patch, Assignment, "__init__", lambda original, self, instance, options, *args: original(
        self, instance, attrs.evolve(options, broadcasting=False), *args
    ))  # fmt: skip


@mutant("P-BRD-1", scenarios=("each_for_itself",))
def broadcasting_repeats(patch: Patch) -> None:
    """What fails is handed out again, as to a group."""
    wrap(patch, Consumer, "nacked", lambda original, self, message, delay_level: self._offer_later(message, 1.0))


# --- order


@mutant("P-ORD-1", scenarios=("in_order",))
def offsets_in_the_order_of_ids(patch: Patch) -> None:
    """The answer names another offset than the record's."""
    wrap(patch, send_handler, "send_ok", lambda original, command, code, id, queue, offset, unique="": original(
        command, code, id, queue, 1000 - offset, unique
    ))  # fmt: skip


@mutant("P-ORD-2", scenarios=("in_order",))
def a_failing_message_is_overtaken(patch: Patch) -> None:
    """It is put behind the others."""

    def retry(self: Consumer, message: Any, delay_level: int) -> None:
        self._offer_later(message, 1.0)
        self._not_busy(message.cell)

    patch.setattr(Consumer, "_retry_in_place", retry)


@mutant("P-ORD-2", scenarios=("in_order",))
def hands_out_the_next_at_once(patch: Patch) -> None:
    """Members that consume in order hand messages out as they come."""

    def arrived(self: Consumer, cell: Any, messages: list[Any]) -> None:
        self._ready.extend(messages)
        self._readers.unpark(count=len(messages))

    patch.setattr(Consumer, "arrived", arrived)


@mutant("P-LCK-1", scenarios=("in_order",))
def lock_not_checked(patch: Patch) -> None:
    patch.setattr(QueueLocks, "_expired", lambda self, held, now_ms: True)


@mutant("P-LCK-3", scenarios=("in_order_across_a_swap",))
def slaves_grant_locks(patch: Patch) -> None:
    """As Apache's do."""
    patch.delitem(replica_handlers.ON_A_SLAVE, RequestCode.LOCK_BATCH_MQ)


@mutant("P-LCK-2", scenarios=("in_order",))
def consumes_without_a_lock(patch: Patch) -> None:
    async def lock(original: Any, self: Assignment, queues: Any) -> Any:
        wanted = list(queues)
        await original(self, wanted)
        return set(wanted)

    wrap(patch, Assignment, "_lock", lock)


# --- messages that fail


@mutant("P-RTY-1", scenarios=("handlers_fail",))
def retry_level_off_by_one(patch: Patch) -> None:
    patch.setattr(sendback, "FIRST_LEVEL", 2)


@mutant("P-RTY-3", scenarios=("handlers_fail",))
def retry_waits_a_level_more(patch: Patch) -> None:
    patch.setattr(sendback, "FIRST_LEVEL", 4)


def with_put(patch: Patch, change: Any) -> None:
    """What a give-back stores is changed first."""

    def send_back(original: Any, broker: Broker, conn: Any, command: Any) -> Any:
        put = broker.put

        def changed(topic: str, queue_id: int, body: Any, properties: dict[str, str], **more: Any) -> Any:
            return change(put, topic, queue_id, body, properties, more)

        broker.put = changed  # type: ignore[method-assign]
        try:
            return original(broker, conn, command)
        finally:
            del broker.put

    patch.setitem(sendback.HANDLERS, sendback.RequestCode.CONSUMER_SEND_MSG_BACK, lambda *args: send_back(sendback.send_back, *args))


@mutant("P-RTY-1", scenarios=("handlers_fail",))
def retry_keeps_the_count(patch: Patch) -> None:
    def change(put: Any, topic: str, queue_id: int, body: Any, properties: Any, more: Any) -> Any:
        return put(topic, queue_id, body, properties, **{**more, "reconsume_times": more["reconsume_times"] - 1})

    with_put(patch, change)


@mutant("P-RTY-2", scenarios=("handlers_fail",))
def sendback_failure_is_forgotten(patch: Patch) -> None:
    """What no broker takes back stays undone, and nobody hands it out again."""
    patch.setattr(Consumer, "_offer_later", lambda self, message, delay: None)


@mutant("P-RTY-3", scenarios=("handlers_fail",))
def taken_back_and_dropped(patch: Patch) -> None:
    """A give-back is answered with success and not stored."""
    patch.setitem(sendback.HANDLERS, sendback.RequestCode.CONSUMER_SEND_MSG_BACK, lambda broker, conn, command: sendback.encode_response(
        command, ResponseCode.SUCCESS
    ))  # fmt: skip


@mutant("P-RTY-4", scenarios=("handlers_fail",))
def dlq_loses_key(patch: Patch) -> None:
    def change(put: Any, topic: str, queue_id: int, body: Any, properties: Any, more: Any) -> Any:
        if topic.startswith("%DLQ%"):
            properties = {name: value for name, value in properties.items() if name not in (UNIQ_KEY, KEYS)}
        return put(topic, queue_id, body, properties, **more)

    with_put(patch, change)


@mutant("P-RTY-4", scenarios=("handlers_fail",))
def dlq_loses_origin(patch: Patch) -> None:
    def change(put: Any, topic: str, queue_id: int, body: Any, properties: Any, more: Any) -> Any:
        if topic.startswith("%DLQ%"):
            properties = {name: value for name, value in properties.items() if name != ORIGIN_MESSAGE_ID}
        return put(topic, queue_id, body, properties, **more)

    with_put(patch, change)


@mutant("P-RTY-4", scenarios=("handlers_fail",))
def retries_beyond_the_limit(patch: Patch) -> None:
    """What the consumer says of its limit is not heard."""
    patch.setattr(sendback, "VERSION_MAX_RECONSUME_TIMES", 1 << 30)


# --- delays


@mutant("P-DLY-1", scenarios=("delayed",))
def delay_too_early(patch: Patch) -> None:
    """A tenth of a second."""
    wrap(patch, Store, "_due", lambda original, self, properties, store_ms, tags: original(self, properties, store_ms - 100, tags))


@mutant("P-DLY-2", scenarios=("delayed",))
def delay_too_late(patch: Patch) -> None:
    """Three seconds."""
    wrap(patch, Store, "_due", lambda original, self, properties, store_ms, tags: original(self, properties, store_ms + 3000, tags))
    patch.setattr(Level, "latest", lambda self: float("inf"))


@mutant("P-DLY-3", scenarios=("delayed",))
def delay_progress_runs_ahead(patch: Patch) -> None:
    """After a restart a level starts at its end."""

    def load(original: Any, self: DelayService, data: bytes | None) -> None:
        original(self, data)
        for level in self.levels:
            level.offset = level.stored = self._max_offset(level)

    wrap(patch, DelayService, "load", load)


# --- duplicates


@mutant("P-DUP-3", scenarios=("members_come_and_go",))
def redelivers_consumed(patch: Patch) -> None:
    """Now and then what is done is handed out once more."""

    def acked(original: Any, self: Consumer, message: Any) -> None:
        original(self, message)
        if message.offset % 4 == 3 and message.reconsume_times == 0:
            self._offer_later(message, 0.5)

    wrap(patch, Consumer, "acked", acked)


@mutant("P-DUP-3", scenarios=("brokers_return",))
def starts_from_the_beginning(patch: Patch) -> None:
    """Who takes a queue starts at its first message."""

    async def start_offset(original: Any, self: Assignment, queue: Any) -> int:
        await original(self, queue)
        return 0

    wrap(patch, Assignment, "_start_offset", start_offset)


@mutant("P-DUP-4", scenarios=("delayed",))
def delayed_comes_twice(patch: Patch) -> None:
    wrap(patch, DelayService, "_copy", lambda original, self, phy, size: (original(self, phy, size), original(self, phy, size))[0])


@mutant("P-DUP-4", scenarios=("handlers_fail",))
def taken_back_twice(patch: Patch) -> None:
    """A give-back is stored twice."""

    def change(put: Any, topic: str, queue_id: int, body: Any, properties: Any, more: Any) -> Any:
        put(topic, queue_id, body, dict(properties), **more)
        return put(topic, queue_id, body, properties, **more)

    with_put(patch, change)


@mutant("P-DUP-5", scenarios=("members_come_and_go",))
def leaves_without_a_commit(patch: Patch) -> None:
    async def close(self: Consumer) -> None:
        await self.instance.unregister(consumer=self.group)

    patch.setattr(Consumer, "close", close)


@mutant("P-DUP-5", scenarios=("leaves_as_the_master_returns",))
def hands_over_to_a_stand_in(patch: Patch) -> None:
    """Who leaves commits to whoever was there a moment ago; the master that is back is not looked for."""

    async def store(self: BrokerOffsets, queue: Any, offset: int) -> None:
        fields = {**self._fields(queue), "commitOffset": str(offset)}
        await self._instance.ask_group(queue.topic, queue.broker_name, RequestCode.UPDATE_CONSUMER_OFFSET, fields)

    patch.setattr(BrokerOffsets, "store", store)
