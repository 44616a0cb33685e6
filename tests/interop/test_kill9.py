"""`kill -9` of the broker under load, again and again: nothing that was answered SEND_OK may be missing afterwards."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from .cluster import Cluster, commit_log_end
from .jvm import Driver, DriverError

ROUNDS = 20


@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
def test_no_acknowledged_message_is_lost(tmp_path: Path, java_home: Path, flush: str, seed: int) -> None:
    """Half of the rounds in each flush mode; `seed` draws the pauses between kills."""
    pauses = random.Random(seed)
    cluster = Cluster("trmq", tmp_path / "c", flushDiskType=flush, mappedFileSizeCommitLog=1 << 20).start()
    java = Driver(cluster.name_server, tmp_path / "driver")
    acked: dict[str, tuple[str, int, int]] = {}
    try:
        java(do="create_topic", topic="k", queues=4)
        java(do="subscribe", topic="k", group="g", member="m", keys_only=True)
        for number in range(ROUNDS // 2):
            java(do="load", topic="k", prefix=f"r{number}", producer="loader", inflight=64)
            time.sleep(0.3 + pauses.random())  # the load is real, so is the time it runs
            cluster.kill_broker()
            cluster.start_broker()
            time.sleep(0.3)
            for r in java(do="load_stop")["answers"]:
                if r["status"] == "SEND_OK":
                    acked[r["key"]] = (r["broker"], r["queue"], r["offset"])
        assert len(acked) > 100 * ROUNDS // 2, f"only {len(acked)} acknowledged: this run tests nothing"
        stored = read_all(java, {(broker, queue) for broker, queue, _ in acked.values()})
        missing = [key for key, place in acked.items() if stored.get(place) != key]
        assert not missing, f"{len(missing)} of {len(acked)} acknowledged messages are not at their place, first {missing[:3]}"
        consumed: set[str] = set()
        end = time.monotonic() + 60
        while not acked.keys() <= consumed and time.monotonic() < end:
            consumed = set(java(do="received", member="m", count=len(stored), seconds=2))
        assert acked.keys() <= consumed, f"the consumer got stuck: {len(acked.keys() - consumed)} messages never arrived"
        assert commit_log_end(cluster.port) > 0
        print(f"{flush}: {len(acked)} acknowledged in {ROUNDS // 2} rounds, all at their place, all consumed")
    finally:
        java.close()
        cluster.stop()


def read_all(java: Driver, queues: set[tuple[str, int]]) -> dict[tuple[str, int, int], str]:
    """(broker, queue, offset) -> key of every stored message, read by offset with the official pull consumer."""
    found: dict[tuple[str, int, int], str] = {}
    for broker, queue in queues:
        for r in java(do="scan", topic="k", broker=broker, queue=queue, group="scanner"):
            found[broker, queue, r["offset"]] = r["keys"]
    return found


def test_a_large_log_restarts_at_once_after_a_kill(tmp_path: Path, java_home: Path, profile: str) -> None:
    """The time from start to first answer must not depend on how much is stored: 512 MiB here, 4 GiB with `--profile long`.
    The time is printed, not asserted; that the broker registers and answers at all is."""
    cluster = Cluster("trmq", tmp_path / "c", mappedFileSizeCommitLog=64 << 20).start()
    java = Driver(cluster.name_server, tmp_path / "driver")
    try:
        java(do="create_topic", topic="k", queues=4)
        java(do="load", topic="k", prefix="big", producer="loader", inflight=64, size=100_000, pause_us=0)
        size, end = (4 << 30 if profile == "long" else 512 << 20), time.monotonic() + 300
        while commit_log_end(cluster.port) < size and time.monotonic() < end:
            time.sleep(0.2)
        java(do="load_stop")
        stored = commit_log_end(cluster.port)
        cluster.kill_broker()
        begin = time.monotonic()
        cluster.start_broker()
        took = time.monotonic() - begin
        print(f"{stored >> 20} MiB of log: registered and answering {took:.2f} s after the start of the process")
        assert commit_log_end(cluster.port) >= stored
        try:
            (again,) = java(do="send", topic="k", messages=[{"body": "x", "keys": "again"}], producer="after")
        except DriverError as error:
            pytest.fail(str(error))
        assert again["status"] == "SEND_OK"
    finally:
        java.close()
        cluster.stop()
