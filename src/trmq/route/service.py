"""The name server: the registry behind the remoting protocol, with a clock, a disk and connections.

Every handler is synchronous: a request is answered before the next is looked at, so the tables need no lock. What waits are
three things only: writing the KV configuration (an answer that leaves once the file is durable), telling members of a group
about a new lowest id, and the watch over silent brokers, which sleeps until the first of their deadlines.

A failing disk stops the name server; a broken request is answered and costs its sender nothing else.

Source: `DefaultRequestProcessor`, `ClientRequestProcessor` of the name server, 5.4.0; reference "name server".
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Iterable
from posixpath import basename

import trio

from trmq.config import KeyBarred, NamesrvConfig, changed, properties_text
from trmq.errors import ConfigError, RemoteProtocolError, TrmqError
from trmq.host import Address, Disk, Host
from trmq.remoting import Answer, Connection, Deferred, Job, Limits, RemotingClient, serve_remoting
from trmq.wire.bodies import (
    DataVersion,
    KVTable,
    RegisterBrokerBody,
    TopicConfigSerializeWrapper,
    TopicList,
    TopicRouteData,
    decode_body,
    encode_body,
)
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import route as headers
from trmq.wire.registration import decode_registration

from .kv import ORDER_TOPICS, KeyValues
from .registry import Member, Notice, Registry
from .views import keep_zone

log = logging.getLogger(__name__)

STANDARD_JSON_VERSION = 401
"""V4_9_4: from here on clients read standard JSON; the form before has bare integer keys."""
REGISTER_BODY_VERSION = 37
"""V3_0_11: from here on a registration's body also lists filter servers."""
NOTICE_TIMEOUT_S = 0.3
FAQ = "https://rocketmq.apache.org/docs/bestPractice/06FAQ"
ZLIB_MARK = b"\x78"


