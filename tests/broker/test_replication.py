"""A master and its slaves as two brokers in a simulated world: what is answered when, what a slave serves, copies and refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from broker.harness import Client, bodies, numbers
from client.lab import Lab, running
from trmq.broker.service import Broker
from trmq.errors import ConfigError
from trmq.remoting import RemotingClient
from trmq.replica.transfer import encode_report
from trmq.wire.bodies import HARuntimeInfo, KVTable, decode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command
from trmq.wire.headers import CreateTopic
from trmq.wire.headers.pull import QueryConsumerOffset, UpdateConsumerOffset
from trmq.wire.headers.replica import Join

OK, NO_SLAVE, LATE = ResponseCode.SUCCESS, ResponseCode.SLAVE_NOT_AVAILABLE, ResponseCode.FLUSH_SLAVE_TIMEOUT


class Pair:
    """A lab with broker "a": its master on host "broker-a", slaves on "broker-a1", "broker-a2"."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    async def master(self, **config: Any) -> Broker:
        return await self.lab.start_broker("a", **({"broker_role": "SYNC_MASTER"} | config))

    async def slave(self, number: int = 1, **config: Any) -> Broker:
        return await self.lab.start_broker(f"a{number}", **({"broker_name": "a", "broker_role": "SLAVE", "broker_id": number} | config))

    async def client(self, host: str = "a", name: str = "client") -> Client:
        told: list[Command] = []

        def on_request(conn: object, command: Command) -> None:
            told.append(command)

        remoting = RemotingClient(self.lab.world.host(name), self.lab.nursery, on_request=on_request)
        broker = self.lab.brokers[host]
        return Client(await remoting.connection((self.lab.world.host(f"broker-{host}").ip, broker.address[1])), told, name)


@asynccontextmanager
async def pair(*, slaves: int = 1, slave: dict[str, Any] | None = None, **config: Any) -> AsyncIterator[Pair]:
    async with running("other") as lab:
        made = Pair(lab)
        await made.master(**config)
        for number in range(1, slaves + 1):
            await made.slave(number, **(slave or {}))
        yield made


def put(client: Client, body: bytes = b"x", **properties: str) -> Any:
    return client.send("T", body, properties)


# --- acks


async def test_an_answer_waits_for_the_slave_and_says_ok(autojump_clock: MockClock) -> None:
    async with pair() as two:
        client, slave = await two.client(), two.lab.brokers["a1"]
        answer = await put(client, b"first")
        assert answer.code == OK
        assert slave.store.max_phy == two.lab.brokers["a"].store.max_phy > 0


async def test_without_a_slave_it_is_stored_and_said_at_once(autojump_clock: MockClock) -> None:
    async with pair(slaves=0) as two:
        client, began = await two.client(), trio.current_time()
        answer = await put(client, b"alone")
        assert answer.code == NO_SLAVE
        assert answer.ext["queueOffset"] == "0"
        assert trio.current_time() - began < 0.1
        assert bodies(await client.pull("T")) == [b"alone"]


@pytest.mark.parametrize("flush", ["ASYNC_FLUSH", "SYNC_FLUSH"])
async def test_a_slave_that_is_cut_off_costs_slave_timeout_and_nothing_else(flush: str, autojump_clock: MockClock) -> None:
    async with pair(flush_disk_type=flush) as two:
        client = await two.client()
        assert (await put(client)).code == OK
        two.lab.world.net.cut("broker-a", "broker-a1")
        began = trio.current_time()
        answers: list[Command] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: collect(answers, put(client)))
            nursery.start_soon(lambda: collect(answers, put(client, WAIT="false")))
        assert sorted(answer.code for answer in answers) == [OK, LATE, LATE, LATE]
        assert 3.0 <= trio.current_time() - began < 3.2
        two.lab.world.net.heal("broker-a", "broker-a1")
        await trio.sleep(5)
        assert (await put(client)).code == OK
        assert len(bodies(await client.pull("T"))) == 6


async def collect(answers: list[Command], asked: Any) -> None:
    answers.append(await asked)


async def test_two_holders_more_need_two_slaves(autojump_clock: MockClock) -> None:
    async with pair(slaves=2, in_sync_replicas="3") as two:
        client = await two.client()
        assert (await put(client)).code == OK
        two.lab.world.net.cut("broker-a", "broker-a2")
        assert (await put(client)).code == LATE
        assert two.lab.brokers["a1"].store.max_phy == two.lab.brokers["a"].store.max_phy, "the other slave has it"


