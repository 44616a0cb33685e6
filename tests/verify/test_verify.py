"""`trmq verify` on real processes: one that keeps its promises under kill -9, some with seeded bugs, and what is no cluster."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from specs.clause import checks

from interop.cluster import free_ports
from process.server import trmq
from trmq.cli import run
from verify.broken import BUGS
from verify.lab import Judged, Lab, begin, broken, finish, verify

SECONDS_MAX = 60
CLIENT = ("P-LOSS-1", "P-HIS-2", "P-HIS-3", "P-DUP-1", "P-HIS-5", "P-HIS-6", "P-HIS-7", "P-HIS-8")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "lab")
    yield made
    made.end()


def started(lab: Lab) -> Lab:
    lab.start()
    lab.note_pids()
    return lab


def test_a_master_killed_and_started_again_keeps_every_promise(lab: Lab, tmp_path: Path) -> None:
    broker = lab.add("broker-a")
    started(lab)
    strike, mend = lab.kill(broker), lab.restart(broker)
    found = verify(lab.name_server, tmp_path, "--duration", "8", "--period", "4", "--down", "1", "--kill", strike, "--restart", mend,
                   "--patience", "20")  # fmt: skip
    print(found.out, found.err)
    assert found.code == 0, found.err
    assert {found.states[id] for id in CLIENT} == {"held"}
    assert [list(fault["struck"].values()) for fault in found.report["faults"]] == [["down"]] * len(found.report["faults"])
    assert len(found.report["faults"]) >= 1
    assert found.report["messages"]["outcomes"]["SEND_OK"] > 100
    assert found.report["messages"]["longest_time_without_an_answer_s"] >= 0.5, "a second without a broker must show"
    assert found.states["P-ACK-8"] == "not exercised", "nobody promised a copy, so nothing of it may be said to hold"
    topics = trmq("topic", "list", "-n", lab.name_server, "-o", "jsonl").out
    assert found.report["topic"] not in topics, "the run removes its topic"


def test_each_seeded_bug_is_found_by_the_clause_that_names_it(tmp_path: Path) -> None:
    labs: dict[str, Lab] = {}
    try:
        for bug in BUGS:
            labs[bug] = Lab(tmp_path / bug)
            broken(labs[bug].add("broker-a"), bug)
            started(labs[bug])
        reports = {bug: tmp_path / f"{bug}.json" for bug in BUGS}
        options = ("--duration", "2", "--rate", "100", "--patience", "3")
        runs = {bug: begin(lab.name_server, *options, report=reports[bug]) for bug, lab in labs.items()}
        found = {bug: finish(process, reports[bug], SECONDS_MAX) for bug, process in runs.items()}
    finally:
        for lab in labs.values():
            lab.end()
    for bug, judged in found.items():
        print(bug, judged.code, sorted(judged.broken))
    for bug, judged in found.items():
        clauses, _ = BUGS[bug]
        assert judged.code == 6, f"{bug}: {judged.out}"
        assert clauses <= judged.broken, f"{bug}: {judged.out}"
    example = found["loses"].clause("P-LOSS-1")["examples"][0]
    assert example["messages"][0]["attempts"][0]["answer"] == "SEND_OK", "the witness says what was sent where, and what was answered"
    assert example["messages"][0]["id"] in example["witness"]


@checks("P-ACK-8", "P-ACK-9", "P-ACK-4")
def test_a_sync_master_without_its_slave(tmp_path: Path) -> None:
    """Two needed and the slave killed: nothing is SEND_OK meanwhile. One is enough, Apache's default, and the slave stands still: that
    breaks the promise of the role."""
    labs = {need: Lab(tmp_path / f"need{need}", brokerRole="SYNC_MASTER", inSyncReplicas=need) for need in (1, 2)}
    runs = {}
    try:
        for need, lab in labs.items():
            lab.add("master")
            slave = lab.add("slave", brokerRole="SLAVE", brokerId=1)
            started(lab)
            faults = ["--kill", lab.kill(slave), "--restart", lab.restart(slave)]
            if need == 1:
                faults = ["--pause", lab.signal(slave, "STOP"), "--resume", lab.signal(slave, "CONT")]
            options = ("--duration", "8", "--period", "7", "--down", "4", "--rate", "50", *faults)
            runs[need] = begin(lab.name_server, *options, report=tmp_path / f"{need}.json")
        found: dict[int, Judged] = {need: finish(one, tmp_path / f"{need}.json", SECONDS_MAX) for need, one in runs.items()}
    finally:
        for lab in labs.values():
            lab.end()
    print(found[1].out, found[2].out)
    assert found[2].code == 0, found[2].out
    assert found[2].states["P-ACK-8"] == "held"
    assert found[2].states["P-ACK-9"] == "held"
    assert found[2].report["messages"]["outcomes"]["SLAVE_NOT_AVAILABLE"] > 0
    assert found[1].code == 6, found[1].out
    assert found[1].broken == {"P-ACK-8"}
    assert found[1].states["P-ACK-9"] == "not exercised", "a slave that stands still is still connected"
    assert list(found[1].report["faults"][0]["struck"].values()) == ["silent"]


def test_a_cluster_that_dies_is_never_said_to_have_passed(lab: Lab, tmp_path: Path) -> None:
    broker = lab.add("broker-a")
    started(lab)
    report = tmp_path / "report.json"
    process = begin(lab.name_server, "--duration", "30", "--patience", "2", report=report)
    assert process.stderr is not None
    assert "messages/s" in process.stderr.readline()
    time.sleep(2.0)
    broker.kill()
    found = finish(process, report, SECONDS_MAX)
    assert found.code == 1, found.out
    assert re.search(r"the cluster did not come back: no send was answered as stored for \d+ s \(127\.0\.0\.1:\d+ is down\)", found.out)
    assert found.report["verdict"] == "incomplete"
    assert found.states["P-LOSS-1"] == "not exercised", "what cannot be read is neither held nor lost"
    assert not re.search(r"\bheld: ", found.out)


def test_an_interrupt_mends_what_was_struck_and_reports_what_was_seen(lab: Lab, tmp_path: Path) -> None:
    broker = lab.add("broker-a")
    started(lab)
    report = tmp_path / "report.json"
    process = begin(lab.name_server, "--duration", "60", "--period", "5", "--down", "4", "--kill", lab.kill(broker), "--restart",
                lab.restart(broker), report=report)  # fmt: skip
    assert broker.process is not None
    broker.process.wait(20)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    found = finish(process, report, SECONDS_MAX)
    assert found.code == 130, found.out
    assert "interrupted; until then" in found.out
    assert found.report["faults"][0]["mended"] > 0
    assert found.states["P-LOSS-1"] == "held", "the broker was started again, and what it had was read"


def listener(answer: bytes | None) -> tuple[int, Callable[[], None]]:
    """A port where somebody listens that is no RocketMQ: it sends `answer` to everybody, or says nothing."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with ExitStack() as kept:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # the test is over
                    return
                kept.enter_context(connection)
                if answer is not None:
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()

    def end() -> None:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()

    return server.getsockname()[1], end


