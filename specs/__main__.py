"""`python -m specs` prints the manual; with `--write` it goes to `docs/spec.md`, and which tests judge what beside the pages."""

from __future__ import annotations

import sys
from pathlib import Path

from .manual import JUDGED, judged_text, manual

ROOT = Path(__file__).parent.parent


def write() -> None:
    JUDGED.write_text(judged_text(ROOT / "tests"))
    (ROOT / "docs" / "spec.md").write_text(manual())


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        sys.stdout.write(manual())
