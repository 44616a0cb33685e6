"""Attributes of topics and groups: what a change says, and what may be said. Java writes `+name=value` to set and `-name` to remove.

A change that cannot be honoured is refused rather than stored: what a client reads in `attributes` is how the topic behaves.
Source: `AttributeParser`, `AttributeUtil`, `TopicAttributes`, `SubscriptionGroupAttributes`.
"""

from __future__ import annotations

from collections.abc import Mapping

from trmq.errors import RemoteProtocolError
from trmq.wire.codes import ResponseCode

MESSAGE_TYPES = frozenset({"UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION"})
TOPIC_VALUES: dict[str, frozenset[str] | None] = {
    "queue.type": frozenset({"SimpleCQ"}),
    "cleanup.policy": frozenset({"DELETE"}),
    "message.type": MESSAGE_TYPES,
    "reserve.time": frozenset({"-1"}),
}
"""Attributes of a topic and the values served here (None: any)."""
GROUP_VALUES: dict[str, frozenset[str] | None] = {"priority.factor": None}


def parse(text: str | None) -> dict[str, str]:
    """`+k=v,-k` as {"+k": "v", "-k": ""}. Raises `RemoteProtocolError` (INVALID_PARAMETER) naming the part that is wrong."""
    changes: dict[str, str] = {}
    for part in (text or "").split(","):
        name, mark, value = part.strip().partition("=")
        if not name:
            continue
        if name[0] != ("+" if mark else "-"):
            raise _refused(f"attribute {part!r} must be written +name=value to set or -name to remove")
        if name in changes:
            raise _refused(f"attribute {name[1:]} is given twice")
        changes[name] = value
    return changes


def changed(kept: Mapping[str, str], changes: Mapping[str, str], known: Mapping[str, frozenset[str] | None]) -> dict[str, str]:
    """`kept` with `changes` applied; names without a sign are set. Raises `RemoteProtocolError` for what isn't in `known`."""
    result = dict(kept)
    for signed, value in changes.items():
        name = signed.lstrip("+-")
        if name not in known:
            raise _refused(f"unsupported attribute {name}; there are {', '.join(sorted(known))}")
        if signed.startswith("-"):
            result.pop(name, None)
            continue
        values = known[name]
        if values is not None and value not in values:
            raise _refused(f"attribute {name}={value} is not supported; it may be {', '.join(sorted(values))}")
        result[name] = value
    return result


def _refused(sentence: str) -> RemoteProtocolError:
    return RemoteProtocolError(sentence, ResponseCode.INVALID_PARAMETER)
