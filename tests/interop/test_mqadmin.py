"""Apache's own `mqadmin` 5.4.0 against trmq: each command does what it says and prints what an operator expects.

One JVM runs all commands (a start costs a second); the consumer and the producer they look at are real Java clients too.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from . import jvm
from .cluster import Cluster

_names = count(1)
NOISE = " |-"
"""What the logging library says about itself."""


class Mqadmin:
    """`mqadmin("topicList", "-c")` returns what the command printed; a Java exception in it fails the test."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Duser.home={folder}", f"-Drocketmq.home.dir={folder}",
             "-cp", f"{jvm.classes()}:{jvm.jars()}/*", "Mqadmin"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=folder, env=dict(os.environ, ROCKETMQ_HOME=str(folder), NAMESRV_ADDR=cluster.name_server, LC_ALL="C.UTF-8"),
        )
        self.answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.answers.get(timeout=60) == '{"ready":true}'

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.answers.put(line.strip())
        self.answers.put(None)

    def __call__(self, *words: str, fails: bool = False) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        answer = self.answers.get(timeout=60)
        assert answer is not None, "mqadmin's JVM ended"
        text = "\n".join(line for line in json.loads(answer)["ok"].splitlines() if NOISE not in line)
        assert ("Exception" in text) == fails, text
        return text

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def mqadmin(trmq: Cluster, java_home: Path) -> Iterator[Mqadmin]:
    running = Mqadmin(trmq, java_home / "mqadmin")
    yield running
    running.close()


@pytest.fixture
def broker(trmq: Cluster) -> str:
    return f"127.0.0.1:{trmq.port}"


@pytest.fixture
def topic(mqadmin: Mqadmin, broker: str) -> str:
    """A new topic with four queues, known to the name server."""
    name = f"admin_topic_{next(_names)}"
    assert "success" in mqadmin("updateTopic", "-b", broker, "-t", name, "-r", "4", "-w", "4")
    until(lambda: name in mqadmin("topicList"))
    return name


@pytest.fixture
def group() -> str:
    return f"admin_group_{next(_names)}"


def until(seen: Callable[[], object], seconds: float = 30) -> None:
    """Ask again until it is so: routes and statistics follow a change within their own time."""
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "not seen in time"
        time.sleep(0.1)


def column(text: str, *start: str) -> list[str]:
    """The words of the first line that begins with the words `start`."""
    for line in text.splitlines():
        if line.split()[: len(start)] == list(start):
            return line.split()
    raise AssertionError(f"no line {start} in\n{text}")


def sent_id(text: str) -> str:
    assert "SEND_OK" in text
    return text.split()[-1]


def test_topics(mqadmin: Mqadmin, broker: str) -> None:
    name = f"admin_topic_{next(_names)}"
    mqadmin("updateTopic", "-c", "DefaultCluster", "-t", name, "-r", "3", "-w", "5", "-p", "6", "-a", "+message.type=FIFO")
    until(lambda: name in mqadmin("topicList"))
    assert column(mqadmin("topicList", "-c"), "DefaultCluster", name)
    route = mqadmin("topicRoute", "-t", name)
    assert re.search(r'"readQueueNums":3,\s*"topicSysFlag":0,\s*"writeQueueNums":5', route)
    assert f'0:"{broker}"' in route
    assert mqadmin("topicClusterList", "-t", name).strip() == "DefaultCluster"
    mqadmin("updateTopicPerm", "-b", broker, "-t", name, "-p", "4")
    until(lambda: re.search(r'"perm":4', mqadmin("topicRoute", "-t", name)))
    assert '"queueId":2' in mqadmin("allocateMQ", "-t", name, "-i", "10.0.0.1,10.0.0.2")
    mqadmin("deleteTopic", "-c", "DefaultCluster", "-t", name)
    until(lambda: name not in mqadmin("topicList"))
    assert "CODE: 17" in mqadmin("topicRoute", "-t", name, fails=True)


