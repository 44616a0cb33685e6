"""The fault atlas: which faults there are, which may meet in a deployment so that its promise still means something, and dice for both.

A *swarm* seed first draws which kinds of fault are on, and only then when they strike: with all of them always on, the interesting runs
are hidden. What is drawn stays inside what the specification has a sentence for: at most one disk or machine of a group is lost for
good, and no more than one copy of a record rots.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from trmq.chaos.noises import draw as draw_noise
from trmq.chaos.scenario import CLIENT, FLUSHES, MODES, PAIRS, Flush, Mode, Scenario, Step, check, port_of, ports
from trmq.errors import ConfigError

FAULTS: Mapping[str, str] = MappingProxyType({
    "close": "a broker is stopped in order",
    "kill": "a broker's process dies; the page cache lives",
    "os-crash": "the system crashes; the page cache is lost, whole pages at a time",
    "power": "the power goes; sectors are lost and torn",
    "machine": "a machine never starts again",
    "disk": "a disk is destroyed; its machine returns empty",
    "pause": "a process stands still for a while, as by SIGSTOP",
    "cut": "a network partition, both ways or one way, with or without what was on its way",
    "link": "a connection is slow, split at any byte, dies after some bytes, or is reset",
    "disk-full": "no room for a while",
    "io-error": "a write, a read or an fsync fails once",
    "rot": "a sector of the log is altered, or written to the wrong place",
    "clock": "a wall clock jumps, or runs at the wrong speed",
    "stranger": "somebody dials a port and lies, or says what nobody can understand",
})  # fmt: skip
"""The fourteen kinds of fault, as the matrix of guarantees counts them."""
STRANGERS_AMONG_MASTERS = 0.1
"""How often a stranger comes to masters without slaves, drawn with dice of its own: what other seeds draw has stayed what it was."""
KIND: Mapping[str, str] = MappingProxyType({
    **{name: name for name in ("close", "kill", "os-crash", "power", "machine", "disk", "pause", "disk-full", "stranger", "rot")},
    "cut": "cut", "cut-one-way": "cut", "part": "cut", "reset": "link", "drop": "link", "slow": "link", "clog": "link", "split": "link",
    "slow-disk": "link", "sync-fails": "io-error", "write-fails": "io-error", "read-fails": "io-error", "misdirect": "rot",
    "jump": "clock", "drift": "clock", "noise": "stranger",
})  # fmt: skip
"""Verb -> the kind of fault it is."""


def check_faults(faults: Iterable[str]) -> None:
    """Raises `ConfigError` for an unknown kind."""
    for fault in faults:
        if fault not in FAULTS:
            raise ConfigError(f"fault {fault!r} is unknown: use some of {', '.join(FAULTS)}")


def draw(
    seed: int, mode: Mode | None = None, flush: Flush | None = None, faults: Sequence[str] | None = None, *, length: int = 12
) -> Scenario:
    """The scenario of a seed. What is given is not drawn; `faults` () means none. Raises as `check_faults`."""
    dice = random.Random(f"swarm/{seed}")
    drawn_mode, drawn_flush = dice.choice(MODES), dice.choice(FLUSHES)
    mode, flush = mode or drawn_mode, flush or drawn_flush
    if faults is None:
        possible = [fault for fault in FAULTS if fault != "stranger" or mode in PAIRS]
        faults = dice.sample(possible, dice.choice((1, 1, 2, 2, 3, 4)))
        if mode not in PAIRS and random.Random(f"stranger/{seed}").random() < STRANGERS_AMONG_MASTERS:
            faults.append("stranger")
    check_faults(faults)
    hand = _Hand(dice, random.Random(f"noise/{seed}"), mode, faults)
    steps = [step for _ in range(dice.randrange(length // 2, length + 1)) for step in hand.next()]
    scenario = Scenario(mode, flush, seed, tuple(steps), f"faults: {', '.join(faults) or 'none'}")
    check(scenario)
    return scenario


class _Hand:
    """Deals steps in order of time. `lost`: groups that have lost a machine or disk for good; `rotten`: that have rot on one copy."""

    def __init__(self, dice: random.Random, noise: random.Random, mode: Mode, faults: Sequence[str]) -> None:
        self.dice, self.noise, self.mode, self.faults = dice, noise, mode, list(faults)
        self.nodes = Scenario(mode, "async", 0).nodes
        self.at = 0.0
        self.lost: set[str] = set()
        self.rotten: set[str] = set()

    def next(self) -> list[Step]:
        dice = self.dice
        self.at = round(self.at + dice.choice((0.0, 0.001, 0.01, 0.1, 0.5, 2.0, 6.0)) * (0.5 + dice.random()), 3)
        if not self.faults or dice.random() < 0.4:
            return [self._step("send", str(dice.choice((1, 1, 2, 5))))]
        if dice.random() < 0.3:
            return [self._mend()]
        return self._strike(dice.choice(self.faults))

    def _step(self, verb: str, *args: str) -> Step:
        return Step(self.at, verb, args)

    def _mend(self) -> Step:
        node = self.dice.choice(self.nodes)
        verbs = ["start", "start", "heal", "resume", "disk-free"] + ["promote"] * (self.mode in PAIRS)
        verb = self.dice.choice(verbs)
        return self._step(verb) if verb == "heal" else self._step(verb, node)

    def _ends(self) -> tuple[str, str]:
        one, other = self.dice.sample([*self.nodes, CLIENT], 2)
        return one, other

    def _strike(self, fault: str) -> list[Step]:
        dice, node = self.dice, self.dice.choice(self.nodes)
        group = node[0]
        match fault:
            case "machine" | "disk":
                if group in self.lost or group in self.rotten:
                    return []
                self.lost.add(group)
                return [self._step(fault, node)]
            case "rot":
                if group in self.lost or group in self.rotten:
                    return []
                self.rotten.add(group)
                return [self._step(dice.choice(("rot", "misdirect")), node, str(dice.randrange(1 << 16)))]
            case "cut":
                return [self._step(dice.choice(("cut", "cut-one-way", "part")), *self._ends())]
            case "link":
                return [self._link(node)]
            case "io-error":
                return [self._step(dice.choice(("sync-fails", "write-fails", "read-fails")), node)]
            case "clock":
                return [
                    self._step("jump", node, str(dice.choice((-3600, -5, 5, 3600)))) if dice.random() < 0.5
                    else self._step("drift", node, str(dice.choice((0, 0.5, 2))))
                ]  # fmt: skip
            case "stranger":
                lie = self._step("stranger", node, str(dice.choice((1, 4000, 1 << 40))))
                return [lie, *(self._noise() for _ in range(self.noise.randrange(3)))]
            case _:
                return [self._step(fault, node)]

    def _noise(self) -> Step:
        port = self.noise.choice(ports(self.mode))
        return self._step("noise", port, draw_noise(self.noise, port_of(port)[1]))

    def _link(self, node: str) -> Step:
        dice, ends = self.dice, self._ends()
        match dice.choice(("reset", "drop", "slow", "clog", "split", "slow-disk")):
            case "drop":
                return self._step("drop", *ends, str(dice.choice((0, 1, 7, 8, 100, 1000))))
            case "slow":
                return self._step("slow", *ends, str(dice.choice((0.05, 0.5, 2.0))))
            case "clog":
                return self._step("clog", node)
            case "split":
                return self._step("split")
            case "slow-disk":
                return self._step("slow-disk", node, str(dice.choice((0.2, 4.0))))
            case _:
                return self._step("reset", *ends)
