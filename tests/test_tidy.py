"""The house rules that a reader relies on: which room may import which, who may wait, who may touch the machine, and sizes.

The rules are read from the source text (imports and `async`), so breaking one fails here before anything runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "trmq"
FILES = sorted(SOURCE.rglob("*.py"))

VALUES = {"host", "errors", "message", "record", "trace", "config"}
"""Modules at the top that everyone may use; `watermark` is for the shell only."""
ARROWS: dict[str, set[str]] = {
    "host": {"errors"},
    "errors": set(),
    "message": {"errors"},
    "record": {"errors", "message"},
    "trace": {"errors", "message"},
    "config": {"errors", "message"},
    "watermark": {"errors"},
    "nursery": set(),
    "real_host": {"host", "errors"},
    "wire": VALUES,
    "log": VALUES | {"watermark"},
    "replica": VALUES | {"watermark", "nursery", "log"},
    "route": VALUES | {"watermark", "wire", "remoting"},
    "remoting": VALUES | {"watermark", "wire"},
    "broker": VALUES | {"watermark", "nursery", "wire", "remoting", "log", "route", "replica"},
    "client": VALUES | {"watermark", "wire", "remoting", "route"},
    "sim": VALUES | {"watermark"},
    "chaos": VALUES | {"watermark", "wire", "remoting", "log", "route", "replica", "broker", "client", "sim"},
    "verify": VALUES | {"watermark", "wire", "remoting", "client", "real_host"},
    "cli": VALUES | {"watermark", "wire", "remoting", "log", "route", "broker", "client", "real_host", "chaos", "verify"},
    "__init__": {"client", "errors", "host", "message", "config", "real_host"},
    "__main__": {"cli"},
}
SHELL_ROOMS = {"remoting", "broker", "client", "sim", "chaos", "verify", "cli", "real_host", "watermark", "nursery", "__init__", "__main__"}
SHELL_MODULES = {
    "log/aside.py", "log/service.py",
    "log/checkpoint.py", "log/config_file.py", "replica/master.py", "replica/slave.py", "route/service.py",
}  # fmt: skip
"""Shell modules in core rooms. `aside`, `checkpoint` and `config_file` await `sync` between two writes, because that order is their whole
point; they use no Trio."""
MACHINE = {
    "os", "socket", "time", "random", "threading", "mmap", "fcntl", "resource", "secrets", "uuid", "subprocess", "shutil", "tempfile",
}  # fmt: skip
MACHINE_ALLOWED = {
    "real_host.py": MACHINE,
    "host.py": {"random"},  # the type of the dice, no dice
    "sim": {"random"},  # seeded only
    "chaos": {"random"},  # seeded only
    "chaos/cells.py": {"random", "time"},  # says how long it took
    "chaos/search.py": {"time"},  # measures itself
    "chaos/speed.py": {"time"},  # the same
    "verify": {"os", "subprocess"},  # the user's commands that kill and restart
    "cli": {"os", "subprocess", "shutil", "tempfile"},
}
LINES_MAX = 450
FUNCTION_LINES_MAX = 75
SECOND_LOOK: dict[str, str] = {
    "real_host.py": "the one module that may import os, socket and mmap",
}
"""Files or functions that are longer on purpose, each with the reason."""


def room(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of each import at any depth, relative ones resolved; imports under TYPE_CHECKING count too."""
    package = ["trmq", *path.relative_to(SOURCE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            dotted = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield dotted, node.lineno
            for alias in node.names:
                yield f"{dotted}.{alias.name}", node.lineno


def rooms_imported(path: Path) -> Iterator[tuple[str, int]]:
    for dotted, line in imports(path):
        parts = dotted.split(".")
        if parts[0] == "trmq" and len(parts) > 1 and (parts[1] in ARROWS or (SOURCE / parts[1]).exists()):
            yield parts[1], line


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_arrows(path: Path) -> None:
    here = room(path)
    assert here in ARROWS, f"{here} is a new room: say in ARROWS what it may use"
    for other, line in rooms_imported(path):
        assert other == here or other in ARROWS[here], f"{path.name}:{line}: {here} must not use {other}"


def is_shell(path: Path) -> bool:
    return room(path) in SHELL_ROOMS or str(path.relative_to(SOURCE)) in SHELL_MODULES


@pytest.mark.parametrize("path", [p for p in FILES if not is_shell(p)], ids=lambda p: str(p.relative_to(SOURCE)))
def test_core_never_waits(path: Path) -> None:
    if path.name == "host.py":
        return  # protocols of the outside world: they name async methods but hold no code
    for dotted, line in imports(path):
        parts = dotted.split(".")
        assert parts[0] not in {"trio", "asyncio", "concurrent"}, f"{path.name}:{line}: core imports {dotted}"
        assert parts[:2] != ["trmq", "watermark"], f"{path.name}:{line}: the watermark is for the shell"
        assert parts[:2] != ["trmq", "remoting"], f"{path.name}:{line}: core uses remoting"
    for node in ast.walk(ast.parse(path.read_text())):
        waits = isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        assert not waits, f"{path.name}:{getattr(node, 'lineno', 0)}: core code must not wait"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_only_the_real_host_touches_the_machine(path: Path) -> None:
    allowed = MACHINE_ALLOWED.get(str(path.relative_to(SOURCE)), MACHINE_ALLOWED.get(room(path), set()))
    for dotted, line in imports(path):
        top = dotted.split(".")[0]
        assert top not in MACHINE or top in allowed, f"{path.name}:{line}: {dotted} belongs behind Host"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    name = str(path.relative_to(SOURCE))
    if name not in SECOND_LOOK:
        assert text.count("\n") <= LINES_MAX, f"{name} has {text.count(chr(10))} lines: usually two ideas (limit {LINES_MAX})"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and f"{name}:{node.name}" not in SECOND_LOOK:
            size = (node.end_lineno or 0) - node.lineno + 1
            assert size <= FUNCTION_LINES_MAX, f"{name}:{node.name} has {size} lines (limit {FUNCTION_LINES_MAX})"


def test_second_looks_are_current() -> None:
    for name in SECOND_LOOK:
        file, _, function = name.partition(":")
        assert (SOURCE / file).exists(), f"SECOND_LOOK names {file}, which is gone"
        assert not function or f"def {function}(" in (SOURCE / file).read_text(), f"SECOND_LOOK names {name}, which is gone"