def test_a_reserved_or_illegal_topic_is_refused(mqadmin: Mqadmin, broker: str) -> None:
    refusal = mqadmin("updateTopic", "-b", broker, "-t", "SCHEDULE_TOPIC_XXXX", fails=True)
    assert "conflict with system topic" in refusal
    assert "not supported" in mqadmin("updateTopic", "-b", broker, "-t", "fine", "-a", "+cleanup.policy=COMPACTION", fails=True)


def test_sending_and_finding(mqadmin: Mqadmin, topic: str, broker: str) -> None:
    unique = sent_id(mqadmin("sendMessage", "-t", topic, "-p", "hello", "-k", "key1 key2", "-c", "tagA", "-b", "broker-a", "-i", "1"))
    assert column(mqadmin("topicStatus", "-t", topic), "broker-a", "1")[2:4] == ["0", "1"]
    by_offset = mqadmin("queryMsgByOffset", "-t", topic, "-b", "broker-a", "-i", "1", "-o", "0")
    assert f"UNIQ_KEY={unique}" in by_offset
    stored = column(by_offset, "OffsetID:")[1]
    assert unique in mqadmin("queryMsgByKey", "-t", topic, "-k", "key2")
    for found in (mqadmin("queryMsgByUniqueKey", "-t", topic, "-i", unique), mqadmin("queryMsgById", "-t", topic, "-i", unique),
                  mqadmin("queryMsgById", "-t", topic, "-i", stored)):
        assert column(found, "Tags:")[1] == "[tagA]"
        assert column(found, "Queue", "ID:")[2] == "1"
    printed = mqadmin("printMsg", "-t", topic, "-d", "true")
    assert printed.count("BODY: hello") == 1
    consumed = mqadmin("consumeMessage", "-t", topic)
    assert unique in consumed
    assert "BODY: hello" in consumed
    assert "max: 1, min: 0" in mqadmin("queryCq", "-t", topic, "-q", "1", "-i", "0", "-c", "10", "-b", broker)


def test_groups(mqadmin: Mqadmin, broker: str, group: str) -> None:
    mqadmin("updateSubGroup", "-b", broker, "-g", group, "-r", "3", "-q", "2", "-d", "true")
    shown = mqadmin("getConsumerConfig", "-g", group)
    assert column(shown, "retryMaxTimes")[2] == "3"
    assert column(shown, "retryQueueNums")[2] == "2"
    mqadmin("deleteSubGroup", "-b", broker, "-g", group)
    assert group not in mqadmin("getConsumerConfig", "-g", group)


def test_consumption(mqadmin: Mqadmin, java: jvm.Driver, topic: str, group: str, broker: str) -> None:
    java(do="send", topic=topic, messages=[{"body": str(i), "keys": f"k{i}"} for i in range(12)])
    java(do="subscribe", topic=topic, group=group, member="m")
    java(do="received", member="m", count=12, seconds=30)

    assert "CLUSTERING" in mqadmin("consumerConnection", "-g", group)
    inner = "CLIENT_INNER_PRODUCER"  # every Java client has it, and a consumer's heartbeat tells of it at once
    assert "JAVA" in mqadmin("producerConnection", "-g", inner, "-t", topic)
    assert inner in mqadmin("producer", "-b", broker)
    until(lambda: "Consume Diff Total: 0" in mqadmin("consumerProgress", "-g", group))
    assert column(mqadmin("consumerProgress", "-g", group), topic, "broker-a", "0")[3:5] == ["3", "3"]
    assert group in mqadmin("consumerProgress")
    status = mqadmin("consumerStatus", "-g", group)
    assert "Rebalance OK" in status
    assert "Same subscription" in status
    assert group in mqadmin("brokerConsumeStats", "-b", broker)
    until(lambda: group in mqadmin("statsAll", "-t", topic))

    found = mqadmin("queryMsgByKey", "-t", topic, "-k", "k3")
    unique = found.splitlines()[-1].split()[0]
    client = re.search(r"\S+@\S+", mqadmin("consumerConnection", "-g", group))
    assert client is not None
    again = mqadmin("queryMsgById", "-t", topic, "-i", unique, "-g", group, "-d", client[0])
    assert "CR_SUCCESS" in again
    java(do="stop", member="m")

    cloned = f"{group}_copy"
    mqadmin("updateSubGroup", "-b", broker, "-g", cloned)
    mqadmin("cloneGroupOffset", "-s", group, "-d", cloned, "-t", topic, "-o", "true")
    assert column(mqadmin("brokerConsumeStats", "-b", broker), topic, cloned, "broker-a", "0")[4:7] == ["3", "3", "0"]


