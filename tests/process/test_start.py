"""A start that cannot succeed: one sentence with the remedy on standard error, the right exit code, and nothing harmed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from process.server import MODEST, PULL, Finished, Server, pull_fields, trmq

USAGE, FAILED, DAMAGED = 2, 1, 7
SEGMENT = 65536


def serve(store: Path, *options: object, **env: str) -> Finished:
    return trmq("serve", "--store", store, "--listen-port", 0, "--namesrv-port", 0, *options, env=MODEST | env)


# ----------------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(("line", "sentence"), [
    ("brokerNmae=b", "broker.conf line 2: brokerNmae is not a key of trmq or of Apache RocketMQ 5.4; did you mean brokerName?"),
    ("listenPort=eleven", "listenPort='eleven' must be"),
    ("listenPort=70000", "listenPort='70000' must be"),
    ("flushDiskType=SOMETIMES", "flushDiskType='SOMETIMES' must be"),
    ("mappedFileSizeCommitLog=-1", "mappedFileSizeCommitLog='-1' must be"),
    ("brokerRole=SLAVE", "brokerRole=SLAVE needs a brokerId above 0"),
    ("brokerId=1", "brokerRole=ASYNC_MASTER needs brokerId=0, but brokerId=1"),
    ("aclEnable=true", "aclEnable=true is not supported: access control is not there yet"),
    ("storePathCommitLog=/elsewhere/log", "storePathCommitLog=/elsewhere/log must be a folder inside storePathRootDir"),
])  # fmt: skip
def test_a_wrong_key(tmp_path: Path, line: str, sentence: str) -> None:
    conf = tmp_path / "broker.conf"
    conf.write_text(f"# a comment\n{line}\n")
    done = serve(tmp_path / "store", "-c", conf)
    assert done.code == USAGE
    assert sentence.replace("broker.conf", str(conf)) in done.sentence
    assert done.out == ""
    assert not (tmp_path / "store").exists()


def test_a_wrong_key_as_a_flag_and_in_the_environment(tmp_path: Path) -> None:
    done = serve(tmp_path, "--set", "fileReservedTim=3")
    assert (done.code, "flag: fileReservedTim is not" in done.sentence) == (USAGE, True)
    assert "did you mean fileReservedTime?" in done.sentence
    done = serve(tmp_path, "--set", "fileReservedTime")
    assert (done.code, "KEY=VALUE is expected" in done.sentence) == (USAGE, True)
    done = serve(tmp_path, TRMQ_FILE_RESERVED_TIM="3")
    assert (done.code, "environment TRMQ_FILE_RESERVED_TIM: there is no such key" in done.sentence) == (USAGE, True)


@pytest.mark.parametrize("verb", ["serve", "namesrv"])
@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"listenPort=\xff\xfe", "not UTF-8")])
def test_a_file_that_cannot_be_read(tmp_path: Path, verb: str, content: bytes | None, words: str) -> None:
    conf = tmp_path / "some.conf"
    if content is not None:
        conf.write_bytes(content)
    done = trmq(verb, "-c", conf)
    assert done.code == USAGE
    assert words in done.sentence
    assert str(conf) in done.sentence


# ------------------------------------------------------------------------------------------------------------------------- ports


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for done in (
            trmq("serve", "--store", tmp_path / "s", "--listen-port", port, "--namesrv-port", 0, "--set", "haListenPort=0", env=MODEST),
            trmq("serve", "--store", tmp_path / "s", "--listen-port", 0, "--namesrv-port", port, env=MODEST),
            trmq("namesrv", "--listen-port", port),
        ):
            assert done.code == USAGE
            assert f"port {port} is in use on 127.0.0.1: stop the other process or set listenPort to a free port" in done.sentence
    assert not (tmp_path / "s" / "abort").exists(), "a start that fails leaves no unclean store"


def test_an_address_of_somebody_else(tmp_path: Path) -> None:
    done = serve(tmp_path, "--bind", "192.0.2.1")
    assert done.code == USAGE
    assert "bindAddress 192.0.2.1 is not an address of this machine" in done.sentence


# ----------------------------------------------------------------------------------------------------------------------- folders


def test_a_store_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for store in (tmp_path / "file", tmp_path / "file" / "below"):
        done = serve(store)
        assert done.code == USAGE
        assert "a file stands where a folder must be" in done.sentence
        assert "set storePathRootDir to another folder" in done.sentence
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can make a folder")
def test_a_folder_that_cannot_be_written() -> None:
    """Root may write nearly everywhere; here not even root may."""
    done = serve(Path("/proc/trmq"))
    assert done.code == USAGE
    assert "/proc/trmq" in done.sentence
    assert "set storePathRootDir to another folder" in done.sentence


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write where permissions say no")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = serve(tmp_path / "store")
    assert done.code == USAGE
    assert "give this user the right to write" in done.sentence


@pytest.mark.parametrize("part", ["commitlog", "consumequeue", "index", "config"])
def test_a_file_in_place_of_a_part_of_the_store(tmp_path: Path, part: str) -> None:
    (tmp_path / part).write_text("")
    done = serve(tmp_path)
    assert done.code == USAGE
    assert f"{part} in the store is a file where a folder must be" in done.sentence


# --------------------------------------------------------------------------------------------------- a store that was written before


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Server]:
    """Two stores with the same kind of messages: one stopped cleanly, one killed."""
    found = {}
    for how, number in (("clean", signal.SIGTERM), ("killed", signal.SIGKILL)):
        server = make(tmp_path_factory.mktemp(how)).start()
        with server.peer() as peer:
            for n in range(60):
                assert server.put(b"%03d " % n + b"x" * 3_000, n % 2, f"KEYS\x01k{n}\x02", peer).code == 0
        server.end(number)
        found[how] = server
    return found


def make(folder: Path, **changes: object) -> Server:
    settings = {"mappedFileSizeCommitLog": SEGMENT, "mappedFileSizeConsumeQueue": 200, "maxHashSlotNum": 100, "maxIndexNum": 400,
                "flushDiskType": "SYNC_FLUSH"}  # fmt: skip
    return Server(folder, **settings | changes)


@pytest.fixture
def copy(written: dict[str, Server], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A store of its own to harm; ended afterwards."""
    made: list[Server] = []

    def take(how: str, **changes: object) -> Server:
        shutil.copytree(written[how].store, tmp_path / how / "store")
        server = make(tmp_path / how, **changes)
        server.acked = list(written[how].acked)
        made.append(server)
        return server

    yield take
    for server in made:
        if server.process is not None:
            server.end(signal.SIGKILL)


