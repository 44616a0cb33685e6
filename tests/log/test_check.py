"""`check_store`: a sound store has no errors, each kind of damage is found where it is, and an unclean stop is not damage."""

from __future__ import annotations

import json

import pytest

from trmq.log.check import check_store
from trmq.log.key_index import KeyIndex
from trmq.log.queue_table import QueueIndexSet
from trmq.log.report import Report
from trmq.message import encode_properties, tags_code
from trmq.record import MAGIC_BLANK, encode_record
from trmq.sim.disk import SimDisk

SEGMENT = 2048
HOST = bytes((127, 0, 0, 1, 0, 0, 42, 159))
BEGIN = 1_700_000_000_000
SEGMENT_0 = f"commitlog/{0:020d}"
SEGMENT_1 = f"commitlog/{SEGMENT:020d}"
QUEUE_0 = f"consumequeue/T/0/{0:020d}"


class Builder:
    """A store written record by record, without the store."""

    def __init__(self) -> None:
        self.disk = SimDisk()
        self.end = 0
        self.next: dict[tuple[str, int], int] = {}
        self.phys: list[int] = []
        self.queues = QueueIndexSet(self.disk, units_per_file=10)
        self.index = KeyIndex(self.disk, lambda: BEGIN, slots=50, entries_max=200)

    def send(self, topic: str = "T", queue_id: int = 0, *, sys_flag: int = 0, dispatch: bool = True, offset: int | None = None) -> int:
        n = len(self.phys)
        queue_offset = self.next.get((topic, queue_id), 0) if offset is None else offset
        properties = encode_properties({"KEYS": f"k{n}", "UNIQ_KEY": f"U{n}", "TAGS": "A"})
        phy = self.end
        for _ in range(2):
            stamps = (BEGIN, HOST, BEGIN, HOST)
            record = encode_record(topic.encode(), queue_id, queue_offset, phy, b"x" * 200, properties, 0, sys_flag, *stamps)
            left = SEGMENT - phy % SEGMENT
            if len(record) + 8 <= left:
                break
            self.segment(phy).write_at(phy % SEGMENT, left.to_bytes(4, "big") + MAGIC_BLANK.to_bytes(4, "big"))
            phy += left
        self.segment(phy).write_at(phy % SEGMENT, record)
        self.end = phy + len(record)
        self.phys.append(phy)
        if sys_flag & 0xC:
            return phy
        self.next[topic, queue_id] = queue_offset + 1
        if dispatch:
            self.queues.get_or_create(topic, queue_id).append(queue_offset, phy, len(record), tags_code("A"))
            self.index.put(topic, [f"U{n}", f"k{n}"], phy, BEGIN)
        return phy

    def segment(self, phy: int):
        return self.disk.open(f"commitlog/{phy // SEGMENT * SEGMENT:020d}", SEGMENT)

    def write_back(self) -> Builder:
        for _ in self.queues.write_back():
            pass
        for _ in self.index.write_back():
            pass
        return self

    def check(self, **options) -> Report:
        return check_store(self.disk, index_layout=(50, 200), **options)


@pytest.fixture
def store() -> Builder:
    builder = Builder()
    for n in range(30):
        builder.send(("T", "Other")[n % 3 == 0], n % 2)
    builder.send("T", 0, sys_flag=0xC)
    return builder


def errors(report: Report) -> set[tuple[str, str, int | None]]:
    return {(f.kind, f.file, f.offset) for f in report.findings if f.severity == "error"}


def kinds(report: Report) -> set[str]:
    return {f.kind for f in report.findings}


def test_a_sound_store(store):
    store.write_back()
    before = {path: store.disk.peek(path) for path in store.disk.paths()}
    store.disk.calls = 0
    seen = []
    report = store.check(progress=lambda what, done, of: seen.append((what, done, of)))
    assert report.ok, report.findings
    assert store.disk.calls == 0
    assert {path: store.disk.peek(path) for path in store.disk.paths()} == before
    facts = report.facts
    assert (facts["records"], facts["units"], facts["queues"], facts["segment_size"]) == (31, 30, 4, SEGMENT)
    assert (facts["min_phy"], facts["max_phy"], facts["clean"], facts["keys_sampled"]) == (0, store.end, True, False)
    assert facts["keys_checked"] == 60
    assert seen[-1][0] == "log"
    json.dumps(report.to_dict())


def test_an_empty_folder_is_a_sound_store():
    assert check_store(SimDisk()).ok


