"""# Flushing: when a message survives losing power

Seed `003_c790c013a3e4f038.txt`, 消息可靠性, of (3) a crash of the system and (4) a loss of power: "RocketMQ 在这四种情况下能保证消息不丢，
或丢失少量数据（依赖刷盘方式是同步还是异步）" (none is lost, or a few: that depends on whether flushing is synchronous or not). Seed
`001_8e740201b086beaf.txt`, 刷盘方式: "SYNC_FLUSH | 同步刷盘,每条消息都持久化 | 数据不能丢失的场景" (synchronous flush: each message is made
durable; where data must not be lost), and "ASYNC_FLUSH | 异步刷盘,性能好" (asynchronous: fast).

So under SYNC_FLUSH a producer hears SEND_OK only after an fsync that covers the message; under ASYNC_FLUSH it hears it once the message is
in the page cache, which survives a process kill but not a power cut. "Made durable" is what an observer of the platter finds, file names
included, and not what the store believes. The seeds say nothing of an fsync that stalls or fails, nor how long the asynchronous one takes:
Apache RocketMQ `GroupCommitService`, `FlushRealTimeService`, reference "ha semantics" C3.

**Not promised**: anything about power loss under ASYNC_FLUSH beyond "a prefix remains"; that FLUSH_DISK_TIMEOUT means "not stored"; that
what is flushed outlives its disk; how fast either is.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .history import Answered, Delivered, Durable, Event, Flushed, History, Idle, Image, Put, Refused, Stopped, SyncFailed

Witness = Iterator[tuple[object, bool]]
EACH_IS_DURABLE = "seed 001_8e740201b086beaf.txt, 刷盘方式: SYNC_FLUSH 同步刷盘,每条消息都持久化"
GROUP_COMMIT = "org.apache.rocketmq.store.CommitLog$GroupCommitService"
SLACK_S = 0.1
ASYNC_BOUND_S = 10.5


class Platter:
    """Model: a log that is written at its end, and a line in it. What lies below the line survives losing power; it only moves up, and only
    an observer of the platter can say where it is."""

    def __init__(self) -> None:
        self.ends: dict[str, int] = {}  # message → its end, of this life
        self.start = 0  # where this life began
        self.line = 0

    def step(self, event: Event) -> None:
        match event:
            case Put(id=id):
                self.ends[id] = event.end
            case Refused(id=id):
                self.ends.pop(id, None)
            case Image(final=True):
                self.start, self.ends = event.max_phy, {}
            case Durable(end=end):
                self.line = end

    @property
    def end(self) -> int:
        return max(self.ends.values(), default=self.start)

    def keeps(self, id: str) -> bool:
        return self.ends[id] <= self.line


@clause("P-FLUSH-1", "Under SYNC_FLUSH, SEND_OK means that every byte up to the record's end was on the platter, file name included.",
        source=f"{EACH_IS_DURABLE}; {GROUP_COMMIT}", mutants=("ack_before_fsync", "sync_forgets_segment", "no_directory_sync"),
        faults=("os-crash", "power"))
def ok_means_durable(history: History) -> Witness:
    if not history.sync_flush:
        return
    platter = Platter()
    for event in history.events:
        platter.step(event)
        if isinstance(event, Answered) and event.status == "OK":
            yield event, platter.keeps(event.id)


@clause("P-FLUSH-2", "Under SYNC_FLUSH, no consumer is given a record that is not durable.",
        source="org.apache.rocketmq.store.CommitLog#getConfirmOffset", mutants=("dispatch_before_fsync",), upstream="broken before 5.4.0",
        faults=("os-crash", "power"))
def nothing_served_before_durable(history: History) -> Witness:
    if not history.sync_flush:
        return
    platter = Platter()
    for event in history.events:
        platter.step(event)
        if isinstance(event, Delivered):
            yield event, event.end <= platter.line


@clause("P-FLUSH-3", "In one incarnation the durable mark only grows, and never passes what was appended or what the platter holds.",
        source="org.apache.rocketmq.store.MappedFileQueue#flush", mutants=("sync_forgets_segment",))
def mark_only_grows(history: History) -> Witness:
    for life in history.lives():
        last, appended, durable = -1, 0, 0
        for event in life:
            if isinstance(event, Put):
                appended = max(appended, event.end)
            elif isinstance(event, Image):
                appended = max(appended, event.max_phy)
            elif isinstance(event, Durable):
                durable = event.end
            elif isinstance(event, Flushed):
                yield event, last <= event.end <= min(appended, durable)
                last = event.end


@clause("P-FLUSH-4", "Every put gets exactly one answer within the flush timeout, even when fsync stalls: then FLUSH_DISK_TIMEOUT.",
        source="org.apache.rocketmq.store.FlushDiskWatcher", kind="eventually", mutants=("flush_timeout_forgotten", "late_answer_twice"),
        faults=("link",))
def everyone_is_answered(history: History) -> Witness:
    limit = history.flush_timeout_s + SLACK_S
    for life in history.lives():
        puts = {e.id: e for e in life if isinstance(e, Put)}
        answers = [e.id for e in life if isinstance(e, Answered | Refused)]
        for event in life:
            if isinstance(event, Answered):
                yield event, answers.count(event.id) == 1 and event.at - puts[event.id].at <= limit
        if isinstance(life[-1], Stopped) and life[-1].how == "close":
            for put in puts.values():
                yield put, put.id in answers


@clause("P-FLUSH-5", "Under ASYNC_FLUSH the durable mark reaches the end of the log at most 10.5 s after the last put.",
        source="org.apache.rocketmq.store.CommitLog$FlushRealTimeService", kind="eventually", mutants=("async_flush_never",))
def async_flush_catches_up(history: History) -> Witness:
    if history.sync_flush:
        return
    platter = Platter()
    for event in history.events:
        platter.step(event)
        if isinstance(event, Idle) and event.seconds >= ASYNC_BOUND_S:
            yield event, event.flushed == platter.end <= platter.line


@clause("P-FLUSH-6", "Once an fsync has failed, no put is answered SEND_OK until the next start.",
        source="design D5: a failed fsync stops the broker", mutants=("retry_fsync",), upstream="broken: the next fsync may say ok",
        faults=("io-error",))
def failed_sync_is_final(history: History) -> Witness:
    for life in history.lives():
        failed = next((at for at, e in enumerate(life) if isinstance(e, SyncFailed)), None)
        if failed is None:
            continue
        before = {e.id for e in life[:failed] if isinstance(e, Answered)}
        ok_after = {e.id for e in life[failed:] if isinstance(e, Answered) and e.status == "OK"}
        for event in life:
            if isinstance(event, Put) and event.id not in before:
                yield event, event.id not in ok_after
