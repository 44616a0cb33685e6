"""What to do with a broker's answer, as pure functions: which sends are tried again, which consumed messages come back and when.

Source: `DefaultMQProducerImpl#sendDefaultImpl`, `DefaultMQPushConsumerImpl#sendMessageBack`; reference "client behaviour" sections 3, 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from trmq.message import MessageQueue
from trmq.wire.codes import ResponseCode

STORED = (0, 10, 11, 12)
RETRIED = tuple(map(int, (
    ResponseCode.TOPIC_NOT_EXIST, ResponseCode.SERVICE_NOT_AVAILABLE, ResponseCode.SYSTEM_ERROR, ResponseCode.SYSTEM_BUSY,
    ResponseCode.NO_PERMISSION, ResponseCode.NO_BUYER_ID, ResponseCode.NOT_IN_CURRENT_UNIT, ResponseCode.GO_AWAY,
)))
"""Answers after which Java's producer tries another broker: {17, 14, 1, 2, 16, 204, 205, 1500}."""
INDEFINITE = (int(ResponseCode.SYSTEM_ERROR),)
"""Code 1 covers any exception in the broker, before or after the append."""
TOO_FEW_COPIES = ("IN_SYNC_REPLICAS_NOT_ENOUGH", "in-sync replicas not enough")
"""How a code 1 begins (trmq, Apache) that was said before anything was stored."""
RETRY_LEVEL_BASE = 3
"""The delay level of the first redelivery (10 s); each further one takes the next level."""


class Verdict(Enum):
    """Of one answer to a send."""

    STORED = "stored"
    TRY_ANOTHER = "try another"
    REFUSED = "refused"


def judge_send(code: int) -> Verdict:
    """Of an answer with this code. What is stored is never sent again, what another broker may take is not given up.

    post: (__return__ is Verdict.STORED) == (code in (0, 10, 11, 12))
    post: (__return__ is Verdict.TRY_ANOTHER) == (code in (1, 2, 14, 16, 17, 204, 205, 1500))
    """
    if code in STORED:
        return Verdict.STORED
    return Verdict.TRY_ANOTHER if code in RETRIED else Verdict.REFUSED


def is_definite(code: int, remark: str | None) -> bool:
    """Whether a refused send certainly stored nothing.

    post: implies(not __return__, code == 1)
    post: implies(code == 1 and not remark, not __return__)
    """
    return code not in INDEFINITE or (remark or "").startswith(TOO_FEW_COPIES)


def retry_level(reconsume_times: int) -> int:
    """The delay level with which a message goes to its retry topic when its consumer has to re-publish it itself."""
    return RETRY_LEVEL_BASE + reconsume_times


def shard(queues: Sequence[MessageQueue], key_hash: int) -> MessageQueue:
    """The queue of a sharding key: |hash| modulo the count, as `SelectMessageQueueByHash`."""
    return queues[abs(key_hash) % len(queues)]
