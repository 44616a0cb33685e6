"""trmq and Apache RocketMQ 5.4.0 in turn on this machine, with the official Java client as the load, as a table of ratios.

    python benchmarks/compare.py [--only sync1,async256,...] [--rounds 2] [--secs 4] [--markdown FILE] [--json FILE]
    python benchmarks/compare.py --only replication        SYNC_MASTER with a slave: both brokers write before a send is answered

For each scenario and round: start trmq, warm up, measure windows, stop; then the same with Apache. Client and broker share the
cores, so throughput is a figure for the whole machine; "CPU us/msg" is the broker's own processor time divided by messages, of
master and slave together where there are two. Needs a JDK and Maven (the jars come from Maven's repository). Prints each window
as it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests"), str(ROOT / "src")]

from pairs import JVM_APACHE, SETTINGS, Pair, pair  # noqa: E402

from interop import jvm  # noqa: E402
from interop.cluster import Cluster, Node, call  # noqa: E402


@dataclass(frozen=True)
class Scenario:
    """What the load generator is asked for, and what trmq is asked to reach as (figure, comparison, bound) of the ratio trmq/Apache."""

    name: str
    text: str
    options: tuple[str, ...]
    asked: tuple[tuple[str, str, float], ...]
    settings: tuple[tuple[str, str], ...] = ()
    replicated: bool = False
    """A SYNC_MASTER that waits for its slave, instead of one broker."""


SYNC_FLUSH = (("flushDiskType", "SYNC_FLUSH"),)
FAST = (("per_s", ">=", 2.5), ("cpu", "<=", 0.4))
SCENARIOS = [
    Scenario("sync1", "sync send, 1 thread", ("sync", "--threads", "1"), (("per_s", ">=", 1.2), ("cpu", "<=", 0.6))),
    Scenario("sync64", "sync send, 64 threads", ("sync", "--threads", "64"), (*FAST, ("p99", "<=", 0.5))),
    Scenario("async256", "async send, 256 in flight", ("async", "--inflight", "256"), FAST),
    Scenario("async1024", "async send, 1024 in flight", ("async", "--inflight", "1024"), FAST),
    Scenario("oneway", "one-way, paced at 8,000/s", ("oneway", "--rate", "8000"), ()),
    Scenario("batch", "batches of 32, 16 threads", ("batch", "--threads", "16"), (("per_s", ">=", 1.0), ("cpu", "<=", 1.0))),
    Scenario("consume", "consume a backlog of 200,000", ("consume", "--count", "200000"), (("per_s", ">=", 1.0), ("cpu", "<=", 1.2))),
    Scenario("e2e", "end to end at 1,000 msg/s", ("e2e", "--rate", "1000"), (("p50", "<=", 1.0), ("p99", "<=", 0.5), ("cpu", "<=", 0.5))),
    Scenario("flush1", "SYNC_FLUSH, 1 thread", ("sync", "--threads", "1"), (("per_s", ">=", 1.3),), SYNC_FLUSH),
    Scenario("flush64", "SYNC_FLUSH, 64 threads", ("sync", "--threads", "64"), (("per_s", ">=", 2.0),), SYNC_FLUSH),
    Scenario("pair-sync1", "with slave: sync send, 1 thread", ("sync", "--threads", "1"), (("per_s", ">=", 1.2), ("cpu", "<=", 0.8)),
             replicated=True),
    Scenario("pair-sync64", "with slave: sync send, 64 threads", ("sync", "--threads", "64"), (*FAST, ("p99", "<=", 0.3)), replicated=True),
    Scenario("pair-async256", "with slave: async send, 256 in flight", ("async", "--inflight", "256"), FAST, replicated=True),
    Scenario("pair-async1024", "with slave: async send, 1024 in flight", ("async", "--inflight", "1024"), FAST, replicated=True),
    Scenario("pair-paced", "with slave: ack at 1,000 msg/s", ("paced", "--rate", "1000"), (("p99", "<=", 0.3),), replicated=True),
]  # fmt: skip
PACED = {"oneway", "e2e", "pair-paced"}
GROUPS = {
    "single": [*(s.name for s in SCENARIOS if not s.replicated), "start"],
    "replication": [s.name for s in SCENARIOS if s.replicated],
}
STARTS = (("first_ack_s", "start to first ack, s", 1 / 12), ("rss_mb", "resident, name server + broker, MB", 1 / 10))


@contextmanager
def running(kind: str, settings: dict[str, Any]) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        cluster = Cluster(kind, Path(folder), jvm_options=JVM_APACHE, **(SETTINGS | settings)).start()
        try:
            yield cluster
        finally:
            cluster.broker.kill()
            cluster.ns.kill()


@contextmanager
def running_pair(kind: str, settings: dict[str, Any]) -> Iterator[Pair]:
    """Ends with the proof that both did the same work: the slave's log is as long as the master's."""
    with pair(kind, **settings) as started:
        yield started.start()
        started.wait_for_copy()


def pids(cluster: Cluster | Pair) -> str:
    if isinstance(cluster, Pair):
        return cluster.pids()
    assert cluster.broker.process is not None
    return f"broker={cluster.broker.process.pid}"


def bench(cluster: Cluster | Pair, *options: str) -> list[dict[str, Any]]:
    """Run the generator; one dictionary per measured window."""
    command = [
        "java", "-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", f"-Duser.home={cluster.folder}",
        "-Drocketmq.log.level=error", "-cp", f"{classes()}:{jvm.jars()}/*", "Bench", "--ns", cluster.name_server, "--scenario", *options,
        "--pids", pids(cluster),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"no result from {options}: {done.stderr[-2000:]}")
    return lines


def classes() -> Path:
    lib, target = jvm.jars(), jvm.CACHE / "bench"
    source = ROOT / "benchmarks" / "Bench.java"
    stamp = target / ".complete"
    with jvm.locked():
        if not stamp.exists() or stamp.stat().st_mtime < source.stat().st_mtime:
            target.mkdir(parents=True, exist_ok=True)
            jvm.run("javac", "-nowarn", "-cp", f"{lib}/*", "-d", str(target), str(source))
            stamp.touch()
    return target


def measure(kind: str, scenario: Scenario, secs: int, warm: int, runs: int) -> list[dict[str, float]]:
    with (running_pair if scenario.replicated else running)(kind, dict(scenario.settings)) as cluster:
        bench(cluster, "async", "--topic", "warm", "--inflight", "256", "--warm", "4", "--secs", "1", "--runs", "1")
        if scenario.name == "consume":
            bench(cluster, "fill", "--topic", "stored", "--count", "200000")
            lines = bench(cluster, *scenario.options, "--topic", "stored", "--runs", str(runs))
        else:
            lines = bench(cluster, *scenario.options, "--warm", str(warm), "--secs", str(secs), "--runs", str(runs))
    found = []
    for line in lines:
        nodes = {node: line.get(f"cpu_us_per_msg_{node}") for node in ("master", "slave")}
        figures = {
            "per_s": line.get("per_s_since_first", line["per_s"]),
            "cpu": line.get("cpu_us_per_msg_broker", sum(filter(None, nodes.values()))), "cpu_master": nodes["master"],
            "cpu_slave": nodes["slave"], "p50": line.get("p50_us"), "p99": line.get("p99_us"), "failed": line["err"] + line["notok"],
            "first": line.get("first_msg_after_ms"), "others_cpu_s": line.get("cpu_s_other"),
        }  # fmt: skip
        found.append(figures)
        print(f"{scenario.name:14} {kind:7}", {k: round(v, 1) for k, v in figures.items() if v is not None}, flush=True)
    return found


def start_and_memory(kind: str) -> dict[str, float]:
    """Seconds from the start of the first process to the first acknowledged send on a fresh store, and resident MB idle 3 s later.

    "apache" and "trmq, two processes" are a name server and a broker, started one after the other; "trmq" is what its README starts:
    `trmq serve`, both in one process.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        cluster = Cluster(kind.partition(",")[0], Path(folder), jvm_options=JVM_APACHE, **SETTINGS)
        jvm.jars()
        begin = time.perf_counter()
        if kind == "trmq":
            nodes = [serve_both(cluster)]
        else:
            cluster.start_quickly(lambda: send_once(cluster.port) == 0)
            nodes = [cluster.ns, cluster.broker]
        first_ack = time.perf_counter() - begin
        time.sleep(3)
        memory = {key: sum(resident(node.process.pid, key) for node in nodes if node.process is not None) for key in ("VmRSS", "RssAnon")}
        for node in nodes:
            node.kill()
    figures = {"first_ack_s": first_ack, "rss_mb": memory["VmRSS"], "anon_mb": memory["RssAnon"]}
    print("start     ", kind, {k: round(v, 3) for k, v in figures.items()}, flush=True)
    return figures


