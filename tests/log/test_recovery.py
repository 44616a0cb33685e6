"""What the next start makes of damage: a torn tail is cut, anything that was proven durable is never given up silently."""

from __future__ import annotations

import random
from contextlib import suppress

import attrs
import pytest
import trio

from log.store_world import SMALL, Machine, everything, put, serving
from trmq.errors import CorruptRecord, StoreMismatch
from trmq.log import StoreConfig, open_store
from trmq.sim.disk import Dead

LOG = "commitlog/00000000000000000000"
WIDE = StoreConfig(segment_size=8192, queue_units=100, index_slots=100, index_entries=1000)


async def filled(config: StoreConfig = WIDE, *, count: int = 3, close: bool = False, flush: bool = False) -> tuple[Machine, list[int]]:
    """A machine whose store holds `count` messages "m0".. in queue A/0, and where they begin. Not flushed unless asked or closed."""
    machine = Machine()
    async with serving(machine, config, close=close) as service:
        starts = []
        for number in range(count):
            starts.append(put(service, "A", 0, b"m%d" % number * 10, KEYS=f"k{number}", TAGS="t").phy_offset)
            service.store.commit()
        starts.append(service.store.max_phy)
        if flush:
            await service.flush()
    return machine, starts


def bodies(count: int) -> list[bytes]:
    return [b"m%d" % number * 10 for number in range(count)]


@pytest.mark.parametrize("damage", ["flip", "zero"])
async def test_damage_at_any_byte_of_the_unproven_tail_keeps_the_rest(damage: str, autojump_clock: object) -> None:
    machine, starts = await filled()
    for at in range(starts[2], starts[3]):
        other = Machine(machine.disk.clone())
        if damage == "flip":
            other.disk.flip(LOG, at, at % 8)
        else:
            other.disk.rot(LOG, at, bytes(starts[3] - at))
        async with serving(other, WIDE, close=False) as service:
            assert everything(service) == {("A", 0): bodies(2)}, f"byte {at - starts[2]} of the record"
            assert put(service, "A", 0, b"next").queue_offset == 2
            service.store.commit()
        async with serving(other, WIDE) as service:
            assert everything(service) == {("A", 0): [*bodies(2), b"next"]}


async def test_damage_below_the_proven_mark_is_refused_with_file_and_remedy(autojump_clock: object) -> None:
    machine, starts = await filled(flush=True)
    machine.disk.flip(LOG, starts[1] + 100)
    before = machine.disk.peek(LOG)
    with pytest.raises(CorruptRecord, match=rf"{LOG}: damaged at byte {starts[1]} .*trmq store check"):
        await open_store(machine, WIDE)  # type: ignore[arg-type]
    assert machine.disk.peek(LOG) == before
    machine.disk.lock("lock")  # was given back


async def test_what_was_cut_never_comes_back(autojump_clock: object) -> None:
    """TRAP-S6: four records, the second is damaged; one new record of the same size must not make the old third and fourth reappear."""
    machine, starts = await filled(count=4)
    machine.disk.flip(LOG, starts[1] + 100)
    async with serving(machine, WIDE, close=False) as service:
        assert service.report.cut is not None
        put(service, "A", 0, b"n0" * 10, KEYS="k9", TAGS="t")
        assert service.store.commit() == starts[2]
    async with serving(machine, WIDE) as service:
        assert everything(service) == {("A", 0): [*bodies(1), b"n0" * 10]}


async def test_without_our_checkpoint_apaches_rules_hold(autojump_clock: object) -> None:
    machine, starts = await filled(count=20, close=True)
    for path in machine.disk.paths():
        if path.startswith("trmq/"):
            machine.disk.remove(path)
    dirty = Machine(machine.disk.clone())
    dirty.disk.open("abort").write_at(0, b"4711")  # as Java writes it
    for one, how in ((machine, "apache-clean"), (dirty, "apache-dirty")):
        async with serving(one, WIDE) as service:
            assert service.report.how == how
            assert service.store.max_phy == starts[-1]
            assert everything(service) == {("A", 0): bodies(20)}
            assert len(service.store.query("A", "k7", 9, 0, 1 << 60)[0]) == 1


