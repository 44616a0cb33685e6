"""`trmq bench`: a load generator of our own for any cluster, with latencies to the 99.9th percentile.

Closed loop (as fast as `--concurrency` senders get answers) or, with `--rate`, open loop: latency then counts from the moment a message
was *due*, so that a stall is not hidden by the sender waiting for it.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any, Literal

import attrs
import trio

from trmq.client import Client, Consumer, FromWhere, Producer, SendStatus
from trmq.errors import ConfigError, TrmqError

from .output import Output, show_one
from .session import Format, NameServer, addresses, with_client

Clock = trio.current_time


@attrs.define
class Run:
    """What one run has seen. Latencies in seconds."""

    latencies: list[float] = attrs.field(factory=list)
    errors: dict[str, int] = attrs.field(factory=dict)
    messages: int = 0
    measuring: bool = False

    def ok(self, begin: float, count: int = 1) -> None:
        if self.measuring:
            self.latencies.append(Clock() - begin)
            self.messages += count

    def failed(self, what: str) -> None:
        if self.measuring:
            self.errors[what] = self.errors.get(what, 0) + 1

    def report(self, seconds: float) -> dict[str, Any]:
        found = sorted(self.latencies)

        def quantile(q: float) -> float | None:
            return round(found[min(len(found) - 1, int(len(found) * q))] * 1e6, 1) if found else None

        return {
            "seconds": round(seconds, 3), "messages": self.messages, "per_s": round(self.messages / seconds, 1) if seconds else 0.0,
            "p50_us": quantile(0.5), "p99_us": quantile(0.99), "p999_us": quantile(0.999), "max_us": quantile(1.0),
            "failed": sum(self.errors.values()), "errors": self.errors,
        }  # fmt: skip


def bench(
    scenario: Literal["send", "batch", "oneway", "consume", "e2e"] = "send", *, topic: str | None = None, concurrency: int = 64,
    size: int = 1024, batch: int = 32, rate: float | None = None, seconds: float = 5.0, warm: float = 1.0, count: int = 100_000,
    namesrv: NameServer = None, output: Format = Output.table,
) -> int:
    """Measure a cluster: throughput, p50, p99, p99.9.

    Example: trmq bench send --concurrency 256
    Example: trmq bench e2e --rate 1000 -o json

    Parameters
    ----------
    scenario
        send, batch, oneway (closed loop, or open with --rate), consume (a backlog of --count), e2e (send to receive).
    topic
        Default: bench_<scenario>, created when missing.
    concurrency
        Senders at a time.
    size
        Bytes of a body.
    batch
        Messages of a batch.
    rate
        Messages a second, open loop (e2e: 1000 unless given).
    seconds
        Length of the measured window, after --warm seconds.
    count
        Messages of the backlog that consume reads.
    """
    if min(concurrency, size, batch, count) < 1 or seconds <= 0 or warm < 0 or (rate is not None and rate <= 0):
        raise ConfigError("--concurrency, --size, --batch, --count, --seconds and --rate must be positive, --warm not negative")
    name = topic or f"bench_{scenario}"
    run = Run()

    async def work(mq: Client) -> int:
        await ensure(mq, name)
        if scenario == "consume":
            took = await consume(mq, name, count, size, run)
        else:
            async with mq.producer(group="trmq_bench") as producer:
                pace = rate or (1000.0 if scenario == "e2e" else None)
                kinds: dict[str, Any] = {"batch": partial(send_batch, count=batch), "oneway": send_oneway}
                one = kinds.get(scenario, send)
                body = b"x" * size
                if scenario == "e2e":
                    took = await end_to_end(mq, producer, name, size, float(pace or 0), warm, seconds, run)
                else:
                    took = await drive(partial(one, producer, name, body, run), concurrency, pace, warm, seconds, run)
        report = {"scenario": scenario, "namesrv": addresses(namesrv), "topic": name, "size": size, "concurrency": concurrency}
        report |= {"rate": rate, **run.report(took)}
        show_one(report, output) if output is not Output.jsonl else print(json.dumps(report))
        return 0 if run.messages else 1

    return with_client(work, namesrv)


async def ensure(mq: Client, topic: str) -> None:
    if topic not in await mq.admin.topics():
        await mq.admin.create_topic(topic, queues=4)


async def send(producer: Producer, topic: str, body: bytes, run: Run, begin: float) -> None:
    result = await producer.send(topic, body)
    if result.status is SendStatus.SEND_OK:
        run.ok(begin)
    else:
        run.failed(result.status.name)


async def send_batch(producer: Producer, topic: str, body: bytes, run: Run, begin: float, *, count: int) -> None:
    await producer.send_batch(topic, [body] * count)
    run.ok(begin, count)


async def send_oneway(producer: Producer, topic: str, body: bytes, run: Run, begin: float) -> None:
    await producer.send_oneway(topic, body)
    run.ok(begin)


async def drive(one: Any, concurrency: int, rate: float | None, warm: float, seconds: float, run: Run) -> float:
    """Keep `one(begin)` going on `concurrency` tasks; returns the measured seconds. With a rate each task takes the next due moment."""
    start = Clock()
    number = 0

    async def worker() -> None:
        nonlocal number
        while True:
            begin = Clock()
            if rate is not None:
                begin, number = start + number / rate, number + 1
                await trio.sleep_until(begin)
            try:
                await one(begin)
            except TrmqError as error:
                run.failed(type(error).__name__)

    async with trio.open_nursery() as nursery:
        for _ in range(concurrency):
            nursery.start_soon(worker)
        await trio.sleep(warm)
        run.measuring, begin = True, Clock()
        await trio.sleep(seconds)
        took = Clock() - begin
        run.measuring = False
        nursery.cancel_scope.cancel()
    return took


async def consume(mq: Client, topic: str, count: int, size: int, run: Run) -> float:
    """Fill the topic up to `count` messages, then read them all with a new group; seconds from the first message to the last."""
    missing = count - sum(s.max_offset - s.min_offset for s in await mq.admin.topic_stats(topic))
    async with mq.producer(group="trmq_bench") as producer:
        for at in range(0, max(0, missing), 32):
            await producer.send_batch(topic, [b"x" * size] * min(32, missing - at))
            if at % 8192 == 0 and sys.stderr.isatty():
                print(f"\rfilling {topic}: {at:,} of {missing:,}", end="", file=sys.stderr, flush=True)
    run.measuring = True
    group = f"bench_{int(Clock() * 1000)}"
    async with mq.consumer(topic, group=group, from_where=FromWhere.FIRST) as consumer:
        started = Clock()
        first = None
        for _ in range(count):
            async with await consumer.__anext__():
                first = Clock() if first is None else first
                run.messages += 1
        run.latencies.append((first or started) - started)
    return Clock() - (first or started)


async def end_to_end(mq: Client, producer: Producer, topic: str, size: int, rate: float, warm: float, seconds: float, run: Run) -> float:
    """Send at a fixed rate while a consumer of the same process receives; latency from the due moment to the arrival."""

    async def receive(consumer: Consumer) -> None:
        async for message in consumer:
            async with message:
                text, _, _ = message.body.partition(b" ")
                run.ok(float(text))

    async def one(begin: float) -> None:
        await producer.send(topic, (b"%f " % begin).ljust(size, b"x"))

    async with (
        mq.consumer(topic, group=f"bench_{int(Clock() * 1000)}", from_where=FromWhere.LAST) as consumer,
        trio.open_nursery() as nursery,
    ):
        await consumer.assigned()
        nursery.start_soon(receive, consumer)
        took = await drive(one, max(64, int(rate / 10)), rate, warm, seconds, run)
        nursery.cancel_scope.cancel()
    return took
