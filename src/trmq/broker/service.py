"""`Broker`: one broker of one group; the nursery tree, the handler table and the end of every read batch.

A handler is a plain function `(broker, conn, command) -> Answer`, registered in its module's `HANDLERS`. It reads top to
bottom and never waits. What it stores through `put` (or the store's own `append`) exists only after `commit`; a
handler therefore returns a `Stored`, and `finish` commits once for the whole read batch before anything is
answered. A background service calls `put …; commit()` itself, with no checkpoint in between: that is what keeps a full
disk a failure of exactly the messages that were appended since the last commit.

    run ─ open store ─ load config/*.json ─ store service, acks, holds, delay, stats, metadata ─ listeners ─ started ─ registration
    stop is the reverse: unregister, close the listeners, persist, close the store.

A failed disk ends `run` with `DiskFailed`: it is never retried, and the store is left as after a crash.
Source: `BrokerController` of Apache RocketMQ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress

import attrs
import trio

from trmq.config import BrokerConfig
from trmq.errors import ConfigError, CorruptRecord, DiskFailed, DiskFull, MessageIllegal
from trmq.host import Address, Buffer, Host
from trmq.log import Put, Store, StoreService, index_keys, open_store
from trmq.log.aside import cut_store
from trmq.message import (
    CLUSTER,
    MSG_REGION,
    PROPERTIES_BYTES_MAX,
    SCHEDULE_TOPIC,
    TAGS,
    TRACE_ON,
    decode_properties,
    encode_host,
    encode_properties,
    tags_code,
)
from trmq.nursery import first_cause
from trmq.remoting import Answer, Connection, Deferred, RemotingClient, serve_remoting
from trmq.replica.slave import Cut
from trmq.watermark import Watermark
from trmq.wire.bodies import DataVersion
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers.pull import NotifyConsumerIdsChanged
from trmq.wire.unique_key import UniqueKeys

from . import delay, groups, offsets, topics
from .clients import Clients
from .fast import FAST_PORT_STEP, FastServer
from .following import Following
from .groups import GroupTable
from .handlers import all_handlers
from .handlers.pull import HeldPull, end_hold, look_again
from .holds import HoldDriver, Holds
from .identity import Identity, load_identity, save_identity
from .loading import load_tables
from .locks import QueueLocks
from .metadata import Metadata
from .neighbours import refuse_a_double
from .offsets import OffsetTable
from .registration import Registration
from .replication import Replication
from .settings import remoting_limits, store_config
from .stats import BrokerStats
from .stored import Stored
from .topics import READ, WRITE, TopicTable
from .waiting import Sent, Waiting

CLIENT_SCAN_S = 10.0
STOP_GRACE_S = 10.0
"""How long a stop may take before it becomes a crash."""


class Broker:
    """See the module. Other modules use: host, config, store, store_service, topics, groups, offsets, clients, locks, holds, acks,
    delay, stats, registration, metadata, replication, remoting (the client side, set while running)."""

    store_service: StoreService
    store: Store
    waiting: Waiting
    remoting: RemotingClient
    identity: Identity
    nursery: trio.Nursery

    def __init__(self, host: Host, config: BrokerConfig) -> None:
        if config.role_problem is not None:
            raise ConfigError(config.role_problem)
        self.host = host
        self.config = config = config.resolved(host.name, host.local_ip())
        self.address: Address = (config.bind_address, config.listen_port)
        """Where the broker listens; with port 0 the real one is known once it runs."""
        self.metadata = Metadata(host.disk)
        self.registration: Registration
        self.topics = TopicTable(config, self.now_ms, self._topics_changed)
        self.groups = GroupTable(config.auto_create_subscription_group, self.now_ms, lambda: self.metadata.mark(groups.PATH))
        self.offsets = OffsetTable(self.now_ms)
        self.clients: Clients[Connection] = Clients(config.channel_expired_timeout / 1000)
        self.locks = QueueLocks()
        self.stats = BrokerStats(self.now_ms)
        self.holds: HoldDriver[Connection, HeldPull] = HoldDriver(
            Holds(config.holds_max), lambda hold: look_again(self, hold), lambda hold: end_hold(self, hold), Connection.flush_now
        )
        self.registration = Registration(config, self.topics)
        self.delay = delay.DelayService(self)
        self.metadata.register(topics.PATH, self.topics.encode)
        self.metadata.register(groups.PATH, self.groups.encode)
        self.metadata.register(offsets.PATH, self.offsets.encode)
        self.metadata.register(delay.PATH, self.delay.encode)

        self.replication = Replication(self)
        self.is_slave = config.is_slave
        self.memory_reach = 0
        """Bytes behind the log's end that are taken to be in memory."""
        self._take_over(config)
        self.config_version = DataVersion(counter=0, state_version=0, timestamp=self.now_ms())
        self.phy_at_start = 0
        self.own_properties = {
            MSG_REGION: config.region_id, TRACE_ON: "true" if config.trace_on else "false", CLUSTER: config.broker_cluster_name,
        }
        self.properties_suffix = encode_properties(self.own_properties)
        """What every stored message gets at the end of its properties."""
        self.message_id_prefix = ""
        """Hex of the store host: an offset message id without its offset."""
        self._handlers = all_handlers(slave=self.is_slave)
        self._sync_flush = config.flush_disk_type == "SYNC_FLUSH"
        self._unique_keys = UniqueKeys(self.config.broker_ip1, host.process_id, host.random.getrandbits(32))
        self._stopping = trio.Event()
        self._leaving = trio.Event()
        self._failed: DiskFailed | None = None
        self._cut: Cut | None = None

    # --- what handlers and services use

    def reconfigure(self, config: BrokerConfig) -> None:
        """Go on with `config`, which differs from the present one in keys that may change while running."""
        self._take_over(config)
        self.groups.auto_create = config.auto_create_subscription_group
        self.topics.reconfigure(config)
        self.store_service.config = store_config(config, self.store.config.store_host)

    def _take_over(self, config: BrokerConfig) -> None:
        self.config = config
        self.readable = bool(config.broker_permission & READ)
        self.writable = bool(config.broker_permission & WRITE)
        self.memory_reach = self.host.memory_bytes() * config.access_message_in_memory_max_ratio // 100

    def now_ms(self) -> int:
        """Wall clock, ms."""
        return self.host.wall_ms()

    def clock_ms(self) -> int:
        """A clock that never jumps, ms: for lives and leases."""
        return int(trio.current_time() * 1000)

    def unique_key(self) -> str:
        """A UNIQ_KEY for a message that came without one."""
        return self._unique_keys.next(self.host.wall_ms())

    def put(
        self, topic: str, queue_id: int, body: Buffer, properties: Mapping[str, str] | bytes, *, flag: int = 0, sys_flag: int = 0,
        born_ms: int | None = None, born_host: bytes | None = None, reconsume_times: int = 0, prepared_offset: int = 0,
    ) -> Put:
        """Append a message; `commit` makes it exist. A handler returns a `Stored` instead of committing.

        Tags code and keys are computed from the properties; a DELAY level sends it through SCHEDULE_TOPIC_XXXX by
        `delay.rewrite`. Raises `MessageIllegal`, `DiskFull`, and `RemoteProtocolError` for a delay that cannot be.
        """
        named = dict(properties) if isinstance(properties, Mapping) else decode_properties(properties)
        now, tags = self.now_ms(), tags_code(named.get(TAGS))
        moved = self.delay.rewrite(topic, queue_id, named, now)
        if moved is not None:
            topic, queue_id, named, tags = moved
        stored = encode_properties(named)
        if len(stored) > PROPERTIES_BYTES_MAX:
            raise MessageIllegal(f"the message's properties have {len(stored)} bytes, at most {PROPERTIES_BYTES_MAX} can be stored")
        put = self.store.append(
            topic, queue_id, body, stored, flag, sys_flag, now if born_ms is None else born_ms,
            self.store.config.store_host if born_host is None else born_host, reconsume_times, tags, index_keys(named), prepared_offset,
        )
        self.stats.topic_puts[topic] += 1
        return put

    def commit(self) -> int:
        """Make everything appended since the last commit exist. Raises `DiskFull`: then none of it does."""
        return self.store.commit()

    def notify_members(self, group: str) -> None:
        """Tell every member of a consumer group to look at its members again (not if it broadcasts)."""
        known = self.clients.consumers.get(group)
        if known is None or known.broadcasting or not self.config.notify_consumer_ids_changed_enable:
            return
        header = NotifyConsumerIdsChanged(group)
        for conn in list(known.members):
            if not conn.closed:
                conn.oneway(RequestCode.NOTIFY_CONSUMER_IDS_CHANGED, header)

    def stop(self) -> None:
        """Begin an orderly stop; `run` returns when it is done."""
        self._stopping.set()
        self._leaving.set()

    # --- the remoting server's side (remoting.Service)

    def handle(self, conn: Connection, command: Command) -> Answer:
        handler = self._handlers.get(command.code)
        if handler is None:
            return encode_response(
                command, ResponseCode.REQUEST_CODE_NOT_SUPPORTED, remark=f" request type {command.code} not supported"
            )
        try:
            return handler(self, conn, command)
        except DiskFailed as error:
            self._failed = error  # a client gets an error answer, but the broker must not live on
            self.stop()
            raise

    def finish(self, conn: Connection, deferred: list[Deferred]) -> Iterable[bytes]:
        """Commit what a read batch stored; the answers that may go out now. The others wait for the flush, or for slaves."""
        started = trio.current_time()
        batch: list[Stored] = deferred  # type: ignore[assignment]  # every Deferred of a broker is a Stored
        need = self.replication.need()
        self.holds.quiet = True
        try:
            self.store.commit()
        except DiskFull as error:
            self.stats.put_failed += len(batch)
            code, remark = ResponseCode.SERVICE_NOT_AVAILABLE, f"service not available now, nothing was stored: {error}"
            return [encode_response(one.request, code, remark=remark) for one in batch if one.answer is not None]
        finally:
            self.holds.quiet = False
        self.holds.serve_at_once()
        late: list[bytes] = []
        if self._sync_flush or need > 1:
            waiting = [one for one in batch if one.waits and one.answer is not None]
            if waiting:
                batch = [one for one in batch if not one.waits]
                if need > 1 and self.replication.alone:
                    self.stats.stored(len(waiting), (trio.current_time() - started) * 1000)
                    late = [frame for one in waiting if (frame := one.late(ResponseCode.SLAVE_NOT_AVAILABLE)) is not None]
                elif self._sync_flush:
                    self.waiting.add_flush(Sent(conn, waiting, started, need))
                    self.store_service.request_flush(waiting[-1].end)
                else:
                    self.waiting.add_slaves(Sent(conn, waiting, started, need))
        if batch:
            self.stats.stored(len(batch), (trio.current_time() - started) * 1000)
        return [*[one.answer for one in batch if one.answer is not None], *late]

    def opened(self, conn: Connection) -> None:
        conn.state["born_host"] = encode_host(conn.peer)

    def closed(self, conn: Connection) -> None:
        self.replication.joined.pop(conn, None)
        self.holds.holds.drop(conn)
        for group in self.clients.drop(conn):
            config = self.groups.get(group)
            if config is None or config.notify_consumer_ids_changed_enable:
                self.notify_members(group)

    def _arrived(self, topic: str, queue_id: int, max_offset: int) -> None:
        """Messages reached a queue (called once per queue and commit, from the middle of it)."""
        self.holds.arrived(topic, queue_id, max_offset)
        if topic == SCHEDULE_TOPIC:
            self.delay.arrived(queue_id, max_offset)

    # --- life

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` or cancellation; either way the stop is orderly, within `STOP_GRACE_S`.

        `task_status.started(address)` comes once clients can connect. Raises `OSError` for a port in use, `StoreLocked`,
        `StoreMismatch`, `CorruptRecord` of the store, `DiskFailed` when the disk fails while running.
        """
        try:
            async with trio.open_nursery() as frame:
                frame.start_soon(self._stop_when_cancelled)
                with trio.CancelScope(shield=True) as shield:
                    await refuse_a_double(self.host, self.config, self._own_address())
                    await self._open_and_serve(shield, task_status)
                    while self._cut is not None and not self._stopping.is_set():
                        shield.deadline = math.inf
                        await self._cut_log(self._cut)
                        await self._open_and_serve(shield, trio.TASK_STATUS_IGNORED)
                frame.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first_cause(group) from None

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.stop()

    def _own_address(self) -> str | None:
        return f"{self.config.broker_ip1}:{self.address[1]}" if self.address[1] else None

    async def _cut_log(self, cut: Cut) -> None:
        """The slave's log parted from its master's: set aside what is too much, cut it, and start again."""
        self._cut, self._leaving = None, trio.Event()
        config = store_config(self.config, self.store.config.store_host)
        await cut_store(self.host, config, cut.at, aside=cut.aside)

    async def _open_and_serve(self, shield: trio.CancelScope, task_status: trio.TaskStatus[Address]) -> None:
        store_host = encode_host((self.config.broker_ip1, self.address[1]))
        self.message_id_prefix = store_host.hex().upper()
        self.store_service = await open_store(self.host, store_config(self.config, store_host))
        self.store = self.store_service.store
        try:
            self.identity = load_identity(self.host)
            load_tables(self)
            self.phy_at_start = self.store.max_phy
            self.store.on_arrival = self._arrived
            if self.is_slave:
                self.replication.following = Following(self, self.identity.was_master)
            if not self.identity.was_master or not self.is_slave:
                await self.note_role()
            config = self.config
            self.waiting = Waiting(
                self.store_service.flushed, self._held, self.stats.stored, flush_timeout_s=config.sync_flush_timeout / 1000,
                slave_timeout_s=config.slave_timeout / 1000,
            )
            await self._serve(shield, task_status)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_GRACE_S):
                if self.replication.following is not None and not self.store_service.failed:
                    with suppress(CorruptRecord):
                        await self.replication.following.slave.finish()
                await self.store_service.close()

    def _held(self, need: int) -> Watermark:
        assert self.replication.master is not None
        return self.replication.master.held(need)

    async def note_role(self) -> None:
        """Write down what this store is used as."""
        self.identity = await save_identity(self.host, self.identity, self.config)

    async def _serve(self, shield: trio.CancelScope, task_status: trio.TaskStatus[Address]) -> None:
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            await nursery.start(self.store_service.run)
            nursery.start_soon(self.waiting.run)
            nursery.start_soon(self.holds.run)
            if not self.is_slave:
                nursery.start_soon(self.delay.run)
            nursery.start_soon(self.stats.run)
            nursery.start_soon(self.metadata.run)
            nursery.start_soon(self._write_offsets)
            nursery.start_soon(self._drop_silent_clients)
            async with trio.open_nursery() as outward:
                self.remoting = RemotingClient(self.host, outward, on_closed=self.registration.connection_lost)
                async with trio.open_nursery() as listeners:
                    ha = await self.replication.start(listeners, self.config.bind_address, self.config.ha_listen_port)
                    if ha is not None:
                        self.registration.ha_port = ha[1]
                    await self._listen(listeners)
                    task_status.started(self.address)
                    if self.registration.links:
                        outward.start_soon(self.registration.run, self.remoting, f"{self.config.broker_ip1}:{self.address[1]}")
                    outward.start_soon(self._follow if self.is_slave else self.replication.watch_group)
                    await self._leaving.wait()
                    if self._failed is not None:
                        raise self._failed
                    shield.deadline = trio.current_time() + STOP_GRACE_S
                    await self.registration.unregister()
                    listeners.cancel_scope.cancel()
                outward.cancel_scope.cancel()
            self.delay.stop()
            await self.store_service.flush()  # so that the delay offsets on disk say all that was delivered
            await self.metadata.write(everything=True)
            nursery.cancel_scope.cancel()

    async def _follow(self) -> None:
        """Be a slave; a log that has to be cut first ends this round of serving, not the broker."""
        try:
            async with trio.open_nursery() as nursery:
                await self.replication.follow(nursery)
        except BaseExceptionGroup as group:
            error = first_cause(group)
            if not isinstance(error, Cut):
                raise error from None
            self._cut = error
            self._leaving.set()

    async def _listen(self, nursery: trio.Nursery) -> None:
        ip, port = self.config.bind_address, self.address[1]
        limits = remoting_limits(self.config)
        bound: Address = await nursery.start(serve_remoting, self.host, self, (ip, port), limits)
        self.address = bound
        if bound[1] != port:
            self._dialled_at(bound[1])
        if port > FAST_PORT_STEP:
            await nursery.start(serve_remoting, self.host, FastServer(self), (ip, port - FAST_PORT_STEP), limits)

    def _dialled_at(self, port: int) -> None:
        """A free port was taken: records and message ids name it from now on."""
        store_host = encode_host((self.config.broker_ip1, port))
        self.store.config = attrs.evolve(self.store.config, store_host=store_host)
        self.message_id_prefix = store_host.hex().upper()

    def _topics_changed(self, names: Iterable[str]) -> None:
        self.metadata.mark(topics.PATH)
        self.registration.topics_changed(names)

    async def _write_offsets(self) -> None:
        while True:
            await trio.sleep(self.config.flush_consumer_offset_interval / 1000)
            if self.offsets.dirty:
                self.metadata.mark(offsets.PATH)

    async def _drop_silent_clients(self) -> None:
        while True:
            await trio.sleep(CLIENT_SCAN_S)
            for conn in self.clients.silent(trio.current_time()):
                conn.close_soon("no heartbeat")