class TestDamage:
    def test_a_flipped_bit_in_a_body(self, store):
        store.write_back().disk.flip(SEGMENT_1, 150)
        assert errors(store.check()) == {("body-crc", SEGMENT_1, 0)}

    def test_a_record_out_of_place(self, store):
        store.write_back().disk.rot(SEGMENT_0, 28, (7).to_bytes(8, "big"))
        assert errors(store.check()) == {("physical-offset", SEGMENT_0, 0)}

    def test_a_bad_record_with_good_ones_behind(self, store):
        store.write_back().disk.rot(SEGMENT_0, store.phys[2], bytes(8))
        report = store.check()
        assert ("bad-record", SEGMENT_0, store.phys[2]) in errors(report)
        assert f"follows at {store.phys[3]}" in next(f.message for f in report.findings if f.kind == "bad-record")

    def test_a_missing_segment(self, store):
        store.write_back().disk.remove(SEGMENT_1)
        assert "segment-missing" in kinds(store.check())

    def test_a_gap_in_a_queue_s_numbers(self, store):
        store.send("T", 1, dispatch=False, offset=77)
        assert "queue-order" in kinds(store.write_back().check())

    @pytest.mark.parametrize("at", [7, 11, 19])
    def test_a_wrong_unit(self, store, at):
        store.write_back().disk.flip(QUEUE_0, 60 + at)
        assert errors(store.check()) == {("queue-unit", QUEUE_0, 60)}

    def test_a_missing_unit(self, store):
        store.write_back().disk.rot(QUEUE_0, 60, bytes(20))
        assert errors(store.check()) == {("queue-missing", "consumequeue/T/0", None)}

    def test_a_unit_without_a_record(self, store):
        store.write_back()
        end = store.next["Other", 0]
        path = f"consumequeue/Other/0/{0:020d}"
        store.disk.rot(path, end * 20, store.disk.peek(path)[:20])
        assert errors(store.check()) == {("queue-phantom", path, end * 20)}

    def test_a_lost_key(self, store):
        store.write_back()
        path = store.index.paths[0]
        store.disk.rot(path, 40 + 200 + 20 * 7, b"\0\0\0\1")
        report = store.check()
        assert {f.kind for f in report.findings if f.severity == "error"} == {"index-key"}

    def test_a_link_that_leads_up(self, store):
        store.write_back()
        store.disk.rot(store.index.paths[0], 40 + 200 + 20 * 7 + 16, b"\0\0\0\x20")
        assert "index-link" in kinds(store.check())

    def test_a_damaged_configuration(self, store):
        store.write_back().disk.open("config/topics.json").write_at(0, b'{"topicConfigTable":{')
        assert not store.check().ok
        store.disk.open("config/topics.json.bak").write_at(0, b'{"topicConfigTable":{},"x":{0:1,-2:3}}')
        assert store.check().ok

    def test_findings_are_bounded(self, store):
        for path in store.write_back().disk.paths():
            if path.startswith("commitlog"):
                for position in range(100, SEGMENT, 300):
                    store.disk.flip(path, position)
        report = store.check()
        assert len(report.findings) <= 60


class TestAfterAnUncleanStop:
    @pytest.fixture
    def stopped(self, store):
        store.disk.open("abort").write_at(0, b"1")
        return store

    def test_an_unfinished_record_is_no_damage(self, stopped):
        record = encode_record(b"T", 0, 0, stopped.end, b"y" * 100, b"", 0, 0, BEGIN, HOST, BEGIN, HOST)
        stopped.write_back().segment(stopped.end).write_at(stopped.end % SEGMENT, record[:120])
        report = stopped.check()
        assert report.ok
        assert "unfinished-tail" in kinds(report)
        assert report.facts["max_phy"] == stopped.end

    def test_indexes_that_lag_are_no_damage(self, stopped):
        stopped.write_back()
        for _ in range(3):
            stopped.send(dispatch=False)
        report = stopped.check()
        assert report.ok
        assert {"queue-behind", "index-behind"} <= kinds(report)
        stopped.disk.remove("abort")
        assert not stopped.check().ok

    def test_a_queue_that_runs_ahead_is_no_damage(self, stopped):
        stopped.queues.get_or_create("T", 0).append(stopped.next["T", 0], stopped.end, 300, 0)
        report = stopped.write_back().check()
        assert report.ok
        assert "queue-ahead" in kinds(report)


def test_records_of_a_deleted_topic_are_no_damage(store):
    store.queues.delete_topic("Other")
    store.disk.open("config/topics.json").write_at(0, b'{"topicConfigTable":{"T":{}}}')
    report = store.write_back().check()
    assert report.ok, report.findings
    assert "deleted-topic" in kinds(report)


def test_a_topic_deleted_and_created_again_is_no_damage(store):
    store.queues.delete_topic("T")
    store.next.pop(("T", 0))
    store.next.pop(("T", 1))
    for n in range(5):
        store.send("T", n % 2)
    report = store.write_back().check()
    assert report.ok, report.findings


def test_expired_segments_are_no_damage(store):
    store.write_back().disk.remove(SEGMENT_0)
    report = store.check()
    assert report.ok, report.findings
    assert report.facts["min_phy"] == SEGMENT
