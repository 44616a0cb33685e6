"""Putting and pulling: what exists after `commit`, what does not after a failed one, and the answers of `pull`."""

from __future__ import annotations

import errno
from contextlib import suppress

import attrs
import pytest
import trio

from log.store_world import BORN, SMALL, Machine, everything, put, serving
from trmq.errors import DiskFailed, DiskFull, MessageIllegal, StoreLocked
from trmq.log import PullStatus, StoreConfig, index_keys, open_store
from trmq.message import tags_code
from trmq.sim.disk import SimDisk
from trmq.sim.pages import PAGE

WIDE = StoreConfig(segment_size=64 << 10, queue_units=100, index_slots=100, index_entries=1000)


async def test_nothing_is_visible_before_commit(autojump_clock: object) -> None:
    async with serving(Machine()) as service:
        put(service, "A", 0, b"one")
        assert everything(service) == {}
        service.store.commit()
        assert everything(service) == {("A", 0): [b"one"]}


async def test_sync_flush_shows_a_message_only_when_it_is_durable(autojump_clock: object) -> None:
    async with serving(Machine(), attrs.evolve(SMALL, sync_flush=True)) as service:
        arrived: list[tuple[str, int, int]] = []
        service.store.on_arrival = lambda *what: arrived.append(what)
        put(service, "A", 0, b"one")
        put(service, "A", 0, b"two")
        end = service.store.commit()
        assert everything(service) == {}
        assert not arrived
        await service.flushed.reach(end)
        assert everything(service) == {("A", 0): [b"one", b"two"]}
        assert arrived == [("A", 0, 2)]  # once per queue, not per message


async def test_what_is_committed_is_in_its_queue_whatever_those_who_are_told_run_into(autojump_clock: object) -> None:
    """A master's push reads the log at once; its disk fails. The same queue offset must not be given out again."""
    async with serving(Machine()) as service:
        told = service.store.on_commit

        def fails(end: int) -> None:
            raise DiskFailed("the log cannot be read")

        put(service, "A", 0, b"one")
        service.store.on_commit = fails
        with pytest.raises(DiskFailed):
            service.store.commit()
        service.store.on_commit = told
        put(service, "A", 0, b"two")
        service.store.commit()
        assert everything(service) == {("A", 0): [b"one", b"two"]}


async def test_who_waited_for_a_flush_that_failed_is_not_told_that_all_is_durable(autojump_clock: object) -> None:
    machine = Machine()
    service = await open_store(machine, attrs.evolve(SMALL, sync_flush=True))  # type: ignore[arg-type]
    machine.disk.latency = 0.2
    machine.disk.fail("sync", errno.EIO, path="commitlog/*")
    put(service, "A", 0, b"one")
    service.store.commit()
    refused: list[str] = []

    async def flush() -> None:
        try:
            await service.flush()
        except DiskFailed as error:
            refused.append(str(error))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(flush)
            await trio.sleep(0.01)
    assert len(refused) == 3
    assert service.flushed.value == service.store.flushed == 0
    with pytest.raises(DiskFailed):
        await service.flush()
    await service.close()


@pytest.mark.parametrize("path", ["commitlog/*", "trmq/checksums/*"])
async def test_a_failed_commit_uses_up_no_offset_and_leaves_no_record(path: str, autojump_clock: object) -> None:
    machine = Machine()
    async with serving(machine, WIDE, close=False) as service:
        put(service, "A", 0, b"one")
        service.store.commit()
        for number in range(3):
            put(service, "A", 0, b"refused%d" % number)
        machine.disk.fail("write", errno.ENOSPC, path=path)
        with pytest.raises(DiskFull):
            service.store.commit()
        assert everything(service) == {("A", 0): [b"one"]}
        assert put(service, "A", 0, b"two").queue_offset == 1
        service.store.commit()
    async with serving(machine, WIDE) as service:
        assert everything(service) == {("A", 0): [b"one", b"two"]}


