"""PYTHONPATH=tests python -m real [--rounds N] [--first SEED] [--jobs N] [--out FILE]: rounds of L4, and a report of them as JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from real.run import report, run, sentences, write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m real", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="how many; rounded up to whole lives")
    parser.add_argument("--first", type=int, default=0, help="seed of the first life")
    parser.add_argument("--jobs", type=int, default=1, help="lives at the same time")
    parser.add_argument("--out", type=Path, help="where the report goes")
    given = parser.parse_args()
    lives, seconds = run(given.rounds, given.first, given.jobs, lambda line: print(line, flush=True))
    found = report(lives, seconds, given.first)
    if given.out:
        write(found, given.out)
    print(sentences(found))
    return 6 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
