"""The key index: Apache's bytes, Apache's answers, hash collisions, files that fill up, damage."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from trmq.errors import DiskFull
from trmq.log.index_file import HEADER
from trmq.log.key_index import UNIQUE_KEY_SIZES, KeyIndex, key_hash
from trmq.sim.disk import SimDisk

GOLDEN = Path(__file__).parent.parent / "golden" / "index"
NAME = "20261121000000000"
WALL_MS = 1795219200000  # its name
BEGIN = 1_700_000_000_000


def golden_puts() -> list[tuple[str, list[str], int, int]]:
    """(topic, keys, log offset, store time) per record."""
    records: list[tuple[str, list[str], int, int]] = []
    for line in (GOLDEN / "puts.tsv").read_text("utf-8").splitlines():
        text, phy, ms = line.split("\t")
        topic, _, key = text.partition("#")
        if records and records[-1][2] == int(phy):
            records[-1][1].append(key)
        else:
            records.append((topic, [key], int(phy), int(ms)))
    return records


def index_on(disk: SimDisk, slots: int = 10, entries: int = 20, **load) -> KeyIndex:
    index = KeyIndex(disk, lambda: WALL_MS, slots=slots, entries_max=entries)
    index.load(**{"clean": True, **load})
    return index


def settle(index: KeyIndex) -> int:
    return sum(len(step.files) for step in index.write_back())


def find(index: KeyIndex, key: str, *, topic: str = "T", most: int = 64, begin: int = 0, end: int = 1 << 60) -> list[int]:
    return index.query(topic, key, most, begin, end)


class TestApachesFiles:
    def test_same_bytes(self):
        disk = SimDisk()
        index = index_on(disk)
        for record in golden_puts():
            index.put(*record)
        settle(index)
        assert disk.paths() == [f"index/{NAME}"]
        assert disk.peek(f"index/{NAME}") == (GOLDEN / "apache_10_20.bin").read_bytes()

    @pytest.mark.parametrize("source", ["apache", "memory"])
    def test_same_answers(self, source):
        disk = SimDisk()
        if source == "apache":
            disk.open(f"index/{NAME}").write_at(0, (GOLDEN / "apache_10_20.bin").read_bytes())
        index = index_on(disk)
        if source == "memory":
            for record in golden_puts():
                index.put(*record)
        answers = (GOLDEN / "answers.txt").read_text().splitlines()
        for line, answer in zip((GOLDEN / "gets.tsv").read_text("utf-8").splitlines(), answers, strict=True):
            key, most, begin, end = line.split("\t")
            topic, _, key = key.partition("#")
            assert index.query(topic, key, int(most), int(begin), int(end)) == json.loads(answer[2:]), line

    def test_continued_where_apache_stopped_in_the_middle_of_a_record(self):
        disk = SimDisk()
        disk.open(f"index/{NAME}").write_at(0, (GOLDEN / "apache_10_20.bin").read_bytes())
        index = index_on(disk)
        for record in golden_puts():
            index.put(*record)
        assert not index.dirty
        topic, keys, phy, ms = golden_puts()[-1]
        index.put(topic, [*keys, "more"], phy, ms)
        assert find(index, "more", topic=topic) == [phy]
        assert find(index, keys[0], topic=topic) == [phy]

    @pytest.mark.interop
    def test_apache_reads_and_continues_what_we_wrote(self, tmp_path):
        if not all(shutil.which(tool) for tool in ("java", "javac", "mvn")):
            pytest.skip("Java 11+ and Maven are needed to exchange index files with Apache RocketMQ")
        from interop import jvm

        jars = f"{jvm.jars()}/*"
        subprocess.run(["javac", "-nowarn", "-cp", jars, "-d", tmp_path, GOLDEN / "RecordIndex.java"], check=True)
        path = tmp_path / NAME

        def java(what: str, lines: list[str]) -> list[str]:
            options = ["-Dfile.encoding=UTF-8", f"-Duser.home={tmp_path}", "-cp", f"{tmp_path}:{jars}"]
            command = ["java", *options, "RecordIndex", what, path, "10", "20"]
            done = subprocess.run(command, input="\n".join(lines).encode(), capture_output=True, check=True)
            return [line for line in done.stdout.decode().splitlines() if line.startswith("> ")]

        disk = SimDisk()
        index = index_on(disk)
        for record in golden_puts():
            index.put(*record)
        settle(index)
        path.write_bytes(disk.peek(f"index/{NAME}"))
        assert java("get", (GOLDEN / "gets.tsv").read_text("utf-8").splitlines()) == (GOLDEN / "answers.txt").read_text().splitlines()
        assert java("put", ["TopicG#UK0\t5000\t1795213919118"]) == ["> true"]
        disk = SimDisk()
        disk.open(f"index/{NAME}").write_at(0, path.read_bytes())
        assert find(index_on(disk), "UK0", topic="TopicG") == [5000, 0]


def test_colliding_keys_hide_nothing():
    index = index_on(SimDisk(), entries=500)
    for i in range(100):
        index.put("T", ["Aa"], i * 10, BEGIN)
    index.put("T", ["BB"], 5000, BEGIN)
    for i in range(100):
        index.put("T", ["Aa"], 6000 + i * 10, BEGIN)
    assert len(find(index, "BB")) == 64
    assert 5000 in index.candidates("T", "BB", 0, 1 << 60)


def test_hashes_of_unique_keys_are_those_of_any_text():
    """The shortcut for keys as long as a UNIQ_KEY against `String.hashCode` as it is defined."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for size in [*sorted(UNIQUE_KEY_SIZES) * 200, 31, 33, 55, 57]:
        key = "".join(dice.choices("0123456789ABCDEF~", k=size))
        for text in (key, key[:-1] + "\xff", key[:-1] + "\u3042"):
            code = 0
            for character in f"T#{text}":
                code = (31 * code + ord(character)) & 0xFFFFFFFF
            signed = code - (1 << 32) if code >> 31 else code
            assert key_hash("T", text) == (0 if signed == -1 << 31 else abs(signed)), text


