"""What replication does besides sends: copying a whole log, starting, going on after the master's death, new topics on the slave.

    python benchmarks/replication.py [--only catchup,start,takeover,topic] [--kinds trmq,apache] [--runs 3] [--markdown FILE] [--json FILE]

trmq and Apache RocketMQ 5.4.0 in turn, each in processes of its own (name server, master, slave), on this machine.

catchup   A master with `--mib` MiB of 1 KiB messages gets an empty slave. MB/s of what the slave reports to the master, from the first
          report seen above 0 to the end of the log; the same bytes through a loopback socket into a file; and the time until the
          slave's queues are as long as the master's, that is until all can be read. One segment holds it all, because Apache's empty
          slave copies only the last one.
start     From the start of the first process to the first SEND_OK with a slave. "in turn": the master when the name server listens, the
          slave when the master is registered; "together": all three at once. "two processes": trmq's master has the name
          server in it.
takeover  `kill -9` of the master under a consumer with a backlog, `--kills` times, each on a fresh pair and later after the consumer's
          start than the one before. From the kill until messages flow again, in the first queue and in all four. Apache with
          slaveReadEnable=true (by its defaults a consumer never goes on); everything else by default but for small client caches.
topic     From the request that creates a topic (or from its first send) until a pull at the slave finds its first message.

"MB" are 10^6 bytes. Needs a JDK and Maven for Apache and for the Java consumer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import compare
import takeover
from pairs import (
    FOUND,
    OK,
    Connection,
    Pair,
    create_topic,
    fill,
    listens,
    log_end,
    messages_in,
    pair,
    pull,
    reported,
    send,
    wait_until,
)

from interop.cluster import Node

KINDS = ("trmq", "apache")
Figures = dict[str, float]
Rounds = dict[str, list[Figures]]
"""Figures of each run by what ran: "trmq", "apache", "copy", "trmq, two processes", "trmq/java" (broker/consumer), ..."""


def show(part: str, what: str, figures: Figures) -> Figures:
    print(f"{part:9} {what:24}", {k: round(v, 3) for k, v in figures.items()}, flush=True)
    return figures


# --- an empty slave copies everything


def catch_up(kinds: list[str], runs: int, mib: int) -> Rounds:
    found: Rounds = {}
    size = mib << 20
    segment = min((1 << 31) - 1, max(1 << 30, size + (64 << 20)))
    for kind in kinds:
        with pair(kind, master={"brokerRole": "ASYNC_MASTER"}, mappedFileSizeCommitLog=segment) as nodes:
            nodes.start_master()
            with Connection(nodes.port) as master:
                create_topic(master, "stored")
                fill(nodes.port, "stored", lambda _, end: end >= size)
                for _ in range(runs):
                    plain = plain_copy(nodes.folder / "master", log_end(master))
                    found.setdefault("copy", []).append(show("catchup", "plain copy", plain))
                    found.setdefault(kind, []).append(show("catchup", kind, catch_up_once(nodes, master)))
                    nodes.empty_slave()
                    wait_until_unknown(master)
    return found


def catch_up_once(nodes: Pair, master: Connection) -> Figures:
    """One empty slave, from the start of its process."""
    end, wanted = log_end(master), messages_in(master, "stored")
    begin = time.perf_counter()
    nodes.slave.start()
    connected = first = None
    while True:
        now, offset = time.perf_counter(), reported(master)
        if offset is not None and connected is None:
            connected = now
        if offset and first is None:
            first, first_offset = now, offset
        if offset == end:
            break
        if not nodes.slave.running or now - begin > 300:
            raise RuntimeError(f"the slave did not copy the log ({offset} of {end}): {nodes.slave.output()[-2000:]}")
        time.sleep(0.01)
    assert connected is not None
    assert first is not None
    copied = end - first_offset
    with Connection(nodes.slave_port) as slave:
        assert log_end(slave) == end, "the slave reported more than it has"
        wait_until(lambda: messages_in(slave, "stored") == wanted, "the slave's queues are as long as the master's", 300, 0.01)
    readable = time.perf_counter()
    return {"mb_per_s": copied / (now - first) / 1e6 if now > first else float("nan"), "connect_to_end_s": now - connected,
            "start_to_end_s": now - begin, "connect_to_readable_s": readable - connected, "mb": end / 1e6}  # fmt: skip


def wait_until_unknown(master: Connection) -> None:
    """The master has noticed that its slave is gone."""
    wait_until(lambda: not reported(master), "the master forgets its slave", 60, 0.05)


def plain_copy(store: Path, size: int) -> Figures:
    """The log's bytes by `sendfile` over loopback into a file that another process writes, 1 MiB at a time."""
    files = sorted((store / "commitlog").glob("[0-9]*"))
    with socket.create_server(("127.0.0.1", 0)) as server, TemporaryDirectory(prefix="bench-") as folder:
        child = os.fork()
        if child == 0:
            receive(server.getsockname()[1], f"{folder}/copy")
        connection, _ = server.accept()
        begin, left = time.perf_counter(), size
        with connection:
            for file in files:
                with file.open("rb") as log:
                    at = 0
                    while left and (sent := os.sendfile(connection.fileno(), log.fileno(), at, min(left, 1 << 20))):
                        at, left = at + sent, left - sent
        os.waitpid(child, 0)
        seconds = time.perf_counter() - begin
        assert Path(folder, "copy").stat().st_size == size
    return {"mb_per_s": size / seconds / 1e6}


