"""# Retention: what goes, when, and what a full disk means

A log that only grows fills any disk. So messages are kept for a time (`fileReservedTime`, 72 hours), and then go: whole segments from the
front, at the hour of the day that is set for it (`deleteWhen`), or at any hour while the disk is fuller than `diskMaxUsedSpaceRatio`. The
newest segment stays whatever its age. A segment has expired when its *messages* have, not when its file was last touched. Above
`diskSpaceCleanForciblyRatio` the oldest segments go, expired or not: a broker that still runs is worth more than its oldest messages.
Above `diskSpaceWarningLevelRatio` puts are refused, definitely, and a producer goes elsewhere; whoever reads goes on reading.

Sources: reference "store" section 8: "oldest first, ≤ `deleteFileBatchMax` 10 per round, ... never the last, stops at the first not
expired"; "> `diskSpaceWarningLevelRatio` 90 % → mark DISK_FULL (puts rejected, SERVICE_NOT_AVAILABLE)"; Apache RocketMQ
`CleanCommitLogService`, `CleanConsumeQueueService`. The seeds do not speak of it: what they say is kept, is kept until retention takes it.

**Not promised**: that an expired message is gone at a certain moment (its segment waits for the hour, for its other messages, and for a
newer segment); that a message is kept for the whole time when the disk is too full; that a message whose time is over can be read, or
cannot; that disk use stays below the limits.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .history import Cleaned, Event, History, Image, Pulled, Put, QueueName, Refused

Witness = Iterator[tuple[object, bool]]
CLEANING = "org.apache.rocketmq.store.DefaultMessageStore$CleanCommitLogService"
QUEUES = "org.apache.rocketmq.store.DefaultMessageStore$CleanConsumeQueueService"


class Shelf:
    """Model: a shelf of segments, each with its messages. New ones come at the end; whoever cleans takes from the front."""

    def __init__(self) -> None:
        self.messages: dict[str, Put] = {}
        self.ends: dict[QueueName, int] = {}
        self.size = 1

    def step(self, event: Event) -> None:
        match event:
            case Put(id=id, queue=queue):
                self.messages[id] = event
                self.ends[queue] = event.queue_offset + 1
            case Refused(id=id) if id in self.messages:
                gone = self.messages.pop(id)
                self.ends[gone.queue] = min(self.ends[gone.queue], gone.queue_offset)
            case Image(final=True):
                self.size = event.segment_size
                found = [Put(r.id, r.queue, r.queue_offset, r.position, r.size, store_ms=r.store_ms) for r in event.records]
                self.messages = {put.id: put for put in found}
                self.ends = {queue: state.max_offset for queue, state in event.queues.items()}
            case Cleaned(after=after) if after:
                self.messages = {id: put for id, put in self.messages.items() if put.phy_offset >= after[0]}

    def first(self, queue: QueueName) -> int:
        """Where a queue begins: at its first message that is kept, or at its end."""
        kept = [put.queue_offset for put in self.messages.values() if put.queue == queue]
        return min(kept, default=self.ends.get(queue, 0))

    def times(self, base: int) -> list[int]:
        """When the messages of a segment were stored."""
        return [put.store_ms for put in self.messages.values() if put.phy_offset // self.size * self.size == base]


def rounds(history: History) -> Iterator[tuple[Cleaned, Shelf]]:
    """Each round of retention, with what was there before."""
    shelf = Shelf()
    for event in history.events:
        if isinstance(event, Cleaned):
            yield event, shelf
        shelf.step(event)


def expired(event: Cleaned, times: list[int]) -> bool:
    return all(event.now_ms - stored >= event.keep_ms for stored in times)


@clause("P-CLEAN-1", "Retention removes only whole segments, the oldest first and never the last; each queue then begins at its first kept "
        "message, and whoever asks for an earlier one is sent there.", source=f"{CLEANING}; {QUEUES}",
        mutants=("deletes_the_last_segment", "newest_go_first", "min_not_moved", "below_the_beginning_is_empty"))
def takes_from_the_front(history: History) -> Witness:
    shelf = Shelf()
    for event in history.events:
        if isinstance(event, Pulled) and event.asked < event.min_offset:
            yield event, (event.code, event.next) == ("MOVED", event.min_offset)
        shelf.step(event)
        if isinstance(event, Cleaned) and event.before:
            left = tuple(base for base in event.after if base <= event.before[-1])
            yield event, left == event.before[len(event.before) - len(left) :] and event.before[-1] in left
            for queue, begins in event.mins.items():
                yield (queue, event), begins == shelf.first(queue)


@clause("P-CLEAN-2", "While the disk is fuller than its limit puts are refused and reads go on; when there is space again, puts are taken "
        "without a restart.", source="reference P-CLEAN-2; org.apache.rocketmq.store.RunningFlags#isWriteable", faults=("disk-full",),
        mutants=("full_disk_ignored", "full_disk_stops_readers", "full_for_good"))
def full_disk_refuses_puts_only(history: History) -> Witness:
    full: Cleaned | None = None  # the last look at the disk
    for event in history.events:
        if isinstance(event, Image):
            full = None
        elif isinstance(event, Cleaned):
            full = event
        elif full is None:
            continue
        elif isinstance(event, Put):
            yield event, full.used <= full.refuse_above
        elif isinstance(event, Refused) and "% full" in event.why:
            yield event, full.used > full.refuse_above
        elif isinstance(event, Pulled) and full.used > full.refuse_above and event.min_offset <= event.asked < event.max_offset:
            yield event, event.code == "FOUND"


@clause("P-CLEAN-3", "No message goes before its time is over, unless the disk is so full that the oldest must go, expired or not.",
        source="reference \"store\" section 8: fileReservedTime", mutants=("goes_an_hour_early", "any_pressure_takes_the_oldest"),
        upstream="judged by the file's time: a copied store starts its age anew (S23)")
def nothing_goes_too_early(history: History) -> Witness:
    for event, shelf in rounds(history):
        for base in set(event.before) - set(event.after):
            yield (base, event), event.used > event.force_above or expired(event, shelf.times(base))


@clause("P-CLEAN-4", "Segments whose messages and whose successor's first have expired go with the next round at the hour for it, or as "
        "soon as the disk is too full to wait: at most ten a round.", source='reference "store" section 8: deleteWhen, deleteFileBatchMax',
        kind="eventually", mutants=("nothing_expires", "waits_for_the_hour", "any_hour_will_do"))
def the_old_goes(history: History) -> Witness:
    for event, shelf in rounds(history):
        if not (event.due or event.used > event.due_above):
            yield event, event.used > event.force_above or len(set(event.before) - set(event.after)) == 0
            continue
        due = 0
        for behind in event.before[1:]:
            first = min(shelf.times(behind), default=None)
            if first is None or event.now_ms - first < event.keep_ms:
                break
            due += 1
        if due:
            yield event, len(set(event.before) - set(event.after)) >= min(due, event.most)
