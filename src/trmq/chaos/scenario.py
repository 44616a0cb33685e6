"""A scenario: what is deployed, from which seed, and what happens when. Drawn by `atlas`, shrunk, kept as a short text file, played again.

    trmq-scenario 1
    # the slave had the record, its master had not flushed it
    mode sync-pair
    flush async
    seed 4711
    0.100 send 3
    0.250 power a0
    1.000 start a0

A step is a time in simulated seconds, a verb and what it is done to. Nodes are called after their group and number: "a0" begins as the
master of group a, "a1" as its slave; "client" is the machine of the producers. Comments and blank lines mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, cast

import attrs

from trmq.chaos.noises import NOISES, Port
from trmq.errors import ConfigError

VERSION = 1
Mode = Literal["single", "masters", "async-pair", "sync-pair"]
Flush = Literal["async", "sync"]
NODES: Mapping[Mode, tuple[str, ...]] = MappingProxyType({
    "single": ("a0",), "masters": ("a0", "b0"), "async-pair": ("a0", "a1"), "sync-pair": ("a0", "a1"),
})  # fmt: skip
MODES: tuple[Mode, ...] = tuple(NODES)
FLUSHES: tuple[Flush, ...] = ("async", "sync")
CLIENT = "client"
PAIRS: tuple[Mode, ...] = ("async-pair", "sync-pair")

VERBS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "send": ("count",),  # messages, one after the other, without waiting for the answers of earlier sends
    "start": ("node",),  # again, in the place it has now; nothing happens while it is up
    "promote": ("node",),  # the slave is started as master; only while no master of its group is up
    "close": ("node",), "kill": ("node",), "os-crash": ("node",), "power": ("node",),
    "machine": ("node",),  # it never returns
    "disk": ("node",),  # it may return, empty
    "pause": ("node",), "resume": ("node",),
    "cut": ("place", "place"), "cut-one-way": ("place", "place"),
    "part": ("place", "place"),  # cut, and what was on its way is lost
    "heal": (),  # every cut, clog and slow link
    "reset": ("place", "place"), "drop": ("place", "place", "count"),  # the connection dies after so many bytes more
    "slow": ("place", "place", "seconds"), "clog": ("node",), "split": (),
    "disk-full": ("node",), "disk-free": ("node",), "slow-disk": ("node", "seconds"),
    "sync-fails": ("node",), "write-fails": ("node",), "read-fails": ("node",),
    "rot": ("node", "number"), "misdirect": ("node", "number"),
    "jump": ("node", "seconds"), "drift": ("node", "number"),
    "stranger": ("node", "count"),  # dials the HA port of its master and claims so many bytes more than there are
    "noise": ("port", "noise"),  # dials a port and says what no such port can make anything of (`noises`)
})  # fmt: skip
"""Verb -> the kinds of its arguments: a node, a place (node or "client"), a count (an integer >= 0), seconds, a number; a port: a node (its
port for clients), "a0/ha" (a node's port for slaves), "names"; the name of a noise."""
LINKS = frozenset({"cut", "cut-one-way", "part", "slow", "drop", "reset"})
"""What is done to the way between two places."""
HINDERS = LINKS | {"clog", "split", "disk-full", "slow-disk", "sync-fails", "write-fails", "read-fails"}
"""What makes work harder and ends no process."""
NEEDS_SLAVE = frozenset({"promote"})
NAMES = "names"


def port_of(name: str) -> tuple[str, Port]:
    """The node and which of its ports."""
    return (NAMES, "names") if name == NAMES else (name.removesuffix("/ha"), "slaves" if name.endswith("/ha") else "clients")


def ports(mode: Mode) -> tuple[str, ...]:
    return (*NODES[mode], *(f"{node}/ha" for node in NODES[mode]), NAMES)


@attrs.frozen(order=True)
class Step:
    """At `at` seconds (simulated) after the cluster is up."""

    at: float
    verb: str
    args: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((f"{self.at:.3f}", self.verb, *self.args))


@attrs.frozen
class Scenario:
    """`seed` decides schedules, delays, what a disk keeps: everything that the steps leave open."""

    mode: Mode
    flush: Flush
    seed: int
    steps: tuple[Step, ...] = ()
    comment: str = ""

    @property
    def nodes(self) -> tuple[str, ...]:
        return NODES[self.mode]

    def with_steps(self, steps: Iterable[Step]) -> Scenario:
        return attrs.evolve(self, steps=tuple(steps))

    def render(self) -> str:
        """As text; `parse` gives it back."""
        comment = [f"# {line}" for line in self.comment.splitlines()]
        head = [f"trmq-scenario {VERSION}", *comment, f"mode {self.mode}", f"flush {self.flush}", f"seed {self.seed}"]
        return "\n".join([*head, *map(str, self.steps)]) + "\n"


def parse(text: str, name: str = "scenario") -> Scenario:
    """Raises `ConfigError` naming `name` and the line for whatever is not a scenario of this version."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    comment = "\n".join(line.removeprefix("#").strip() for _, line in lines if line.startswith("#"))
    words = [(number, line.split()) for number, line in lines if line and not line.startswith("#")]
    if not words or words[0][1][0] != "trmq-scenario":
        raise ConfigError(f"{name}: this is no scenario: its first line must be `trmq-scenario {VERSION}`")
    if words[0][1][1:] != [str(VERSION)]:
        given = " ".join(words[0][1][1:]) or "none"
        raise ConfigError(f"{name}: version {given} of scenarios cannot be played here, only version {VERSION}: use the trmq that wrote it")
    head: dict[str, str] = {}
    steps: list[Step] = []
    for number, line in words[1:]:
        where = f"{name}, line {number}"
        if line[0] in ("mode", "flush", "seed"):
            if len(line) != 2 or line[0] in head:
                raise ConfigError(f"{where}: `{line[0]}` stands once, with one value")
            head[line[0]] = line[1]
        else:
            steps.append(_step(line, where))
    missing = [key for key in ("mode", "flush", "seed") if key not in head]
    if missing:
        raise ConfigError(f"{name}: there is no line `{missing[0]} ...`")
    scenario = Scenario(
        cast(Mode, one_of("mode", head["mode"], MODES, name)), cast(Flush, one_of("flush", head["flush"], FLUSHES, name)),
        _integer(head["seed"], f"{name}: seed"), tuple(steps), comment,
    )  # fmt: skip
    check(scenario, name)
    return scenario


def one_of(what: str, value: str, allowed: Iterable[str], name: str) -> str:
    if value not in allowed:
        raise ConfigError(f"{name}: {what} {value!r} is unknown: use one of {', '.join(allowed)}")
    return value


def check(scenario: Scenario, name: str = "scenario") -> None:
    """Raises `ConfigError` if a step cannot mean anything in this mode, or comes before an earlier one."""
    places = {*scenario.nodes, CLIENT}
    last = 0.0
    for step in scenario.steps:
        where = f"{name}: step `{step}`"
        if step.at < last:
            raise ConfigError(f"{where} comes after one at {last:.3f}: put the steps in order of time")
        last = step.at
        if step.verb in NEEDS_SLAVE and scenario.mode not in PAIRS:
            raise ConfigError(f"{where} needs a slave, and mode {scenario.mode} has none: use {' or '.join(PAIRS)}")
        for kind, value in zip(VERBS[step.verb], step.args, strict=True):
            if kind == "node" and value not in scenario.nodes:
                raise ConfigError(f"{where}: mode {scenario.mode} has no node {value!r}, only {', '.join(scenario.nodes)}")
            if kind == "port" and value not in ports(scenario.mode):
                raise ConfigError(f"{where}: mode {scenario.mode} has no port {value!r}, only {', '.join(ports(scenario.mode))}")
            if kind == "noise":
                one_of("noise", value, NOISES[port_of(step.args[0])[1]], where)
            if kind == "place" and value not in places:
                raise ConfigError(f"{where}: {value!r} is neither a node ({', '.join(scenario.nodes)}) nor {CLIENT!r}")


def _step(words: list[str], where: str) -> Step:
    try:
        at = float(words[0])
    except ValueError:
        raise ConfigError(f"{where}: a step begins with its time in seconds, not with {words[0]!r}") from None
    if not 0 <= at < 1e6:
        raise ConfigError(f"{where}: a step's time lies between 0 and a million seconds, not at {words[0]}")
    if len(words) < 2 or words[1] not in VERBS:
        verb = words[1] if len(words) > 1 else ""
        raise ConfigError(f"{where}: the verb {verb!r} is unknown: use one of {', '.join(VERBS)}")
    kinds, args = VERBS[words[1]], tuple(words[2:])
    if len(args) != len(kinds):
        raise ConfigError(f"{where}: `{words[1]}` takes {' and '.join(kinds) or 'nothing'}, not {' '.join(args) or 'nothing'}")
    for kind, value in zip(kinds, args, strict=True):
        if kind == "count":
            if _integer(value, f"{where}: {kind}") < 0:
                raise ConfigError(f"{where}: a count is not negative")
        elif kind in ("seconds", "number"):
            _number(value, f"{where}: {kind}")
    return Step(at, words[1], args)


def _integer(value: str, where: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"{where} must be an integer, not {value!r}") from None


def _number(value: str, where: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{where} must be a number, not {value!r}") from None
