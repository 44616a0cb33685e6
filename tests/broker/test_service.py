"""The broker's life: registration, restart, crash, failing disk, orderly stop."""

from __future__ import annotations

import json

import pytest
import trio
from trio.testing import MockClock

from broker.harness import CONFIG, Client, bodies, running
from trmq.broker.service import Broker
from trmq.config import BrokerConfig, NamesrvConfig
from trmq.errors import ConfigError, ConnectionLost, DiskFailed
from trmq.remoting import RemotingClient
from trmq.route import NameServer
from trmq.sim.world import SimHost, World
from trmq.wire.bodies import TopicRouteData, decode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command


async def name_server(host: SimHost) -> None:
    await NameServer(host, NamesrvConfig(bind_address="0.0.0.0")).run()


async def route(client: RemotingClient, server: str, topic: str) -> Command:
    return await client.request(f"{server}:9876", RequestCode.GET_ROUTEINFO_BY_TOPIC, {"topic": topic})


async def test_every_name_server_knows_the_broker_and_new_topics_at_once(autojump_clock: MockClock) -> None:
    world = World(3)
    one, two = world.host("ns1", "10.0.0.8"), world.host("ns2", "10.0.0.9")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run, name_server)
        nursery.start_soon(two.run, name_server)
        async with running(world, namesrv_addr="10.0.0.8:9876;10.0.0.9:9876") as lab:
            asker = RemotingClient(world.host("asker"), nursery)
            await trio.sleep(1)
            for server in ("10.0.0.8", "10.0.0.9"):
                answer = await route(asker, server, "TBW102")
                data = decode_body(answer.body, TopicRouteData)
                assert data.broker_datas[0].broker_addrs == {0: "10.0.0.3:10911"}
                assert (await route(asker, server, "New")).code == ResponseCode.TOPIC_NOT_EXIST
            client = await lab.client()
            await client.send("New")
            await client.heartbeat("g")
            await trio.sleep(0.2)
            for server in ("10.0.0.8", "10.0.0.9"):
                assert (await route(asker, server, "New")).code == 0
                assert (await route(asker, server, "%RETRY%g")).code == 0
        await trio.sleep(1)
        assert (await route(asker, "10.0.0.8", "New")).code == ResponseCode.TOPIC_NOT_EXIST, "a clean stop says goodbye"
        nursery.cancel_scope.cancel()


async def test_a_name_server_that_comes_back_is_told_everything_soon(autojump_clock: MockClock) -> None:
    world = World(3)
    server = world.host("ns", "10.0.0.8")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, name_server)
        async with running(world, namesrv_addr="10.0.0.8:9876;10.0.0.77:9876") as lab:
            asker = RemotingClient(world.host("asker"), nursery)
            client = await lab.client()
            await client.send("T")
            await trio.sleep(12)
            server.crash("kill")
            await trio.sleep(20)
            nursery.start_soon(world.host("ns").run, name_server)
            await trio.sleep(6)
            assert (await route(asker, "10.0.0.8", "T")).code == 0
            good, bad = lab.broker.registration.statistics()
            assert good.registered
            assert not bad.registered
            assert bad.last_error
        nursery.cancel_scope.cancel()


async def test_everything_survives_a_clean_restart(autojump_clock: MockClock) -> None:
    world = World(5)
    async with running(world) as lab:
        client = await lab.client()
        await client.send("T", b"kept")
        await client.heartbeat("g")
        await client.ask(15, {"consumerGroup": "g", "topic": "T", "queueId": "0", "commitOffset": "1"})
    text = world.host("broker").disk.peek("config/topics.json")
    assert "T" in json.loads(bytes(text))["topicConfigTable"]
    async with running(world) as lab:
        assert lab.broker.store_service.report.how == "clean"
        assert lab.broker.offsets.query("g", "T", 0) == 1
        assert lab.broker.topics.table["T"].write_queue_nums == 4
        assert lab.broker.groups.get("g") is not None
        client = await lab.client("again")
        assert bodies(await client.pull()) == [b"kept"]


