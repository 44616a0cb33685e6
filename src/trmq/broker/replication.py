"""Replication as the broker sees it, whatever its role: how many holders a record needs, who the slaves are, whether a send may be stored.

A master serves its slaves (`trmq.replica.master`) and keeps an eye on who is registered in its group; a slave follows (`following`).

Under SYNC_MASTER every record needs `inSyncReplicas` holders, two unless configured otherwise: "sync dual write" is the documents' word
for it, and nothing less is called SEND_OK (design D5; Apache's default waits for nobody, TRAP-H7).

Source: reference "ha" sections 0 and 2; `CommitLog#asyncPutMessage`. Upholds P-ACK-1 to P-ACK-7, P-SLV-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from trmq.errors import ConfigError, RemoteProtocolError
from trmq.host import Address
from trmq.remoting import Connection
from trmq.replica.ack import ALL, lowered, needed
from trmq.replica.master import Master, SlaveStatistics
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.headers.replica import MetadataChanged

from .following import Following
from .neighbours import slaves_registered

if TYPE_CHECKING:
    from trmq.broker.service import Broker

LOOK_S = 30.0
"""How often a master asks who is registered in its group when nothing happens."""


class Replication:
    """`master` or `following` is there while the broker runs, by its role."""

    def __init__(self, broker: Broker) -> None:
        config = broker.config
        self._broker = broker
        self.master: Master | None = None
        self.following: Following | None = None
        self.sync = config.broker_role == "SYNC_MASTER"
        self.gated = self.sync and config.min_in_sync_replicas > 1
        """Whether a send has to be looked at before it is stored."""
        self.joined: dict[Connection, int] = {}
        """Connections of trmq slaves over the remoting port, to tell them what changed."""
        self.registered: Mapping[int, str] = {}
        """broker id -> address of the slaves the name servers know."""
        self._look = trio.Event()
        self._stale: dict[str, None] = {}
        self._tell = trio.Event()
        broker.metadata.on_mark = self._marked

    # --- before and after the append

    def need(self) -> int:
        """How many holders what is about to be stored needs, this broker included; 1 means that nobody is waited for."""
        if not self.sync or self.master is None:
            return 1
        config, holders = self._broker.config, self.master.holders
        need = config.holders_needed
        if need == ALL:
            need = needed(ALL, max(len(self.registered), holders.present))
        if config.enable_auto_in_sync_replicas:
            need = lowered(need, self.in_sync(), config.min_in_sync_replicas)
        return need

    def in_sync(self) -> int:
        """Copies close to the log's end, this broker's included."""
        assert self.master is not None
        return self.master.holders.in_sync(self.master.max_phy, self._broker.config.ha_max_gap_not_in_sync)

    @property
    def alone(self) -> bool:
        """No slave is connected."""
        return self.master is None or not self.master.holders.connected

    def check(self) -> None:
        """Raises the refusal of a send that would wait for slaves, while too few are in sync: nothing is stored then (P-ACK-5)."""
        if not self.gated or self.master is None:
            return
        least, found = self._broker.config.min_in_sync_replicas, self.in_sync()
        if found < least:
            raise RemoteProtocolError(
                f"IN_SYNC_REPLICAS_NOT_ENOUGH: {found} copies are in sync, minInSyncReplicas={least}; nothing was stored",
                ResponseCode.SYSTEM_ERROR,
            )

    # --- life

    async def start(self, nursery: trio.Nursery, bind: str, port: int) -> Address | None:
        """Start the role's tasks; the address of the HA port if there is one. Raises `ConfigError` for a port that cannot be had."""
        broker = self._broker
        config = broker.config
        if config.is_slave:
            return None
        self.master = Master(
            broker.host, broker.store_service, heartbeat_s=config.ha_send_heartbeat_interval / 1000,
            silence_s=config.ha_housekeeping_interval / 1000, batch_bytes=config.ha_transfer_batch_size,
            from_last_file=config.sync_from_last_file, changed=self._look_again,
        )
        try:
            address: Address = await nursery.start(self.master.run, (bind, port))
        except ConfigError as error:
            raise ConfigError(str(error).replace("listenPort", "haListenPort")) from None
        nursery.start_soon(self._tell_slaves)
        return address

    async def follow(self, nursery: trio.Nursery) -> None:
        """A slave's task, once the broker is listening. Raises `Cut`."""
        assert self.following is not None
        await self.following.run(nursery)

    def _look_again(self) -> None:
        self._look.set()

    async def watch_group(self) -> None:
        """A master's task: who is registered in the group, asked when a slave came or went and now and then."""
        assert self.master is not None
        config = self._broker.config
        while config.namesrv_addresses:
            self._look = trio.Event()
            found = await slaves_registered(self._broker.remoting, config, config.namesrv_addresses)
            if found is not None:
                self.registered = found
                self.master.allow(self._strangers(found))
            with trio.move_on_after(LOOK_S):
                await self._look.wait()

    def _strangers(self, registered: Mapping[int, str]) -> dict[str, int]:
        """How many slaves are registered at each ip that have not announced themselves."""
        assert self.master is not None
        counts: dict[str, int] = {}
        for broker_id, address in registered.items():
            if self.master.connected(broker_id) is None:
                ip = address.rpartition(":")[0].strip("[]")
                counts[ip] = counts.get(ip, 0) + 1
        return counts

    # --- telling slaves of changed tables

    def _marked(self, path: str) -> None:
        if self.joined:
            self._stale[path] = None
            self._tell.set()

    async def _tell_slaves(self) -> None:
        while True:
            await self._tell.wait()
            self._tell = trio.Event()
            stale, self._stale = self._stale, {}
            for conn in list(self.joined):
                if conn.closed:
                    del self.joined[conn]
                    continue
                for path in stale:
                    conn.oneway(RequestCode.TRMQ_METADATA_CHANGED, MetadataChanged(path))

    # --- for pulls and reports

    def busy_suggestion(self, wanted: int) -> int:
        """The slave a consumer that lags is sent to: the one its group names if it is there, else any, else the master itself."""
        if self.master is None:
            return 0
        ids = [slave.broker_id for slave in self.master.statistics() if slave.broker_id is not None]
        ids += [broker_id for broker_id in self.registered if broker_id not in ids] if self.master.holders.connected > len(ids) else []
        if not ids:
            return 0
        return wanted if wanted in ids else min(ids)

    @property
    def link_is_up(self) -> bool:
        """Of a slave: it is connected to its master."""
        return self.following is not None and self.following.slave.lead is not None

    def slaves(self) -> list[SlaveStatistics]:
        return [] if self.master is None else self.master.statistics()

    def report(self) -> dict[str, str]:
        """What GET_BROKER_RUNTIME_INFO says of it beside Apache's keys."""
        if self.following is not None:
            state = self.following.slave.state()
            return {
                "haState": "following" if state.connected else "not following", "haMaster": state.master, "haProblem": state.problem,
                "haWaitingForDispatch": str(state.waiting),
            }
        if self.master is None:
            return {}
        return {
            "haState": "master", "haNeed": str(self.need()), "haConnected": str(self.master.holders.connected),
            "haInSync": str(self.in_sync()), "haRefused": str(self.master.refused), "haProblem": self.master.last_refusal,
        }
