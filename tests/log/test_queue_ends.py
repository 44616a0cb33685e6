"""Queue files that were cut, zeroed or removed after a clean stop: noticed, never served short, and no queue offset is given out twice."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from log.store_world import Machine, everything, put, serving
from trmq.errors import StoreMismatch
from trmq.log import StoreConfig, StoreService, open_store
from trmq.log.index_files import CorruptIndex
from trmq.log.queue_ends import ENDS_PATH, read_ends
from trmq.sim.disk import Dead, SimDisk

CONFIG = StoreConfig(segment_size=8192, queue_units=10, index_slots=100, index_entries=1000)
FILE = "consumequeue/A/0/00000000000000000200"
KEYS = [("A", 0), ("A", 1), ("B", 0)]


async def stopped(config: StoreConfig = CONFIG) -> Machine:
    """A store stopped in order, 12 messages in each of three queues."""
    machine = Machine()
    async with serving(machine, config) as service:
        for number in range(12):
            for topic, queue_id in KEYS:
                put(service, topic, queue_id, b"%d" % number)
            service.store.commit()
    return machine


def content(keys: list[tuple[str, int]] = KEYS) -> dict[tuple[str, int], list[bytes]]:
    return {key: [b"%d" % number for number in range(12)] for key in keys}


async def remove_tree(machine: Machine, folder: str) -> None:
    """Durably."""
    for name in machine.disk.names(folder):
        path = f"{folder}/{name}"
        if machine.disk.is_folder(path):
            await remove_tree(machine, path)
        else:
            machine.disk.remove(path)
    await machine.disk.sync_directory(folder)
    machine.disk.remove(folder)
    await machine.disk.sync_directory(folder.rpartition("/")[0])


def cut(machine: Machine) -> None:
    machine.disk.open(FILE).truncate(20)


def zero(machine: Machine) -> None:
    machine.disk.rot(FILE, 20, bytes(20))


def remove_last(machine: Machine) -> None:
    machine.disk.remove(FILE)


def remove_first(machine: Machine) -> None:
    machine.disk.remove("consumequeue/A/0/00000000000000000000")


def remove_all_files(machine: Machine) -> None:
    remove_first(machine)
    remove_last(machine)


@pytest.mark.parametrize(
    ("damage", "numbers"),
    [(cut, "0 to 11"), (zero, "0 to 11"), (remove_last, "0 to 10"), (remove_first, "10 to 12"), (remove_all_files, "0 to 0")],
)
async def test_damage_refuses_that_queue_until_its_folder_is_removed(
    damage: Callable[[Machine], None], numbers: str, autojump_clock: object
) -> None:
    machine = await stopped()
    damage(machine)
    for _ in range(2):  # a start and a clean stop in between do not make it true
        async with serving(machine, CONFIG) as service:
            assert service.report.how == "clean"
            says = rf"consumequeue/A/0: .* {numbers} \(exclusive\) but held 0 to 12 .* remove the whole consumequeue folder"
            for _ in range(2):
                with pytest.raises(CorruptIndex, match=says):
                    service.store.queue("A", 0)
                with pytest.raises(CorruptIndex, match=says):
                    put(service, "A", 0, b"would reuse an offset")
            await service.follow_min()  # retention goes on with the others
            queue = service.store.queue("A", 1)
            assert queue is not None
            assert queue.max_offset == 12
    await remove_tree(machine, "consumequeue")
    async with serving(machine, CONFIG) as service:
        assert everything(service) == content()
        assert put(service, "A", 0, b"next").queue_offset == 12


@pytest.mark.parametrize("folder", ["consumequeue/A/0", "consumequeue/A", "consumequeue"])
async def test_removed_folders_are_built_again_byte_for_byte(folder: str, autojump_clock: object) -> None:
    machine = await stopped()
    units = {path: machine.disk.peek(path) for path in machine.disk.paths() if path.startswith("consumequeue/")}
    await remove_tree(machine, folder)
    async with serving(machine, CONFIG) as service:
        assert everything(service) == content()
        assert put(service, "A", 0, b"next").queue_offset == 12
        service.store.rollback()
    assert {path: machine.disk.peek(path) for path in machine.disk.paths() if path.startswith("consumequeue/")} == units
    async with serving(machine, CONFIG) as service:
        assert service.report.how == "clean"
        assert everything(service) == content()


@pytest.mark.parametrize("folder", ["consumequeue/A", "consumequeue"])
async def test_a_crash_while_queues_are_built_again_leaves_none_short(folder: str, autojump_clock: object) -> None:
    machine = await stopped()
    await remove_tree(machine, folder)
    fuse = 1
    while True:
        other = Machine(machine.disk.clone())
        other.disk.fuse = fuse
        try:
            service = await open_store(other, CONFIG)  # type: ignore[arg-type]
        except Dead:
            for how in ("kill", "power"):
                third = Machine(other.disk.clone().crash(how))
                async with serving(third, CONFIG) as again:
                    assert everything(again) == content(), (fuse, how)
        else:
            other.disk.fuse = None
            await service.close()
            break
        fuse += 1
    assert fuse > 10


async def emptied() -> tuple[Machine, StoreConfig]:
    """A store stopped in order whose queue Old/0 reached 2 and then lost all its messages to retention; its queue files are removed."""
    config = attrs.evolve(CONFIG, segment_size=1024, reserve_ms=1000)
    machine = Machine()
    async with serving(machine, config) as service:
        for topic in ("Old", *["New"] * 30):
            put(service, topic, 0, b"x" * 30)
            put(service, topic, 0, b"x" * 30)
            service.store.commit()
        await service.flush()
        machine.now_ms += 10_000
        while await service.clean_expired(machine.now_ms, at_once=True):
            pass
    await remove_tree(machine, "consumequeue")
    return machine, config


def old_ends(service: StoreService) -> tuple[int, int] | None:
    queue = service.store.queue("Old", 0)
    return None if queue is None else (queue.min_offset, queue.max_offset)


async def test_an_emptied_queue_keeps_its_numbering_when_queues_are_built_again(autojump_clock: object) -> None:
    machine, config = await emptied()
    for _ in range(2):
        async with serving(machine, config) as service:
            assert old_ends(service) == (2, 2)
    async with serving(machine, config) as service:
        assert put(service, "Old", 0, b"y").queue_offset == 2


async def test_and_whenever_that_start_crashes(autojump_clock: object) -> None:
    machine, config = await emptied()
    for fuse in range(1, 100):
        other = Machine(machine.disk.clone())
        other.disk.fuse = fuse
        try:
            service = await open_store(other, config)  # type: ignore[arg-type]
        except Dead:
            for how in ("kill", "power"):
                third = Machine(other.disk.clone().crash(how))
                async with serving(third, config) as again:
                    assert old_ends(again) == (2, 2), (fuse, how)
        else:
            other.disk.fuse = None
            await service.close()
            return
    pytest.fail("the start never ends")


async def test_an_unclean_stop_ignores_the_file(autojump_clock: object) -> None:
    machine = await stopped()
    async with serving(machine, CONFIG, close=False) as service:
        put(service, "A", 0, b"12")
        service.store.commit()
    async with serving(machine, CONFIG) as service:
        assert service.report.how == "trmq"
        assert everything(service)["A", 0] == [b"%d" % number for number in range(13)]


async def test_apaches_run_in_between_ignores_the_file(autojump_clock: object) -> None:
    machine = await stopped()
    machine.disk.rot("checkpoint", 0, (1_795_213_999_999).to_bytes(8, "big"))
    await remove_tree(machine, "consumequeue/B")  # as a deleted topic
    async with serving(machine, CONFIG) as service:
        assert service.report.how == "apache-clean"
        assert everything(service)["A", 0] == content()["A", 0]


async def test_a_damaged_or_missing_file_is_no_reason_to_refuse(autojump_clock: object) -> None:
    machine = await stopped()
    for at in range(machine.disk.size_of(ENDS_PATH)):
        other = Machine(machine.disk.clone())
        other.disk.flip(ENDS_PATH, at, at % 8)
        assert read_ends(other.disk) is None
    machine.disk.remove(ENDS_PATH)
    async with serving(machine, CONFIG) as service:
        assert everything(service) == content()


async def test_a_deleted_topic_is_not_missed(autojump_clock: object) -> None:
    machine = await stopped()
    async with serving(machine, CONFIG) as service:
        service.store.delete_topic("B")
    async with serving(machine, CONFIG) as service:
        assert service.report.how == "clean"
        assert everything(service) == content(KEYS[:2])


@pytest.mark.parametrize("units", [5, 20])
async def test_another_queue_file_size_is_refused_with_the_key_to_set(units: int, autojump_clock: object) -> None:
    machine = await stopped()
    says = rf"consumequeue/A/0/0{{20}} has 200 bytes but mappedFileSizeConsumeQueue is {units * 20}; set mappedFileSizeConsumeQueue=200"
    apache = Machine(machine.disk.clone())
    apache.disk.remove("trmq/checkpoint")
    crashed = Machine(machine.disk.clone())
    async with serving(crashed, CONFIG, close=False):
        pass
    for one in (machine, apache, crashed):
        with pytest.raises(StoreMismatch, match=says):
            await open_store(one, attrs.evolve(CONFIG, queue_units=units))  # type: ignore[arg-type]


async def test_five_thousand_queues_start_and_stop_without_being_opened(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    config = StoreConfig(segment_size=4 << 20, queue_units=4, index_slots=10, index_entries=20)
    async with serving(machine, config) as service:
        for number in range(5000):
            put(service, f"T{number % 50}", number // 50, b"x")
        service.store.commit()
    opened: list[str] = []
    real = SimDisk.open

    def open_(self: SimDisk, path: str, size: int = 0) -> object:
        opened.append(path)
        return real(self, path, size)

    monkeypatch.setattr(SimDisk, "open", open_)
    for _ in range(2):
        async with serving(machine, config) as service:
            assert len(service.store.queues()) == 5000
            assert service.store.queue("T7", 7) is not None
        assert {path for path in opened if path.startswith("consumequeue/")} == {"consumequeue/T7/7/00000000000000000000"}
    found = read_ends(machine.disk)
    assert found is not None
    assert len(found.ends) == 5000
