"""Pulling: read a queue from an offset, filtered by tags; hold the request when there is nothing yet.

The checks come in Apache's order, since clients act on the first that fails. Every answer carries all four numbers, and
`nextBeginOffset` is right also when nothing was found: the client adopts it. The answer's remark is the store's status.

A pull that finds nothing and may wait is held (`holds`): it is run again when a message arrives in its queue, answered
at its deadline, and dies with its connection. While held, messages its filter rejects only move its offset on.

Source: reference "client_behaviour" section 4, "store" section 14; `PullMessageProcessor`, `DefaultPullMessageResultHandler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trmq.broker.holds import Hold
from trmq.broker.subscription import TAG, Subscription, parse
from trmq.errors import DiskFailed, RemoteProtocolError, TrmqError
from trmq.log import Pull, PullStatus
from trmq.remoting import Answer, Connection
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response, pull_answer
from trmq.wire.headers.pull import PULL_COMMIT_OFFSET, PULL_SUBSCRIPTION, PULL_SUSPEND, PullMessage

if TYPE_CHECKING:
    from trmq.broker.service import Broker

READ = 4
OFFSET_RESET = "OFFSET_RESET"
"""Remark of the answer that tells a consumer of an administrator's reset."""

FOUND = int(ResponseCode.SUCCESS)
EMPTY = int(ResponseCode.PULL_NOT_FOUND)
RETRY = int(ResponseCode.PULL_RETRY_IMMEDIATELY)
MOVED = int(ResponseCode.PULL_OFFSET_MOVED)
CODES = {
    PullStatus.FOUND: FOUND,
    PullStatus.NO_MATCHED_MESSAGE: RETRY,
    PullStatus.MESSAGE_WAS_REMOVING: RETRY,
    PullStatus.OFFSET_FOUND_NULL: EMPTY,
    PullStatus.OFFSET_OVERFLOW_BADLY: MOVED,
    PullStatus.OFFSET_OVERFLOW_ONE: EMPTY,
    PullStatus.OFFSET_TOO_SMALL: MOVED,
    PullStatus.NO_MATCHED_LOGIC_QUEUE: EMPTY,
    PullStatus.NO_MESSAGE_IN_QUEUE: EMPTY,
}
"""The last two are MOVED when the pull asked for another offset than 0: its consumer knows a queue that no longer is."""

NOT_HERE = frozenset({
    PullStatus.OFFSET_OVERFLOW_BADLY, PullStatus.OFFSET_TOO_SMALL, PullStatus.NO_MATCHED_LOGIC_QUEUE, PullStatus.NO_MESSAGE_IN_QUEUE,
})
"""What only a master may correct: a slave may lack what it asked for, and must not move a consumer because of that."""
ELSEWHERE_MS = 1_000
"""How long a slave holds a pull that only its master can answer, before it says so: a client that does not find the master asks again."""

HeldPull = tuple[Command, PullMessage]


def pull_message(broker: Broker, conn: Connection, command: Command) -> Answer:
    header = command.header(PullMessage)
    subscription = check(broker, header)
    offset = header.queue_offset
    reset = broker.offsets.take_reset(header.consumer_group, header.topic, header.queue_id)
    if reset is not None:
        return _reset_answer(broker, command, header, reset)
    pull, code = look(broker, header, subscription, offset)
    if header.sys_flag & PULL_COMMIT_OFFSET:
        broker.offsets.commit(header.consumer_group, header.topic, header.queue_id, header.commit_offset)
    waits = code == EMPTY or (code == RETRY and pull.status in NOT_HERE)
    if waits and header.sys_flag & PULL_SUSPEND and _hold(broker, conn, command, header, pull):
        return None
    return answer(broker, command, header, pull, code)