async def test_all_means_every_registered_slave(autojump_clock: MockClock) -> None:
    async with pair(slaves=2, in_sync_replicas="all") as two:
        client = await two.client()
        assert (await put(client)).code == OK
        two.lab.world.net.cut("broker-a", "broker-a2")
        assert (await put(client)).code == LATE
        await trio.sleep(25)  # its connection is given up, but the name server still knows it
        assert (await put(client)).code == LATE
        two.lab.world.host("broker-a2").crash("kill")
        two.lab.world.net.heal("broker-a", "broker-a2")
        await trio.sleep(40)
        assert (await put(client)).code == OK, "one that is registered no more does not count"


async def test_one_holder_waits_for_nobody(autojump_clock: MockClock) -> None:
    async with pair(slaves=0, in_sync_replicas="1") as two:
        assert (await put(await two.client())).code == OK


async def test_below_the_minimum_nothing_is_stored(autojump_clock: MockClock) -> None:
    async with pair(min_in_sync_replicas=2) as two:
        client, master = await two.client(), two.lab.brokers["a"]
        assert (await put(client)).code == OK
        two.lab.world.host("broker-a1").crash("kill")
        await trio.sleep(0.5)
        end = master.store.max_phy
        for answer in (await put(client), await put(client, DELAY="1"), await client.send("T", b"", code=320, batch=True)):
            assert answer.code == ResponseCode.SYSTEM_ERROR
            assert "IN_SYNC_REPLICAS_NOT_ENOUGH: 1 copies are in sync, minInSyncReplicas=2" in (answer.remark or "")
        assert master.store.max_phy == end
        assert (await put(client, WAIT="false")).code == OK, "who does not wait is not refused"


async def test_fewer_holders_are_asked_for_when_that_is_wanted_but_never_less_than_the_minimum(autojump_clock: MockClock) -> None:
    async with pair(slaves=0, enable_auto_in_sync_replicas=True) as two:
        assert (await put(await two.client())).code == OK
    async with pair(slaves=1, enable_auto_in_sync_replicas=True, in_sync_replicas="3", min_in_sync_replicas=2) as two:
        client = await two.client()
        assert (await put(client)).code == OK
        two.lab.world.net.cut("broker-a", "broker-a1")
        assert (await put(client)).code == LATE


async def test_a_slave_with_sync_flush_reports_only_what_is_durable(autojump_clock: MockClock) -> None:
    async with pair(slave={"flush_disk_type": "SYNC_FLUSH"}) as two:
        client, slave = await two.client(), two.lab.brokers["a1"]
        assert (await put(client)).code == OK
        assert slave.store.flushed == slave.store.max_phy
        slave.host.disk.latency = lambda op, path: 4.0 if op == "sync" and path.startswith("commitlog") else 0.0  # type: ignore[attr-defined]
        assert (await put(client)).code == LATE
        assert slave.store.max_phy == two.lab.brokers["a"].store.max_phy > slave.store.flushed


# --- peers that cannot be right


@pytest.mark.parametrize("words", [
    [1 << 40], [-5], [0, 1 << 40], [0, 100, 50],
])  # fmt: skip
async def test_a_peer_that_cannot_be_right_is_dropped_and_never_counts(words: list[int], autojump_clock: MockClock) -> None:
    async with pair(slaves=0) as two:
        client, master = await two.client(), two.lab.brokers["a"]
        assert (await put(client)).code == NO_SLAVE
        stranger = await two.lab.world.host("stranger").connect((two.lab.world.host("broker-a").ip, master.registration.ha_port))
        with trio.fail_after(5):
            for word in words:
                await stranger.send_all(word.to_bytes(8, "big", signed=True) if word < 0 else encode_report(word))
                await trio.sleep(0.1)
            while await stranger.receive_some(1000):
                pass
        assert master.replication.master is not None
        assert master.replication.master.refused == 1
        assert master.replication.master.last_refusal.startswith("HA peer 10.")
        assert (await put(client)).code == NO_SLAVE


