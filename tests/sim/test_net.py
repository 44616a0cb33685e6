"""The simulated network behaves as TCP does, and its faults as cables and kernels do."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, check_half_closeable_stream, check_two_way_stream

from trmq.errors import ConfigError
from trmq.sim.disk import Dead
from trmq.sim.net import Pipe, SimStream
from trmq.sim.world import World


async def pair(world: World, a: str = "a", b: str = "b") -> tuple[SimStream, SimStream]:
    server = world.host(b)
    [listener] = await server.listen(("", 0))
    mine = await world.host(a).connect(listener.address)
    theirs = await listener.accept()
    await listener.aclose()
    return mine, theirs


@pytest.mark.parametrize("split", [False, True])
async def test_streams_are_real_streams(split: bool, seed: int) -> None:
    world = World(seed)
    world.net.split = split

    async def maker() -> tuple[SimStream, SimStream]:
        return await pair(world)

    async def clogged_maker() -> tuple[SimStream, SimStream]:
        one, other = await pair(world)
        for stream in (one, other):
            while stream.send_now(b"x" * 100_000):
                pass
        return one, other

    await check_two_way_stream(maker, clogged_maker)
    await check_half_closeable_stream(maker, clogged_maker)


class Heard:
    """A tap that keeps what it hears."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[str, str], bytes | str]] = []

    def opened(self, there: Pipe, back: Pipe) -> None:
        assert there.ends == back.ends[::-1]

    def sent(self, pipe: Pipe, data: bytes) -> None:
        self.told.append(("sent", pipe.name, data))

    def read(self, pipe: Pipe, data: bytes) -> None:
        self.told.append(("read", pipe.name, data))

    def ended(self, pipe: Pipe, by: str) -> None:
        self.told.append(("ended", pipe.name, by))


async def test_a_tap_hears_what_is_sent_and_when_it_is_read(autojump_clock: MockClock, seed: int) -> None:
    world = World(seed)
    tap = world.net.tap = Heard()
    mine, theirs = await pair(world)
    await mine.send_all(b"hello")
    assert tap.told == [("sent", ("a", "b"), b"hello")]
    assert await theirs.receive_some() == b"hello"
    await theirs.aclose()
    world.net.reset("a", "b")
    assert tap.told[1:] == [("read", ("a", "b"), b"hello"), ("ended", ("b", "a"), "b"), ("ended", ("a", "b"), "")]


async def test_a_clogged_host_is_let_go_at_once(autojump_clock: MockClock, seed: int) -> None:
    world = World(seed)
    mine, theirs = await pair(world)
    world.net.clog("b")
    await mine.send_all(b"hello")
    await theirs.send_all(b"there")
    with trio.move_on_after(100) as limit:
        await theirs.receive_some()
    assert limit.cancelled_caught
    world.net.heal("b")
    assert await theirs.receive_some() == b"hello"
    assert await mine.receive_some() == b"there"
    world.net.cut("a", "b")
    world.net.cut("a", "c")
    world.net.heal("a", "b")
    assert world.net.cuts == {("a", "c"), ("c", "a")}


async def receive_all(stream: SimStream, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = await stream.receive_some(1000)
        assert data
        got += data
    return bytes(got)


async def test_bytes_keep_their_order_whatever_the_network_does(autojump_clock: MockClock, seed: int) -> None:
    world = World(seed)
    world.net.split = True
    world.net.delay = lambda source, target, dice: dice.expovariate(100)
    mine, theirs = await pair(world)
    sent = world.dice("data").randbytes(200_000)  # more than the window
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mine.send_all, sent)
        assert await receive_all(theirs, len(sent)) == sent
    await mine.aclose()
    assert await theirs.receive_some() == b""


async def test_delay_takes_its_time(autojump_clock: MockClock) -> None:
    world = World(0)
    world.net.delay = 0.5
    mine, theirs = await pair(world)
    assert trio.current_time() == 1.0, "connecting is a round trip"
    await mine.send_all(b"x")
    assert await theirs.receive_some() == b"x"
    assert trio.current_time() == 1.5


async def test_a_cut_holds_bytes_back_until_it_is_healed(autojump_clock: MockClock) -> None:
    world = World(0)
    mine, theirs = await pair(world)
    world.net.cut("a", "b", one_way=True)
    await mine.send_all(b"held")
    await theirs.send_all(b"passes")
    assert await mine.receive_some() == b"passes"
    with trio.move_on_after(100) as scope:
        await theirs.receive_some()
    assert scope.cancelled_caught
    with trio.move_on_after(1) as scope:
        await world.host("a").connect(("b", 1))
    assert scope.cancelled_caught
    world.net.heal()
    assert await theirs.receive_some() == b"held"
    world.net.cut("a", "b")
    with pytest.raises(TimeoutError):
        await world.host("a").connect(("b", 1))


async def test_resets_refusals_and_counted_bytes() -> None:
    world = World(0)
    mine, theirs = await pair(world)
    await mine.send_all(b"lost")
    assert world.net.reset("a", "b") == 1
    for stream in (mine, theirs):
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
    world.net.drop_after("a", "b", 3)
    mine, theirs = await pair(world)
    await mine.send_all(b"12345")
    assert await theirs.receive_some() == b"123"
    with pytest.raises(trio.BrokenResourceError):
        await theirs.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await mine.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await world.host("a").connect(("b", 1))
    with pytest.raises(OSError, match="not known"):
        await world.host("a").connect(("c", 1))
    await world.host("b").listen(("", 5))
    await world.host("a").connect(("b", 5))  # connected without anybody accepting
    world.net.refused.add(("b", 5))
    with pytest.raises(ConnectionRefusedError):
        await world.host("a").connect(("b", 5))


async def test_loopback_is_for_the_host_itself() -> None:
    world = World(0)
    [listener] = await world.host("a").listen(("127.0.0.1", 0))
    await world.host("a").connect(listener.address)
    with pytest.raises(ConnectionRefusedError):
        await world.host("b").connect((world.host("a").ip, listener.address[1]))
    with pytest.raises(ConfigError, match="listenPort"):
        await world.host("a").listen(("", listener.address[1]))


async def test_a_killed_process_closes_its_connections(autojump_clock: MockClock) -> None:
    world = World(0)
    mine, theirs = await pair(world)
    await theirs.send_all(b"said before")
    world.host("b").crash("kill")
    assert await mine.receive_some() == b"said before"
    assert await mine.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await mine.send_all(b"x")
    for call in (theirs.receive_some, lambda: theirs.send_all(b"goodbye"), theirs.send_eof):
        with pytest.raises(Dead):
            await call()
    await theirs.aclose()


async def test_power_loss_is_silence_until_the_host_is_back(autojump_clock: MockClock) -> None:
    world = World(0)
    mine, theirs = await pair(world)
    world.host("b").crash("power")
    with trio.move_on_after(1000) as scope:
        await mine.receive_some()
    assert scope.cancelled_caught
    await mine.send_all(b"into the dark")
    with pytest.raises(TimeoutError):
        await world.host("a").connect(("b", 1))
    async with trio.open_nursery() as nursery:

        async def expect_reset() -> None:
            with pytest.raises(trio.BrokenResourceError, match="restarted"):
                await mine.receive_some()

        nursery.start_soon(expect_reset)
        await trio.testing.wait_all_tasks_blocked()
        world.host("b")
    assert theirs.closed is False

    mine, theirs = await pair(world)
    world.host("b").crash("power")
    world.host("b")
    with pytest.raises(trio.BrokenResourceError, match="restarted"):
        await mine.send_all(b"x")  # an idle connection is reset by its first byte
