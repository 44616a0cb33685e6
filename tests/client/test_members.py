"""Whom the client asks when members of a group refuse, lie about offsets, or come and go: against members that follow a script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

import trmq
from trmq.client.members import Members, Myself
from trmq.client.routes import TopicRoute
from trmq.remoting import RemotingClient
from trmq.sim.world import World
from trmq.wire.codes import RequestCode, ResponseCode

from .lab import Lab, Scripted, Word, running

Clock = trio.testing.MockClock
FOUND, NOTHING, AGAIN, MOVED = 0, 19, 20, 21
SCRIPTED_START = 7
"""The committed offset that every scripted member tells."""


@attrs.frozen
class Group:
    lab: Lab
    master: Scripted
    slave: Scripted

    def pulls(self, member: Scripted, since: float) -> list[tuple[float, int]]:
        return [(at, offset) for at, offset in member.pulls if at >= since]


@asynccontextmanager
async def scripted(
    master: Callable[[int], Word], slave: Callable[[int], Word], *, filter: str = "*",
) -> AsyncIterator[tuple[Group, trmq.Consumer]]:
    """Two scripted members of group "s", and a consumer of their one queue."""
    async with running() as lab:
        group = Group(lab, Scripted(lab, "s", 0, master), Scripted(lab, "s", 1, slave))
        await group.master.start("T")
        await group.slave.start("T")
        async with lab.connect() as mq, mq.consumer("T", group="g", filter=filter) as consumer:
            await consumer.assigned()
            yield group, consumer


def offset_of(consumer: trmq.Consumer) -> int:
    (cell,) = [cell for queue, cell in consumer.assignment.cells.items() if queue.topic == "T"]
    return cell.pull_offset


def test_the_order_of_members() -> None:
    route = TopicRoute("T", (), (), {"a": {2: "two", 0: "zero", 3: "three"}})
    order = {wanted: [member for member, _ in route.members("a", wanted)] for wanted in range(5)}
    assert order == {0: [0, 2, 3], 1: [2, 0, 3], 2: [2, 3, 0], 3: [3, 0, 2], 4: [0, 2, 3]}
    assert route.members("b", 0) == []
    assert not route.lacks_master
    assert TopicRoute("T", (), (), {"a": {0: "x"}, "b": {1: "y"}}).lacks_master


@pytest.mark.parametrize("code", [ResponseCode.SYSTEM_BUSY, ResponseCode.NO_PERMISSION, ResponseCode.TOPIC_NOT_EXIST])
async def test_a_slave_that_refuses_is_left_to_its_master(code: int, autojump_clock: Clock) -> None:
    async with scripted(lambda offset: (AGAIN, 1, offset + 1), lambda offset: (code, 0, 0)) as (group, consumer):
        began, before = trio.current_time(), offset_of(consumer)
        group.master.says = slowly(group.master)
        await trio.sleep(60)
        assert offset_of(consumer) - before > 500, "the master serves all the while, though it suggests the slave with every answer"
        assert len(group.pulls(group.slave, began)) <= 8, "asked again every 10 s"


def slowly(member: Scripted) -> Callable[[int], Word]:
    """Progress while the clock allows 20 answers a second; nothing new in between."""
    last = [trio.current_time()]

    def says(offset: int) -> Word:
        if trio.current_time() - last[0] < 0.05:
            return AGAIN, 1, offset
        last[0] = trio.current_time()
        return AGAIN, 1, offset + 1

    return says


async def test_a_refusing_slave_without_a_master_is_asked_once_a_second(autojump_clock: Clock) -> None:
    async with scripted(lambda offset: (NOTHING, 0, offset), lambda offset: (ResponseCode.SYSTEM_BUSY, 0, 0)) as (group, _):
        group.master.host.crash()
        died = trio.current_time()
        await trio.sleep(30)
        asked = group.pulls(group.slave, died)
        assert asked[0][0] - died < 0.1
        assert 20 <= len(asked) <= 35


@pytest.mark.parametrize("suggested", [0, 1])
async def test_a_slave_with_nothing_new_at_once_is_no_hot_loop(suggested: int, autojump_clock: Clock) -> None:
    async with scripted(lambda offset: (NOTHING, 0, offset), lambda offset: (AGAIN, suggested, offset)) as (group, _):
        group.master.host.crash()
        died = trio.current_time()
        await trio.sleep(30)
        asked = group.pulls(group.slave, died)
        assert 20 <= len(asked) <= 150
        assert {offset for _, offset in asked} <= {SCRIPTED_START}


async def test_a_slave_moves_no_offset_but_over_what_a_filter_leaves_out(autojump_clock: Clock) -> None:
    for word, filter, end in (
        ((MOVED, 0, 3), "*", 7), ((MOVED, 0, 900), "*", 7), ((MOVED, 1, 900), "tag", 7), ((AGAIN, 0, 900), "*", 7),
        ((AGAIN, 0, 3), "tag", 7), ((AGAIN, 0, 900), "tag", 900), ((NOTHING, 0, 900), "tag", 900),
    ):
        async with scripted(lambda offset: (NOTHING, 0, offset), lambda offset, word=word: word, filter=filter) as (group, consumer):  # type: ignore[misc]  # mypy cannot infer a lambda's default argument
            assert offset_of(consumer) == SCRIPTED_START
            group.master.host.crash()
            await trio.sleep(10)
            assert group.slave.pulls
            assert offset_of(consumer) == end, (word, filter)
            commits = [code for code in group.slave.heard if code == RequestCode.UPDATE_CONSUMER_OFFSET]
            assert len(commits) <= 4


@pytest.mark.parametrize("how", ["new", "reset"])
async def test_a_slave_is_told_the_subscription_before_it_is_asked(how: str, autojump_clock: Clock) -> None:
    async with running() as lab:
        master, slave = (Scripted(lab, "s", number, lambda offset: (NOTHING, 0, offset)) for number in (0, 1))
        await master.start("T")
        if how == "reset":
            await slave.start("T")
        async with lab.connect() as mq, mq.consumer("T", group="g") as consumer:
            await consumer.assigned()
            await trio.sleep(1)
            if how == "reset":
                lab.world.net.reset("client", "broker-s1")
            else:
                await slave.start("T")  # no route that the client has seen names it
            slave.heard.clear()
            slave.thinks = 0.05
            master.host.crash()
            await trio.sleep(4)
            asked = [code for code in slave.heard if code in (RequestCode.HEART_BEAT, RequestCode.PULL_MESSAGE)]
            assert asked[0] == RequestCode.HEART_BEAT
            assert RequestCode.PULL_MESSAGE in asked


async def test_a_slave_that_came_later_is_told_at_once(autojump_clock: Clock) -> None:
    async with running() as lab:
        master, slave = (Scripted(lab, "s", number, lambda offset: (NOTHING, 0, offset)) for number in (0, 1))
        await master.start("T")
        async with lab.connect() as mq, mq.consumer("T", group="g") as consumer:
            await consumer.assigned()
            await slave.start("T")
            await trio.sleep(32)
            assert RequestCode.HEART_BEAT in slave.heard
            master.host.crash()
            died = trio.current_time()
            await trio.sleep(1)
            assert slave.pulls[0][0] - died < 0.1


async def test_a_pull_held_by_a_stand_in_is_called_off_for_the_master(autojump_clock: Clock) -> None:
    async with scripted(lambda offset: (NOTHING, 0, offset), lambda offset: (NOTHING, 0, offset)) as (group, _):
        group.lab.world.net.cut("broker-s0", "client")
        cut = trio.current_time()
        await trio.sleep(10)
        assert 2 < group.slave.pulls[0][0] - cut < 5.1, "silence takes a while to tell from a long wait"
        while trio.current_time() - group.slave.pulls[-1][0] > 1:
            await trio.sleep(0.5)  # to where the slave has just begun to hold one
        group.lab.world.net.heal()
        healed = trio.current_time()
        await trio.sleep(10)
        assert group.pulls(group.master, healed)[0][0] - healed < 4.5
        assert not group.pulls(group.slave, healed + 4.5)


async def test_a_silent_connection_is_replaced(autojump_clock: Clock) -> None:
    async with scripted(lambda offset: (NOTHING, 0, offset), lambda offset: (NOTHING, 0, offset)) as (group, consumer):
        def open_streams() -> int:
            return sum(stream.remote[0] == group.master.host.ip for stream in group.lab.world.host("client").streams)

        remoting = consumer.instance.remoting
        old = remoting.connected(group.master.address)
        group.master.host.crash("power")
        await trio.sleep(5)
        assert old is remoting.connected(group.master.address), "it may have been slow for once"
        await trio.sleep(10)
        assert remoting.connected(group.master.address) is None, "nobody will ever answer on it"
        assert open_streams() == 1, "a send on its way may still be answered"
        await trio.sleep(150)
        assert open_streams() == 0


async def test_a_master_that_refuses_everything_is_obeyed_and_a_busy_one_relieved(autojump_clock: Clock) -> None:
    for code, moves in ((ResponseCode.NO_PERMISSION, False), (ResponseCode.SYSTEM_BUSY, True)):
        async with scripted(lambda offset, code=code: (code, 0, 0), lambda offset: (NOTHING, 0, offset)) as (group, _):  # type: ignore[misc]  # mypy cannot infer a lambda's default argument
            await trio.sleep(20)
            assert bool(group.slave.pulls) is moves
            assert len(group.master.pulls) <= 45


async def test_a_member_that_drops_each_connection_is_no_hot_loop(autojump_clock: Clock) -> None:
    async with scripted(lambda offset: (NOTHING, 0, offset), lambda offset: (NOTHING, 0, offset)) as (group, _):
        net = group.lab.world.net

        def drop(offset: int) -> Word:
            net.reset("client", "broker-s0")
            return NOTHING, 0, offset

        group.master.says = drop
        began = trio.current_time()
        await trio.sleep(30)
        assert len(group.pulls(group.master, began)) <= 35, "about once a second"
        assert group.pulls(group.slave, began)


async def test_who_is_lost_is_asked_until_it_answers_or_no_route_names_it(autojump_clock: Clock) -> None:
    world, routed, changes = World(1), {"10.0.0.2:10911"}, []
    async with trio.open_nursery() as nursery:
        client = RemotingClient(world.host("client", "10.0.0.1"), nursery)
        world.host("broker", "10.0.0.2")
        members = Members(client, nursery, Myself(lambda: (b"{}", frozenset()), b"{}"), routed.__contains__, lambda: changes.append(1))
        members.lost("10.0.0.2:10911")
        members.lost("10.0.0.2:10911")
        await trio.sleep(10)
        assert members.is_lost("10.0.0.2:10911")
        assert len(changes) == 1
        routed.clear()
        await trio.sleep(2)
        assert not members.is_lost("10.0.0.2:10911")
        assert len(changes) == 2
        await client.aclose()
        members.lost("10.0.0.2:10911")
        nursery.cancel_scope.cancel()
