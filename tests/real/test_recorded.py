"""Every call on the disk of a real broker is recorded, and the power goes between them: what was acknowledged is served all the same."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio
from specs.clause import Verdict
from specs.history import Put

import trmq
from interop.cluster import Group, slaves_at
from process.server import wait_until
from property.image import Sent
from real.recorded import Call, read
from real.replayed import Crash, Heard, crashes, history_of, lost, recover
from trmq.broker.settings import store_config
from trmq.config import load_broker
from trmq.log import StoreConfig
from trmq.record import MAGIC_BLANK, decode_record

SEGMENT = 1 << 14
SETTINGS = {"mappedFileSizeCommitLog": SEGMENT, "mappedFileSizeConsumeQueue": 400, "maxHashSlotNum": 20, "maxIndexNum": 60,
            "flushDiskType": "SYNC_FLUSH", "maxMessageSize": 8_000}  # fmt: skip
CLAUSES = ("P-FLUSH-1", "P-REC-3", "P-REC-5", "P-REC-7", "P-LOG-1", "P-LOG-2", "P-LOG-4", "P-LOG-7", "P-LOG-8")
SENDERS = 4


@attrs.frozen
class Recording:
    calls: list[Call]
    heard: list[Heard]
    puts: list[Put]
    sent: dict[str, Sent]
    config: StoreConfig
    now_ms: int


def record(folder: Path, bug: str, seed: int, count: int, *, slave: bool = False) -> Recording:
    """A broker takes `count` messages of each sender and is stopped in order. Recorded is that broker or, if `slave`, the slave of a
    SYNC_MASTER; it has `bug` ("-": none)."""
    root = Path(__file__).parents[2]
    group = Group(folder / "g")
    master = group.add("master", **SETTINGS, brokerRole="SYNC_MASTER" if slave else "ASYNC_MASTER")
    broker = group.add("slave", **SETTINGS, brokerRole="SLAVE", brokerId=1) if slave else master
    broker.command = [sys.executable, "-m", "real.recorded", str(folder / "calls"), bug, *broker.command[broker.command.index("serve") :]]
    broker.env = {"PYTHONPATH": os.pathsep.join(map(str, (root / "tests", root)))}
    try:
        group.start()
        if slave:
            wait_until(lambda: slaves_at(master.port), "the slave is connected")
        heard = trio.run(load, group.name_server, random.Random(seed), count)
        assert broker.stop() == 0, broker.output()
    finally:
        group.stop()
    config = store_config(load_broker(broker.conf.read_text()).config, b"")
    puts, sent = stored(broker.store)
    assert len(puts) >= len(heard)
    return Recording(read(folder / "calls"), heard, puts, sent, config, int(time.time() * 1000))


async def load(name_server: str, dice: random.Random, count: int) -> list[Heard]:
    heard: list[Heard] = []

    async def send(producer: trmq.Producer, sender: int) -> None:
        for number in range(count):
            body = b"%d.%d " % (sender, number) + dice.randbytes(dice.randrange(10, 3_000))
            result = await producer.send("T", body, tag="t", keys=[f"k{sender}.{number}"])
            if result.status is trmq.SendStatus.SEND_OK:
                place = int(result.offset_message_id[-16:], 16)
                heard.append(Heard(result.message_id, ("T", result.queue.queue_id), result.offset, place, time.monotonic()))

    async with (
        trmq.connect(name_server) as client, client.producer(group="p", compress_over=None) as producer, trio.open_nursery() as nursery,
    ):  # fmt: skip
        await client.admin.create_topic("T", queues=2)
        for sender in range(SENDERS):
            nursery.start_soon(send, producer, sender)
    return heard


def stored(store: Path) -> tuple[list[Put], dict[str, Sent]]:
    """What the log of a store that was closed holds, in its order."""
    puts, sent = [], {}
    for path in sorted((store / "commitlog").iterdir()):
        data, at = path.read_bytes(), 0
        while at + 8 <= SEGMENT and int.from_bytes(data[at + 4 : at + 8], "big") not in (0, MAGIC_BLANK):
            m = decode_record(data[at:])
            id, queue = m.properties["UNIQ_KEY"], (m.topic, m.queue_id)
            puts.append(Put(id, queue, m.queue_offset, m.phy_offset, m.size))
            sent[id] = Sent(id, *queue, m.body, dict(m.properties), m.flag, m.born_ms, m.reconsume_times)
            at += m.size
    return puts, sent


def judge(recording: Recording, points: set[int], seed: int, verdict: Verdict, kept: tuple[str, ...]) -> tuple[int, list[str]]:
    """How many crash states there were, and what was wrong with them."""
    states, wrong = 0, list[str]()
    for crash in crash_states(recording, points, seed, kept):
        states += 1
        image = recover(crash, recording.config, recording.sent, recording.now_ms)
        if isinstance(image, str):
            wrong.append(f"before call {crash.before}, {crash.kept} kept: refused: {image}")
            continue
        missing = lost(crash, image)
        if missing:
            lost_ones = f"{len(missing)} of {len(crash.heard)} are lost, first {missing[0]}"
            wrong.append(f"before call {crash.before}, {crash.kept} kept: {lost_ones}")
        verdict.judge(history_of(crash, image), CLAUSES)
    return states, wrong


def crash_states(recording: Recording, points: set[int], seed: int, kept: tuple[str, ...]) -> Iterator[Crash]:
    return crashes(recording.calls, recording.heard, recording.puts, SEGMENT, points, random.Random(seed), kept)


@pytest.mark.parametrize("who", ["master", "slave"])
def test_the_power_goes_between_any_two_calls(tmp_path: Path, who: str, seed: int, profile: str) -> None:
    """40 moments with four kinds of luck here, every moment with `--profile long`. A slave under SYNC_FLUSH speaks of durable bytes only,
    so that what a SYNC_MASTER acknowledges is on both platters."""
    recording = record(tmp_path, "-", seed, 50 if profile == "long" else 20, slave=who == "slave")
    total = len(recording.calls)
    points = set(range(total)) if profile == "long" else set(random.Random(seed).sample(range(total), min(40, total)))
    verdict = Verdict()
    states, wrong = judge(recording, points, seed, verdict, ("none", "all", "prefix", "random"))
    kinds = dict(Counter(call.op for call in recording.calls))
    print(f"{who}: {states} crash states of {total} calls {kinds}, {len(recording.heard)} SEND_OK; witnesses {dict(verdict.witnesses)}")
    assert wrong == []
    assert not verdict.violations, verdict.violations[:5]
    assert len(recording.heard) == SENDERS * (50 if profile == "long" else 20)
    assert all(verdict.witnesses[id] for id in CLAUSES), "held only because nothing happened"
    assert sum(call.op == "allocate" for call in recording.calls) > 5, "segments rolled"


BUGS = [("ack_before_fsync", "master"), ("no_directory_sync", "master"), ("report_before_write", "slave")]


@pytest.mark.parametrize(("bug", "who"), BUGS)
def test_a_seeded_bug_loses_what_was_acknowledged(tmp_path: Path, bug: str, who: str, seed: int) -> None:
    recording = record(tmp_path, bug, seed, 10, slave=who == "slave")
    points = set(range(0, len(recording.calls), 4))
    verdict = Verdict()
    states, wrong = judge(recording, points, seed, verdict, ("none",))
    print(f"{bug}: {len(wrong)} of {states} crash states are wrong; {wrong[:1]}")
    assert any("are lost" in each for each in wrong)
    assert "P-FLUSH-1" in {id for id, _, _ in verdict.violations}


def test_the_recording_makes_the_disk_again(tmp_path: Path, seed: int) -> None:
    """Replayed to its end, the simulated disk has the same files with the same bytes as the real one."""
    recording = record(tmp_path, "-", seed, 10)
    (last,) = crash_states(recording, {len(recording.calls) - 1}, seed, ("all",))
    assert isinstance(last, Crash)
    store = tmp_path / "g" / "master" / "store"
    real = {str(path.relative_to(store)): path for path in store.rglob("*") if path.is_file()}
    print(sorted(real))
    assert set(last.disk.paths()) - {"abort"} == set(real) - {"abort"}
    for name, path in real.items():
        assert last.disk.peek(name) == path.read_bytes(), name
