"""The two verbs that start a server, read without Cyclopts, whose import is a tenth of a start and 2 MB for as long as the server lives.

Only what is beyond doubt is read here: the verb and options with a value each. Everything else (a request for help, a mistake) is left to
Cyclopts, which also words what there is to say about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


def _one_of(*words: str) -> Callable[[str], str | None]:
    return lambda text: text if text in words else None


Reader = Callable[[str], Any]
"""A value from its text, None if there may be something wrong with it."""

COMMON: dict[str, Reader] = {"config": Path, "listen_port": _number, "bind": str, "store": Path, "end_with": _one_of("stdin"), "set": str}
VERBS: dict[str, tuple[str, dict[str, Reader]]] = {
    "serve": ("starting", COMMON | {
        "namesrv": str, "namesrv_port": _number, "broker_name": str, "broker_id": _number, "cluster": str,
        "role": _one_of("async_master", "sync_master", "slave"), "flush": _one_of("async", "sync"),
    }),
    "namesrv": ("starting_namesrv", COMMON),
}  # fmt: skip
"""Verb: the module that has it, and its options."""
SHORT = {("serve", "-c"): "--config", ("serve", "-n"): "--namesrv", ("namesrv", "-c"): "--config", ("namesrv", "-p"): "--listen-port"}


def read(arguments: Sequence[str]) -> Callable[[], int] | None:
    """The verb with its options, ready to run; None to ask Cyclopts instead."""
    if not arguments or arguments[0] not in VERBS:
        return None
    verb, *rest = arguments
    module, readers = VERBS[verb]
    found: dict[str, Any] = {}
    words = iter(rest)
    for word in words:
        option, mark, text = word.partition("=")
        if not mark:
            option, text = SHORT.get((verb, word), word), next(words, "")
        name = option[2:].replace("-", "_")
        if not option.startswith("--") or option != option.replace("_", "-") or name not in readers or not text or text.startswith("-"):
            return None
        value = readers[name](text)
        if value is None or (name in found and name != "set"):
            return None
        if name == "set":
            value = [*found.get(name, ()), value]
        found[name] = value
    return partial(getattr(import_module(f"trmq.cli.{module}"), verb), **found)
