"""Delayed delivery, judged by what a consumer sees and when: P-DLY-1 (never early), P-DLY-2 (soon), P-DLY-3 (at least once)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker.harness import Client, Lab, running
from trmq.errors import DiskFull
from trmq.record import decode_records
from trmq.sim.world import World
from trmq.wire.bodies import DelayOffsetWrapper, decode_body
from trmq.wire.codes import RequestCode, ResponseCode

QUICK = {"message_delay_level": "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"}
FILE = "config/delayOffset.json"


def lateness(lab: Lab, queue_id: int, delay_s: float) -> list[float]:
    """Seconds from due to delivered, for each message of topic T in `queue_id`; negative is early. By the broker's clock."""
    store, found = lab.broker.store, []
    pull = store.pull("T", queue_id, 0, 1000, 1 << 20, None)
    for part in pull.slices:
        for message in decode_records(part):
            sent_ms = int(message.properties["SENT"])
            found.append((message.store_ms - sent_ms) / 1000 - delay_s)
    return found


async def send_delayed(lab: Lab, client: Client, level: int | str, queue_id: int = 0, body: bytes = b"later") -> None:
    properties = {"DELAY": str(level), "TAGS": "a", "KEYS": "k", "UNIQ_KEY": f"U{level}", "SENT": str(lab.broker.now_ms())}
    answer = await client.send("T", body, properties, queue_id=queue_id)
    assert answer.code == 0, answer.remark


async def test_each_level_is_delivered_when_due_and_not_before(autojump_clock: MockClock) -> None:
    async with running(**QUICK) as lab:
        client = await lab.client()
        for level in (4, 3, 2, 1):
            await send_delayed(lab, client, level, queue_id=level - 1, body=b"%d" % level)
        await trio.sleep(40)
        for level, delay_s in ((1, 1), (2, 5), (3, 10), (4, 30)):
            [late] = lateness(lab, level - 1, delay_s)
            assert 0 <= late < 2


async def test_the_copy_is_the_message_without_its_delay(autojump_clock: MockClock) -> None:
    async with running(**QUICK) as lab:
        client = await lab.client()
        await send_delayed(lab, client, 1, queue_id=2)
        [part] = lab.broker.store.pull("SCHEDULE_TOPIC_XXXX", 0, 0, 1, 9999, None).slices
        [scheduled] = decode_records(part)
        unit = lab.broker.store.queue("SCHEDULE_TOPIC_XXXX", 0).unit(0)  # type: ignore[union-attr]  # it's there
        assert unit is not None
        assert unit[2] == scheduled.store_ms + 1000, "the unit says when it is due"
        assert scheduled.properties["REAL_TOPIC"] == "T"
        assert scheduled.properties["REAL_QID"] == "2"
        await trio.sleep(3)
        [copy] = decode_records((await client.pull(queue_id=2)).body)
        assert copy.body == scheduled.body
        assert copy.flag == scheduled.flag
        assert (copy.born_ms, copy.born_host) == (scheduled.born_ms, scheduled.born_host)
        assert "DELAY" not in copy.properties
        assert {name: copy.properties[name] for name in ("TAGS", "KEYS", "UNIQ_KEY")} == {"TAGS": "a", "KEYS": "k", "UNIQ_KEY": "U1"}
        assert [m.body for m in decode_records((await client.pull(queue_id=2, subscription="a")).body)] == [b"later"]
        assert (await client.pull(queue_id=2, subscription="b", sys_flag=4)).code != 0


async def test_a_held_pull_gets_the_delayed_message_when_it_is_due(autojump_clock: MockClock) -> None:
    async with running(**QUICK) as lab:
        client = await lab.client()
        await send_delayed(lab, client, 2)
        start = trio.current_time()
        answer = await client.pull(sys_flag=4 | 2)
        assert answer.code == 0
        assert 5 <= trio.current_time() - start < 5.1


