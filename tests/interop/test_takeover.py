"""Consumers whose broker's master dies: they go on from the slave by themselves and go back when the master is there again."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import trio

import trmq

from .cluster import Broker, Group, call, slaves_at
from .jvm import Driver
from .pair import QUEUES, Pair, now_ms, wait_for

QUERY_OFFSET = 14
SAVE_MS = 1_000
"""flushConsumerOffsetInterval: a master tells its slaves of new offsets when it saves them."""
OFFSETS_BEHIND_MS = SAVE_MS + 1_000
"""How far a group's committed offsets may go back in time when the master dies: that interval, and the time to copy them."""
COMMIT_MS = 5_000
"""Both clients commit at this interval."""


class Arrivals:
    """What one consumer received, in order: (key, ms)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.all: list[tuple[str, int]] = []

    def gap_after(self, moment: int) -> float:
        """The longest time (s) without any message from `moment` (ms) on."""
        times = [moment, *(at for _, at in self.all if at >= moment)]
        return max(b - a for a, b in pairwise(times)) / 1000


class JavaConsumer(Arrivals):
    """A push consumer with the official defaults, but a small cache and a slow listener so that something is left to read."""

    def __init__(self, java: Driver, **options: Any) -> None:
        super().__init__("the Java consumer")
        self.java = java
        java(do="subscribe", topic="t", group="gj", member="j", keys_only=True, sleep_ms=2, threads=1, cache=32, **options)

    def look(self) -> None:
        self.all += [(key, at) for key, at, *_ in self.java(do="arrivals", member="j", **{"from": len(self.all)})]

    def close(self) -> None:
        self.java(do="stop", member="j")


class OwnConsumer(Arrivals):
    """trmq's consumer with its defaults, in a thread of its own; slow as well."""

    def __init__(self, name_server: str) -> None:
        super().__init__("trmq's consumer")
        self.name_server = name_server
        self.served_by: dict[int, str] = {}
        """queue -> address of the broker that gave its latest message."""
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            trio.run(self._consume)
        except BaseException as error:
            self.error = error

    async def _consume(self) -> None:
        async with trmq.connect(self.name_server) as mq, trio.open_nursery() as nursery:
            nursery.start_soon(self._stop, nursery.cancel_scope)
            async with mq.consumer("t", group="gt", from_where=trmq.FromWhere.FIRST, prefetch_messages=32) as consumer:
                async for message in consumer:
                    async with message:
                        self.all.append((message.keys[0], now_ms()))
                        self.served_by[message.queue.queue_id] = message.served_by
                        await trio.sleep(0.002)

    async def _stop(self, scope: trio.CancelScope) -> None:
        while not self.stopping.is_set():
            await trio.sleep(0.05)
        scope.cancel()

    def look(self) -> None:
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.stopping.set()
        self.thread.join(20)
        self.look()


Members = list[JavaConsumer | OwnConsumer]


class Committed:
    """The groups' committed offsets as either broker tells them, looked at all the time: (ms, broker, group, sum over the queues)."""

    def __init__(self, brokers: dict[str, Broker], groups: list[str]) -> None:
        self.brokers, self.groups = brokers, groups
        self.seen: list[tuple[int, str, str, int]] = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopping.wait(0.1):
            for name, broker in self.brokers.items():
                for group in self.groups:
                    at = now_ms()
                    try:
                        self.seen.append((at, name, group, sum(self._offset(broker.port, group, queue) for queue in range(QUEUES))))
                    except OSError:
                        break

    def _offset(self, port: int, group: str, queue: int) -> int:
        fields = {"consumerGroup": group, "topic": "t", "queueId": str(queue), "setZeroIfNotFound": "false"}
        code, answer, _ = call(port, QUERY_OFFSET, fields)
        return int(answer["offset"]) if code == 0 else 0

    def at(self, broker: str, group: str, moment: int) -> int:
        """What it said last before `moment`."""
        return next((total for at, b, g, total in reversed(self.seen) if b == broker and g == group and at <= moment), 0)

    def first(self, broker: str, group: str, moment: int) -> int:
        """What it said first at or after `moment`; waits for it."""
        def said() -> list[int]:
            return [total for at, b, g, total in self.seen if b == broker and g == group and at >= moment]

        wait_for(said, f"{broker} says the offsets of {group}")
        return said()[0]

    def close(self) -> None:
        self.stopping.set()
        self.thread.join(20)


