"""A name server, a master and its slave, of trmq or of Apache RocketMQ 5.4.0, as processes with the same face; and raw requests to them.

What is common to the benchmarks of replication. Settings are the defaults of either system but for ports, addresses, file sizes,
`inSyncReplicas=2` (under which Apache's SYNC_MASTER waits for its slave, as trmq's does by default) and what a caller adds.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from interop import jvm  # noqa: E402
from interop.cluster import SMALL, Node, broker_ports, free_ports  # noqa: E402

JVM_APACHE = {
    "namesrv": ["-Xms256m", "-Xmx256m", "-XX:+UseG1GC"],
    "broker": ["-Xms512m", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxDirectMemorySize=1g"],
}
SETTINGS: dict[str, Any] = {
    "mappedFileSizeCommitLog": 256 << 20,
    "messageDelayLevel": "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",
}
SEND, BATCH, PULL, CREATE_TOPIC, RUNTIME_INFO, MAX_OFFSET, CLUSTER_INFO, HA_STATUS = 310, 320, 11, 17, 28, 30, 106, 907
FOUND = OK = 0


class Pair:
    """Start the parts one by one or all with `start`; everything lies in `folder`. `profile` names a file for the profile of one role."""

    def __init__(self, kind: str, folder: Path, *, master: dict[str, Any] | None = None, slave: dict[str, Any] | None = None,
                 profile: tuple[str, Path] | None = None, **both: Any) -> None:  # fmt: skip
        self.kind, self.folder, self.profile = kind, folder, profile
        self.ns_port, self.port, self.slave_port = free_ports(1)[0], broker_ports(), broker_ports()
        folder.mkdir(parents=True, exist_ok=True)
        common = SMALL | SETTINGS | {"namesrvAddr": self.name_server} | both
        self.ns = self._node("namesrv", "namesrv", {"listenPort": self.ns_port})
        self.master = self._node("master", "broker", common | _place(folder / "master", self.port) | {
            "brokerRole": "SYNC_MASTER", "inSyncReplicas": 2} | (master or {}))  # fmt: skip
        self.slave = self._node("slave", "broker", common | _place(folder / "slave", self.slave_port) | {
            "brokerRole": "SLAVE", "brokerId": 1} | (slave or {}))  # fmt: skip

    @property
    def name_server(self) -> str:
        return f"127.0.0.1:{self.ns_port}"

    @property
    def nodes(self) -> tuple[Node, Node, Node]:
        return self.ns, self.master, self.slave

    def pids(self) -> str:
        """The two brokers as the load generator takes them."""
        assert self.master.process is not None
        assert self.slave.process is not None
        return f"master={self.master.process.pid},slave={self.slave.process.pid}"

    def start(self) -> Pair:
        """All three, one after the other; returns when a send was acknowledged by both brokers."""
        self.start_master()
        self.slave.start()
        self.wait_for_ack()
        return self

    def start_master(self) -> None:
        self.ns.start()
        self.ns.wait_until(lambda: listens(self.ns_port), f"{self.kind} name server")
        self.master.start()
        self.master.wait_until(self.registered, f"{self.kind} master")

    def registered(self) -> bool:
        """The name server has a route to the master."""
        with Connection(self.ns_port) as connection:
            return f":{self.port}".encode() in connection.call(CLUSTER_INFO)[2]

    def wait_for_ack(self, seconds: float = 90) -> None:
        """Until the master answers a send with SEND_OK, which it does only when a slave has it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with Connection(self.port) as connection:
                    while (code := send(connection, "probe")) != OK and time.monotonic() < end:
                        time.sleep(0.005)
                    if code == OK:
                        return
            except OSError:
                time.sleep(0.002)
            for node in self.nodes:
                if node.process is not None and not node.running:
                    raise RuntimeError(f"{node.folder.name} of {self.kind} ended at start: {node.output()[-2000:]}")
        raise RuntimeError(f"{self.kind}: no send was acknowledged with a slave in {seconds} s: {self.master.output()[-1000:]}")

    def wait_for_copy(self, seconds: float = 60) -> None:
        """Until the slave's log ends where the master's does."""
        with Connection(self.port) as master, Connection(self.slave_port) as slave:
            wait_until(lambda: log_end(slave) == log_end(master), f"{self.kind}: the slave holds what the master holds", seconds, 0.01)

    def empty_slave(self) -> None:
        """Kill the slave and delete what it stored."""
        self.slave.kill()
        shutil.rmtree(self.folder / "slave", ignore_errors=True)
        self.slave.folder.mkdir(parents=True, exist_ok=True)

    def kill(self) -> None:
        for node in reversed(self.nodes):
            node.kill()

    def _node(self, name: str, role: str, conf: dict[str, Any]) -> Node:
        path = self.folder / f"{name}.conf"
        path.write_text("".join(f"{key}={value}\n" for key, value in conf.items()))
        folder = self.folder / "output" / name
        if self.kind == "apache":
            main = {"namesrv": "org.apache.rocketmq.namesrv.NamesrvStartup", "broker": "org.apache.rocketmq.broker.BrokerStartup"}[role]
            java = ["java", *JVM_APACHE[role], f"-Duser.home={folder}", "-cp", f"{jvm.jars()}/*"]
            return Node([*java, main, "-c", str(path)], folder, {"ROCKETMQ_HOME": str(folder)})
        profiler = ["-m", "cProfile", "-o", str(self.profile[1])] if self.profile is not None and self.profile[0] == name else []
        verb = "namesrv" if role == "namesrv" else "serve"
        return Node([sys.executable, *profiler, "-m", "trmq", verb, "-c", str(path)], folder, {})


