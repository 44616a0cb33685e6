"""Random work, crashes and restarts over several lives of one store, judged by every clause."""

from __future__ import annotations

import random

from hypothesis import given, note
from hypothesis import strategies as st
from specs.clause import Verdict, checks

from property.lab import Lab, Op
from property.test_crash_points import EVERY

COMMON: list[Op] = [
    ("send", 1), ("send", 2), ("send", 4), ("batch", 2), ("batch", 3), ("sleep", 0.6), ("checkpoint",), ("flush",), ("pull_new",),
]  # fmt: skip
RARE: list[Op] = [
    ("refuse",), ("no_space", 1), ("no_space", 3), ("save_config",), ("sleep", 6), ("pull_all",), ("clean",), ("view",), ("idle",),
    ("no_sync",), ("stall",),
]  # fmt: skip
OPS = st.lists(st.one_of(st.sampled_from(COMMON), st.sampled_from(COMMON + RARE)), min_size=1, max_size=10)
ENDS = st.sampled_from(["close", "close at once", "leave"])
LIFE = st.tuples(OPS, st.none() | st.integers(1, 150), ENDS, st.sampled_from(["kill", "power"]))
Life = tuple[list[Op], int | None, str, str]


def several_lives(seed: str, sync_flush: bool, lives: list[Life]) -> Verdict:
    """Each life plays its operations, dies in its n-th disk call if it gets there, else ends as told; then a kill or a power cut."""
    lab = Lab(seed, sync_flush=sync_flush)
    for number, (ops, fuse, end, how) in enumerate(lives):
        lab.disk.fuse = fuse
        ended = lab.live(ops, end=end)
        if end == "leave" or not ended or random.Random(f"{seed}/{number}").random() < 0.3:
            lab.crash(how, dice=number)  # type: ignore[arg-type]
        else:
            lab.disk.fuse = None
    lab.live()
    lab.live(end="leave")
    return Verdict().judge(lab.history())


@checks(*EVERY, "P-FLUSH-1", "P-FLUSH-2", "P-FLUSH-3", "P-FLUSH-4", "P-FLUSH-5", "P-FLUSH-6")
@given(seed=st.integers(0, 1 << 32), sync_flush=st.booleans(), lives=st.lists(LIFE, min_size=1, max_size=4))
def test_random_lives(seed: int, sync_flush: bool, lives: list[Life]) -> None:
    verdict = several_lives(f"lives/{seed}", sync_flush, lives)
    for id, witness, _ in verdict.violations[:5]:
        note(f"{id}: {witness}")
    assert not verdict.violations, verdict.broken()
