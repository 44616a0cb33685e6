"""Tag filters: "a || b", "*" for all. The broker compares hashes; the client compares the strings again.

Source: `FilterAPI`; reference "client behaviour" section 12.
"""

from __future__ import annotations

from typing import Any

import attrs

from trmq.errors import ConfigError
from trmq.message import tags_code


@attrs.frozen
class Subscription:
    """One topic a group wants. `tags` is empty for everything; `version` (ms) orders changes of one client."""

    topic: str
    expression: str
    tags: frozenset[str]
    version: int

    def wants(self, tag: str | None) -> bool:
        return not self.tags or tag in self.tags

    def to_wire(self) -> dict[str, Any]:
        """SubscriptionData of a heartbeat."""
        return {
            "classFilterMode": False, "codeSet": sorted(tags_code(tag) for tag in self.tags), "expressionType": "TAG",
            "subString": self.expression, "subVersion": self.version, "tagsSet": sorted(self.tags), "topic": self.topic,
        }


def subscribe(topic: str, expression: str, version: int) -> Subscription:
    """Read a tag expression. Raises `ConfigError` if a tag between `||` is missing."""
    text = expression.strip()
    if text in ("", "*"):
        return Subscription(topic, "*", frozenset(), version)
    tags = [tag.strip() for tag in text.split("||")]
    if not all(tags):
        raise ConfigError(f"filter {expression!r}: a tag is missing beside '||'; write it like 'paid || refunded', or '*' for all")
    return Subscription(topic, " || ".join(tags), frozenset(tags), version)