async def test_a_level_above_the_last_is_the_last_and_zero_is_none(autojump_clock: MockClock) -> None:
    async with running(message_delay_level="1s 2s") as lab:
        client = await lab.client()
        await send_delayed(lab, client, 99)
        await send_delayed(lab, client, 0, queue_id=1)
        assert lab.broker.store.queue("SCHEDULE_TOPIC_XXXX", 1).max_offset == 1  # type: ignore[union-attr]  # it's there
        assert len(lateness(lab, 1, 0)) == 1
        await trio.sleep(3)
        assert [0 <= late < 1 for late in lateness(lab, 0, 2)] == [True]


@pytest.mark.parametrize(("properties", "code"), [
    ({"DELAY": "soon"}, ResponseCode.MESSAGE_ILLEGAL),
    ({"TIMER_DELAY_SEC": "3"}, ResponseCode.SYSTEM_ERROR),
    ({"TIMER_DELIVER_MS": "1"}, ResponseCode.SYSTEM_ERROR),
    ({"TIMER_DELAY_MS": "5", "DELAY": "0"}, ResponseCode.SYSTEM_ERROR),
])
async def test_what_cannot_be_delayed_is_refused(autojump_clock: MockClock, properties: dict[str, str], code: int) -> None:
    async with running() as lab:
        client = await lab.client()
        answer = await client.send("T", b"x", properties)
        assert answer.code == code, answer.remark
        assert lab.broker.store.max_phy == 0


async def test_a_level_wins_over_a_timer(autojump_clock: MockClock) -> None:
    async with running(**QUICK) as lab:
        client = await lab.client()
        assert (await client.send("T", b"x", {"DELAY": "1", "TIMER_DELAY_SEC": "999"})).code == 0
        await trio.sleep(3)
        [copy] = decode_records((await client.pull()).body)
        assert "TIMER_DELAY_SEC" not in copy.properties


async def test_nothing_polls_while_nothing_is_due(autojump_clock: MockClock) -> None:
    """Two hours of waiting take a handful of looks, not one every 100 ms."""
    async with running(**QUICK) as lab:
        client = await lab.client()
        await send_delayed(lab, client, 17)
        looks = 0
        real = lab.broker.delay._round

        def counting() -> tuple[float, int]:
            nonlocal looks
            looks += 1
            return real()

        lab.broker.delay._round = counting  # type: ignore[method-assign]  # to count
        await trio.sleep(3700)
        assert len(lateness(lab, 0, 3600)) == 1
        assert looks <= 4


async def test_what_came_due_while_we_were_away_is_delivered_at_once(autojump_clock: MockClock) -> None:
    world = World(7)
    async with running(world, **QUICK) as lab:
        client = await lab.client()
        for _ in range(300):
            await send_delayed(lab, client, 3)
    await trio.sleep(100)
    async with running(world, **QUICK) as lab:
        await trio.sleep(2)
        assert len(lateness(lab, 0, 10)) == 300


async def test_a_clean_restart_delivers_nothing_twice(autojump_clock: MockClock) -> None:
    world = World(7)
    async with running(world, **QUICK) as lab:
        client = await lab.client()
        await send_delayed(lab, client, 1)
        await send_delayed(lab, client, 3)
        await trio.sleep(2)
        assert len(lateness(lab, 0, 1)) == 1
    written = decode_body(bytes(world.host("broker").disk.peek(FILE)), DelayOffsetWrapper)
    assert (written.offset_table[1], written.offset_table[3]) == (1, 0)
    async with running(world, **QUICK) as lab:
        await trio.sleep(20)
        assert len(lateness(lab, 0, 1)) == 2
        assert lab.broker.delay.statistics().delivered == 1


@pytest.mark.parametrize("flush", ["SYNC_FLUSH", "ASYNC_FLUSH"])
@pytest.mark.parametrize("how", ["kill", "power"])
@pytest.mark.parametrize("after_s", [0.5, 1.2, 5.0, 12.0, 25.0])
async def test_a_crash_loses_no_delayed_message(autojump_clock: MockClock, flush: str, how: str, after_s: float) -> None:
    """P-DLY-3, wherever the crash falls: before delivery, after it but before the file, after the file."""
    world = World(11)
    async with running(world, flush_disk_type=flush, **QUICK) as lab:
        client = await lab.client()
        for _ in range(5):
            await send_delayed(lab, client, 1)
        await trio.sleep(0 if flush == "SYNC_FLUSH" else 0.6)  # ASYNC_FLUSH promises nothing before the flush
        await trio.sleep(after_s)
        world.host("broker").crash(how)  # type: ignore[arg-type]  # a literal
    async with running(world, flush_disk_type=flush, **QUICK) as lab:
        await trio.sleep(3)
        found = lateness(lab, 0, 1)
        assert 5 <= len(found) <= 10
        assert all(late >= 0 for late in found)
        if after_s > 20:
            assert len(found) == 5, "the file was written long ago: no copies"


