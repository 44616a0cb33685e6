"""The words in which a run of one broker's store is told. A history is a list of these in the order they happened.

Offsets are bytes (physical) or entry numbers (queue); ends are exclusive; `at` is monotonic seconds. `id` is a value unique to each
message sent. What the store *claims* (`Flushed`) and what an observer of the disk *sees* (`Durable`, `Image`) are different words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
    at: float = 0.0
    batch: int | None = None

    @property
    def end(self) -> int:
        return self.phy_offset + self.size


@dataclass(frozen=True)
class Refused:
    """The store refused a message; nothing of it is stored, not even if it had been given a place."""

    id: str
    queue: QueueName
    why: str


@dataclass(frozen=True)
class Answered:
    """The producer got an answer: OK, FLUSH_DISK_TIMEOUT, ..."""

    id: str
    status: str
    at: float = 0.0


@dataclass(frozen=True)
class Durable:
    """An observer of the platter: every byte of the log below `end` would survive a power cut now, names included."""

    end: int


@dataclass(frozen=True)
class Flushed:
    """The store's own mark: it believes every byte below `end` to be durable."""

    end: int


@dataclass(frozen=True)
class SyncFailed:
    """An fsync of the log failed."""


@dataclass(frozen=True)
class Delivered:
    """A consumer was given this record. `confirm`, `min_offset`, `max_offset` are what the broker said at that moment."""

    id: str
    queue: QueueName
    queue_offset: int
    phy_offset: int
    size: int
    confirm: int
    min_offset: int
    max_offset: int
    digest: int
    crc_holds: bool
    intact: bool

    @property
    def end(self) -> int:
        return self.phy_offset + self.size


@dataclass(frozen=True)
class Viewed:
    """Someone asked for the message at the place an answer had named; `found` is the id found there, None without one."""

    id: str
    found: str | None


@dataclass(frozen=True)
class Idle:
    """Nothing was sent for `seconds`; then the store's durable mark and the ends of its queues were these."""

    seconds: float
    flushed: int
    queue_ends: dict[QueueName, int]


@dataclass(frozen=True)
class Stopped:
    """How an incarnation ended: close (clean), kill (process), power (unsynced bytes and names at risk)."""

    how: str


@dataclass(frozen=True)
class Damaged:
    """Behind the store's back the record `id` was altered on disk. `proven`: the store had synced it and noted that."""

    id: str
    proven: bool


@dataclass(frozen=True)
class QueuesRemoved:
    """While the broker was down somebody deleted the queues and the key index."""


@dataclass(frozen=True)
class StartRefused:
    """A start ended with this error instead of serving."""

    why: str


@dataclass(frozen=True)
class Claimed:
    """A process took the store's lock."""

    process: int


@dataclass(frozen=True)
class Released:
    process: int


@dataclass(frozen=True)
class Touched:
    """A process changed something in the store's folder."""

    process: int


@dataclass(frozen=True)
class ConfigSaving:
    """A config file is about to be replaced."""

    content: str


@dataclass(frozen=True)
class ConfigSaved:
    content: str


@dataclass(frozen=True)
class ConfigFound:
    """What a start loads; None: nothing."""

    content: str | None


@dataclass(frozen=True)
class Record:
    """A record as found on disk. `position` is where it stands, `phy_offset` what it says; `parts_size` is what its parts add up to;
    `intact` means equal to what was sent; `digest` is a checksum of all its bytes; `by_key` that a query by its id gives it."""

    id: str
    queue: QueueName
    queue_offset: int
    position: int
    phy_offset: int
    size: int
    parts_size: int
    crc_holds: bool
    intact: bool
    digest: int
    by_key: bool

    @property
    def end(self) -> int:
        return self.position + self.size


@dataclass(frozen=True)
class Unit:
    """A consume-queue entry and whether its tags agree with the record it names."""

    queue_offset: int
    phy_offset: int
    size: int
    tags_agree: bool


@dataclass(frozen=True)
class QueueState:
    """The ends as the broker tells them, and the units as they stand in the files."""

    min_offset: int
    max_offset: int
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Image:
    """The whole store after a start, read from its files. `final` is False for a trial start on a copy of the disk."""

    records: tuple[Record, ...]
    queues: dict[QueueName, QueueState]
    min_phy: int
    max_phy: int
    segment_size: int
    abort_marker_before: bool
    blanks: tuple[tuple[int, int], ...] = ()
    """(position, size) of each end-of-segment filler."""
    behind: tuple[str, ...] = ()
    """What still looks like a whole record behind the end of the log."""
    final: bool = True


Event = (
    Put | Refused | Answered | Durable | Flushed | SyncFailed | Delivered | Viewed | Idle | Stopped | Damaged | QueuesRemoved
    | StartRefused | Claimed | Released | Touched | ConfigSaving | ConfigSaved | ConfigFound | Image
)
E = TypeVar("E")


@dataclass(frozen=True)
class History:
    """`sync_flush` and `flush_timeout_s` say what the store under test was configured to promise."""

    events: tuple[Event, ...]
    sync_flush: bool
    flush_timeout_s: float = 5.0
    origin: str = field(default="", compare=False)
    """How to make this history again: a seed and a crash point."""

    def all(self, kind: type[E]) -> Iterator[E]:
        return (event for event in self.events if isinstance(event, kind))

    def lives(self) -> Iterator[list[Event]]:
        """The events of each incarnation, up to and including its `Stopped`."""
        life: list[Event] = []
        for event in self.events:
            life.append(event)
            if isinstance(event, Stopped):
                yield life
                life = []
        if life:
            yield life
