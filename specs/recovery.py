"""# Starting again after a stop of any kind

Seed `003_c790c013a3e4f038.txt`, 消息可靠性, counts what can stop a broker that starts again: "1. Broker 正常关闭 2. Broker 异常 Crash 3. OS
Crash 4. 机器掉电，但是能立即恢复供电情况" (it is closed in order; it crashes; the system crashes; the power goes and returns), and says of
these: "1-4 的四种情况属于硬件资源可理解恢复情况，RocketMQ 在这四种情况下能保证消息不丢，或丢失少量数据（依赖刷盘方式是同步还是异步）"
(what can be recovered from loses no message, or few, depending on whether flushing is synchronous).

A start finds the log as the stop left it and decides what of it is real. After a clean close that is everything; after a kill everything
that was acknowledged; after a power cut everything that was durable, and a prefix of the rest. What is cut away never comes back. What a
start serves is durable: it survives whatever comes next, in any flush mode. (5) and (6), a machine or a disk that is gone, are the matter
of "What may be lost, and what never".

Other sources: Apache RocketMQ `CommitLog#recoverNormally`, `#recoverAbnormally`, `truncateDirtyFiles`; reference "ha semantics" C3.

**Not promised**: that the unsynced tail survives a power cut under ASYNC_FLUSH; that a queue offset handed out for a lost message is not
handed out again to another; how long a start takes; that a start which finds a proven record damaged goes on by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import STOPS, clause
from .history import (
    Answered,
    Claimed,
    ConfigFound,
    ConfigSaved,
    ConfigSaving,
    Damaged,
    Delivered,
    Event,
    Flushed,
    History,
    Image,
    Put,
    Refused,
    Released,
    StartRefused,
    Stopped,
    Touched,
)

Witness = Iterator[tuple[object, bool]]
NONE_LOST = "seed 003_c790c013a3e4f038.txt, 消息可靠性: 在这四种情况下能保证消息不丢，或丢失少量数据（依赖刷盘方式是同步还是异步）"
RECOVER = "org.apache.rocketmq.store.CommitLog#recoverAbnormally"


class Log:
    """Model: the log is a list of messages; some are owed to somebody. A crash keeps a prefix with everything owed in it."""

    def __init__(self, sync_flush: bool) -> None:
        self.sync_flush = sync_flush
        self.order: dict[str, int] = {}  # id → end, in log order
        self.owed: set[str] = set()  # survives a kill
        self.safe: set[str] = set()  # survives a power cut
        self.ghosts: dict[str, int] = {}  # refused, and perhaps wiped in the page cache only
        self.stops: list[str] = []  # since the last start that served

    def step(self, event: Event) -> None:
        match event:
            case Put(id=id):
                self.order[id] = event.end
            case Refused(id=id):
                self.ghosts[id] = self.order.pop(id, 0)
            case Flushed(end=flushed):
                self.ghosts = {id: end for id, end in self.ghosts.items() if end > flushed}
            case Answered(id=id, status="OK"):
                self.owed.add(id)
                if self.sync_flush:
                    self.safe.add(id)
            case Damaged(id=id):
                lost = {i for i, end in self.order.items() if end >= self.order[id]}
                self.owed, self.safe = self.owed - lost, self.safe - lost
            case Stopped(how=how):
                self.stops.append(how)
                if how == "close":
                    self.owed = self.safe = set(self.order)
                elif how == "power":
                    self.owed = set(self.safe)
            case Image(final=True):
                self.order = {r.id: r.end for r in event.records}
                self.owed, self.safe, self.ghosts, self.stops = set(self.order), set(self.order), {}, []

    def kept(self, image: Image) -> list[str]:
        """Expected ids in order, without what retention took."""
        return [id for id, end in self.order.items() if end > image.min_phy]


def starts(history: History) -> Iterator[tuple[Log, Image]]:
    """(the model before, what the start found) for each start."""
    model = Log(history.sync_flush)
    for event in history.events:
        if isinstance(event, Image):
            yield model, event
        model.step(event)


def ids(image: Image) -> list[str]:
    return [r.id for r in image.records]


@clause("P-REC-1", "After a clean close everything is as before: the log, the queue ends, each message by its key, and no abort marker.",
        source=f"{NONE_LOST}; org.apache.rocketmq.store.CommitLog#recoverNormally",
        mutants=("close_forgets_tail", "abort_marker_stays", "flush_can_be_cancelled", "old_index_entries_stay"),
        faults=("close",))
def clean_close_keeps_all(history: History) -> Witness:
    for model, image in starts(history):
        if model.stops[:1] == ["close"]:
            yield image.max_phy, ids(image) == model.kept(image) and (model.stops != ["close"] or not image.abort_marker_before)
            ends = {r.queue: r.queue_offset + 1 for r in image.records}
            yield ends, all(q in image.queues and image.queues[q].max_offset == end for q, end in ends.items())
            yield "keys", all(r.by_key for r in image.records)


@clause("P-REC-2", "After a process kill no acknowledged record is missing, in any flush mode.",
        source=f"{NONE_LOST}; {RECOVER}", mutants=("recovery_cuts_too_much",),
        faults=("kill",))
def kill_loses_nothing_acked(history: History) -> Witness:
    for model, image in starts(history):
        if model.stops and set(model.stops) == {"kill"}:
            there = set(ids(image))
            for id in model.kept(image):
                if id in model.owed:
                    yield id, id in there


@clause("P-REC-3", "After a power cut the log is a prefix of what was written, cut at a record boundary; it holds every record that an "
        "earlier start served, and under SYNC_FLUSH every acknowledged one.", source=f"{NONE_LOST}; {RECOVER}",
        mutants=("ack_before_fsync", "no_directory_sync", "no_sync_on_recover", "no_rewrite", "stale_witness"),
        upstream="second half broken by S15",
        faults=("os-crash", "power"))
def power_cut_leaves_a_prefix(history: History) -> Witness:
    for model, image in starts(history):
        if "power" in model.stops:
            found, wanted = [id for id in ids(image) if id not in model.ghosts], model.kept(image)
            yield image.max_phy, found == wanted[: len(found)]
            pieces = sum(r.size for r in image.records) + sum(size for _, size in image.blanks)
            yield image.max_phy, image.min_phy + pieces == image.max_phy
            for id in wanted:
                if id in model.owed:
                    yield id, id in found


@clause("P-REC-4", "A damaged record is never served and costs no earlier one; if it had been proven durable the start is refused instead.",
        source="org.apache.rocketmq.store.CommitLog#checkMessageAndReturnSize", mutants=("no_crc", "no_private_checksum", "cuts_proven"),
        upstream="broken for header and properties (only the body has a CRC) and for the refusal (S20, S21)",
        faults=("rot", "power"))
def nothing_altered(history: History) -> Witness:
    sent: set[str] = set()
    order: list[str] = []
    damaged: Damaged | None = None
    for event in history.events:
        if isinstance(event, Put):
            sent.add(event.id)
            order.append(event.id)
        elif isinstance(event, Damaged):
            damaged = event
        elif isinstance(event, Delivered):
            yield event, event.intact and event.id in sent
        elif isinstance(event, StartRefused) and damaged is not None:
            yield event, damaged.proven
            damaged = None
        elif isinstance(event, Image):
            for r in event.records:
                yield r, r.intact and r.id in sent
            if damaged is not None:
                yield damaged, not damaged.proven and ids(event) == order[: order.index(damaged.id)]
            order, damaged = ids(event), None


@clause("P-REC-5", "A record that a start dropped never reappears, and nothing behind the log's end looks like a record.",
        source="Apache RocketMQ truncateDirtyFiles leaves the bytes", mutants=("no_zero_after_cut", "zeros_believed"),
        upstream="broken: a stale record at the new tail is accepted after the next crash (S6)",
        faults=STOPS)
def no_resurrection(history: History) -> Witness:
    dropped: set[str] = set()
    put: set[str] = set()
    for event in history.events:
        if isinstance(event, Put):
            put.add(event.id)
        elif isinstance(event, Image):
            there = set(ids(event))
            yield event.max_phy, not event.behind
            for id in sorted(dropped):
                yield id, id not in there
            if event.final:
                dropped |= put - there


@clause("P-REC-6", "Recovery is idempotent: repeated, or cut short by a crash and done again, it gives the same log and queues.",
        source=RECOVER, mutants=("recovery_cuts_too_much",),
        faults=STOPS)
def recovery_is_idempotent(history: History) -> Witness:
    last: Image | None = None
    fragile = False  # the trial start saw a page cache that a power cut took afterwards
    stop = ""
    for event in history.events:
        if isinstance(event, Put | Damaged):
            last = None
        elif isinstance(event, Stopped):
            fragile = fragile or (event.how == "power" and stop == "kill" and last is not None and not last.final)
            stop = event.how
        elif isinstance(event, Image):
            if last is not None and not fragile and event.min_phy == last.min_phy:
                same = (event.max_phy, event.records, event.queues) == (last.max_phy, last.records, last.queues)
                yield (last.max_phy, event.max_phy), same
            last, fragile = event, False


@clause("P-REC-7", "After any start each queue ends right after its last retained record: no hole, no overhang, in memory and on disk.",
        source="org.apache.rocketmq.store.queue.ConsumeQueueStore#recover", mutants=("queue_hole", "queue_overhang"),
        upstream="broken: the checkpoint runs ahead of the queue files (S19)",
        faults=STOPS)
def queues_match_log(history: History) -> Witness:
    for image in history.all(Image):
        wanted: dict[object, list[int]] = {queue: [] for queue in image.queues}
        for r in image.records:
            wanted.setdefault(r.queue, []).append(r.queue_offset)
        for queue, offsets in wanted.items():
            state = image.queues.get(queue)  # type: ignore[call-overload]
            ends = (offsets[0], offsets[-1] + 1) if offsets else None
            yield queue, state is not None and [u.queue_offset for u in state.units] == offsets
            yield queue, state is not None and (ends is None or (state.min_offset, state.max_offset) == ends)


@clause("P-REC-8", "Two processes never both recover or append to one store: whoever changes anything holds the lock.",
        source="design D10", mutants=("lock_after_recovery",), upstream="broken: the lock is taken after recovery (S17)")
def one_owner(history: History) -> Witness:
    owner: int | None = None
    for event in history.events:
        if isinstance(event, Claimed):
            yield event, owner is None
            owner = event.process
        elif isinstance(event, Touched):
            yield event, event.process == owner
        elif isinstance(event, Stopped) or (isinstance(event, Released) and event.process == owner):
            owner = None


@clause("P-REC-9", "A crash at any call while a config file is replaced leaves the old or the new content loadable; a finished save stays.",
        source="org.apache.rocketmq.common.ConfigManager#persist", mutants=("config_in_place",))
def config_survives(history: History) -> Witness:
    possible: set[str | None] = {None}
    for event in history.events:
        if isinstance(event, ConfigSaving):
            possible.add(event.content)
        elif isinstance(event, ConfigSaved):
            possible = {event.content}
        elif isinstance(event, ConfigFound):
            yield event, event.content in possible
