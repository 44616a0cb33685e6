"""What a slave asks of a master that cannot be joined: Apache's. All of it are requests that any broker answers.

The plain HA protocol tells nothing of these: the size of the master's segments, where its log begins and ends, and whether the record at
some offset is the same on both sides.

Source: reference "protocol" section 11.6, "ha" section 1 (TRAP-H1, TRAP-H6).
"""

from __future__ import annotations

from trmq.config import BrokerConfig
from trmq.errors import ConnectionLost, RemoteProtocolError, RequestTimeout
from trmq.log.follower import Follower
from trmq.remoting import RemotingClient
from trmq.replica.slave import CannotFollow
from trmq.wire.bodies import KVTable, decode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command

from .neighbours import broker_config

ASK_S = 3.0


class ApacheMaster:
    def __init__(self, client: RemotingClient, address: str) -> None:
        self._client = client
        self._address = address

    async def _ask(self, code: int, fields: dict[str, str] | None = None) -> Command:
        try:
            return await self._client.request(self._address, code, fields, timeout=ASK_S)
        except (ConnectionLost, RequestTimeout) as error:
            raise CannotFollow(f"the master at {self._address} does not answer: {error}") from None

    async def check(self, config: BrokerConfig, segment_size: int) -> None:
        """Raises `CannotFollow` if its configuration does not go with this slave's."""
        theirs = await broker_config(self._client, self._address)
        size = theirs.get("mappedFileSizeCommitLog", str(segment_size))
        if size != str(segment_size):
            raise CannotFollow(
                f"the master at {self._address} has mappedFileSizeCommitLog={size}, this slave {segment_size}: set it to the master's "
                "value (a store that holds messages already has to be moved away)"
            )
        for key, ours in (("brokerClusterName", config.broker_cluster_name), ("brokerName", config.broker_name)):
            if theirs.get(key, ours) != ours:
                raise CannotFollow(f"the master at {self._address} has {key}={theirs[key]}, this slave {ours}: set {key}={theirs[key]}")

    async def ends(self) -> tuple[int, int]:
        """(first, end) of its log."""
        answer = await self._ask(RequestCode.GET_BROKER_RUNTIME_INFO)
        try:
            table = decode_body(answer.body, KVTable).table
            return max(0, int(table["commitLogMinOffset"])), int(table["commitLogMaxOffset"])
        except (RemoteProtocolError, KeyError, ValueError):
            raise CannotFollow(f"the master at {self._address} does not say where its log begins and ends") from None

    async def record(self, offset: int) -> bytes | None:
        """The record at a log offset, None if there is none."""
        answer = await self._ask(RequestCode.VIEW_MESSAGE_BY_ID, {"offset": str(offset)})
        return bytes(answer.body) if answer.code == ResponseCode.SUCCESS and answer.body else None

    async def holds(self, offset: int, record: bytes) -> bool:
        """Whether it has this very record at this offset."""
        return await self.record(offset) == record

    async def start(self, follower: Follower, low: int, high: int) -> int | None:
        """Where an empty slave is to ask it to begin, so that it gets everything: Apache takes 0 for "the last file" (TRAP-H1). Of a log
        that begins at 0 and has several files, the first record is fetched here."""
        segment_size = follower.store.log.segment_size
        if low:
            return low - low % segment_size
        if high <= segment_size:
            return None
        record = await self.record(0)
        if record is None:
            return None
        follower.append(0, memoryview(record))
        while follower.dispatch(len(record)):
            pass
        return len(record)
