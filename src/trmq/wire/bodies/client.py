"""JSON bodies of clients: heartbeats, subscriptions, locks, assignment of queues.

Source: reference "protocol" section 10.
"""

from __future__ import annotations

import msgspec
from msgspec import field

from trmq.message import MessageQueue

from .base import Body


class SubscriptionData(Body):
    """What a consumer wants of a topic. `code_set` holds the hashes of `tags_set`; `sub_version` is a time in ms."""

    topic: str
    sub_string: str = ""
    tags_set: list[str] = field(default_factory=list)
    code_set: list[int] = field(default_factory=list)
    sub_version: int = 0
    expression_type: str | None = "TAG"
    class_filter_mode: bool = False
    filter_class_source: str | None = None


class ConsumerData(Body):
    """One consumer group of a client."""

    group_name: str
    consume_type: str = "CONSUME_PASSIVELY"
    message_model: str = "CLUSTERING"
    consume_from_where: str = "CONSUME_FROM_LAST_OFFSET"
    subscription_data_set: list[SubscriptionData] = field(default_factory=list)
    unit_mode: bool = False


class ProducerData(Body):
    """One producer group of a client."""

    group_name: str


class HeartbeatData(Body):
    """Body of 34. With `without_sub` (v2) the subscriptions are those that belong to the fingerprint."""

    client_id: str = field(name="clientID")
    producer_data_set: list[ProducerData] = field(default_factory=list)
    consumer_data_set: list[ConsumerData] = field(default_factory=list)
    heartbeat_fingerprint: int = 0
    without_sub: bool = False


class ConsumerList(Body):
    """Body of 38 (Java: GetConsumerListByGroupResponseBody)."""

    consumer_id_list: list[str] = field(default_factory=list)


class CheckClientRequestBody(Body):
    """Body of 46."""

    client_id: str | None = None
    group: str | None = None
    subscription_data: SubscriptionData | None = None
    namespace: str | None = None


class WireQueue(msgspec.Struct, frozen=True, rename="camel"):
    """A message queue as JSON value (map keys are `trmq.message.MessageQueue`)."""

    broker_name: str
    queue_id: int
    topic: str

    @property
    def queue(self) -> MessageQueue:
        return MessageQueue(self.topic, self.broker_name, self.queue_id)

    @classmethod
    def of(cls, queue: MessageQueue) -> WireQueue:
        return cls(queue.broker_name, queue.queue_id, queue.topic)


class LockBatchRequestBody(Body):
    """Body of 41 and 42 (lock, unlock)."""

    consumer_group: str
    client_id: str
    mq_set: list[WireQueue] = field(default_factory=list)
    only_this_broker: bool = False


UnlockBatchRequestBody = LockBatchRequestBody


class LockBatchResponseBody(Body):
    """Answer to 41: the queues that the client holds now."""

    lock_ok_mq_set: list[WireQueue] = field(default_factory=list, name="lockOKMQSet")


class MessageQueueAssignment(Body):
    """One queue of 400's answer."""

    message_queue: WireQueue
    mode: str = "PULL"
    attachments: dict[str, str] = field(default_factory=dict)


class QueryAssignmentRequestBody(Body):
    """Body of 400."""

    topic: str
    consumer_group: str
    client_id: str
    strategy_name: str = "AVG"
    message_model: str = "CLUSTERING"


class QueryAssignmentResponseBody(Body):
    """Answer to 400."""

    message_queue_assignments: list[MessageQueueAssignment] = field(default_factory=list)


class SetMessageRequestModeRequestBody(Body):
    """Body of 401."""

    topic: str
    consumer_group: str
    mode: str = "PULL"
    pop_share_queue_num: int = 0
