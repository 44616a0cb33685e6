"""What a client can know of a run, in the words of `specs.history`, and of each message its story.

Everything is told in the order in which it was seen here; nothing is taken from a broker's own word except who it says to be.
"""

from __future__ import annotations

from itertools import pairwise

import attrs
import trio
from specs.history import (
    ClusterEvent,
    Given,
    Gone,
    Heard,
    Outcome,
    Paused,
    Rebalanced,
    Tried,
)

from trmq.client import SendResult, SendStatus
from trmq.message import MessageQueue, decode_message_id

OK, FAILED, UNKNOWN = "OK", "FAILED", "UNKNOWN"


@attrs.define
class Attempt:
    """One request, to the member at `node`. `status`: what was answered, "" as long as nothing was."""

    at: float
    node: str
    group: str
    queue_id: int
    status: str = ""
    ended: float = 0.0
    offset: int = -1
    problem: str = ""


@attrs.define
class Story:
    """What happened to one message."""

    id: str
    key: str
    """Its UNIQ_KEY."""
    began: float
    attempts: list[Attempt] = attrs.field(factory=list)
    outcome: str = ""
    ended: float = 0.0
    given: list[tuple[float, str, str, int, int]] = attrs.field(factory=list)
    """(when, to whom, broker group, queue id, offset)."""


class Observer:
    """One per run; times are seconds since it was made."""

    def __init__(self, topic: str, consumer_group: str) -> None:
        self.topic, self.consumer_group = topic, consumer_group
        self.start = trio.current_time()
        self.events: list[ClusterEvent] = []
        self.stories: dict[str, Story] = {}
        self.acks: list[float] = []
        self.had: set[str] = set()
        self.addresses: set[str] = set()
        """Of all brokers that were seen."""
        self.news = trio.lowlevel.ParkingLot()

    @property
    def now(self) -> float:
        return trio.current_time() - self.start

    # --- sends

    def begins(self, id: str, key: str) -> Story:
        story = self.stories[id] = Story(id, key, self.now)
        return story

    def tries(self, story: Story, producer: str, queue: MessageQueue, node: str) -> Attempt:
        attempt = Attempt(self.now, node, queue.broker_name, queue.queue_id)
        story.attempts.append(attempt)
        self.events.append(Tried(story.id, producer, queue.broker_name, queue.queue_id, len(story.attempts), self.topic, chosen=True,
                                 at=attempt.at))  # fmt: skip
        return attempt

    def hears(self, story: Story, attempt: Attempt, result: SendResult) -> None:
        """An answer that says: stored. That is also the end of the story's sends."""
        ip, port = decode_message_id(result.offset_message_id)[0] if result.offset_message_id else ("", 0)
        if (stored_by := f"{ip}:{port}") in self.addresses:
            attempt.node = stored_by  # a route may be a moment old: the answer names who has it
        status = OK if result.status is SendStatus.SEND_OK else result.status.name
        attempt.status, attempt.ended, attempt.offset = status, self.now, result.offset
        self.events.append(Heard(story.id, attempt.node, status, self.now))
        story.outcome, story.ended = status, self.now
        place = (self.topic, result.queue.queue_id)
        self.events.append(Outcome(story.id, status, story.began, True, self.now, result.queue.broker_name, place, result.offset))
        self.acks.append(self.now)

    def fails(self, attempt: Attempt, problem: str, *, unknown: bool) -> None:
        attempt.status, attempt.ended, attempt.problem = UNKNOWN if unknown else FAILED, self.now, problem

    def gives_up(self, story: Story, *, unknown: bool) -> None:
        story.outcome, story.ended = UNKNOWN if unknown else FAILED, self.now
        self.events.append(Outcome(story.id, story.outcome, story.began, True, self.now))

    # --- deliveries

    def given(self, consumer: str, id: str, queue: MessageQueue, offset: int) -> None:
        self.had.add(id)
        if (story := self.stories.get(id)) is not None:
            story.given.append((self.now, consumer, queue.broker_name, queue.queue_id, offset))
        place = (queue.topic, queue.queue_id)
        self.events.append(Given(consumer, id, place, queue.broker_name, offset, self.now, self.consumer_group))
        self.news.unpark_all()

    def rebalances(self) -> None:
        self.events.append(Rebalanced(self.consumer_group, self.now))

    # --- faults

    def insert(self, event: Gone | Paused, index: int | None) -> None:
        """A fault is seen after it was caused: it is told at the place where its cause stands."""
        self.events.insert(len(self.events) if index is None else index, event)

    def last_ack(self) -> float:
        return self.acks[-1] if self.acks else 0.0

    def longest_gap(self, until: float) -> tuple[float, float]:
        """(seconds, when it began): the longest time in which no send was answered as stored, from the first answer on."""
        times = [*self.acks, until]
        gaps = [(later - earlier, earlier) for earlier, later in pairwise(times)]
        return max(gaps, default=(0.0, 0.0))
