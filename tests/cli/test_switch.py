"""What docs/operations.md tells an operator to do, done: a switch by hand, and a slave that is copied again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from process.server import Finished, trmq, wait_until

Run = Callable[..., subprocess.Popen[str]]


class Group:
    """Group a: a name server and two stores, `m` and `s`, either of which may be the master."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run
        name_server = run("namesrv", "-p", 0, "--store", folder / "ns")
        assert name_server.stdout is not None
        self.name_server = name_server.stdout.readline().split()[-1]

    def start(self, store: str, *options: object) -> subprocess.Popen[str]:
        process = self.run("serve", "--broker-name", "a", "-n", self.name_server, "--listen-port", 0, "--store", self.folder / store,
                           "--set", "haListenPort=0", "--set", "mappedFileSizeCommitLog=1048576", *options)  # fmt: skip
        assert process.stdout is not None
        assert "boot success" in process.stdout.readline()
        return process

    def end(self, process: subprocess.Popen[str]) -> str:
        """Stop it; what it said on standard error."""
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=30)[1]
        assert process.returncode == 0, err
        assert "Traceback" not in err
        return err

    def cli(self, *words: object, stdin: bytes = b"") -> Finished:
        done = trmq(*words, stdin=stdin, env={"NAMESRV_ADDR": self.name_server})
        assert "Traceback" not in done.err, done.err
        return done

    def produce(self, *bodies: str) -> None:
        assert self.cli("produce", "orders", stdin="\n".join(bodies).encode()).code == 0

    @property
    def bodies(self) -> list[str]:
        return sorted(self.cli("consume", "orders", "--peek").out.splitlines())

    @property
    def ends(self) -> dict[int, int]:
        """broker id -> max offset."""
        return {member["id"]: member["max_offset"] for member in self.status["members"]}

    @property
    def status(self) -> Any:
        return json.loads(self.cli("ha", "status", "-o", "json").out)[0]

    def healthy(self) -> None:
        wait_until(lambda: self.cli("ha", "status", "--check").code == 0, "the slave follows")


@pytest.fixture
def group(tmp_path: Path, run: Run) -> Group:
    return Group(tmp_path, run)


SLAVE = ("--role", "slave", "--broker-id", 1)
MASTER = ("--role", "async_master", "--broker-id", 0)


def test_a_switch_by_hand_and_what_becomes_of_the_surplus(group: Group) -> None:
    old, new = group.start("m", *MASTER), group.start("s", *SLAVE)
    group.healthy()
    assert group.cli("topic", "create", "orders", "--queues", 1).code == 0
    group.produce("1", "2")
    wait_until(lambda: len(set(group.ends.values())) == 1, "the slave has it all")
    group.end(new)
    group.produce("only here")
    group.end(old)

    master = group.start("s", "--role", "sync_master", "--broker-id", 0)
    assert group.status["problems"] == ["a message needs 2 copies for SEND_OK, and only 1 can be made now"]
    group.produce("3")
    follower = group.start("m", *SLAVE)
    group.healthy()
    assert group.bodies == ["1", "2", "3"]
    (tail,) = (group.folder / "m" / "trmq").glob("tail-*.log")
    again = group.cli("store", "tail", tail, "--topic", "orders", "-o", "jsonl")
    assert [json.loads(line)["body"] for line in again.out.splitlines()] == ["only here"]
    assert group.cli("produce", "orders", "--jsonl", stdin=again.out.encode()).code == 0
    assert group.bodies == ["1", "2", "3", "only here"]

    words = group.end(follower)
    assert f"kept in trmq/{tail.name}" in words
    group.end(master)
    back = group.start("m", "--role", "sync_master", "--broker-id", 0)
    group.start("s", *SLAVE)
    group.healthy()
    assert group.bodies == ["1", "2", "3", "only here"], "and back again"
    group.end(back)


def test_a_slave_ahead_of_its_master_follows_again_after_a_resync(group: Group) -> None:
    master, slave = group.start("m", *MASTER), group.start("s", *SLAVE)
    group.healthy()
    assert group.cli("topic", "create", "orders", "--queues", 1).code == 0
    group.produce("1")
    group.end(master)
    shutil.copytree(group.folder / "m", group.folder / "earlier")
    master = group.start("m", *MASTER)
    group.healthy()
    group.produce("what the master will lose")
    wait_until(lambda: len(set(group.ends.values())) == 1, "the slave has it all")
    ahead = group.ends[1]
    group.end(master)

    master = group.start("earlier", *MASTER)
    problem = wait_until(lambda: next((each for each in group.status["problems"] if "resync" in each), ""), "the slave says what is wrong")
    assert f"this slave's log ends at {ahead}" in problem
    assert "make this slave the master (brokerRole, brokerId=0) to keep it, or stop it and run `trmq store resync`" in problem
    assert group.cli("store", "resync", group.folder / "s", "--yes").code == 2, "it runs"
    group.end(slave)
    assert group.cli("store", "resync", group.folder / "s", "--yes").code == 0
    slave = group.start("s", *SLAVE)
    group.healthy()
    assert group.ends[0] == group.ends[1] < ahead
    assert group.bodies == ["1"]
    (aside,) = (group.folder / "s").glob("aside-*")
    assert b"what the master will lose" in next((aside / "commitlog").iterdir()).read_bytes()
    group.end(slave)
    group.end(master)
