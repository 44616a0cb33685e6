"""The C++ client, in the wheel of its Python binding, against trmq: heartbeats with enums as numbers, the V1 header, its own JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import jvm
from .cluster import Cluster

WHEEL = "rocketmq==0.4.4"
PROGRAM = """
import json, os, sys, threading
from rocketmq.client import Message, Producer, PushConsumer

name_server, topic = sys.argv[1:]
seen, done, lock = [], threading.Event(), threading.Lock()

def take(message):
    with lock:
        body = bytes(message.body).decode()
        seen.append(body)
        if len(seen) == 10:
            done.set()

producer = Producer("cpp_producer")
producer.set_namesrv_addr(name_server)
producer.start()
for i in range(10):
    for tag in ("red", "blue"):
        message = Message(topic)
        message.set_tags(tag)
        message.set_body(f"{tag}-{i}")
        assert producer.send_sync(message).status == 0
consumer = PushConsumer("cpp_group")
consumer.set_namesrv_addr(name_server)
consumer.subscribe(topic, take, "red")
consumer.start()
done.wait(90)
with lock:
    print(json.dumps(seen), flush=True)
os._exit(0)  # this client may abort in its own destructors
"""


@pytest.fixture(scope="module")
def cpp_client() -> Path:
    """The folder with the client; it comes from PyPI once."""
    folder = jvm.CACHE / "cpp"
    with jvm.locked():
        if not folder.exists():
            options = ["-q", "--no-deps", "--only-binary", ":all:", "--target", str(folder)]
            command = [sys.executable, "-m", "pip", "install", *options, WHEEL]
            installed = subprocess.run(command, capture_output=True, text=True)
            if installed.returncode:
                pytest.skip(f"SKIPPED LOUDLY: no C++ client for this machine: {installed.stderr.strip().splitlines()[-1]}")
    return folder


def test_cpp_client_sends_and_consumes(trmq: Cluster, cpp_client: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, trmq.name_server, "cpp_topic"], capture_output=True, text=True, timeout=120,
        env=dict(os.environ, PYTHONPATH=str(cpp_client), HOME=str(tmp_path)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(json.loads(done.stdout.splitlines()[-1])) == [f"red-{i}" for i in range(10)], "each once, none of the other tag"
