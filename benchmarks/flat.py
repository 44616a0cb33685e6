"""Cost must not grow with what is stored or waiting: 1 against 5,000 queues, few against many messages, 0 against 1,000 held pulls.

    python benchmarks/flat.py [--messages 2000000] [--markdown FILE]

The load is a raw pipelined sender of this file's own (no Java needed): 256 requests in flight on one connection, 1 KiB bodies.
Prints broker CPU per message in each state and its ratio to the plain state.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from interop.cluster import Cluster, call  # noqa: E402

BODY = b"x" * 1024
IN_FLIGHT = 256


def request(code: int, fields: dict[str, str], opaque: int, body: bytes = b"") -> bytes:
    header = json.dumps(
        {"code": code, "language": "JAVA", "version": 493, "opaque": opaque, "flag": 0, "extFields": fields},
        separators=(",", ":"),
    ).encode()
    return struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body


def send_request(topic: str, queue: int, opaque: int) -> bytes:
    fields = {"a": "flat", "b": topic, "c": "TBW102", "d": "4", "e": str(queue), "f": "0", "g": str(int(time.time() * 1000)), "h": "0",
              "i": f"UNIQ_KEY\x01{opaque:032X}\x02WAIT\x01true\x02", "j": "0", "k": "false", "m": "false"}  # fmt: skip
    return request(310, fields, opaque, BODY)


class Pipe:
    """One connection with many requests in flight; counts answers by their frames."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.opaque = 0

    def answers(self) -> int:
        """Block until at least one answer is complete; how many are."""
        count = 0
        while count == 0:
            chunk = self.socket.recv(1 << 18)
            if not chunk:
                raise ConnectionError("the broker closed the connection")
            self.buffer += chunk
            at = 0
            while len(self.buffer) - at >= 4:
                size = int.from_bytes(self.buffer[at : at + 4], "big")
                if len(self.buffer) - at < 4 + size:
                    break
                at += 4 + size
                count += 1
            self.buffer = self.buffer[at:]
        return count

    def send(self, count: int, topic: str, queues: int) -> None:
        sent = done = 0
        while done < count:
            room = min(IN_FLIGHT - (sent - done), count - sent)
            if room:
                frames = []
                for _ in range(room):
                    self.opaque += 1
                    frames.append(send_request(topic, self.opaque % queues, self.opaque))
                self.socket.sendall(b"".join(frames))
                sent += room
            done += self.answers()


def cpu(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(cluster: Cluster, pipe: Pipe, topic: str, queues: int, count: int = 40_000) -> float:
    """Median broker CPU in µs per message over three stretches of `count` sends."""
    assert cluster.broker.process is not None
    pid, found = cluster.broker.process.pid, []
    for _ in range(3):
        before = cpu(pid)
        pipe.send(count, topic, queues)
        found.append((cpu(pid) - before) / count * 1e6)
    return statistics.median(found)


def create(port: int, topic: str, queues: int) -> None:
    fields = {"topic": topic, "defaultTopic": "TBW102", "readQueueNums": str(queues), "writeQueueNums": str(queues), "perm": "6",
              "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}  # fmt: skip
    code, _, _ = call(port, 17, fields)
    assert code == 0, code


def hold(port: int, count: int) -> list[socket.socket]:
    """`count` pulls that wait at the end of empty queues of topic `held`, over ten connections."""
    create(port, "held", 16)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    for number in range(count):
        fields = {"consumerGroup": "holders", "topic": "held", "queueId": str(number % 16), "queueOffset": "0", "maxMsgNums": "32",
                  "sysFlag": "6", "commitOffset": "0", "suspendTimeoutMillis": "30000", "subscription": "*", "subVersion": "0",
                  "expressionType": "TAG"}  # fmt: skip
        connections[number % 10].sendall(request(11, fields, number))
    time.sleep(1)
    return connections


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2_000_000, help="how many are stored in the large state")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    rows = ["| state | broker CPU µs/msg | against plain |", "| --- | ---: | ---: |"]
    with tempfile.TemporaryDirectory(prefix="flat-") as folder:
        cluster = Cluster("trmq", Path(folder), mappedFileSizeCommitLog=256 << 20).start()
        try:
            pipe = Pipe(cluster.port)
            create(cluster.port, "one", 1)
            create(cluster.port, "many", 5000)
            pipe.send(10_000, "one", 1)
            plain = cost(cluster, pipe, "one", 1)

            def add(state: str, figure: float) -> None:
                rows.append(f"| {state} | {figure:.1f} | {figure / plain:.2f}× |")
                print(rows[-1], flush=True)

            add("1 queue, 10,000 messages stored", plain)
            holders = hold(cluster.port, 1000)
            add("the same with 1,000 held pulls", cost(cluster, pipe, "one", 1))
            assert cluster.broker.process is not None
            before = cpu(cluster.broker.process.pid)
            time.sleep(5)
            idle = (cpu(cluster.broker.process.pid) - before) / 5 * 100
            rows.append(f"| idle with 1,000 held pulls | {idle:.2f} % of a core | |")
            print(rows[-1], flush=True)
            for connection in holders:
                connection.close()
            pipe.send(10_000, "many", 5000)
            add("5,000 queues, round robin", cost(cluster, pipe, "many", 5000))
            pipe.send(options.messages, "one", 1)
            add(f"1 queue, {options.messages:,} messages stored", cost(cluster, pipe, "one", 1))
        finally:
            cluster.broker.kill()
            cluster.ns.kill()
    print(*rows, sep="\n")
    if options.markdown:
        options.markdown.write_text("Command: `python benchmarks/flat.py " + " ".join(sys.argv[1:]) + "`\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
