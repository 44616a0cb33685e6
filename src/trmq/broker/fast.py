"""The second port ("VIP channel"), two below the first: everything but pulls, so that a send never stands behind a slow pull.

Source: `BrokerController#initialize` (fastRemotingServer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trmq.remoting import Answer, Connection
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response

if TYPE_CHECKING:
    from .service import Broker

FAST_PORT_STEP = 2
"""The "VIP" server listens this much below listenPort."""
FAST_SERVER_REFUSES = frozenset({
    RequestCode.PULL_MESSAGE, RequestCode.LITE_PULL_MESSAGE, RequestCode.PEEK_MESSAGE, RequestCode.POP_MESSAGE, RequestCode.NOTIFICATION,
    RequestCode.POLLING_INFO,
})


class FastServer:
    """The same broker on the port for whom a slow pull must not stand in the way: it serves everything but pulls."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.finish = broker.finish
        self.opened = broker.opened
        self.closed = broker.closed

    def handle(self, conn: Connection, command: Command) -> Answer:
        if command.code in FAST_SERVER_REFUSES:
            remark = f" request type {command.code} not supported"
            return encode_response(command, ResponseCode.REQUEST_CODE_NOT_SUPPORTED, remark=remark)
        return self._broker.handle(conn, command)
