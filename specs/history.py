"""The words in which a run is told: first of one broker's store, then of a cluster. A history is a list of these as they happened.

Offsets are bytes (physical) or entry numbers (queue); ends are exclusive; `at` is monotonic seconds. `id` is a value unique to each
message sent. What the store *claims* (`Flushed`) and what an observer of the disk *sees* (`Durable`, `Image`) are different words.

In a cluster the observer listens on the wire and looks at disks: `Asked`, `Told`, `Carried`, `Said`, `Reported` and `Pulled` are what was
really written or read there, in that order; `Holds` and `LogSeen` are what the disks hold. Nothing is taken from a broker's own word.
A `node` is a machine; a broker group has several. A `session` numbers one replication connection of the whole history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

QueueName = tuple[str, int]


@dataclass(frozen=True)
class Put:
    """The store accepted a message and gave it a place and a time; nothing is promised yet. `batch` groups messages sent together; `keys`
    are those by which it can be asked for; `store_ms` is the time by the wall clock that it is stored under."""

    id: str
    queue: QueueName
    queue_offset: int
    phy_offset: int
    size: int
    at: float = 0.0
    batch: int | None = None
    keys: tuple[str, ...] = ()
    store_ms: int = 0

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
class Cleaned:
    """Retention has looked. The log's segments began at `before`, and those left at `after`; queues then began at `mins`. By the wall clock
    it was `now_ms`, messages are to be kept for `keep_ms`. `due`: it was the hour for it. The disk was in use to `used` (0 to 1): above
    `due_above` any hour is the hour, above `force_above` the oldest go, expired or not, above `refuse_above` puts are refused. No round
    takes more than `most`."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    mins: dict[QueueName, int] = field(hash=False)
    now_ms: int
    keep_ms: int
    due: bool
    used: float
    due_above: float
    force_above: float
    refuse_above: float
    most: int = 10


@dataclass(frozen=True)
class Queried:
    """Somebody asked for `most` messages of a topic by key, stored from `begin_ms` to `end_ms`; these ids came, in this order."""

    topic: str
    key: str
    begin_ms: int
    end_ms: int
    most: int
    found: tuple[str, ...]


@dataclass(frozen=True)
class Searched:
    """Somebody asked which place in a queue belongs to a time. `boundary`: LOWER or UPPER; the queue's ends then were these."""

    queue: QueueName
    ms: int
    boundary: str
    offset: int
    min_offset: int
    max_offset: int


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
    keys: tuple[str, ...] = ()
    store_ms: int = 0

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


# --- a cluster

LATE = frozenset({"FLUSH_DISK_TIMEOUT", "FLUSH_SLAVE_TIMEOUT", "SLAVE_NOT_AVAILABLE"})
"""Answers that say: stored, but not (yet) as safely as was asked."""
NOT_ENOUGH = "IN_SYNC_REPLICAS_NOT_ENOUGH"


@dataclass(frozen=True)
class Serving:
    """A broker began to serve. `need`: how many members must have written a record before SEND_OK, itself included, 0: all that are there;
    `gap`: a slave that is this many bytes behind does not count as in sync; `log_min`, `log_end`: what its disk held at the start."""

    node: str
    group: str
    broker_id: int
    role: str
    sync_flush: bool
    need: int = 1
    min_in_sync: int = 1
    gap: int = 1 << 28
    slave_timeout_s: float = 3.0
    flush_timeout_s: float = 5.0
    segment_size: int = 1 << 30
    from_last_segment: bool = False
    log_min: int = 0
    log_end: int = 0
    plain: bool = False
    """It speaks the bare protocol only, without saying who it is."""
    at: float = 0.0


@dataclass(frozen=True)
class Gone:
    """A node stopped: close, kill (page cache lives), os (page cache lost), power (torn sectors too), machine (does not return), disk
    (its data is destroyed; it may return empty)."""

    node: str
    how: str
    at: float = 0.0


@dataclass(frozen=True)
class Paused:
    """A node's process stands still, as by SIGSTOP; its kernel goes on."""

    node: str
    at: float = 0.0


@dataclass(frozen=True)
class Resumed:
    node: str
    at: float = 0.0


@dataclass(frozen=True)
class Hindered:
    """From here on something else is wrong with a node: a link of it is cut or slow, its disk full, failing or slow."""

    node: str
    why: str
    at: float = 0.0


@dataclass(frozen=True)
class Eased:
    """Every such thing was put right."""

    at: float = 0.0


@dataclass(frozen=True)
class Attached:
    """A replication connection reached the master. `limit`: the longest body it may be sent at once."""

    session: int
    master: str
    slave: str
    limit: int = 32_768
    at: float = 0.0