def receive(port: int, path: str) -> None:
    """The child's part; never returns."""
    buffer = memoryview(bytearray(1 << 20))
    with socket.create_connection(("127.0.0.1", port)) as source, open(path, "wb", buffering=0) as target:
        while count := source.recv_into(buffer):
            target.write(buffer[:count])
    os._exit(0)


# --- start


def starts(kinds: list[str], runs: int) -> Rounds:
    ways: dict[str, Callable[[], float]] = {}
    for kind in kinds:
        ways[f"{kind}, in turn"] = lambda kind=kind: start_pair(kind, together=False)  # type: ignore[misc]
        ways[f"{kind}, together"] = lambda kind=kind: start_pair(kind, together=True)  # type: ignore[misc]
    if "trmq" in kinds:
        ways["trmq, two processes"] = start_two
    found: Rounds = {}
    for _ in range(runs):
        for what, start in ways.items():
            found.setdefault(what, []).append(show("start", what, {"first_ack_s": start()}))
    return found


def start_pair(kind: str, together: bool) -> float:
    """Seconds from the start of the first process to the first send that both brokers have."""
    with pair(kind) as nodes:
        begin = time.perf_counter()
        nodes.ns.start()
        if not together:
            nodes.ns.wait_until(lambda: listens(nodes.ns_port), "name server", pause=0.002)
        nodes.master.start()
        if not together:
            nodes.master.wait_until(nodes.registered, "master", pause=0.002)
        nodes.slave.start()
        nodes.wait_for_ack()
        return time.perf_counter() - begin


def start_two() -> float:
    """`trmq serve` with its own name server as the master, and a slave, both at once."""
    with pair("trmq") as nodes:
        command = [sys.executable, "-m", "trmq", "serve", "-c", str(nodes.folder / "serve.conf"), "--namesrv-port", str(nodes.ns_port)]
        lines = (nodes.folder / "master.conf").read_text().splitlines()
        (nodes.folder / "serve.conf").write_text("\n".join(line for line in lines if not line.startswith("namesrvAddr=")) + "\n")
        nodes.master = Node(command, nodes.folder / "output" / "serve", {})
        begin = time.perf_counter()
        nodes.master.start()
        nodes.slave.start()
        nodes.wait_for_ack()
        return time.perf_counter() - begin


# --- the master dies, the consumer goes on from the slave