def test_what_is_no_cluster_is_one_sentence() -> None:
    http, one = listener(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    silent, two = listener(None)
    try:
        found = trmq("verify", "-n", f"127.0.0.1:{http}")
        assert (found.code, "speak RocketMQ's protocol" in found.sentence) == (2, True), found.err
        found = trmq("verify", "-n", f"127.0.0.1:{silent}")
        assert (found.code, "does not answer as a name server of RocketMQ would" in found.sentence) == (2, True), found.err
    finally:
        one()
        two()
    (nobody,) = free_ports(1)
    found = trmq("verify", "-n", f"127.0.0.1:{nobody}")
    assert (found.code, "no name server can be reached" in found.sentence) == (3, True), found.err


@pytest.mark.parametrize(("words", "names"), [
    (["--kill", "true"], "--kill without --restart"), (["--restart", "true"], "--restart without --kill"),
    (["--pause", "true"], "--pause without --resume"), (["--duration", "0"], "--duration 0"), (["--duration", "soon"], "--duration"),
    (["--rate", "0"], "--rate 0"), (["--kill", "true", "--restart", "true", "--period", "2"], "--period 2 and --down 3"),
    (["--kill", "true", "--restart", "true", "--duration", "5"], "--period 10"), (["--fault", "disk"], "--fault disk"),
    (["--fault", "flood"], "flood"), (["--expect", "luck"], "luck"), (["--topic", "a b"], "a b"), (["-n", "nowhere"], "nowhere"),
    (["--report", "/nowhere/x.json"], "/nowhere"), (["--patience", "0"], "--patience 0"),
], ids=" ".join)  # fmt: skip
def test_wrong_usage_is_one_sentence(words: list[str], names: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", *words]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("trmq: ")
    assert sentence.count("\n") == 1
    assert names in sentence
