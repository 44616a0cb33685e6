"""Limits small enough to be met."""

from __future__ import annotations

import pytest

from trmq.log import service


@pytest.fixture(autouse=True)
def small_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark up to which the log may be written ahead of what is durable: a few segments instead of 256 MiB."""
    monkeypatch.setattr(service, "REACH_BYTES", 6000)
