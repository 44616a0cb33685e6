"""# Flushing: when a message survives losing power

Under SYNC_FLUSH a producer hears SEND_OK only after an fsync that covers the message; under ASYNC_FLUSH it hears it once the message is in
the page cache, which survives a process kill but not a power cut.

Sources: features document, "Message reliability" (cases 1-4: "no message lost, or a small amount, depending on synchronous or asynchronous
flushing"); Apache RocketMQ `GroupCommitService`, `FlushRealTimeService`.

**Not promised**: anything about power loss under ASYNC_FLUSH beyond "a prefix remains"; that FLUSH_DISK_TIMEOUT means "not stored".
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .history import Answered, Delivered, Durable, Flushed, History, Idle, Image, Put, Refused, Stopped, SyncFailed

Witness = Iterator[tuple[object, bool]]
GROUP_COMMIT = "org.apache.rocketmq.store.CommitLog$GroupCommitService"
SLACK_S = 0.1
ASYNC_BOUND_S = 10.5


@clause("P-FLUSH-1", "Under SYNC_FLUSH, SEND_OK means that every byte up to the record's end was on the platter, file name included.",
        source=GROUP_COMMIT, mutants=("ack_before_fsync", "sync_forgets_segment", "no_directory_sync"),
        faults=("os-crash", "power"))
def ok_means_durable(history: History) -> Witness:
    if not history.sync_flush:
        return
    ends: dict[str, int] = {}
    durable = 0
    for event in history.events:
        if isinstance(event, Put):
            ends[event.id] = event.end
        elif isinstance(event, Durable):
            durable = event.end
        elif isinstance(event, Answered) and event.status == "OK":
            yield event, durable >= ends[event.id]


@clause("P-FLUSH-2", "Under SYNC_FLUSH, no consumer is given a record that is not durable.",
        source="org.apache.rocketmq.store.CommitLog#getConfirmOffset", mutants=("dispatch_before_fsync",), upstream="broken before 5.4.0",
        faults=("os-crash", "power"))
def nothing_served_before_durable(history: History) -> Witness:
    if not history.sync_flush:
        return
    durable = 0
    for event in history.events:
        if isinstance(event, Durable):
            durable = event.end
        elif isinstance(event, Delivered):
            yield event, event.end <= durable


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
    ends: dict[str, int] = {}
    durable = start = 0
    for event in history.events:
        if isinstance(event, Put):
            ends[event.id] = event.end
        elif isinstance(event, Refused):
            ends.pop(event.id, None)
        elif isinstance(event, Image):
            start, ends = event.max_phy, {}
        elif isinstance(event, Durable):
            durable = event.end
        elif isinstance(event, Idle) and event.seconds >= ASYNC_BOUND_S:
            end = max(ends.values(), default=start)
            yield event, event.flushed == end and durable >= end


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
