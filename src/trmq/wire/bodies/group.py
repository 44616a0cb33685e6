"""JSON bodies of consumer groups: their configuration and offsets, also as kept in config/*.json.

Source: reference "protocol" section 10.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from .base import Body
from .route import DataVersion


class SubscriptionGroupConfig(Body):
    """What a broker knows of a consumer group; defaults are Java's."""

    group_name: str
    consume_enable: bool = True
    consume_from_min_enable: bool = True
    consume_broadcast_enable: bool = True
    consume_message_orderly: bool = False
    retry_queue_nums: int = 1
    retry_max_times: int = 16
    group_retry_policy: dict[str, Any] = field(default_factory=lambda: {"type": "CUSTOMIZED"})
    broker_id: int = 0
    which_broker_when_consume_slowly: int = 1
    notify_consumer_ids_changed_enable: bool = True
    group_sys_flag: int = 0
    consume_timeout_minute: int = 15
    subscription_data_set: list[Any] | None = None
    attributes: dict[str, str] = field(default_factory=dict)


class SubscriptionGroupList(Body):
    """Body of 225."""

    group_config_list: list[SubscriptionGroupConfig]


class SubscriptionGroupWrapper(Body):
    """Body of 201 and text of subscriptionGroup.json."""

    data_version: DataVersion = DataVersion()
    subscription_group_table: dict[str, SubscriptionGroupConfig] = field(default_factory=dict)
    forbidden_table: dict[str, dict[str, int]] = field(default_factory=dict)


class GroupForbidden(Body):
    """Answer to 353."""

    group: str
    topic: str
    readable: bool | None = None


class ConsumerOffsetWrapper(Body):
    """Body of 43 and text of consumerOffset.json: queue offsets by `topic@group` and queue id."""

    data_version: DataVersion | None = None
    offset_table: dict[str, dict[int, int]] = field(default_factory=dict)


class DelayOffsetWrapper(Body):
    """Body of 45 and text of delayOffset.json: queue offsets by delay level."""

    data_version: DataVersion | None = None
    offset_table: dict[int, int] = field(default_factory=dict)
