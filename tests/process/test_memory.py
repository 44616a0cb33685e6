"""What peers can make a real process hold: thousands that do nothing, and some that ask for much and never read it."""

from __future__ import annotations

import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from process.server import PULL, Server, pull_fields, request, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to see what a process holds")

IDLE = 5_000
IDLE_BYTES_MAX = 20_000
"""Private memory that one idle connection may cost. Trio's task and ours come to some 10 KB."""
DEAF = 10
DEAF_BYTES_MAX = 12 << 20
"""Private memory that one peer may cost that asks and never reads: a read of requests, a batch of answers, and their joined copy."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"SKIPPED LOUDLY: {IDLE} connections need {wanted} open files, this machine allows {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    server = Server(tmp_path_factory.mktemp("memory")).start()
    yield server
    assert server.end(signal.SIGTERM) == 0
    assert "Traceback" not in server.errors()


def test_five_thousand_idle_connections(server: Server) -> None:
    server.check()
    before = server.resident_bytes()
    idle = []
    try:
        for _ in range(IDLE):
            idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        server.check()  # accepted in order: all those before this one are being served
        held = server.resident_bytes() - before
        print(f"{held / IDLE:,.0f} bytes per idle connection")
        assert held < IDLE * IDLE_BYTES_MAX
        idle[0].sendall(request(28))
        assert len(idle[0].recv(8)) == 8, "an old one is served as well"
    finally:
        for each in idle:
            each.close()
    server.check()


def test_peers_that_never_read(server: Server) -> None:
    for n in range(64):
        assert server.put(bytes([n]) * 60_000).code == 0
    server.check()
    before = server.resident_bytes()
    ask = request(PULL, pull_fields(server.topic, 0, 0)) * 100
    peers = []
    for _ in range(DEAF):
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.setblocking(False)
        peers.append(deaf)
    try:
        while ready := select.select([], peers, [], 1.0)[1]:  # until the broker reads from none of them any more
            for deaf in ready:
                deaf.send(ask)
        server.check()
        held = server.resident_bytes() - before
        print(f"{held / DEAF / (1 << 20):,.1f} MiB per deaf peer")
        assert held < DEAF * DEAF_BYTES_MAX
    finally:
        for deaf in peers:
            deaf.close()
    wait_until(lambda: server.resident_bytes() - before < DEAF * DEAF_BYTES_MAX / 2, "the memory of the deaf peers is given back")
    server.check()
