"""A real `trmq serve` process, and a peer that speaks to it over a bare socket: any bytes, no client in between."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trmq.record import decode_records

SEND, PULL, BROKER_RUNTIME = 310, 11, 28
START_SECONDS_MAX = 30
NOBODY = {name: value for name, value in os.environ.items() if not name.startswith(("TRMQ_", "NAMESRV_ADDR"))}
"""The environment without what would configure trmq."""
SMALL_STORE = {"mappedFileSizeCommitLog": 16 << 20, "mappedFileSizeConsumeQueue": 120_000, "maxHashSlotNum": 50_000, "maxIndexNum": 200_000}
"""Files that are small: a broker reserves them ahead of time, 1 GiB each by default, and the machine may not have that to give."""
ANY_DISK = {"diskSpaceWarningLevelRatio": 100, "diskMaxUsedSpaceRatio": 100, "cleanFileForciblyEnable": "false"}
"""Sends are taken, and files are kept, however full the machine's disk is."""
ANY_DISK_ENV = {f"TRMQ_{key}": str(value) for key, value in ANY_DISK.items()}
MODEST = NOBODY | ANY_DISK_ENV | {f"TRMQ_{key}": str(value) for key, value in SMALL_STORE.items()}
"""The environment for brokers under test whose subject is neither the size of files nor the disk. Command lines and admin commands
go over it, the conf file does not."""


class Answer(NamedTuple):
    code: int
    remark: str
    ext: dict[str, str]
    body: bytes


