"""`trmq serve` and `trmq namesrv` as a launcher sees them: Apache's files, readiness lines, signals, exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.cluster import broker_ports, call, free_ports
from process.server import MODEST, NOBODY, Server, trmq, wait_until

from .test_words import APACHE_BROKER


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_apaches_own_files_start_a_name_server_and_a_broker(run: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    (ns_port,) = free_ports(1)
    port = broker_ports()
    (tmp_path / "namesrv.conf").write_text(f"listenPort={ns_port}\nserverWorkerThreads = 8\n")
    (tmp_path / "broker.conf").write_text(APACHE_BROKER + f"""\
namesrvAddr=127.0.0.1:{ns_port}
listenPort={port}
haListenPort={port + 1}
brokerIP1=127.0.0.1
storePathRootDir={tmp_path}/store
storePathCommitLog={tmp_path}/store/commitlog
mapedFileSizeCommitLog=1048576
mapedFileSizeConsumeQueue=300000
autoCreateTopicEnable=true
sendMessageThreadPoolNums=16
transientStorePoolEnable=false
enableControllerMode=false
""")
    ns = run("namesrv", "-c", tmp_path / "namesrv.conf", "--store", tmp_path / "ns")
    assert line(ns) == f"The Name Server boot success. serializeType=JSON, address 127.0.0.1:{ns_port}"
    broker = run("serve", "-c", tmp_path / "broker.conf", env=NOBODY)  # nothing may go over the file
    assert line(broker).startswith(
        f"The broker[broker-a, 127.0.0.1:{port}] boot success. serializeType=JSON and name server is 127.0.0.1:{ns_port}"
    )
    assert wait_until(lambda: b"broker-a" in call(ns_port, 106)[2], "the broker is registered")
    assert call(port, 28)[0] == 0
    assert (tmp_path / "store" / "abort").exists()
    for process in (broker, ns):
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert out == ""
        assert "Traceback" not in err
        if process is broker:
            assert "these keys are known but not needed and have no effect" in err
            assert "sendMessageThreadPoolNums" in err
    assert not (tmp_path / "store" / "abort").exists(), "stopped cleanly"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_serve_cleanly(tmp_path: Path, number: int, code: int) -> None:
    server = Server(tmp_path).start()
    assert server.put(b"kept").code == 0
    assert server.end(number) == code
    assert server.errors() == ""
    assert not (server.store / "abort").exists()
    done = trmq("store", "check", server.store, "-o", "json")
    assert done.code == 0
    assert '"clean": true' in done.out


def test_a_signal_while_starting_is_no_traceback(tmp_path: Path, run: Callable[..., subprocess.Popen[str]]) -> None:
    process = run("serve", "--store", tmp_path / "s", "--listen-port", 0, "--namesrv-port", 0)
    line(process)  # the name server is up, the broker may not be
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == ""


def test_it_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    """Whatever ends that program, the kernel closes its end of the pipe."""
    command = [sys.executable, "-m", "trmq", "serve", "--store", str(tmp_path / "s"), "--listen-port", "0", "--namesrv-port", "0",
               "--end-with", "stdin"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=MODEST) as process:
        line(process)
        assert line(process).endswith(", role ASYNC_MASTER, id 0")
        assert process.stdin is not None
        process.stdin.write("ignored\n")
        process.stdin.flush()
        assert process.poll() is None
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
    assert not (tmp_path / "s" / "abort").exists(), "stopped cleanly"


@pytest.mark.parametrize(("words", "named"), [
    ([], "has to find its master: give --namesrv"), (["--namesrv-port", 0], "a slave runs no name server"),
    (["-n", "127.0.0.1:1", "--namesrv-port", 0], "leave one of the two out"), (["--broker-id", 0], "brokerId above 0"),
])  # fmt: skip
def test_a_slave_that_cannot_find_a_master(tmp_path: Path, words: list[object], named: str) -> None:
    done = trmq("serve", "--role", "slave", "--store", tmp_path / "s", *(() if "--broker-id" in words else ("--broker-id", 1)), *words)
    assert done.code == 2
    assert named in done.sentence
    assert not (tmp_path / "s").exists()


def test_a_slave_and_its_master_by_flags(tmp_path: Path, run: Callable[..., subprocess.Popen[str]]) -> None:
    """The master starts a name server of its own, the slave does not."""
    master = run("serve", "--role", "sync_master", "--broker-name", "a", "--store", tmp_path / "m", "--listen-port", 0, "--namesrv-port", 0,
                 "--set", "haListenPort=0")  # fmt: skip
    name_server = line(master).rpartition(" ")[2]
    assert line(master).endswith(f"store {tmp_path}/m, role SYNC_MASTER, id 0")
    slave = run("serve", "--role", "slave", "--broker-name", "a", "--broker-id", 1, "-n", name_server, "--store", tmp_path / "s",
                "--listen-port", 0)  # fmt: skip
    assert line(slave).endswith(f"store {tmp_path}/s, role SLAVE, id 1")
    assert wait_until(lambda: trmq("ha", "status", "--check", "-n", name_server).code == 0, "the slave follows")
    double = trmq("serve", "--role", "slave", "--broker-name", "a", "--broker-id", 1, "-n", name_server, "--store", tmp_path / "d",
                  "--listen-port", 0)  # fmt: skip
    assert double.code == 2
    assert "already has a slave with brokerId=1 at 127.0.0.1:" in double.sentence
    for process in (slave, master):
        process.send_signal(signal.SIGTERM)
        assert "Traceback" not in process.communicate(timeout=30)[1]
        assert process.returncode == 0


def test_standard_input_that_cannot_end(tmp_path: Path, run: Callable[..., subprocess.Popen[str]]) -> None:
    process = run("namesrv", "-p", 0, "--store", tmp_path, "--end-with", "stdin")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.startswith("trmq: --end-with stdin: standard input is no pipe")


def test_a_send_without_an_answer_is_exit_code_5(tmp_path: Path, run: Callable[..., subprocess.Popen[str]]) -> None:
    """A broker that is there and says nothing: the message may be stored, and the exit code says that nobody knows."""
    ns = run("namesrv", "-p", 0, "--store", tmp_path / "ns")
    name_server = line(ns).rpartition(" ")[2]
    broker = run("serve", "-n", name_server, "--listen-port", 0, "--store", tmp_path / "b")
    assert "boot success" in line(broker)
    assert trmq("topic", "create", "T", "-n", name_server).code == 0
    assert trmq("produce", "T", "-n", name_server, stdin=b"heard").code == 0
    broker.send_signal(signal.SIGSTOP)
    try:
        done = trmq("produce", "T", "-n", name_server, stdin=b"unheard")
        assert done.code == 5
        assert "send to topic 'T' failed" in done.sentence
        asked = trmq("topic", "show", "T", "-n", name_server)
        assert asked.code == 5
        assert "no answer from 127.0.0.1:" in asked.sentence
    finally:
        broker.send_signal(signal.SIGCONT)


def test_without_arguments_it_is_loopback_and_the_usual_ports() -> None:
    from trmq.config import load_broker, load_namesrv

    assert load_broker().config.resolved("host", "192.0.2.7").bind_address == "127.0.0.1"
    assert load_broker().config.listen_port == 10911
    assert (load_namesrv().config.bind_address, load_namesrv().config.listen_port) == ("127.0.0.1", 9876)