def test_times_are_kept_to_the_second_and_never_hide_a_record():
    index = index_on(SimDisk())
    for i, ms in enumerate((0, 900, 1999, 2000, 60_000)):
        index.put("T", ["k"], i * 100, BEGIN + ms)
    assert 200 in find(index, "k", begin=BEGIN + 1999, end=BEGIN + 1999)
    assert find(index, "k", begin=BEGIN + 30_000) == [400]
    assert find(index, "k", end=BEGIN + 999) == [100, 0]
    assert find(index, "k", end=BEGIN - 1) == []
    assert find(index, "k", begin=BEGIN + 61_000) == []


def test_one_record_comes_once_though_a_key_is_given_twice():
    index = index_on(SimDisk())
    index.put("T", ["k", "k"], 0, BEGIN)
    assert find(index, "k") == [0]


class TestManyFiles:
    def filled(self, disk: SimDisk, records: int = 30) -> KeyIndex:
        index = index_on(disk)
        for i in range(records):
            index.put("T", [f"k{i % 3}", f"u{i}"], i * 100, BEGIN + i * 1000)
            if i % 7 == 0:
                settle(index)
        return index

    @pytest.mark.parametrize("reload", [False, True])
    def test_answers_span_files_newest_first(self, reload):
        disk = SimDisk()
        index = self.filled(disk)
        if reload:
            settle(index)
            index = index_on(disk)
        assert find(index, "k0") == [i * 100 for i in range(27, -1, -3)]
        assert find(index, "k0", most=2) == [2700, 2400]
        assert [find(index, f"u{i}") for i in range(30)] == [[i * 100] for i in range(30)]
        assert len(index.paths) == 4
        assert index.paths == sorted(index.paths)
        assert index.end_phy == 2900
        assert index.last_store_ms == BEGIN + 29_000

    def test_dispatching_again_changes_nothing(self):
        disk = SimDisk()
        settle(self.filled(disk))
        before = {path: disk.peek(path) for path in disk.paths()}
        settle(self.filled(disk))
        assert {path: disk.peek(path) for path in disk.paths()} == before

    def test_a_record_with_more_keys_than_a_file_takes(self):
        disk = SimDisk()
        index = index_on(disk)
        index.put("T", ["x"], 0, BEGIN)
        keys = [f"k{i}" for i in range(50)]
        index.put("T", keys, 100, BEGIN)
        settle(index)
        index = index_on(disk)
        index.put("T", keys, 100, BEGIN)
        assert not index.dirty
        assert all(find(index, key) == [100] for key in keys)

    def test_expired_files_go_but_never_the_newest(self):
        disk = SimDisk()
        index = self.filled(disk)
        settle(index)
        index.delete_below(1000)
        assert len(index.paths) == 3
        index.delete_below(10**9)
        assert index.paths == disk.paths() == [f"index/{int(NAME) + 3}"]

    @pytest.mark.parametrize("keep", [0, 1, 8, 9, 10, 25, 29, 30])
    @pytest.mark.parametrize("written", [True, False])
    def test_truncate(self, keep, written):
        disk = SimDisk()
        index = self.filled(disk)
        if written:
            settle(index)
        index.truncate(keep * 100)
        for i in range(keep, 35):
            index.put("T", ["new", f"n{i}"], i * 100 + 7, BEGIN + i * 1000)
        for _ in range(2):
            for i in range(30):
                assert find(index, f"u{i}") == ([i * 100] if i < keep else [])
            assert find(index, "k1") == [i * 100 for i in range(30) if i % 3 == 1 and i < keep][::-1]
            assert find(index, "new") == [i * 100 + 7 for i in range(34, keep - 1, -1)]
            settle(index)
            index = index_on(disk, clean=False)


