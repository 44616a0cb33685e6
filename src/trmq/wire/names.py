"""Names of topics and groups: what is allowed, what is reserved, what is derived.

Source: reference "protocol" sections 7 and 12; `TopicValidator`, `Validators`, `MixAll`, `KeyBuilder`.
"""

from __future__ import annotations

import re

from trmq.message import DLQ_PREFIX, RETRY_PREFIX

TOPIC_LENGTH_MAX = 127
DERIVED_TOPIC_LENGTH_MAX = 255
"""For retry and dead-letter topics, whose names hold a group's."""
GROUP_LENGTH_MAX = 255
LMQ_PREFIX = "%LMQ%"
SYSTEM_TOPIC_PREFIX = "rmq_sys_"
REPLY_TOPIC_SUFFIX = "REPLY_TOPIC"

SYSTEM_TOPICS = frozenset(
    {
        "TBW102", "SCHEDULE_TOPIC_XXXX", "BenchmarkTest", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        "TRANS_CHECK_MAX_TIME_TOPIC", "RMQ_SYS_TRACE_TOPIC", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT", "CHECKPOINT_TOPIC",
    }
)  # fmt: skip
NOT_SENDABLE_TOPICS = frozenset(
    {
        "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC",
        "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT",
    }
)  # fmt: skip
"""Topics that no client may send to (NO_PERMISSION)."""
SYSTEM_GROUPS = frozenset(
    {
        "DEFAULT_PRODUCER", "DEFAULT_CONSUMER", "TOOLS_CONSUMER", "SCHEDULE_CONSUMER", "FILTERSRV_CONSUMER", "__MONITOR_CONSUMER",
        "CLIENT_INNER_PRODUCER", "SELF_TEST_P_GROUP", "SELF_TEST_C_GROUP", "CID_ONS-HTTP-PROXY", "CID_ONSAPI_PERMISSION",
        "CID_ONSAPI_OWNER", "CID_ONSAPI_PULL", "CID_RMQ_SYS_TRANS",
    }
)  # fmt: skip
SYSTEM_GROUP_PREFIX = "CID_RMQ_SYS_"

_LEGAL = re.compile(r"[%|a-zA-Z0-9_-]+")


def check_topic(name: str) -> str | None:
    """Why `name` cannot be a topic, as one sentence, or None when it can."""
    longest = DERIVED_TOPIC_LENGTH_MAX if name.startswith((RETRY_PREFIX, DLQ_PREFIX)) else TOPIC_LENGTH_MAX
    return _check("topic", name, longest)


def check_group(name: str) -> str | None:
    """Why `name` cannot be a group, as one sentence, or None when it can."""
    return _check("group", name, GROUP_LENGTH_MAX)


def _check(what: str, name: str, longest: int) -> str | None:
    if not name.strip():
        return f"The specified {what} is blank."
    if _LEGAL.fullmatch(name) is None:
        return f"The specified {what}[{name[:longest]}] contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
    if len(name) > longest:
        return f"The specified {what} is longer than {what} max length {longest}."
    return None


def is_system_topic(name: str) -> bool:
    """Topics that the system uses for itself: not to be deleted, not listed as a user's."""
    return name in SYSTEM_TOPICS or name.startswith(SYSTEM_TOPIC_PREFIX)


def is_system_group(name: str) -> bool:
    """Groups that exist without being created."""
    return name in SYSTEM_GROUPS or name.startswith(SYSTEM_GROUP_PREFIX)


def retry_topic(group: str) -> str:
    """Where messages go that the group wants again later."""
    return RETRY_PREFIX + group


def dlq_topic(group: str) -> str:
    """Where messages go that the group could not consume at all."""
    return DLQ_PREFIX + group


def is_retry_topic(name: str) -> bool:
    return name.startswith(RETRY_PREFIX)


def is_dlq_topic(name: str) -> bool:
    return name.startswith(DLQ_PREFIX)


def group_of_retry_topic(topic: str) -> str:
    """The inverse of `retry_topic`."""
    return topic.removeprefix(RETRY_PREFIX)
