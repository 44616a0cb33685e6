"""Queue locks: one holder per queue and group, refreshed by itself, taken over only after its life."""

from __future__ import annotations

from trmq.broker.locks import LIFE_MS, QueueLocks
from trmq.message import MessageQueue

Q0, Q1, Q2 = (MessageQueue("T", "b", i) for i in range(3))


def test_a_held_queue_is_refused_and_the_rest_of_the_batch_is_given() -> None:
    locks = QueueLocks()
    assert locks.lock("g", [Q0, Q1], "a", 0) == [Q0, Q1]
    assert locks.lock("g", [Q1, Q2], "b", 10) == [Q2]


def test_groups_do_not_see_each_others_locks() -> None:
    locks = QueueLocks()
    locks.lock("g", [Q0], "a", 0)
    assert locks.lock("h", [Q0], "b", 0) == [Q0]


def test_an_expired_lock_is_taken_over_but_one_exactly_at_its_life_is_not() -> None:
    locks = QueueLocks()
    locks.lock("g", [Q0], "a", 0)
    assert locks.lock("g", [Q0], "b", LIFE_MS) == []
    assert locks.lock("g", [Q0], "b", LIFE_MS + 1) == [Q0]
    assert locks.holder("g", Q0, LIFE_MS + 1) == "b"


def test_refreshing_prolongs_the_life() -> None:
    locks = QueueLocks()
    locks.lock("g", [Q0], "a", 0)
    assert locks.lock("g", [Q0], "a", LIFE_MS) == [Q0]
    assert locks.lock("g", [Q0], "b", LIFE_MS + 2) == []


def test_only_the_holder_can_unlock() -> None:
    locks = QueueLocks()
    locks.lock("g", [Q0], "a", 0)
    locks.unlock("g", [Q0, Q1], "b")
    assert locks.holder("g", Q0, 1) == "a"
    locks.unlock("g", [Q0], "a")
    assert locks.holder("g", Q0, 1) is None
    assert not locks.any_held("g", 1)


def test_any_held_counts_unexpired_locks_only() -> None:
    locks = QueueLocks()
    locks.lock("g", [Q0], "a", 0)
    assert locks.any_held("g", LIFE_MS)
    assert not locks.any_held("g", LIFE_MS + 1)
    assert not locks.any_held("other", 0)
