"""# Finding a message: by key, and by time

A message can be asked for by its unique key, by each of its keys and by its tag; and a queue can be asked which place belongs to a time.
Seed `002_44c1a7c5303d32c6.txt`, Index Service: "根据特定 Message key 对消息进行索引以便快速查询" (messages are indexed by key so that they
are found quickly).

The index knows hashes of keys only, so what it names are candidates: whoever asks reads each of them and compares. It is derived from the
log, like the queues: whatever a crash does to it, what it lacks is indexed again at the start. There is no index of times: store times
never fall along a queue, so the place is found by halving.

Other sources: `IndexService`, `IndexFile`, `ConsumeQueue#getOffsetInQueueByTime`; reference "store" sections 2.4 and 3.

**Not promised**: that a message is found by key before it may be read; that one is found that retention has taken; an order among messages
of the same place in time (the newest in the log come first); that more than 64 are given at once; which place belongs to a time after the
clock of a *former* broker went back and forth.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from .clause import STOPS, clause
from .history import Answered, Cleaned, Event, History, Image, Put, Queried, Refused, Searched, Stopped

Witness = Iterator[tuple[object, bool]]
SEED = "seed 002_44c1a7c5303d32c6.txt, Index Service: 根据特定 Message key 对消息进行索引以便快速查询"
QUERY = "org.apache.rocketmq.store.DefaultMessageStore#queryMessage"
MOST = 64
SECOND_MS = 1000


class Book:
    """Model: a list of messages with their topics, keys and times. Who asks for a key reads all of it; who asks for a time, too."""

    def __init__(self) -> None:
        self.there: dict[str, Put] = {}
        self.sure: set[str] = set()  # answered OK, or found by a start

    def step(self, event: Event) -> None:
        match event:
            case Put(id=id):
                self.there[id] = event
            case Refused(id=id):
                self.there.pop(id, None)
            case Answered(id=id, status="OK"):
                self.sure.add(id)
            case Image(final=True):
                found = [Put(r.id, r.queue, r.queue_offset, r.position, r.size, keys=r.keys, store_ms=r.store_ms) for r in event.records]
                self.there = {put.id: put for put in found}
                self.sure = set(self.there)
            case Cleaned(after=after) if after:
                self.there = {id: put for id, put in self.there.items() if put.phy_offset >= after[0]}
            case Stopped():
                self.sure = set()

    def fits(self, id: str, ask: Queried, slack_ms: int = 0) -> bool:
        put = self.there.get(id)
        if put is None or (put.queue[0], ask.key in put.keys) != (ask.topic, True):
            return False
        return ask.begin_ms - slack_ms <= put.store_ms <= ask.end_ms + slack_ms

    def missing(self, ask: Queried) -> list[str]:
        """What should have been found: all of it, or, when enough was found, all that is newer than the oldest found."""
        full = len(ask.found) >= min(ask.most, MOST)
        oldest = self.there[ask.found[-1]].phy_offset if full and ask.found and ask.found[-1] in self.there else -1
        due = [id for id in self.there if id in self.sure and self.fits(id, ask) and self.there[id].phy_offset > oldest]
        return [id for id in due if id not in ask.found]


def queries(history: History) -> Iterator[tuple[Queried, Book]]:
    book = Book()
    for event in history.events:
        if isinstance(event, Queried):
            yield event, book
        book.step(event)


@lru_cache(100_000)
def java_hash(text: str) -> int:
    """What the index knows of a topic and a key (`String#hashCode`)."""
    value = 0
    raw = text.encode("utf-16-be")
    for at in range(0, len(raw), 2):
        value = (value * 31 + int.from_bytes(raw[at : at + 2], "big")) & 0xFFFFFFFF
    return min(value, 0x100000000 - value)


def collides(ask: Queried, book: Book) -> bool:
    """Whether something else in the book looks to the index like what is asked for."""
    wanted = java_hash(f"{ask.topic}#{ask.key}")
    others = {(put.queue[0], key) for put in book.there.values() for key in put.keys} - {(ask.topic, ask.key)}
    return any(java_hash(f"{topic}#{key}") == wanted for topic, key in others)


@clause("P-IDX-1", "A query by key gives only messages of that topic with that key, stored in the time asked for (to the second), the "
        "newest first, no more than asked for and than 64.", source=SEED,
        mutants=("index_wrong_topic", "collision_is_shown", "time_is_ignored", "gives_without_end", "oldest_come_first"),
        upstream="what collides is shown: the client has to sort it out")
def only_what_was_asked_for(history: History) -> Witness:
    for ask, book in queries(history):
        places = [book.there[id].phy_offset for id in ask.found if id in book.there]
        good = all(book.fits(id, ask, SECOND_MS) for id in ask.found) and len(ask.found) <= min(ask.most, MOST)
        yield ask, good and places == sorted(places, reverse=True) and len(set(ask.found)) == len(ask.found)


@clause("P-IDX-2", "Whatever is acknowledged and kept is found by each of its keys, also after a stop of any kind.", source=SEED,
        faults=STOPS, mutants=("index_is_not_rebuilt", "one_file_is_asked", "last_key_is_left_out"),
        upstream="broken after an unclean stop: files are thrown away and built again in part only (S11)")
def everything_is_found(history: History) -> Witness:
    for ask, book in queries(history):
        yield ask, not book.missing(ask)


@clause("P-IDX-3", "Where two keys have one hash, each finds its own messages: a collision shows nothing else and hides nothing.",
        source=f"{QUERY}; reference P-IDX-3", mutants=("collision_hides", "collision_is_shown"),
        upstream="broken: what collides is shown, and uses up the places of what was asked for (S10)")
def collisions_do_not_matter(history: History) -> Witness:
    for ask, book in queries(history):
        if collides(ask, book):
            yield ask, not book.missing(ask) and all(book.fits(id, ask, SECOND_MS) for id in ask.found)


@clause("P-TIME-1", "For a time, LOWER is the first place of the queue stored then or later (its end if none), UPPER the last stored then "
        "or earlier (its beginning if none).", source="org.apache.rocketmq.store.ConsumeQueue#getOffsetInQueueByTime",
        mutants=("time_search_off_by_one", "upper_is_lower"), upstream="holds while the clock does not go back (S5)")
def the_place_of_a_time(history: History) -> Witness:
    book = Book()
    for event in history.events:
        if isinstance(event, Searched):
            mine = [put for put in book.there.values() if put.queue == event.queue]
            mine = [put for put in mine if event.min_offset <= put.queue_offset < event.max_offset]
            if event.boundary == "LOWER":
                wanted = min((put.queue_offset for put in mine if put.store_ms >= event.ms), default=event.max_offset)
            else:
                wanted = max((put.queue_offset for put in mine if put.store_ms <= event.ms), default=event.min_offset)
            yield event, event.offset == wanted
        book.step(event)