def takeovers(kinds: list[str], kills: int, consumers: list[str]) -> Rounds:
    found: Rounds = {}
    for number in range(kills):
        for kind in kinds:
            for consumer in consumers:
                figures = show("takeover", f"{kind}/{consumer}", takeover.takeover(kind, consumer, number))
                found.setdefault(f"{kind}/{consumer}", []).append(figures)
    return found


# --- a new topic


def new_topics(kinds: list[str], count: dict[str, int]) -> Rounds:
    found: Rounds = {}
    for kind in kinds:
        with pair(kind, slave={"slaveReadEnable": "true"} if kind == "apache" else {}) as nodes:
            nodes.start()
            with Connection(nodes.port) as master, Connection(nodes.slave_port) as slave:
                for number in range(count[kind]):
                    for way in ("created", "first send"):
                        figures = {"readable_ms": new_topic(master, slave, f"new-{number}-{way[:5]}", way == "created")}
                        found.setdefault(f"{kind}, {way}", []).append(show("topic", f"{kind}, {way}", figures))
                        time.sleep(0.05)
    return found


def new_topic(master: Connection, slave: Connection, topic: str, create: bool) -> float:
    """ms until the slave answers a pull with the topic's first message."""
    begin = time.perf_counter()
    if create:
        create_topic(master, topic)
    code = send(master, topic)
    assert code == OK, f"the first message of {topic} was answered {code}"
    while pull(slave, topic)[0] != FOUND:
        waited = time.perf_counter() - begin
        assert waited < 120, f"{topic} is not on the slave: {pull(slave, topic)}"
        time.sleep(0.001 if waited < 1 else 0.05)
    return (time.perf_counter() - begin) * 1000


# --- the report

ROW = "| {} | {} | {} | {} | {} | {} |"
HEAD = [
    ROW.format("what", "figure", "trmq min / med / max", "Apache min / med / max", "asked", ""),
    "| --- | --- | ---: | ---: | --- | --- |",
]


def both(found: Rounds, figure: str, what: str = "") -> tuple[list[float], list[float]]:
    """trmq's and Apache's values of one figure, in order."""
    ours, theirs = (sorted(run[figure] for run in found.get(kind + what, [])) for kind in KINDS)
    return ours, theirs


def cell(values: list[float]) -> str:
    return " / ".join(compare.number(x) for x in (values[0], statistics.median(values), values[-1])) if values else ""


def verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def line(what: str, figure: str, ours: list[float], theirs: list[float], asked: str = "", met: bool | None = None) -> str:
    return ROW.format(what, figure, cell(ours), cell(theirs), asked, "" if met is None else verdict(met))


def report(results: dict[str, Rounds]) -> list[str]:
    rows = list(HEAD)
    if found := results.get("catchup"):
        rows += report_catch_up(found)
    if found := results.get("start"):
        rows += report_starts(found)
    if found := results.get("takeover"):
        rows += report_takeovers(found)
    if found := results.get("topic"):
        for way in ("created", "first send"):
            ours, theirs = both(found, "readable_ms", f", {way}")
            rows.append(line(f"new topic, {way}", "readable on the slave after ms", ours, theirs, "≤ 100 ms, the slowest",
                             ours[-1] <= 100 if ours else None))  # fmt: skip
    return rows


def report_catch_up(found: Rounds) -> list[str]:
    ours, theirs = both(found, "mb_per_s")
    size = [run["mb"] for kind in KINDS for run in found.get(kind, [])]
    asked = min(400, 1.5 * statistics.median(theirs)) if theirs else 400
    what = f"empty slave copies {max(size):,.0f} MB"
    met = statistics.median(ours) >= asked if ours else None
    rows = [line(what, "MB/s", ours, theirs, f"≥ {asked:.0f} MB/s (400 or 1.5×, the less)", met)]
    for figure, text in (
        ("connect_to_end_s", "s from connected to all copied"),
        ("start_to_end_s", "s from the slave's start to all copied"),
        ("connect_to_readable_s", "s from connected to all in the queues"),
    ):
        rows.append(line(what, text, *both(found, figure)))
    plain = sorted(run["mb_per_s"] for run in found["copy"])
    return [*rows, line("the same bytes, plain loopback copy into a file", "MB/s", plain, [])]


