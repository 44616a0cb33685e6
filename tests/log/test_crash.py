"""A crash inside every single disk call of a small workload, with the process killed or the power cut, in both flush modes.

After each, the next start must serve every message that was acknowledged (P-REC-2, P-REC-3), nothing that was never sent, each queue
without a hole (P-REC-7), and go on as if nothing had happened; and a crash inside that recovery must change nothing (P-REC-6).
"""

from __future__ import annotations

import attrs
import pytest
import trio

from log.store_world import SMALL, Machine, everything, put, run_until_dead, serving
from trmq.errors import DiskFailed
from trmq.sim.disk import SimDisk

Sent = dict[tuple[str, int], list[bytes]]


class Workload:
    """Sends groups of messages of uneven size over two topics and three segments; knows what was tried and what was promised."""

    def __init__(self, machine: Machine, *, sync_flush: bool) -> None:
        self.machine = machine
        self.config = attrs.evolve(SMALL, sync_flush=sync_flush)
        self.tried: Sent = {}
        self.acked: dict[tuple[str, int], int] = {}

    async def run(self) -> None:
        async with serving(self.machine, self.config) as service:
            number = 0
            for group in range(7):
                promised = dict(self.acked)
                for _ in range(1 + group % 3):
                    key = ("A", number % 2) if number % 5 else ("Bé", 0)
                    body = b"%03d" % number * (1 + number * 7 % 60)
                    self.tried.setdefault(key, []).append(body)
                    put(service, *key, body, KEYS=f"k{number}", TAGS="t")
                    promised[key] = len(self.tried[key])
                    number += 1
                end = service.store.commit()
                if self.config.sync_flush:
                    await service.flushed.reach(end)
                self.acked = promised
                if group == 3:
                    await service.flush()
                    key = ("A", 0)  # something that is written and dispatched, but not durable, when the indexes are
                    self.tried[key].append(b"between")
                    put(service, *key, b"between", KEYS="between")
                    service.store.commit()
                    await service.checkpoint_now()
                await trio.sleep(0.2)


def calls_of(sync_flush: bool) -> int:
    machine = Machine(SimDisk(seed=0))
    workload = Workload(machine, sync_flush=sync_flush)
    assert run_until_dead(machine, workload.run)
    return machine.disk.calls


def check(machine: Machine, workload: Workload, must_hold: dict[tuple[str, int], int]) -> None:
    """Start again, compare, add one message to each queue, stop, and find them all again."""
    before: Sent = {}

    async def again() -> None:
        async with serving(machine, workload.config) as service:
            before.update(everything(service))
            for key, bodies in before.items():
                assert bodies == workload.tried[key][: len(bodies)]
            for key, count in must_hold.items():
                assert len(before.get(key, [])) >= count, f"{key} lost acknowledged messages"
            for key in workload.tried:
                placed = put(service, *key, b"again", KEYS="again")
                assert placed.queue_offset == len(before.get(key, []))
            service.store.commit()
            for number in range(25):
                records, _, _ = service.store.query("A", f"k{number}", 64, 0, 1 << 60)
                there = any(body.startswith(b"%03d" % number) for key in (("A", 0), ("A", 1)) for body in before.get(key, []))
                assert len(records) == there, f"k{number}"

    async def once_more() -> None:
        async with serving(machine, workload.config) as service:
            assert everything(service) == {key: [*before.get(key, []), b"again"] for key in workload.tried}
            for topic in {topic for topic, _ in workload.tried}:
                queues = sum(of == topic for of, _ in workload.tried)
                assert len(service.store.query(topic, "again", 64, 0, 1 << 60)[0]) == queues

    assert run_until_dead(machine, again)
    assert run_until_dead(machine, once_more)


@pytest.mark.parametrize("how", ["kill", "power"])
@pytest.mark.parametrize("sync_flush", [False, True], ids=["async", "sync"])
def test_a_crash_in_any_disk_call_keeps_what_was_acknowledged(sync_flush: bool, how: str, profile: str) -> None:
    last = calls_of(sync_flush)
    assert last > 60
    for seed in range(1 if profile == "dev" else 2):
        for fuse in range(1, last + 1):
            machine = Machine(SimDisk(seed=f"{seed}/{fuse}"))
            machine.disk.fuse = fuse
            workload = Workload(machine, sync_flush=sync_flush)
            run_until_dead(machine, workload.run)
            machine.disk = machine.disk.crash(how)  # type: ignore[arg-type]
            try:
                check(machine, workload, workload.acked if sync_flush or how == "kill" else {})
            except BaseException as error:
                error.add_note(f"seed {seed}, fuse {fuse}, {how}")
                raise


@pytest.mark.parametrize("fuse", range(40, 100, 9))
def test_a_crash_inside_recovery_changes_nothing(fuse: int) -> None:
    inner = 0
    while True:
        inner += 1
        machine = Machine(SimDisk(seed=fuse))
        machine.disk.fuse = fuse
        workload = Workload(machine, sync_flush=True)
        run_until_dead(machine, workload.run)
        machine.disk = machine.disk.crash("power")
        machine.disk.fuse = inner

        async def recover(machine: Machine = machine, workload: Workload = workload) -> None:
            async with serving(machine, workload.config, close=False):
                pass

        finished = run_until_dead(machine, recover)
        machine.disk = machine.disk.crash("power")
        check(machine, workload, workload.acked)
        if finished:
            return


async def test_a_failed_sync_ends_the_service_and_nothing_more_is_promised(autojump_clock: object) -> None:
    machine = Machine()
    with pytest.raises(DiskFailed):
        await _fail_a_sync(machine)
    machine.disk = machine.disk.crash("power", kept="none")
    async with serving(machine, attrs.evolve(SMALL, sync_flush=True)) as service:
        assert everything(service) == {("A", 0): [b"safe"]}


async def _fail_a_sync(machine: Machine) -> None:
    from trmq.log import open_store

    service = await open_store(machine, attrs.evolve(SMALL, sync_flush=True))  # type: ignore[arg-type]
    done = trio.Event()

    async def send() -> None:
        put(service, "A", 0, b"safe")
        await service.flushed.reach(service.store.commit())
        machine.disk.fail("sync", path="commitlog/*")
        put(service, "A", 0, b"lost")
        service.store.commit()
        done.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await service.run()
    except BaseExceptionGroup as group:
        raise next(error for error in group.exceptions if isinstance(error, DiskFailed)) from None
    finally:
        assert done.is_set()
        assert service.flushed.value < service.store.max_phy
        await service.close()
        assert machine.disk.exists("abort")