class Finished(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line of standard error. A traceback, or a second line, is what nobody wants to see."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("trmq: ")
        return lines[0]


def trmq(*arguments: object, stdin: bytes = b"", seconds: float = 60, env: Mapping[str, str] | None = None) -> Finished:
    """Run a verb to its end."""
    command = [sys.executable, "-m", "trmq", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=seconds, env=NOBODY | dict(env or {}))
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def frame(header: bytes, body: bytes = b"", serialize: int = 0) -> bytes:
    return struct.pack(">II", 4 + len(header) + len(body), serialize << 24 | len(header)) + header + body


def request(code: int, fields: Mapping[str, object] | None = None, body: bytes = b"", *, opaque: int = 1) -> bytes:
    ext = {name: str(value) for name, value in (fields or {}).items()}
    header = {"code": code, "language": "JAVA", "version": 493, "opaque": opaque, "flag": 0, "extFields": ext,
              "serializeTypeCurrentRPC": "JSON"}  # fmt: skip
    return frame(json.dumps(header).encode(), body)


def send_fields(topic: str, queue_id: int = 0, properties: str = "", **changes: object) -> dict[str, object]:
    return {"a": "p", "b": topic, "c": "TBW102", "d": 4, "e": queue_id, "f": 0, "g": int(time.time() * 1000), "h": 0, "i": properties,
            "j": 0, "k": "false", "l": 0, "m": "false"} | changes  # fmt: skip


def pull_fields(topic: str, queue_id: int, offset: int, **changes: object) -> dict[str, object]:
    """A pull that does not wait."""
    return {"consumerGroup": "g", "topic": topic, "queueId": queue_id, "queueOffset": offset, "maxMsgNums": 32, "sysFlag": 4,
            "commitOffset": 0, "suspendTimeoutMillis": 0, "subVersion": 0, "subscription": "*", "expressionType": "TAG",
            } | changes  # fmt: skip


class Peer:
    """One connection. `send` and `read` move bytes, `ask` is a request and its answer."""

    def __init__(self, port: int, timeout: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.opaque = 0

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> Answer | None:
        """The next frame; None when the other side has closed."""
        head = self._exactly(8)
        if head is None:
            return None
        length, header_size = int.from_bytes(head[:4], "big"), int.from_bytes(head[5:8], "big")
        rest = self._exactly(length - 4)
        if rest is None:
            return None
        header = json.loads(rest[:header_size])
        return Answer(header["code"], header.get("remark") or "", header.get("extFields") or {}, rest[header_size:])

    def ask(self, code: int, fields: Mapping[str, object] | None = None, body: bytes = b"") -> Answer:
        self.opaque += 1
        self.send(request(code, fields, body, opaque=self.opaque))
        answer = self.read()
        assert answer is not None, f"the connection was closed instead of an answer to request {code}"
        return answer

    def closed_by_the_other_side(self) -> bool:
        """Waits for the end of the stream; an answer before it counts as False."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                chunk = self.socket.recv(min(size - len(data), 1 << 20))
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            data += chunk
        return bytes(data)


class Server:
    """`trmq serve` with a name server of its own on free ports, and with small files. `acked` is every (queue, offset, body) that was
    answered SEND_OK."""

    def __init__(self, folder: Path, *options: str, topic: str = "Acked", **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.store, self.topic = folder, folder / "store", topic
        self.options = [*options, *(part for name, value in settings.items() for part in ("--set", f"{name}={value}"))]
        self.process: subprocess.Popen[str] | None = None
        self.port = self.ns_port = 0
        self.acked: list[tuple[int, int, bytes]] = []

    @property
    def name_server(self) -> str:
        return f"127.0.0.1:{self.ns_port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Server:
        command = [sys.executable, "-m", "trmq", "serve", "--store", str(self.store), "--listen-port", "0", "--namesrv-port", "0"]
        with open(self.folder / "stderr", "ab") as errors:
            self.process = subprocess.Popen([*command, *self.options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                            text=True, env=MODEST, start_new_session=True)  # fmt: skip
        watchdog = threading.Timer(START_SECONDS_MAX, self.process.kill)
        watchdog.start()
        try:
            self.ns_port = self._port(r"The Name Server boot success\. serializeType=JSON, address 127\.0\.0\.1:(\d+)")
            self.port = self._port(r"The broker\[\S+, 127\.0\.0\.1:(\d+)\] boot success\.")
        finally:
            watchdog.cancel()
        return self

    def _port(self, ready: str) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(ready, line)
        assert found, f"{line!r} where a readiness line was expected; {self.errors()}"
        return int(found[1])

    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Signal the process and wait for its end; its exit code."""
        assert self.process is not None
        if self.running:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def peer(self, timeout: float = 20) -> Peer:
        return Peer(self.port, timeout)

    def ask(self, code: int, fields: Mapping[str, object] | None = None, body: bytes = b"") -> Answer:
        """One request over a connection of its own."""
        with self.peer() as peer:
            return peer.ask(code, fields, body)

    def put(self, body: bytes, queue_id: int = 0, properties: str = "", peer: Peer | None = None) -> Answer:
        """Send to `topic`; what is answered SEND_OK is remembered and expected back by `check`."""
        ask = self.ask if peer is None else peer.ask
        answer = ask(SEND, send_fields(self.topic, queue_id, properties), body)
        if answer.code == 0:
            self.acked.append((int(answer.ext["queueId"]), int(answer.ext["queueOffset"]), body))
        return answer

    def everything(self, peer: Peer) -> set[tuple[int, int, bytes]]:
        """All messages of the queues that `acked` names."""
        found = set()
        for queue_id in {queue_id for queue_id, _, _ in self.acked}:
            offset = 0
            while True:
                answer = peer.ask(PULL, pull_fields(self.topic, queue_id, offset))
                if answer.code == 21 and int(answer.ext["nextBeginOffset"]) > offset:  # what was before is gone
                    offset = int(answer.ext["nextBeginOffset"])
                    continue
                if answer.code not in (0, 20):
                    break
                found |= {(queue_id, message.queue_offset, bytes(message.body)) for message in decode_records(answer.body)}
                offset = int(answer.ext["nextBeginOffset"])
        return found

    def check(self) -> None:
        """The promise behind every kind of bad input: it lives, it answers, no traceback, and what was acked is there."""
        assert self.running, self.errors()[-2000:]
        assert "Traceback" not in self.errors(), self.errors()[-4000:]
        with self.peer() as peer:
            assert peer.ask(BROKER_RUNTIME).code == 0
            assert self.put(b"after all that %d" % len(self.acked), peer=peer).code == 0
            missing = set(self.acked) - self.everything(peer)
        few = [(queue_id, offset, body[:40]) for queue_id, offset, body in sorted(missing)[:3]]
        assert not missing, f"{len(missing)} of {len(self.acked)} acked messages are missing, among them {few}"

    def resident_bytes(self) -> int:
        """Private memory of the process. Mapped files are left out: they are the page cache's."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", text)
        assert found
        return int(found[1]) * 1024


def wait_until(done: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """What `done` gives as soon as it is true; looks often."""
    end = time.monotonic() + seconds
    while True:
        found = done()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
