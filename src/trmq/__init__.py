"""trmq: Apache RocketMQ high availability in Python on Trio.

    async with trmq.connect("127.0.0.1:9876") as mq, mq.producer(group="shop") as producer:
        await producer.send("orders", b"...", tag="paid", keys=["o-17"])

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client, Consumer, Delivery, FromWhere, Message, Producer, Reader, Received, SendResult, SendStatus
    from .errors import (
        ConfigError,
        ConnectionLost,
        MessageIllegal,
        RemoteRefused,
        RequestTimeout,
        RouteNotFound,
        SendFailed,
        TrmqError,
    )
    from .host import Host
    from .message import MessageQueue

__all__ = [
    "Client",
    "ConfigError",
    "ConnectionLost",
    "Consumer",
    "Delivery",
    "FromWhere",
    "Message",
    "MessageIllegal",
    "MessageQueue",
    "Producer",
    "Reader",
    "Received",
    "RemoteRefused",
    "RequestTimeout",
    "RouteNotFound",
    "SendFailed",
    "SendResult",
    "SendStatus",
    "TrmqError",
    "connect",
]

_HOME = {
    **dict.fromkeys(
        ("Client", "Consumer", "Delivery", "FromWhere", "Message", "Producer", "Reader", "Received", "SendResult", "SendStatus"), "client"
    ),
    **dict.fromkeys(
        ("ConfigError", "ConnectionLost", "MessageIllegal", "RemoteRefused", "RequestTimeout", "RouteNotFound", "SendFailed", "TrmqError"),
        "errors",
    ),
    "MessageQueue": "message",
}


def connect(
    namesrv: str | Sequence[str], *, host: Host | None = None, offsets_folder: str | None = None, default_topic_queues: int = 4,
    drain_timeout: float = 5.0,
) -> AbstractAsyncContextManager[Client]:
    """A client of the cluster behind these name servers ("host:port;host:port"), as an async context manager. Needs a running Trio loop.

    `offsets_folder`: where broadcasting consumers keep their progress (default `~/.rocketmq_offsets`, as Java's client).
    `default_topic_queues`: queues per broker of a topic that a send creates. `drain_timeout`: seconds each thing
    opened inside gets to leave in order. `host`: the outside world, for simulations.

    Raises `ConfigError` for a malformed address. Nothing is dialled before it is needed.
    """
    from .client import connect as open_client

    if host is None:
        from .real_host import RealHost

        host = RealHost(offsets_folder or _default_offsets_folder())
    return open_client(namesrv, host=host, default_topic_queues=default_topic_queues, drain_timeout=drain_timeout)


def _default_offsets_folder() -> str:
    from pathlib import Path

    return str(Path.home() / ".rocketmq_offsets")


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'trmq' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
