"""Stories that once went wrong, found by crash sweeps and random lives and then made short. Each was a bug in the store."""

from __future__ import annotations

import pytest
from specs.clause import REGISTRY, Verdict, checks

from property.lab import Lab
from property.sweep import WORKLOAD, afterwards, crashes_in_recovery, survivors
from property.test_crash_points import judge
from property.test_random_lives import Life

STORIES: dict[str, tuple[str, bool, list[Life]]] = {
    "a clean stop during a flush left the tail unsynced": (
        "a/6", False, [([("batch", 2), ("no_space", 3), ("refuse",), ("stall",)], None, "close at once", "power")],
    ),
    "a refused put, wiped in the page cache only, came back after kill and power cut": (
        "a/70", True,
        [
            ([("batch", 3), ("batch", 3), ("send", 2), ("send", 4), ("stall",), ("flush",), ("no_space", 3)], None, "leave", "kill"),
            ([], None, "leave", "power"),
        ],
    ),
    "a queue with a file missing in the middle could not be removed to be built again": (
        "a/1570/4", False,
        [([("send", 4), ("checkpoint",), ("batch", 3), ("batch", 3), ("no_space", 3), ("send", 4)], 80, "close", "power")],
    ),
    "the key index of lost messages hid new ones": (
        "b/693", False, [([("send", 4), ("checkpoint",)], None, "leave", "power"), ([("send", 1)], None, "close", "kill")],
    ),
    "a key index removed but not durably so came back and hid new messages": (
        "f/252", False,
        [
            ([("batch", 2), ("send", 4), ("save_config",), ("checkpoint",), ("send", 4)], 60, "leave", "power"),
            ([("send", 1)], 1, "leave", "power"),
            ([("batch", 3), ("flush",)], None, "leave", "power"),
        ],
    ),
    "a refused put's checksums outlived a clean stop and spoke against acknowledged messages": (
        "d/2155", True,
        [
            ([("batch", 2), ("send", 1), ("sleep", 0.6), ("pull_new",), ("no_space", 1)], 66, "close", "power"),
            ([("send", 2), ("sleep", 0.6), ("pull_new",)], 27, "leave", "power"),
            ([("send", 4), ("send", 4)], 2, "leave", "kill"),
        ],
    ),
    "a refused put was not wiped durably by a clean stop": (
        "d/1928", False,
        [
            ([("save_config",), ("batch", 3)], 97, "close", "kill"),
            ([("sleep", 0.6), ("flush",), ("checkpoint",), ("batch", 3)], 14, "leave", "power"),
            ([("no_space", 3)], None, "close", "kill"),
            ([("pull_new",)], 12, "close", "power"),
        ],
    ),
    "a queue built again wrote into a file that had been removed": (
        "d/4017", True,
        [
            ([("send", 1), ("sleep", 6)], None, "close", "kill"),
            ([("sleep", 0.6)], 15, "leave", "power"),
            ([("send", 2), ("batch", 2), ("batch", 3), ("send", 2)], 135, "close", "kill"),
            ([("save_config",), ("checkpoint",), ("send", 2), ("send", 2), ("send", 4), ("batch", 3)], None, "leave", "power"),
            ([("clean",), ("flush",), ("no_space", 1), ("view",), ("send", 1), ("batch", 2)], 25, "close", "power"),
        ],
    ),
    "retention took the log's beginning while the marks behind it were not durable, and a power cut the rest": (
        "lives/0", True, [([("send", 1), ("send", 1), ("send", 4), ("clean",)], 41, "close", "power")],
    ),
    "a disk died in one flush while another waited for it": (
        "lives/94963", False,
        [
            (
                [
                    ("checkpoint",), ("refuse",), ("batch", 3), ("send", 1), ("sleep", 0.6), ("batch", 3), ("send", 4), ("batch", 3),
                    ("flush",), ("checkpoint",),
                ],
                51, "close at once", "power",
            ),
            (
                [
                    ("pull_new",), ("flush",), ("batch", 3), ("send", 2), ("batch", 3), ("idle",), ("send", 2), ("flush",), ("send", 1),
                    ("flush",),
                ],
                69, "leave", "kill",
            ),
        ],
    ),
}  # fmt: skip


@checks(*REGISTRY)
@pytest.mark.parametrize("name", STORIES)
def test_story(name: str) -> None:
    """With eight seeds each, for the number of disk calls changes with the store."""
    seed, sync_flush, lives = STORIES[name]
    for salt in range(8):
        lab = Lab(f"{seed}/{salt}" if salt else seed, sync_flush=sync_flush)
        for number, (ops, fuse, end, how) in enumerate(lives):
            lab.disk.fuse = fuse
            ended = lab.live(ops, end=end)
            if lab.disk.dead or end != "close" or not ended:
                lab.crash(how, dice=number)  # type: ignore[arg-type]
            lab.disk.fuse = None
        lab.live()
        lab.live(end="leave")
        verdict = Verdict().judge(lab.history(f"salt {salt}"))
        assert not verdict.violations, verdict.violations[:3]


@checks("P-REC-3", "P-REC-6")
def test_a_start_after_a_kill_makes_the_names_of_its_segments_durable() -> None:
    judge(crashes_in_recovery("r1", WORKLOAD, 32, sync_flush=False), at_least=10)


@checks("P-REC-3")
def test_old_checksums_after_a_refused_put_do_not_speak_against_the_next() -> None:
    """The crash point at which it was found, and its neighbours."""
    for fuse in range(90, 98):
        dead = Lab("s1", sync_flush=True)
        dead.disk.fuse = fuse
        dead.live(WORKLOAD)
        for way, lab in survivors(dead, fuse, dice=4):
            afterwards(lab, fuse)
            judge([lab.history(f"fuse={fuse} {way}")], at_least=1)