@dataclass(frozen=True)
class Detached:
    """The connection ended, and the master knows; `by` is the node that ended it, "" when the network did."""

    session: int
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Said:
    """A slave put a report on the wire. At that moment the log on its disk ended at `held`; what lies below `durable` would have survived
    losing power."""

    session: int
    offset: int
    held: int
    durable: int
    at: float = 0.0


@dataclass(frozen=True)
class Reported:
    """The master read a report; its own log then ended at `master_end`."""

    session: int
    offset: int
    master_end: int
    at: float = 0.0


@dataclass(frozen=True)
class Carried:
    """The master put a piece of its log on the wire; size 0 is a heartbeat. Its log then was [`master_min`, `master_end`)."""

    session: int
    offset: int
    size: int
    master_min: int = 0
    master_end: int = 0
    at: float = 0.0


@dataclass(frozen=True)
class Holds:
    """An observer of a node's disk: of the group's log it holds every byte below `end`, safe from losing power below `durable`."""

    node: str
    end: int
    durable: int
    at: float = 0.0


@dataclass(frozen=True)
class Tried:
    """A producer put a send on the wire: the `attempt`-th with this id. `writable` is what it could have chosen from: broker name →
    queues; `bad`: the brokers it then knew to be unreachable or isolated; `chosen`: the caller had named the queue."""

    id: str
    producer: str
    group: str
    queue_id: int
    attempt: int = 1
    topic: str = "T"
    writable: dict[str, int] = field(default_factory=dict, hash=False)
    bad: frozenset[str] = frozenset()
    chosen: bool = False
    at: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A broker read that send. `wait` False: the message asked not to be waited for."""

    id: str
    node: str
    wait: bool = True
    at: float = 0.0


@dataclass(frozen=True)
class Withdrawn:
    """The connection by which the send came ended before it was answered."""

    id: str
    node: str
    at: float = 0.0


@dataclass(frozen=True)
class Told:
    """A broker put its answer to a send on the wire. `end` is the end of the record, 0 if none was stored."""

    id: str
    node: str
    status: str
    queue_offset: int = -1
    end: int = 0
    at: float = 0.0


@dataclass(frozen=True)
class Heard:
    """The producer read that answer."""

    id: str
    node: str
    status: str
    at: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What the producer was left with: OK, one of `LATE`, FAILED (definitely not stored) or UNKNOWN. `chosen`: it had named the queue.
    `group`, `queue`, `queue_offset`: the place that the answer named, if there was one."""

    id: str
    status: str
    began: float = 0.0
    chosen: bool = False
    at: float = 0.0
    group: str = ""
    queue: QueueName | None = None
    queue_offset: int = -1


@dataclass(frozen=True)
class Stored:
    """A record in a log."""

    id: str
    queue: QueueName
    queue_offset: int
    phy_offset: int
    size: int
    digest: int

    @property
    def end(self) -> int:
        return self.phy_offset + self.size


@dataclass(frozen=True)
class LogSeen:
    """What a member's disk held from `start` on, at one moment; looks at several members at the same moment bear the same number."""

    node: str
    group: str
    moment: int
    start: int
    data: bytes = field(repr=False)
    records: tuple[Stored, ...] = ()
    at: float = 0.0

    @property
    def end(self) -> int:
        return self.start + len(self.data)


@dataclass(frozen=True)
class Cut:
    """A node dropped the end of its log, [start, end), which its master lacks. `aside`: the bytes found in the file that keeps them."""

    node: str
    start: int
    end: int
    dropped: bytes = field(repr=False)
    aside: bytes | None = field(repr=False)
    at: float = 0.0


@dataclass(frozen=True)
class Settled:
    """Nobody sent anything for `seconds`, every link was up, and the linked members' logs ended here. `again`: after a reconnect."""

    seconds: float
    group: str
    ends: dict[str, int] = field(hash=False)
    again: bool = False
    at: float = 0.0


@dataclass(frozen=True)
class Fed:
    """One and the same stream was given to one end of a replication connection in `pieces` pieces: the log and the last report it gave."""

    pieces: int
    log: int
    said: int


@dataclass(frozen=True)
class Pulled:
    """A consumer's pull was answered by `node`. `records`: (queue offset, physical offset, digest). `behind`: bytes of the log past what
    was read that the node held; `comfortable`: how many bytes behind it bears before it sends a consumer to a slave."""

    client: str
    node: str
    queue: QueueName
    group: str
    asked: int
    code: str
    next: int
    suggested: int
    records: tuple[tuple[int, int, int], ...] = ()
    behind: int = 0
    comfortable: int = 1 << 40
    min_offset: int = 0
    max_offset: int = 0
    at: float = 0.0


