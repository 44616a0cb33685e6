"""# Starting again after a stop of any kind

A start finds the log as the stop left it and decides what of it is real. After a clean close that is everything; after a kill everything
that was acknowledged; after a power cut everything that was durable, and a prefix of the rest. What is cut away never comes back.

Sources: features document, "Message reliability"; Apache RocketMQ `CommitLog#recoverNormally`, `#recoverAbnormally`, `truncateDirtyFiles`.

**Not promised**: that the unsynced tail survives a power cut under ASYNC_FLUSH; that a queue offset handed out for a lost message is not
handed out again to another.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .history import Answered, Event, History, Image, Put, Stopped

Witness = Iterator[tuple[object, bool]]
RECOVER = "org.apache.rocketmq.store.CommitLog#recoverAbnormally"


def restarts(history: History) -> Iterator[tuple[list[Event], str, Image]]:
    """(everything before, how the last life ended, what the start found) for each start that follows a stop."""
    how = None
    for at, event in enumerate(history.events):
        if isinstance(event, Stopped):
            how = event.how
        elif isinstance(event, Image) and how is not None:
            yield list(history.events[:at]), how, event
            how = None


def acked(events: list[Event]) -> list[str]:
    return [e.id for e in events if isinstance(e, Answered) and e.status == "OK"]


def present(image: Image) -> set[str]:
    return {r.id for r in image.records if r.intact}


@clause("P-REC-1", "After a clean close everything is as before: log end, queue ends, and no abort marker.",
        source="org.apache.rocketmq.store.CommitLog#recoverNormally", mutants=("close_forgets_tail", "abort_marker_stays"))
def clean_close_keeps_all(history: History) -> Witness:
    for before, how, image in restarts(history):
        if how == "close":
            puts = [e for e in before if isinstance(e, Put)]
            last_image = next((e for e in reversed(before) if isinstance(e, Image)), None)
            end = max([p.end for p in puts[-1:]] + ([last_image.max_phy] if last_image else []), default=0)
            yield image.max_phy, image.max_phy >= end and not image.abort_marker_before


@clause("P-REC-2", "After a process kill no acknowledged record is missing, in any flush mode.",
        source=RECOVER, mutants=("recovery_cuts_too_much", "ack_before_write"))
def kill_loses_nothing_acked(history: History) -> Witness:
    for before, how, image in restarts(history):
        if how == "kill" and not any(isinstance(e, Stopped) and e.how == "power" for e in before):
            for name in acked(before):
                yield name, name in present(image)


@clause("P-REC-3", "After a power cut the log is a prefix of what was written, cut at a record boundary; under SYNC_FLUSH it holds "
        "every acknowledged record.", source=RECOVER, mutants=("ack_before_fsync", "no_sync_on_recover", "no_directory_sync"))
def power_cut_leaves_a_prefix(history: History) -> Witness:
    for before, how, image in restarts(history):
        if how != "power":
            continue
        at = {r.position: r for r in image.records}
        position = image.min_phy
        blanks = dict(image.blanks)
        while position < image.max_phy and (position in at or position in blanks):
            position += at[position].size if position in at else blanks[position]
        yield image.max_phy, position == image.max_phy
        if history.sync_flush:
            for name in acked(before):
                yield name, name in present(image)


@clause("P-REC-4", "A record that was torn or altered is never served: every record found is one that was sent, unaltered.",
        source="org.apache.rocketmq.store.CommitLog#checkMessageAndReturnSize", mutants=("no_crc", "header_unchecked"),
        upstream="broken for header and properties: only the body has a CRC")
def nothing_altered(history: History) -> Witness:
    for before, _, image in restarts(history):
        sent = {e.id for e in before if isinstance(e, Put)}
        for r in image.records:
            yield r, r.intact and r.id in sent


@clause("P-REC-5", "A record that a recovery dropped never reappears.", source="Apache RocketMQ truncateDirtyFiles leaves the bytes",
        mutants=("no_zero_after_cut",), upstream="broken: a stale record at the new tail is accepted after the next crash")
def no_resurrection(history: History) -> Witness:
    dropped: set[str] = set()
    put: set[str] = set()
    for event in history.events:
        if isinstance(event, Put):
            put.add(event.id)
        elif isinstance(event, Image):
            there = {r.id for r in event.records}
            for name in dropped:
                yield name, name not in there
            dropped |= put - there


@clause("P-REC-6", "Recovery is idempotent: a crash inside it, followed by another, gives the same log.",
        source=RECOVER, mutants=("recovery_not_idempotent",))
def recovery_is_idempotent(history: History) -> Witness:
    last: Image | None = None
    touched = True
    for event in history.events:
        if isinstance(event, Put):
            touched = True
        elif isinstance(event, Image):
            if last is not None and not touched:
                yield event.max_phy, (event.max_phy, event.records) == (last.max_phy, last.records)
            last, touched = event, False


@clause("P-REC-7", "After any recovery each queue ends right after its last retained record: no hole, no overhang.",
        source="org.apache.rocketmq.store.queue.ConsumeQueueStore#recover", mutants=("queue_hole", "queue_overhang"),
        upstream="broken: the checkpoint runs ahead of the queue files")
def queues_match_log(history: History) -> Witness:
    for _, _, image in restarts(history):
        ends: dict[object, int] = {}
        for r in image.records:
            ends[r.queue] = max(ends.get(r.queue, 0), r.queue_offset + 1)
        for queue, end in ends.items():
            yield queue, queue in image.queues and image.queues[queue].max_offset == end


@clause("P-REC-8", "Two processes never both recover or append to one store: the lock is taken before anything is read or written.",
        source="design D10", mutants=("lock_after_recovery",), upstream="broken: the lock is taken after recovery")
def one_owner(history: History) -> Witness:
    owned = False
    for event in history.events:
        if isinstance(event, Image):
            yield event.max_phy, not owned
            owned = True
        elif isinstance(event, Stopped):
            owned = False


@clause("P-REC-9", "A crash at any call while a config file is written leaves the old or the new content loadable.",
        source="org.apache.rocketmq.common.ConfigManager#persist", mutants=("config_in_place",))
def config_survives(history: History) -> Witness:
    """Judged on its own runs: the config file is written between two `Put`s that stand for its old and new content."""
    for before, _, image in restarts(history):
        versions = [e.id for e in before if isinstance(e, Put) and e.queue[0] == "config"]
        if versions:
            found = {r.id for r in image.records if r.queue[0] == "config"}
            yield found, bool(found & set(versions[-2:]))
