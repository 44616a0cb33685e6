"""`trmq dev`: real processes that are killed, by signals and otherwise. Nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop.cluster import free_ports, is_free
from process.server import MODEST, trmq, wait_until

ONE = ("--slaves", 0, "--role", "async_master")


def base_port(nodes: int) -> int:
    """Free with all that follow from it."""
    while True:
        (port,) = free_ports(1)
        if all(is_free(port + 10 * at) and is_free(port + 10 * at + 1) for at in range(nodes)):
            return port


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Dev:
    """A running `trmq dev` whose lines are read."""

    def __init__(self, folder: Path, *options: object, nodes: int = 2) -> None:
        self.folder, self.base, self.lines = folder, base_port(nodes), list[str]()
        self.pids: dict[str, int] = {}
        command = [sys.executable, "-m", "trmq", "dev", "--folder", str(folder), "--base-port", str(self.base), *map(str, options)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=MODEST, start_new_session=True)  # fmt: skip
        self.all_pids: set[int] = set()

    def until(self, pattern: str) -> str:
        """The first line that matches, of those not read yet."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(60, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                self.lines.append(line)
                if found := re.match(r"\S+ (\S+) (?:starting|up).*pid (\d+)", line):
                    self.pids[found[1]] = int(found[2])
                    self.all_pids.add(int(found[2]))
                if re.search(pattern, line):
                    return line
        finally:
            watchdog.cancel()
        raise AssertionError(f"{pattern!r} did not come: {self.lines} {self.process.communicate()}")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """(exit code, standard error)."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        self.lines += out.splitlines(keepends=True)
        return self.process.returncode, err


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    started: list[Dev] = []

    def start(*options: object, nodes: int = 2) -> Dev:
        started.append(Dev(tmp_path / f"dev{len(started)}", *options, nodes=nodes))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()
        for pid in each.all_pids:
            wait_until(lambda pid=pid: not alive(pid), f"process {pid} ended with the one that started it")


def test_up_and_down_in_order(dev: Callable[..., Dev]) -> None:
    one = dev(*ONE, "--groups", 2, nodes=3)
    one.until("stop ")
    names = [line.split()[1] for line in one.lines if " up: " in line]
    assert names[0] == "namesrv"
    assert sorted(names) == ["a-0", "b-0", "namesrv"]
    assert any(f"name server 127.0.0.1:{one.base}" in line for line in one.lines)
    assert trmq("topic", "create", "T", "-n", f"127.0.0.1:{one.base}").code == 0
    assert trmq("produce", "T", "-n", f"127.0.0.1:{one.base}", stdin=b"1\n2\n").code == 0
    assert one.end() == (0, "")
    stops = [line.split(maxsplit=1)[1].strip() for line in one.lines if " stopped: " in line]
    assert stops[-1] == "namesrv stopped: exit code 0"
    assert sorted(stops[:-1]) == ["a-0 stopped: exit code 0", "b-0 stopped: exit code 0"]
    assert not any(map(alive, one.all_pids))


def test_ctrl_c_is_130(dev: Callable[..., Dev]) -> None:
    one = dev(*ONE)
    one.until("stop ")
    assert one.end(signal.SIGINT) == (130, "")


@pytest.mark.parametrize("node", ["a-0", "namesrv"])
def test_a_killed_node_is_told_and_started_again(dev: Callable[..., Dev], node: str) -> None:
    one = dev(*ONE)
    one.until("stop ")
    before = one.pids[node]
    os.kill(before, signal.SIGKILL)
    assert f"{node} down: killed by SIGKILL" in one.until(f"{node} down")
    one.until(f"{node} up again")
    assert one.pids[node] != before
    assert one.end() == (0, "")


def test_a_killed_node_stays_down_if_so_wanted(dev: Callable[..., Dev]) -> None:
    one = dev(*ONE, "--no-restart")
    one.until("stop ")
    os.kill(one.pids["a-0"], signal.SIGTERM)
    assert "a-0 down: exit code 0" in one.until("a-0 down")
    assert one.end() == (0, "")
    assert not any("again" in line for line in one.lines)


def test_a_paused_node_is_stopped_too(dev: Callable[..., Dev]) -> None:
    one = dev(*ONE)
    one.until("stop ")
    os.kill(one.pids["a-0"], signal.SIGSTOP)
    assert one.end() == (0, "")
    assert not any(map(alive, one.all_pids))


def test_nothing_is_left_when_dev_itself_is_killed(dev: Callable[..., Dev]) -> None:
    one = dev(*ONE)
    one.until("stop ")
    one.process.kill()
    for pid in one.all_pids:
        wait_until(lambda pid=pid: not alive(pid), f"process {pid} ended with the one that started it")
    assert not list(one.folder.glob("*/store/abort")), "stopped cleanly"


def test_a_pair_survives_the_death_of_either(dev: Callable[..., Dev]) -> None:
    one = dev(nodes=3)
    one.until("stop ")
    env = {"NAMESRV_ADDR": f"127.0.0.1:{one.base}"}

    def healthy() -> bool:
        return trmq("ha", "status", "-b", "a", "--check", env=env).code == 0

    wait_until(healthy, "the slave follows")
    assert trmq("topic", "create", "T", env=env).code == 0
    for number, victim in enumerate(("a-1", "a-0")):
        place = trmq("produce", "T", "-o", "jsonl", stdin=b"message %d" % number, env=env)
        assert "status" not in json.loads(place.out), "SEND_OK: it is on the slave too"
        os.kill(one.pids[victim], signal.SIGKILL)
        one.until(f"{victim} up again")
        wait_until(healthy, f"the group is whole again after the death of {victim}")
    got = trmq("consume", "T", "--peek", env=env)
    assert sorted(got.out.splitlines()) == ["message 0", "message 1"]
    (group,) = json.loads(trmq("ha", "status", "-o", "json", env=env).out)
    assert [(member["id"], member["role"]) for member in group["members"]] == [(0, "SYNC_MASTER"), (1, "SLAVE")]
    assert len({member["max_offset"] for member in group["members"]}) == 1
    assert one.end() == (0, "")
    stops = [line.split()[1] for line in one.lines if " stopped: exit code 0" in line]
    assert stops == ["a-1", "a-0", "namesrv"]


def test_one_folder_one_cluster(dev: Callable[..., Dev]) -> None:
    one = dev(*ONE)
    one.until("stop ")
    done = trmq("dev", "--folder", one.folder)
    assert done.code == 2
    assert f"process {one.process.pid} already runs a cluster in {one.folder}" in done.sentence
    taken = trmq("dev", *ONE, "--folder", one.folder.with_name("other"), "--base-port", one.base)
    assert taken.code == 2
    assert f"port {one.base}, which namesrv needs, is in use" in taken.sentence


def test_a_configuration_that_no_node_takes(tmp_path: Path) -> None:
    done = trmq("dev", *ONE, "--folder", tmp_path, "--base-port", base_port(2), "--set", "listenPrt=1")
    assert done.code == 2
    assert "a-0 does not start: exit code 2" in done.sentence
    assert "listenPrt" in done.sentence


@pytest.mark.parametrize(("words", "named"), [
    (["--groups", 0], "--groups 0"), (["--slaves", 0], "--role async_master"), (["--folder", "/dev/null"], "--folder /dev/null"),
    (["--role", "slave"], "slave"), (["--set", "x"], "KEY=VALUE"),
])  # fmt: skip
def test_mistakes(words: list[object], named: str, tmp_path: Path) -> None:
    done = trmq("dev", *(() if "--folder" in words else ("--folder", tmp_path)), *words)
    assert done.code == 2
    assert named in done.sentence