@dataclass(frozen=True)
class Given:
    """A consumer group's program was handed this message. `group` is the broker group, as everywhere."""

    consumer: str
    id: str
    queue: QueueName
    group: str
    queue_offset: int
    at: float = 0.0
    consumer_group: str = "g"
    times: int = 0
    """How often it was given back before."""


@dataclass(frozen=True)
class Committed:
    """A broker accepted that a consumer group is done with everything below `offset`: `node` read that from `client`."""

    consumer_group: str
    group: str
    queue: QueueName
    offset: int
    at: float = 0.0
    client: str = ""
    node: str = ""


@dataclass(frozen=True)
class Rebalanced:
    """The members of a consumer group, or what they see of each other, may have changed: queues may go from one to the other."""

    consumer_group: str
    at: float = 0.0


@dataclass(frozen=True)
class Drained:
    """At the end, with everything healed and nobody sending, this group had all the time it needs to be given what there is of a topic."""

    consumer_group: str
    topic: str = "T"
    at: float = 0.0


@dataclass(frozen=True)
class Rotten:
    """Behind the broker's back bytes of its log were altered on disk, or written to the wrong place."""

    node: str
    at: float = 0.0


@dataclass(frozen=True)
class Changed:
    """A table entry (topics, groups, offsets, delays) was changed at a master."""

    node: str
    table: str
    key: str
    value: str
    at: float = 0.0


@dataclass(frozen=True)
class TableSeen:
    """What somebody who asked `node` was shown."""

    node: str
    table: str
    entries: dict[str, str] = field(hash=False)
    at: float = 0.0


@dataclass(frozen=True)
class Registered:
    """A name server was told of a broker. `state`: its state version; `timeout_s`: for how long that holds. `server`: which name server,
    where there are several."""

    group: str
    broker_id: int
    address: str
    state: int = 0
    link: str = ""
    timeout_s: float = 120.0
    refused: bool = False
    at: float = 0.0
    server: str = ""


@dataclass(frozen=True)
class Unregistered:
    group: str
    broker_id: int
    address: str
    at: float = 0.0
    server: str = ""


@dataclass(frozen=True)
class LinkLost:
    """The connection through which brokers had registered ended."""

    link: str
    at: float = 0.0
    server: str = ""


@dataclass(frozen=True)
class NamesUp:
    """A name server began to serve, knowing nobody; `Gone` is its end."""

    server: str
    at: float = 0.0


@dataclass(frozen=True)
class RouteSeen:
    """A name server's answer to a client: broker name → id → address, and which names may be written to."""

    topic: str
    brokers: dict[str, dict[int, str]] = field(hash=False)
    writable: frozenset[str] = frozenset()
    at: float = 0.0
    server: str = ""


@dataclass(frozen=True)
class Found:
    """At the end of a run: every id that can still be read somewhere, once per copy."""

    ids: tuple[str, ...]
    lost_for_now: frozenset[str] = frozenset()
    """Nodes that did not return."""
    at: float = 0.0


@dataclass(frozen=True)
class Done:
    """Something was done to the cluster, in the words of its scenario. Not every such step strikes something."""

    what: str
    at: float = 0.0


@dataclass(frozen=True)
class QueueRead:
    """At the end somebody read a queue from its first offset to its last, as a client: the ids at `start`, `start` + 1, ..."""

    queue: QueueName
    group: str
    start: int = 0
    ids: tuple[str, ...] = ()
    at: float = 0.0


@dataclass(frozen=True)
class Created:
    """A topic was made at a broker group, with so many queues to read."""

    topic: str
    group: str
    queues: int
    at: float = 0.0


@dataclass(frozen=True)
class Joined:
    """A program became a member of a consumer group that starts at each queue's first message. A member that is to be given everything
    (broadcasting) is a group of its own."""

    consumer: str
    consumer_group: str
    orderly: bool = False
    broadcasting: bool = False
    at: float = 0.0


@dataclass(frozen=True)
class Left:
    """A member is gone: close (it said so), kill (its kernel closed the connections), power (nobody is told)."""

    consumer: str
    consumer_group: str
    how: str
    at: float = 0.0


@dataclass(frozen=True)
class Assigned:
    """From now on a member holds these queues of a topic, as (broker group, queue id)."""

    consumer: str
    consumer_group: str
    topic: str
    queues: frozenset[tuple[str, int]] = frozenset()
    at: float = 0.0


@dataclass(frozen=True)
class Shared:
    """A strategy was asked what falls to `me` of these queues, shared among these members."""

    strategy: str
    queues: tuple[str, ...]
    members: tuple[str, ...]
    me: str
    mine: tuple[str, ...]