async def test_a_stranger_that_copies_like_apache_counts_once_however_often_it_connects(autojump_clock: MockClock) -> None:
    async with pair(slaves=0, in_sync_replicas="3") as two:
        client, master = await two.client(), two.lab.brokers["a"]
        await put(client)
        host, address = two.lab.world.host("stranger"), (two.lab.world.host("broker-a").ip, master.registration.ha_port)
        streams = [await host.connect(address) for _ in range(3)]
        for stream in streams:
            await stream.send_all(encode_report(master.store.max_phy))

        async def follow(stream: Any) -> None:
            while await stream.receive_some(10_000):
                await stream.send_all(encode_report(master.store.max_phy))

        for stream in streams:
            two.lab.nursery.start_soon(follow, stream)
        await trio.sleep(0.1)
        assert (await put(client)).code == LATE


JOIN = {
    "cluster_name": "C", "broker_name": "a", "broker_id": 1, "broker_addr": "10.9.9.9:1", "store_id": "other", "segment_size": 1 << 20,
    "min_offset": 0, "max_offset": 0,
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), [
    ({}, "brokerId=1 is held by the slave at 10.0.0.4:10911"),
    ({"cluster_name": "D"}, "its brokerClusterName is D, this master's C: set brokerClusterName=C"),
    ({"broker_name": "b"}, "its brokerName is b, this master's a"),
    ({"broker_id": 0}, "a slave needs a brokerId above 0"),
    ({"broker_id": 2, "segment_size": 4096}, "mappedFileSizeCommitLog is 4096, this master's 1048576"),
    ({"broker_id": 2, "max_offset": 10, "tail_size": 1 << 30}, "tail of 1073741824 bytes"),
])  # fmt: skip
async def test_who_must_not_follow_is_told_why(change: dict[str, Any], sentence: str, autojump_clock: MockClock) -> None:
    async with pair() as two:
        client = await two.client()
        answer = await client.ask(RequestCode.TRMQ_JOIN, Join(**(JOIN | change)))
        assert answer.code == ResponseCode.NO_PERMISSION
        assert sentence in (answer.remark or "")
        assert (await put(client)).code == OK, "the one that is there goes on"


async def test_a_second_broker_in_a_place_that_is_taken_does_not_start(autojump_clock: MockClock) -> None:
    async with pair() as two:
        for role, number, what in (("SYNC_MASTER", 0, "master"), ("SLAVE", 1, "slave")):
            host = two.lab.world.host(f"second-{what}")
            config = attrs.evolve(two.lab.brokers["a"].config, broker_role=role, broker_id=number, broker_ip1=host.ip, broker_ip2=host.ip)
            with pytest.raises(ConfigError, match=rf"already has a {what} with brokerId={number} at 10\.0\.0\.\d:10911"):
                await Broker(host, config).run()


async def test_a_slave_that_knows_an_ha_address_only_is_looked_at_all_the_same(autojump_clock: MockClock) -> None:
    """Without a name server the master is asked at the port below, where it listens unless configured otherwise."""
    async with pair(slaves=0) as two:
        ha = f"{two.lab.world.host('broker-a').ip}:10912"
        await two.slave(1, namesrv_addr="", ha_master_address=ha)
        client = await two.client()
        assert (await put(client)).code == OK
        await trio.sleep(0.2)
        assert "T" in two.lab.brokers["a1"].topics.table
        wrong = await two.slave(2, namesrv_addr="", ha_master_address=ha, broker_name="b")
        assert wrong.replication.following is not None
        assert "its brokerName is b, this master's a" in wrong.replication.following.slave.problem
        assert wrong.store.max_phy == 0


# --- what a slave does


async def test_a_slave_serves_pulls_and_refuses_everything_that_writes(autojump_clock: MockClock) -> None:
    async with pair() as two:
        client, reader = await two.client(), await two.client("a1")
        for number in range(5):
            await put(client, b"%d" % number)
        answer = await reader.pull("T")
        assert bodies(answer) == [b"%d" % n for n in range(5)]
        assert numbers(answer) == (0, 5, 0, 5), "the master is suggested"
        end = two.lab.brokers["a1"].store.max_phy
        for code in (10, 310, 320):
            assert (await reader.send("T", b"no", code=code)).code == ResponseCode.SERVICE_NOT_AVAILABLE
        back = {"offset": "0", "group": "g", "delayLevel": "0"}
        refused = await reader.ask(RequestCode.CONSUMER_SEND_MSG_BACK, back)
        assert (refused.code, refused.remark) == (ResponseCode.SYSTEM_ERROR, "no master available along with 10.0.0.4")
        topic = CreateTopic("new", "TBW102", 4, 4, 6, "SINGLE_TAG", False, 0)
        assert (await reader.ask(RequestCode.UPDATE_AND_CREATE_TOPIC, topic)).code == ResponseCode.NO_PERMISSION
        assert two.lab.brokers["a1"].store.max_phy == end