async def test_a_clock_set_back_delays_nobody_longer_than_the_level(autojump_clock: MockClock) -> None:
    world = World(7)
    async with running(world, **QUICK) as lab:
        client = await lab.client()
        await send_delayed(lab, client, 2)
        world.host("broker").clock.skew_ms -= 3_600_000
        await send_delayed(lab, client, 2, body=b"second")
        start = trio.current_time()
        while len(lab.broker.store.pull("T", 0, 0, 10, 9999, None).slices) == 0:
            await trio.sleep(0.01)
        assert 4.9 <= trio.current_time() - start <= 5.2
        await trio.sleep(1)
        assert lab.broker.store.pull("T", 0, 0, 10, 9999, None).count == 2


async def test_offsets_outside_the_queue_are_brought_inside(autojump_clock: MockClock) -> None:
    world = World(7)
    async with running(world, **QUICK) as lab:
        client = await lab.client()
        await send_delayed(lab, client, 1)
        await trio.sleep(3)
    disk = world.host("broker").disk
    file = disk.open(FILE)
    text = b'{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},"offsetTable":{1:999,2:77}}'
    file.truncate(0)
    file.write_at(0, text)
    await file.sync()
    async with running(world, **QUICK) as lab:
        assert [level.offset for level in lab.broker.delay.levels[:2]] == [1, 0]
        client = await lab.client("again")
        await send_delayed(lab, client, 2)
        await trio.sleep(7)
        assert lab.broker.store.pull("T", 0, 0, 10, 9999, None).count == 2
        answer = await client.ask(RequestCode.GET_ALL_DELAY_OFFSET)
        assert b"2:1" in answer.body


async def test_a_full_disk_only_postpones_delivery(autojump_clock: MockClock) -> None:
    async with running(**QUICK) as lab:
        client = await lab.client()
        await send_delayed(lab, client, 1)
        lab.broker.store.refuse_writes = "full"
        await trio.sleep(3)
        assert lab.broker.store.pull("T", 0, 0, 10, 9999, None).count == 0
        assert lab.broker.delay.statistics().delivered == 0
        lab.broker.store.refuse_writes = None
        await trio.sleep(2)
        assert lab.broker.store.pull("T", 0, 0, 10, 9999, None).count == 1


@pytest.mark.parametrize("seed", range(6))
async def test_the_file_never_runs_ahead_of_the_disk(autojump_clock: MockClock, seed: int) -> None:
    """The file is written long before the copies are durable; then the power goes. The message must come again."""
    world = World(seed)
    slow = QUICK | {"flush_delay_offset_interval": 50, "flush_interval_commit_log": 60_000}
    async with running(world, **slow) as lab:
        client = await lab.client()
        await send_delayed(lab, client, 1)
        await lab.broker.store_service.flush()
        await trio.sleep(2)
        assert lab.broker.delay.statistics().delivered == 1
        world.host("broker").crash("power")
    async with running(world, **slow) as lab:
        await trio.sleep(3)
        assert len(lateness(lab, 0, 1)) >= 1


async def test_a_disk_that_fills_in_the_middle_of_a_batch_leaves_no_copies(autojump_clock: MockClock) -> None:
    async with running(**QUICK) as lab:
        client = await lab.client()
        for _ in range(4):
            await send_delayed(lab, client, 1)
        real, calls = lab.broker.put, 0

        def put(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise DiskFull("full")
            return real(*args, **more)

        lab.broker.put = put  # type: ignore[method-assign]  # a disk that fills
        await trio.sleep(5)
        assert len(lateness(lab, 0, 1)) == 4
        assert lab.broker.delay.statistics().delivered == 4
