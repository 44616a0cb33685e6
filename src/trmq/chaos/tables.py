"""A broker's tables, as anybody who asks is shown them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trmq.wire.codes import RequestCode

TABLES = {
    "topics": RequestCode.GET_ALL_TOPIC_CONFIG, "groups": RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG,
    "offsets": RequestCode.GET_ALL_CONSUMER_OFFSET, "delays": RequestCode.GET_ALL_DELAY_OFFSET,
}
MEMBERS = {"topics": "topicConfigTable", "groups": "subscriptionGroupTable", "offsets": "offsetTable", "delays": "offsetTable"}


def flat(table: Mapping[Any, Any]) -> dict[str, str]:
    """A table as key -> text; of a table in a table each entry by itself."""
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and all(isinstance(one, int) for one in value.values()):
            found |= {f"{key}/{inner}": str(one) for inner, one in value.items()}
        else:
            found[str(key)] = str(sorted(value.items()) if isinstance(value, Mapping) else value)
    return found
