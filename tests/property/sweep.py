"""A crash in every disk call of a workload, survived in several ways, and what follows: more messages, more crashes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from specs.history import History

from property.lab import Lab, Op, crash_points
from trmq.sim.disk import Crash
from trmq.sim.platter import Kept

WORKLOAD: tuple[Op, ...] = (
    ("send", 2), ("pull_new",), ("batch", 3), ("refuse",), ("send", 1), ("save_config",), ("sleep", 0.6), ("checkpoint",), ("send", 3),
    ("pull_new",), ("no_space", 2), ("send", 1), ("save_config",), ("sleep", 6), ("batch", 2), ("view",), ("send", 2), ("idle",),
)  # fmt: skip
"""Two topics, three queues, five segments, three files of a queue, batches, refusals, a full disk, write-backs, a config file."""
RETENTION: tuple[Op, ...] = (
    ("send", 3), ("batch", 3), ("send", 3), ("sleep", 6), ("clean",), ("send", 3), ("pull_new",), ("clean",), ("send", 2),
    ("pull_all",), ("sleep", 6),
)  # fmt: skip
AFTER: tuple[Op, ...] = (("send", 2), ("pull_new",), ("save_config",), ("sleep", 0.7), ("batch", 2), ("view",))
KEPT: tuple[Kept | None, ...] = (None, "none", None, "prefix", "random", None, "all")


def survivors(lab: Lab, fuse: int, dice: int) -> Iterator[tuple[str, Lab]]:
    """The dead lab's disk after a kill, and after `dice` power cuts of different luck."""
    yield "kill", lab.fork().crash("kill")
    for die in range(dice):
        kept = KEPT[(fuse + die) % len(KEPT)]
        yield f"power/{die}/{kept}", lab.fork().crash("power", dice=f"{fuse}/{die}", kept=kept)


def afterwards(lab: Lab, fuse: int) -> None:
    """What happens to a survivor: the next life works on and is crashed again, the one after that closes, the last one looks."""
    rng = random.Random(f"after/{lab.seed}/{fuse}")
    how: Crash = "kill" if rng.random() < 0.5 else "power"
    if rng.random() < 0.5:
        lab.disk.fuse = rng.randrange(1, 60)
    if lab.live(AFTER, end="leave") or lab.disk.dead:
        lab.crash(how, dice=f"{fuse}/second")
    lab.live((("send", 1),))
    lab.live(end="leave")


def sweep(
    seed: object, ops: Sequence[Op], *, sync_flush: bool, dice: int = 2, step: int = 1, first: int = 1, patient: bool = False
) -> Iterator[History]:
    """The histories of every `step`-th crash point of a life that plays `ops`."""
    for fuse, dead in crash_points(seed, ops, sync_flush=sync_flush, step=step, first=first, patient=patient):
        for way, lab in survivors(dead, fuse, dice):
            afterwards(lab, fuse)
            yield lab.history(f"fuse={fuse} {way}")


def crashes_in_recovery(
    seed: object, ops: Sequence[Op], fuse: int, *, sync_flush: bool, patient: bool = False, step: int = 1
) -> Iterator[History]:
    """One crash point, and then a crash at every `step`-th disk call of the recovery, again survived in every way. First an
    undisturbed trial start on a copy of the disk tells what recovery gives."""
    dead = Lab(seed, sync_flush=sync_flush, patient=patient)
    dead.disk.fuse = fuse
    dead.live(ops)
    if not dead.disk.dead:
        return
    for first_how in ("kill", "power"):
        crashed = dead.fork().crash(first_how, dice=fuse)  # type: ignore[arg-type]
        trial = crashed.fork()
        before = len(trial.events)
        trial.live(end="leave", final=False)
        if trial.image is None or not any(e is trial.image for e in trial.events[before:]):
            yield trial.history(f"fuse={fuse} {first_how}: the trial start failed")
            continue
        inner = 1
        while True:
            lab = crashed.fork()
            lab.events.append(trial.image)
            lab.disk.fuse = inner
            started = lab.live(end="leave") or not lab.disk.dead
            for how in ("kill", "power"):
                again = lab.fork().crash(how, dice=f"{fuse}/{inner}")  # type: ignore[arg-type]
                again.live((("send", 1),), end="leave")
                again.crash("kill")
                again.live()
                yield again.history(f"fuse={fuse} {first_how}, recovery dies at {inner} by {how}")
            if started:
                break
            inner += step
