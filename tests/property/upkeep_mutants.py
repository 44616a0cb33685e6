"""Seeded bugs of retention, the key index and the search by time. Registered among the store's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from property.mutants import MUTANTS, Patch, mutant, wrap
from trmq.log import search, service, store
from trmq.log.commit_log import CommitLog
from trmq.log.config import HOUR_MS, StoreConfig
from trmq.log.key_index import KeyIndex
from trmq.log.queue_index import QueueIndex
from trmq.log.queue_table import QueueIndexSet
from trmq.log.reading import Pull, PullStatus
from trmq.log.retention import Found, Pressure
from trmq.log.search import Reader
from trmq.log.service import StoreService

# --- retention


@mutant("P-CLEAN-1", scenarios=("days_go_by",))
def deletes_the_last_segment(patch: Patch) -> None:
    """When all have expired, none is kept; the log begins again at the next boundary."""

    async def clean(original: Any, self: StoreService, *args: Any) -> int:
        gone: int = await original(self, *args)
        log = self.store.log
        if gone and len(log.segments) > 1:
            while len(log.segments) > 1:
                log.drop_first()
                gone += 1
            self.host.disk.remove(log.segments[0].file.path)
        return gone

    wrap(patch, StoreService, "_clean", clean)


@mutant("P-CLEAN-1", scenarios=("days_go_by",))
def newest_go_first(patch: Patch) -> None:
    """The second segment goes instead of the first."""

    def drop_first(original: Any, self: CommitLog) -> None:
        if len(self.segments) > 2:
            self.segments[0], self.segments[1] = self.segments[1], self.segments[0]
        original(self)

    wrap(patch, CommitLog, "drop_first", drop_first)


@mutant("P-CLEAN-1", scenarios=("days_go_by", "disk_fills_up"))
def min_not_moved(patch: Patch) -> None:
    """Queues go on to begin at messages that are gone."""
    patch.setattr(QueueIndexSet, "correct_min", lambda self, min_phy: None)
    patch.setattr(QueueIndex, "correct_min", lambda self, min_phy: None)


@mutant("P-CLEAN-1", scenarios=("days_go_by",))
def below_the_beginning_is_empty(patch: Patch) -> None:
    """Whoever asks for what is gone is told to come again."""

    def pull(original: Any, self: Reader, topic: str, queue_id: int, offset: int, *args: Any) -> Pull:
        found: Pull = original(self, topic, queue_id, offset, *args)
        return found._replace(status=PullStatus.OFFSET_FOUND_NULL, next_offset=offset) if offset < found.min_offset else found

    wrap(patch, Reader, "pull", pull)


@mutant("P-CLEAN-2", scenarios=("disk_fills_up",))
def full_disk_ignored(patch: Patch) -> None:
    wrap(patch, service, "pressure", lambda original, config, usage: attrs.evolve(original(config, usage), refuse=None))


@mutant("P-CLEAN-2", scenarios=("disk_fills_up",))
def full_for_good(patch: Patch) -> None:
    """What was refused once is refused until a restart."""
    said: list[str] = []

    def pressure(original: Any, config: StoreConfig, usage: float) -> Found:
        found: Found = original(config, usage)
        said.extend([found.refuse] if found.refuse else [])
        return attrs.evolve(found, refuse=said[0] if said else None)

    wrap(patch, service, "pressure", pressure)


@mutant("P-CLEAN-2", scenarios=("disk_fills_up",))
def full_disk_stops_readers(patch: Patch) -> None:
    def pull(original: Any, self: store.Store, *args: Any) -> Pull:
        found: Pull = original(self, *args)
        return found if self.refuse_writes is None else found._replace(status=PullStatus.OFFSET_FOUND_NULL, slices=[])

    wrap(patch, Reader, "pull", pull)


@mutant("P-CLEAN-3", scenarios=("days_go_by",))
def goes_an_hour_early(patch: Patch) -> None:
    def deletable(original: Any, config: StoreConfig, ages: Sequence[int | None], level: Pressure) -> int:
        return int(original(attrs.evolve(config, reserve_ms=config.reserve_ms - 30 * HOUR_MS), ages, level))

    wrap(patch, service, "deletable", deletable)


@mutant("P-CLEAN-3", scenarios=("disk_fills_up",))
def any_pressure_takes_the_oldest(patch: Patch) -> None:
    def pressure(original: Any, config: StoreConfig, usage: float) -> Found:
        found: Found = original(config, usage)
        return attrs.evolve(found, level=Pressure.FORCE) if found.level is Pressure.EXPIRED else found

    wrap(patch, service, "pressure", pressure)


@mutant("P-CLEAN-4", scenarios=("days_go_by",))
def nothing_expires(patch: Patch) -> None:
    """The age of a segment is that of its file, which was written a moment ago (S23)."""
    wrap(patch, store.Store, "segment_ages", lambda original, self, now_ms: [0 for _ in original(self, now_ms)])


@mutant("P-CLEAN-4", scenarios=("disk_fills_up",))
def waits_for_the_hour(patch: Patch) -> None:
    """A disk that fills up is no reason to look before the hour."""
    wrap(patch, service, "pressure", lambda original, config, usage: attrs.evolve(original(config, usage), level=Pressure.NONE))


@mutant("P-CLEAN-4", scenarios=("days_go_by",))
def any_hour_will_do(patch: Patch) -> None:
    async def clean(original: Any, self: StoreService, now_ms: int, at_once: bool, any_hour: bool) -> int:
        return int(await original(self, now_ms, at_once, True))

    wrap(patch, StoreService, "_clean", clean)


# --- the key index


@mutant("P-IDX-1", scenarios=("asked_by_key",))
def index_wrong_topic(patch: Patch) -> None:
    """A message of another topic is given if topic and key together have the hash of what was asked for."""
    wrap(patch, search, "_has_key", lambda original, record, topic, key: any(original(record, name, key) for name in ("Aa", "BB", "C")))


@mutant("P-IDX-1", "P-IDX-3", scenarios=("asked_by_key",))
def collision_is_shown(patch: Patch) -> None:
    """What the index names is given without a look at the record (S10)."""
    patch.setattr(search, "_has_key", lambda record, topic, key: True)


@mutant("P-IDX-3", scenarios=("asked_by_key",))
def collision_hides(patch: Patch) -> None:
    """As many candidates as were asked for are taken, and only then compared (S10)."""

    def query(original: Any, self: Reader, topic: str, key: str, most: int, begin_ms: int, end_ms: int) -> Any:
        assert self.index is not None
        named = self.index.query(topic, key, most, begin_ms, end_ms)
        found, *rest = original(self, topic, key, most, begin_ms, end_ms)
        return [view for view in found if int.from_bytes(view[28:36], "big") in named], *rest

    wrap(patch, Reader, "query", query)


@mutant("P-IDX-1", scenarios=("asked_by_key",))
def time_is_ignored(patch: Patch) -> None:
    wrap(patch, Reader, "query", lambda original, self, topic, key, most, begin, end: original(self, topic, key, most, 0, 1 << 60))


@mutant("P-IDX-1", scenarios=("asked_by_key",))
def gives_without_end(patch: Patch) -> None:
    patch.setattr(search, "QUERY_MAX", 1 << 30)


@mutant("P-IDX-1", scenarios=("asked_by_key",))
def oldest_come_first(patch: Patch) -> None:
    def candidates(original: Any, self: KeyIndex, *args: Any) -> Iterator[int]:
        return iter(sorted(original(self, *args)))

    wrap(patch, KeyIndex, "candidates", candidates)


@mutant("P-IDX-2", scenarios=("asked_by_key",))
def index_is_not_rebuilt(patch: Patch) -> None:
    """After an unclean stop the files that may be incomplete are thrown away, and that is all (S11)."""

    def load(original: Any, self: KeyIndex, *, clean: bool, trusted_ms: int | None = None) -> None:
        original(self, clean=clean, trusted_ms=trusted_ms)
        if not clean and self._files:
            end = self._end
            self._remove(self._files.pop())
            self._end = end

    wrap(patch, KeyIndex, "load", load)


@mutant("P-IDX-2", scenarios=("asked_by_key",))
def one_file_is_asked(patch: Patch) -> None:
    """Only the newest of several files."""

    def candidates(original: Any, self: KeyIndex, *args: Any) -> Iterator[int]:
        files, self._files = self._files, self._files[-1:]
        found = list(original(self, *args))
        self._files = files
        return iter(found)

    wrap(patch, KeyIndex, "candidates", candidates)


@mutant("P-IDX-2", scenarios=("asked_by_key",))
def last_key_is_left_out(patch: Patch) -> None:
    """Of several keys in KEYS only the first is indexed."""

    def put_all(original: Any, self: KeyIndex, records: Sequence[Any]) -> None:
        original(self, [(topic, [key for key in keys if key != "k"], phy, store_ms) for topic, keys, phy, store_ms in records])

    wrap(patch, KeyIndex, "put_all", put_all)


# --- times


@mutant("P-TIME-1", scenarios=("asked_by_key",))
def time_search_off_by_one(patch: Patch) -> None:
    """The first message stored *after* a time is taken for the first stored then or later."""

    def offset_by_time(original: Any, self: Reader, topic: str, queue_id: int, ms: int, boundary: Any = "LOWER") -> int:
        return int(original(self, topic, queue_id, ms + (boundary == "LOWER"), boundary))

    wrap(patch, Reader, "offset_by_time", offset_by_time)


@mutant("P-TIME-1", scenarios=("asked_by_key",))
def upper_is_lower(patch: Patch) -> None:
    wrap(patch, Reader, "offset_by_time", lambda original, self, topic, queue_id, ms, boundary="LOWER": original(self, topic, queue_id, ms))


__all__ = ["MUTANTS"]
