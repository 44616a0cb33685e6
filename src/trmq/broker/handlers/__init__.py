"""Request handlers: plain functions `(broker, conn, command) -> Answer`, one module per subject.

Each module lists its own in `HANDLERS`; `all_handlers` is the broker's table. A code that nobody lists is answered
REQUEST_CODE_NOT_SUPPORTED.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from trmq.remoting import Answer, Connection
from trmq.wire.codes import RequestCode
from trmq.wire.command import Command

if TYPE_CHECKING:
    from trmq.broker.service import Broker

Handler: TypeAlias = Callable[["Broker", Connection, Command], Answer]


def all_handlers(*, slave: bool = False) -> dict[int, Handler]:
    """Every handler by request code. Two modules must not claim one code."""
    from . import admin, client, consumption, group, offset, pull, query, relay, replica, send, sendback, topic

    table: dict[int, Handler] = {}
    for module in (send, sendback, pull, offset, client, query, topic, group, consumption, relay, admin, replica):
        handlers: dict[RequestCode, Handler] = module.HANDLERS
        for code, handler in handlers.items():
            assert code not in table, f"{code!r} has two handlers"
            table[int(code)] = handler
    return table | {int(code): handler for code, handler in replica.ON_A_SLAVE.items()} if slave else table
