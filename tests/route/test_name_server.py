"""A name server and its clients over the remoting protocol, in simulated time and without a socket."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import msgspec
import pytest
import trio
import trio.testing

from trmq.config import NamesrvConfig
from trmq.errors import ConfigError
from trmq.host import Address
from trmq.remoting import Answer, Connection, Limits, RemotingClient, serve_remoting
from trmq.route import NameServer
from trmq.sim.world import World
from trmq.wire.bodies import DataVersion, KVTable, RegisterBrokerBody, TopicConfig, TopicConfigSerializeWrapper, decode_body, encode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_request
from trmq.wire.registration import encode_registration

FULL = {"clusterName": "C", "brokerName": "b", "brokerAddr": "10.0.0.2:10911", "haServerAddr": "10.0.0.2:10912", "brokerId": "0"}


def registration(*names: str, counter: int = 1) -> RegisterBrokerBody:
    table = {n: TopicConfig(n, 4, 4) for n in names}
    return RegisterBrokerBody(topic_config_serialize_wrapper=TopicConfigSerializeWrapper(DataVersion(counter), topic_config_table=table))


BODY = encode_body(registration("T", "U"))


@attrs.define
class Lab:
    world: World
    nursery: trio.Nursery
    server: NameServer
    address: Address
    client: RemotingClient

    async def ask(self, code: int, fields: dict[str, str] | None = None, body: bytes = b"") -> Command:
        return await self.client.request(self.address, code, fields, body)

    async def routed(self, topic: str) -> bool:
        return (await self.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": topic})).code == ResponseCode.SUCCESS


@asynccontextmanager
async def lab(config: NamesrvConfig | None = None, world: World | None = None) -> AsyncIterator[Lab]:
    world = world or World(0)
    host = world.host("names", "10.0.0.1")
    async with trio.open_nursery() as nursery:
        server = NameServer(host, attrs.evolve(config or NamesrvConfig(), bind_address="10.0.0.1"))
        address = await nursery.start(server.run)
        client = RemotingClient(world.host("b", "10.0.0.2"), nursery)
        yield Lab(world, nursery, server, address, client)
        nursery.cancel_scope.cancel()


async def test_a_broker_registers_and_a_client_finds_it(autojump_clock: trio.testing.MockClock) -> None:
    async with lab() as at:
        assert (await at.ask(RequestCode.REGISTER_BROKER, FULL, BODY)).code == ResponseCode.SUCCESS
        answer = await at.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "T"})
        route = json.loads(answer.body)
        assert route["brokerDatas"][0]["brokerAddrs"] == {"0": "10.0.0.2:10911"}
        assert route["queueDatas"] == [{"brokerName": "b", "perm": 6, "readQueueNums": 4, "topicSysFlag": 0, "writeQueueNums": 4}]
        missing = await at.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "X"})
        assert missing.code == ResponseCode.TOPIC_NOT_EXIST
        assert "No topic route info in name server for the topic: X" in str(missing.remark)
        slave = await at.ask(RequestCode.REGISTER_BROKER, FULL | {"brokerId": "1", "brokerAddr": "10.0.0.3:10911"}, BODY)
        assert slave.ext == {"masterAddr": "10.0.0.2:10911", "haServerAddr": "10.0.0.2:10912"}
        members = await at.ask(RequestCode.GET_BROKER_MEMBER_GROUP, {"clusterName": "C", "brokerName": "b"})
        assert b'"10.0.0.3:10911"' in members.body
        assert (await at.ask(RequestCode.UNREGISTER_BROKER, FULL)).code == ResponseCode.SUCCESS
        assert (await at.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "T"})).body.count(b"10911") == 1


@pytest.mark.parametrize(("version", "standard", "key"), [(400, None, b"{0:"), (401, None, b'{"0":'), (317, "true", b'{"0":')])
async def test_the_json_form_follows_version_and_wish(version: int, standard: str | None, key: bytes) -> None:
    async with lab() as at:
        await at.ask(RequestCode.REGISTER_BROKER, FULL, BODY)
        stream = await at.world.host("old", "10.0.0.9").connect(at.address)
        fields = {"topic": "T"} | ({"acceptStandardJsonOnly": standard} if standard else {})
        await stream.send_all(encode_request(RequestCode.GET_ROUTEINFO_BY_TOPIC, 7, fields, version=version))
        answer = await stream.receive_some()
        assert key in answer
        assert b": " not in answer
        await stream.aclose()


async def test_zone_of_the_request() -> None:
    async with lab() as at:
        await at.ask(RequestCode.REGISTER_BROKER, FULL | {"__ZONE_NAME": "z1"}, BODY)
        for zone, code in (("Z1", b'"b"'), ("z2", b'"brokerDatas":[]')):
            fields = {"topic": "T", "__ZONE_NAME": zone, "__ZONE_MODE": "true"}
            assert code in (await at.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, fields)).body


async def test_silence_removes_a_broker_at_its_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with lab() as at:
        await at.ask(RequestCode.REGISTER_BROKER, FULL | {"heartbeatTimeoutMillis": "10000"}, BODY)
        start = trio.current_time()
        await trio.sleep(9)
        beat = {"clusterName": "C", "brokerName": "b", "brokerAddr": "10.0.0.2:10911"}
        assert (await at.ask(RequestCode.BROKER_HEARTBEAT, beat)).code == ResponseCode.SUCCESS
        await trio.sleep_until(start + 18.9)
        version = await at.ask(RequestCode.QUERY_DATA_VERSION, FULL, encode_body(DataVersion(2)))
        assert version.ext == {"changed": "true"}
        assert decode_body(version.body, DataVersion) == DataVersion(1)
        await trio.sleep_until(start + 28.8)
        assert await at.routed("T")
        await trio.sleep_until(start + 28.95)
        assert not await at.routed("T")


async def test_the_end_of_its_connection_removes_a_broker() -> None:
    async with lab() as at:
        await at.ask(RequestCode.REGISTER_BROKER, FULL, BODY)
        other = RemotingClient(at.world.host("c", "10.0.0.3"), at.nursery)
        await other.request(at.address, RequestCode.REGISTER_BROKER, FULL | {"brokerName": "c", "brokerAddr": "10.0.0.3:1"}, BODY)
        await at.client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert list(at.server.registry.cluster_info().broker_addr_table) == ["c"]


@pytest.mark.parametrize("form", ["crc", "compressed", "deflated in silence", "empty"])
async def test_forms_of_a_registration(form: str) -> None:
    fields, body = dict(FULL), BODY
    if form == "crc":
        fields["bodyCrc32"] = str(zlib.crc32(BODY) & 0x7FFFFFFF)
    elif form == "empty":
        body = b""
    else:
        body = encode_registration(registration("T", "U"), compressed=True)
        fields["compressed"] = str(form == "compressed").lower()
    async with lab() as at:
        assert (await at.ask(RequestCode.REGISTER_BROKER, fields, body)).code == ResponseCode.SUCCESS
        assert await at.routed("T") == (form != "empty")


@pytest.mark.parametrize(
    ("fields", "body", "says"),
    [
        (FULL | {"bodyCrc32": "1"}, BODY, "crc32 not match"),
        (FULL, encode_body(registration("T")), "register broker failed"),
        (FULL, b"{]", "malformed"),
        (FULL, b'{"topicConfigSerializeWrapper":1}', "RegisterBrokerBody"),
        (FULL, b"\x78\x9c!", "compressed registration body"),
        (FULL | {"brokerId": "one"}, BODY, "brokerId"),
        ({k: v for k, v in FULL.items() if k != "clusterName"}, BODY, "clusterName"),
    ],
)
async def test_a_bad_registration_is_answered_clearly_and_changes_nothing(fields: dict[str, str], body: bytes, says: str) -> None:
    async with lab() as at:
        answer = await at.ask(RequestCode.REGISTER_BROKER, fields, body)
        assert answer.code != ResponseCode.SUCCESS
        assert says in str(answer.remark)
        assert at.server.registry.statistics().broker_names == 0
        unknown = await at.ask(4711)
        assert (unknown.code, unknown.remark) == (ResponseCode.REQUEST_CODE_NOT_SUPPORTED, " request type 4711 not supported")


async def test_kv_configuration_survives_a_restart_and_reaches_brokers() -> None:
    world = World(0)
    kv = {"namespace": "ORDER_TOPIC_CONFIG", "key": "T", "value": "b:4"}
    async with lab(NamesrvConfig(order_message_enable=True), world) as at:
        await at.ask(RequestCode.REGISTER_BROKER, FULL, BODY)
        assert b"orderTopicConf" not in (await at.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "T"})).body
        assert (await at.ask(RequestCode.PUT_KV_CONFIG, kv)).code == ResponseCode.SUCCESS
        assert b'"orderTopicConf":"b:4"' in (await at.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "T"})).body
        await at.ask(RequestCode.PUT_KV_CONFIG, {"namespace": "N", "key": "k", "value": "v"})
        await at.ask(RequestCode.DELETE_KV_CONFIG, {"namespace": "N", "key": "k"})
        world.host("names").crash("power")
    async with lab(world=world) as at:
        found = await at.ask(RequestCode.GET_KV_CONFIG, {"namespace": "ORDER_TOPIC_CONFIG", "key": "T"})
        assert found.ext == {"value": "b:4"}
        gone = await at.ask(RequestCode.GET_KV_CONFIG, {"namespace": "N", "key": "k"})
        assert (gone.code, gone.remark) == (ResponseCode.QUERY_NOT_FOUND, "No config item, Namespace: N Key: k")
        table = await at.ask(RequestCode.GET_KVLIST_BY_NAMESPACE, {"namespace": "ORDER_TOPIC_CONFIG"})
        assert decode_body(table.body, KVTable).table == {"T": "b:4"}
        registered = await at.ask(RequestCode.REGISTER_BROKER, FULL, BODY)
        assert decode_body(registered.body, KVTable).table == {"T": "b:4"}


@pytest.mark.parametrize("content", [b'{"configTable":[1]}', b'{"configTable":{"N":{"k"', b"", b"\xff"])
async def test_a_damaged_kv_file_is_named(content: bytes) -> None:
    host = World(0).host("names")
    host.disk.open("kvConfig.json").write_at(0, content)
    with pytest.raises(ConfigError, match=r"kvConfig\.json is damaged.*repair it, or remove it"):
        await NameServer(host, NamesrvConfig(listen_port=0)).run()


async def test_configuration_by_admin_command() -> None:
    async with lab() as at:
        assert (await at.ask(RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER)).code == ResponseCode.SUCCESS
        assert (await at.ask(RequestCode.UPDATE_NAMESRV_CONFIG, body=b"enableAllTopicList=false\n")).code == ResponseCode.SUCCESS
        assert b"enableAllTopicList=false" in (await at.ask(RequestCode.GET_NAMESRV_CONFIG)).body
        refused = await at.ask(RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER)
        assert (refused.code, refused.remark) == (ResponseCode.SYSTEM_ERROR, "disable")
        barred = await at.ask(RequestCode.UPDATE_NAMESRV_CONFIG, body=b"kvConfigPath=/etc/passwd")
        assert barred.code == ResponseCode.NO_PERMISSION
        wrong = await at.ask(RequestCode.UPDATE_NAMESRV_CONFIG, body=b"enableTopicList=perhaps")
        assert "true or false" in str(wrong.remark)
        assert (await at.ask(RequestCode.UPDATE_NAMESRV_CONFIG, body=b"\xff")).code == ResponseCode.INVALID_PARAMETER


async def test_not_ready_for_a_while_after_the_start(autojump_clock: trio.testing.MockClock) -> None:
    async with lab(NamesrvConfig(need_wait_for_service=True)) as at:
        early = await at.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "T"})
        assert (early.code, early.remark) == (ResponseCode.SYSTEM_ERROR, "name server not ready")
        await trio.sleep(45)
        assert (await at.ask(RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": "T"})).code == ResponseCode.TOPIC_NOT_EXIST


class Told:
    """A broker's ear: remembers the notices it gets."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def handle(self, conn: Connection, command: Command) -> Answer:
        self.commands.append(command)
        return None

    def finish(self, conn: Connection, deferred: list[object]) -> list[bytes]:
        return []

    def opened(self, conn: Connection) -> None: ...
    def closed(self, conn: Connection) -> None: ...