def serve_both(cluster: Cluster) -> Node:
    """`trmq serve` with both ports chosen; returns when a send was acknowledged."""
    cluster.choose_ports()
    command = [sys.executable, "-m", "trmq", "serve", "--store", str(cluster.store), "--listen-port", str(cluster.port),
               "--namesrv-port", str(cluster.ns_port), "--set", "mappedFileSizeCommitLog=268435456"]  # fmt: skip
    node = Node(command, cluster.folder / "serve", {})
    node.start()
    node.wait_until(lambda: send_once(cluster.port) == 0, "broker", pause=0.002)
    return node


def send_once(port: int) -> int:
    fields = {"producerGroup": "bench", "topic": "probe", "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": "0",
              "sysFlag": "0", "bornTimestamp": str(int(time.time() * 1000)), "flag": "0", "properties": "",
              "reconsumeTimes": "0", "unitMode": "false", "batch": "false"}  # fmt: skip
    return call(port, 10, fields, b"x" * 128)[0]


def resident(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def table(results: dict[str, dict[str, list[dict[str, float]]]], starts: dict[str, list[dict[str, float]]]) -> list[str]:
    """Markdown rows: medians of all windows, ratio trmq/Apache, what was asked, met or missed."""
    rows = ["| scenario | figure | trmq | Apache | ratio | asked | |", "| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    units = {"per_s": "msg/s", "cpu": "broker CPU µs/msg", "cpu_master": "of it master", "cpu_slave": "of it slave", "p50": "p50 µs",
             "p99": "p99 µs"}  # fmt: skip
    for scenario in SCENARIOS:
        if scenario.name not in results:
            continue
        asked = {figure: (sign, bound) for figure, sign, bound in scenario.asked}
        for figure, unit in units.items():
            ours, theirs = (median(results[scenario.name][kind], figure) for kind in ("trmq", "apache"))
            paced = scenario.name in PACED and (figure == "per_s" or (scenario.name == "oneway" and not figure.startswith("cpu")))
            if ours is None or theirs is None or paced:
                continue
            text = unit.replace("broker", "both brokers'") if scenario.replicated else unit
            rows.append(row(scenario.text, text, ours, theirs, asked.get(figure)))
    if starts:
        for kind in ("trmq", "trmq, two processes"):
            for figure, text, bound in STARTS:
                ours, theirs = (statistics.median(run[figure] for run in starts[k]) for k in (kind, "apache"))
                rows.append(row(kind.replace("trmq", "`trmq serve`", 1), text, ours, theirs, ("<=", bound)))
    return rows


def row(text: str, unit: str, ours: float, theirs: float, asked: tuple[str, float] | None) -> str:
    ratio = ours / theirs if theirs else float("nan")
    verdict = ""
    if asked is not None:
        sign, bound = asked
        met = ratio >= bound if sign == ">=" else ratio <= bound
        verdict = "met" if met else "**missed**"
    wanted = "" if asked is None else f"{'≥' if asked[0] == '>=' else '≤'} {asked[1]:.3g}×"
    return f"| {text} | {unit} | {number(ours)} | {number(theirs)} | {ratio:.2f}× | {wanted} | {verdict} |"


def number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def median(windows: list[dict[str, float]], figure: str) -> float | None:
    found = [w[figure] for w in windows if w.get(figure) is not None]
    return statistics.median(found) if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*(s.name for s in SCENARIOS), "start"]
    parser.add_argument(
        "--only",
        "--scenarios",
        default="single,replication",
        help=f"comma-separated out of {', '.join(names)}; single: all with one broker; replication: all with a slave",
    )
    parser.add_argument("--kinds", default="trmq,apache", help="which to run: trmq,apache")
    parser.add_argument("--rounds", type=int, default=2, help="how often each pair is repeated, each in fresh processes")
    parser.add_argument("--secs", type=int, default=4, help="length of a window")
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="windows per round")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted, kinds = [name for part in options.only.split(",") for name in GROUPS.get(part, [part])], options.kinds.split(",")
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join([*names, *GROUPS])}")
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    starts: dict[str, list[dict[str, float]]] = {}
    for scenario in SCENARIOS:
        if scenario.name not in wanted:
            continue
        found = results.setdefault(scenario.name, {kind: [] for kind in kinds})
        for _ in range(options.rounds):
            for kind in kinds:
                found[kind] += measure(kind, scenario, options.secs, options.warm, options.runs)
    if "start" in wanted:
        for _ in range(max(3, options.rounds)):
            for kind in [*kinds, *(["trmq, two processes"] if "trmq" in kinds else [])]:
                starts.setdefault(kind, []).append(start_and_memory(kind))
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "results": results, "starts": starts}, indent=1))
    if set(kinds) == {"trmq", "apache"}:
        rows = table(results, starts)
        print(machine, *rows, sep="\n")
        if options.markdown:
            command = "python benchmarks/compare.py " + " ".join(sys.argv[1:])
            options.markdown.write_text("\n".join([f"Machine: {machine}.", "", f"Command: `{command}`", "", *rows]) + "\n")


if __name__ == "__main__":
    main()