class NameServer:
    """One name server. `folder` is where its two files live, relative to the host's disk ("" is the disk's root)."""

    def __init__(self, host: Host, config: NamesrvConfig | None = None, folder: str = "") -> None:
        self._host = host
        self.config = config or NamesrvConfig()
        self._kv_file = _inside(folder, basename(self.config.kv_config_path) or "kvConfig.json")
        self._config_file = _inside(folder, basename(self.config.config_store_path) or "namesrv.properties")
        self.kv = KeyValues()
        self.registry = Registry(self.config, lambda topic: self.kv.get(ORDER_TOPICS, topic))
        self._writing = trio.Lock()
        self._ready_at = -math.inf
        self._sooner = trio.Event()
        self._watching_until = -math.inf
        self._notices: list[Notice] = []
        self._notices_came = trio.Event()
        self._handlers = self._table()

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. `task_status.started` gets the bound address. Raises `ConfigError` for a damaged KV file,
        `OSError` when the port is taken, `DiskFailed` when a configuration could not be written."""
        stored = _read(self._host.disk, self._kv_file)
        if stored is not None:
            self.kv = KeyValues.from_json(stored, self._kv_file)
        self._ready_at = trio.current_time() + self.config.wait_seconds_for_service
        limits = Limits(
            frame_bytes_max=self.config.frame_bytes_max,
            connections_max=self.config.connections_max,
            outbox_bytes_max=self.config.outbox_bytes_max,
            jobs_max=self.config.requests_in_flight_max,
            idle_timeout=self.config.server_channel_max_idle_time_seconds,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._tell_members)
            address = await nursery.start(serve_remoting, self._host, self, (self.config.bind_address, self.config.listen_port), limits)
            task_status.started(address)

    # ------------------------------------------------------------------------------------- what remoting asks of us
    def handle(self, conn: Connection, command: Command) -> Answer:
        handler = self._handlers.get(command.code)
        if handler is None:
            return encode_response(command, ResponseCode.REQUEST_CODE_NOT_SUPPORTED, remark=f" request type {command.code} not supported")
        return handler(conn, command)

    def finish(self, conn: Connection, deferred: list[Deferred]) -> Iterable[bytes]:
        raise AssertionError("the name server defers nothing")

    def opened(self, conn: Connection) -> None:
        pass

    def closed(self, conn: Connection) -> None:
        gone, notices = self.registry.link_lost(conn)
        for live in gone:
            log.info("broker %s at %s is gone: its connection ended", live.member.broker_name, live.member.address)
        self._tell(notices)

    # ------------------------------------------------------------------------------------------------- what waits
    async def _watch(self) -> None:
        """Remove brokers at the moment their silence lasted too long."""
        while True:
            self._sooner = trio.Event()
            expiry = self.registry.next_expiry()
            self._watching_until = math.inf if expiry is None else expiry
            with trio.move_on_at(self._watching_until):
                await self._sooner.wait()
            gone, notices = self.registry.expire(trio.current_time())
            for live in gone:
                log.warning("broker %s at %s was silent for %g s: removed", live.member.broker_name, live.member.address, live.timeout)
                if isinstance(live.link, Connection):
                    live.link.close_soon("no heartbeat")
            self._tell(notices)

    def _tell(self, notices: Iterable[Notice]) -> None:
        self._notices += notices
        if self._notices:
            self._notices_came.set()

    async def _tell_members(self) -> None:
        """Send request 905 to members of groups whose lowest id changed; nobody waits for it, and it may be lost."""
        async with trio.open_nursery() as nursery:
            client = RemotingClient(self._host, nursery)
            while True:
                await self._notices_came.wait()
                self._notices_came = trio.Event()
                notices, self._notices = self._notices, []
                for notice in notices:
                    fields = headers.NotifyMinBrokerIdChange(
                        min_broker_id=notice.min_broker_id, min_broker_addr=notice.min_broker_address,
                        offline_broker_addr=notice.offline_address, ha_broker_addr=notice.ha_address,
                    )  # fmt: skip
                    for address in notice.recipients:
                        nursery.start_soon(_notify, client, address, fields)

    async def _persist(self, path: str, content: Callable[[], bytes]) -> None:
        """Replace a file so that a crash leaves the old or the new content; the newest content wins."""
        disk = self._host.disk
        async with self._writing:
            disk.remove(path + ".tmp")
            data = content()
            file = disk.open(path + ".tmp")
            try:
                file.write_at(0, data)
                await file.sync()
            finally:
                file.close()
            disk.rename(path + ".tmp", path)
            await disk.sync_directory(path.rpartition("/")[0])

    def _after_persisting(self, command: Command, path: str, content: Callable[[], bytes]) -> Job:
        async def run() -> bytes:
            await self._persist(path, content)
            return encode_response(command, ResponseCode.SUCCESS)

        return Job(run)

    # -------------------------------------------------------------------------------------------- brokers' requests
    def _register(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.RegisterBroker)
        if header.body_crc32 and zlib.crc32(command.body) & 0x7FFFFFFF != header.body_crc32:
            return encode_response(command, ResponseCode.SYSTEM_ERROR, remark="crc32 not match")
        member = Member(header.cluster_name, header.broker_name, header.broker_id, header.broker_addr)
        timeout = header.heartbeat_timeout_millis
        now = trio.current_time()
        done = self.registry.register(
            member, _topics(command, bool(header.compressed)), now, link=conn, ha_address=header.ha_server_addr,
            timeout=None if timeout is None else timeout / 1000, acting_master=header.enable_acting_master,
            zone=command.ext.get("__ZONE_NAME"),
        )  # fmt: skip
        if done.refused is not None:
            return encode_response(command, ResponseCode.SYSTEM_ERROR, remark=done.refused)
        if done.notice is not None:
            self._tell([done.notice])
        expiry = now + (timeout if timeout is not None else self.config.broker_timeout_ms) / 1000
        if expiry < self._watching_until:
            self._sooner.set()
        fields = headers.RegisterBrokerResponse(ha_server_addr=done.ha_address, master_addr=done.master_address)
        order = self.kv.namespace(ORDER_TOPICS) if self.config.return_order_topic_config_to_broker else None
        body = encode_body(KVTable(order)) if order is not None else b""
        return encode_response(command, ResponseCode.SUCCESS, fields, body=body)

    def _unregister(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.UnregisterBroker)
        member = Member(header.cluster_name, header.broker_name, header.broker_id, header.broker_addr)
        self._tell(self.registry.unregister([member]))
        return _ok(command)

    def _data_version(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.QueryDataVersion)
        version = decode_body(command.body, DataVersion)
        member = Member(header.cluster_name, header.broker_name, header.broker_id, header.broker_addr)
        self.registry.heartbeat(header.cluster_name, header.broker_addr, trio.current_time())
        known = self.registry.known_version(header.cluster_name, header.broker_addr)
        answer = headers.QueryDataVersionResponse(changed=self.registry.version_changed(member, version))
        return encode_response(command, ResponseCode.SUCCESS, answer, body=encode_body(known) if known is not None else b"")

    def _heartbeat(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.BrokerHeartbeat)
        self.registry.heartbeat(header.cluster_name, header.broker_addr, trio.current_time())
        return _ok(command)

    def _member_group(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.GetBrokerMemberGroup)
        return _ok(command, encode_body(self.registry.member_group(header.cluster_name, header.broker_name)))

    def _register_topic(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.RegisterTopic)
        if command.body:
            unknown = self.registry.register_topic(header.topic, decode_body(command.body, TopicRouteData).queue_datas)
            if unknown:
                log.warning("topic %s was registered for brokers nobody knows: %s", header.topic, ", ".join(unknown))
        return _ok(command)

    # --------------------------------------------------------------------------------------------------- routes
    def _route(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.GetRouteInfo)
        if self.config.need_wait_for_service and trio.current_time() < self._ready_at:
            return encode_response(command, ResponseCode.SYSTEM_ERROR, remark="name server not ready")
        if header.zone_mode and header.zone_name:
            # Java's hook writes the old form here even for new clients, and every client reads it.
            route = self.registry.route(header.topic)
            body = encode_body(keep_zone(route, header.zone_name), quoted_keys=False) if route is not None else None
        else:
            standard = bool(header.accept_standard_json_only) or command.version >= STANDARD_JSON_VERSION
            body = self.registry.answer(header.topic, quoted_keys=standard)
        if body is None:
            remark = f"No topic route info in name server for the topic: {header.topic}\nSee {FAQ} for further details."
            return encode_response(command, ResponseCode.TOPIC_NOT_EXIST, remark=remark)
        return _ok(command, body)

    def _cluster_info(self, conn: Connection, command: Command) -> bytes:
        return _ok(command, encode_body(self.registry.cluster_info(), quoted_keys=command.version >= STANDARD_JSON_VERSION))

    def _list(
        self, enabled: Callable[[NamesrvConfig], bool], make: Callable[[Command], TopicList]
    ) -> Callable[[Connection, Command], bytes]:
        def handler(conn: Connection, command: Command) -> bytes:
            if not enabled(self.config):
                return encode_response(command, ResponseCode.SYSTEM_ERROR, remark="disable")
            return _ok(command, encode_body(make(command)))

        return handler

    # ------------------------------------------------------------------------------------------- administration
    def _wipe_write(self, conn: Connection, command: Command) -> bytes:
        name = command.header(headers.WipeWritePermOfBroker).broker_name
        count = self.registry.wipe_write_perm(name)
        log.info("write permission of %s wiped on %d topics by %s", name, count, conn.peer)
        return encode_response(command, ResponseCode.SUCCESS, headers.WipeWritePermOfBrokerResponse(wipe_topic_count=count))

    def _add_write(self, conn: Connection, command: Command) -> bytes:
        name = command.header(headers.AddWritePermOfBroker).broker_name
        count = self.registry.add_write_perm(name)
        log.info("write permission of %s given to %d topics by %s", name, count, conn.peer)
        return encode_response(command, ResponseCode.SUCCESS, headers.AddWritePermOfBrokerResponse(add_topic_count=count))

    def _delete_topic(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.DeleteTopicFromNamesrv)
        self.registry.delete_topic(header.topic, header.cluster_name or None)
        return _ok(command)

    def _put_kv(self, conn: Connection, command: Command) -> Job:
        header = command.header(headers.PutKVConfig)
        self.kv.put(header.namespace, header.key, header.value)
        return self._kv_changed(command, header.namespace, header.key)

    def _delete_kv(self, conn: Connection, command: Command) -> Job:
        header = command.header(headers.DeleteKVConfig)
        self.kv.delete(header.namespace, header.key)
        return self._kv_changed(command, header.namespace, header.key)

    def _kv_changed(self, command: Command, namespace: str, key: str) -> Job:
        if namespace == ORDER_TOPICS:
            self.registry.forget_answers([key])
        return self._after_persisting(command, self._kv_file, lambda: self.kv.to_json())

    def _get_kv(self, conn: Connection, command: Command) -> bytes:
        header = command.header(headers.GetKVConfig)
        value = self.kv.get(header.namespace, header.key)
        if value is None:
            remark = f"No config item, Namespace: {header.namespace} Key: {header.key}"
            return encode_response(command, ResponseCode.QUERY_NOT_FOUND, remark=remark)
        return encode_response(command, ResponseCode.SUCCESS, headers.GetKVConfigResponse(value=value))

    def _list_kv(self, conn: Connection, command: Command) -> bytes:
        namespace = command.header(headers.GetKVListByNamespace).namespace
        table = self.kv.namespace(namespace)
        if table is None:
            return encode_response(command, ResponseCode.QUERY_NOT_FOUND, remark=f"No config item, Namespace: {namespace}")
        return _ok(command, encode_body(KVTable(table)))

    def _get_config(self, conn: Connection, command: Command) -> bytes:
        return _ok(command, properties_text(self.config).encode())

    def _update_config(self, conn: Connection, command: Command) -> Answer:
        try:
            text = command.body.decode()
            after, done = changed(self.config, text, "UPDATE_NAMESRV_CONFIG")
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(f"the body is no UTF-8 text: {error.reason}", ResponseCode.INVALID_PARAMETER) from None
        except ConfigError as error:
            code = ResponseCode.NO_PERMISSION if isinstance(error, KeyBarred) else ResponseCode.INVALID_PARAMETER
            return encode_response(command, code, remark=str(error))
        self.config = self.registry.config = after
        self.registry.forget_answers()
        log.info("configuration changed by %s: %s", conn.peer, done)
        return self._after_persisting(command, self._config_file, lambda: properties_text(self.config).encode())

    def _table(self) -> dict[int, Callable[[Connection, Command], Answer]]:
        def topics(c: NamesrvConfig) -> bool:
            return c.enable_topic_list

        def all_topics(c: NamesrvConfig) -> bool:
            return c.enable_all_topic_list

        lists = self.registry
        return {
            RequestCode.PUT_KV_CONFIG: self._put_kv,
            RequestCode.GET_KV_CONFIG: self._get_kv,
            RequestCode.DELETE_KV_CONFIG: self._delete_kv,
            RequestCode.GET_KVLIST_BY_NAMESPACE: self._list_kv,
            RequestCode.REGISTER_BROKER: self._register,
            RequestCode.UNREGISTER_BROKER: self._unregister,
            RequestCode.QUERY_DATA_VERSION: self._data_version,
            RequestCode.BROKER_HEARTBEAT: self._heartbeat,
            RequestCode.GET_BROKER_MEMBER_GROUP: self._member_group,
            RequestCode.REGISTER_TOPIC_IN_NAMESRV: self._register_topic,
            RequestCode.GET_ROUTEINFO_BY_TOPIC: self._route,
            RequestCode.GET_BROKER_CLUSTER_INFO: self._cluster_info,
            RequestCode.WIPE_WRITE_PERM_OF_BROKER: self._wipe_write,
            RequestCode.ADD_WRITE_PERM_OF_BROKER: self._add_write,
            RequestCode.DELETE_TOPIC_IN_NAMESRV: self._delete_topic,
            RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER: self._list(all_topics, lambda _: lists.all_topics()),
            RequestCode.GET_TOPICS_BY_CLUSTER: self._list(
                topics, lambda c: lists.topics_of_cluster(c.header(headers.GetTopicsByCluster).cluster)
            ),
            RequestCode.GET_SYSTEM_TOPIC_LIST_FROM_NS: self._list(lambda _: True, lambda _: lists.system_topics()),
            RequestCode.GET_UNIT_TOPIC_LIST: self._list(topics, lambda _: lists.unit_topics()),
            RequestCode.GET_HAS_UNIT_SUB_TOPIC_LIST: self._list(topics, lambda _: lists.unit_subscribed_topics()),
            RequestCode.GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST: self._list(topics, lambda _: lists.unit_subscribed_topics(without_unit=True)),
            RequestCode.UPDATE_NAMESRV_CONFIG: self._update_config,
            RequestCode.GET_NAMESRV_CONFIG: self._get_config,
        }


def _ok(command: Command, body: bytes = b"") -> bytes:
    return encode_response(command, ResponseCode.SUCCESS, body=body)


def _topics(command: Command, compressed: bool) -> TopicConfigSerializeWrapper:
    """The topics of a registration. Some brokers deflate the body without saying so; its first byte tells."""
    if not command.body:
        return RegisterBrokerBody().topic_config_serialize_wrapper
    if command.version < REGISTER_BODY_VERSION:
        return decode_body(command.body, TopicConfigSerializeWrapper)
    deflated = compressed or command.body[:1] == ZLIB_MARK
    return decode_registration(command.body, compressed=deflated, version=command.version).topic_config_serialize_wrapper


async def _notify(client: RemotingClient, address: str, fields: headers.NotifyMinBrokerIdChange) -> None:
    with trio.move_on_after(NOTICE_TIMEOUT_S):
        try:
            await client.oneway(address, RequestCode.NOTIFY_MIN_BROKER_ID_CHANGE, fields)
        except TrmqError as error:
            log.info("broker at %s could not be told about its group: %s", address, error)


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _read(disk: Disk, path: str) -> bytes | None:
    if not disk.exists(path):
        return None
    file = disk.open_read(path)
    try:
        return bytes(file.read_at(0, file.size))
    finally:
        file.close()
