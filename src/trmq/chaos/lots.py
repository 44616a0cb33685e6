"""A long search in several lots: `python -m trmq.chaos.lots --out docs/runs/l2-seeds.json LOT.json ...` makes one result of theirs.

The lots are files that `trmq.chaos.search --out` wrote, of one level, each beginning where the one before ended. Counts and times are added
up; a situation never came about if it did in none of them. A lot that was played again after something was mended names another commit
than the rest: all of them are listed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

from trmq.chaos import sometimes
from trmq.errors import ConfigError

SAME = ("level", "every", "length", "profile")


def join(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One result. Raises `ConfigError` for lots that do not belong together."""
    for before, part in pairwise(parts):
        for name in SAME:
            if part[name] != before[name]:
                raise ConfigError(f"the lot from seed {part['first_seed']} has {name} {part[name]!r}, the one before {before[name]!r}")
        end = before["first_seed"] + before["seeds"]
        if part["first_seed"] != end:
            raise ConfigError(f"a lot begins at seed {part['first_seed']}, but the one before ends at {end}")
    first, last = parts[0], parts[-1]
    once = {*SAME, "first_seed", "date", "commit"}
    whole: dict[str, Any] = reduce(added, ({key: part[key] for key in part if key not in once} for part in parts))
    whole |= {name: first[name] for name in SAME} | {"first_seed": first["first_seed"], "date": last["date"]}
    whole["commit"] = " and ".join(dict.fromkeys(part["commit"] for part in parts))
    return whole | {"never": sometimes.never(first["level"], whole["sometimes"])}


def added(one: Any, other: Any) -> Any:
    """Numbers and lists added, mappings by their keys."""
    if isinstance(one, dict):
        both = {key: added(one[key], other[key]) for key in one if key in other}
        return one | other | both
    return round(one + other, 1) if isinstance(one, float) else one + other


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trmq.chaos.lots", description="Make one result of the lots of a search.")
    parser.add_argument("lots", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        whole = join([json.loads(path.read_text()) for path in given.lots])
    except (OSError, ValueError, KeyError, ConfigError) as error:
        sys.stderr.write(f"lots: {error}\n")
        return 2
    given.out.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
