"""The final look: every queue of every member that is up, from its first offset to its last, asked of that member by address."""

from __future__ import annotations

from collections import Counter

import attrs
import trio
from specs.history import Found, QueueRead

from trmq.client.messages import Received, decode_received
from trmq.errors import RemoteRefused, TrmqError
from trmq.message import MessageQueue
from trmq.remoting import RemotingClient
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.headers.pull import PULL_SUBSCRIPTION, PullMessageResponse

from .members import UP, Member, Members
from .workload import identify

GROUP = "TOOLS_CONSUMER"
BATCH, TIMEOUT, STUCK_MAX = 512, 10.0, 40


@attrs.define
class Look:
    """What one member gave of a topic: queue id -> offset -> id. `refusal`: why it gave nothing (more)."""

    member: Member
    queues: dict[int, dict[int, str]] = attrs.field(factory=dict)
    starts: dict[int, int] = attrs.field(factory=dict)
    refusal: str = ""


async def read_queue(remoting: RemotingClient, address: str, queue: MessageQueue) -> tuple[int, dict[int, str]]:
    """(first offset, ids by offset), as this member has them. Raises `RemoteRefused`, `ConnectionLost`, `RequestTimeout`."""
    found: dict[int, str] = {}
    offset, start, stuck = 0, 0, 0
    while True:
        fields = {
            "consumerGroup": GROUP, "topic": queue.topic, "queueId": str(queue.queue_id), "queueOffset": str(offset),
            "maxMsgNums": str(BATCH), "sysFlag": str(PULL_SUBSCRIPTION), "commitOffset": "0", "suspendTimeoutMillis": "0",
            "subscription": "*", "subVersion": "0", "expressionType": "TAG", "bname": queue.broker_name,
        }  # fmt: skip
        answer = await remoting.request(address, RequestCode.PULL_MESSAGE, fields, timeout=TIMEOUT)
        if answer.code not in (0, ResponseCode.PULL_NOT_FOUND, ResponseCode.PULL_RETRY_IMMEDIATELY, ResponseCode.PULL_OFFSET_MOVED):
            raise RemoteRefused(answer.code, answer.remark)
        header = answer.header(PullMessageResponse)
        if answer.code == 0:
            for message in decode_received(answer.body, queue, Received):
                found[message.offset] = identify(message)
        if not found:
            start = max(start, header.min_offset)
        moved, offset = header.next_begin_offset > offset, max(offset, header.next_begin_offset)
        if offset >= header.max_offset and answer.code != 0:
            return start, found
        stuck = 0 if moved else stuck + 1
        if stuck > STUCK_MAX:
            return start, found
        if not moved:
            await trio.sleep(0.1)


async def look_at(members: Members, queues: list[MessageQueue]) -> list[Look]:
    """One look at each member that answers, masters first."""
    found = []
    for member in sorted(members.known.values(), key=lambda member: (member.group, member.broker_id)):
        if member.state != UP:
            continue
        look = Look(member)
        for queue in queues:
            if queue.broker_name == member.group:
                try:
                    look.starts[queue.queue_id], look.queues[queue.queue_id] = await read_queue(members.remoting, member.address, queue)
                except TrmqError as error:
                    look.refusal = str(error)
                    break
        found.append(look)
    return found


def tell(looks: list[Look], topic: str, now: float) -> tuple[list[QueueRead | Found], set[str]]:
    """The words for it, and the broker groups that were read wholly. A queue is told as the master has it, else as a slave does."""
    words: list[QueueRead | Found] = []
    wholly: set[str] = set()
    places: set[tuple[str, int, int, str]] = set()
    for look in looks:
        group = look.member.group
        places |= {(group, queue, offset, id) for queue, ids in look.queues.items() for offset, id in ids.items()}
        if look.refusal or group in wholly:
            continue
        wholly.add(group)
        for queue, ids in look.queues.items():
            start = min(ids, default=look.starts[queue])
            dense = tuple(ids.get(offset, f"nothing at offset {offset}") for offset in range(start, max(ids, default=start - 1) + 1))
            words.append(QueueRead((topic, queue), group, start, dense, now))
    copies = Counter(id for _, _, _, id in places)
    words.append(Found(tuple(id for id in sorted(copies) for _ in range(copies[id])), at=now))
    return words, wholly
