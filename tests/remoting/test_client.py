"""The pool of connections: one dial for all, definite and indefinite losses, requests from either side."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from remoting.helpers import PORT, Bench, Echo, serving
from trmq.errors import ConfigError, ConnectionLost, RequestTimeout
from trmq.remoting import Job, Limits, RemotingClient, parse_address
from trmq.wire.command import encode_response

SERVER = ("10.0.0.1", PORT)


@asynccontextmanager
async def calling(bench: Bench, **options):
    async with trio.open_nursery() as nursery:
        client = RemotingClient(bench.world.host("client"), nursery, **options)
        yield client
        await client.aclose()


def silent(conn, command):
    return None


async def test_requests_share_one_connection_and_find_their_answers(autojump_clock: MockClock) -> None:
    def slowly(conn, command):
        async def run() -> bytes:
            await trio.sleep(1 / int(command.body))
            return encode_response(command, 7, {"n": "1"}, remark="fine", body=command.body)

        return Job(run)

    async with serving(Echo(code11=slowly)) as bench, calling(bench) as client:
        bench.world.net.delay = 0.1
        found = {}

        async def ask(n: int) -> None:
            answer = await client.request(SERVER, 11, {"a": "b"}, b"%d" % n)
            assert (answer.code, answer.remark, answer.ext) == (7, "fine", {"n": "1"})
            found[n] = answer.body

        async with trio.open_nursery() as nursery:
            for n in range(1, 50):
                nursery.start_soon(ask, n)
        assert found == {n: b"%d" % n for n in range(1, 50)}
        assert len(bench.service.conns) == 1
        assert client.addresses == [SERVER]


async def test_nobody_there_is_definite(autojump_clock: MockClock) -> None:
    async with serving(Echo()) as bench, calling(bench) as client:
        for address, text in (("10.0.0.1:1", "refused"), ("10.0.0.99:1", "not known")):
            with pytest.raises(ConnectionLost, match=text) as caught:
                await client.request(address, 10)
            assert caught.value.definite
        bench.world.net.cut("client", "server")
        start = trio.current_time()
        for timeout, waited in ((10.0, 3.0), (1.0, 1.0)):
            with pytest.raises(ConnectionLost, match="cannot reach") as caught:
                await client.request(SERVER, 10, timeout=timeout)
            assert caught.value.definite
            assert trio.current_time() - start == waited
            start = trio.current_time()
        with pytest.raises(ConnectionLost) as caught:
            await client.oneway(SERVER, 10)
        bench.world.net.heal()
        assert (await client.request(SERVER, 10, {}, b"x")).body == b"x"


async def test_a_cancelled_dialler_does_not_take_the_others_along(autojump_clock: MockClock) -> None:
    async with serving(Echo()) as bench, calling(bench) as client:
        bench.world.net.delay = 0.5

        async def impatient() -> None:
            with trio.move_on_after(0.1):
                await client.request(SERVER, 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)
            await trio.sleep(0.01)
            assert (await client.request(SERVER, 10, {}, b"x")).body == b"x"
        assert len(bench.service.conns) == 1


async def test_a_late_answer_is_dropped(autojump_clock: MockClock) -> None:
    def slow(conn, command):
        async def run() -> bytes:
            await trio.sleep(5)
            return encode_response(command, 0, body=b"too late")

        return Job(run)

    async with serving(Echo(code11=slow)) as bench, calling(bench) as client:
        with pytest.raises(RequestTimeout, match="request 11 within 3 s") as caught:
            await client.request(SERVER, 11)
        assert not caught.value.definite
        await trio.sleep(10)
        assert (await client.request(SERVER, 10, {}, b"next")).body == b"next"


async def test_an_answer_at_the_last_moment_counts(autojump_clock: MockClock) -> None:
    async with serving(Echo()) as bench, calling(bench) as client:
        await client.request(SERVER, 10)
        bench.world.net.delay = 0.5
        answered = timed_out = 0
        for _ in range(20):
            try:
                await client.request(SERVER, 10, timeout=1.0)
                answered += 1
            except RequestTimeout:
                timed_out += 1
            await trio.sleep(3)
        assert answered + timed_out == 20


async def test_a_lost_connection_is_indefinite_for_what_was_written_and_is_dialled_again(autojump_clock: MockClock) -> None:
    closed = []
    async with serving(Echo(code11=silent)) as bench, calling(bench, on_closed=closed.append) as client:
        lost = []

        async def ask() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await client.request(SERVER, 11)
            lost.append((caught.value.definite, trio.current_time()))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await trio.sleep(1)
            bench.world.net.reset("client", "server")
        assert lost == [(False, 1.0)] * 3
        assert closed == [SERVER]
        assert (await client.request(SERVER, 10, {}, b"again")).body == b"again"
        assert closed == [SERVER]
        bench.service.conns[1].close_soon("test")
        await wait_all_tasks_blocked()
        assert closed == [SERVER] * 2
        assert client.addresses == []


async def test_what_never_left_is_definite(autojump_clock: MockClock) -> None:
    """The window is full with a first request; the second waits in the outbox when the connection dies."""
    async with serving(Echo()) as bench, calling(bench) as client:
        await client.request(SERVER, 10)
        bench.world.net.cut("client", "server")
        outcome = {}

        async def ask(name: str, size: int) -> None:
            with pytest.raises(ConnectionLost) as caught:
                await client.request(SERVER, 10, {}, bytes(size), timeout=100)
            outcome[name] = caught.value.definite

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first", 200_000)
            await trio.sleep(1)
            nursery.start_soon(ask, "second", 10)
            await trio.sleep(1)
            bench.world.net.reset("client", "server")
        assert outcome == {"first": False, "second": True}


async def test_a_cancelled_request_leaves_the_connection_usable(autojump_clock: MockClock) -> None:
    async with serving(Echo(code11=silent)) as bench, calling(bench) as client:
        with trio.move_on_after(0.5):
            await client.request(SERVER, 11)
        assert (await client.request(SERVER, 10, {}, b"x")).body == b"x"
        conn = await client.connection(SERVER)
        assert not conn._requests


async def test_the_server_may_ask_too(autojump_clock: MockClock) -> None:
    def on_request(conn, command):
        return encode_response(command, 0, body=b"client says " + command.body)

    async with serving(Echo()) as bench, calling(bench, on_request=on_request) as client:
        await client.request(SERVER, 10)
        [conn] = bench.service.conns
        answer = await conn.request(40, {}, b"hi", timeout=1)
        assert answer.body == b"client says hi"
        conn.oneway(40, {}, b"psst")
    async with serving(Echo()) as bench, calling(bench) as client:
        await client.request(SERVER, 10)
        answer = await bench.service.conns[0].request(40, timeout=1)
        assert (answer.code, answer.remark) == (3, " request type 40 not supported")


async def test_oneway_waits_for_a_slow_network_instead_of_overflowing(autojump_clock: MockClock) -> None:
    limits = Limits(outbox_bytes_high=100_000, outbox_bytes_max=300_000)
    async with serving(Echo()) as bench, calling(bench, limits=limits) as client:
        bench.world.net.delay = 0.01
        for n in range(200):
            await client.oneway(SERVER, 10, {}, b"%d" % n + bytes(10_000))
        await client.request(SERVER, 10)
        assert [body[:3].rstrip(b"\0") for body in bench.service.seen[:-1]] == [b"%d" % n for n in range(200)]


async def test_an_abandoned_connection_still_brings_its_answers(autojump_clock: MockClock) -> None:
    def slowly(conn, command):
        async def run() -> bytes:
            await trio.sleep(2)
            return encode_response(command, 0, body=b"late")

        return Job(run)

    lost: list[object] = []
    async with serving(Echo(code11=slowly)) as bench, calling(bench, on_closed=lost.append) as client:
        bodies = []

        async def ask() -> None:
            bodies.append((await client.request(SERVER, 11)).body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            client.abandon(SERVER)
            assert client.connected(SERVER) is None
            assert (await client.request(SERVER, 10, {}, b"x")).body == b"x"
            assert len(bench.service.conns) == 2
        assert bodies == [b"late"]
        await trio.sleep(200)  # idle for too long: the server's side ends the old one, and the new one
        assert lost == [SERVER], "nobody is told of the end of the old one"
        client.abandon(SERVER)


async def test_closing_the_client_ends_what_is_under_way(autojump_clock: MockClock) -> None:
    closed = []
    async with serving(Echo(code11=silent)) as bench, calling(bench, on_closed=closed.append) as client:
        definite = []

        async def ask(code: int, address: tuple[str, int]) -> None:
            with pytest.raises(ConnectionLost) as caught:
                await client.request(address, code)
            definite.append(caught.value.definite)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 11, SERVER)
            await trio.sleep(1)
            bench.world.net.cut("client", "other")
            bench.world.host("other", "10.0.0.50")
            nursery.start_soon(ask, 10, ("10.0.0.50", 1))
            await trio.sleep(1)
            await client.aclose()
        assert sorted(definite) == [False, True]
        assert trio.current_time() == 2.0
        with pytest.raises(ConnectionLost, match="closed"):
            await client.request(SERVER, 10)
        assert closed == []
        await trio.sleep(1)
        assert len(bench.service.ended) == 1


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9876", ("127.0.0.1", 9876)), (" host:1 ", ("host", 1)), ("[::1]:10911", ("::1", 10911)), ("::1:7", ("::1", 7))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:x", "host:70000", "host:-1", "host:²"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        parse_address(text)
