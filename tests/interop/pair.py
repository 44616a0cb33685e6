"""A master and its slave under a load of synchronous sends, and everything that was answered, to be checked against what each holds."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cluster import Broker, Group, call, commit_log_end, slaves_at
from .jvm import Driver, DriverError
from .stores import Log, Record, check_equal, offset_of

QUEUES = 4
ALL_TOPICS = 21
Place = tuple[int, int]
"""(queue, offset)."""


def now_ms() -> int:
    return int(time.time() * 1000)


def wait_for(true: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    error: Exception | None = None
    while True:
        try:
            if true():
                return
        except (OSError, DriverError) as found:
            error = found
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}; {error or ''}"
        time.sleep(0.02)


class Pair:
    """`group` with `master` running and its one `slave`, which is started here, and the official client that sends to `topic`.

    `alone` holds the stretches of time (ms) in which the slave was surely dead or stopped: what is sent and answered inside one of them
    has one copy, so it cannot be SEND_OK. Both clocks are this machine's.
    """

    def __init__(self, group: Group, master: Broker, slave: Broker, java: Driver, topic: str = "t") -> None:
        self.group, self.master, self.slave, self.java, self.topic = group, master, slave, java, topic
        self.answers: list[dict[str, Any]] = []
        self.alone: list[tuple[int, int]] = []
        self._seen: dict[Path, tuple[int, dict[int, Record]]] = {}
        self._pulled: dict[tuple[int, int], dict[int, str]] = {}
        java(do="create_topic", topic=topic, queues=QUEUES)
        if slave.kind == "apache":
            self._give_topics()
        slave.start_and_wait()
        self.wait_connected()
        wait_for(lambda: f'"{topic}"'.encode() in call(slave.port, ALL_TOPICS)[2], "the slave has the topic")

    def _give_topics(self) -> None:
        """Apache's slaves copy topics for the first time a minute after their start; the file spares us that minute."""
        mine, theirs = (broker.store / "config" / "topics.json" for broker in (self.master, self.slave))
        wait_for(lambda: f'"{self.topic}"' in mine.read_text(), "the master has saved the topic")
        theirs.parent.mkdir(parents=True)
        shutil.copy(mine, theirs)

    @property
    def acked(self) -> list[dict[str, Any]]:
        return [a for a in self.answers if a["status"] == "SEND_OK"]

    @property
    def statuses(self) -> Counter[str]:
        return Counter(a["status"] for a in self.answers)

    # --- what happens
    def load(self, prefix: str, threads: int = 8, **more: Any) -> None:
        self.java(do="load", topic=self.topic, prefix=prefix, producer="loader", threads=threads, timeout=4000, **more)

    def collect(self) -> None:
        self.answers += self.java(do="answers")

    def load_stop(self) -> None:
        self.answers += self.java(do="load_stop")["answers"]

    def wait_connected(self, lag: int | None = None, seconds: float = 60) -> None:
        wait_for(lambda: slaves_at(self.master.port, lag), "the slave is connected to its master", seconds)

    def wait_acked_again(self, seconds: float = 60) -> None:
        """A message is answered SEND_OK that was sent after this call."""
        begin = now_ms()

        def again() -> bool:
            self.collect()
            return any(a["began"] >= begin for a in self.answers[-1000:] if a["status"] == "SEND_OK")

        wait_for(again, "messages are answered SEND_OK again", seconds)

    def without_slave(self, lose: Callable[[], None], seconds: float, regain: Callable[[], None]) -> None:
        """The time between the two is certainly without a second copy."""
        lose()
        begin = now_ms()
        time.sleep(seconds)
        self.alone.append((begin, now_ms()))
        regain()

    # --- what must be so
    def check_copy(self, survivor: Broker) -> None:
        """Each message that was answered SEND_OK so far lies at its place in the survivor's log. Reads on where it stopped before."""
        end, found = self._seen.get(survivor.store, (None, {}))
        log = Log(survivor.store, end)
        found |= log.by_offset()
        self._seen[survivor.store] = log.end, found
        self._check(found, survivor)

    def _check(self, found: dict[int, Record], survivor: Broker) -> None:
        missing = []
        for a in self.acked:
            record = found.get(offset_of(a["offset_id"]))
            if record is None or (record.unique_key, record.queue, record.queue_offset) != (a["id"], a["queue"], a["offset"]):
                missing.append((a, record))
        role = "the master" if survivor is self.master else "the slave"
        assert not missing, f"{len(missing)} of {len(self.acked)} acknowledged messages are not in the log of {role}, first {missing[0]}"

    def check_readable(self, survivor: Broker, broker_id: int) -> None:
        """The official client reads each of them from the survivor, by queue and offset."""
        wanted: dict[Place, str] = {(a["queue"], a["offset"]): a["id"] for a in self.acked}
        for queue in range(QUEUES):
            got = self._pulled.setdefault((broker_id, queue), {})
            offsets = [offset for q, offset in wanted if q == queue]
            first, last = min(offsets, default=0), max(offsets, default=-1)  # a slave says nothing of where an old queue begins

            def read(queue: int = queue, got: dict[int, str] = got, first: int = first, last: int = last) -> bool:
                more = self.java(do="scan", topic=self.topic, broker="broker-a", queue=queue, group="scan", at=broker_id,
                                 **{"from": max(got, default=first - 1) + 1})
                got.update({r["offset"]: r["id"] for r in more})
                return max(got, default=-1) >= last

            wait_for(read, f"queue {queue} is readable on {survivor.folder.name} to {last}")
        missing = [place for place, name in wanted.items() if self._pulled[broker_id, place[0]].get(place[1]) != name]
        assert not missing, f"{len(missing)} of {len(wanted)} cannot be read from {survivor.folder.name}, first {missing[:3]}"

    def check_alone(self) -> None:
        """Nothing was answered SEND_OK that was sent and answered while the slave was dead or stopped."""
        wrong = [a for a in self.acked if any(begin <= a["began"] and a["ended"] <= end for begin, end in self.alone)]
        assert not wrong, f"{len(wrong)} were answered SEND_OK while no slave could have them, first {wrong[0]} in {self.alone}"

    def check_end(self) -> tuple[int, int]:
        """Both caught up and stopped: every byte is the same, and everything is on both. Returns the range that was compared."""
        wait_for(lambda: commit_log_end(self.master.port) == commit_log_end(self.slave.port), "the slave has caught up")
        # a clean stop of Apache's broker takes longer than anybody waits, and what is compared is in the page cache either way
        self.slave.kill() if self.slave.kind == "apache" else self.slave.stop()
        self.master.kill() if self.master.kind == "apache" else self.master.stop()
        low, high = check_equal(self.master.store, self.slave.store)
        for survivor in (self.master, self.slave):
            log = Log(survivor.store)
            assert log.end == high, f"{survivor.folder.name} ends at {log.end}: {log.reason}"
            self._check(log.by_offset(), survivor)
        return low, high