def refused(server: Server) -> Finished:
    """A start that must fail, and must change nothing of the log and the queues."""

    def log() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(server.store.glob("commitlog/*")) if path.is_file()}

    before = log()
    done = serve(server.store, *server.options)
    assert log() == before
    return done


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def segments(server: Server) -> list[Path]:
    return sorted((server.store / "commitlog").iterdir())


def test_a_store_in_use(copy: Callable[..., Server]) -> None:
    server = copy("clean").start()
    done = serve(server.store)
    assert done.code == FAILED
    assert f"process {server.pid} holds the store" in done.sentence
    assert "set storePathRootDir to another folder" in done.sentence
    server.check()
    assert server.end() == 0, server.errors()


@pytest.mark.parametrize("how", ["clean", "killed"])
def test_another_segment_size(copy: Callable[..., Server], how: str) -> None:
    server = copy(how, mappedFileSizeCommitLog=2 * SEGMENT)
    done = refused(server)
    assert done.code == USAGE
    assert f"set mappedFileSizeCommitLog={SEGMENT}" in done.sentence
    server.options = make(server.folder).options
    server.start().check()


def test_another_segment_size_of_a_foreign_store(copy: Callable[..., Server]) -> None:
    """Without a checkpoint of trmq's, as Apache leaves a store."""
    server = copy("clean", mappedFileSizeCommitLog=2 * SEGMENT)
    shutil.rmtree(server.store / "trmq")
    done = refused(server)
    assert done.code == USAGE
    assert f"set mappedFileSizeCommitLog={SEGMENT}" in done.sentence
    server.options = make(server.folder).options
    server.start().check()