def check(broker: Broker, header: PullMessage) -> Subscription:
    """May this pull be served, and with what filter? Raises the refusal, by the first rule that fails."""
    topic, group = header.topic, header.consumer_group
    if broker.is_slave and not broker.config.slave_read_enable:
        raise RemoteProtocolError(
            f"the slave broker[{broker.config.broker_ip1}] does not serve pulls: slaveReadEnable=false", ResponseCode.SYSTEM_BUSY
        )
    if not broker.readable:
        raise RemoteProtocolError(f"the broker[{broker.config.broker_ip1}] pulling message is forbidden", ResponseCode.NO_PERMISSION)
    group_config = broker.groups.find(group)
    if group_config is None:
        raise RemoteProtocolError(f"subscription group [{group}] does not exist", ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST)
    if not group_config.consume_enable:
        raise RemoteProtocolError(f"subscription group no permission, {group}", ResponseCode.NO_PERMISSION)
    config = broker.topics.table.get(topic)
    if config is None:
        raise RemoteProtocolError(f"topic[{topic}] not exist, apply first please!", ResponseCode.TOPIC_NOT_EXIST)
    if not config.perm & READ:
        raise RemoteProtocolError(f"the topic[{topic}] pulling message is forbidden", ResponseCode.NO_PERMISSION)
    if not 0 <= header.queue_id < config.read_queue_nums:
        raise RemoteProtocolError(
            f"queueId[{header.queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{config.read_queue_nums}]",
            ResponseCode.INVALID_PARAMETER,
        )
    if header.sys_flag & PULL_SUBSCRIPTION:
        subscription = parse(topic, header.subscription, header.expression_type, header.sub_version)
    else:
        known = broker.clients.consumers.get(group)
        if known is None:
            raise RemoteProtocolError("the consumer's group info not exist", ResponseCode.SUBSCRIPTION_NOT_EXIST)
        if known.broadcasting and not group_config.consume_broadcast_enable:
            raise RemoteProtocolError(f"the consumer group[{group}] can not consume by broadcast way", ResponseCode.NO_PERMISSION)
        if broker.groups.forbids_reading(group, topic):
            raise RemoteProtocolError(f"the consumer group[{group}] is forbidden for topic[{topic}]", ResponseCode.NO_PERMISSION)
        found = known.subscriptions.get(topic)
        if found is None:
            raise RemoteProtocolError("the consumer's subscription not exist", ResponseCode.SUBSCRIPTION_NOT_EXIST)
        if found.version < header.sub_version:
            raise RemoteProtocolError("the consumer's subscription not latest", ResponseCode.SUBSCRIPTION_NOT_LATEST)
        subscription = found
    if subscription.kind != TAG:
        raise RemoteProtocolError(
            f"The broker does not support consumer to filter message by {subscription.kind}", ResponseCode.SYSTEM_ERROR
        )
    return subscription


def read(broker: Broker, header: PullMessage, subscription: Subscription, offset: int) -> Pull:
    most, size = limits(broker, header, offset)
    most = min(max(header.max_msg_nums, 1), most)
    if header.max_msg_bytes is not None and 0 < header.max_msg_bytes < size:
        size = header.max_msg_bytes
    return broker.store.pull(header.topic, header.queue_id, offset, most, size, subscription.tags)


def limits(broker: Broker, header: PullMessage, offset: int) -> tuple[int, int]:
    """Messages and bytes of a pull: fewer for who lags so far that what it reads is probably not in memory any more.

    Source: `DefaultMessageStore#isTheBatchFull`, which asks this of every message; here the first decides for all.
    """
    config, store = broker.config, broker.store
    if store.max_phy - store.min_phy > broker.memory_reach:
        queue = store.queue(header.topic, header.queue_id)
        where = None if queue is None else queue.unit(offset)
        if where is not None and store.max_phy - where[0] > broker.memory_reach:
            return config.max_transfer_count_on_message_in_disk, config.max_transfer_bytes_on_message_in_disk
    return config.max_transfer_count_on_message_in_memory, config.max_transfer_bytes_on_message_in_memory


def look(broker: Broker, header: PullMessage, subscription: Subscription, offset: int) -> tuple[Pull, int]:
    """What there is at an offset, and the code that says so. A slave corrects no offset: its consumer keeps it and asks the master.

    Source: `PullMessageProcessor` (offsetCheckInSlave=false). Upholds P-SLV-4.
    """
    pull = read(broker, header, subscription, offset)
    if broker.is_slave and pull.status in NOT_HERE and (offset or pull.status is PullStatus.OFFSET_TOO_SMALL):
        return pull._replace(next_offset=offset), RETRY if broker.replication.link_is_up else EMPTY
    return pull, code_of(pull, offset)


def suggestion(broker: Broker, header: PullMessage, pull: Pull) -> int:
    """The broker id to pull from next: a slave for who lags so far that what it reads is not in memory any more, the master for all others.

    Source: `PullMessageProcessor#composeResponseHeader`.
    """
    if pull.last_phy < 0 or broker.store.max_phy - pull.last_phy <= broker.memory_reach:
        return 0
    if not broker.config.slave_read_enable:
        return 0
    group = broker.groups.get(header.consumer_group)
    wanted = 1 if group is None else group.which_broker_when_consume_slowly
    return broker.config.broker_id if broker.is_slave else broker.replication.busy_suggestion(wanted)


