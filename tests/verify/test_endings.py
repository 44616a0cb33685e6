"""How a run of `trmq verify` may end otherwise: a cluster that dies, an interrupt, what is no cluster, a command that makes no sense."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from interop.cluster import free_ports
from process.server import trmq
from trmq.cli import run
from verify.lab import Lab, begin, finish, started

SECONDS_MAX = 60


def test_a_cluster_that_dies_is_never_said_to_have_passed(lab: Lab, tmp_path: Path) -> None:
    broker = lab.add("broker-a")
    started(lab)
    report = tmp_path / "report.json"
    process = begin(lab.name_server, "--duration", "30", "--patience", "2", report=report)
    assert process.stderr is not None
    assert "messages/s" in process.stderr.readline()
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