async def test_no_space_for_the_checkpoint_stops_nothing(autojump_clock: object) -> None:
    """Overwriting in place takes room where a file system copies on write. What was put is durable without it."""
    machine = Machine()
    async with serving(machine, WIDE) as service:
        machine.disk.fail("write", errno.ENOSPC, path="trmq/checkpoint", times=2)
        for number in range(4):
            put(service, "A", 0, b"%d" % number)
            service.store.commit()
            await service.flush()
            assert service.flushed.value == service.store.max_phy
        assert not machine.disk._faults, "it was tried"
    async with serving(machine, WIDE) as service:
        assert everything(service) == {("A", 0): [b"0", b"1", b"2", b"3"]}


async def test_a_new_checkpoint_has_room_for_both_its_slots(autojump_clock: object) -> None:
    machine = Machine()
    async with serving(machine, WIDE, close=False):
        node = machine.disk._platter.names["trmq/checkpoint"]
        assert set(node.cache._pages) == set(range(node.cache.size // PAGE)), "no page of it is a hole"


async def test_refused_records_stay_away_even_if_the_process_dies_at_once(autojump_clock: object) -> None:
    machine = Machine()
    async with serving(machine, close=False) as service:
        put(service, "A", 0, b"one")
        service.store.commit()
        machine.disk.fail("write", errno.ENOSPC, path="commitlog/00000000000000001024")
        for number in range(8):  # goes over into a second segment, where the write fails
            put(service, "A", 0, b"refused%d" % number * 12)
        with pytest.raises(DiskFull):
            service.store.commit()
    async with serving(machine) as service:
        assert service.report.records == 1
        assert everything(service) == {("A", 0): [b"one"]}


async def test_no_space_for_a_segment_refuses_and_resumes(autojump_clock: object) -> None:
    machine = Machine(SimDisk(seed=1, capacity=8192 + 4096 + 1024 + 2500))
    config = attrs.evolve(SMALL, disk_warn_ratio=1.1, disk_force_ratio=1.1, disk_max_ratio=1.1)
    async with serving(machine, config, close=False) as service:
        stored = 0
        with suppress(DiskFull):
            while stored < 40:
                put(service, "A", 0, b"x" * 100)
                service.store.commit()
                stored += 1
        assert 5 < stored < 40
        assert len(everything(service)["A", 0]) == stored
        machine.disk.capacity = None
        await trio.sleep(2)
        assert put(service, "A", 0, b"again").queue_offset == stored
        service.store.commit()
        assert len(everything(service)["A", 0]) == stored + 1


async def test_a_batch_is_in_one_segment_or_nowhere(autojump_clock: object) -> None:
    async with serving(Machine()) as service:
        put(service, "A", 0, b"x" * 600)
        parts = [(0, b"b%d" % i * 20, b"", 0, ()) for i in range(3)]
        puts = service.store.append_batch("A", 0, parts, 0, 1, BORN, 0)
        assert [p.queue_offset for p in puts] == [1, 2, 3]
        assert puts[0].phy_offset == 1024
        assert puts[1].phy_offset == puts[0].phy_offset + puts[0].size
        with pytest.raises(MessageIllegal, match="segment"):
            service.store.append_batch("A", 0, parts * 4, 0, 1, BORN, 0)
        service.store.commit()
        assert len(everything(service)["A", 0]) == 4


async def test_pull_answers_as_apache_does(autojump_clock: object) -> None:
    async with serving(Machine(), WIDE) as service:
        store = service.store
        for number in range(10):
            put(service, "A", 0, b"%d" % number, TAGS="odd" if number % 2 else "even")
        store.commit()
        put(service, "B", 3, b"else")

        def pull(offset: int, count: int = 32, size: int = 1 << 18, tags: frozenset[int] | None = None) -> tuple[PullStatus, int, int]:
            answer = store.pull("A", 0, offset, count, size, tags)
            assert answer.size == sum(len(part) for part in answer.slices)
            return answer.status, answer.next_offset, answer.count

        assert pull(0) == (PullStatus.FOUND, 10, 10)
        assert len(store.pull("A", 0, 0, 32, 1 << 18).slices) == 1  # neighbours are one slice
        assert pull(2, 3) == (PullStatus.FOUND, 5, 3)
        assert pull(0, 32, 1) == (PullStatus.FOUND, 1, 1)  # one message at least, whatever its size
        assert pull(10) == (PullStatus.OFFSET_OVERFLOW_ONE, 10, 0)
        assert pull(11) == (PullStatus.OFFSET_OVERFLOW_BADLY, 10, 0)
        assert pull(-1) == (PullStatus.OFFSET_TOO_SMALL, 0, 0)
        assert pull(0, 2, tags=frozenset({tags_code("odd")})) == (PullStatus.FOUND, 4, 2)
        assert pull(0, tags=frozenset({1})) == (PullStatus.NO_MATCHED_MESSAGE, 10, 0)
        assert store.pull("Z", 0, 7, 32, 1 << 18).status is PullStatus.NO_MATCHED_LOGIC_QUEUE
        assert store.queue("Z", 0) is None


async def test_queries_drop_hash_collisions_and_hide_nothing(autojump_clock: object) -> None:
    async with serving(Machine(), WIDE) as service:
        for number in range(80):
            put(service, "T", 0, b"%d" % number, KEYS="Aa" if number == 3 else "BB")  # equal String.hashCode
        service.store.commit()
        found, _, _ = service.store.query("T", "Aa", 32, 0, 1 << 60)
        assert len(found) == 1
        assert service.store.query("T", "BB", 200, 0, 1 << 60)[0].__len__() == 64
        assert service.store.query("U", "Aa", 32, 0, 1 << 60)[0] == []


async def test_store_time_never_goes_back_and_is_searched(autojump_clock: object) -> None:
    machine = Machine(now_ms=1000)
    async with serving(machine, WIDE) as service:
        store = service.store
        for now in (1000, 1010, 900, 1010, 1020):
            machine.now_ms = now
            put(service, "A", 0, b"x")
            store.commit()
        assert [store.store_time("A", 0, i) for i in range(6)] == [1000, 1010, 1010, 1010, 1020, None]
        assert [store.offset_by_time("A", 0, ms) for ms in (0, 1000, 1001, 1010, 1011, 1021)] == [0, 0, 1, 1, 4, 5]
        assert [store.offset_by_time("A", 0, ms, "UPPER") for ms in (0, 1000, 1009, 1010, 1019, 5000)] == [0, 0, 0, 3, 3, 4]


async def test_transactions_get_no_queue_unit(autojump_clock: object) -> None:
    async with serving(Machine(), WIDE, close=True) as service:
        store = service.store
        half = store.append("A", 0, b"half", b"KEYS\x01k\x02", 0, 0x4, 1, BORN, 0, 0, ["k"])
        assert half.queue_offset == 0
        commit = store.append("A", 0, b"done", b"", 0, 0x8, 1, BORN, 0, 0, (), half.phy_offset)
        assert commit.queue_offset == 0
        store.append("A", 0, b"gone", b"KEYS\x01r\x02", 0, 0xC, 1, BORN, 0, 0, ["r"])
        store.commit()
        assert everything(service) == {("A", 0): [b"done"]}
        assert len(store.query("A", "k", 9, 0, 1 << 60)[0]) == 1
        assert store.query("A", "r", 9, 0, 1 << 60)[0] == []


async def test_only_the_start_of_a_record_is_a_record(autojump_clock: object) -> None:
    async with serving(Machine(), WIDE) as service:
        store = service.store
        placed = put(service, "A", 0, bytes(range(200)))
        inner = bytes(store.log.parts[0])  # a record inside a message's body, as an attacker would send it
        put(service, "A", 0, inner * 2)
        end = store.commit()
        assert [phy for phy in range(end) if store.record(phy) is not None] == [0, placed.size]


async def test_two_processes_never_share_a_store(autojump_clock: object) -> None:
    machine = Machine()
    async with serving(machine):
        with pytest.raises(StoreLocked):
            await open_store(Machine(machine.disk.another_process()), SMALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(("topic", "queue_id"), [("", 0), ("a/b", 0), ("..", 0), ("x" * 256, 0), ("A", -1)])
async def test_a_topic_that_is_no_folder_name_is_refused(topic: str, queue_id: int, autojump_clock: object) -> None:
    async with serving(Machine()) as service:
        with pytest.raises(MessageIllegal):
            put(service, topic, queue_id, b"x")
        assert put(service, "A", 0, b"x").queue_offset == 0


def test_keys_are_those_apache_indexes() -> None:
    assert index_keys({"UNIQ_KEY": "u", "KEYS": "a  b", "TAGS": "t"}) == ["u", "a", "b", "T#t"]
