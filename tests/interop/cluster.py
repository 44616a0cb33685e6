"""Real processes under test: name servers and brokers of Apache RocketMQ or of trmq, with the same face, each to be killed by itself."""

from __future__ import annotations

import os
import random
import re
import shutil
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
    "diskSpaceWarningLevelRatio": 100, "diskMaxUsedSpaceRatio": 100, "cleanFileForciblyEnable": "false",
    "messageDelayLevel": "1s 2s 3s 4s 5s 6s 7s 8s 9s 10s 11s 12s 13s 14s 15s 16s 17s 18s",
}
"""Small files and short delay levels, so that segments roll and retries come soon. Java retries start at level 3. However full the
machine's disk is, sends are taken and files are kept."""
APACHE_USED_MAX = 0.9
"""Apache's broker refuses sends on a disk that is fuller, whatever diskSpaceWarningLevelRatio says: it takes 90 for more than 90."""

_QUICK = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
JVM_SMALL = {
    "namesrv": ["-Xms64m", "-Xmx128m", *_QUICK],
    "broker": ["-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=256m", *_QUICK],
}


def skip_on_a_full_disk(folder: Path) -> None:
    """Before anything is started."""
    import pytest

    disk = shutil.disk_usage(folder)
    if disk.used / (disk.used + disk.free) > APACHE_USED_MAX - 0.01:
        pytest.skip(f"SKIPPED LOUDLY: Apache's broker refuses sends on a disk that is over {APACHE_USED_MAX:.0%} full")


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
        """SIGKILL; returns when it is dead for sure."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        """SIGSTOP; returns when no thread of it runs any more."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

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


class Broker(Node):
    """A broker of `kind` "apache" or "trmq" with a store of its own. What is changed in `settings` holds from the next start on."""

    def __init__(self, kind: str, folder: Path, settings: dict[str, Any], store: Path | None = None, java: list[str] | None = None) -> None:
        self.kind, self.settings, self.store = kind, settings, store or folder / "store"
        self.conf = folder.with_suffix(".conf")
        self.port = 0
        super().__init__(command(kind, "broker", self.conf, folder, java), folder, environment(kind, folder))

    def choose_ports(self) -> None:
        self.port = broker_ports()

    def start(self) -> None:
        conf = SMALL | {"listenPort": self.port, "haListenPort": self.port + 1, "storePathRootDir": self.store,
                        "storePathCommitLog": self.store / "commitlog"} | self.settings
        self.conf.write_text("".join(f"{key}={value}\n" for key, value in conf.items()))
        super().start()

    def start_and_wait(self) -> None:
        """Start; return when its name servers have a route to it and it answers."""
        self.start()
        self.wait_until(self.answers, f"{self.kind} broker")

    def answers(self) -> bool:
        for address in str(self.settings["namesrvAddr"]).split(";"):
            code, _, body = call(int(address.rpartition(":")[2]), 106)
            if code or f":{self.port}\"".encode() not in body:
                return False
        return call(self.port, 28)[0] == 0


