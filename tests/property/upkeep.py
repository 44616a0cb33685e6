"""Stories of a store that grows old: retention by age and by a full disk, queries by key and by time. Registered among the scenarios."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import attrs
import trio
from specs.history import Cleaned, History, Pulled, Queried, Searched

from property.image import Sent, decode_delivered
from property.lab import BORN_MS, SMALL, Lab, Op
from property.scenarios import SCENARIOS, scenario
from trmq.log import PullStatus, StoreService
from trmq.log.config import HOUR_MS

CODES = {
    PullStatus.FOUND: "FOUND", PullStatus.OFFSET_TOO_SMALL: "MOVED", PullStatus.OFFSET_OVERFLOW_BADLY: "MOVED",
    PullStatus.MESSAGE_WAS_REMOVING: "MOVED",
}  # fmt: skip
TOPICS = ("Aa", "BB", "C")
"""The first two have one hash, with whatever key behind them."""
KEYS = ("Aa", "BB", "AaAa", "AaBB", "BBAa", "k")
MANY = 70
KEEPING = attrs.evolve(SMALL, index_entries=40)


class Keeper(Lab):
    """A lab that also ages, fills its disk, and asks for messages by key and time; it notes each round of retention."""

    def _note_marks(self, broker: StoreService) -> None:
        super()._note_marks(broker)
        clean, config = broker.clean_expired, self.config

        async def noted(now_ms: int, *, at_once: bool = False, any_hour: bool = False) -> int:
            before, used = self._segments(), self.disk.usage("commitlog")
            gone = await clean(now_ms, at_once=at_once, any_hour=any_hour)
            store = broker.store
            mins = {queue: index.min_offset for queue in store.queues() if (index := store.queue(*queue)) is not None}
            self.events.append(Cleaned(
                before, self._segments(), mins, now_ms, config.reserve_ms,
                any_hour or at_once or datetime.fromtimestamp(now_ms / 1000).hour in config.delete_when, used, config.disk_max_ratio,
                -1.0 if at_once else config.disk_force_ratio if config.clean_forcibly else 2.0, config.disk_warn_ratio,
                config.delete_batch_max,
            ))  # fmt: skip
            return gone

        broker.clean_expired = noted  # type: ignore[method-assign]

    def _segments(self) -> tuple[int, ...]:
        return tuple(sorted(int(name) for name in self.disk.names("commitlog")))

    async def _age(self, hours: float) -> None:
        self.now_ms += int(hours * HOUR_MS)
        await trio.lowlevel.checkpoint()

    async def _fill(self, ratio: float) -> None:
        """The disk is in use to this part from now on."""
        self.disk.usage = lambda folder: ratio  # type: ignore[method-assign]
        await trio.lowlevel.checkpoint()

    async def _round(self) -> None:
        """Retention looks, at whatever hour it is."""
        assert self.service is not None
        await self.service.flush()
        await self.service.clean_expired(self.now_ms)

    async def _keyed(self, topic: str, keys: str, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            id = f"m{self.number}"
            properties = {"UNIQ_KEY": id, "KEYS": keys, "TAGS": f"t{self.number % 3}"}
            message = self.sent[id] = Sent(id, topic, self.number % 2, id.encode(), properties, 0, BORN_MS + self.number, 0)
            self._note_put(message, self._append(message))
            await self._commit([message], True)
            self.now_ms += self.number * 397 % 2500

    async def _poll(self) -> None:
        """Ask every queue from its beginning of old, from where it begins now, and from behind its end."""
        assert self.service is not None
        store = self.service.store
        for queue in store.queues():
            index = store.queue(*queue)
            assert index is not None
            for asked in (0, index.min_offset, index.max_offset - 1, index.max_offset + 3):
                pull = store.pull(*queue, asked, 4, 4096)
                self.events.append(Pulled(
                    "reader", "lab", queue, "", asked, CODES.get(pull.status, "EMPTY"), pull.next_offset, 0,
                    min_offset=pull.min_offset, max_offset=pull.max_offset,
                ))  # fmt: skip
        await trio.lowlevel.checkpoint()

    async def _query_all(self) -> None:
        """By every topic and key that there is, for various times and counts."""
        assert self.service is not None
        dice, first = random.Random(f"query/{self.seed}/{self.number}"), min((m for m in self._times()), default=self.now_ms)
        some = dice.sample(sorted(self.sent), min(6, len(self.sent)))
        self._query("C", "k", 100, 0, 1 << 60)
        for topic in TOPICS:
            for key in (*KEYS, "T#t1", *some):
                begin, end = first - 5000, self.now_ms + 5000
                if dice.random() < 0.4:
                    begin, end = sorted((dice.randrange(first, self.now_ms + 1), dice.randrange(first, self.now_ms + 1)))
                self._query(topic, key, dice.choice((1, 2, 5, 64, 100)), begin, end)
        await trio.lowlevel.checkpoint()

    def _times(self) -> list[int]:
        return [event.store_ms for event in self.events if getattr(event, "store_ms", 0)]

    def _query(self, topic: str, key: str, most: int, begin_ms: int, end_ms: int) -> None:
        assert self.service is not None
        views, _, _ = self.service.store.query(topic, key, most, begin_ms, end_ms)
        found = tuple(decode_delivered(view, self.sent)[0].id for view in views)
        self.events.append(Queried(topic, key, begin_ms, end_ms, most, found))

    async def _search_all(self) -> None:
        """The places of times at which something was stored, of the moments around them, and of long ago and far ahead."""
        assert self.service is not None
        store = self.service.store
        times = sorted(set(self._times()))
        moments = sorted({at + off for at in times[:8] + times[-8:] for off in (-1, 0, 1)} | {0, self.now_ms + 9999})
        for queue in store.queues():
            index = store.queue(*queue)
            assert index is not None
            for ms in moments:
                for boundary in ("LOWER", "UPPER"):
                    place = store.offset_by_time(*queue, ms, boundary)  # type: ignore[arg-type]
                    self.events.append(Searched(queue, ms, boundary, place, index.min_offset, index.max_offset))
        await trio.lowlevel.checkpoint()


def keepers(seed: str, patient: bool, **changes: Any) -> Iterator[Keeper]:
    for sync_flush in (True, False):
        yield Keeper(seed, sync_flush=sync_flush, config=attrs.evolve(KEEPING, **changes), patient=patient)


@scenario
def days_go_by(seed: str, patient: bool) -> Iterator[History]:
    """Some messages a day, and a look at the log every hour: segments go after three days, at one hour of the day."""
    day: tuple[Op, ...] = (("send", 4), ("poll",), *(("age", 1), ("round",)) * 25)
    for lab in keepers(seed, patient):
        lab.live((*day * 6, ("poll",), ("send", 2), ("poll",)))
        lab.live((*day[:20], ("poll",), ("pull_all",)), end="leave")
        lab.crash("kill")
        lab.live((*day, ("send", 1), ("poll",)))
        yield lab.history("days")


@scenario
def disk_fills_up(seed: str, patient: bool) -> Iterator[History]:
    """Fuller and fuller: what has expired goes at any hour, then the oldest; then puts are refused until there is space."""
    for lab in keepers(seed, patient, delete_when=()):
        grow: tuple[Op, ...] = (("send", 5), ("age", 20), ("send", 5), ("age", 20), ("send", 5), ("poll",))
        lab.live((
            *grow, *grow, *grow, ("round",), ("fill", 0.8), ("round",), ("poll",), ("send", 2), ("fill", 0.87), ("round",), ("poll",),
            ("send", 4), ("fill", 0.95), ("round",), ("send", 2), ("poll",), ("pull_all",), ("round",), ("send", 1), ("poll",),
            ("fill", 0.5), ("round",), ("send", 4), ("poll",),
        ))  # fmt: skip
        lab.live((("poll",), ("send", 6), ("fill", 0.95), ("sleep", 11), ("send", 1), ("poll",), ("fill", 0.1), ("sleep", 11), ("send", 1)))
        yield lab.history("disk fills up")


@scenario
def full_but_patient(seed: str, patient: bool) -> Iterator[History]:
    """With cleanFileForciblyEnable off, no pressure makes anything go before its time."""
    for lab in keepers(seed, patient, delete_when=(), clean_forcibly=False):
        lab.live((
            ("send", 9), ("fill", 0.95), ("round",), ("send", 1), ("poll",), ("age", 80), ("round",), ("fill", 0.2), ("round",),
            ("send", 2),
        ))  # fmt: skip
        yield lab.history("full but patient")


@scenario
def asked_by_key(seed: str, patient: bool) -> Iterator[History]:
    """Topics and keys with one hash, many messages with one key; asked in the life that stored them, and after each kind of stop."""
    for lab in keepers(seed, patient):
        some: list[Op] = [("keyed", topic, keys) for keys in ("Aa k", "BB", "AaAa BBAa", "AaBB", "BB k") for topic in TOPICS]
        lab.live((*some, ("query_all",), ("keyed", "C", "k", MANY if lab.config.sync_flush else 3), ("query_all",), ("search_all",)))
        for stop in ("power", "kill", ""):
            lab.live((("query_all",), *some[:4], ("checkpoint",), *some[4:9], ("query_all",)), end="leave" if stop else "close")
            if stop:
                lab.crash(stop, dice=stop)  # type: ignore[arg-type]
            lab.live((("query_all",),))
        lab.live((("clean",), ("query_all",), ("poll",), ("search_all",)))
        lab.live((("query_all",),))
        yield lab.history("by key")


__all__ = ["SCENARIOS"]
