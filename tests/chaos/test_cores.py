"""Both ends of the replication protocol and the ack rule against each other: any order, any cutting of the stream, any lie."""

from __future__ import annotations

from hypothesis import given, note
from hypothesis import strategies as st
from specs.clause import Verdict, checks

from chaos.cores import SETTINGS, VERBS, Cores, Log, fed, play

CORE = ("P-HA-1", "P-HA-2", "P-HA-3", "P-HA-4", "P-HA-8", "P-ACK-1", "P-ACK-5", "P-ACK-6", "P-ACK-7", "P-ACK-8", "P-ACK-9")
STEP = st.tuples(st.sampled_from(VERBS), st.integers(0, 5))


@checks(*CORE)
@given(
    steps=st.lists(STEP, max_size=60), seed=st.integers(0, 2**32), announced=st.booleans(), last=st.booleans(),
    setting=st.sampled_from(SETTINGS),
)
def test_whatever_happens_the_clauses_hold(
    steps: list[tuple[str, int]], seed: int, announced: bool, last: bool, setting: tuple[int, int, int, int, bool]
) -> None:
    need, minimum, gap, slaves, auto = setting
    lab = Cores(seed, need=need, minimum=minimum, gap=gap, slaves=slaves, announced=announced, last_segment=last, auto=auto)
    verdict = Verdict().judge(play(lab, steps).history(), CORE)
    note(f"{dict(verdict.witnesses)}")
    assert not verdict.violations, verdict.violations[:3]


@checks("P-HA-7")
@given(
    seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 700), min_size=1, max_size=12), pieces=st.integers(2, 3000),
    begin=st.booleans(),
)
def test_any_cutting_of_the_stream_gives_the_same(seed: int, sizes: list[int], pieces: int, begin: bool) -> None:
    log = Log(4096 if begin else 0)
    for number, size in enumerate(sizes):
        log.append(f"m{number}", size)
    one, many = fed(seed, log, pieces)
    assert (one.log, one.said) == (many.log, many.said)
