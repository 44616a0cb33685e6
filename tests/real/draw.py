"""What the life of a cluster consists of, drawn from its seed: a deployment, and the faults of its rounds, one after the other.

The eight deployments (mode and flush) take turns, seed by seed. Each has a deck of faults that is shuffled anew when it is empty, so that
fifty lives meet every fault in every deployment several times, and one seed says all there is to know about one life.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from itertools import product
from pathlib import Path

import attrs

from trmq.chaos.scenario import FLUSHES, MODES, PAIRS, Flush, Mode

ROUNDS = 4
"""Rounds of one life."""
DEPLOYMENTS: tuple[tuple[Mode, Flush], ...] = tuple(product(MODES, FLUSHES))
FAULTS = {
    "close": "SIGTERM, and the process ends in order",
    "kill": "SIGKILL",
    "pause": "SIGSTOP, and SIGCONT after a while",
    "disk-full": "a file system of its own runs full, and has space again",
    "disk": "SIGKILL, and the slave's store is removed: it returns empty",
    "cut": "a connection is held, or open on one side only",
    "link": "connections are reset, die in the middle of a frame, or trickle",
    "stranger": "malformed frames at the port for clients and the one for slaves",
}
ELSEWHERE = {
    "os-crash": "needs a machine to crash: L2 and L3, and the recorded disk calls",
    "power": "needs a machine without power: L2 and L3, and the recorded disk calls",
    "machine": "a machine that never starts again is `kill` without a start: L2 and L3",
    "io-error": "needs a disk that fails: L2 and L3",
    "rot": "bits flipped in a real store are in tests/process/test_start.py; under load: L2 and L3",
    "clock": "one machine has one clock: L2 and L3",
}
"""Why the other faults of the atlas have no rounds here."""
OF_PAIRS = frozenset({"disk"})
PROXIED = frozenset({"cut", "link"})


@attrs.frozen
class Plan:
    """`faults`: (fault, node it strikes) of each round."""

    seed: int
    mode: Mode
    flush: Flush
    faults: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.mode}, {self.flush} flush: {', '.join(f'{fault} {node}' for fault, node in self.faults)}"


def nodes_of(mode: Mode) -> tuple[str, ...]:
    return {"single": ("a0",), "masters": ("a0", "b0"), "async-pair": ("a0", "a1"), "sync-pair": ("a0", "a1")}[mode]


def draw(seed: int, rounds: int = ROUNDS, *, mounts: bool = True) -> Plan:
    """`mounts`: whether this user may mount a file system that can run full; without, that fault is left out."""
    mode, flush = DEPLOYMENTS[seed % len(DEPLOYMENTS)]
    possible = [name for name in FAULTS if (mode in PAIRS or name not in OF_PAIRS) and (mounts or name != "disk-full")]
    first = seed // len(DEPLOYMENTS) * rounds
    deck: list[str] = []
    while len(deck) < first + rounds:
        dealt = random.Random(f"deck/{mode}/{flush}/{len(deck) // len(possible)}")
        deck += dealt.sample(possible, len(possible))
    dice = random.Random(f"targets/{seed}")
    strikes = [(name, "a1" if name == "disk" else dice.choice(nodes_of(mode))) for name in deck[first : first + rounds]]
    return Plan(seed, mode, flush, tuple(strikes))


def may_mount() -> bool:
    if os.name == "nt" or os.geteuid():
        return False
    with tempfile.TemporaryDirectory() as folder:
        mounted = mount(Path(folder), 1 << 20)
        if mounted:
            unmount(Path(folder))
        return mounted


def mount(folder: Path, size: int) -> bool:
    """A file system of `size` bytes in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True).returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)
