"""Where the broker's time goes: a name server and broker under cProfile while this process sends, then the functions by own time.

    python benchmarks/profile_broker.py [--messages 100000] [--lines 30] [--one-at-a-time]

The profiler itself about doubles the time of small functions: read shares, not microseconds.
"""

from __future__ import annotations

import argparse
import pstats
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

import flat  # noqa: E402

from interop.cluster import call, free_ports, is_free  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=30)
    parser.add_argument("--one-at-a-time", action="store_true", help="one request in flight instead of 256")
    options = parser.parse_args()
    if options.one_at_a_time:
        flat.IN_FLIGHT = 1
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        ns_port, port = free_ports(2)
        stats = f"{folder}/stats"
        command = [sys.executable, "-m", "cProfile", "-o", stats, "-m", "trmq", "serve", "--store", f"{folder}/store",
                   "--listen-port", str(port), "--namesrv-port", str(ns_port)]  # fmt: skip
        process = subprocess.Popen(command)
        try:
            while is_free(port):
                pass
            call(port, 28)
            flat.create(port, "one", 4)
            flat.Pipe(port).send(options.messages, "one", 4)
        finally:
            process.terminate()
            process.wait()
        pstats.Stats(stats).sort_stats("tottime").print_stats(options.lines)


if __name__ == "__main__":
    main()
