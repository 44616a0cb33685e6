"""# Delayed delivery: a message that comes later

Seed `003_c790c013a3e4f038.txt`, 消息可靠性, asks of every message: "在这四种情况下能保证消息不丢" (in the four cases that one can
recover from, none is lost); a message that waits is one. The levels are `messageDelayLevel` of 5.4.0: "1s 5s 10s 30s 1m 2m 3m 4m 5m
6m 7m 8m 9m 10m 20m 30m 1h 2h".

A message with a level is stored apart, and when its time has come a copy goes to its topic. Brokers note how far they are; a broker that
dies may deliver the last of them again, but leaves none out. Sources: `ScheduleMessageService` of 5.4.0; reference P-DLY-1 to P-DLY-3,
"client behaviour" section 8.

**Not promised**: a delay of anything but a level; the order of messages of different levels; that one which was due while its broker was
away comes sooner than its consumers have found the broker again; that none comes twice after a crash (P-DUP-R4); anything about a broker
whose wall clock is set forward: it delivers by that clock.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .history import (
    Assigned,
    Delayed,
    Eased,
    Event,
    Found,
    Given,
    Gone,
    Hindered,
    History,
    Joined,
    Left,
    Paused,
    Resumed,
    SentBack,
    Serving,
    Told,
)
from .rebalance import Fleet

Witness = Iterator[tuple[object, bool]]
NONE_LOST = "seed 003_c790c013a3e4f038.txt, 消息可靠性: 在这四种情况下能保证消息不丢"
SCHEDULE = "org.apache.rocketmq.broker.schedule.ScheduleMessageService"
LEVELS_S = (1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200)
FIRST_RETRY = 3
PUNCTUAL_S, FINDS_S = 2.0, 45.0
"""When due; and what consumers take to find a broker that returned, or each other's queues."""
CLOCK_S = 0.002
"""Wall clocks count milliseconds."""


def delay_s(level: int) -> float:
    return float(LEVELS_S[min(level, len(LEVELS_S)) - 1])


def due_at(event: SentBack) -> float:
    """When a message that was given back is due again; a dead letter is at once."""
    return event.at if event.level < 0 else event.at + delay_s(event.level or FIRST_RETRY + event.times)


class Waiting:
    """Model: delayed messages with the time at which they are due, and since when nothing hinders their delivery."""

    def __init__(self) -> None:
        self.due: dict[str, float] = {}
        self.lives: dict[str, set[str]] = {}  # message → the brokers that read it, in their lives since
        self.smooth = 0.0
        self.fleet = Fleet()

    def step(self, event: Event) -> None:
        self.fleet.step(event)
        match event:
            case Delayed(id=id):
                self.due.setdefault(id, event.at + delay_s(event.level))
                self.lives.setdefault(id, set()).add(event.node)
            case Joined() | Left() | Assigned() | Serving() | Gone() | Paused() | Resumed() | Hindered() | Eased():
                self.smooth = float("inf") if self.fleet.troubled else event.at + FINDS_S


def arrivals(history: History) -> Iterator[tuple[Given, Waiting]]:
    """The first time that each group is given a delayed message."""
    waiting = Waiting()
    seen: set[tuple[str, str]] = set()
    for event in history.events:
        if isinstance(event, Given) and event.id in waiting.due and not event.queue[0].startswith("%"):
            if (event.consumer_group, event.id) not in seen:
                yield event, waiting
            seen.add((event.consumer_group, event.id))
        waiting.step(event)


@clause("P-DLY-1", "No delayed message is given to anybody before its delay has passed.", source=SCHEDULE, mutants=("delay_too_early",),
        upstream="after the clock was set back it delivers at once")
def never_early(history: History) -> Witness:
    for event, waiting in arrivals(history):
        yield event, event.at >= waiting.due[event.id] - CLOCK_S


@clause("P-DLY-2", "With its broker up and its consumers settled a delayed message is given within 2 s of its time; else 45 s after that.",
        source=SCHEDULE, kind="eventually", mutants=("delay_too_late",))
def punctual(history: History) -> Witness:
    for event, waiting in arrivals(history):
        due = waiting.due[event.id]
        yield event, event.at - (due if waiting.smooth <= due else max(due, waiting.smooth)) <= PUNCTUAL_S


@clause("P-DLY-3", "Whatever dies meanwhile, every acknowledged delayed message is delivered.", source=NONE_LOST, kind="eventually",
        mutants=("delay_progress_runs_ahead",))
def none_is_left_waiting(history: History) -> Witness:
    waiting = Waiting()
    acked: set[str] = set()
    given: set[str] = set()
    for event in history.events:
        waiting.step(event)
        if isinstance(event, Told) and event.status == "OK":
            acked.add(event.id)
        elif isinstance(event, Given):
            given.add(event.id)
        elif isinstance(event, Found):
            late = [id for id, due in waiting.due.items() if id in acked and max(due, waiting.smooth) + PUNCTUAL_S <= event.at]
            yield from ((id, id in given) for id in late)
