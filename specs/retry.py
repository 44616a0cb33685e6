"""# Messages that fail: again later, and in the end among the dead letters

Seed `003_c790c013a3e4f038.txt`, 消息可靠性: "能保证消息不丢" (no message is lost): neither is one that could not be handled. Its consumer
gives it back to the broker; the broker stores a copy in the group's retry topic, delayed by a level that grows with each try (10 s, 30 s, 1
min ... 2 h); after the maximum (16) the copy goes to the group's dead letters and is not tried again. The copy keeps body, keys and
UNIQ_KEY, and says which message it comes from. If the broker cannot take it back, the consumer sends it to the retry topic itself, and if
that fails too it is handled again where it is, 5 s later. Sources: `AbstractSendMessageProcessor#consumerSendMsgBack`,
`ConsumeMessageConcurrentlyService` of 5.4.0; reference P-RTY-1, P-RTY-2, "client behaviour" section 6.

**Not promised**: the order of messages that come again; that nobody handles a message twice when the answer to a give-back is lost
(P-DUP-R5); anything for members that consume in order (they try in place) or each for itself (a failed message is dropped).
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .delay import CLOCK_S, PUNCTUAL_S, due_at
from .delivery import DEAD, RETRY, Line, Returned, rolls
from .history import Committed, Copy, Found, Given, Gone, Handled, History, Joined, Left, OffsetTold, SentBack, TakenBack

Witness = Iterator[tuple[object, bool]]
NOT_LOST = "seed 003_c790c013a3e4f038.txt, 消息可靠性: 能保证消息不丢"
SEND_BACK = "org.apache.rocketmq.broker.processor.AbstractSendMessageProcessor#consumerSendMsgBack"
CONCURRENTLY = "org.apache.rocketmq.client.impl.consumer.ConsumeMessageConcurrentlyService"
SETTLED_S, LOCALLY_S = 30.0, 25.0


class Tries:
    """Model: what was given back to brokers, and how often each message can have been tried before."""

    def __init__(self) -> None:
        self.back: dict[tuple[str, str, int], list[SentBack]] = {}  # (group, message, which try comes next)

    def step(self, event: object) -> None:
        if isinstance(event, SentBack):
            self.back.setdefault((event.consumer_group, event.id, event.times + 1), []).append(event)

    def before(self, event: Given) -> list[SentBack]:
        return self.back.get((event.consumer_group, event.id, event.times), [])

    def due(self, event: Given) -> float | None:
        """The earliest time at which it can come; None: nobody gave it back, or only as a dead letter."""
        return min((due_at(back) for back in self.before(event) if back.level >= 0 and back.times < back.limit), default=None)


def comebacks(history: History) -> Iterator[tuple[Given, float | None]]:
    """The first delivery of each record in a retry topic, with the time at which it was due."""
    tries = Tries()
    seen: set[tuple[Line, int]] = set()
    for event in history.events:
        tries.step(event)
        if isinstance(event, Given) and event.queue[0] == RETRY + event.consumer_group:
            place = ((event.consumer_group, event.group, event.queue), event.queue_offset)
            if place not in seen:
                yield event, tries.due(event)
            seen.add(place)


@clause("P-RTY-1", "A message that was given back after k tries comes as try k+1, and not before the delay of level 3+k (or the one asked "
        "for).", source=SEND_BACK, mutants=("retry_level_off_by_one", "retry_keeps_the_count"))
def never_before_its_delay(history: History) -> Witness:
    for event, due in comebacks(history):
        yield event, due is not None and event.at >= due - CLOCK_S


@clause("P-RTY-2", "A message that no broker takes back is handled again where it is within 25 s, and no commit passes it before.",
        source=CONCURRENTLY, kind="eventually", mutants=("sendback_failure_passes_offset", "sendback_failure_is_forgotten"))
def again_from_here(history: History) -> Witness:
    open_: dict[tuple[str, str, str], tuple[Line, int, float]] = {}  # (consumer, group, message)
    concurrent: set[str] = set()
    holder: dict[Line, str] = {}
    for event in history.events:
        match event:
            case Joined(orderly=False, broadcasting=False, consumer_group=of):
                concurrent.add(of)
            case OffsetTold(client=client, consumer_group=of):
                line = (of, event.group, event.queue)
                holder[line] = client
                mine = {key: value for key, value in open_.items() if key[0] == client and value[1] >= event.offset}  # else somebody did it
                open_ = {key: value for key, value in open_.items() if value[0] != line or key in mine}
            case Handled(consumer_group=of, good=True):
                open_.pop((event.consumer, of, event.id), None)
            case Handled(consumer_group=of) if of in concurrent and holder.get((of, event.group, event.queue)) == event.consumer:
                open_[event.consumer, of, event.id] = ((of, event.group, event.queue), event.queue_offset, event.at)
            case TakenBack(good=True):
                open_.pop((event.client, event.consumer_group, event.id), None)
            case Given() if (event.consumer, event.consumer_group, event.id) in open_:
                key = (event.consumer, event.consumer_group, event.id)
                if (event.group, event.queue, event.queue_offset) == (*open_[key][0][1:], open_[key][1]):
                    yield event, event.at - open_.pop(key)[2] <= LOCALLY_S
            case Committed(client=client, consumer_group=of):
                for key, (line, offset, _) in open_.items():
                    if key[0] == client and line == (of, event.group, event.queue):
                        yield (event, key), event.offset <= offset
            case Left(consumer=consumer):
                open_ = {key: value for key, value in open_.items() if key[0] != consumer}
            case Found():
                for key, (_, _, at) in open_.items():
                    if event.at - at > LOCALLY_S:
                        yield key, False


@clause("P-RTY-3", "A message that was taken back comes again within 2 s of its delay, or is a dead letter (brokers up, members settled).",
        source=f"{SEND_BACK}; {NOT_LOST}", kind="eventually", mutants=("retry_waits_a_level_more", "taken_back_and_dropped"))
def comes_again(history: History) -> Witness:
    waits: dict[tuple[str, str, int], float] = {}
    asked: dict[tuple[str, str, str], SentBack] = {}
    returned = Returned()
    for event, roll in rolls(history):
        returned.step(event)
        waits = {key: due for key, due in waits.items() if key[:2] not in returned.gone} if returned.gone else waits
        match event:
            case SentBack():
                asked[event.client, event.node, event.id] = event
            case TakenBack(good=True) if (event.client, event.node, event.id) in asked:
                back = asked[event.client, event.node, event.id]
                if back.level >= 0 and back.times < back.limit:
                    waits[event.consumer_group, event.id, back.times + 1] = due_at(back)
            case Given(consumer_group=of) if (of, event.id, event.times) in waits:
                due = max(waits.pop((of, event.id, event.times)), roll.since(of) + SETTLED_S)
                yield event, event.at - due <= PUNCTUAL_S
            case Found():
                for (of, id, times), due in waits.items():
                    if roll.members.get(of) and event.at - max(due, roll.since(of) + SETTLED_S) > PUNCTUAL_S:
                        yield (of, id, times), False


@clause("P-RTY-4", "After its last try a message lies once among the dead letters, with body, UNIQ_KEY and origin; no later try comes.",
        source=SEND_BACK, mutants=("dlq_loses_key", "dlq_loses_origin", "retries_beyond_the_limit"))
def dead_letters(history: History) -> Witness:
    dead: dict[tuple[str, str], int] = {}
    lying: dict[tuple[str, str], int] = {}
    firsts: dict[str, Copy] = {}
    last: dict[tuple[str, str], int] = {}
    waited: dict[tuple[str, str], int] = {}
    seen: set[tuple[str, Line, int]] = set()
    crashes = 0
    for event in history.events:
        match event:
            case Gone():
                crashes += 1
            case SentBack(consumer_group=of):
                waited.setdefault((of, event.id), crashes)
                if event.level < 0 or event.times >= event.limit:
                    dead[of, event.id] = dead.get((of, event.id), 0) + 1
                    last[of, event.id] = event.times
            case Given(consumer_group=of, id=id) if event.queue[0] == RETRY + of:
                place = (id, (of, event.group, event.queue), event.queue_offset)
                if (of, id) in dead:  # an earlier try may: its offset (P-DUP-R3, P-SLV-R1) or its delivery (P-DUP-R4) was forgotten
                    yield event, event.times <= last[of, id] and (place in seen or crashes > waited[of, id])
                seen.add(place)
            case Copy(queue=(topic, _)) if topic.startswith(DEAD):
                key = (topic.removeprefix(DEAD), event.id)
                lying[key] = lying.get(key, 0) + 1
                first = firsts.get(event.origin)
                yield event, first is not None and (first.id, first.body, first.queue[0]) == (event.id, event.body, event.first_topic)
            case Copy():
                firsts[event.own] = event
            case Found():
                yield from ((key, lying.get(key, 0) == count) for key, count in dead.items())
