"""Fixtures for tests against real processes and the official Java client; all of them say loudly when they skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import jvm
from .cluster import Cluster


def needs_java(item: pytest.Item) -> bool:
    """All do, except trmq's own client against trmq."""
    if item.module.__name__.rpartition(".")[2] != "test_trmq_client":  # type: ignore[attr-defined]  # every item here is a function
        return True
    return "apache" in item.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(str(item.fspath)).is_relative_to(Path(__file__).parent):
            item.add_marker("interop")
            if needs_java(item) and not jvm.available():
                item.add_marker(pytest.mark.skip(reason=jvm.MISSING))


@pytest.fixture(scope="session")
def java_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    jvm.classes()
    return tmp_path_factory.mktemp("java")


@pytest.fixture(scope="module", params=["trmq", "apache"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running name server and broker of each kind in turn, one for a whole module."""
    running = Cluster(request.param, tmp_path_factory.mktemp(request.param)).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def trmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running trmq name server and broker, one for a whole module."""
    running = Cluster("trmq", tmp_path_factory.mktemp("trmq")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def java(trmq: Cluster, java_home: Path) -> Iterator[jvm.Driver]:
    """The official Java client connected to `trmq`."""
    driver = jvm.Driver(trmq.name_server, java_home / f"driver-{trmq.port}")
    yield driver
    driver.close()
