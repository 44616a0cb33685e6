"""Who is connected: producers and consumers by group, kept alive by heartbeats.

A client is its connection: one TCP connection is one member of every group it announces. It leaves when it says so,
when its connection ends, or when it has not been heard for 120 s. The registry is pure: connections are opaque
keys, times are seconds of one monotonic clock, and what has to be told to whom is returned, not sent.

The newest heartbeat wins: two members of one group with different subscriptions flap, as in Apache RocketMQ.
Source: reference "client_behaviour" section 2; `ConsumerManager`, `ConsumerGroupInfo`, `ProducerManager`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import attrs

from trmq.wire.bodies import ConsumerData

from .subscription import Subscription, from_heartbeat

EXPIRY_S = 120.0
BROADCASTING = "BROADCASTING"

C = TypeVar("C")


@attrs.define
class Member(Generic[C]):
    """One client in one group. `heard` is when its last heartbeat came."""

    conn: C
    client_id: str
    language: str
    version: int
    heard: float


@attrs.define
class ConsumerGroup(Generic[C]):
    """The consumers of one group and what they subscribe to."""

    name: str
    consume_type: str
    message_model: str
    consume_from_where: str
    members: dict[C, Member[C]] = attrs.Factory(dict)
    subscriptions: dict[str, Subscription] = attrs.Factory(dict)
    fingerprint: int = 0

    @property
    def client_ids(self) -> list[str]:
        return list(dict.fromkeys(member.client_id for member in self.members.values()))

    @property
    def broadcasting(self) -> bool:
        return self.message_model == BROADCASTING

    def subscribe(self, announced: Iterable[Subscription]) -> bool:
        """Take over what a heartbeat announces; True if a topic came or went."""
        wanted = {one.topic: one for one in announced}
        changed = wanted.keys() != self.subscriptions.keys()
        for topic, one in wanted.items():
            old = self.subscriptions.get(topic)
            if old is None or one.version > old.version:
                self.subscriptions[topic] = one
        for topic in self.subscriptions.keys() - wanted.keys():
            del self.subscriptions[topic]
        return changed


class Clients(Generic[C]):
    """Every producer and consumer connection of a broker."""

    def __init__(self, expiry_s: float = EXPIRY_S) -> None:
        self.expiry_s = expiry_s
        self.producers: dict[str, dict[C, Member[C]]] = {}
        self.consumers: dict[str, ConsumerGroup[C]] = {}
        self._groups: dict[C, set[tuple[str, str]]] = {}  # connection -> ("p" or "c", group)

    def register_producer(self, group: str, member: Member[C]) -> None:
        self.producers.setdefault(group, {})[member.conn] = member
        self._groups.setdefault(member.conn, set()).add(("p", group))

    def register_consumer(self, data: ConsumerData, member: Member[C], *, without_subscriptions: bool = False) -> bool:
        """Register `member` in the group of `data`; True if the group's members or topics changed."""
        group = self.consumers.get(data.group_name)
        if group is None:
            group = ConsumerGroup(
                data.group_name, data.consume_type, data.message_model, data.consume_from_where
            )
            self.consumers[data.group_name] = group
        group.consume_type = data.consume_type
        group.message_model = data.message_model
        group.consume_from_where = data.consume_from_where
        changed = member.conn not in group.members
        group.members[member.conn] = member
        self._groups.setdefault(member.conn, set()).add(("c", data.group_name))
        if not without_subscriptions:
            changed |= group.subscribe(from_heartbeat(one) for one in data.subscription_data_set)
        return changed

    def unregister_producer(self, group: str, conn: C) -> None:
        members = self.producers.get(group)
        if members and members.pop(conn, None) and not members:
            del self.producers[group]
        self._forget(conn, ("p", group))

    def unregister_consumer(self, group: str, conn: C) -> bool:
        """Remove a member; True if it was one, so that the others have to rebalance."""
        self._forget(conn, ("c", group))
        known = self.consumers.get(group)
        if known is None or known.members.pop(conn, None) is None:
            return False
        if not known.members:
            del self.consumers[group]
        return True

    def drop(self, conn: C) -> list[str]:
        """Remove a connection from everything; the consumer groups it left, sorted."""
        left = []
        for kind, group in sorted(self._groups.get(conn, ())):
            if kind == "p":
                self.unregister_producer(group, conn)
            elif self.unregister_consumer(group, conn):
                left.append(group)
        return left

    def silent(self, now: float) -> list[C]:
        """Connections that announced a group and have not been heard in any of their groups for `expiry_s`."""
        late = []
        for conn, groups in self._groups.items():
            heard = max((self._heard(kind, group, conn) for kind, group in groups), default=now)
            if now - heard > self.expiry_s:
                late.append(conn)
        return late

    def find_producer(self, client_id: str) -> Member[C] | None:
        """The newest member of any producer group with this client id (replies go there)."""
        found = [m for members in self.producers.values() for m in members.values() if m.client_id == client_id]
        return max(found, key=lambda member: member.heard, default=None)

    def find_consumer(self, group: str, client_id: str) -> Member[C] | None:
        known = self.consumers.get(group)
        if known is None:
            return None
        return next((member for member in known.members.values() if member.client_id == client_id), None)

    def groups_of_topic(self, topic: str) -> list[str]:
        """The consumer groups with a subscription to `topic`, sorted."""
        return sorted(name for name, group in self.consumers.items() if topic in group.subscriptions)

    def _heard(self, kind: str, group: str, conn: C) -> float:
        members = self.producers.get(group, {}) if kind == "p" else self.consumers[group].members
        return members[conn].heard

    def _forget(self, conn: C, entry: tuple[str, str]) -> None:
        groups = self._groups.get(conn)
        if groups is not None:
            groups.discard(entry)
            if not groups:
                del self._groups[conn]
