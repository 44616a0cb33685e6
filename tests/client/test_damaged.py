"""A record that was damaged in a broker's log keeps no group from what stands behind it (one sector of a disk was written to the wrong
place in seed 1005)."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
from specs.history import Committed, Given

import trmq
from trmq.chaos.cluster import TOPIC, Cluster, running
from trmq.message import MessageQueue
from trmq.sim.determinism import run_seeded

QUEUE = MessageQueue(TOPIC, "a", 0)
SENT, DAMAGED = 7, 2
"""So many messages, and which of them is damaged."""


def head(at: int, code: str, value: int) -> Callable[[bytes], bytes]:
    """The record with another value in its head."""
    def change(record: bytes) -> bytes:
        found = bytearray(record)
        struct.pack_into(f">{code}", found, at, value)
        return bytes(found)

    return change


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a size of nothing": head(0, "i", 0),
    "a size that reaches into the next": head(0, "i", 250),
    "a size beyond all": head(0, "i", 1 << 30),
    "another magic": head(4, "I", 0x12345678),
    "an offset before": head(20, "q", 0),
    "an offset behind": head(20, "q", 1 << 40),
    "the offset of its successor": head(20, "q", DAMAGED + 1),
    "a body of another length": head(84, "i", 3),
    "another body": lambda record: record.replace(b"body", b"Body"),
    "all of it": lambda record: b"\x78" * len(record),
    "nothing of it": lambda record: bytes(len(record)),
}


def damage(lab: Cluster, node: str, change: Callable[[bytes], bytes]) -> str:
    """Behind the broker's back. Returns the id of the message."""
    log = lab.logs[node]
    record = log.records()[DAMAGED]
    lab.world.host(node).disk.rot(log._path(record.phy_offset), record.phy_offset % log.segment_size,
                                  change(log.read(record.phy_offset, record.size)))
    return record.id


def played(story: Callable[[Cluster], Awaitable[None]], slaves: int = 0) -> Cluster:
    made: list[Cluster] = []

    async def main() -> None:
        async with running("damaged", {"a": slaves}, flush="SYNC_FLUSH", slave_read_enable=True) as lab:
            made.append(lab)
            await lab.create_topic(1)
            await story(lab)

    run_seeded(main, "damaged")
    return made[0]


def given(lab: Cluster) -> list[int]:
    return [event.queue_offset for event in lab.events if isinstance(event, Given)]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_group_passes_over_a_damaged_record_and_gets_all_others(name: str) -> None:
    async def story(lab: Cluster) -> None:
        for number in range(SENT):
            await lab.send(f"body {number}", queue=QUEUE)
        damage(lab, "a0", DAMAGES[name])
        await lab.nursery.start(lab.consume, "consumer")
        await trio.sleep(40)

    lab = played(story)
    assert given(lab) == [number for number in range(SENT) if number != DAMAGED]
    assert max(event.offset for event in lab.events if isinstance(event, Committed)) == SENT


@pytest.mark.parametrize("name", DAMAGES)
def test_an_observer_reads_past_it_as_well(name: str) -> None:
    ids: list[str] = []

    async def story(lab: Cluster) -> None:
        ids[:] = [await lab.send(f"body {number}", queue=QUEUE) for number in range(SENT)]
        ids.remove(damage(lab, "a0", DAMAGES[name]))
        assert await lab.read_all() == ids

    played(story)


def test_a_slave_that_has_it_sound_is_asked_before_it_is_passed_over() -> None:
    async def story(lab: Cluster) -> None:
        for number in range(SENT):
            await lab.send(f"body {number}", queue=QUEUE)
        await trio.sleep(10)
        damage(lab, "a0", DAMAGES["a size of nothing"])
        await lab.nursery.start(lab.consume, "consumer")
        await trio.sleep(60)

    assert given(played(story, slaves=1)) == list(range(SENT))


def test_what_a_filter_leaves_out_lies_before_and_behind_it() -> None:
    """The record that is damaged is the second that the filter lets through, not the second of its queue."""
    found: list[int] = []

    async def story(lab: Cluster) -> None:
        for number in range(40):
            await lab.send(f"body {number}", queue=QUEUE, tag="wanted" if number in (DAMAGED, 20, 35) else "other")
        damage(lab, "a0", DAMAGES["all of it"])
        client = await lab.client("consumer")
        async with client.consumer(TOPIC, group="g", filter="wanted", from_where=trmq.FromWhere.FIRST) as consumer:
            with trio.move_on_after(40):
                async for message in consumer:
                    async with message:
                        found.append(message.offset)

    played(story)
    assert found == [20, 35]
