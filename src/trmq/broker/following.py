"""What a slave does beside copying the log: find its master, ask it for its consent, and copy its tables.

    find      name servers (or haMasterAddress) say where the master is ─▶ JOIN over the remoting port ─▶ a token for the HA port
              an Apache master knows no JOIN: its configuration, its log's end and a record tell whether it may be followed
    copy      topics, groups, consumer and delay offsets: at once when the master says that one changed, and now and then anyway
    hand back commits that clients made here while the master was away, as far as they are ahead of the master's

A log that is longer than its master's, or differs from it, is no copy. If this store was a master itself before (its group was switched by
hand), what the new master lacks is set aside and cut off (`Cut`); else the slave says what is wrong and waits: it may hold acknowledged
messages that its master lost, and only a person can decide that.

Offsets and delay progress are taken over only when the log has come as far as the master's was when it told them (apache/rocketmq #4771).

Source: reference "ha" section 3; `SlaveSynchronize`, `DefaultHAClient`. Upholds P-META-1, P-META-2, P-HA-1.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

import trio

from trmq.errors import ConnectionLost, RemoteProtocolError, RequestTimeout, TrmqError
from trmq.log.aside import tail_path
from trmq.log.follower import Follower
from trmq.remoting import Answer, Connection, RemotingClient, parse_address
from trmq.replica.slave import CannotFollow, Cut, Lead, Slave
from trmq.wire.bodies import ConsumerOffsetWrapper, SubscriptionGroupWrapper, TopicConfigSerializeWrapper, decode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command
from trmq.wire.headers.replica import Join, JoinResponse, MetadataChanged

from . import delay, groups, offsets, topics
from .apache_master import ApacheMaster
from .neighbours import cluster_info
from .same_log import Records

if TYPE_CHECKING:
    from trmq.broker.service import Broker

logger = logging.getLogger("trmq.replica")

ASK_S = 3.0
FIRST_ANSWER_S = 1.0
TAIL_BYTES = 64 * 1024
APACHE_PERIOD_S, PERIOD_S = 10.0, 60.0
WAIT_FOR_LOG_S = 10.0
TABLES = (topics.PATH, groups.PATH, offsets.PATH, delay.PATH)
MAX_PHY = "maxPhyOffset"
"""A field that a trmq master adds to its answers of offsets: where its log ended then."""


class Following:
    """The slave's half of a broker. `run` in a nursery; `slave` holds the link's state."""

    def __init__(self, broker: Broker, was_master: bool) -> None:
        self._broker = broker
        self.follower = Follower(broker.store)
        self.was_master = was_master
        """This store was a master's when it was last used."""
        self.slave = Slave(
            broker.host, broker.store_service, self.follower, self._find, heartbeat_s=broker.config.ha_send_heartbeat_interval / 1000,
            silence_s=broker.config.ha_housekeeping_interval / 1000, changed=self._link_changed,
        )
        self._client: RemotingClient
        self._master = ""
        self._due: dict[str, None] = {}
        self._bell = trio.Event()
        self._anew = True
        self._apache = False
        if broker.offsets.kept is None:
            broker.offsets.kept = {}
        broker.registration.on_master = self.slave.try_sooner

    async def run(self, nursery: trio.Nursery) -> None:
        """Follow and copy until cancelled. Raises `Cut`."""
        self._client = RemotingClient(self._broker.host, nursery, on_request=self._told)
        async with trio.open_nursery() as own:
            own.start_soon(self._copy_tables)
            await self.slave.run()

    # --- who is the master

    async def _find(self) -> Lead:
        broker, config = self._broker, self._broker.config
        with trio.move_on_after(FIRST_ANSWER_S if config.namesrv_addresses else 0):
            await broker.registration.answered.wait()
        known = broker.registration.master
        if config.ha_master_address:
            ha = config.ha_master_address
        elif known is not None:
            ha = known[1]
        else:
            broker.registration.refresh()
            raise CannotFollow(await self._nobody())
        self._master = beside(ha) if known is None else known[0]
        if broker.store.config.sync_flush:
            await broker.store_service.flush()  # so that what is reported first is where the log ends
        try:
            answer = await self._client.request(self._master, RequestCode.TRMQ_JOIN, self._request(), timeout=ASK_S)
        except (ConnectionLost, RequestTimeout) as error:
            broker.registration.refresh()
            if known is None:  # only its HA port is known; nothing can be asked, and no table copied
                self._master = ""
                return Lead(parse_address(ha), ha)
            raise CannotFollow(f"the master at {self._master} does not answer: {error}") from None
        self._apache = answer.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED
        if self._apache:
            return await self._apache_lead(ha)
        if answer.code != ResponseCode.SUCCESS:
            raise CannotFollow(f"the master at {self._master} refuses this slave: {answer.remark}")
        told = answer.header(JoinResponse)
        if told.verdict != "follow":
            await self._differs(told.max_offset, told.min_offset)
        return Lead(parse_address(ha), self._master, token=told.token)

    def _request(self) -> Join:
        broker, config, log = self._broker, self._broker.config, self._broker.store.log
        tail = min(TAIL_BYTES, log.max_phy - log.min_phy)
        return Join(
            cluster_name=config.broker_cluster_name, broker_name=config.broker_name, broker_id=config.broker_id,
            broker_addr=broker.registration.broker_addr or f"{config.broker_ip1}:{broker.address[1]}", store_id=broker.identity.store_id,
            segment_size=log.segment_size, min_offset=log.min_phy, max_offset=log.max_phy, tail_size=tail,
            tail_digest=tail_digest(broker, log.max_phy, tail), sync_from_last_file=config.sync_from_last_file,
        )

    async def _nobody(self) -> str:
        config = self._broker.config
        if not config.namesrv_addresses:
            return "this slave has neither namesrvAddr nor haMasterAddress: set one of them"
        for name_server in config.namesrv_addresses:
            info = await cluster_info(self._client, name_server)
            group = info.broker_addr_table.get(config.broker_name) if info is not None else None
            if group is not None and group.cluster != config.broker_cluster_name and 0 in group.broker_addrs:
                return (
                    f"broker {config.broker_name} belongs to cluster {group.cluster} (its master is at {group.broker_addrs[0]}), this "
                    f"slave to {config.broker_cluster_name}: set brokerClusterName={group.cluster}"
                )
        return (
            f"no master of broker {config.broker_name} in cluster {config.broker_cluster_name} is registered at {config.namesrv_addr}: "
            "start it, or make this broker the master (brokerRole, brokerId=0)"
        )

    # --- is it a copy

    async def _apache_lead(self, ha: str) -> Lead:
        """The same questions, asked of a master that knows no JOIN."""
        apache = ApacheMaster(self._client, self._master)
        log = self._broker.store.log
        await apache.check(self._broker.config, log.segment_size)
        low, high = await apache.ends()
        if not log.segments:
            start = None if self._broker.config.sync_from_last_file else await apache.start(self.follower, low, high)
            return Lead(parse_address(ha), self._master, start=start)
        records = Records(log)
        last = await records.last()
        if log.max_phy > high or (last is not None and last >= low and not await apache.holds(last, records.read(last))):
            await self._differs(high, low)
        if log.max_phy < low:
            raise CannotFollow(expired(log.max_phy, low))
        return Lead(parse_address(ha), self._master)

    async def _differs(self, high: int, low: int) -> None:
        """This log is longer than the master's, or has another end. Raises what has to be done about it."""
        log = self._broker.store.log
        master = ApacheMaster(self._client, self._master)  # every broker answers these requests
        at = await Records(log).consistent_point(master.holds, low)
        ends = f"this slave's log ends at {log.max_phy}, that of its master at {self._master} at {high}"
        if at == log.max_phy <= high:
            raise CannotFollow(
                f"{ends}, both have the record that ends at {at}, and what lies before it differs: one of the two logs is damaged; "
                f"`trmq store check` says which (stop the broker first); if it is this one, {RESYNC}"
            )
        if at is None or not self.was_master:
            common = "they have no record in common" if at is None else f"they are the same up to {at} only"
            raise CannotFollow(
                f"{ends}, and {common}: the master does not have what this slave holds, so make this slave the master (brokerRole, "
                f"brokerId=0) to keep it, or {RESYNC} to give it up"
            )
        logger.warning(
            "%s; both were the same up to %d: what only this broker held while it was the master is kept in %s", ends, at,
            tail_path(at, log.max_phy),
        )
        raise Cut(at, f"{ends}; the same up to {at}", aside=True)

    # --- tables

    def _link_changed(self) -> None:
        self._anew = True
        if self.slave.lead is not None:
            if self.was_master:
                self.was_master = False
                self._broker.nursery.start_soon(self._broker.note_role)
            self._due.update(dict.fromkeys(TABLES))
        self._bell.set()

    def _told(self, conn: Connection, command: Command) -> Answer:
        """The master says that a table changed."""
        if command.code == RequestCode.TRMQ_METADATA_CHANGED:
            path = command.header(MetadataChanged).path
            if path in TABLES:
                self._due[path] = None
                self._bell.set()
        return None

    async def _copy_tables(self) -> None:
        while True:
            period = APACHE_PERIOD_S if self._apache else PERIOD_S
            with trio.move_on_after(period) as waited:
                await self._bell.wait()
            self._bell = trio.Event()
            if self.slave.lead is None or not self._master:
                continue
            if waited.cancelled_caught:
                self._due.update(dict.fromkeys(TABLES))
            due, self._due = self._due, {}
            for path in due:
                try:
                    await self._copy(path)
                except (TrmqError, OSError) as error:
                    logger.info("%s was not copied from %s: %s", path, self._master, error)

    async def _copy(self, path: str) -> None:
        broker = self._broker
        if path == topics.PATH:
            answer = await self._ask(RequestCode.GET_ALL_TOPIC_CONFIG)
            broker.topics.replace(decode_body(answer.body, TopicConfigSerializeWrapper))
        elif path == groups.PATH:
            answer = await self._ask(RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG)
            broker.groups.replace(decode_body(answer.body, SubscriptionGroupWrapper))
        elif path == delay.PATH:
            answer = await self._ask(RequestCode.GET_ALL_DELAY_OFFSET)
            if await self._log_is_there(answer):
                broker.delay.replace(bytes(answer.body))
                broker.metadata.mark(path)
        else:
            await self._copy_offsets()

    async def _copy_offsets(self) -> None:
        broker = self._broker
        answer = await self._ask(RequestCode.GET_ALL_CONSUMER_OFFSET)
        anew = self._anew
        if not await self._log_is_there(answer):
            return
        ahead = broker.offsets.follow(decode_body(answer.body, ConsumerOffsetWrapper).offset_table, anew=anew)
        self._anew = False
        for key, queues in ahead.items():
            topic, _, group = key.rpartition("@")
            for queue_id, offset in queues.items():
                fields = {
                    "consumerGroup": group, "topic": topic, "queueId": str(queue_id), "commitOffset": str(offset), "onlyForward": "true",
                }
                await self._ask(RequestCode.UPDATE_CONSUMER_OFFSET, fields)
                broker.offsets.handed_back(key, queue_id, offset)

    async def _ask(self, code: int, fields: dict[str, str] | None = None) -> Command:
        answer = await self._client.request(self._master, code, fields, timeout=ASK_S)
        if answer.code != ResponseCode.SUCCESS:
            raise RemoteProtocolError(f"request {code}: {answer.remark} (code {answer.code})")
        return answer

    async def _log_is_there(self, answer: Command) -> bool:
        """Whether the log has come as far as the master's was when it answered; waits for it a while."""
        try:
            end = int(answer.ext.get(MAX_PHY, "0"))
        except ValueError:
            return False
        with trio.move_on_after(WAIT_FOR_LOG_S):
            await self._broker.store_service.written.reach(end)
        return self._broker.store.max_phy >= end


RESYNC = "stop it and run `trmq store resync` on its store"


def beside(ha_address: str) -> str:
    """Where a broker with this HA address listens for clients if nobody says otherwise: one port below."""
    ip, _, port = ha_address.rpartition(":")
    return f"{ip}:{max(1, int(port) - 1)}"


def expired(end: int, low: int) -> str:
    return f"this slave's log ends at {end} but its master's begins at {low}: what lies between has expired there; {RESYNC}"


def tail_digest(broker: Broker, end: int, size: int) -> str:
    """SHA-256 of the `size` log bytes before `end`."""
    log, digest, at = broker.store.log, hashlib.sha256(), end - size
    while at < end:
        segment = log.segment_at(at)
        assert segment is not None
        stop = min(end, segment.end)
        digest.update(segment.file.read_at(at - segment.base, stop - at))
        at = stop
    return digest.hexdigest()
