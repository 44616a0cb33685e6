"""The cluster of processes that a test judges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from verify.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "lab")
    yield made
    made.end()