class Group:
    """Name servers (usually one) and any number of brokers. `settings` are those of all brokers, `add` has those of each."""

    def __init__(
        self, folder: Path, kind: str = "trmq", name_servers: int = 1, jvm_options: dict[str, list[str]] = JVM_SMALL, **settings: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.kind, self.jvm_options, self.settings = folder, kind, jvm_options, settings
        self.name_servers: list[Node] = []
        self.ns_ports = [0] * name_servers
        self.brokers: list[Broker] = []
        for i in range(name_servers):
            name = f"namesrv{i or ''}"
            options = command(kind, "namesrv", folder / f"{name}.conf", folder / name, jvm_options["namesrv"])
            self.name_servers.append(Node(options, folder / name, environment(kind, folder / name)))

    def add(self, name: str, kind: str = "", store: Path | None = None, **settings: Any) -> Broker:
        """A broker that is not started yet; its folder is `name`."""
        if (kind or self.kind) == "apache":
            skip_on_a_full_disk(self.folder)
        broker = Broker(kind or self.kind, self.folder / name, self.settings | settings, store, self.jvm_options["broker"])
        self.brokers.append(broker)
        return broker

    @property
    def name_server(self) -> str:
        return ";".join(f"127.0.0.1:{port}" for port in self.ns_ports)

    def start(self, *brokers: Broker) -> None:
        """Start everything, or of the brokers only these, in the order in which they were added, each when the one before answers."""
        for attempt in range(3):
            self.choose_ports()
            try:
                self.start_name_servers()
                for broker in brokers or self.brokers:
                    broker.start_and_wait()
                return
            except RuntimeError:
                self.stop()
                if attempt == 2:
                    raise

    def choose_ports(self) -> None:
        self.ns_ports = free_ports(len(self.ns_ports))
        for broker in self.brokers:
            broker.choose_ports()
            broker.settings["namesrvAddr"] = self.name_server

    def start_name_servers(self) -> None:
        for node, port in zip(self.name_servers, self.ns_ports, strict=True):
            node.folder.with_suffix(".conf").write_text(f"listenPort={port}\n")
            node.start()
        for node, port in zip(self.name_servers, self.ns_ports, strict=True):
            node.wait_until(lambda port=port: call(port, 106), f"{self.kind} name server")  # type: ignore[misc]

    def stop(self) -> None:
        for node in [*reversed(self.brokers), *self.name_servers]:
            if node.running:
                node.resume()
            node.stop(10)


class Cluster(Group):
    """A name server and one broker. `kind` is "apache" or "trmq"; the store survives `start_broker`."""

    def __init__(
        self, kind: str, folder: Path, store: Path | None = None, jvm_options: dict[str, list[str]] = JVM_SMALL, **settings: Any
    ) -> None:
        super().__init__(folder, kind, jvm_options=jvm_options, **settings)
        self.broker = self.add("broker", store=store or folder / "store")
        self.ns = self.name_servers[0]

    @property
    def ns_port(self) -> int:
        return self.ns_ports[0]

    @property
    def port(self) -> int:
        return self.broker.port

    @property
    def store(self) -> Path:
        return self.broker.store

    def start(self) -> Cluster:  # type: ignore[override]
        super().start()
        return self

    def start_quickly(self, ready: Callable[[], bool]) -> None:
        """Start both processes, the broker as soon as the name server listens, and return when `ready` first holds (looks every 2 ms)."""
        self.choose_ports()
        self.ns.folder.with_suffix(".conf").write_text(f"listenPort={self.ns_port}\n")
        self.ns.start()
        self.ns.wait_until(lambda: not is_free(self.ns_port), "name server", pause=0.002)
        self.broker.start()
        self.broker.wait_until(ready, "broker", pause=0.002)

    def start_broker(self) -> None:
        self.broker.start_and_wait()

    def kill_broker(self) -> None:
        self.broker.kill()

    def stop_broker(self) -> int:
        return self.broker.stop()


MAIN = {"namesrv": "org.apache.rocketmq.namesrv.NamesrvStartup", "broker": "org.apache.rocketmq.broker.BrokerStartup"}


def command(kind: str, part: str, conf: Path, home: Path, java: list[str] | None) -> list[str]:
    """How a name server or broker is started. Only Apache's needs `java`, the options of its JVM."""
    if kind == "trmq":
        return [sys.executable, "-m", "trmq", "namesrv" if part == "namesrv" else "serve", "-c", str(conf)]
    return ["java", *(java or JVM_SMALL[part]), f"-Duser.home={home}", "-cp", f"{jvm.jars()}/*", MAIN[part], "-c", str(conf)]


def environment(kind: str, home: Path) -> dict[str, str]:
    return {"ROCKETMQ_HOME": str(home)} if kind == "apache" else {}


def commit_log_end(port: int) -> int:
    """commitLogMaxOffset as the broker reports it."""
    _, _, body = call(port, 28)
    found = re.search(rb'"commitLogMaxOffset":"(\d+)"', body)
    assert found is not None
    return int(found[1])


def ha_status(port: int) -> dict[str, Any]:
    """GET_BROKER_HA_STATUS: `master`, and the slaves in `haConnectionInfo` or the link in `haClientRuntimeInfo`."""
    import json

    code, _, body = call(port, 907)
    assert code == 0, code
    return dict(json.loads(body))


def slaves_at(port: int, lag: int | None = None) -> int:
    """Slaves that are connected to a master and not far behind, or at most `lag` bytes behind what it had when it answered."""
    status = ha_status(port)
    if lag is None:
        return int(status["inSyncSlaveNums"])
    return sum(status["masterCommitLogMaxOffset"] - slave["slaveAckOffset"] <= lag for slave in status["haConnectionInfo"])
