"""What happened to every message of a demonstration: sent, acknowledged, received, lost, duplicated.

Plain data; moments are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import attrs

OK = "SEND_OK"
SHOWN_MAX = 20


@attrs.frozen
class Ack:
    """A send's end: `status` of a stored message and the `group` that has it."""

    at: float
    status: str
    group: str


@attrs.frozen
class Receipt:
    """One delivery: from `group`, `served_by` the member at this address."""

    at: float
    number: int
    group: str
    served_by: str


@attrs.define
class Account:
    """Messages are numbered from 0 in the order in which they are sent."""

    sent: int = 0
    acks: dict[int, Ack] = attrs.field(factory=dict)
    refused: set[int] = attrs.field(factory=set)
    unknown: set[int] = attrs.field(factory=set)
    receipts: list[Receipt] = attrs.field(factory=list)
    _copies: Counter[int] = attrs.field(factory=Counter)

    def next(self) -> int:
        self.sent += 1
        return self.sent - 1

    def acked(self, number: int, at: float, status: str, group: str) -> None:
        self.acks[number] = Ack(at, status, group)

    def failed(self, number: int, *, unknown: bool) -> None:
        (self.unknown if unknown else self.refused).add(number)

    def received(self, number: int, at: float, group: str, served_by: str) -> None:
        self.receipts.append(Receipt(at, number, group, served_by))
        self._copies[number] += 1

    @property
    def lost(self) -> list[int]:
        """Acknowledged, with whatever status of a stored message, and not received (yet)."""
        return sorted(number for number in self.acks if number not in self._copies)

    @property
    def open(self) -> int:
        """Sends whose end nobody knows yet."""
        return self.sent - len(self.acks) - len(self.refused) - len(self.unknown)

    @property
    def received_count(self) -> int:
        return len(self._copies)

    @property
    def duplicated(self) -> int:
        """Deliveries beyond the first of each message."""
        return len(self.receipts) - len(self._copies)

    def acks_of(self, group: str, since: float = 0.0) -> Iterator[Ack]:
        """Those at or after `since`, the latest first."""
        for ack in reversed(self.acks.values()):
            if ack.at < since:
                return
            if ack.group == group:
                yield ack

    def longest_pause(self, begin: float, end: float) -> float:
        """The longest time between two acknowledgements within these limits, which count as ones."""
        times = sorted([begin, *(ack.at for ack in self.acks.values() if begin < ack.at < end), end])
        return max(later - earlier for earlier, later in pairwise(times))

    @property
    def sent_again(self) -> int:
        """Of those, the ones that another group had already: its answer was lost, so the producer sent the message once more."""
        groups: dict[int, set[str]] = {}
        for receipt in self.receipts:
            groups.setdefault(receipt.number, set()).add(receipt.group)
        return sum(len(found) - 1 for found in groups.values())

    def to_dict(self) -> dict[str, Any]:
        """The final account as `--json` prints it."""
        lost = self.lost
        return {
            "sent": self.sent, "acked": len(self.acks), "statuses": dict(sorted(Counter(ack.status for ack in self.acks.values()).items())),
            "acked_by_group": dict(sorted(Counter(ack.group for ack in self.acks.values()).items())),
            "refused": len(self.refused), "unknown": len(self.unknown),
            "unknown_but_received": sum(number in self._copies for number in self.unknown), "received": self.received_count,
            "lost": len(lost), "lost_messages": lost[:SHOWN_MAX], "duplicated": self.duplicated,
            "duplicated_across_groups": self.sent_again,
            "received_from": dict(sorted(Counter(receipt.served_by for receipt in self.receipts).items())),
        }  # fmt: skip


def summary(account: Account, names: dict[str, str]) -> list[str]:
    """The final account for people. `names`: what to call an address."""
    found = account.to_dict()
    others = {status: count for status, count in found["statuses"].items() if status != OK}
    odd = "".join(f", {count:,} {status} (stored, but not on a slave in time)" for status, count in others.items())
    served = ", ".join(f"{names.get(address, address)} {count:,}" for address, count in found["received_from"].items())
    groups = ", ".join(f"{group} {count:,}" for group, count in found["acked_by_group"].items())
    lines = [
        f"sent        {found['sent']:,}",
        f"acked       {found['acked']:,}: {found['statuses'].get(OK, 0):,} {OK}{odd}; by group: {groups}",
    ]
    if found["refused"] or found["unknown"]:
        what = f"{found['refused']:,} certainly not stored, {found['unknown']:,} unknown ({found['unknown_but_received']:,} were received)"
        lines.append(f"failed      {what}")
    lines += [
        f"received    {found['received']:,}; served by: {served}",
        f"lost        {found['lost']:,}" + (f": messages {', '.join(map(str, found['lost_messages']))}" if found["lost"] else ""),
        f"duplicated  {found['duplicated']:,}" + duplicates(found["duplicated_across_groups"]),
    ]
    return lines


def duplicates(across: int) -> str:
    """Why: "" if there is nothing to explain."""
    return f": {across:,} stored by group a, whose answer died with its master, and sent again to group b" if across else ""
