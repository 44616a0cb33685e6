"""A broker's store on a simulated disk, driven through several lives while everything that happens is written down as a `History`.

`Lab` is the host of one store. `live(ops)` starts the real `StoreService`, answers puts as the broker does (the ack board), plays the
operations and ends in a clean close, or in whatever kills it. `crash` decides what of the disk survives; `fork` makes an independent copy,
so that one moment of death can be survived in many ways. What is durable is measured on the platter, never taken from the store's word.

All dice come from the seed; a history's `origin` says how to make it again.
"""

from __future__ import annotations

import errno
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import attrs
import trio
from specs.history import (
    Answered,
    Claimed,
    ConfigFound,
    ConfigSaved,
    ConfigSaving,
    Delivered,
    Durable,
    Event,
    Flushed,
    History,
    Idle,
    Image,
    Put,
    Refused,
    Released,
    StartRefused,
    Stopped,
    SyncFailed,
    Touched,
    Viewed,
)

from property.image import Sent, decode_delivered, found_in_log, look
from trmq.broker.acks import AckDriver
from trmq.errors import CorruptRecord, DiskFailed, DiskFull, LogError, MessageIllegal
from trmq.log import PullStatus, StoreConfig, StoreService, config_file, index_keys, service
from trmq.message import decode_message_id, encode_properties, message_id, tags_code
from trmq.sim.determinism import run_seeded
from trmq.sim.disk import Call, Crash, Dead, SimDisk
from trmq.sim.platter import Kept

BORN = bytes((10, 1, 2, 3, 0, 0, 17, 215))
BORN_MS = 1_700_000_000_000
START_MS = 1_795_213_909_118
SMALL = StoreConfig(segment_size=1024, queue_units=4, index_slots=10, index_entries=20, max_message_size=700, open_files_max=4)
QUEUES = (("A", 0), ("A", 1), ("Bé", 0))
CONFIG = "config/topics.json"
Op = tuple[Any, ...]


