"""Crashing a host unplugs it before its tasks are cancelled, and one seed is one run."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from contextlib import suppress

import pytest
import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from trmq.errors import DiskFailed, DiskFull
from trmq.sim.determinism import run_seeded
from trmq.sim.disk import Dead
from trmq.sim.world import START_MS, SimHost, World


async def test_cleanup_of_a_crashed_host_reaches_nothing(autojump_clock: MockClock) -> None:
    world = World(1)
    reached = []

    async def program(host: SimHost) -> None:
        file = host.disk.open("f")
        [listener] = await host.listen(("", 1))
        stream = await world.host("peer").connect((host.ip, 1))
        mine = await listener.accept()
        try:
            await trio.sleep(100)
        finally:
            with trio.CancelScope(shield=True):
                for goodbye in (lambda: file.write_at(0, b"x"), lambda: host.trace("bye"), lambda: host.send_now(mine, b"x")):
                    try:
                        goodbye()
                    except Dead:
                        reached.append("dead")
                await mine.aclose()
                assert await stream.receive_some() == b""
                await file.sync()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.host("node").run, program)
        await trio.sleep(1)
        old = world.host("node")
        old.crash("kill")
        old.crash("kill")
    assert trio.current_time() == 1.0
    assert reached == ["dead"] * 3
    new = world.host("node")
    assert new is not old
    assert (new.incarnation, new.ip) == (2, old.ip)
    assert new.disk.peek("f") == b""
    assert [event for _, name, event in world.events if name == "node"] == [("boot", 1), ("crash", "kill"), ("boot", 2)]


async def test_a_burnt_fuse_takes_the_network_with_it() -> None:
    world = World(1)
    host = world.host("node")

    async def program(host: SimHost) -> None:
        host.disk.fuse = 1
        host.disk.open("f")

    await host.run(program)
    with pytest.raises(Dead):
        await host.listen(("", 1))
    with pytest.raises(AssertionError, match="crash"):
        world.host("node")
    host.crash("power")
    assert world.host("node").disk.paths() == []


async def test_wall_clocks_are_wrong_each_in_its_own_way(autojump_clock: MockClock) -> None:
    world = World(1)
    right, wrong = world.host("right"), world.host("wrong")
    await trio.sleep(10)
    assert right.wall_ms() == wrong.wall_ms() == START_MS + 10_000
    wrong.clock.skew_ms = -3_600_000
    wrong.clock.rate = 2.0
    await trio.sleep(5)
    assert right.wall_ms() == START_MS + 15_000
    assert wrong.wall_ms() == START_MS + 20_000 - 3_600_000
    wrong.clock.rate = 0.0
    await trio.sleep(5)
    assert wrong.wall_ms() == START_MS + 20_000 - 3_600_000
    wrong.crash()
    assert world.host("wrong").wall_ms() == wrong.wall_ms()


async def test_a_paused_host_stands_still_while_time_goes_on(autojump_clock: MockClock) -> None:
    world = World(1)
    ticks: list[float] = []
    heard: list[tuple[float, bytes]] = []

    async def program(host: SimHost) -> None:
        [listener] = await host.listen(("", 1))

        async def serve() -> None:
            stream = await listener.accept()
            while data := await stream.receive_some():
                heard.append((trio.current_time(), data))
                await stream.send_all(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            while True:
                await trio.sleep(1)
                ticks.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        node = world.host("node")
        nursery.start_soon(node.run, program)
        await trio.sleep(2.5)
        node.pause()
        stream = await world.host("peer").connect((node.ip, 1))
        await stream.send_all(b"hello")
        with trio.move_on_after(5):
            await stream.receive_some()
        assert (len(ticks), heard) == (2, []), "its kernel answers, the program doesn't"
        node.resume()
        assert await stream.receive_some() == b"hello"
        assert [round(at - start, 1) for at in ticks[2:]] == [7.5], "it learns how late it is"
        await trio.sleep(2.5)
        assert len(ticks) == 5
        node.pause()
        node.crash("kill")
        assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_a_machine_may_return_with_an_empty_disk() -> None:
    world = World(1)
    file = world.host("node").disk.open("f")
    file.write_at(0, b"x" * 5000)
    await file.sync()
    await world.host("node").disk.sync_directory("")
    world.host("node").crash("os")
    assert world.host("node").disk.paths() == ["f"]
    world.host("node").crash("disk")
    assert world.host("node").disk.paths() == []


def test_each_concern_has_its_own_dice() -> None:
    one, other = World(5), World(5)
    one.dice("a").random()
    assert one.dice("b").random() == other.dice("b").random()
    assert one.dice("a").random() != one.dice("b").random() != World(6).dice("b").random()


def noisy_run(seed: object) -> str:
    """Tasks that race, a network with delays and splits, crashes: everything that could depend on chance."""

    async def main() -> str:
        world = World(seed)
        world.net.split = True
        world.net.delay = lambda source, target, dice: dice.choice((0, 0.001, 0.002))

        async def serve(host: SimHost) -> None:
            [listener] = await host.listen(("", 7))
            file = host.disk.open("log")

            async def echo(stream: trio.abc.Stream) -> None:
                with suppress(trio.BrokenResourceError):
                    while data := await stream.receive_some():
                        file.write_at(file.size, data)
                        await file.sync()
                        host.trace(("echo", len(data)))
                        await stream.send_all(data)

            async with trio.open_nursery() as nursery:
                await trio.serve_listeners(echo, [listener], handler_nursery=nursery)

        async def client(number: int) -> None:
            host = world.host(f"client{number}")
            for _ in range(5):
                try:
                    stream = await host.connect(("server", 7))
                    await stream.send_all(bytes(host.random.randrange(1, 3000)))
                    with trio.move_on_after(1):  # a server that lost power says nothing
                        while (await stream.receive_some()) and host.random.random() < 0.8:
                            pass
                    host.trace("done")
                    await stream.aclose()
                except (OSError, trio.BrokenResourceError) as error:
                    host.trace(type(error).__name__)
                    await trio.sleep(0.001)

        async def life() -> None:
            dice = world.dice("life")
            for _ in range(4):
                nursery.start_soon(world.host("server").run, serve)
                await trio.sleep(dice.random() / 100)
                world.host("server").crash(dice.choice(("kill", "power")))
            nursery.start_soon(world.host("server").run, serve)

        world.host("server")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life)
            async with trio.open_nursery() as clients:
                for number in range(5):
                    clients.start_soon(client, number)
            nursery.cancel_scope.cancel()
        assert len(world.events) > 30
        return world.fingerprint

    return run_seeded(main, seed)


def test_one_seed_is_one_run_in_every_process() -> None:
    here = noisy_run(11)
    assert here == noisy_run(11)
    assert here != noisy_run(12)
    program = f"import sys; sys.path[:0] = {sys.path!r}\nfrom importlib.util import spec_from_file_location as s, module_from_spec as m\n"
    program += f"spec = s('noisy', {__file__!r}); module = m(spec); spec.loader.exec_module(module); print(module.noisy_run(11))"
    for hash_seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        said = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == here, said.stderr


def test_the_private_names_are_still_there() -> None:
    """If this fails, a new Trio has moved its scheduler: look at sim/determinism.py before raising the pinned version."""
    module = importlib.reload(importlib.import_module("trmq.sim.determinism"))
    assert hasattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING")
    assert hasattr(trio_run._r, "seed")
    orders = set()
    for seed in (1, 1, 1, 2, 3, 4, 5):
        order: list[int] = []

        async def main(order: list[int] = order) -> None:
            async def note(number: int) -> None:
                order.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(note, number)

        module.run_seeded(main, seed)
        orders.add((seed, tuple(order)))
    assert len(orders) == 5, "the same seed, the same order"
    assert len({order for _, order in orders}) > 2, "another seed, another order"


async def test_a_fault_counts_when_a_program_runs_into_it(autojump_clock: MockClock) -> None:
    world = World(3)
    server, client = world.host("server"), world.host("client")
    [listener] = await server.listen(("", 7))
    client.clock.skew_ms, client.disk.latency = 5000, 0.1
    client.disk.fail("sync")
    world.net.clog("nobody")
    assert not world.struck, "so far nothing met anything"

    client.wall_ms()
    client.wall_ms()
    assert world.struck["clock"] == 1, "one wrong clock, however often it is asked"
    file = client.disk.open("f")
    with pytest.raises(DiskFailed):
        await file.sync()
    assert world.struck["io-error"] == world.struck["slow-disk"] == 1
    client.disk.capacity = client.disk.used
    with pytest.raises(DiskFull):
        file.write_at(0, b"x" * 100)
    assert world.struck["disk-full"] == 1

    stream = await client.connect(("server", 7))
    await listener.accept()
    world.net.cut("client", "server", one_way=True)
    assert "cut" not in world.struck, "nothing was sent"
    await stream.send_all(b"held back")
    assert world.struck == {"clock": 1, "io-error": 1, "slow-disk": 1, "disk-full": 1, "cut": 1}
    world.host("client").crash("power")
    assert world.host("client").disk.struck is world.struck, "the next life's disk counts with the others"
