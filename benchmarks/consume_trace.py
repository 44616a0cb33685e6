"""A consumer of trmq's client that prints one line per message (ms, queue, offset), as `Bench --scenario trace` does with the Java client.

    python benchmarks/consume_trace.py NAME_SERVER TOPIC

Settings are the defaults but for small caches, so that what arrives was pulled a moment ago; 1 ms of work per message. Ends with stdin.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import trmq


async def main(name_server: str, topic: str) -> None:
    group, first = f"bench_t_{time.time_ns()}", trmq.FromWhere.FIRST
    async with (
        trmq.connect(name_server) as mq,
        mq.consumer(topic, group=group, from_where=first, pull_batch=16, prefetch_messages=16) as consumer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(until_stdin_closes, nursery.cancel_scope)
        async for message in consumer:
            async with message:
                print(f'{{"t":{time.time() * 1000:.1f},"q":{message.queue.queue_id},"o":{message.offset}}}', flush=True)
                await trio.sleep(0.001)


async def until_stdin_closes(scope: trio.CancelScope) -> None:
    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:3])
