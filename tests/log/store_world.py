"""A machine for store tests: a simulated disk, a clock that only moves when told, and a workload that remembers what it was promised."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
import trio._core._run as trio_run  # private: the scheduler's dice, so that one seed is one history
import trio.testing

from trmq.log import PullStatus, StoreConfig, StoreService, index_keys, open_store
from trmq.message import decode_properties, encode_properties, tags_code
from trmq.record import decode_records
from trmq.sim.disk import Dead, SimDisk

BORN = bytes((10, 1, 2, 3, 0, 0, 17, 215))
SMALL = StoreConfig(segment_size=1024, queue_units=10, index_slots=10, index_entries=20)


class Machine:
    """What a store needs of a `Host`."""

    name = "machine"
    process_id = 4711

    def __init__(self, disk: SimDisk | None = None, *, now_ms: int = 1_795_213_909_118) -> None:
        self.disk = disk or SimDisk(seed=1)
        self.random = random.Random(1)
        self.now_ms = now_ms

    def wall_ms(self) -> int:
        return self.now_ms

    def trace(self, event: object) -> None:
        pass


@asynccontextmanager
async def serving(machine: Machine, config: StoreConfig = SMALL, *, close: bool = True) -> AsyncIterator[StoreService]:
    """A store that runs; closed in order at the end unless told otherwise (then its process just ends)."""
    service = await open_store(machine, config)  # type: ignore[arg-type]  # only what a store uses of a Host
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        yield service
        nursery.cancel_scope.cancel()
    if close:
        await service.close()
    else:
        machine.disk = machine.disk.crash("kill")


def put(service: StoreService, topic: str, queue_id: int, body: bytes, **properties: str) -> Any:
    text = encode_properties(properties)
    return service.store.append(
        topic, queue_id, body, text, 0, 0, 1_700_000_000_000, BORN, 0, tags_code(properties.get("TAGS")), index_keys(properties)
    )


def everything(service: StoreService) -> dict[tuple[str, int], list[bytes]]:
    """The bodies of each queue from its first message on, read as a consumer would; checks positions on the way."""
    store = service.store
    found = {}
    for topic, queue_id in store.queues():
        index = store.queue(topic, queue_id)
        assert index is not None
        offset, bodies = index.min_offset, []
        while True:
            pull = store.pull(topic, queue_id, offset, 5, 4096)
            if pull.status is not PullStatus.FOUND:
                assert pull.status in (PullStatus.OFFSET_OVERFLOW_ONE, PullStatus.NO_MESSAGE_IN_QUEUE)
                break
            for part in pull.slices:
                for message in decode_records(part):
                    assert (message.topic, message.queue_id, message.queue_offset) == (topic, queue_id, offset)
                    assert bytes(store.record(message.phy_offset) or b"")[20:28] == message.queue_offset.to_bytes(8, "big")
                    bodies.append(message.body)
                    offset += 1
            assert offset == pull.next_offset
        if bodies:
            found[topic, queue_id] = bodies
    return found


def run_until_dead(machine: Machine, main: Callable[[], Any]) -> bool:
    """Run `main` to its end, or until the disk dies under it; True if it ended by itself."""
    died = False
    trio_run._r.seed(machine.disk.random.random())

    async def guarded() -> None:
        with suppress(trio.Cancelled):
            await main()

    try:
        trio.run(guarded, clock=trio.testing.MockClock(autojump_threshold=0))
    except Dead:
        died = True
    except BaseExceptionGroup as group:
        if group.split(Dead)[1] is not None and not machine.disk.dead:
            raise
        died = True
    return not died


__all__ = ["BORN", "SMALL", "Machine", "decode_properties", "everything", "put", "run_until_dead", "serving"]
