"""What the indexes want to know about a record, computed from its properties; the same at append, in recovery and for a query.

Keys, in the order Apache writes them to its index: UNIQ_KEY, each token of KEYS split on one space, and `T#<TAGS>`.
The tags code is `String.hashCode` of TAGS, except in the schedule topic, where a unit carries the time of delivery.
Source: `IndexService#buildIndex`, `CommitLog#checkMessageAndReturnSize`; reference "store" sections 1.1 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trmq.message import DELAY, KEY_SEPARATOR, KEYS, SCHEDULE_TOPIC, TAGS, UNIQ_KEY, tags_code

TAGS_KEY_PREFIX = "T#"


def index_keys(properties: Mapping[str, str]) -> list[str]:
    """The keys a message is indexed under, without the topic."""
    keys = []
    unique = properties.get(UNIQ_KEY)
    if unique:
        keys.append(unique)
    text = properties.get(KEYS)
    if text:
        keys.extend(key for key in text.split(KEY_SEPARATOR) if key)
    tags = properties.get(TAGS)
    if tags:
        keys.append(TAGS_KEY_PREFIX + tags)
    return keys


def level_of(asked: int, count: int) -> int:
    """The delay level of a message that asks for one, where there are `count`: 0 is none, one above the last is taken as the last.

    pre: count >= 0
    post: implies(asked <= 0, __return__ == 0)
    post: implies(1 <= asked <= count, __return__ == asked)
    post: implies(asked > count, __return__ == count)
    """
    return max(0, min(asked, count))


def delivery_ms(properties: Mapping[str, str], store_ms: int, levels_ms: Sequence[int]) -> int | None:
    """When a record of the schedule topic is due (ms since the epoch), None without a usable DELAY. Levels count from 1;
    one above the last is taken as the last."""
    try:
        level = level_of(int(properties.get(DELAY, "0")), len(levels_ms))
    except ValueError:
        return None
    return store_ms + levels_ms[level - 1] if level else None


def unit_tags(topic: str, properties: Mapping[str, str], store_ms: int, levels_ms: Sequence[int]) -> int:
    """The 8-byte tags code of the record's queue unit."""
    if topic == SCHEDULE_TOPIC:
        due = delivery_ms(properties, store_ms, levels_ms)
        if due is not None:
            return due
    return tags_code(properties.get(TAGS))