def test_consumers_go_on_from_the_slave_and_return_to_the_master(tmp_path: Path, java_home: Path, profile: str) -> None:
    """With `--profile long` the Java client asks for routes every 30 s as it does by default, else every 2 s; its gap follows that."""
    poll_ms = 30_000 if profile == "long" else 2_000
    group = Group(tmp_path / "g", mappedFileSizeCommitLog=1 << 20, flushConsumerOffsetInterval=SAVE_MS)
    master = group.add("master", brokerRole="SYNC_MASTER")
    slave = group.add("slave", brokerRole="SLAVE", brokerId=1)
    group.start(master)
    java = Driver(group.name_server, tmp_path / "driver")
    pair = Pair(group, master, slave, java)
    committed = Committed({"master": master, "slave": slave}, ["gj", "gt"])
    own = OwnConsumer(group.name_server)
    consumers: Members = [own]
    try:
        consumers.append(JavaConsumer(java, poll=poll_ms))
        keys = send(java, "before", 5_000)
        assert keys["SEND_OK"] == 5_000
        wait_for(lambda: all(committed.at("master", name, now_ms() - OFFSETS_BEHIND_MS) for name in ("gj", "gt")), "both have committed")

        master.kill()
        died = now_ms()
        for consumer in consumers:
            consumer.look()
            assert len(consumer.all) < 4_000, f"{consumer.name} is too fast for this test: little is left to read from the slave"
        wait_all(consumers, "before", 5_000)
        for consumer in consumers:
            gap = consumer.gap_after(died)
            print(f"{consumer.name}: {gap:.2f} s until it went on from the slave")
            assert gap < (poll_ms / 1000 + 5 if isinstance(consumer, JavaConsumer) else 5)
        for name in ("gj", "gt"):
            had, has = committed.at("master", name, died - OFFSETS_BEHIND_MS), committed.first("slave", name, died)
            print(f"committed by {name}: {committed.at('master', name, died)} at the master's end, {had} {OFFSETS_BEHIND_MS} ms before, "
                  f"{has} on the slave")  # fmt: skip
            assert has >= had > 0, "a committed offset went back by more than the interval"
        time.sleep(COMMIT_MS / 1000 + 1)  # what was read from the slave is committed to it

        master.start_and_wait()
        back = now_ms()
        pair.wait_connected()
        assert send(java, "after", 1_000)["SEND_OK"] == 1_000
        wait_all(consumers, "after", 1_000)
        for name in ("gj", "gt"):
            had = committed.at("slave", name, back)
            assert had >= 5_000, "the slave takes commits while there is no master"
            wait_for(lambda had=had, name=name: committed.at("master", name, now_ms()) >= had,  # type: ignore[misc]
                     f"the master learns what {name} committed to the slave: {had}")  # fmt: skip
        for probe in count():
            assert set(send(java, f"probe{probe}", QUEUES)) == {"SEND_OK"}
            wait_all([own], f"probe{probe}", QUEUES)
            if set(own.served_by.values()) == {f"127.0.0.1:{master.port}"}:
                break
            assert now_ms() - back < 60_000, f"trmq's consumer did not return to the master: {own.served_by}"
            time.sleep(0.2)
        print(f"trmq's consumer: reads from the master again {(now_ms() - back) / 1000:.1f} s after it was back")
        # the Java client has looked at the route since
        time.sleep(max(0, back + poll_ms + 1_000 - now_ms()) / 1000)

        slave.kill()
        wait_for(lambda: slaves_at(master.port) == 0, "the master knows that it is alone")
        begin = now_ms()
        assert send(java, "alone", 500) == {"SLAVE_NOT_AVAILABLE": 500}
        wait_all(consumers, "alone", 500)
        for consumer in consumers:
            gap = consumer.gap_after(begin)
            print(f"{consumer.name}: {gap:.2f} s without a message after the slave's death")
            assert gap < 1.5, f"{consumer.name} had not gone back to the master"
            counts = Counter(key for key, _ in consumer.all)
            print(f"{consumer.name}: {len(counts)} messages, {sum(counts.values()) - len(counts)} of them again")
        assert "Traceback" not in master.output() + slave.output()
    finally:
        for consumer in consumers:
            consumer.close()
        committed.close()
        java.close()
        group.stop()


def send(java: Driver, name: str, number: int) -> Counter[str]:
    """Keys name-0, name-1 ...; the statuses."""
    messages = [{"size": 100, "keys": f"{name}-{i}"} for i in range(number)]
    return Counter(r["status"] for r in java(do="async", topic="t", inflight=64, messages=messages))


def wait_all(consumers: Members, name: str, number: int) -> None:
    wanted = {f"{name}-{i}" for i in range(number)}

    def received() -> bool:
        for consumer in consumers:
            consumer.look()
        return all(wanted <= {key for key, _ in consumer.all} for consumer in consumers)

    try:
        wait_for(received, f"all {number} of {name!r}", 90)
    except AssertionError:
        short = {consumer.name: len(wanted - {key for key, _ in consumer.all}) for consumer in consumers}
        raise AssertionError(f"messages of {name!r} never received: {short}") from None