async def test_apache_in_between_makes_our_marks_void(autojump_clock: object) -> None:
    machine, _ = await filled(count=3, close=True)
    machine.disk.rot("checkpoint", 0, (1_795_213_999_999).to_bytes(8, "big"))  # Apache flushed something later
    async with serving(machine, WIDE) as service:
        assert service.report.how == "apache-clean"
        assert everything(service) == {("A", 0): bodies(3)}


async def test_our_marks_stay_void_when_the_power_goes_while_the_store_is_taken_over(autojump_clock: object) -> None:
    """A power cut may give back Apache's file as we wrote it, while the queues that were being built again keep what was cut off."""
    machine, _ = await filled(SMALL, count=18)
    async with serving(machine, SMALL, close=False) as service:
        await service.checkpoint_now()
    file = machine.disk.open("checkpoint")
    file.write_at(0, b"\1" * 40)  # Apache's, and nobody has synced it
    for fuse in range(1, 60):
        for kept in ("none", "all", "random"):
            dying = Machine(machine.disk.clone())
            dying.disk.fuse = fuse
            with suppress(Dead):
                await open_store(dying, SMALL)  # type: ignore[arg-type]  # only what a store uses of a Host
            other = Machine(dying.disk.crash("power", random.Random(f"{fuse}/{kept}"), kept=kept))  # type: ignore[arg-type]  # one of these
            async with serving(other, SMALL, close=False) as service:
                assert everything(service) == {("A", 0): bodies(18)}, f"the power went in call {fuse} of the recovery, {kept} kept"


async def test_damage_that_apache_would_cut_away_is_refused_when_durable_records_follow(autojump_clock: object) -> None:
    machine, starts = await filled(count=20, close=True)
    machine.disk.remove("trmq/checkpoint")
    machine.disk.flip(LOG, starts[5] + 95)
    with pytest.raises(CorruptRecord, match=f"a durable record follows at log offset {starts[6]}"):
        await open_store(machine, WIDE)  # type: ignore[arg-type]


@pytest.mark.parametrize("clean", [True, False])
async def test_lost_indexes_are_built_again(clean: bool, autojump_clock: object) -> None:
    """P-CQ-6: the same bytes as before."""
    machine, _ = await filled(SMALL, count=25, close=True)
    if not clean:
        async with serving(machine, SMALL, close=False):
            pass
    units = {path: machine.disk.peek(path) for path in machine.disk.paths() if path.startswith("consumequeue/")}
    for path in machine.disk.paths():
        if path.startswith(("consumequeue/", "index/")):
            machine.disk.remove(path)
    machine.disk.remove("consumequeue/A/0")
    machine.disk.remove("consumequeue/A")
    async with serving(machine, SMALL) as service:
        assert everything(service) == {("A", 0): bodies(25)}
        assert len(service.store.query("A", "k3", 9, 0, 1 << 60)[0]) == 1
    assert {path: machine.disk.peek(path) for path in machine.disk.paths() if path.startswith("consumequeue/")} == units


async def test_one_lost_queue_is_noticed_when_it_is_written_to(autojump_clock: object) -> None:
    machine, _ = await filled(count=3, close=True)
    async with serving(machine, WIDE, close=False) as service:
        put(service, "A", 0, b"m3" * 10)
        service.store.commit()
        await service.flush()
    machine.disk.remove("consumequeue/A/0/00000000000000000000")
    machine.disk.open("consumequeue/B/0/00000000000000000000", 2000)
    async with serving(machine, WIDE) as service:
        assert service.report.rebuilt_queues == (("A", 0),)
        assert everything(service) == {("A", 0): bodies(4)}


async def test_an_empty_log_beside_queues_is_refused(autojump_clock: object) -> None:
    machine, _ = await filled(close=True)
    machine.disk.remove(LOG)
    with pytest.raises(StoreMismatch, match="holds no segment"):
        await open_store(machine, WIDE)  # type: ignore[arg-type]


