"""What can happen: for each such clause a history is kept that shows it, and it happens again when the story is played again."""

from __future__ import annotations

import pytest
from specs import CLUSTER
from specs.clause import REGISTRY, checks

from chaos.every import SCENARIOS
from chaos.kept import load

MAY = {
    "P-ACK-2": "asynchronous_pair", "P-ACK-R1": "dual_write", "P-DUP-2": "ack_is_lost", "P-HA-R1": "longer_slave",
    "P-DUP-R1": "members_come_and_go", "P-DUP-R2": "members_come_and_go", "P-DUP-R3": "brokers_return", "P-DUP-R4": "delayed",
    "P-DUP-R5": "answers_to_give_backs_are_lost", "P-LOSS-2": "asynchronous_pair", "P-REB-R1": "members_come_and_go",
    "P-SLV-R1": "consumer_switches",
}
"""Clause -> the story it was seen in."""


def test_every_sentence_about_what_can_happen_has_its_story() -> None:
    assert sorted(MAY) == sorted(id for id in CLUSTER if REGISTRY[id].kind == "may")


@checks("P-ACK-2", "P-ACK-R1", "P-DUP-2", "P-HA-R1", "P-LOSS-2", "P-REB-R1", "P-SLV-R1",
        "P-DUP-R1", "P-DUP-R2", "P-DUP-R3", "P-DUP-R4", "P-DUP-R5")
@pytest.mark.parametrize("id", MAY)
def test_it_is_seen_in_the_kept_history_and_again_today(id: str) -> None:
    assert any(True for _ in REGISTRY[id].check(load(id)))
    again = [witness for history in SCENARIOS[MAY[id]]("pinned", False) for witness, _ in REGISTRY[id].check(history)]
    assert again, f"{id} is not reachable any more: {REGISTRY[id].says}"
    print(f"{id}: seen {len(again)} times, first: {again[0]}")
