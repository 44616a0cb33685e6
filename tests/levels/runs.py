"""What a long run found, kept as one small file each under `docs/runs/`."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def write(level: str, **figures: object) -> Path:
    """`docs/runs/<level>.json`, sorted keys, with the commit and the day."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = ROOT / "docs" / "runs" / f"{level}.json"
    path.parent.mkdir(exist_ok=True)
    content = {"level": level.upper(), "profile": "long", "commit": commit, "date": day, **figures}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return path
