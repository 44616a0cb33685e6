"""Real processes under test: a name server and a broker of Apache RocketMQ or of trmq, with the same face."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import jvm

SMALL: dict[str, Any] = {
    "brokerClusterName": "DefaultCluster", "brokerName": "broker-a", "brokerId": 0, "brokerRole": "ASYNC_MASTER", "brokerIP1": "127.0.0.1",
    "brokerIP2": "127.0.0.1", "autoCreateTopicEnable": "true", "deleteWhen": "04", "fileReservedTime": 48,
    "mappedFileSizeCommitLog": 16 << 20, "flushDiskType": "ASYNC_FLUSH",
    "messageDelayLevel": "1s 2s 3s 4s 5s 6s 7s 8s 9s 10s 11s 12s 13s 14s 15s 16s 17s 18s",
}
"""Small files and short delay levels, so that segments roll and retries come soon. Java retries start at level 3."""

_QUICK = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
JVM_SMALL = {
    "namesrv": ["-Xms64m", "-Xmx128m", *_QUICK],
    "broker": ["-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=256m", *_QUICK],
}


def free_ports(count: int) -> list[int]:
    """Ports that are free now and that no outgoing connection will be given: below the range that the system takes those from."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 30_000)
        if port not in found and is_free(port):
            found.append(port)
    return found


def broker_ports() -> int:
    """A port p such that p, p-2 (fast server) and p+1 (HA) are free."""
    while True:
        (port,) = free_ports(1)
        if is_free(port - 2) and is_free(port + 1):
            return port


def is_free(port: int) -> bool:
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def call(port: int, code: int, fields: dict[str, str] | None = None, body: bytes = b"") -> tuple[int, dict[str, Any], bytes]:
    """One request over a fresh connection, spoken by hand so that nothing of trmq is needed to see whether a server answers."""
    import json

    header = json.dumps({"code": code, "language": "JAVA", "version": 493, "opaque": 1, "flag": 0, "extFields": fields or {},
                         "serializeTypeCurrentRPC": "JSON"}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
        s.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
        data = b""
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            chunk = s.recv(65536)
            if not chunk:
                raise ConnectionError("closed without an answer")
            data += chunk
    head_size = int.from_bytes(data[5:8], "big")
    head = json.loads(data[8 : 8 + head_size])
    return head["code"], head.get("extFields") or {}, data[8 + head_size :]


class Node:
    """One process, started, stopped and killed by pid."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.command, self.folder, self.env = command, folder, env
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.folder / "output", "ab") as output:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                            env=dict(os.environ, **self.env), start_new_session=True)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM and wait; SIGKILL when that takes too long. Returns the exit code."""
        if self.process is None:
            return 0
        if self.running:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def wait_until(self, ready: Callable[[], object], what: str, seconds: float = 60, pause: float = 0.01) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.running:
                raise RuntimeError(f"{what} ended at start: {self.output()[-2000:]}")
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(pause)
        raise RuntimeError(f"{what} not ready in {seconds} s: {self.output()[-2000:]}")


class Cluster:
    """A name server and one broker. `kind` is "apache" or "trmq"; the store survives `restart_broker`."""

    def __init__(
        self, kind: str, folder: Path, store: Path | None = None, jvm_options: dict[str, list[str]] = JVM_SMALL, **settings: Any
    ) -> None:
        self.kind, self.folder, self.jvm_options = kind, folder, jvm_options
        self.store = store or folder / "store"
        self.settings = settings
        self.ns_port = self.port = 0
        self.ns: Node
        self.broker: Node

    @property
    def name_server(self) -> str:
        return f"127.0.0.1:{self.ns_port}"

    def start(self) -> Cluster:
        for attempt in range(3):
            self.ns_port, self.port = free_ports(1)[0], broker_ports()
            self.ns, self.broker = self._nodes()
            try:
                self.ns.start()
                self.ns.wait_until(lambda: call(self.ns_port, 106), f"{self.kind} name server")
                self.start_broker()
                return self
            except RuntimeError:
                self.stop()
                if attempt == 2:
                    raise
        return self

    def start_quickly(self, ready: Callable[[], bool]) -> None:
        """Start both processes, the broker as soon as the name server listens, and return when `ready` first holds (looks every 2 ms)."""
        self.ns_port, self.port = free_ports(1)[0], broker_ports()
        self.ns, self.broker = self._nodes()
        self.ns.start()
        self.ns.wait_until(lambda: not is_free(self.ns_port), "name server", pause=0.002)
        self.broker.start()
        self.broker.wait_until(ready, "broker", pause=0.002)

    def start_broker(self) -> None:
        self.broker.start()
        self.broker.wait_until(self._answers, f"{self.kind} broker")

    def _answers(self) -> bool:
        """The name server has a route to the broker and the broker answers."""
        code, _, body = call(self.ns_port, 106)
        return code == 0 and f":{self.port}".encode() in body and call(self.port, 28)[0] == 0

    def kill_broker(self) -> None:
        self.broker.kill()

    def stop_broker(self) -> int:
        return self.broker.stop()

    def stop(self) -> None:
        self.broker.stop(10)
        self.ns.stop(10)

    def _nodes(self) -> tuple[Node, Node]:
        self.folder.mkdir(parents=True, exist_ok=True)
        ns_conf, broker_conf = self.folder / "namesrv.conf", self.folder / "broker.conf"
        ns_conf.write_text(f"listenPort={self.ns_port}\n")
        conf = SMALL | {"namesrvAddr": self.name_server, "listenPort": self.port, "haListenPort": self.port + 1,
                        "storePathRootDir": self.store, "storePathCommitLog": self.store / "commitlog"} | self.settings
        broker_conf.write_text("".join(f"{key}={value}\n" for key, value in conf.items()))
        make = self._apache if self.kind == "apache" else self._trmq
        return make("namesrv", ns_conf), make("broker", broker_conf)

    def _apache(self, role: str, conf: Path) -> Node:
        folder = self.folder / role
        main = {"namesrv": "org.apache.rocketmq.namesrv.NamesrvStartup", "broker": "org.apache.rocketmq.broker.BrokerStartup"}[role]
        java = ["java", *self.jvm_options[role], f"-Duser.home={folder}", "-cp", f"{jvm.jars()}/*"]
        return Node([*java, main, "-c", str(conf)], folder, {"ROCKETMQ_HOME": str(folder)})

    def _trmq(self, role: str, conf: Path) -> Node:
        verb = "namesrv" if role == "namesrv" else "serve"
        return Node([sys.executable, "-m", "trmq", verb, "-c", str(conf)], self.folder / role, {})


def commit_log_end(port: int) -> int:
    """commitLogMaxOffset as the broker reports it."""
    _, _, body = call(port, 28)
    found = re.search(rb'"commitLogMaxOffset":"(\d+)"', body)
    assert found is not None
    return int(found[1])