@pytest.mark.parametrize("how", ["kill", "power"])
async def test_a_sync_flushed_message_survives_a_crash(autojump_clock: MockClock, how: str) -> None:
    """Its topic too, even if topics.json was not written yet."""
    world = World(6)
    async with running(world, flush_disk_type="SYNC_FLUSH") as lab:
        client = await lab.client()
        assert (await client.send("T", b"acked", queue_id=3)).code == 0
        lab.world.host("broker").crash(how)  # type: ignore[arg-type]  # a literal
    async with running(world, flush_disk_type="SYNC_FLUSH") as lab:
        client = await lab.client("again")
        assert bodies(await client.pull(queue_id=3)) == [b"acked"]


async def test_offsets_are_written_every_five_seconds(autojump_clock: MockClock) -> None:
    world = World(6)
    async with running(world) as lab:
        client = await lab.client()
        await client.send("T")
        await client.heartbeat("g")
        await client.ask(15, {"consumerGroup": "g", "topic": "T", "queueId": "0", "commitOffset": "1"})
        await trio.sleep(6)
        world.host("broker").crash("power")
    async with running(world) as lab:
        assert lab.broker.offsets.query("g", "T", 0) == 1


async def test_a_failed_sync_stops_the_broker(autojump_clock: MockClock) -> None:
    world = World(6)
    host = world.host("broker")
    broker = Broker(host, BrokerConfig(**(CONFIG | {"flush_disk_type": "SYNC_FLUSH"})))
    async with trio.open_nursery() as nursery:
        failed = trio.Event()

        async def main(host: SimHost) -> None:
            with pytest.raises(DiskFailed):
                await broker.run()
            failed.set()

        nursery.start_soon(host.run, main)
        await trio.sleep(1)
        remoting = RemotingClient(world.host("client"), nursery)
        client = Client(await remoting.connection((host.ip, 10911)), [], "c")
        assert (await client.send("T")).code == 0
        host.disk.fail("sync", path="commitlog*")
        with pytest.raises(ConnectionLost):
            await client.send("T")
        with trio.fail_after(30):
            await failed.wait()
        nursery.cancel_scope.cancel()


async def test_a_free_port_is_named_in_message_ids(autojump_clock: MockClock) -> None:
    async with running(listen_port=0) as lab:
        client = await lab.client()
        answer = await client.send("T")
        assert bytes.fromhex(answer.ext["msgId"])[4:8] == lab.broker.address[1].to_bytes(4, "big")


@pytest.mark.parametrize("change", [{"broker_role": "SLAVE"}, {"broker_role": "SYNC_MASTER", "broker_id": 2}, {"broker_id": 1}])
def test_a_role_and_an_id_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"needs .*brokerId"):
        Broker(World(1).host("broker"), BrokerConfig(**(CONFIG | change)))


async def test_a_thousand_held_pulls_cost_nothing_while_nothing_comes(autojump_clock: MockClock) -> None:
    """Counted in what the driver does, not in time: it wakes for deadlines and arrivals only."""
    async with running() as lab, trio.open_nursery() as nursery:
        client = await lab.client()
        await client.send("T")
        looked = 0
        holds = lab.broker.holds
        real = holds._look

        def counting(hold: object) -> bool:
            nonlocal looked
            looked += 1
            return real(hold)  # type: ignore[arg-type]  # a hold

        holds._look = counting
        for i in range(250):
            for queue in range(4):
                offset = 1 if queue == 0 else 0
                group = f"g{i}"
                nursery.start_soon(lambda q=queue, o=offset, g=group: client.pull(queue_id=q, offset=o, consumer_group=g, sys_flag=6))
        await trio.sleep(1)
        assert len(holds.holds) == 1000
        await client.send("U")
        await trio.sleep(1)
        assert looked == 0
        await client.send("T", queue_id=1)
        await trio.sleep(1)
        assert looked == 250
        assert len(holds.holds) == 750
