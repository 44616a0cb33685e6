"""`trmq store tail` on bytes as they lie in a log: records, the filling at a file's end, records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from process.server import trmq
from trmq.message import encode_host, encode_properties
from trmq.record import BLANK_SIZE_MIN, MAGIC_BLANK, encode_record


def record(topic: str, number: int, body: bytes) -> bytes:
    properties = encode_properties({"UNIQ_KEY": f"K{number}", "TAGS": "t"})
    host = encode_host(("127.0.0.1", 10911))
    return encode_record(topic.encode(), 1, number, 4096, body, properties, 0, 0, 1_700_000_000_000, host, 1_700_000_000_000, host)


@pytest.fixture
def tail(tmp_path: Path) -> Path:
    blank = (40).to_bytes(4, "big") + MAGIC_BLANK.to_bytes(4, "big")
    path = tmp_path / "tail-4096-5000.log"
    path.write_bytes(record("orders", 0, b"first") + blank.ljust(40, b"\x55") + record("orders", 1, b"\xff\x00") + record("x", 2, b"last"))
    return path


def test_a_tail_is_printed_and_can_be_sent_again(tail: Path) -> None:
    rows = [json.loads(line) for line in trmq("store", "tail", tail, "-o", "jsonl").out.splitlines()]
    assert [(row["topic"], row["message_id"], row["tag"], row["body"]) for row in rows] == [
        ("orders", "K0", "t", "first"), ("orders", "K1", "t", "hex:ff00"), ("x", "K2", "t", "last"),
    ]  # fmt: skip
    assert json.loads(trmq("store", "tail", tail, "--topic", "x", "-o", "json").out) == [rows[2]]
    table = trmq("store", "tail", tail)
    assert (table.code, table.err) == (0, "")
    assert [word for word in ("K0", "K1", "K2") if word in table.out] == ["K0", "K1", "K2"]
    nothing = trmq("store", "tail", tail, "--topic", "y")
    assert (nothing.code, nothing.err) == (0, "no message of topic y\n")


def test_what_is_no_tail(tail: Path, tmp_path: Path) -> None:
    assert "is no file" in trmq("store", "tail", tmp_path).sentence
    for cut in (1, BLANK_SIZE_MIN, 30):
        tail.write_bytes(tail.read_bytes()[:-cut])
        done = trmq("store", "tail", tail)
        assert done.code == 7
        assert f"{tail} at byte " in done.sentence
