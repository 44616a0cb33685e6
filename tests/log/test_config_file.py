"""Config files survive a crash in any disk call of a replacement, and damage of the newer copy."""

from __future__ import annotations

import pytest

from log.store_world import Machine, run_until_dead
from trmq.log.config_file import is_whole, load_json_text, persist
from trmq.sim.disk import SimDisk

PATH = "config/topics.json"


@pytest.mark.parametrize("how", ["kill", "power"])
def test_old_or_new_after_a_crash_in_any_call(how: str) -> None:
    for fuse in range(1, 100):
        machine = Machine(SimDisk(seed=fuse))
        contents = [b'{"version":%d}' % number for number in range(4)]
        done = [-1]

        async def replace(machine: Machine = machine, contents: list[bytes] = contents, done: list[int] = done) -> None:
            for number, content in enumerate(contents):
                await persist(machine.disk, PATH, content)
                done[0] = number

        machine.disk.fuse = fuse
        finished = run_until_dead(machine, replace)
        found = load_json_text(machine.disk.crash(how), PATH)  # type: ignore[arg-type]
        possible = contents[max(done[0], 0) : done[0] + 2]
        assert found in possible or (found is None and done[0] < 0), f"fuse {fuse}"
        if finished:
            return
    raise AssertionError("it never finished")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"a":{1:2}', b'{"a":"}', b"\0" * 20])
def test_a_half_written_file_gives_way_to_the_one_before(damage: bytes) -> None:
    disk = SimDisk(seed=1)
    disk.open(f"{PATH}.bak").write_at(0, b'{"old":{1:"}"}}')
    disk.open(PATH).write_at(0, damage)
    assert load_json_text(disk, PATH) == b'{"old":{1:"}"}}'


@pytest.mark.parametrize("text", [b"{}", b' {"a":[{"b":"\\"}"}]} \n', b"{1:{2:3}}"])
def test_whole_texts_are_recognized(text: bytes) -> None:
    assert is_whole(text)
    assert not is_whole(text.strip()[:-1])
    assert not is_whole(text.strip() * 2)


def test_nothing_there_is_none() -> None:
    assert load_json_text(SimDisk(seed=1), PATH) is None