@dataclass(frozen=True)
class Handled:
    """The program that was given this message is done with it: good, or failed."""

    consumer: str
    consumer_group: str
    id: str
    queue: QueueName
    group: str
    queue_offset: int
    good: bool
    at: float = 0.0


@dataclass(frozen=True)
class OffsetTold:
    """A broker told a member where its group is in a queue; -1: it does not know."""

    client: str
    node: str
    consumer_group: str
    group: str
    queue: QueueName
    offset: int
    at: float = 0.0


@dataclass(frozen=True)
class Locked:
    """A broker answered a member that wanted to lock queues: these are its now."""

    client: str
    node: str
    consumer_group: str
    queues: frozenset[QueueName] = frozenset()
    at: float = 0.0


@dataclass(frozen=True)
class Unlocked:
    """A broker read that a member gives up its locks of these queues."""

    client: str
    node: str
    consumer_group: str
    queues: frozenset[QueueName] = frozenset()
    at: float = 0.0


@dataclass(frozen=True)
class SentBack:
    """A broker read that a member gives back a message, which it was given for the `times`-th time again (0: the first). `level`: the
    delay it wants, 0: the usual, below 0: none, it is a dead letter. `anew`: by a send to the retry topic."""

    client: str
    node: str
    consumer_group: str
    id: str
    times: int
    level: int
    limit: int
    anew: bool = False
    at: float = 0.0


@dataclass(frozen=True)
class TakenBack:
    """The broker's answer to that. `late`: the copy is stored, but not (yet) as safely as was asked."""

    client: str
    node: str
    consumer_group: str
    id: str
    good: bool
    at: float = 0.0
    late: bool = False


@dataclass(frozen=True)
class Delayed:
    """A broker read a send that asks to be delayed by this level."""

    id: str
    node: str
    topic: str
    level: int
    at: float = 0.0


@dataclass(frozen=True)
class Copy:
    """A record in a master's log, with what it says of itself. `own`: its offset message id; `origin`: that of the first copy, if it is
    a later one; `first_topic`: where that was sent to; `body`: a checksum."""

    node: str
    group: str
    id: str
    queue: QueueName
    queue_offset: int
    times: int
    own: str
    origin: str
    first_topic: str
    body: int
    at: float = 0.0


@dataclass(frozen=True)
class Visited:
    """A server has read all that somebody who does not belong there says on one connection. `port`: of clients, names, slaves; `due`: end
    (it is no frame of the protocol), answer (a frame, and no good request), half (something is begun), silence (nothing is wrong)."""

    visit: int
    node: str
    port: str
    what: str
    due: str
    at: float = 0.0


@dataclass(frozen=True)
class Rebuked:
    """The server put an answer on that connection."""

    visit: int
    code: int
    at: float = 0.0


@dataclass(frozen=True)
class Dismissed:
    """The server ended that connection."""

    visit: int
    at: float = 0.0


@dataclass(frozen=True)
class Neighboured:
    """From `began` on somebody who belongs there wanted to connect and to have a good request answered; `answered`: at `at` it was."""

    node: str
    port: str
    began: float
    answered: bool
    at: float = 0.0


@dataclass(frozen=True)
class Ended:
    """A server ended by itself: nobody had struck or stopped it."""

    node: str
    at: float = 0.0


ClusterEvent = (
    Serving | Gone | Paused | Resumed | Hindered | Eased | Attached | Detached | Said | Reported | Carried | Holds | Tried | Asked
    | Withdrawn | Told | Heard
    | Outcome | LogSeen | Cut | Settled | Fed | Pulled | Given | Changed | TableSeen | Registered | Unregistered | LinkLost | NamesUp
    | RouteSeen
    | Found | QueueRead | Committed | Rebalanced | Drained | Rotten | Created | Joined | Left | Assigned | Shared | Handled | OffsetTold
    | Locked | Unlocked | SentBack | TakenBack | Delayed | Copy | Done
    | Visited | Rebuked | Dismissed | Neighboured | Ended
)

Event = (
    Put | Refused | Answered | Durable | Flushed | SyncFailed | Delivered | Viewed | Idle
    | Cleaned | Queried | Searched | Stopped | Damaged | QueuesRemoved | StartRefused | Claimed | Released | Touched | ConfigSaving
    | ConfigSaved | ConfigFound | Image | ClusterEvent
)
E = TypeVar("E")


@dataclass(frozen=True)
class History:
    """`sync_flush` and `flush_timeout_s` say what the store under test was configured to promise."""

    events: tuple[Event, ...]
    sync_flush: bool = False
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