async def test_a_slave_told_not_to_serves_no_pulls(autojump_clock: MockClock) -> None:
    async with pair(slave={"slave_read_enable": False}) as two:
        await put(await two.client())
        answer = await (await two.client("a1")).pull("T")
        assert answer.code == ResponseCode.SYSTEM_BUSY
        assert "slaveReadEnable=false" in (answer.remark or "")


async def test_a_slave_moves_nobodys_offset(autojump_clock: MockClock) -> None:
    async with pair() as two:
        await put(await two.client(), b"one")
        reader = await two.client("a1")
        began = trio.current_time()
        answer = await reader.pull("T", 77, sys_flag=6)
        assert (answer.code, numbers(answer)[:2]) == (ResponseCode.PULL_RETRY_IMMEDIATELY, (0, 77))
        assert 0.9 < trio.current_time() - began < 1.2, "not at once, so that nobody asks in a circle"
        two.lab.crash("a")
        await trio.sleep(1)
        answer = await reader.pull("T", 77, sys_flag=6)
        assert (answer.code, numbers(answer)[1]) == (ResponseCode.PULL_NOT_FOUND, 77)
        assert trio.current_time() - began > 15, "held: the master may come back"


async def test_a_consumer_far_behind_is_sent_to_the_slave_and_back(autojump_clock: MockClock) -> None:
    async with pair() as two:
        client, reader = await two.client(), await two.client("a1")
        for broker in (two.lab.brokers["a"], two.lab.brokers["a1"]):
            broker.memory_reach = 3000
        for _ in range(20):
            await put(client, bytes(300))
        assert numbers(await client.pull("T", 0, max_msg_nums=3)) == (1, 3, 0, 20)
        assert numbers(await reader.pull("T", 3, max_msg_nums=3)) == (1, 6, 0, 20)
        assert numbers(await reader.pull("T", 6, max_msg_nums=12)) == (1, 14, 0, 20), "what is on disk comes in parts of 8"
        assert numbers(await reader.pull("T", 14, max_msg_nums=4)) == (0, 18, 0, 20)
        two.lab.world.host("broker-a1").crash("kill")
        await trio.sleep(1)
        assert numbers(await client.pull("T", 0, max_msg_nums=3))[0] == 0, "nobody is sent to a slave that is gone"


# --- tables


async def test_topics_groups_and_offsets_come_at_once(autojump_clock: MockClock) -> None:
    async with pair() as two:
        client, slave = await two.client(), two.lab.brokers["a1"]
        topic = CreateTopic("orders", "TBW102", 3, 3, 6, "SINGLE_TAG", False, 0)
        assert (await client.ask(RequestCode.UPDATE_AND_CREATE_TOPIC, topic)).code == OK
        await client.heartbeat("billing", {"orders": "*"})
        await trio.sleep(0.1)
        assert slave.topics.table["orders"].read_queue_nums == 3
        assert "billing" in slave.groups.table
        await client.ask(RequestCode.UPDATE_CONSUMER_OFFSET, UpdateConsumerOffset("billing", "orders", 1, 42))
        await trio.sleep(6)
        assert slave.offsets.query("billing", "orders", 1) == 42


async def test_no_reader_ever_sees_a_table_without_topics(autojump_clock: MockClock) -> None:
    async with pair() as two:
        client, slave = await two.client(), two.lab.brokers["a1"]
        await put(client)
        await trio.sleep(0.5)
        seen: set[bool] = set()

        async def watch() -> None:
            while True:
                seen.add("T" in slave.topics.table and "SELF_TEST_TOPIC" in slave.topics.table)
                await trio.lowlevel.checkpoint()
                await trio.sleep(0.0005)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for number in range(20):
                await client.ask(RequestCode.UPDATE_AND_CREATE_TOPIC, CreateTopic(f"t{number}", "TBW102", 1, 1, 6, "SINGLE_TAG", False, 0))
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
        assert "t19" in slave.topics.table
        assert seen == {True}


