"""Where a broker's time goes: one process under cProfile while this one sends, then its functions by own time.

    python benchmarks/profile_broker.py [--role single|master|slave] [--messages 100000] [--one-at-a-time] [--lines 30]
    python benchmarks/profile_broker.py --role slave --catch-up 512

`single` is a name server and broker in one process; `master` and `slave` are the two ends of synchronous replication, of which one is
profiled. With `--catch-up MIB` the load is instead an empty slave that copies a log of that size; sends do not count then.
The profiler itself about doubles the time of small functions: read shares, not microseconds.
"""

from __future__ import annotations

import argparse
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

import flat  # noqa: E402
from pairs import Connection, Pair, create_topic, fill, log_end, wait_until  # noqa: E402

from interop.cluster import call, free_ports, is_free  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", choices=["single", "master", "slave"], default="single")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--catch-up", type=int, default=0, metavar="MIB", help="copy a log of this size to an empty slave")
    parser.add_argument("--lines", type=int, default=30)
    parser.add_argument("--one-at-a-time", action="store_true", help="one request in flight instead of 256")
    options = parser.parse_args()
    if options.catch_up and options.role == "single":
        parser.error("--catch-up needs --role master or --role slave")
    if options.one_at_a_time:
        flat.IN_FLIGHT = 1
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        stats = Path(folder, "stats")
        if options.role == "single":
            profile_single(Path(folder), stats, options.messages)
        elif options.catch_up:
            profile_catch_up(Path(folder), stats, options.role, options.catch_up << 20)
        else:
            profile_pair(Path(folder), stats, options.role, options.messages)
        pstats.Stats(str(stats)).sort_stats("tottime").print_stats(options.lines)


def profile_single(folder: Path, stats: Path, messages: int) -> None:
    ns_port, port = free_ports(2)
    command = [sys.executable, "-m", "cProfile", "-o", str(stats), "-m", "trmq", "serve", "--store", f"{folder}/store",
               "--listen-port", str(port), "--namesrv-port", str(ns_port)]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        while is_free(port):
            pass
        call(port, 28)
        flat.create(port, "one", 4)
        flat.Pipe(port).send(messages, "one", 4)
    finally:
        process.terminate()
        process.wait()


def profile_pair(folder: Path, stats: Path, role: str, messages: int) -> None:
    """Sends that both brokers have to write before they are answered."""
    nodes = Pair("trmq", folder, profile=(role, stats))
    try:
        nodes.start()
        flat.create(nodes.port, "one", 4)
        begin = time.perf_counter()
        flat.Pipe(nodes.port).send(messages, "one", 4)
        print(f"{messages} messages in {time.perf_counter() - begin:.2f} s, with the {role} under the profiler")
    finally:
        stop(nodes)


def profile_catch_up(folder: Path, stats: Path, role: str, size: int) -> None:
    """An empty slave copies the log. The master is started anew for it, so that its profile holds nothing of how the log came to be."""
    nodes = Pair("trmq", folder, profile=(role, stats), master={"brokerRole": "ASYNC_MASTER"}, mappedFileSizeCommitLog=1 << 30)
    try:
        nodes.start_master()
        with Connection(nodes.port) as master:
            create_topic(master, "stored")
            fill(nodes.port, "stored", lambda _, end: end >= size)
            end = log_end(master)
        if role == "master":
            nodes.master.stop()
            nodes.master.start()
            nodes.master.wait_until(nodes.registered, "master")
        begin = time.perf_counter()
        nodes.slave.start()
        wait_until(lambda: copied(nodes.slave_port, end), "the slave copies the log", 300, 0.01)
        print(f"{end / 1e6:.0f} MB in {time.perf_counter() - begin:.2f} s from the slave's start, with the {role} under the profiler")
    finally:
        stop(nodes)


def copied(port: int, end: int) -> bool:
    try:
        with Connection(port) as slave:
            return log_end(slave) == end
    except OSError:
        return False  # not listening yet


def stop(nodes: Pair) -> None:
    """By SIGTERM, upon which a profile is written."""
    for node in reversed(nodes.nodes):
        node.stop(60)


if __name__ == "__main__":
    main()
