"""What a server makes of good peers, slow peers, silent peers and hostile peers."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from remoting.helpers import PORT, Echo, Late, Raw, request, serving
from trmq.errors import DiskFull, MessageIllegal, RemoteProtocolError, RemoteRefused, TrmqError
from trmq.remoting import Job, Limits
from trmq.wire.command import encode_response


def raiser(error: Exception):
    def handle(conn, command):
        raise error

    return handle


async def test_many_frames_in_one_segment_are_answered_in_order_with_one_write() -> None:
    async with serving(Echo()) as bench:
        raw = await bench.dial()
        await raw.send(*(request(n, b"%d" % n) for n in range(500)))
        await wait_all_tasks_blocked()
        assert len(raw.stream._in.queue) == 1, "one write for the whole batch"
        answers = await raw.answers(500)
        assert [a.opaque for a in answers] == list(range(500))
        assert [a.body for a in answers] == [b"%d" % n for n in range(500)]


async def test_bytes_may_come_one_at_a_time(autojump_clock: MockClock) -> None:
    async with serving(Echo()) as bench:
        bench.world.net.delay = 0.001
        raw = await bench.dial()
        for byte in request(1, b"hello") + request(2):
            await raw.send(bytes([byte]))
            await trio.sleep(0.01)
        assert [a.body for a in await raw.answers(2)] == [b"hello", b""]


async def test_any_split_and_delay_gives_the_same_answers(autojump_clock: MockClock, seed: int) -> None:
    async with serving(Echo(code11=lambda conn, command: Late(command)), seed=seed) as bench:
        bench.world.net.split = True
        bench.world.net.delay = lambda source, target, dice: dice.expovariate(1000)
        raw = await bench.dial()
        sizes = bench.world.dice("sizes")
        bodies = [sizes.randbytes(sizes.choice((0, 10, 1000, 70_000))) for _ in range(60)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.send, *(request(n, body, 10 + n % 2) for n, body in enumerate(bodies)))
            answers = {a.opaque: a.body for a in await raw.answers(60)}
        assert answers == {n: b"late " * (n % 2) + body for n, body in enumerate(bodies)}


@pytest.mark.parametrize(
    ("garbage", "sentence"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "exceeds the limit"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", "TLS"),
        (b"\0\0\0\x08\0\0\0\x10xxxx", "beyond the frame"),
        (b"\xff" * 64, "frame length"),
        (b"\0" * 64, "frame length"),
        (b"\0\0\0\x06\0\0\0\x02{}", "JSON header"),
        (b"\x02\0\0\0\0\0\0\0", "exceeds the limit"),
    ],
)
async def test_garbage_ends_the_connection_with_one_line(garbage: bytes, sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Echo()) as bench:
        raw, other = await bench.dial(), await bench.dial()
        await raw.send(request(1, b"before"), garbage, request(2, b"after"))
        assert [a.body for a in await raw.until_closed()] == [b"before"]
        [line] = [record.getMessage() for record in caplog.records if record.name == "trmq.remoting"]
        assert sentence in line
        assert str(PORT) in line
        await other.send(request(3, b"still here"))
        assert (await other.answers(1))[0].body == b"still here"
        assert bench.service.seen == [b"before", b"still here"]


async def test_a_truncated_frame_is_forgotten() -> None:
    async with serving(Echo()) as bench:
        raw = await bench.dial()
        await raw.send(request(1, b"whole"), request(2, b"cut")[:-1])
        await raw.stream.send_eof()
        assert [a.body for a in await raw.until_closed()] == [b"whole"], "half-closing still gets the answers that are ready"
        assert bench.service.seen == [b"whole"]
        assert bench.service.ended == ["closed by the peer"]


async def test_a_frame_must_be_complete_in_time(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Echo()) as bench:
        raw = await bench.dial()
        await raw.send(request(1, b"x" * 1000))
        await raw.answers(1)
        start = trio.current_time()

        async def drip() -> None:
            for byte in request(2, b"x" * 1000):
                await raw.send(bytes([byte]))
                await trio.sleep(1)

        with pytest.raises(trio.BrokenResourceError):
            await drip()
        assert 60 <= trio.current_time() - start <= 70
        assert "not complete after 60 s" in caplog.text


async def test_a_slow_frame_that_gets_there_is_fine(autojump_clock: MockClock) -> None:
    async with serving(Echo()) as bench:
        raw = await bench.dial()
        for n in range(5):
            frame = request(n, b"x" * 40)
            for at in range(0, len(frame), len(frame) // 4 + 1):
                await raw.send(frame[at : at + len(frame) // 4 + 1])
                await trio.sleep(10)
        assert len(await raw.answers(5)) == 5


async def test_idle_connections_end_and_used_ones_stay(autojump_clock: MockClock) -> None:
    async with serving(Echo(code11=lambda conn, command: None)) as bench:
        idle, reader, writer = [await bench.dial() for _ in range(3)]
        await wait_all_tasks_blocked()
        held = bench.service.conns[1]
        for n in range(8):
            held.post(request(n))  # something is written to it
            await writer.send(request(n, oneway=True))  # something is read from it
            await trio.sleep(50)
        assert len(await reader.answers(8)) == 8
        assert bench.service.ended == ["idle for 120 s"]
        start = trio.current_time()
        assert await idle.until_closed() == []
        assert trio.current_time() == start


async def test_a_peer_that_never_reads_blocks_only_itself(autojump_clock: MockClock) -> None:
    limits = Limits(batch_bytes_max=1000)
    async with serving(Echo(), limits) as bench:
        rude, polite = await bench.dial(), await bench.dial()
        with trio.move_on_after(1) as scope:
            for n in range(1000):
                await rude.send(request(n, b"x" * 10_000))
        assert scope.cancelled_caught, "it is not read either while it does not read"
        assert len(bench.service.seen) < 50
        await polite.send(request(1, b"hello"))
        assert (await polite.answers(1))[0].body == b"hello"
        bench.service.conns[0].post(b"posted frames wait behind")
        await trio.sleep(200)
        assert bench.service.ended == ["idle for 120 s"] * 2


async def test_the_outbox_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Echo(), Limits(outbox_bytes_max=1_000_000)) as bench:
        raw = await bench.dial()
        await wait_all_tasks_blocked()
        [conn] = bench.service.conns
        for _ in range(30):
            conn.post(bytes(100_000))
            await wait_all_tasks_blocked()
        assert bench.service.ended == ["the peer does not read: more than 1000000 bytes wait for it"]
        assert caplog.text.count("does not read") == 1
        conn.post(b"to nobody")
        await raw.until_closed()


async def test_posted_frames_keep_their_order_and_share_writes() -> None:
    def hold(conn, command):
        for n in range(3):
            conn.post(encode_response(command, 0, body=b"posted %d" % n))
        return encode_response(command, 0, body=b"answer")

    async with serving(Echo(code11=hold)) as bench:
        raw = await bench.dial()
        await raw.send(request(1, code=11))
        await wait_all_tasks_blocked()
        assert len(raw.stream._in.queue) == 1, "the posts ride along with the answer"
        assert [a.body for a in await raw.answers(4)] == [b"posted 0", b"posted 1", b"posted 2", b"answer"]
        [conn] = bench.service.conns
        big = [bytes([n]) * 50_000 for n in range(20)]
        for body in big:
            conn.post(request(9, body))
        await raw.send(request(2, b"behind"))
        assert [a.body for a in await raw.answers(21)] == [*big, b"behind"]


async def test_the_last_words_are_sent() -> None:
    def goodbye(conn, command):
        conn.post(encode_response(command, 0, body=b"goodbye"))
        conn.close_soon("we are done")

    async with serving(Echo(code11=goodbye)) as bench:
        raw = await bench.dial()
        await raw.send(request(1, code=11))
        assert [a.body for a in await raw.until_closed()] == [b"goodbye"]


async def test_deferred_answers_come_once_the_batch_is_finished() -> None:
    async with serving(Echo(code11=lambda conn, command: Late(command))) as bench:
        raw = await bench.dial()
        await raw.send(request(1, b"a", 11), request(2, b"b"), request(3, b"c", 11), request(4, b"d", 11))
        answers = {a.opaque: a.body for a in await raw.answers(4)}
        assert answers == {1: b"late a", 2: b"b", 3: b"late c", 4: b"late d"}
        assert bench.service.batches == [3]
        await raw.send(request(5, b"e"))
        await raw.answers(1)
        assert bench.service.batches == [3], "nothing deferred, nothing to finish"


async def test_large_answers_are_written_before_the_batch_ends() -> None:
    big = bytes(50_000)
    service = Echo(code11=lambda conn, command: encode_response(command, 0, body=big), code12=lambda conn, command: Late(command))
    async with serving(service, Limits(batch_bytes_max=200_000)) as bench:
        raw = await bench.dial()
        await raw.send(request(0, b"x", 12), *(request(n, code=11) for n in range(1, 41)))
        await wait_all_tasks_blocked()
        assert len(service.seen) == 5, "the reader waits for the peer with 200 kB gathered, not with 2 MB"
        assert service.batches == [1], "and what was deferred goes out with them"
        answers = await raw.answers(41)
        assert {a.opaque for a in answers} == set(range(41))


async def test_oneway_requests_get_no_answer() -> None:
    async with serving(Echo(code11=raiser(DiskFull("full")), code12=raiser(ValueError("bug")))) as bench:
        raw = await bench.dial()
        await raw.send(request(1, b"quiet", oneway=True), request(2, code=11, oneway=True), request(3, code=12, oneway=True), request(4))
        assert [a.opaque for a in await raw.answers(1)] == [4]
        assert bench.service.seen[0] == b"quiet"


@pytest.mark.parametrize(
    ("error", "code", "remark"),
    [
        (RemoteProtocolError("queueId 9 is out of range", 29), 29, "queueId 9 is out of range"),
        (RemoteRefused(17, "no such topic"), 17, "no such topic (code 17)"),
        (DiskFull("no space left"), 14, "no space left"),
        (MessageIllegal("too long"), 13, "too long"),
        (TrmqError("whatever"), 1, "whatever"),
        (KeyError("bug"), 1, "KeyError: 'bug'"),
    ],
)
async def test_errors_become_answers(error: Exception, code: int, remark: str, caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> bytes:
        raise error

    async with serving(Echo(code11=raiser(error), code12=lambda conn, command: Job(later))) as bench:
        raw = await bench.dial()
        await raw.send(request(1, code=11), request(2, code=12), request(3))
        answers = {a.opaque: (a.code, a.remark) for a in await raw.answers(3)}
        assert answers == {1: (code, remark), 2: (code, remark), 3: (0, None)}
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == (0 if isinstance(error, TrmqError) else 2), "a bug leaves its traceback in the log"


async def test_a_failed_assertion_stops_the_server() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(AssertionError, match="never"), flatten_subgroups=True):
        async with serving(Echo(code11=raiser(AssertionError("never")))) as bench:
            raw = await bench.dial()
            await raw.send(request(1, code=11))
            await trio.sleep_forever()


async def test_jobs_wait_without_holding_up_anybody(autojump_clock: MockClock) -> None:
    done = []

    def job(conn, command):
        async def run() -> bytes:
            try:
                await trio.sleep(float(command.body))
            finally:
                done.append(trio.current_time())
            return encode_response(command, 0, body=command.body)

        return Job(run)

    async with serving(Echo(code11=job), Limits(jobs_max=3)) as bench:
        raw = await bench.dial()
        await raw.send(*(request(n, b"%d" % (10 - n), 11) for n in range(4)), request(9))
        assert [(a.opaque, a.code) for a in await raw.answers(2)] in ([(9, 0), (3, 2)], [(3, 2), (9, 0)])
        assert [a.opaque for a in await raw.answers(3)] == [2, 1, 0]
        await raw.send(request(5, b"1000", 11))
        await wait_all_tasks_blocked()
        await raw.stream.aclose()
        await wait_all_tasks_blocked()
        assert done == [8, 9, 10, 10], "a job ends with its connection"


async def test_connections_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Echo(), Limits(connections_max=2)) as bench:
        first, second = await bench.dial(), await bench.dial()
        await first.send(request(1))
        await second.send(request(1))
        await first.answers(1)
        await second.answers(1)
        for _ in range(3):
            assert await (await bench.dial()).until_closed() == []
        assert caplog.text.count("the limit") == 1
        await first.stream.aclose()
        await wait_all_tasks_blocked()
        third = await bench.dial()
        await third.send(request(3))
        await third.answers(1)


async def test_a_reset_connection_takes_only_itself(autojump_clock: MockClock) -> None:
    async with serving(Echo()) as bench:
        gone, stays = await bench.dial("gone"), await bench.dial("stays")
        await gone.send(request(1))
        await wait_all_tasks_blocked()
        bench.world.net.reset("gone", "server")
        await stays.send(request(2))
        await stays.answers(1)
        assert bench.service.ended == ["connection broken: connection reset"]
        bench.service.conns[0].post(b"nobody there")


async def test_a_crashed_server_says_nothing_more(autojump_clock: MockClock) -> None:
    from trmq.remoting import serve_remoting
    from trmq.sim.world import World

    world, service = World(0), Echo()
    async with trio.open_nursery() as nursery:

        async def program(host) -> None:
            await serve_remoting(host, service, ("", PORT))

        nursery.start_soon(world.host("server").run, program)
        await wait_all_tasks_blocked()
        raw = Raw(await world.host("client").connect(("server", PORT)))
        await raw.send(request(1))
        await raw.answers(1)
        service.conns[0].post(request(5, b"in the outbox"))
        world.host("server").crash("power")
        with trio.move_on_after(1000) as scope:
            await raw.until_closed()
        assert scope.cancelled_caught
        assert raw.commands == []