async def test_another_segment_size_is_refused_with_the_key_to_set(autojump_clock: object) -> None:
    machine, _ = await filled(close=True)
    with pytest.raises(StoreMismatch, match="set mappedFileSizeCommitLog=8192"):
        await open_store(machine, attrs.evolve(WIDE, segment_size=4096))  # type: ignore[arg-type]
    machine.disk.remove("trmq/checkpoint")
    with pytest.raises(StoreMismatch, match=f"{LOG} has 8192 bytes .* set mappedFileSizeCommitLog=8192"):
        await open_store(machine, attrs.evolve(WIDE, segment_size=4096))  # type: ignore[arg-type]


async def test_an_empty_last_file_is_removed(autojump_clock: object) -> None:
    machine, _ = await filled(close=True)
    machine.disk.open("commitlog/00000000000000008192")
    async with serving(machine, WIDE) as service:
        assert everything(service) == {("A", 0): bodies(3)}
        assert machine.disk.names("commitlog") == ["00000000000000000000"]


async def test_a_missing_segment_in_the_middle_is_refused(autojump_clock: object) -> None:
    machine, _ = await filled(SMALL, count=30, close=True)
    machine.disk.remove("commitlog/00000000000000001024")
    with pytest.raises(CorruptRecord, match="must be 00000000000000001024"):
        await open_store(machine, SMALL)  # type: ignore[arg-type]


async def test_a_short_way_back_after_kill(autojump_clock: object) -> None:
    """Only what came after the last write-back of the indexes is parsed again."""
    machine = Machine()
    async with serving(machine, WIDE, close=False) as service:
        for number in range(100):
            put(service, "A", 0, b"%d" % number)
            service.store.commit()
        await trio.sleep(20)  # flushed, then written back
        for number in range(7):
            put(service, "A", 0, b"late%d" % number)
        service.store.commit()
    async with serving(machine, WIDE) as service:
        assert service.report.how == "trmq"
        assert service.report.records == 7
        assert len(everything(service)["A", 0]) == 107


async def test_old_segments_go_and_queues_follow(autojump_clock: object) -> None:
    machine = Machine(now_ms=1_000_000_000_000)
    config = attrs.evolve(SMALL, reserve_ms=3_600_000, delete_when=tuple(range(24)))
    async with serving(machine, config) as service:
        for number in range(30):
            machine.now_ms += 600_000
            put(service, "A", number % 2, b"m%d" % number * 30)
            service.store.commit()
        put(service, "Old", 0, b"x")
        service.store.commit()
        segments = len(service.store.log.segments)
        assert await service.clean_expired(machine.now_ms) == 0  # nothing is durable yet
        await service.flush()
        while await service.clean_expired(machine.now_ms):
            pass
        assert 1 < len(service.store.log.segments) < segments
        low = service.store.pull("A", 0, 0, 9, 9999)
        assert low.next_offset == low.min_offset > 0
        first = service.store.pull("A", 0, low.min_offset, 1, 9999)
        assert first.last_phy >= service.store.min_phy
        held = everything(service)
        machine.now_ms += 10 * 3_600_000
        while await service.clean_expired(machine.now_ms):
            pass
        assert len(service.store.log.segments) == 1  # never the last
    assert held
    async with serving(machine, config) as service:
        queue = service.store.queue("A", 0)
        assert queue is not None
        assert queue.max_offset == 15  # numbering goes on
        assert put(service, "A", 0, b"new").queue_offset == 15


async def test_a_full_disk_refuses_puts_and_lets_them_in_again(autojump_clock: object) -> None:
    machine = Machine()
    used = 0.95
    machine.disk.usage = lambda folder: used  # type: ignore[method-assign]
    async with serving(machine, WIDE) as service:
        await trio.sleep(1)
        assert not service.store.writable
        with pytest.raises(Exception, match="95% full"):
            put(service, "A", 0, b"x")
        used = 0.5
        await trio.sleep(11)
        put(service, "A", 0, b"x")
        service.store.commit()
        assert everything(service) == {("A", 0): [b"x"]}