def _place(store: Path, port: int) -> dict[str, Any]:
    return {"listenPort": port, "haListenPort": port + 1, "storePathRootDir": store, "storePathCommitLog": store / "commitlog"}


@contextmanager
def pair(kind: str, **settings: Any) -> Iterator[Pair]:
    """A pair in a folder of its own, not yet started; killed and deleted at the end."""
    with TemporaryDirectory(prefix="bench-") as folder:
        made = Pair(kind, Path(folder), **settings)
        try:
            yield made
        finally:
            made.kill()


class Connection:
    """Requests one at a time over one connection."""

    def __init__(self, port: int, timeout: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opaque = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(self, code: int, fields: dict[str, str] | None = None, body: bytes = b"") -> tuple[int, dict[str, Any], bytes]:
        """The answer's code, its fields with the remark among them, its body."""
        self.opaque += 1
        header = json.dumps({"code": code, "language": "JAVA", "version": 493, "opaque": self.opaque, "flag": 0, "extFields": fields or {},
                             "serializeTypeCurrentRPC": "JSON"}).encode()  # fmt: skip
        self.socket.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
        while True:
            frame = self._read(int.from_bytes(self._read(4), "big"))
            head_end = 4 + int.from_bytes(frame[1:4], "big")
            head = json.loads(frame[4:head_end])
            if head["opaque"] == self.opaque and head["flag"] & 1:
                return head["code"], (head.get("extFields") or {}) | {"remark": head.get("remark")}, frame[head_end:]

    def _read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size:
            pieces.append(self.socket.recv(size))
            if not pieces[-1]:
                raise ConnectionError("closed without an answer")
            size -= len(pieces[-1])
        return b"".join(pieces)


def listens(port: int) -> bool:
    """Seen by connecting: a trial bind could take the port from the server that is about to."""
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def send_fields(topic: str, queue: int, properties: str, batch: bool = False) -> dict[str, str]:
    return {"a": "bench", "b": topic, "c": "TBW102", "d": "4", "e": str(queue), "f": "0", "g": str(int(time.time() * 1000)), "h": "0",
            "i": properties, "j": "0", "k": "false", "m": str(batch).lower()}  # fmt: skip


def send(connection: Connection, topic: str, queue: int = 0, body: bytes = b"x" * 128) -> int:
    return connection.call(SEND, send_fields(topic, queue, "WAIT\x01true\x02"), body)[0]


def create_topic(connection: Connection, topic: str, queues: int = 4) -> None:
    fields = {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": str(queues), "writeQueueNums": str(queues), "perm": "6",
              "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}  # fmt: skip
    code, fields, _ = connection.call(CREATE_TOPIC, fields)
    if code != OK:
        raise RuntimeError(f"topic {topic} was not created: {code} {fields['remark']}")


def pull(connection: Connection, topic: str, queue: int = 0) -> tuple[int, str | None]:
    """Code and remark of a pull at offset 0 that does not wait."""
    fields = {"consumerGroup": "bench", "topic": topic, "queueId": str(queue), "queueOffset": "0", "maxMsgNums": "1", "sysFlag": "4",
              "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
              "expressionType": "TAG"}  # fmt: skip
    code, answer, _ = connection.call(PULL, fields)
    return code, answer["remark"]


def log_end(connection: Connection) -> int:
    """commitLogMaxOffset as the broker reports it."""
    _, _, body = connection.call(RUNTIME_INFO)
    found = re.search(rb'"commitLogMaxOffset":"(\d+)"', body)
    assert found is not None, body
    return int(found[1])


def messages_in(connection: Connection, topic: str, queues: int = 4) -> int:
    """Messages of the topic that a consumer could read, by the ends of its queues."""
    return sum(int(connection.call(MAX_OFFSET, {"topic": topic, "queueId": str(queue)})[1].get("offset") or 0) for queue in range(queues))


def reported(connection: Connection) -> int | None:
    """The furthest offset that a connected slave reported to this master; None without a slave."""
    code, fields, body = connection.call(HA_STATUS)
    if code != OK:
        raise RuntimeError(f"no HA status: {code} {fields['remark']}")
    slaves = json.loads(body).get("haConnectionInfo") or []
    return max((int(slave["slaveAckOffset"]) for slave in slaves), default=None)


def fill(port: int, topic: str, until: Callable[[int, int], bool], per_batch: int = 1000, body: bytes = b"x" * 1024) -> int:
    """Send batches over one connection, nobody waiting for a slave, until `until(messages sent, log end)`; how many messages went."""
    sent = 0
    with Connection(port) as connection:
        while not until(sent, log_end(connection)):
            parts = [part(f"UNIQ_KEY\x01{sent + n:032X}\x02WAIT\x01false\x02".encode(), body) for n in range(per_batch)]
            fields = send_fields(topic, sent // per_batch % 4, "WAIT\x01false\x02", batch=True)
            code, answer, _ = connection.call(BATCH, fields, b"".join(parts))
            if code == OK:
                sent += per_batch
            elif code == 2:  # busy: Apache's flow control
                time.sleep(0.1)
            else:
                raise RuntimeError(f"a batch was refused: {code} {answer['remark']}")
    return sent


def part(properties: bytes, body: bytes) -> bytes:
    """One message of a batch's body."""
    size = 22 + len(body) + len(properties)
    return b"".join((struct.pack(">iiiii", size, 0, 0, 0, len(body)), body, struct.pack(">h", len(properties)), properties))


def wait_until(ready: Callable[[], bool], what: str, seconds: float, pause: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(pause)