def code_of(pull: Pull, offset: int) -> int:
    if offset and pull.status in (PullStatus.NO_MATCHED_LOGIC_QUEUE, PullStatus.NO_MESSAGE_IN_QUEUE):
        return MOVED
    return CODES[pull.status]


def answer(broker: Broker, command: Command, header: PullMessage, pull: Pull, code: int) -> bytes:
    broker.offsets.commit_pull(header.consumer_group, header.topic, header.queue_id, pull.next_offset)
    if pull.count:
        broker.stats.pulled(header.consumer_group, header.topic, pull.count, pull.size)
    else:
        broker.stats.missed += 1
    return pull_answer(
        command, code, pull.status.name, suggestion(broker, header, pull), pull.next_offset, pull.min_offset, pull.max_offset, pull.slices,
        pull.size,
    )


def _reset_answer(broker: Broker, command: Command, header: PullMessage, offset: int) -> bytes:
    queue = broker.store.queue(header.topic, header.queue_id)
    low, high = (0, 0) if queue is None else (queue.min_offset, queue.max_offset)
    return pull_answer(command, MOVED, OFFSET_RESET, 0, offset, low, high, (), 0)


# ------------------------------------------------------------------------------------------------------------------- holding


def _hold(broker: Broker, conn: Connection, command: Command, header: PullMessage, pull: Pull) -> bool:
    """Keep the pull until something arrives; False when the broker holds as many as it may.

    Some clients send the time in nanoseconds (trap 16): the cap makes that harmless.
    """
    config = broker.config
    wait_ms = min(header.suspend_timeout_millis, config.hold_ms_max) if config.long_polling_enable else config.short_polling_time_mills
    if wait_ms <= 0:
        return False
    if broker.is_slave and broker.replication.link_is_up and pull.status in NOT_HERE and header.queue_offset:
        wait_ms = min(wait_ms, ELSEWHERE_MS)
    deadline = trio.current_time() + wait_ms / 1000
    return broker.holds.hold(Hold(conn, (header.topic, header.queue_id), header.queue_offset, deadline, (command, header)))


def look_again(broker: Broker, hold: Hold[Connection, HeldPull]) -> bool:
    """Something arrived in the queue of a held pull: answer it if the filter lets something through. False: hold on."""
    command, header = hold.request
    try:
        frame = _run_again(broker, hold, command, header, final=False)
    except TrmqError as error:
        frame = _refusal(command, error)
    if frame is None:
        return False
    hold.conn.post(frame, soon=False)  # the holds write when they have looked at all
    return True


def end_hold(broker: Broker, hold: Hold[Connection, HeldPull]) -> None:
    """A held pull's time is over: answer what there is, normally that there is nothing."""
    command, header = hold.request
    try:
        frame = _run_again(broker, hold, command, header, final=True)
    except TrmqError as error:
        frame = _refusal(command, error)
    assert frame is not None
    hold.conn.post(frame, soon=False)  # the holds write when they have looked at all


def _refusal(command: Command, error: TrmqError) -> bytes:
    """What a pull is told that was refused, or met a damaged record, after it was held. A failed disk is no answer: it is raised."""
    if isinstance(error, DiskFailed):
        raise error
    code = error.response_code if isinstance(error, RemoteProtocolError) else ResponseCode.SYSTEM_ERROR
    return encode_response(command, code, remark=str(error))


def _run_again(broker: Broker, hold: Hold[Connection, HeldPull], command: Command, header: PullMessage, *, final: bool) -> bytes | None:
    subscription = check(broker, header)
    reset = broker.offsets.take_reset(header.consumer_group, header.topic, header.queue_id)
    if reset is not None:
        return _reset_answer(broker, command, header, reset)
    while True:
        pull, code = look(broker, header, subscription, hold.offset)
        if code == RETRY and hold.offset < pull.next_offset:
            hold.offset = pull.next_offset
            if pull.next_offset < pull.max_offset and not final:
                continue  # one read looks at a bounded stretch only
        if code in (EMPTY, RETRY) and not final:
            return None
        return answer(broker, command, header, pull, code)


HANDLERS = {
    RequestCode.PULL_MESSAGE: pull_message,
    RequestCode.LITE_PULL_MESSAGE: pull_message,
}
