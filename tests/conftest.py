"""Profiles, and a seed for every test that lets Trio's scheduler or Hypothesis roll dice: printed when the test fails."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
import trio._core._run as trio_run  # private: the scheduler's dice, seeded so that a failure can be replayed
from hypothesis import HealthCheck, settings

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--profile", default="ci" if os.environ.get("CI") else "dev", choices=["dev", "ci", "long"], help="how long to search")
    parser.addoption("--seed", type=int, default=None, help="replay: the seed that a failed test printed")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(config.getoption("--profile"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--profile") != "long":
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="runs with --profile long"))


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--profile"))


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test: its scheduling follows from it. Ask for it where dice are needed."""
    chosen = request.config.getoption("--seed")
    if chosen is None:
        chosen = random.SystemRandom().randrange(1 << 31)
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(chosen)
    print(f"replay: pytest {request.node.nodeid} --seed {chosen}")
    return chosen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What did not run is said at the end, in red, so that green never means more than it does."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "--profile long" not in reason:
            reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("TESTS THAT DID NOT RUN", sep="!", red=True, bold=True)
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count}: {reason}", red=True)
