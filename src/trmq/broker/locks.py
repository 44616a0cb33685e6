"""Queue locks for orderly consumers: who may consume a queue of a group, for how long. Pure; times are ms of one monotonic clock.

A lock lives 60 s after it was last taken (`LIFE_MS`); its holder refreshes it every 20 s and gives it up by unlocking. An
expired lock may be taken over by anybody, an unexpired one only refreshed by its holder. Locks are per group: two groups
never see each other's. They live in memory only, as in Apache RocketMQ: after a restart everybody locks again.

Source: reference "client_behaviour" section 6; `RebalanceLockManager`.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from trmq.message import MessageQueue

LIFE_MS = 60_000


@attrs.define
class QueueLock:
    client_id: str
    taken_ms: int


class QueueLocks:
    """All locks of one broker."""

    def __init__(self, life_ms: int = LIFE_MS) -> None:
        self.life_ms = life_ms
        self._groups: dict[str, dict[MessageQueue, QueueLock]] = {}

    def lock(self, group: str, queues: Iterable[MessageQueue], client_id: str, now_ms: int) -> list[MessageQueue]:
        """Try to take each of `queues` for `client_id`; the ones it holds now, in the given order."""
        table = self._groups.setdefault(group, {})
        taken = []
        for queue in queues:
            held = table.get(queue)
            if held is None:
                table[queue] = QueueLock(client_id, now_ms)
            elif held.client_id == client_id or self._expired(held, now_ms):
                held.client_id, held.taken_ms = client_id, now_ms
            else:
                continue
            taken.append(queue)
        return taken

    def unlock(self, group: str, queues: Iterable[MessageQueue], client_id: str) -> None:
        """Give up the ones of `queues` that `client_id` holds; others stay as they are."""
        table = self._groups.get(group, {})
        for queue in queues:
            held = table.get(queue)
            if held is not None and held.client_id == client_id:
                del table[queue]
        if not table:
            self._groups.pop(group, None)

    def holder(self, group: str, queue: MessageQueue, now_ms: int) -> str | None:
        held = self._groups.get(group, {}).get(queue)
        return None if held is None or self._expired(held, now_ms) else held.client_id

    def any_held(self, group: str, now_ms: int) -> bool:
        """Whether the group holds an unexpired lock, which shows that it consumes in order."""
        return any(not self._expired(held, now_ms) for held in self._groups.get(group, {}).values())

    def _expired(self, held: QueueLock, now_ms: int) -> bool:
        return now_ms - held.taken_ms > self.life_ms