@pytest.mark.parametrize("online", [False, True])
def test_a_reset_group_gets_everything_again(mqadmin: Mqadmin, java: jvm.Driver, topic: str, group: str, online: bool) -> None:
    java(do="send", topic=topic, messages=[{"body": str(i)} for i in range(8)])
    java(do="subscribe", topic=topic, group=group, member="m")
    java(do="received", member="m", count=8, seconds=30)
    if not online:
        java(do="stop", member="m")
    moved = mqadmin("resetOffsetByTime", "-g", group, "-t", topic, "-s", "0")
    assert [column(moved, "broker-a", str(queue_id))[2] for queue_id in range(4)] == ["0"] * 4
    if not online:
        java(do="subscribe", topic=topic, group=group, member="m")
    got = java(do="received", member="m", count=16 if online else 8, seconds=40)
    java(do="stop", member="m")
    # at least once: what the members held when the offsets moved may come once more
    times = Counter(m["id"] for m in got)
    assert len(times) == 8
    assert min(times.values()) >= (2 if online else 1)


def test_the_broker_itself(mqadmin: Mqadmin, broker: str) -> None:
    row = column(mqadmin("clusterList"), "DefaultCluster", "broker-a")
    assert row[2:5] == ["0", broker, "V5_4_0"]
    assert row[-1] == "true"
    status = mqadmin("brokerStatus", "-b", broker)
    assert column(status, "brokerVersionDesc")[2] == "V5_4_0"
    for key in ("commitLogDirCapacity", "putTps", "getTransferredTps", "scheduleMessageOffset_18", "msgPutTotalTodayNow", "putLatency999"):
        assert column(status, key)[1] == ":"
    assert column(mqadmin("getBrokerConfig", "-b", broker), "brokerName")[2] == "broker-a"
    mqadmin("updateBrokerConfig", "-b", broker, "-k", "maxTransferCountOnMessageInMemory", "-v", "64")
    assert column(mqadmin("getBrokerConfig", "-b", broker), "maxTransferCountOnMessageInMemory")[2] == "64"
    assert "cannot change while the broker runs" in mqadmin("updateBrokerConfig", "-b", broker, "-k", "listenPort", "-v", "1", fails=True)
    assert "#SlaveNum\t0" in mqadmin("haStatus", "-b", broker)
    for command in ("cleanUnusedTopic", "cleanExpiredCQ", "deleteExpiredCommitLog"):
        assert "success" in mqadmin(command, "-b", broker)
    assert "#" in mqadmin("statsAll")


def test_the_name_server(mqadmin: Mqadmin, trmq: Cluster, topic: str) -> None:
    assert "OK" in mqadmin("wipeWritePerm", "-b", "broker-a", "-n", trmq.name_server)
    assert re.search(r'"perm":4', mqadmin("topicRoute", "-t", topic))
    mqadmin("addWritePerm", "-b", "broker-a", "-n", trmq.name_server)
    assert re.search(r'"perm":6', mqadmin("topicRoute", "-t", topic))
    mqadmin("updateKvConfig", "-s", "SPACE", "-k", "key", "-v", "value")
    mqadmin("deleteKvConfig", "-s", "SPACE", "-k", "key")
    mqadmin("updateOrderConf", "-t", topic, "-v", "broker-a:4", "-m", "put")
    assert "broker-a:4" in mqadmin("updateOrderConf", "-t", topic, "-m", "get")
    assert "listenPort" in mqadmin("getNamesrvConfig")
