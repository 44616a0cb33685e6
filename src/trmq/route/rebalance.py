"""How the members of a consumer group share the queues of a topic, without talking to each other.

Every member runs the same function over the same sorted queues and the same sorted member ids and takes what falls to it, so
the shares fit together as long as all see the same two lists. A strategy is `(queues, members, me) -> my queues`, where both
lists are sorted and without repetition; who is not in `members` owns nothing (it gives up what it has: its heartbeat has not
arrived yet, or it left).

Source: `org.apache.rocketmq.client.consumer.rebalance` and `common.consistenthash`, 5.4.0. Upholds P-REB-1.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import TypeAlias

from trmq.message import MessageQueue

Strategy: TypeAlias = Callable[[Sequence[MessageQueue], Sequence[str], str], list[MessageQueue]]

VIRTUAL_NODES = 10
ROOM_SEPARATOR = "@"


def average(queues: Sequence[MessageQueue], members: Sequence[str], me: str) -> list[MessageQueue]:
    """Contiguous ranges, the first members one longer if it does not come out even. The default of every client.

    Source: `AllocateMessageQueueAveragely`.
    """
    if me not in members:
        return []
    index = members.index(me)
    share, rest = divmod(len(queues), len(members))
    start = index * share + min(index, rest)
    return list(queues[start : start + share + (index < rest)])


def circular(queues: Sequence[MessageQueue], members: Sequence[str], me: str) -> list[MessageQueue]:
    """Dealt out one by one, as cards are. Source: `AllocateMessageQueueAveragelyByCircle`."""
    return list(queues[members.index(me) :: len(members)]) if me in members else []


def by_config(mine: Collection[MessageQueue]) -> Strategy:
    """Exactly the queues of `mine` that exist. Owned once only if the members' lists are a partition: nobody checks that.

    Source: `AllocateMessageQueueByConfig`.
    """

    def strategy(queues: Sequence[MessageQueue], members: Sequence[str], me: str) -> list[MessageQueue]:
        return [queue for queue in queues if queue in mine]

    return strategy


def by_machine_room(rooms: Collection[str]) -> Strategy:
    """Queues of the given machine rooms only, where a broker is named `room@name`; equal shares, the rest dealt out in turn.

    Queues elsewhere are owned by nobody of the group. Source: `AllocateMessageQueueByMachineRoom`.
    """

    def strategy(queues: Sequence[MessageQueue], members: Sequence[str], me: str) -> list[MessageQueue]:
        if me not in members:
            return []
        inside = [queue for queue in queues if _room(queue.broker_name) in rooms]
        index = members.index(me)
        share, rest = divmod(len(inside), len(members))
        mine = inside[index * share : (index + 1) * share]
        if index < rest:
            mine.append(inside[share * len(members) + index])
        return mine

    return strategy


def _room(broker_name: str) -> str | None:
    parts = broker_name.split(ROOM_SEPARATOR)
    return parts[0] if len(parts) == 2 and all(parts) else None


def nearby(inner: Strategy, broker_room: Callable[[MessageQueue], str], member_room: Callable[[str], str]) -> Strategy:
    """Each room's queues among the members of that room by `inner`; rooms without members are shared by all.

    Source: `AllocateMachineRoomNearby`.
    """

    def strategy(queues: Sequence[MessageQueue], members: Sequence[str], me: str) -> list[MessageQueue]:
        if me not in members:
            return []
        by_room: dict[str, list[MessageQueue]] = {}
        for queue in queues:
            by_room.setdefault(broker_room(queue), []).append(queue)
        members_of: dict[str, list[str]] = {}
        for member in members:
            members_of.setdefault(member_room(member), []).append(member)
        home = member_room(me)
        mine = inner(by_room.pop(home, []), members_of[home], me)
        for room in sorted(by_room):
            if room not in members_of:
                mine += inner(by_room[room], members, me)
        return mine

    return strategy


def consistent_hash(queues: Sequence[MessageQueue], members: Sequence[str], me: str) -> list[MessageQueue]:
    """Queues to the next point of a ring that holds ten points per member: few move when one member comes or goes.

    Source: `AllocateMessageQueueConsistentHash`, `ConsistentHashRouter`.
    """
    if me not in members:
        return []
    points, owners = _ring(tuple(members), VIRTUAL_NODES)
    return [queue for queue in queues if owners[bisect_left(points, _queue_point(queue)) % len(points)] == me]


@lru_cache(maxsize=16)
def _ring(members: tuple[str, ...], virtual_nodes: int) -> tuple[list[int], list[str]]:
    """Sorted points and their owners; of two equal points the later member's stays, as in Java's map."""
    ring = {_point(f"{member}-{replica}"): member for member in members for replica in range(virtual_nodes)}
    points = sorted(ring)
    return points, [ring[point] for point in points]


def _queue_point(queue: MessageQueue) -> int:
    return _point(f"MessageQueue [topic={queue.topic}, brokerName={queue.broker_name}, queueId={queue.queue_id}]")


def _point(key: str) -> int:
    """The first four bytes of the MD5, unsigned."""
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()[:4], "big")


STRATEGIES: dict[str, Strategy] = {
    "AVG": average,
    "AVG_BY_CIRCLE": circular,
    "CONSISTENT_HASH": consistent_hash,
}
"""Strategies that need nothing else, under the names clients put into QUERY_ASSIGNMENT."""
