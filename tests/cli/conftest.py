"""Processes that a test starts by their command lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest

from process.server import MODEST


@pytest.fixture
def run() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`run("serve", ...)` starts a verb; whatever still runs at the end is killed. Brokers have small files."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, env: Mapping[str, str] = MODEST) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "trmq", *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
                                   start_new_session=True)  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