async def test_members_are_told_of_a_new_lowest_id(autojump_clock: trio.testing.MockClock) -> None:
    async with lab(NamesrvConfig(notify_min_broker_id_changed=True)) as at:
        told = Told()
        slave = FULL | {"brokerId": "1", "brokerAddr": "10.0.0.3:1"}
        await at.nursery.start(serve_remoting, at.world.host("c", "10.0.0.3"), told, ("10.0.0.3", 1), Limits())
        await at.ask(RequestCode.REGISTER_BROKER, FULL, BODY)
        await at.ask(RequestCode.REGISTER_BROKER, slave, BODY)
        await at.ask(RequestCode.UNREGISTER_BROKER, FULL)
        await trio.sleep(1)
        assert [c.code for c in told.commands] == [RequestCode.NOTIFY_MIN_BROKER_ID_CHANGE]
        assert told.commands[0].is_oneway
        assert told.commands[0].ext == {"minBrokerId": "1", "minBrokerAddr": "10.0.0.3:1", "offlineBrokerAddr": "10.0.0.2:10911"}
        await at.ask(RequestCode.REGISTER_BROKER, slave | {"brokerId": "2", "brokerAddr": "nonsense"}, BODY)
        await at.ask(RequestCode.UNREGISTER_BROKER, slave)
        assert not msgspec.json.decode((await at.ask(RequestCode.GET_BROKER_CLUSTER_INFO)).body)["brokerAddrTable"].get("c")
