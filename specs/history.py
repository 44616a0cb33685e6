"""The words in which a run of one broker's store is told. A history is a list of these in the order they happened.

Offsets are bytes (physical) or entry numbers (queue); ends are exclusive. `id` is a value unique to each message sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

QueueName = tuple[str, int]


@dataclass(frozen=True)
class Put:
    """The store accepted a message and gave it a place; nothing is promised yet. `batch` groups messages sent together."""

    id: str
    queue: QueueName
    queue_offset: int
    phy_offset: int
    size: int
    wait: bool = True
    batch: int | None = None

    @property
    def end(self) -> int:
        return self.phy_offset + self.size


@dataclass(frozen=True)
class Refused:
    """The store refused a message before storing anything."""

    id: str
    queue: QueueName
    why: str


@dataclass(frozen=True)
class Answered:
    """The producer got an answer: OK, FLUSH_DISK_TIMEOUT, ..."""

    id: str
    status: str


@dataclass(frozen=True)
class SyncDone:
    """An fsync finished: every byte of the log below `end` is durable."""

    end: int


@dataclass(frozen=True)
class SyncFailed:
    """An fsync failed."""


@dataclass(frozen=True)
class Delivered:
    """A consumer was given this message at this queue offset; `confirm` is the bound that held at that moment."""

    id: str
    queue: QueueName
    queue_offset: int
    end: int
    confirm: int


@dataclass(frozen=True)
class Stopped:
    """How an incarnation ended: close (clean), kill (process), power (unsynced bytes and names at risk)."""

    how: str


@dataclass(frozen=True)
class Record:
    """A record as found on disk. `position` is where it stands, `phy_offset` what it says; `intact` means equal to what was sent."""

    id: str
    queue: QueueName
    queue_offset: int
    position: int
    phy_offset: int
    size: int
    parts_size: int
    crc_holds: bool
    intact: bool

    @property
    def end(self) -> int:
        return self.position + self.size


@dataclass(frozen=True)
class Unit:
    """A consume-queue entry and whether tags, size and target agree with the record it names."""

    queue_offset: int
    phy_offset: int
    size: int
    agrees: bool


@dataclass(frozen=True)
class QueueState:
    min_offset: int
    max_offset: int
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Image:
    """The whole store after a start: what it would serve."""

    records: tuple[Record, ...]
    queues: dict[QueueName, QueueState]
    min_phy: int
    max_phy: int
    segment_size: int
    abort_marker_before: bool
    blanks: tuple[tuple[int, int], ...] = ()
    """(position, size) of each end-of-segment filler."""


Event = Put | Refused | Answered | SyncDone | SyncFailed | Delivered | Stopped | Image
E = TypeVar("E")


@dataclass(frozen=True)
class History:
    """`sync_flush` and `transient` say what the store under test was configured to promise."""

    events: tuple[Event, ...]
    sync_flush: bool

    def all(self, kind: type[E]) -> Iterator[E]:
        return (event for event in self.events if isinstance(event, kind))

    def lives(self) -> Iterator[list[Event]]:
        """The events of each incarnation: from its `Image` (or the beginning) up to and including its `Stopped`."""
        life: list[Event] = []
        for event in self.events:
            life.append(event)
            if isinstance(event, Stopped):
                yield life
                life = []
        if life:
            yield life
