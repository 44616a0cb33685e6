"""What a consumer wants of a topic: everything, or the messages whose tags code is in a set.

The broker compares 32-bit hash codes in the consume queue, never tag texts; the client checks the texts again.
Source: reference "client_behaviour" section 12; `FilterAPI#buildSubscriptionData`.
"""

from __future__ import annotations

import attrs

from trmq.errors import RemoteProtocolError
from trmq.message import tags_code
from trmq.wire.bodies import SubscriptionData
from trmq.wire.codes import ResponseCode

ALL = "*"
TAG = "TAG"


@attrs.frozen
class Subscription:
    """`tags` is the set of accepted tags codes, None for all. `data` is what admin commands show."""

    topic: str
    version: int
    kind: str
    tags: frozenset[int] | None
    data: SubscriptionData


def from_heartbeat(data: SubscriptionData) -> Subscription:
    """The subscription a heartbeat announces. The codes are trusted as sent; texts without codes are hashed here."""
    kind = data.expression_type or TAG
    tags: frozenset[int] | None = None
    if kind == TAG and data.sub_string not in ("", ALL):
        codes = data.code_set or [tags_code(tag) for tag in data.tags_set]
        tags = frozenset(codes) or None
    return Subscription(data.topic, data.sub_version, kind, tags, data)


def parse(topic: str, expression: str | None, kind: str | None, version: int = 0) -> Subscription:
    """The subscription a pull carries itself (flag 4): `a || b`, `*` or nothing. Raises code 23 for an expression without a tag."""
    kind = kind or TAG
    if kind != TAG:
        data = SubscriptionData(topic=topic, sub_string=expression or "", sub_version=version, expression_type=kind)
        return Subscription(topic, version, kind, None, data)
    if expression is None or expression in ("", ALL):
        data = SubscriptionData(topic=topic, sub_string=ALL, sub_version=version, expression_type=TAG)
        return Subscription(topic, version, TAG, None, data)
    names = [name for name in (part.strip() for part in expression.split("||")) if name]
    if not names:
        complaint = f"parse the consumer's subscription failed: {expression!r} names no tag"
        raise RemoteProtocolError(complaint, ResponseCode.SUBSCRIPTION_PARSE_FAILED)
    codes = frozenset(tags_code(name) for name in names)
    data = SubscriptionData(
        topic=topic, sub_string=expression, sub_version=version, expression_type=TAG, tags_set=sorted(set(names)), code_set=sorted(codes),
    )
    return Subscription(topic, version, TAG, codes, data)
