"""Subscription groups: how a consumer group may consume. Persisted as Apache's config/subscriptionGroup.json.

A group that nobody created comes into being with defaults at its first heartbeat or pull, unless
autoCreateSubscriptionGroup is off. Source: reference "store" section 9; `SubscriptionGroupManager`.
"""

from __future__ import annotations

from collections.abc import Callable

from trmq.wire.bodies import DataVersion, SubscriptionGroupConfig, SubscriptionGroupWrapper, decode_body, encode_body
from trmq.wire.names import check_group

from .version import next_version

PATH = "config/subscriptionGroup.json"
SYSTEM_GROUPS = ("TOOLS_CONSUMER", "FILTERSRV_CONSUMER", "SELF_TEST_C_GROUP", "CID_RMQ_SYS_TRANS")
BROADCAST_GROUPS = ("CID_ONS-HTTP-PROXY", "CID_ONSAPI_PULL", "CID_ONSAPI_PERMISSION", "CID_ONSAPI_OWNER")
READ_BIT = 1 << 2
"""The bit of `forbiddenTable` that forbids reading (`PermName.INDEX_PERM_READ`)."""


class GroupTable:
    """The groups of one broker. `changed` is called after every change, to have it persisted."""

    def __init__(self, auto_create: bool, now_ms: Callable[[], int], changed: Callable[[], None]) -> None:
        self.auto_create = auto_create
        self._now_ms = now_ms
        self._changed = changed
        self.version = DataVersion(counter=0, state_version=0, timestamp=now_ms())
        self.forbidden: dict[str, dict[str, int]] = {}
        self.table: dict[str, SubscriptionGroupConfig] = {}
        for name in SYSTEM_GROUPS + BROADCAST_GROUPS:
            self.table[name] = SubscriptionGroupConfig(group_name=name)

    def get(self, group: str) -> SubscriptionGroupConfig | None:
        return self.table.get(group)

    def find(self, group: str) -> SubscriptionGroupConfig | None:
        """The group, created with defaults if that is allowed; None if it neither exists nor may be created."""
        found = self.table.get(group)
        if found is not None:
            return found
        if not self.auto_create and not group.startswith("CID_RMQ_SYS_"):
            return None
        if check_group(group) is not None:
            return None
        config = SubscriptionGroupConfig(group_name=group)
        self.update(config)
        return config

    def update(self, config: SubscriptionGroupConfig) -> None:
        self.table[config.group_name] = config
        self._next()

    def delete(self, group: str) -> bool:
        known = self.table.pop(group, None) is not None
        self.forbidden.pop(group, None)
        if known:
            self._next()
        return known

    def forbids_reading(self, group: str, topic: str) -> bool:
        """Whether an administrator forbade the group to read the topic."""
        return bool(self.forbidden) and bool(self.forbidden.get(group, {}).get(topic, 0) & READ_BIT)

    def forbid_reading(self, group: str, topic: str, forbidden: bool) -> None:
        bits = self.forbidden.get(group, {}).get(topic, 0)
        self.forbidden.setdefault(group, {})[topic] = bits | READ_BIT if forbidden else bits & ~READ_BIT
        self._next()

    def load(self, data: bytes | None) -> None:
        """Take over the text of the file (None: there is none). Raises `RemoteProtocolError` naming what is wrong."""
        if data is None:
            return
        found = decode_body(data, SubscriptionGroupWrapper)
        self.table.update(found.subscription_group_table)
        self.forbidden = dict(found.forbidden_table)
        self.version = found.data_version

    def replace(self, found: SubscriptionGroupWrapper) -> None:
        """A slave's: have what the master has, in one step; groups that only this slave has met stay until then."""
        own = {name: self.table[name] for name in SYSTEM_GROUPS + BROADCAST_GROUPS if name in self.table}
        self.table = own | found.subscription_group_table
        self.forbidden = dict(found.forbidden_table)
        self.version = found.data_version
        self._changed()

    def encode(self) -> bytes:
        """The file's text, in Apache's shape."""
        return encode_body(self.wrapper())

    def wrapper(self) -> SubscriptionGroupWrapper:
        return SubscriptionGroupWrapper(data_version=self.version, subscription_group_table=self.table, forbidden_table=self.forbidden)

    def _next(self) -> None:
        self.version = next_version(self.version, self._now_ms())
        self._changed()