async def test_what_clients_committed_to_the_slave_is_handed_back(autojump_clock: MockClock) -> None:
    async with pair() as two:
        client = await two.client()
        for _ in range(9):
            await put(client)
        await client.heartbeat("g", {"T": "*"})
        await client.ask(RequestCode.UPDATE_CONSUMER_OFFSET, UpdateConsumerOffset("g", "T", 0, 4))
        await trio.sleep(11)
        two.lab.crash("a")
        reader = await two.client("a1")
        assert (await reader.ask(RequestCode.QUERY_CONSUMER_OFFSET, QueryConsumerOffset("g", "T", 0))).ext["offset"] == "4"
        assert (await reader.ask(RequestCode.UPDATE_CONSUMER_OFFSET, UpdateConsumerOffset("g", "T", 0, 7))).code == OK
        await two.master()
        await trio.sleep(3)
        assert two.lab.brokers["a"].offsets.query("g", "T", 0) == 7
        assert two.lab.brokers["a1"].offsets.query("g", "T", 0) == 7
        client = await two.client()
        await client.heartbeat("g", {"T": "*"})
        await client.ask(RequestCode.UPDATE_CONSUMER_OFFSET, UpdateConsumerOffset("g", "T", 0, 2))
        await trio.sleep(11)
        assert two.lab.brokers["a1"].offsets.query("g", "T", 0) == 2, "who is set back at the master is set back"


async def test_offsets_wait_for_the_log(autojump_clock: MockClock) -> None:
    """A slave whose log is behind must not know offsets of messages that it does not have (apache/rocketmq #4771)."""
    async with pair(broker_role="ASYNC_MASTER") as two:
        client, slave = await two.client(), two.lab.brokers["a1"]
        await client.heartbeat("g", {"T": "*"})
        await put(client)
        await trio.sleep(1)
        two.lab.world.net.delay = lambda source, target, dice: 0.0
        assert slave.replication.following is not None
        slave.replication.following.follower.append = lambda offset, records: slave.store.max_phy  # type: ignore[method-assign]  # it hangs
        for _ in range(5):
            await put(client)
        await client.ask(RequestCode.UPDATE_CONSUMER_OFFSET, UpdateConsumerOffset("g", "T", 0, 6))
        await trio.sleep(9)
        assert slave.offsets.query("g", "T", 0) is None


# --- switching by hand


async def test_an_old_master_follows_the_new_one_and_keeps_its_tail(autojump_clock: MockClock) -> None:
    async with pair() as two:
        client = await two.client()
        for number in range(5):
            assert (await put(client, b"both%d" % number)).code == OK
        two.lab.world.host("broker-a1").crash("kill")
        await trio.sleep(1)
        common = two.lab.brokers["a"].store.max_phy
        for number in range(3):
            assert (await put(client, b"lost%d" % number)).code == NO_SLAVE
        end = two.lab.brokers["a"].store.max_phy
        two.lab.crash("a")
        await two.slave(1, broker_role="SYNC_MASTER", broker_id=0)
        client = await two.client("a1")
        for number in range(8):
            assert (await put(client, b"new%d" % number)).code == NO_SLAVE
        await two.master(broker_role="SLAVE", broker_id=2)
        await trio.sleep(3)
        assert (await put(client, b"again")).code == OK
        old, new = two.lab.brokers["a"], two.lab.brokers["a1"]
        assert old.store.max_phy == new.store.max_phy
        found = bodies(await (await two.client("a")).pull("T"))
        assert found == [b"both%d" % n for n in range(5)] + [b"new%d" % n for n in range(8)] + [b"again"]
        kept = two.lab.world.host("broker-a").disk.peek(f"trmq/tail-{common}-{end}.log")
        assert [b"lost%d" % n in kept for n in range(3)] == [True] * 3


