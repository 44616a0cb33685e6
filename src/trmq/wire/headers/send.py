"""Headers of sending and what belongs to it: send, send-back, transactions' end, recall, reply.

Source: reference "protocol" sections 11.2 and 11.5.
"""

from __future__ import annotations

from .base import Header, Int32, Int64


class SendMessage(Header):
    """10 SEND_MESSAGE, 324 SEND_REPLY_MESSAGE: the long names. `SendMessageV2` has the same attributes."""

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: Int32
    queue_id: Int32
    sys_flag: Int32
    born_timestamp: Int64
    flag: Int32
    properties: str | None = None
    reconsume_times: Int32 | None = None
    unit_mode: bool | None = None
    batch: bool | None = None
    max_reconsume_times: Int32 | None = None
    broker_name: str | None = None


_LETTERS = {
    "producer_group": "a", "topic": "b", "default_topic": "c", "default_topic_queue_nums": "d", "queue_id": "e", "sys_flag": "f",
    "born_timestamp": "g", "flag": "h", "properties": "i", "reconsume_times": "j", "unit_mode": "k", "max_reconsume_times": "l",
    "batch": "m", "broker_name": "n",
}  # fmt: skip


class SendMessageV2(SendMessage, rename=_LETTERS):
    """310 SEND_MESSAGE_V2, 320 SEND_BATCH_MESSAGE, 325 SEND_REPLY_MESSAGE_V2: the same attributes, one letter each on the wire.

    The members are declared again because a member keeps the wire name it was declared with.
    """

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: Int32
    queue_id: Int32
    sys_flag: Int32
    born_timestamp: Int64
    flag: Int32
    properties: str | None = None
    reconsume_times: Int32 | None = None
    unit_mode: bool | None = None
    batch: bool | None = None
    max_reconsume_times: Int32 | None = None
    broker_name: str | None = None


class SendMessageResponse(Header):
    """Answer to every stored message (0, 10, 11, 12); `msg_id` holds offset message ids, comma-joined for a batch."""

    msg_id: str
    queue_id: Int32
    queue_offset: Int64
    transaction_id: str | None = None
    batch_uniq_id: str | None = None
    recall_handle: str | None = None


class ConsumerSendMsgBack(Header):
    """36: put a message that was not consumed back, to be delivered again later. `offset` is physical."""

    offset: Int64
    group: str
    delay_level: Int32
    origin_msg_id: str | None = None
    origin_topic: str | None = None
    unit_mode: bool | None = None
    max_reconsume_times: Int32 | None = None


class EndTransaction(Header):
    """37: commit (8), roll back (12) or unknown (0) of a prepared message."""

    producer_group: str
    tran_state_table_offset: Int64
    commit_log_offset: Int64
    commit_or_rollback: Int32
    msg_id: str
    topic: str | None = None
    from_transaction_check: bool | None = None
    transaction_id: str | None = None


class CheckTransactionState(Header):
    """39, broker to producer: what became of this transaction?"""

    tran_state_table_offset: Int64
    commit_log_offset: Int64
    topic: str | None = None
    msg_id: str | None = None
    transaction_id: str | None = None
    offset_msg_id: str | None = None
    bname: str | None = None


class RecallMessage(Header):
    """370: take a delayed message back before it is delivered."""

    topic: str
    recall_handle: str
    producer_group: str | None = None


class RecallMessageResponse(Header):
    """Answer to 370."""

    msg_id: str


class PushReplyMessage(Header):
    """326, broker to the client that sent a request message: its reply. Hosts are `ip:port`."""

    producer_group: str
    topic: str
    default_topic: str
    default_topic_queue_nums: Int32
    queue_id: Int32
    sys_flag: Int32
    born_timestamp: Int64
    flag: Int32
    born_host: str
    store_host: str
    store_timestamp: Int64
    properties: str | None = None
    reconsume_times: Int32 | None = None
    unit_mode: bool | None = None