@pytest.mark.parametrize(("number", "at"), [(0, 3), (0, 30), (0, 500), (0, 3_130), (-1, 30)])
def test_a_flipped_bit_below_what_was_durable(copy: Callable[..., Server], number: int, at: int) -> None:
    """Length, physical offset, body, properties of a segment's first record."""
    server = copy("killed")
    path = segments(server)[number]
    flip(path, at)
    done = refused(server)
    assert done.code == DAMAGED
    assert f"commitlog/{path.name}: damaged at byte 0" in done.sentence
    assert "restore from a replica or a backup" in done.sentence
    check = trmq("store", "check", server.store)
    assert check.code == DAMAGED
    flip(path, at)  # the backup
    server.start().check()
    assert server.end() == 0, server.errors()


@pytest.mark.parametrize(("how", "number", "size"), [("clean", 0, 30_000), ("clean", -1, 3_000), ("killed", -1, 3_000)])
def test_a_cut_segment(copy: Callable[..., Server], how: str, number: int, size: int) -> None:
    server = copy(how)
    path = segments(server)[number]
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    done = refused(server)
    assert done.code == DAMAGED
    assert f"commitlog/{path.name} has {size} bytes where segments have {SEGMENT}" in done.sentence
    path.write_bytes(whole)
    server.start().check()


@pytest.mark.parametrize("how", ["clean", "killed"])
def test_a_missing_segment(copy: Callable[..., Server], how: str) -> None:
    server = copy(how)
    segments(server)[1].unlink()
    done = refused(server)
    assert done.code == DAMAGED
    assert "restore the missing file from a replica or a backup" in done.sentence


def test_a_damaged_queue_says_so_and_is_built_again(copy: Callable[..., Server]) -> None:
    server = copy("clean")
    flip(sorted((server.store / "consumequeue" / server.topic / "0").iterdir())[1], 5)
    server.start()
    answer = server.ask(PULL, pull_fields(server.topic, 0, 0))
    assert answer.code == 1
    assert "run `trmq store check`" in answer.remark
    assert server.end() == 0, server.errors()
    check = trmq("store", "check", server.store, "-o", "json")
    assert check.code == DAMAGED
    assert "remove the whole consumequeue folder" in check.out
    shutil.rmtree(server.store / "consumequeue")
    server.start().check()


DISPENSABLE = {
    "queues": lambda store: shutil.rmtree(store / "consumequeue", ignore_errors=True),
    "index of garbage": lambda store: [path.write_bytes(os.urandom(path.stat().st_size)) for path in (store / "index").iterdir()],
    "index cut": lambda store: [os.truncate(path, 100) for path in (store / "index").iterdir()],
    "checkpoint of garbage": lambda store: (store / "checkpoint").write_bytes(os.urandom(4096)),
    "checkpoint empty": lambda store: (store / "checkpoint").write_bytes(b""),
    "own checkpoint of garbage": lambda store: (store / "trmq" / "checkpoint").write_bytes(os.urandom(8192)),
    "checksums of garbage": lambda store: [path.write_bytes(os.urandom(900)) for path in (store / "trmq" / "checksums").iterdir()],
    "spare of garbage": lambda store: (store / "trmq" / "spare-segment").write_bytes(os.urandom(100)),
    "topics.json of garbage, .bak whole": lambda store: (
        shutil.copy(store / "config" / "topics.json", store / "config" / "topics.json.bak"),
        (store / "config" / "topics.json").write_bytes(b'{"topicConfigTable":{'),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DISPENSABLE)
def test_what_can_be_built_again_is(copy: Callable[..., Server], what: str) -> None:
    server = copy("clean")
    DISPENSABLE[what](server.store)
    server.start().check()
    assert server.end() == 0, server.errors()


@pytest.mark.parametrize("content", [b"{garbage", b'{"topicConfigTable":[1]}', b"[1, 2]"])
def test_settings_without_whole_content(copy: Callable[..., Server], content: bytes) -> None:
    server = copy("clean")
    for name in ("topics.json", "topics.json.bak"):
        (server.store / "config" / name).write_bytes(content)
    done = refused(server)
    assert done.code == USAGE
    assert "config/topics.json in the store" in done.sentence
    assert "restore it from a replica or a backup, or move" in done.sentence
    for name in ("topics.json", "topics.json.bak"):
        (server.store / "config" / name).unlink()
    server.start().check()