async def test_a_slave_that_is_longer_than_its_master_waits_for_a_person(autojump_clock: MockClock) -> None:
    async with pair() as two:
        client = await two.client()
        for number in range(5):
            await put(client, b"%d" % number)
        await two.lab.brokers["a1"].store_service.flush()
        two.lab.world.host("broker-a").crash("power")  # nothing was flushed
        master = await two.master()
        assert master.store.max_phy < two.lab.brokers["a1"].store.max_phy
        await trio.sleep(5)
        client = await two.client()
        assert (await put(client)).code == NO_SLAVE, "it is not served and does not count"
        slave = two.lab.brokers["a1"]
        table = decode_body((await (await two.client("a1")).ask(RequestCode.GET_BROKER_RUNTIME_INFO)).body, KVTable).table
        assert f"this slave's log ends at {slave.store.max_phy}, that of its master" in table["haProblem"]
        assert "make this slave the master" in table["haProblem"]
        assert "trmq store resync" in table["haProblem"]
        assert "it is no copy" in decode_body((await client.ask(RequestCode.GET_BROKER_RUNTIME_INFO)).body, KVTable).table["haProblem"]


async def alter(two: Pair, broker: str, offset: int) -> None:
    """Behind its back, in every layer."""
    disk = two.lab.world.host(f"broker-{broker}").disk
    path = next(path for path in disk.paths() if path.startswith("commitlog/"))
    disk.flip(path, offset)


@pytest.mark.parametrize("was_master", [False, True])
async def test_damage_inside_a_log_is_told_and_nothing_is_cut(was_master: bool, autojump_clock: MockClock) -> None:
    """Both end with the same record; a byte before it differs, which no stretch to be cut explains."""
    async with pair() as two:
        client = await two.client()
        for number in range(5):
            assert (await put(client, b"both%d" % number)).code == OK
        for name in ("a", "a1"):
            await two.lab.brokers[name].store_service.flush()
        end = two.lab.brokers["a"].store.max_phy
        two.lab.crash("a")
        if was_master:
            two.lab.crash("a1")
            await two.slave(1, broker_role="SYNC_MASTER", broker_id=0)
            two.lab.crash("a1")
            await two.slave(1)
        await alter(two, "a1", end // 5 + 60)  # a store timestamp of the second record; a start would have found it
        await two.master()
        slave = two.lab.brokers["a1"]
        await trio.sleep(5)
        assert slave.store.max_phy == end
        table = decode_body((await (await two.client("a1")).ask(RequestCode.GET_BROKER_RUNTIME_INFO)).body, KVTable).table
        assert "one of the two logs is damaged; `trmq store check` says which" in table["haProblem"]
        assert not [path for path in two.lab.world.host("broker-a1").disk.paths() if path.startswith("trmq/tail-")]
        assert (await put(await two.client())).code == NO_SLAVE, "it is no copy and does not count"


async def test_a_record_that_rotted_at_the_master_is_never_acknowledged_as_copied(autojump_clock: MockClock) -> None:
    """The slave used to report it, and what follows, before it looked: SEND_OK was said of copies that it then threw away."""
    async with pair(slaves=0) as two:
        client = await two.client()
        for number in range(5):
            assert (await put(client, b"alone%d" % number)).code == NO_SLAVE
        await two.lab.brokers["a"].store_service.flush()
        await alter(two, "a", two.lab.brokers["a"].store.max_phy // 5 + 90)  # the body of the second record
        await two.slave(1)
        await trio.sleep(5)
        assert (await put(client)).code in (NO_SLAVE, LATE), "nothing behind the damage is on the slave"
        table = decode_body((await (await two.client("a1")).ask(RequestCode.GET_BROKER_RUNTIME_INFO)).body, KVTable).table
        assert "is damaged, its body does not match its checksum" in table["haProblem"]
        assert two.lab.brokers["a1"].store.max_phy < two.lab.brokers["a"].store.max_phy // 2


async def test_how_replication_is_doing(autojump_clock: MockClock) -> None:
    async with pair() as two:
        await put(await two.client())
        await trio.sleep(0.1)
        master = decode_body((await (await two.client()).ask(RequestCode.GET_BROKER_HA_STATUS)).body, HARuntimeInfo)
        assert (master.master, master.in_sync_slave_nums, master.ha_connection_info[0].diff) == (True, 1, 0)
        slave = decode_body((await (await two.client("a1")).ask(RequestCode.GET_BROKER_HA_STATUS)).body, HARuntimeInfo)
        assert (slave.master, slave.ha_client_runtime_info.master_addr) == (False, "10.0.0.3:10911")
        assert slave.ha_client_runtime_info.max_offset == master.master_commit_log_max_offset

