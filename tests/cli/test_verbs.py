"""Every noun and verb against one running process, as a person and as a program would use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from process.server import NOBODY, Finished, Server, trmq, wait_until

SMALL_INDEX = {"maxHashSlotNum": 1_000, "maxIndexNum": 4_000}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("cli"), "--broker-name", "b", mappedFileSizeCommitLog=16 << 20, **SMALL_INDEX).start()
    yield server
    assert server.end() == 0
    assert server.errors() == ""
    assert trmq("store", "check", server.store).code == 0


def cli(server: Server, *words: object, stdin: bytes = b"") -> Finished:
    return trmq(*words, stdin=stdin, env={"NAMESRV_ADDR": server.name_server})


def rows(server: Server, *words: object, stdin: bytes = b"") -> Any:
    done = cli(server, *words, "-o", "json", stdin=stdin)
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def lines(done: Finished) -> list[Any]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


# ------------------------------------------------------------------------------------------------------------------------ topics


def test_the_life_of_a_topic(server: Server) -> None:
    assert cli(server, "topic", "create", "life", "--queues", 3).code == 0
    assert {"topic": "life"} in rows(server, "topic", "list")
    assert "TBW102" not in str(rows(server, "topic", "list"))
    assert {"topic": "TBW102"} in rows(server, "topic", "list", "--all")
    shown = rows(server, "topic", "show", "life")
    assert [(row["broker"], row["queue"], row["messages"]) for row in shown] == [("b", 0, 0), ("b", 1, 0), ("b", 2, 0)]
    assert cli(server, "produce", "life", stdin=b"one\ntwo\n").code == 0
    assert sum(row["messages"] for row in rows(server, "topic", "show", "life")) == 2
    table = cli(server, "topic", "show", "life").out
    assert "life" in table
    assert "newest" in table
    assert cli(server, "topic", "create", "life", "--queues", 5).code == 0
    assert len(rows(server, "topic", "show", "life")) == 5
    assert cli(server, "topic", "delete", "life", "--yes").code == 0
    assert {"topic": "life"} not in rows(server, "topic", "list")
    gone = cli(server, "topic", "show", "life")
    assert gone.code == 1
    assert "life" in gone.sentence


@pytest.mark.parametrize("name", ["a b", "a/b", "", "x" * 128])
def test_an_illegal_topic(server: Server, name: str) -> None:
    for words in (["topic", "create", name], ["produce", name]):
        done = cli(server, *words, stdin=b"x\n")
        assert done.code in (1, 2)
        assert "topic" in done.sentence


# --------------------------------------------------------------------------------------------------------------- produce, consume

BODIES = [b"plain", "größer".encode(), b"\x00\xff\xfe binary", b"hex:6869", b"  spaces  ", b'{"json": true}', b"x" * 10_000]


def test_text_there_and_back(server: Server) -> None:
    sent = cli(server, "produce", "text", "--tag", "t1", "--key", "k1", stdin=b"one\ntwo\r\nthree")
    assert sent.code == 0
    assert len(sent.out.splitlines()) == 3
    assert sent.err == "3 messages sent to text\n"
    got = cli(server, "consume", "text", "--from", "first", "--count", 3, "--timeout", 20)
    assert (got.code, sorted(got.out.split()), got.err) == (0, ["one", "three", "two"], "")


def test_jsonl_there_and_back_with_any_bytes(server: Server) -> None:
    """What `consume -o jsonl` prints, `produce --jsonl` takes: a copy is the original."""

    def line(number: int, body: bytes) -> str:
        try:
            text = body.decode()
            text = "hex:" + body.hex() if text.startswith("hex:") else text
        except UnicodeDecodeError:
            text = "hex:" + body.hex()
        return json.dumps({"body": text, "tag": f"tag{number}", "keys": [f"a{number}", "b"], "properties": {"who": f"me {number}"}})

    source = "\n".join(line(number, body) for number, body in enumerate(BODIES)).encode()
    places = lines(cli(server, "produce", "original", "--jsonl", "-o", "jsonl", stdin=source))
    assert [set(place) for place in places] == [{"message_id", "broker", "queue", "offset"}] * len(BODIES)
    first = cli(server, "consume", "original", "--peek", "-o", "jsonl")
    assert cli(server, "produce", "copy", "--jsonl", "--quiet", stdin=first.out.encode()).out == ""
    second = cli(server, "consume", "copy", "--peek", "-o", "jsonl")

    def essence(done: Finished) -> list[Any]:
        return sorted((row["tag"], row["keys"], row["properties"]["who"], row["body"]) for row in lines(done))

    assert essence(first) == essence(second)
    bodies = [bytes.fromhex(body[4:]) if body.startswith("hex:") else body.encode() for *_, body in essence(first)]
    assert bodies == BODIES


def test_consume_acknowledges_and_peek_does_not(server: Server) -> None:
    cli(server, "produce", "acks", stdin=b"\n".join(b"%d" % n for n in range(20)))
    for _ in range(2):
        assert len(cli(server, "consume", "acks", "--peek").out.split()) == 20
    assert len(cli(server, "consume", "acks", "--peek", "--count", 7).out.split()) == 7
    options = ["--group", "acks", "--from", "first", "--timeout", 3]
    some = cli(server, "consume", "acks", *options, "--count", 5)
    rest = cli(server, "consume", "acks", *options, "--count", 15)
    assert sorted(map(int, (some.out + rest.out).split())) == list(range(20)), "each once: what was printed was acknowledged"


def test_consume_stops_when_nothing_comes(server: Server) -> None:
    began = time.monotonic()
    assert cli(server, "topic", "create", "silent").code == 0
    done = cli(server, "consume", "silent", "--timeout", 1)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert time.monotonic() - began < 20


def test_consume_by_tag(server: Server) -> None:
    for tag in ("red", "green", "blue"):
        assert cli(server, "produce", "tags", "--tag", tag, "--quiet", stdin=tag.encode()).code == 0
    done = cli(server, "consume", "tags", "--peek", "--filter", "red || blue")
    assert sorted(done.out.split()) == ["blue", "red"]


@pytest.mark.parametrize(("stdin", "words"), [
    (b"not json\n", "line 1 is no JSON"), (b'{"body":"ok"}\n[1]\n', "line 2 must be a JSON object"), (b'{"tag":"t"}\n', "line 1 must be"),
    (b'{"body":"x","colour":"red"}\n', "line 1 must be"), (b'{"body":""}\n', "line 1"), (b'{"body":"x","delay_level":99}\n', "line 1"),
    (b'{"body":"hex:zz"}\n', "line 1"), (b'{"body":7}\n', "line 1"), (b'{"body":"x","properties":7}\n', "line 1"),
    (b'{"body":"x","keys":7}\n', "line 1"), (b'{"body":"x","tag":7}\n', "line 1"),
])  # fmt: skip
def test_a_line_that_is_no_message(server: Server, stdin: bytes, words: str) -> None:
    done = cli(server, "produce", "lines", "--jsonl", "--quiet", stdin=stdin)
    assert done.code == 2
    assert words in done.sentence


def test_ctrl_c_ends_consume_cleanly(server: Server) -> None:
    assert cli(server, "produce", "forever", "--quiet", stdin=b"first").code == 0
    command = [sys.executable, "-m", "trmq", "consume", "forever", "--group", "ctrlc", "--from", "first", "-n", server.name_server]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=NOBODY, start_new_session=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (130, b"", b"")
    finally:
        process.kill()
        process.communicate()
    shown = rows(server, "group", "show", "ctrlc")
    assert sum(row["lag"] for row in shown if row["topic"] == "forever") == 0, "what was printed was committed"


@pytest.mark.parametrize("words", [["produce", "interrupted"], ["bench", "send"]], ids=" ".join)
def test_ctrl_c_ends_every_verb(server: Server, words: list[str]) -> None:
    """Also one that waits for a line on standard input."""
    command = [sys.executable, "-m", "trmq", *words, "-n", server.name_server]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=NOBODY, start_new_session=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a line\n")
        process.stdin.flush()
        if words[0] == "produce":
            assert process.stdout.readline()
        else:
            wait_until(lambda: {"topic": "bench_send"} in rows(server, "topic", "list"), "the bench has begun")
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.stdout.read(), process.stderr and process.stderr.read()) == (130, b"", b"")
    finally:
        process.kill()
        process.communicate()


def test_a_closed_pipe_is_no_error(server: Server) -> None:
    cli(server, "produce", "pipe", "--quiet", stdin=b"\n".join([b"y" * 1000] * 500))
    command = f"{sys.executable} -m trmq consume pipe --peek -n {server.name_server} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, env=NOBODY, timeout=60)
    assert (done.stderr, done.returncode) == (b"", 0)


# ---------------------------------------------------------------------------------------------------------------------- messages


def test_messages_by_id_and_key(server: Server) -> None:
    (place,) = lines(cli(server, "produce", "found", "--key", "k7", "--tag", "t", "-o", "jsonl", stdin="grün".encode()))
    by_key = wait_until(lambda: rows(server, "message", "query", "found", "k7"), "the index has the key")
    assert [(row["body"], row["tag"], row["keys"]) for row in by_key] == [("grün", "t", ["k7"])]
    unique = rows(server, "message", "get", place["message_id"], "--topic", "found")
    assert unique["body"] == "grün"
    assert rows(server, "message", "get", unique["offset_message_id"])["message_id"] == place["message_id"]
    table = cli(server, "message", "query", "found", "k7").out
    assert "grün" in table
    assert cli(server, "message", "query", "found", "nobody").code == 1
    for words in (["get", place["message_id"][:-4] + "0000", "--topic", "found"], ["query", "no_such_topic", "k"]):
        done = cli(server, "message", *words)
        assert done.code == 1
        assert "no" in done.sentence
    done = cli(server, "message", "get", "00" * 16)
    assert done.code in (1, 3)
    assert done.sentence


# ------------------------------------------------------------------------------------------------------------------------ groups


def test_the_life_of_a_group(server: Server) -> None:
    assert cli(server, "group", "create", "team", "--retries", 3).code == 0
    assert [row["retries"] for row in rows(server, "group", "list") if row["group"] == "team"] == [3]
    cli(server, "produce", "work", "--quiet", stdin=b"\n".join(b"%d" % n for n in range(10)))
    cli(server, "consume", "work", "--group", "team", "--from", "first", "--count", 10, "--timeout", 10)
    shown = rows(server, "group", "show", "team")
    assert sum(row["consumer_offset"] for row in shown if row["topic"] == "work") == 10
    assert sum(row["lag"] for row in shown) == 0
    moved = rows(server, "group", "reset", "team", "work", "earliest", "--yes")
    assert {row["offset"] for row in moved} == {0}
    assert sum(row["lag"] for row in rows(server, "group", "show", "team") if row["topic"] == "work") == 10
    assert "work" in cli(server, "group", "show", "team").out
    assert cli(server, "group", "delete", "team", "--yes").code == 0
    assert "team" not in [row["group"] for row in rows(server, "group", "list")]


# ----------------------------------------------------------------------------------------------------------------- cluster, bench


def test_cluster_list(server: Server) -> None:
    (row,) = rows(server, "cluster", "list")
    assert (row["cluster"], row["broker"], row["id"], row["state"]) == ("DefaultCluster", "b", 0, "up")
    assert row["address"] == f"127.0.0.1:{server.port}"
    assert "127.0.0.1" in cli(server, "cluster", "list").out


KEYS = {"scenario", "topic", "seconds", "messages", "per_s", "p50_us", "p99_us", "p999_us", "max_us", "failed", "errors"}


@pytest.mark.parametrize("scenario", ["send", "batch", "oneway", "consume", "e2e"])
def test_bench(server: Server, scenario: str) -> None:
    options = ["--seconds", 0.5, "--warm", 0.2, "--concurrency", 8, "--size", 100, "--count", 2_000]
    if scenario == "e2e":
        options += ["--rate", 200]
    found = rows(server, "bench", scenario, *options)
    assert found.keys() >= KEYS
    assert found["messages"] > 0
    assert found["failed"] == 0
    assert 0 < found["p50_us"] <= found["p99_us"] <= found["p999_us"] <= found["max_us"]
    if scenario == "consume":
        assert found["messages"] == 2_000


# ------------------------------------------------------------------------------------------------------------------------- store


def test_store_check(server: Server, tmp_path: Any) -> None:
    """On a store of its own: sound, in use, damaged, and no store at all."""
    own = Server(tmp_path, mappedFileSizeCommitLog=65536, **SMALL_INDEX).start()
    for n in range(50):
        assert own.put(b"%d " % n + b"z" * 2000, n % 2, f"KEYS\x01k{n}\x02").code == 0
    used = json.loads(trmq("store", "check", own.store, "-o", "json").out)
    assert used["ok"]
    assert {finding["severity"] for finding in used["findings"]} <= {"info"}
    assert own.end() == 0
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(own.store.rglob("*"))}

    sound = trmq("store", "check", own.store, "-o", "json")
    assert (sound.code, sound.err) == (0, "")
    facts = json.loads(sound.out)["facts"]
    assert (facts["records"], facts["units"], facts["clean"], facts["errors"]) == (50, 50, True, 0)
    assert facts["records_with_checksum"] == 50
    assert facts["keys_checked"] == 100
    table = trmq("store", "check", own.store)
    assert table.code == 0
    assert "The store is fine." in table.out
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(own.store.rglob("*"))} == before

    segment = sorted((own.store / "commitlog").iterdir())[0]
    whole = segment.read_bytes()
    for at, kind in ((500, "body-crc"), (2_120, "record-checksum"), (30, "physical-offset"), (5, "bad-record")):
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        done = trmq("store", "check", own.store, "-o", "jsonl")
        assert (done.code, done.err) == (7, ""), kind
        *findings, summary = [json.loads(line) for line in done.out.splitlines()]
        assert kind in {finding["kind"] for finding in findings if finding["file"] == f"commitlog/{segment.name}"}
        assert not summary["ok"]
    table = trmq("store", "check", own.store)
    assert table.code == 7
    assert "The store is DAMAGED" in table.out
    segment.write_bytes(whole)
    os.truncate(segment, 30_000)
    assert trmq("store", "check", own.store).code == 7
    for folder, words in ((own.store / "commitlog", "is a commit log"), (tmp_path, "did you mean"), (segment, "is a file")):
        done = trmq("store", "check", folder)
        assert done.code == 2
        assert words in done.sentence
