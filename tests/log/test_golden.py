"""The store's files, byte for byte as Apache RocketMQ 5.4.0 writes them.

Source: reference "store" section 15 (made by running the 5.4.0 jars: commit log segments of 1024 bytes, queue files of 10 units,
index files of 10 slots and 20 entries).
"""

from __future__ import annotations

import struct

from log.store_world import SMALL, Machine, serving
from trmq.log import StoreService

RECORD = bytes.fromhex(
    "00000086 daa320a7 7036e992 00000001 00000007 0000000000000000 0000000000000000 00000000"
    "0000018bcfe56800 0a010203000011d7 000001a1fb165c7e 7f00000100002a9f 00000000 0000000000000000"
    "00000006 68656c6c6f30 06 546f70696347 001f"
    "4b455953 01 6b30 02 554e49515f4b4559 01 554b30 02 54414753 01 54616741 02"
)
UNITS = ((0, 134), (134, 134), (268, 134), (402, 134), (1024, 528))


def send(service: StoreService, number: int, size: int) -> None:
    from log.store_world import BORN

    properties = f"KEYS\x01k{number}\x02UNIQ_KEY\x01UK{number}\x02TAGS\x01TagA\x02".encode()
    body = b"hello%d" % number
    body += b"." * (size - 128 - len(body))
    keys = [f"UK{number}", f"k{number}", "T#TagA"]
    service.store.append("TopicG", 1, body, properties, 7, 0, 1_700_000_000_000, BORN, 0, 2598919, keys)
    service.store.commit()


async def test_files_are_those_of_apache(autojump_clock: object) -> None:
    machine = Machine()
    async with serving(machine) as service:
        for number in range(5):
            send(service, number, 528 if number == 4 else 134)
    disk = machine.disk

    first = disk.peek("commitlog/00000000000000000000")
    assert first[:134] == RECORD
    assert first[536:] == bytes.fromhex("000001e8cbd43194") + bytes(480)
    assert disk.peek("commitlog/00000000000000001024")[:4] == (528).to_bytes(4, "big")

    units = b"".join(struct.pack(">qiq", phy, size, 2598919) for phy, size in UNITS)
    assert disk.peek("consumequeue/TopicG/1/00000000000000000000") == units + bytes(100)

    (index,) = [path for path in disk.paths() if path.startswith("index/")]
    raw = disk.peek(index)
    ms = 1_795_213_909_118
    assert struct.unpack(">qqqqii", raw[:40]) == (ms, ms, 0, 1024, 8, 16)
    assert struct.unpack(">10i", raw[40:80]) == (14, 11, 8, 5, 4, 7, 10, 15, 0, 0)
    assert struct.unpack_from(">iqii", raw, 80 + 20) == (1134602863, 0, 0, 0)
    assert struct.unpack_from(">iqii", raw, 80 + 80) == (1134602864, 134, 0, 2)

    assert struct.unpack(">5q", disk.peek("checkpoint")[:40]) == (ms, ms, ms, 0, 0)
    assert len(disk.peek("checkpoint")) == 4096
    assert not disk.exists("abort")
    assert {path.split("/")[0] for path in disk.paths()} == {"commitlog", "consumequeue", "index", "checkpoint", "lock", "trmq"}


async def test_the_log_folder_never_holds_a_file_of_another_length(autojump_clock: object) -> None:
    machine = Machine()

    def look(_: object) -> None:
        for path in machine.disk.paths():
            assert not path.startswith("commitlog/") or len(machine.disk.peek(path)) == 1024

    machine.disk.on_call = look
    async with serving(machine, SMALL) as service:
        for number in range(40):
            send(service, number % 10, 134)
    assert len(machine.disk.names("commitlog")) >= 5
