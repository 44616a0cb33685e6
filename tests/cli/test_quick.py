"""What is read without Cyclopts is what Cyclopts would have read, and the rest is left to it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from trmq.cli import build, quick, starting, starting_namesrv

SAME = [
    "serve",
    "serve -c broker.conf -n 10.0.0.5:9876;10.0.0.6:9876 --store ./data --listen-port 0",
    "serve --config=broker.conf --namesrv=a:1 --set a=1 --set b=2=3 --role sync_master --flush sync",
    "serve --namesrv-port 0 --bind 0.0.0.0 --broker-name b --cluster c",
    "serve --role slave --broker-id 1 --end-with stdin",
    "namesrv",
    "namesrv -c n.conf -p 9876 --bind ::1 --store x --set kvConfigPath=y",
]
LEFT = [
    "", "topic list", "serve --help", "serve -h", "serve --listen-port", "serve --listen-port x", "serve --listen-port=",
    "serve --role master",
    "serve --store a --store b", "serve data", "serve --stor a", "serve --no-store", "serve --listen-port -1",
    "serve --broker-id one", "serve --end-with me",
    "namesrv -n a:1",
    "namesrv --namesrv a:1", "serve -p 1", "serve --listen_port 1", "serve -- a",
]  # fmt: skip


@pytest.mark.parametrize("line", SAME)
def test_the_same_is_read(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    for module, name in ((starting, "serve"), (starting_namesrv, "namesrv")):
        bound = inspect.signature(getattr(module, name))

        def call(bound: inspect.Signature = bound, **given: Any) -> int:
            arguments = bound.bind(**given)
            arguments.apply_defaults()
            calls.append({"verb": line.split()[0], **arguments.arguments})
            return 0

        monkeypatch.setattr(module, name, call)
    verb = quick.read(line.split())
    assert verb is not None
    verb()
    build()(line.split(), exit_on_error=False, print_error=False)
    assert calls[0] == calls[1]


@pytest.mark.parametrize("line", LEFT)
def test_what_is_left_to_cyclopts(line: str) -> None:
    assert quick.read(line.split()) is None


def test_every_option_is_known() -> None:
    for verb, module in (("serve", starting), ("namesrv", starting_namesrv)):
        assert set(quick.VERBS[verb][1]) == set(inspect.signature(getattr(module, verb)).parameters)
