"""A consumer's settings, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import attrs

from trmq.errors import ConfigError
from trmq.message import RETRY_PREFIX
from trmq.wire.names import check_topic

from .filters import Subscription, subscribe
from .process_queue import CacheLimits
from .producer import check_group_name


class FromWhere(Enum):
    """Where a group starts that has no offset yet. A young queue starts at its beginning even with LAST, as the broker decides."""

    LAST = "CONSUME_FROM_LAST_OFFSET"
    FIRST = "CONSUME_FROM_FIRST_OFFSET"
    TIMESTAMP = "CONSUME_FROM_TIMESTAMP"


@attrs.frozen(kw_only=True)
class ConsumerOptions:
    """See `Client.consumer` for the meaning of each."""

    group: str
    subscriptions: tuple[Subscription, ...]
    orderly: bool = False
    broadcasting: bool = False
    from_where: FromWhere = FromWhere.LAST
    from_ms: int = 0
    strategy: str = "average"
    pull_batch: int = 32
    limits: CacheLimits = attrs.field(factory=CacheLimits)
    max_reconsume_times: int | None = None
    raise_errors: bool = False
    commit_interval: float = 5.0
    drain_timeout: float = 5.0

    @property
    def retry_topic(self) -> str:
        return RETRY_PREFIX + self.group

    @property
    def reconsume_limit(self) -> int:
        """Deliveries after the first before a message becomes a dead letter, as sent to the broker."""
        return 16 if self.max_reconsume_times is None else self.max_reconsume_times


def subscriptions_of(topic: str | Sequence[str] | Mapping[str, str], expression: str, version: int) -> tuple[Subscription, ...]:
    """`topic`: a name, several names, or a mapping of name to its own filter."""
    wanted = {topic: expression} if isinstance(topic, str) else topic if isinstance(topic, Mapping) else dict.fromkeys(topic, expression)
    if not wanted:
        raise ConfigError("a consumer needs at least one topic")
    for name in wanted:
        if (problem := check_topic(name)) is not None:
            raise ConfigError(problem)
    return tuple(subscribe(name, text, version) for name, text in wanted.items())


def check(options: ConsumerOptions) -> ConsumerOptions:
    """Raises `ConfigError` naming the setting that cannot work."""
    check_group_name(options.group)
    if options.orderly and options.broadcasting:
        raise ConfigError("orderly and broadcasting exclude each other: without a queue lock there is no order to keep")
    if not 1 <= options.pull_batch <= 1024:
        raise ConfigError(f"pull_batch={options.pull_batch}: must be between 1 and 1024")
    if options.limits.messages_max < 1 or options.limits.bytes_max < 1:
        raise ConfigError("prefetch_messages and prefetch_bytes must be at least 1")
    if options.max_reconsume_times is not None and options.max_reconsume_times < 0:
        raise ConfigError(f"max_reconsume_times={options.max_reconsume_times}: must be 0 or more, or None for the default")
    return options
