"""What monitoring asks a broker: rates over 10 s, 60 s and 600 s, totals since midnight, counts per topic and group, latencies.

The hot path only adds integers: one per stored message (`topic_puts[topic] += n`), a few per pull answer or read batch.
Rates come out of samples of those totals. A sample is taken every 10 s while something happens; a broker on which nothing
has moved for as long as a rate looks back sleeps until something does.

Counts per topic and group (`VIEW_BROKER_STATS_DATA`) are kept for a minute, an hour and a day, each with its own step, and
forgotten a day after they last moved.

Times are ms of the wall clock for what is shown and seconds of Trio's clock for what is measured.
Source: `StoreStatsService`, `BrokerStatsManager`, `BrokerStats`; reference "protocol" section 11.6.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import attrs
import trio

SAMPLE_S = 10.0
WINDOWS_S = (10, 60, 600)
LATENCY_STEPS_MS = (0, 10, 50, 100, 200, 500, 1000, 2000, 3000, 4000, 5000, 10_000)
"""Upper ends of the latency classes that Apache prints; one more class lies above."""
FINE_STEPS_MS = tuple(round(0.05 * 1.25**n, 3) for n in range(60))
"""Upper ends of the classes behind the percentiles: 0.05 ms to 26 s in steps of a quarter."""
SERIES_MAX = 20_000
"""Items kept per statistic; more are not counted."""

TOPIC_PUT_NUMS = "TOPIC_PUT_NUMS"
GROUP_GET_NUMS = "GROUP_GET_NUMS"
GROUP_GET_SIZE = "GROUP_GET_SIZE"
SNDBCK_PUT_NUMS = "SNDBCK_PUT_NUMS"


class Window(NamedTuple):
    """What happened in one window: the sum, per second, and per call (`sum / times`)."""

    sum: int
    tps: float
    average: float


class Sample(NamedTuple):
    """Totals at one moment (seconds of Trio's clock)."""

    at: float
    puts: int
    found: int
    missed: int
    transferred: int


class Series:
    """The history of one count: values at steps of 10 s, 10 min and 1 h."""

    __slots__ = ("_tiers", "changed_at", "times", "value")

    def __init__(self, now: float) -> None:
        self.value = 0
        self.times = 0
        self.changed_at = now
        self._tiers: tuple[deque[tuple[float, int, int]], ...] = tuple(deque([(now, 0, 0)], maxlen=size) for size in (7, 7, 25))

    def sample(self, now: float, *, as_before: bool = False) -> None:
        """Take a step in every tier that is due; `as_before` repeats the last one (nothing had moved until now)."""
        for tier, step in zip(self._tiers, (SAMPLE_S, 600.0, 3600.0), strict=True):
            if now - tier[-1][0] >= step - 0.5:
                value, times = tier[-1][1:] if as_before else (self.value, self.times)
                if value != tier[-1][1]:
                    self.changed_at = now
                tier.append((now, value, times))

    def window(self, which: int, now: float) -> Window:
        """Minute (0), hour (1) or day (2) up to now."""
        at, value, times = self._tiers[which][0]
        for step in reversed(self._tiers[which]):
            if now - step[0] >= (60, 3600, 86_400)[which] - 0.5:
                at, value, times = step
                break
        total = self.value - value
        return Window(total, total / max(now - at, 1.0), total / max(self.times - times, 1))


@attrs.frozen
class Latencies:
    """How long storing took: ms at the 99th and 99.9th percentile and at most, and a line of classes as Apache prints them."""

    p99_ms: float
    p999_ms: float
    max_ms: float
    classes: str


class BrokerStats:
    """All counts of one broker. `run` takes the samples."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self.boot_ms = wall_ms()
        self.topic_puts: defaultdict[str, int] = defaultdict(int)
        """Messages stored per topic since the start. Whoever stores adds to it."""
        self.put_failed = 0
        self.found = 0
        self.missed = 0
        self.transferred = 0
        self.get_max_ms = 0.0
        self._samples: deque[Sample] = deque(maxlen=WINDOWS_S[-1] // int(SAMPLE_S) + 2)
        self._series: dict[tuple[str, str], Series] = {}
        self._fine = [0] * (len(FINE_STEPS_MS) + 1)
        self._classes = [0] * (len(LATENCY_STEPS_MS) + 1)
        self._put_max_ms = 0.0
        self._seen_puts: dict[str, int] = {}
        self._bell: trio.Event | None = None
        self._day = self._today()
        self._morning = {"put": (0, 0), "get": (0, 0)}  # (yesterday's, today's) totals at midnight

    # --- counting

    def stored(self, count: int, ms: float) -> None:
        """A read batch stored `count` messages, answered `ms` after it was read."""
        self._fine[bisect_left(FINE_STEPS_MS, ms)] += count
        self._classes[bisect_left(LATENCY_STEPS_MS, ms)] += count
        if ms > self._put_max_ms:
            self._put_max_ms = ms
        if self._bell is not None:
            self._bell.set()

    def pulled(self, group: str, topic: str, count: int, size: int) -> None:
        """A pull answered `count` messages of `size` bytes."""
        self.found += 1
        self.transferred += count
        key = f"{topic}@{group}"
        self._add(GROUP_GET_NUMS, key, count)
        self._add(GROUP_GET_SIZE, key, size)
        if self._bell is not None:
            self._bell.set()

    def sent_back(self, group: str, topic: str) -> None:
        """A consumer gave a message back."""
        self._add(SNDBCK_PUT_NUMS, f"{topic}@{group}", 1)

    def _add(self, name: str, key: str, count: int) -> None:
        series = self._series.get((name, key))
        if series is None:
            if len(self._series) >= SERIES_MAX:
                return
            series = self._series[name, key] = Series(trio.current_time())
        series.value += count
        series.times += 1

    # --- showing

    @property
    def puts(self) -> int:
        return sum(self.topic_puts.values())

    def rate(self, what: str, window_s: int) -> float:
        """Per second over the last `window_s` (or since the start): `what` is a counted member of `Sample`."""
        now = self._sample()
        base = now
        for sample in reversed(self._samples):
            base = sample
            if now.at - sample.at >= window_s:
                break
        elapsed = now.at - base.at
        return float(getattr(now, what) - getattr(base, what)) / elapsed if elapsed > 0 else 0.0

    def triple(self, what: str) -> str:
        """The rates over 10 s, 60 s and 600 s, as tools read them; `total` is found and missed together."""
        names = ("found", "missed") if what == "total" else (what,)
        return " ".join(str(sum(self.rate(name, window) for name in names)) for window in WINDOWS_S)

    def windows(self, name: str, key: str) -> tuple[Window, Window, Window] | None:
        """(minute, hour, day) of one item, None if it was never counted."""
        self._count_topics()
        series = self._series.get((name, key))
        if series is None:
            return None
        now = trio.current_time()
        return series.window(0, now), series.window(1, now), series.window(2, now)

    def minute_rate(self, name: str, key: str) -> float:
        found = self.windows(name, key)
        return 0.0 if found is None else found[0].tps

    def latencies(self) -> Latencies:
        labels = ["[<=0ms]", *(f"[{low}~{high}ms]" for low, high in pairwise(LATENCY_STEPS_MS)), "[10s~]"]
        classes = " ".join(f"{label}:{count}" for label, count in zip(labels, self._classes, strict=True))
        return Latencies(self._percentile(0.99), self._percentile(0.999), self._put_max_ms, classes)

    def mornings(self) -> dict[str, tuple[int, int, int]]:
        """Totals of "put" and "get": at yesterday's midnight, at today's, now. Midnight is local time."""
        self._roll_day()
        return {"put": (*self._morning["put"], self.puts), "get": (*self._morning["get"], self.transferred)}

    def forget(self, topic_or_group: str) -> None:
        """Drop the counts of a deleted topic or group."""
        for name, key in [k for k in self._series if topic_or_group in k[1].split("@")]:
            del self._series[name, key]

    # --- sampling

    async def run(self) -> None:
        """Take samples for ever; sleeps while nothing changes."""
        quiet = 0
        self._take()
        while True:
            await trio.sleep(SAMPLE_S)
            quiet = 0 if self._take() else quiet + 1
            if quiet > WINDOWS_S[-1] / SAMPLE_S + 1:
                self._bell = trio.Event()
                await self._bell.wait()
                self._bell = None
                self._resume()
                quiet = 0

    def _take(self) -> bool:
        """One step of everything; False if nothing has moved since the last."""
        self._roll_day()
        self._count_topics()
        now = self._sample()
        moved = not self._samples or self._samples[-1][1:] != now[1:]
        self._samples.append(now)
        for key, series in list(self._series.items()):
            series.sample(now.at)
            if now.at - series.changed_at > 86_400:
                del self._series[key]
        return moved

    def _resume(self) -> None:
        """Something moves again: until this moment everything was as the last samples say."""
        self._roll_day()
        now = trio.current_time()
        self._samples.append(self._samples[-1]._replace(at=now))
        for series in self._series.values():
            series.sample(now, as_before=True)

    def _sample(self) -> Sample:
        return Sample(trio.current_time(), self.puts, self.found, self.missed, self.transferred)

    def _count_topics(self) -> None:
        for topic, total in self.topic_puts.items():
            new = total - self._seen_puts.get(topic, 0)
            if new:
                self._seen_puts[topic] = total
                self._add(TOPIC_PUT_NUMS, topic, new)

    def _percentile(self, share: float) -> float:
        rest = (1 - share) * sum(self._fine)
        for at in range(len(self._fine) - 1, -1, -1):
            rest -= self._fine[at]
            if rest < 0:
                return min(FINE_STEPS_MS[at], self._put_max_ms) if at < len(FINE_STEPS_MS) else self._put_max_ms
        return 0.0

    def _today(self) -> int:
        return datetime.fromtimestamp(self._wall_ms() / 1000).toordinal()

    def _roll_day(self) -> None:
        """After a midnight: the totals then were those of the last sample, at most a step old."""
        today = self._today()
        if today != self._day:
            put, get = (self._samples[-1].puts, self._samples[-1].transferred) if self._samples else (0, 0)
            old = self._morning if today == self._day + 1 else {"put": (put, put), "get": (get, get)}  # a day nobody was there for
            self._morning = {"put": (old["put"][1], put), "get": (old["get"][1], get)}
            self._day = today
