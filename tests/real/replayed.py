"""Recorded calls of a real broker replayed into a simulated disk, which then loses power: crash states of the real program.

Between two calls of the recording the power goes, with any luck: of what was not synced none, all, a prefix, or sectors at random is
left. The real recovery starts on that disk and must serve every message whose sender had heard SEND_OK by then.
(Pillai and others, "All File Systems Are Not Created Equal": the ALICE method.)
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import attrs
from specs.history import Answered, Durable, Event, History, Image, Put, Stopped

from property.image import Sent, found_in_log, look
from real.recorded import Call
from trmq.errors import CorruptRecord
from trmq.log import StoreConfig
from trmq.log.service import open_store
from trmq.sim.determinism import run_seeded
from trmq.sim.disk import SimDisk, SimFile
from trmq.sim.platter import KEPT, Change, Node, apply_names


@attrs.frozen
class Heard:
    """A SEND_OK as its sender heard it, by the machine's monotonic clock."""

    id: str
    queue: tuple[str, int]
    queue_offset: int
    place: int
    at: float


@attrs.frozen
class Crash:
    """The power went before call number `before` of the recording."""

    before: int
    kept: str
    disk: SimDisk
    heard: tuple[Heard, ...]
    events: tuple[Event, ...]


class Replay:
    """`disk` is as it was after the calls that `step` was given."""

    def __init__(self, segment_size: int) -> None:
        self.disk = SimDisk()
        self.segment_size = segment_size
        self.log_end = 0
        self._files: dict[int, SimFile] = {}
        self._syncs: dict[int, tuple[Node, int]] = {}
        self._names: dict[int, list[Change]] = {}

    def step(self, call: Call) -> None:
        disk = self.disk
        platter = disk._platter
        match call.op:
            case "open":
                self._files[call.key] = disk.open(call.path, call.offset)
            case "write":
                self._files[call.key].write_at(call.offset, call.data)
                folder, _, name = call.path.rpartition("/")
                if folder == "commitlog":
                    self.log_end = max(self.log_end, int(name) + call.offset + len(call.data))
            case "truncate":
                self._files[call.key].truncate(call.offset)
            case "sync":
                node = self._files[call.offset]._node
                self._syncs[call.key] = node, node.order
            case "sync done":
                node, order = self._syncs.pop(call.key)
                node.settle(order, lost=False)
            case "allocate":
                if call.path not in platter.names:
                    disk._create(call.path, call.offset)
            case "allocate done":
                platter.names[call.path].settle_creation()
            case "remove":
                disk.remove(call.path)
            case "rename":
                disk.rename(call.path, call.data.decode())
            case "sync_directory":
                self._names[call.key] = [change for change in platter.changes if call.path in change.folders]
            case "sync_directory done":
                done = self._names.pop(call.key)
                for change in done:
                    apply_names(platter.durable_names, change)
                platter.changes = [change for change in platter.changes if not any(change is each for each in done)]
            case "lock":
                if call.path not in platter.names:
                    disk._create(call.path, 0)
            case _:
                raise AssertionError(call.op)


def crashes(calls: Sequence[Call], heard: Sequence[Heard], puts: Sequence[Put], segment_size: int, points: set[int], dice: random.Random,
            lucks: Sequence[str] = KEPT) -> Iterator[Crash]:  # fmt: skip
    """`puts`: what the log holds in the end, in its order. At each of `points` the power goes once for each of `lucks`."""
    replay = Replay(segment_size)
    waiting, written = sorted(heard, key=lambda each: each.at, reverse=True), 0
    known: list[Heard] = []
    events: list[Event] = []
    for number, call in enumerate(calls):
        while written < len(puts) and puts[written].end <= replay.log_end:
            events.append(puts[written])
            written += 1
        while waiting and waiting[-1].at < call.at:
            known.append(waiting.pop())
            events.append(Durable(found_in_log(replay.disk, segment_size, replay.log_end)))
            events.append(Answered(known[-1].id, "OK"))
        if number in points:
            for kept in lucks:
                disk = replay.disk.clone().crash("power", random.Random(dice.random()), kept=kept)  # type: ignore[arg-type]
                yield Crash(number, kept, disk, tuple(known), (*events, Stopped("power")))
        replay.step(call)


class Host:
    """What a store uses of a host."""

    name, process_id = "replayed", 1

    def __init__(self, disk: SimDisk, now_ms: int) -> None:
        self.disk, self.now_ms = disk, now_ms

    def wall_ms(self) -> int:
        return self.now_ms

    def trace(self, event: object) -> None:
        pass


def recover(crash: Crash, config: StoreConfig, sent: dict[str, Sent], now_ms: int) -> Image | str:
    """The real recovery on what the power left: the whole store as it then is, or the sentence with which it refused to start."""

    async def start() -> Image | str:
        marker = crash.disk.exists("abort")
        try:
            service = await open_store(Host(crash.disk, now_ms), config)  # type: ignore[arg-type]  # what a store uses of it
        except CorruptRecord as error:
            return str(error)
        return look(crash.disk, service, sent, marker)

    return run_seeded(start, crash.before)


def lost(crash: Crash, image: Image) -> list[Heard]:
    """What had been answered SEND_OK and is not at its place."""
    there = {record.position: record for record in image.records}
    missing = []
    for each in crash.heard:
        record = there.get(each.place)
        found = None if record is None or not record.intact else (record.id, record.queue, record.queue_offset)
        if found != (each.id, each.queue, each.queue_offset):
            missing.append(each)
    return missing


def history_of(crash: Crash, image: Image) -> History:
    return History((*crash.events, image), sync_flush=True, origin=f"power lost before call {crash.before}, kept {crash.kept}")