def test_an_idle_index_keeps_no_slots_in_memory():
    index = index_on(SimDisk(), slots=10_000, entries=5_000)
    for i in range(1000):
        index.put("T", [f"k{i}"], i, BEGIN)
    settle(index)
    assert index._files[0]._pages == {}
    assert not index.dirty
    assert find(index, "k7") == [7]


def test_puts_between_the_steps_belong_to_the_next_round():
    disk = SimDisk()
    index = index_on(disk)
    index.put("T", ["a"], 0, BEGIN)
    for n, _ in enumerate(index.write_back()):
        index.put("T", ["a"], 100 + n, BEGIN)
    assert find(index, "a") == [102, 101, 100, 0]
    assert find(index_on(disk.clone()), "a") == [0]
    settle(index)
    assert find(index_on(disk), "a") == [102, 101, 100, 0]


@pytest.mark.parametrize("nth", range(3))
def test_a_full_disk_loses_nothing(nth):
    disk = SimDisk()
    index = index_on(disk)
    index.put("T", ["a", "b"], 0, BEGIN)
    steps = index.write_back()
    for _ in range(nth):
        next(steps)
    disk.fail("write", 28)
    with pytest.raises(DiskFull):
        list(steps)
    index.put("T", ["a"], 100, BEGIN)
    settle(index)
    index = index_on(disk)
    assert (find(index, "a"), find(index, "b")) == ([100, 0], [0])


class TestDamage:
    def broken(self, offset: int, data: bytes) -> KeyIndex:
        disk = SimDisk()
        index = TestManyFiles().filled(disk)
        settle(index)
        disk.rot(index.paths[2], offset, data)
        return index_on(disk)

    @pytest.mark.parametrize(("offset", "data"), [(36, b"\0\0\0\x7f"), (32, b"\xff\0\0\0"), (24, bytes(8)), (36, b"\0\0\0\x05")])
    def test_a_wrong_header_is_reported_and_derived_from_the_entries(self, offset, data):
        index = self.broken(offset, data)
        assert len(index.problems) == 1
        assert index.rebuild_from is None
        assert [find(index, f"u{i}") for i in range(30)] == [[i * 100] for i in range(30)]

    @pytest.mark.parametrize("data", [b"\0\0\0\x7f" + bytes(40), b"\0\0\0\x7f\0\0\0\x7f", b"\x7f" + bytes(443)])
    def test_what_can_not_be_derived_is_dropped_and_built_again(self, data):
        index = self.broken(36, data)
        assert len(index.problems) == 1
        assert index.rebuild_from == 1700
        for i in range(30):
            index.put("T", [f"k{i % 3}", f"u{i}"], i * 100, BEGIN + i * 1000)
        assert [find(index, f"u{i}") for i in range(30)] == [[i * 100] for i in range(30)]
        settle(index)
        assert find(index, "k0") == [i * 100 for i in range(27, -1, -3)]

    def test_a_cycle_ends_the_walk(self):
        index = self.broken(80 + 20 + 16, b"\0\0\0\x01" * 1)
        for entry in range(2, 19):
            index._disk.rot(index.paths[2], 80 + entry * 20 + 16, b"\0\0\0\x12")
        assert len(find(index, "k0")) < 64
        assert len(index.problems) <= 1

    def test_a_file_of_another_size(self):
        disk = SimDisk()
        settle(TestManyFiles().filled(disk))
        index = index_on(disk, slots=11)
        assert "480 bytes, 484 are expected" in index.problems[0]
        assert (index.paths, index.rebuild_from) == ([], 0)

    def test_an_empty_file_is_what_a_crash_may_leave(self):
        disk = SimDisk()
        settle(TestManyFiles().filled(disk))
        disk.open("index/20270101000000000")
        disk.open("index/20270101000000001", 480)
        index = index_on(disk)
        assert (index.problems, index.rebuild_from, len(index.paths)) == ([], None, 4)

    def test_what_apache_left_untrusted_is_dropped(self):
        disk = SimDisk()
        settle(TestManyFiles().filled(disk))
        index = index_on(disk, clean=False, trusted_ms=BEGIN + 17_000)
        assert (len(index.paths), index.rebuild_from) == (2, 1700)


def test_the_header_is_apaches():
    disk = SimDisk()
    index = index_on(disk)
    index.put("T", ["a", "b"], 70, BEGIN)
    index.put("T", ["a"], 80, BEGIN + 5)
    settle(index)
    assert HEADER.unpack(disk.peek(f"index/{NAME}")[:40]) == (BEGIN, BEGIN + 5, 70, 80, 2, 4)
