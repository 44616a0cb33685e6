"""A consumer reads a backlog, its master is killed, it goes on from the slave: one such run, for `replication.py`."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import compare
from pairs import FOUND, Connection, Pair, create_topic, fill, pair, pull, wait_until

from interop import jvm

QUEUES, BACKLOG = 4, 40_000
PHASES = {"java": (6.0, 14.0, 22.0), "trmq": (2.0, 3.5, 5.0)}
"""Seconds from the consumer's first message to the kill, by consumer: where a kill falls in the Java client's 30 s route poll decides
how long it takes to notice. Repeated when there are more kills than phases."""


def takeover(kind: str, consumer: str, number: int) -> dict[str, float]:
    """The `number`-th kill: `consumer` ("java", "trmq") reads from a fresh pair of `kind` whose master dies."""
    phase = PHASES[consumer][number % len(PHASES[consumer])]
    settings = {"slaveReadEnable": "true"} if kind == "apache" else {}
    with pair(kind, **settings) as nodes:
        nodes.start_master()
        with Connection(nodes.port) as master:
            create_topic(master, "backlog", QUEUES)  # before the slave starts: Apache's copies the topics once a minute
        fill(nodes.port, "backlog", lambda sent, _: sent >= BACKLOG)
        nodes.slave.start()
        nodes.wait_for_ack()
        nodes.wait_for_copy()
        with Connection(nodes.slave_port) as slave:
            wait_until(lambda: pull(slave, "backlog")[0] == FOUND, "the topic is on the slave", 90, 0.05)
        trace = Trace(nodes, consumer)
        try:
            trace.wait(lambda: len(trace.seen) >= 100, "the consumer consumes", 60)
            time.sleep(phase)
            killed = time.time() * 1000
            nodes.master.kill()
            trace.wait(lambda: trace.flowing(killed), "the consumer goes on from the slave", 150)
        finally:
            trace.stop()
    return trace.figures(killed) | {"phase_s": phase}


class Trace:
    """A consumer in a process of its own and the (ms, queue, offset) of all it got."""

    def __init__(self, nodes: Pair, consumer: str) -> None:
        here = Path(__file__).parent
        command = [sys.executable, str(here / "consume_trace.py"), nodes.name_server, "backlog"]
        if consumer == "java":
            command = ["java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", f"-Duser.home={nodes.folder}", "-Drocketmq.log.level=error",
                       "-cp", f"{compare.classes()}:{jvm.jars()}/*", "Bench", "--ns", nodes.name_server, "--scenario", "trace",
                       "--topic", "backlog"]  # fmt: skip
        self.errors = open(nodes.folder / "consumer.log", "w+b")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.seen: list[tuple[float, int, int]] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                entry = json.loads(line)
                self.seen.append((entry["t"], entry["q"], entry["o"]))

    def wait(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        def check() -> bool:
            if self.process.poll() is not None:
                self.errors.seek(0)
                raise RuntimeError(f"the consumer ended: {self.errors.read()[-2000:].decode(errors='replace')}")
            return ready()

        wait_until(check, f"{what} ({len(self.seen)} messages so far)", seconds, 0.05)

    def flowing(self, killed: float) -> bool:
        """Every queue brought more after the kill than was in caches and answers under way."""
        after = [queue for at, queue, _ in self.seen if at > killed]
        return all(after.count(queue) >= 100 for queue in range(QUEUES))

    def figures(self, killed: float) -> dict[str, float]:
        """The pause is the longest one that ends after the kill: over all messages, and the latest over each queue by itself."""
        seen = list(self.seen)
        pause, end = longest_pause([at for at, _, _ in seen], killed)
        queues = [sorted(entry for entry in seen if entry[1] == queue) for queue in range(QUEUES)]
        ends = [longest_pause([at for at, _, _ in entries], killed)[1] for entries in queues]
        offsets = [[offset for _, _, offset in entries] for entries in queues]
        missing = sum(max(o) + 1 - len(set(o)) for o in offsets)
        repeated = sum(len(o) - len(set(o)) for o in offsets)
        return {"goes_on_ms": end - killed, "all_queues_ms": max(ends) - killed, "pause_ms": pause, "missing": missing,
                "repeated": repeated}  # fmt: skip

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join(5)
        self.errors.close()


def longest_pause(times: list[float], killed: float) -> tuple[float, float]:
    """(length, end) of the longest pause between two messages that ends after the kill."""
    times = sorted(times)
    return max((after - before, after) for before, after in itertools.pairwise(times) if after > killed)