def report_starts(found: Rounds) -> list[str]:
    rows = []
    for way in ("in turn", "together", "two processes"):
        ours, theirs = both(found, "first_ack_s", f", {way}")
        theirs = theirs or both(found, "first_ack_s", ", together")[1]
        met = statistics.median(ours) <= statistics.median(theirs) / 20 if ours and theirs else None
        rows.append(line(f"start of the pair, {way}", "s to the first ack with a slave", ours, theirs, "≤ 1/20, medians", met))
    return rows


def report_takeovers(found: Rounds) -> list[str]:
    rows = []
    for consumer, name in (("trmq", "trmq's consumer"), ("java", "Java push consumer")):
        ours, theirs = both(found, "all_queues_ms", f"/{consumer}")
        met = None
        if consumer == "trmq":
            asked, met = "≤ 1,000 ms, the slowest", ours[-1] <= 1000 if ours else None
        else:
            asked = "not later than Apache, medians"
            met = statistics.median(ours) <= statistics.median(theirs) if ours and theirs else None
        if ours or theirs:
            what = f"master killed, {name}"
            ours_missing, theirs_missing = both(found, "missing", f"/{consumer}")
            rows += [
                line(what, "ms until all queues go on", ours, theirs, asked, met),
                line(what, "ms until the first goes on", *both(found, "goes_on_ms", f"/{consumer}")),
                line(what, "messages missing", ours_missing, theirs_missing, "0", not any(ours_missing) if ours else None),
                line(what, "messages repeated", *both(found, "repeated", f"/{consumer}")),
            ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="catchup,start,takeover,topic", help="comma-separated parts")
    parser.add_argument("--kinds", default="trmq,apache")
    parser.add_argument("--consumers", default="trmq,java", help="who consumes in the takeover")
    parser.add_argument("--runs", type=int, default=3, help="of catchup and start")
    parser.add_argument("--kills", type=int, default=3, help="of the takeover, for each broker and consumer")
    parser.add_argument("--mib", type=int, default=1024, help="size of the log to copy")
    parser.add_argument("--topics", type=int, default=20, help="new topics at trmq, each way")
    parser.add_argument("--apache-topics", type=int, default=2, help="new topics at Apache, each way; each takes up to a minute")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kinds, wanted, results = options.kinds.split(","), options.only.split(","), {}
    parts: dict[str, Callable[[], Rounds]] = {
        "catchup": lambda: catch_up(kinds, options.runs, options.mib),
        "start": lambda: starts(kinds, options.runs),
        "takeover": lambda: takeovers(kinds, options.kills, options.consumers.split(",")),
        "topic": lambda: new_topics(kinds, {"trmq": options.topics, "apache": options.apache_topics}),
    }
    if unknown := sorted(set(wanted) - set(parts)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(parts)}")
    for name, run in parts.items():
        if name in wanted:
            results[name] = run()
            save(options.markdown, options.json, results)
    print(*report(results), sep="\n")


def save(markdown: Path | None, as_json: Path | None, results: dict[str, Rounds]) -> None:
    """After each part, so that a long run that fails late keeps what it found."""
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if as_json:
        saved: dict[str, Any] = {"machine": machine, "results": results}
        as_json.write_text(json.dumps(saved, indent=1))
    if markdown:
        command = "python benchmarks/replication.py " + " ".join(sys.argv[1:])
        markdown.write_text("\n".join([f"Machine: {machine}.", "", f"Command: `{command}`", "", *report(results)]) + "\n")


if __name__ == "__main__":
    main()