class Lab:
    """See the module. `events` is the history so far; `patient` swallows what seeded bugs make the store raise."""

    def __init__(self, seed: object, *, sync_flush: bool, config: StoreConfig = SMALL, patient: bool = False) -> None:
        self.seed = seed
        self.name = "lab"
        self.process_id = 4000
        self.random = random.Random(f"lab/{seed}")
        self.config = attrs.evolve(config, sync_flush=sync_flush)
        self.patient = patient
        self.now_ms = START_MS
        self.events: list[Event] = []
        self.sent: dict[str, Sent] = {}
        self.number = 0
        self.versions = 0
        self.image: Image | None = None
        self.service: StoreService | None = None
        self._touched = False
        self._watch(SimDisk(seed=f"{seed}"))

    # --- the host

    def wall_ms(self) -> int:
        return self.now_ms

    def trace(self, event: object) -> None:
        pass

    def _watch(self, disk: SimDisk) -> None:
        """From now on this is our disk: who locks it and who changes it is written down."""
        self.disk = disk
        disk.latency = 0.0
        self._touched = self._claimed = False
        lock, unlock = disk.lock, disk.unlock

        def claim(path: str) -> None:
            lock(path)
            self._claimed = True
            self.events.append(Claimed(self.process_id))

        def release(path: str) -> None:
            unlock(path)
            self._claimed = False
            self.events.append(Released(self.process_id))

        disk.lock, disk.unlock = claim, release  # type: ignore[method-assign]
        disk.on_call = self._on_call

    def _on_call(self, call: Call) -> None:
        if not self._touched or not self._claimed:
            self._touched = True
            self.events.append(Touched(self.process_id))
        if call.op == "sync" and call.path.startswith("commitlog/") and any(fault.op == "sync" for fault in self.disk._faults):
            self.events.append(SyncFailed())

    # --- stopping

    def fork(self) -> Lab:
        """An independent copy of disk and history, for another way on from here."""
        other = Lab.__new__(Lab)
        other.__dict__.update(self.__dict__)
        other.events, other.sent = list(self.events), dict(self.sent)
        other.random = random.Random(self.random.random())
        other._watch(self.disk.clone())
        return other

    def crash(self, how: Crash, *, dice: object = 0, kept: Kept | None = None) -> Lab:
        """The process is killed, or the power goes; returns self for chaining."""
        self.events.append(Stopped(how))
        self._watch(self.disk.crash(how, random.Random(f"crash/{self.seed}/{dice}"), kept=kept))
        return self

    def history(self, origin: str = "") -> History:
        return History(
            tuple(self.events), sync_flush=self.config.sync_flush, flush_timeout_s=self.config.sync_flush_timeout_s,
            origin=f"Lab(seed={self.seed!r}, sync_flush={self.config.sync_flush}) {origin}",
        )

    # --- living

    def live(self, ops: Sequence[Op] = (), *, end: str = "close", final: bool = True) -> bool:
        """One life: start, look at the whole image, play `ops`, end. True if it came to its end; False if the disk died under it (the
        caller says what happened by `crash`) or it failed. `end`: "close", or "leave" to be crashed by the caller."""
        self.process_id += 1

        async def main() -> None:
            with suppress(trio.Cancelled):
                await self._life(ops, end, final)

        try:
            run_seeded(main, self.seed)
        except Dead:
            return False
        except CorruptRecord as error:
            self.events.append(StartRefused(str(error)))
            return False
        except BaseExceptionGroup as group:
            if self.disk.dead and group.split((Dead, DiskFailed))[1] is None:
                return False  # who waited for the flush in which it died learns that it failed
            failed, rest = group.split(DiskFailed)
            if rest is None and failed is not None:
                return False  # the broker stops by itself, as it must
            if not self.patient:
                raise
            return False
        except DiskFailed:
            return False
        except Exception:
            if not self.patient:
                raise
            return False
        return True

    async def _life(self, ops: Sequence[Op], end: str, final: bool) -> None:
        marker = self.disk.exists("abort")
        self.service = broker = await service.open_store(self, self.config)  # type: ignore[arg-type]  # what a store uses of a Host
        self.image = look(self.disk, broker, self.sent, marker, final=final)
        self.events.append(self.image)
        found = config_file.load_json_text(self.disk, CONFIG)
        self.events.append(ConfigFound(None if found is None else found.decode()))
        self._note_marks(broker)
        self._cursor: dict[tuple[str, int], int] = {}
        try:
            async with trio.open_nursery() as nursery:
                self.acks = AckDriver[list[str]](broker.flushed, self._settle)
                await nursery.start(broker.run)
                nursery.start_soon(self.acks.run)
                self._pull()
                for op in ops:
                    await getattr(self, f"_{op[0]}")(*op[1:])
                if end == "leave":
                    nursery.cancel_scope.cancel()
                    return
                if end == "close":
                    await self._wait_for_answers()
                else:  # whoever waits sees its connection close
                    while len(self.acks.board):
                        for ids in self.acks.board.expire(math.inf):
                            self.events.extend(Answered(id, "CONNECTION_CLOSED", trio.current_time()) for id in ids)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup:
            if not self.disk.dead:
                with trio.CancelScope(shield=True):
                    await broker.close()  # after a failure only the lock is given back
            raise
        await broker.close()
        self.events.append(Stopped("close"))

    def _note_marks(self, broker: StoreService) -> None:
        mark = broker.store.mark_flushed

        def noted(end: int) -> None:
            self._measure()
            self.events.append(Flushed(end))
            mark(end)

        broker.store.mark_flushed = noted  # type: ignore[method-assign]

    def _measure(self) -> None:
        assert self.service is not None
        end = found_in_log(self.disk, self.config.segment_size, self.service.store.max_phy)
        self.events.append(Durable(end))

    # --- what a broker does: answer when it may, or when it is too late

    def _settle(self, ready: list[list[str]], late: list[list[str]], flushed: int) -> None:
        for ids in ready:
            self._ready(ids)
        for ids in late:
            self.events.extend(Answered(id, "FLUSH_DISK_TIMEOUT", trio.current_time()) for id in ids)

    def _ready(self, ids: list[str]) -> None:
        self._measure()
        self.events.extend(Answered(id, "OK", trio.current_time()) for id in ids)

    async def _wait_for_answers(self) -> None:
        while len(self.acks.board):
            await trio.sleep(0.05)

    # --- operations

    def _message(self, queue: tuple[str, int], size: int) -> Sent:
        self.number += 1
        id = f"m{self.number}"
        body = f"{id}:".encode() * (1 + size // len(id)) if size else b""
        properties = {"UNIQ_KEY": id, "KEYS": f"k{id}", "TAGS": f"t{self.number % 3}"}
        message = Sent(id, *queue, body, properties, self.number, BORN_MS + self.number, self.number % 4)
        self.sent[id] = message
        return message

    def _append(self, message: Sent) -> Any:
        assert self.service is not None
        return self.service.store.append(
            message.topic, message.queue_id, message.body, encode_properties(message.properties), message.flag, 0, message.born_ms, BORN,
            message.reconsume_times, tags_code(message.properties["TAGS"]), index_keys(message.properties),
        )

    async def _send(self, count: int = 1, size: int = 40, wait: bool = True) -> None:
        """`count` messages to the queues in turn, committed as one group."""
        placed = []
        for _ in range(count):
            message = self._message(QUEUES[self.number * 7 % len(QUEUES)], size + self.number * 5 % 60)
            try:
                put = self._append(message)
            except (MessageIllegal, DiskFull) as error:
                self.events.append(Refused(message.id, message.queue, str(error)))
                continue
            self._note_put(message, put)
            placed.append(message)
        await self._commit(placed, wait)

    async def _exactly(self, topic: str, queue_id: int, size: int) -> None:
        """One message of a fixed size."""
        message = self._message((topic, queue_id), 0)
        message = self.sent[message.id] = attrs.evolve(message, body=b"%-*d" % (size, self.number))
        self._note_put(message, self._append(message))
        await self._commit([message], True)

    def _note_put(self, message: Sent, put: Any, batch: int | None = None) -> None:
        assert self.service is not None
        self.events.append(Put(
            message.id, message.queue, put.queue_offset, put.phy_offset, put.size, trio.current_time(), batch,
            tuple(index_keys(message.properties)), self.service.store.last_store_ms,
        ))  # fmt: skip

    async def _batch(self, count: int = 3, size: int = 20) -> None:
        assert self.service is not None
        queue = QUEUES[self.number % len(QUEUES)]
        messages = [self._message(queue, size) for _ in range(count)]
        for number, message in enumerate(messages):
            messages[number] = self.sent[message.id] = attrs.evolve(message, born_ms=BORN_MS, reconsume_times=0)
        parts = [
            (m.flag, m.body, encode_properties(m.properties), tags_code(m.properties["TAGS"]), index_keys(m.properties)) for m in messages
        ]
        try:
            places = self.service.store.append_batch(*queue, parts, 0, BORN_MS, BORN, 0)
        except (MessageIllegal, DiskFull) as error:
            self.events.extend(Refused(m.id, m.queue, str(error)) for m in messages)
            return
        for m, put in zip(messages, places, strict=True):
            self._note_put(m, put, self.number)
        await self._commit(messages, True)

    async def _commit(self, placed: list[Sent], wait: bool) -> None:
        assert self.service is not None
        if not placed:
            return
        try:
            end = self.service.store.commit()
        except DiskFull as error:
            self.events.extend(Refused(m.id, m.queue, str(error)) for m in placed)
            return
        ids = [m.id for m in placed]
        if self.config.sync_flush:
            self.acks.add(end, trio.current_time() + self.config.sync_flush_timeout_s, ids)
            if wait:
                await self._wait_for_answers()
        else:
            self._ready(ids)
        self.now_ms += 7

    async def _refuse(self) -> None:
        """A message that is too large, alone; a record too large for any segment, inside a group."""
        await self._send(1, self.config.max_message_size + 100)

    async def _no_space(self, count: int = 2) -> None:
        """The disk has no room for this group's write."""
        self.disk.fail("write", errno.ENOSPC, path="commitlog/*")
        await self._send(count)
        self.disk._faults.clear()

    async def _no_sync(self) -> None:
        """The next sync of the log fails; messages are under way before, during and after."""
        self.disk.fail("sync", errno.EIO, path="commitlog/*")
        await self._send(2, wait=False)
        await trio.sleep(1)
        await self._send(1, wait=False)
        await trio.sleep(11)

    async def _stall(self, seconds: float = 12.0) -> None:
        """Syncs of the log take this long from now on."""
        self.disk.latency = lambda op, path: seconds if op == "sync" and path.startswith("commitlog/") else 0.0
        await self._send(2, wait=False)
        await trio.sleep(1)
        self._pull()
        await self._send(1, wait=False)
        await trio.sleep(2 * seconds)
        self._pull()
        self.disk.latency = 0.0
        assert self.service is not None
        try:
            await self.service.flush()
        except DiskFailed:
            if not self.disk.dead:  # whoever waits for a flush that a dead disk ended hears only that it failed
                raise

    async def _slow_disk(self, seconds: float) -> None:
        """From now on each sync of the log takes this long."""
        self.disk.latency = lambda op, path: seconds if op == "sync" and path.startswith("commitlog/") else 0.0

    async def _pull_all(self) -> None:
        self._cursor.clear()
        self._pull()
        await trio.lowlevel.checkpoint()

    async def _pull_new(self) -> None:
        self._pull()
        await trio.lowlevel.checkpoint()

    def _pull(self) -> None:
        """Read every queue to its end, as consumers do, from where they were (at first: from the beginning)."""
        assert self.service is not None
        store = self.service.store
        self._measure()
        for queue in store.queues():
            index = store.queue(*queue)
            assert index is not None
            offset = self._cursor.get(queue, index.min_offset)
            while (pull := store.pull(*queue, offset, 2, 4096)).status is PullStatus.FOUND:
                for view in pull.slices:
                    for r in decode_delivered(view, self.sent):
                        self.events.append(Delivered(
                            r.id, r.queue, r.queue_offset, r.phy_offset, r.size, store.confirm, pull.min_offset, pull.max_offset, r.digest,
                            r.crc_holds, r.intact,
                        ))  # fmt: skip
                offset = pull.next_offset
            self._cursor[queue] = offset

    async def _view(self) -> None:
        """Ask for each message sent in this life at the place its answer named."""
        assert self.service is not None
        store = self.service.store
        start = max((at for at, e in enumerate(self.events) if isinstance(e, Image)), default=0)
        answered = {e.id for e in self.events[start:] if isinstance(e, Answered) and e.status == "OK"}
        for put in [e for e in self.events[start:] if isinstance(e, Put) and e.id in answered]:
            if store.min_phy <= put.phy_offset and put.end <= store.confirm:
                place = decode_message_id(message_id(self.config.store_host, put.phy_offset))[1]
                view = store.record(place)
                found = [] if view is None else decode_delivered(view, self.sent)
                self.events.append(Viewed(put.id, found[0].id if found and found[0].intact else None))
        await trio.lowlevel.checkpoint()

    async def _flush(self) -> None:
        assert self.service is not None
        await self.service.flush()

    async def _checkpoint(self) -> None:
        assert self.service is not None
        await self.service.checkpoint_now()

    async def _sleep(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)
        await trio.sleep(seconds)

    async def _idle(self, seconds: float = 11.0) -> None:
        assert self.service is not None
        await self._sleep(seconds)
        self._measure()
        store = self.service.store
        ends = {}
        for queue in store.queues():
            index = store.queue(*queue)
            ends[queue] = 0 if index is None else index.max_offset
        self.events.append(Idle(seconds, self.service.flushed.value, ends))

    async def _save_config(self) -> None:
        self.versions += 1
        content = f'{{"version":{self.versions},"filler":"{"x" * (600 * (self.versions % 3))}"}}'
        self.events.append(ConfigSaving(content))
        await config_file.persist(self.disk, CONFIG, content.encode())
        self.events.append(ConfigSaved(content))

    async def _clean(self) -> None:
        """Retention takes the oldest segment."""
        assert self.service is not None
        await self.service.flush()
        self.now_ms += self.config.reserve_ms + 1000
        await self.service.clean_expired(self.now_ms, any_hour=True)


def crash_points(
    seed: object, ops: Sequence[Op], *, sync_flush: bool, step: int = 1, first: int = 1, patient: bool = False
) -> Iterator[tuple[int, Lab]]:
    """(n, a lab that has just died in its n-th disk call) for every `step`-th n of one life that plays `ops`."""
    fuse = first
    while True:
        lab = Lab(seed, sync_flush=sync_flush, patient=patient)
        lab.disk.fuse = fuse
        lab.live(ops)
        if not lab.disk.dead:
            return
        yield fuse, lab
        fuse += step


__all__ = ["CONFIG", "QUEUES", "SMALL", "Lab", "LogError", "Op", "crash_points"]