class Rounds:
    """Random faults of one pair, drawn from `seed`. Each leaves both running and connected, and has checked the copy that survived."""

    def __init__(self, pair: Pair, seed: int, seconds: float = 1.0, patience: float = 60.0, **load: Any) -> None:
        self.pair, self.dice, self.seconds, self.patience, self.options = pair, random.Random(seed), seconds, patience, load
        self.faults: list[Callable[[], None]] = [
            self.kill_master, self.kill_master, self.kill_slave, self.pause_slave, self.stop_slave, self.kill_slave_then_master,
            self.kill_master_of_a_paused_slave,
        ]  # fmt: skip
        self.seen: Counter[str] = Counter()

    def run(self, count: int) -> None:
        """Every fault comes once before any comes twice."""
        bag: list[Callable[[], None]] = []
        for number in range(count):
            if not bag:
                bag = self.dice.sample(self.faults, len(self.faults))
            fault = bag.pop()
            before = len(self.pair.acked)
            self.pair.load(f"r{number}", **self.options)
            self.pair.wait_acked_again(self.patience)
            time.sleep(self.dice.uniform(0.3, 1.0) * self.seconds)
            fault()
            self.pair.wait_connected(seconds=self.patience)
            self.pair.wait_acked_again(self.patience)
            self.pair.load_stop()
            self.pair.check_alone()
            name = fault.__name__.replace("_", " ")
            self.seen[name] += 1
            print(f"round {number + 1}: {name}, {len(self.pair.acked) - before} SEND_OK", flush=True)

    def kill_master(self) -> None:
        self.pair.master.kill()
        self._slave_survived()
        self.pair.master.start_and_wait()

    def kill_slave(self) -> None:
        self.pair.without_slave(self.pair.slave.kill, self._pause(), self.pair.slave.start_and_wait)
        self._master_survived()

    def stop_slave(self) -> None:
        def stop() -> None:
            self.pair.slave.stop(5)

        self.pair.without_slave(stop, self._pause(), self.pair.slave.start_and_wait)
        self._master_survived()

    def pause_slave(self) -> None:
        self.pair.without_slave(self.pair.slave.pause, self._pause() * 2, self.pair.slave.resume)
        self._master_survived()

    def kill_slave_then_master(self) -> None:
        """The master has a tail that nobody else has when it dies; nothing in it was acknowledged."""
        self.pair.without_slave(self.pair.slave.kill, self._pause(), self.pair.master.kill)
        self._slave_survived(readable=False)
        self.pair.slave.start()
        self.pair.master.start_and_wait()

    def kill_master_of_a_paused_slave(self) -> None:
        self.pair.without_slave(self.pair.slave.pause, self._pause(), self.pair.master.kill)
        self.pair.slave.resume()
        self._slave_survived()
        self.pair.master.start_and_wait()

    def _pause(self) -> float:
        return self.dice.uniform(0.3, 1.0) * self.seconds

    def _slave_survived(self, readable: bool = True) -> None:
        time.sleep(0.2)  # answers under way
        self.pair.collect()
        self.pair.check_copy(self.pair.slave)
        if readable:
            self.pair.check_readable(self.pair.slave, 1)

    def _master_survived(self) -> None:
        self.pair.collect()
        self.pair.check_copy(self.pair.master)
