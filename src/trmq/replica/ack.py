"""Who holds how much of the master's log, and how many holders a record needs before its producer hears SEND_OK.

A *holder* is the master itself or a slave that reported an offset at or beyond the record's end. Only distinct slaves count: one that
announced itself counts once under its broker id. Peers that cannot say who they are (Apache's slaves) count per address: of one ip at
most as many as the group has slaves registered there, at least one; of several where one may count, the furthest; of more than may count,
the ones that are least far, so that one slave on two connections never passes for two.

Offsets are physical ends, exclusive. Source: reference "ha" section 2.2; `CommitLog#calcNeedAckNums`, `GroupTransferService`; design D5.
Upholds P-ACK-1, P-ACK-2, P-ACK-6, P-ACK-7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

ALL = 0
"""`inSyncReplicas=all`."""
EVERYTHING = (1 << 63) - 1


def needed(in_sync_replicas: int, registered: int) -> int:
    """How many holders a record needs under SYNC_MASTER, the master included. `registered` counts the group's slaves.

    pre: in_sync_replicas >= 0 and registered >= 0
    post: __return__ >= 1
    post: implies(in_sync_replicas > 0, __return__ == in_sync_replicas)
    post: implies(in_sync_replicas == 0, __return__ > registered and __return__ >= 2)
    """
    assert in_sync_replicas >= 0
    assert registered >= 0
    if in_sync_replicas == ALL:
        return max(2, 1 + registered)
    return in_sync_replicas


def lowered(need: int, in_sync: int, minimum: int) -> int:
    """`need` under enableAutoInSyncReplicas: no more than are in sync now, but never less than minInSyncReplicas asks.

    pre: need >= 1 and in_sync >= 1 and minimum >= 1
    post: __return__ >= min(need, minimum)
    post: __return__ <= max(need, minimum)
    """
    return max(min(need, in_sync), minimum)


def held(acks: Sequence[int], need: int) -> int:
    """The end up to which `need` holders hold everything, the master being one; -1 if there are too few slaves.

    pre: 1 <= need <= 4 and len(acks) <= 3
    post: implies(need >= 2 and len(acks) >= need - 1, sum(1 for a in acks if a >= __return__) >= need - 1)
    post: implies(need >= 2 and len(acks) < need - 1, __return__ == -1)
    """
    if need <= 1:
        return EVERYTHING
    if need == 2:  # every message of the usual deployment
        return max(acks, default=-1)
    if len(acks) < need - 1:
        return -1
    return sorted(acks, reverse=True)[need - 2]


def counted(acks: Sequence[int], allowed: int) -> Sequence[int]:
    """Of the peers of one address that cannot say who they are, the ones that count.

    pre: 1 <= allowed <= 3 and len(acks) <= 3
    post: len(__return__) <= allowed
    """
    assert allowed >= 1
    if len(acks) <= allowed:
        return acks
    if allowed == 1:
        return [max(acks)]
    return sorted(acks)[:allowed]


class Holders:
    """The slaves that are connected now. Announced ones under their broker id, others under their ip and a number of the connection."""

    __slots__ = ("_announced", "_marks", "_strangers", "allowed")

    def __init__(self) -> None:
        self._announced: dict[int, int] = {}
        self._strangers: dict[str, dict[int, int]] = {}
        self.allowed: Mapping[str, int] = {}
        """ip -> how many slaves of the group are registered there."""
        self._marks: list[int] | None = None

    def report(self, broker_id: int | None, ip: str, number: int, offset: int) -> None:
        """A slave is here (offset -1: it has not said how far it is) or has moved on to `offset`."""
        if broker_id is not None:
            self._announced[broker_id] = offset
        else:
            self._strangers.setdefault(ip, {})[number] = offset
        self._marks = None

    def leave(self, broker_id: int | None, ip: str, number: int) -> None:
        if broker_id is not None:
            self._announced.pop(broker_id, None)
        elif ip in self._strangers:
            self._strangers[ip].pop(number, None)
            if not self._strangers[ip]:
                del self._strangers[ip]
        self._marks = None

    def allow(self, registered: Mapping[str, int]) -> None:
        """How many slaves of the group are registered at each ip (those that announced themselves left out)."""
        self.allowed = registered
        self._marks = None

    def acks(self) -> Sequence[int]:
        """The reported offset of each slave that counts."""
        if self._marks is None:
            self._marks = [offset for offset in self._announced.values() if offset >= 0]
            for ip, peers in self._strangers.items():
                self._marks += counted([offset for offset in peers.values() if offset >= 0], max(1, self.allowed.get(ip, 1)))
        return self._marks

    def held(self, need: int) -> int:
        """See `held`."""
        return held(self.acks(), need)

    def in_sync(self, max_phy: int, gap_max: int) -> int:
        """How many copies are close to the log's end, the master's included: closer than `gap_max` bytes."""
        return 1 + sum(max_phy - offset < gap_max for offset in self.acks())

    def surplus(self) -> Iterable[tuple[str, int, int]]:
        """(ip, connections, how many of them count) where more are connected than count."""
        for ip, peers in self._strangers.items():
            allowed = max(1, self.allowed.get(ip, 1))
            if len(peers) > allowed:
                yield ip, len(peers), allowed

    @property
    def connected(self) -> int:
        """Slaves that are connected and have said how far they are."""
        return len(self.acks())

    @property
    def present(self) -> int:
        """Distinct slaves connected, whether they have said anything or not."""
        return len(self._announced) + sum(min(len(peers), max(1, self.allowed.get(ip, 1))) for ip, peers in self._strangers.items())
