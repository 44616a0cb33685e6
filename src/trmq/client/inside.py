"""What a consumer tells brokers and tools about itself: its heartbeat data, its running info, and answers to their requests.

Source: `ClientRemotingProcessor`, `DefaultMQPushConsumerImpl#consumerRunningInfo`; reference "protocol" sections 10, 11.5.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from trmq.errors import TrmqError
from trmq.message import MessageQueue
from trmq.remoting import Answer, Job
from trmq.wire import fastjson
from trmq.wire.codes import VERSION, RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response

from .delivery import OPEN, Delivery
from .messages import decode_received
from .process_queue import CacheLimits, ProcessQueue

if TYPE_CHECKING:
    from .consumer import Consumer

logger = logging.getLogger("trmq.client")

DIRECT_TIMEOUT = 10.0


def consumer_data(consumer: Consumer) -> dict[str, Any]:
    """ConsumerData of a heartbeat."""
    options = consumer.options
    return {
        "consumeFromWhere": options.from_where.value, "consumeType": "CONSUME_PASSIVELY", "groupName": options.group,
        "messageModel": "BROADCASTING" if options.broadcasting else "CLUSTERING",
        "subscriptionDataSet": [subscription.to_wire() for subscription in consumer.subscriptions], "unitMode": False,
    }


def answer(consumer: Consumer, command: Command) -> Answer:
    """The answer to a request that a broker sent for this group."""
    code = command.code
    if code == RequestCode.RESET_CONSUMER_CLIENT_OFFSET:
        table = reset_table(command)
        logger.warning("offsets of group %s are reset: %s", consumer.group, table)
        consumer.reset(table)
        return None
    if code == RequestCode.GET_CONSUMER_STATUS_FROM_CLIENT:
        topic = command.ext.get("topic")
        held = {cell.queue: cell.commit_offset for cell in consumer.assignment.cells.values() if topic in (None, cell.queue.topic)}
        body = fastjson.dumps({"messageQueueTable": held, "consumerTable": {}}, quoted_keys=True)
        return encode_response(command, ResponseCode.SUCCESS, body=body)
    if code == RequestCode.GET_CONSUMER_RUNNING_INFO:
        return encode_response(command, ResponseCode.SUCCESS, body=fastjson.dumps(running_info(consumer), quoted_keys=True))
    return Job(lambda: _consume_directly(consumer, command))


def reset_table(command: Command) -> dict[MessageQueue, int]:
    """The offsets of a ResetOffsetBody in Java's form or in the list form made for C++ clients."""
    table = fastjson.loads(command.body).get("offsetTable") or {} if command.body else {}
    if isinstance(table, list):
        return {MessageQueue(entry["topic"], entry["brokerName"], int(entry["queueId"])): int(entry["offset"]) for entry in table}
    return {queue: int(offset) for queue, offset in table.items() if isinstance(queue, MessageQueue)}


def running_info(consumer: Consumer) -> dict[str, Any]:
    """ConsumerRunningInfo, as `mqadmin consumerStatus` prints it. The rates Java measures are given as 0.0."""
    host, now = consumer.instance.host, trio.current_time()
    wall = host.wall_ms()

    def wall_of(moment: float) -> int:
        return wall - int((now - moment) * 1000) if moment else 0

    return {
        "mqPopTable": {}, "userConsumerInfo": {},
        "mqTable": {
            cell.queue: {
                "cachedMsgCount": cell.count, "cachedMsgMinOffset": cell.commit_offset if cell.count else 0,
                "cachedMsgMaxOffset": cell.pull_offset - 1 if cell.count else 0, "cachedMsgSizeInMiB": cell.size >> 20,
                "commitOffset": cell.commit_offset, "droped": cell.dropped, "lastConsumeTimestamp": wall_of(cell.last_taken),
                "lastLockTimestamp": wall_of(cell.locked_until - 30.0) if cell.locked_until else 0,
                "lastPullTimestamp": wall_of(cell.last_pull), "locked": cell.locked_until > now, "tryUnlockTimes": 0,
                "transactionMsgCount": 0, "transactionMsgMaxOffset": 0, "transactionMsgMinOffset": 0,
            }
            for cell in consumer.assignment.cells.values()
        },
        "properties": {
            "PROP_CLIENT_VERSION": str(VERSION), "PROP_CONSUMEORDERLY": str(consumer.options.orderly).lower(),
            "PROP_CONSUMER_START_TIMESTAMP": str(consumer.started_ms), "PROP_CONSUME_TYPE": "CONSUME_PASSIVELY",
            "PROP_NAMESERVER_ADDR": ";".join(f"{ip}:{port}" for ip, port in consumer.instance.name_servers),
            "PROP_THREADPOOL_CORE_SIZE": "1",
        },
        "statusTable": {
            subscription.topic: {
                "consumeFailedMsgs": consumer.nacked_count, "consumeFailedTPS": 0.0, "consumeOKTPS": 0.0, "consumeRT": 0.0, "pullRT": 0.0,
                "pullTPS": 0.0,
            }
            for subscription in consumer.subscriptions
        },
        "subscriptionSet": [subscription.to_wire() for subscription in consumer.subscriptions],
    }


class _Direct:
    """The owner of a message that a tool wants consumed now: notes the decision instead of carrying it out."""

    raise_errors = False

    def __init__(self) -> None:
        self.result: str | None = None
        self.decided = trio.Event()

    def _set(self, result: str) -> None:
        self.result = result
        self.decided.set()

    def acked(self, message: Delivery) -> None:
        self._set("CR_SUCCESS")

    def nacked(self, message: Delivery, delay_level: int) -> None:
        self._set("CR_LATER")

    def abandoned(self, message: Delivery) -> None:
        self._set("CR_THROW_EXCEPTION")


async def _consume_directly(consumer: Consumer, command: Command) -> bytes | None:
    """Give the message of the request to the application and report what came of it."""
    started = trio.current_time()
    remark = None
    owner = _Direct()
    try:
        found = decode_received(command.body, command.ext.get("brokerName") or "", Delivery)
    except TrmqError as error:
        return encode_response(command, ResponseCode.SYSTEM_ERROR, remark=f"the message in the request cannot be read: {error}")
    if not found:
        return encode_response(command, ResponseCode.SYSTEM_ERROR, remark="the request carries no message")
    message = found[0]
    cell: ProcessQueue[Delivery] = ProcessQueue(message.queue, message.offset, CacheLimits())
    cell.locked_until = float("inf")
    cell.add([message], message.offset + 1)
    message.cell, message.owner, message.served_by, message.state = cell, owner, "", OPEN
    consumer.offer_direct(message)
    with trio.move_on_after(DIRECT_TIMEOUT):
        await owner.decided.wait()
    if owner.result is None:
        cell.drop()
        remark = f"the application did not decide within {DIRECT_TIMEOUT} s"
    body = {
        "autoCommit": True, "consumeResult": owner.result or "CR_RETURN_NULL", "order": consumer.options.orderly, "remark": remark,
        "spentTimeMills": int((trio.current_time() - started) * 1000),
    }
    return encode_response(command, ResponseCode.SUCCESS, body=fastjson.dumps(body, quoted_keys=True))
