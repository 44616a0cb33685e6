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
from .history import Answered, Delivered, History, Put, Stopped, SyncDone, SyncFailed

Witness = Iterator[tuple[object, bool]]
GROUP_COMMIT = "org.apache.rocketmq.store.CommitLog$GroupCommitService"


@clause("P-FLUSH-1", "Under SYNC_FLUSH, SEND_OK means that an fsync covering the record's last byte completed before.",
        source=GROUP_COMMIT, mutants=("ack_before_fsync", "sync_forgets_segment"))
def ok_means_durable(history: History) -> Witness:
    if not history.sync_flush:
        return
    ends: dict[str, Put] = {}
    durable = 0
    for event in history.events:
        if isinstance(event, Put):
            ends[event.id] = event
        elif isinstance(event, SyncDone):
            durable = max(durable, event.end)
        elif isinstance(event, Answered) and event.status == "OK" and ends[event.id].wait:
            yield event, durable >= ends[event.id].end


@clause("P-FLUSH-2", "Under SYNC_FLUSH, no consumer is given a record that is not durable.",
        source="org.apache.rocketmq.store.CommitLog#getConfirmOffset", mutants=("dispatch_before_fsync",), upstream="broken before 5.4.0")
def nothing_served_before_durable(history: History) -> Witness:
    if not history.sync_flush:
        return
    durable = 0
    for event in history.events:
        if isinstance(event, SyncDone):
            durable = max(durable, event.end)
        elif isinstance(event, Delivered):
            yield event, event.end <= durable


@clause("P-FLUSH-3", "In one incarnation the durable mark only grows, and never passes what was appended.",
        source="org.apache.rocketmq.store.MappedFileQueue#flush", mutants=("sync_claims_too_much",))
def mark_only_grows(history: History) -> Witness:
    for life in history.lives():
        last, appended = -1, None
        for event in life:
            if isinstance(event, Put):
                appended = event.end
            elif isinstance(event, SyncDone):
                yield event, event.end >= last and (appended is None or event.end <= appended)
                last = event.end


@clause("P-FLUSH-4", "Every put gets exactly one answer, even when fsync stalls: then FLUSH_DISK_TIMEOUT at the deadline.",
        source="org.apache.rocketmq.store.FlushDiskWatcher", kind="eventually", mutants=("flush_timeout_forgotten",))
def everyone_is_answered(history: History) -> Witness:
    for life in history.lives():
        if any(isinstance(e, Stopped) and e.how != "close" for e in life):
            continue
        answers = [e.id for e in life if isinstance(e, Answered)]
        for event in life:
            if isinstance(event, Put):
                yield event, answers.count(event.id) == 1


@clause("P-FLUSH-5", "Under ASYNC_FLUSH, once writing stops the durable mark reaches the end of the log.",
        source="org.apache.rocketmq.store.CommitLog$FlushRealTimeService", kind="eventually", mutants=("async_flush_never",))
def async_flush_catches_up(history: History) -> Witness:
    if history.sync_flush:
        return
    for life in history.lives():
        if not any(isinstance(e, Stopped) and e.how == "close" for e in life):
            continue
        ends = [e.end for e in life if isinstance(e, Put)]
        synced = [e.end for e in life if isinstance(e, SyncDone)]
        if ends:
            yield ends[-1], bool(synced) and synced[-1] >= ends[-1]


@clause("P-FLUSH-6", "After a failed fsync no put is answered SEND_OK until the next start.",
        source="design D5: a failed fsync stops the broker", mutants=("retry_fsync",), upstream="broken: the next fsync may say ok")
def failed_sync_is_final(history: History) -> Witness:
    for life in history.lives():
        failed = False
        for event in life:
            if isinstance(event, SyncFailed):
                failed = True
                yield event, True
            elif isinstance(event, Answered) and failed:
                yield event, event.status != "OK"
