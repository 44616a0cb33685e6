"""The commit rule against a dumb second implementation, and the limits of the cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.client.messages import Received
from trmq.client.process_queue import CacheLimits, ProcessQueue
from trmq.message import MessageQueue

QUEUE = MessageQueue("T", "b", 0)
DEFAULT = CacheLimits()


def message(offset: int, size: int = 100) -> Received:
    return Received(QUEUE, offset, 0, b"x", b"", 0, 0, 0, b"\0" * 8, 0, b"\0" * 8, 0, size)


def filled(*offsets: int, next_offset: int, limits: CacheLimits = DEFAULT) -> tuple[ProcessQueue[Received], list[Received]]:
    queue: ProcessQueue[Received] = ProcessQueue(QUEUE, 0, limits)
    messages = [message(offset) for offset in offsets]
    queue.add(messages, next_offset)
    return queue, messages


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=12), st.data())
def test_commit_offset_is_the_smallest_unfinished(pulls: list[tuple[int, int]], data: st.DataObject) -> None:
    """`pulls` are (filtered-out entries, messages); between them messages are finished in any order."""
    queue: ProcessQueue[Received] = ProcessQueue(QUEUE, 0, CacheLimits())
    unfinished: dict[int, Received] = {}
    for gap, count in pulls:
        start = queue.pull_offset + gap
        new = [message(start + i) for i in range(count)]
        queue.add(new, start + count)
        unfinished |= {m.offset: m for m in new}
        for offset in data.draw(st.lists(st.sampled_from(sorted(unfinished)), unique=True) if unfinished else st.just([])):
            assert queue.finish(unfinished.pop(offset))
        assert queue.commit_offset == (min(unfinished) if unfinished else queue.pull_offset)
        assert (queue.count, queue.size) == (len(unfinished), 100 * len(unfinished))


def test_a_message_is_finished_once() -> None:
    queue, (m,) = filled(0, next_offset=1)
    assert queue.finish(m)
    assert not queue.finish(m)
    assert queue.size == 0


def test_a_dropped_queue_takes_no_decision_any_more() -> None:
    queue, (m,) = filled(0, next_offset=1)
    queue.drop()
    assert not queue.finish(m)
    assert queue.commit_offset == 0, "the next owner gets it again"


@pytest.mark.parametrize(
    ("limits", "full"),
    [
        (CacheLimits(messages_max=3, span_max=None), True), (CacheLimits(messages_max=4, span_max=None), False),
        (CacheLimits(bytes_max=300), True), (CacheLimits(bytes_max=301), False),
        (CacheLimits(span_max=9), True), (CacheLimits(span_max=10), False),
    ],
)
def test_limits(limits: CacheLimits, full: bool) -> None:
    queue, _ = filled(0, 1, 9, next_offset=10, limits=limits)
    assert queue.full is full


def test_room_is_told_once_and_only_when_there_is_some() -> None:
    queue, messages = filled(0, 1, 2, 3, next_offset=4, limits=CacheLimits(messages_max=3))
    told: list[int] = []
    queue.on_room = lambda: told.append(queue.count)
    queue.finish(messages[3])
    assert told == [], "three left: still full"
    queue.finish(messages[2])
    queue.finish(messages[1])
    assert told == [2]


def test_a_pause_ends_when_the_queue_is_lost() -> None:
    queue, _ = filled(0, next_offset=1)
    told: list[bool] = []
    queue.on_room = lambda: told.append(queue.dropped)
    queue.drop()
    assert told == [True]
