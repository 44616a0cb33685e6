"""`serve`: a handler function, called by a fixed number of workers; optionally one message per sharding key at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from trmq.errors import ConfigError
from trmq.message import java_hash

from .consumer import Consumer
from .delivery import Delivery

LANE_DEPTH = 8
"""Messages that may wait for one worker when handling is ordered by key; the rest stays in the consumer's cache."""

Handler = Callable[[Delivery], Awaitable[object]]


async def serve(consumer: Consumer, handler: Handler, concurrency: int, ordered_by: str | None) -> None:
    """Run until cancelled."""
    if concurrency < 1:
        raise ConfigError(f"concurrency={concurrency}: must be at least 1")
    if ordered_by not in (None, "sharding_key"):
        raise ConfigError(f"ordered_by={ordered_by!r}: only 'sharding_key' is known")
    async with trio.open_nursery() as nursery:
        if ordered_by is None:
            for _ in range(concurrency):
                nursery.start_soon(_work, consumer, handler)
            return
        lanes = []
        for _ in range(concurrency):
            send, receive = trio.open_memory_channel[Delivery](LANE_DEPTH)
            lanes.append(send)
            nursery.start_soon(_lane, receive, handler)
        turn = 0
        async for message in consumer:
            turn += 1
            key = message.sharding_key
            await lanes[(turn if key is None else java_hash(key)) % concurrency].send(message)
        for lane in lanes:
            lane.close()


async def _work(consumer: Consumer, handler: Handler) -> None:
    async for message in consumer:
        async with message:
            await handler(message)


async def _lane(receive: trio.MemoryReceiveChannel[Delivery], handler: Handler) -> None:
    async for message in receive:
        if message.cell.dropped:
            continue
        async with message:
            await handler(message)
