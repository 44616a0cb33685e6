"""Seeded bugs of consumption: in the client, and in what a broker does for groups. Registered beside those of replication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chaos.mutants import MUTANTS, Patch, mutant
from property.mutants import wrap
from trmq.broker.clients import Clients
from trmq.client import assignment
from trmq.client.assignment import Assignment
from trmq.route import rebalance

__all__ = ["MUTANTS"]


# --- who holds what


@mutant("P-REB-1", scenarios=("shares",))
def allocation_depends_on_who_asks(patch: Patch) -> None:
    """Each member puts itself first."""

    def average(original: Any, queues: Sequence[Any], members: Sequence[str], me: str) -> Any:
        return original(queues, sorted(members, key=lambda member: (member != me, member)), me)

    wrap(patch, rebalance, "average", average)


@mutant("P-REB-1", scenarios=("shares",))
def allocation_forgets_the_rest(patch: Patch) -> None:
    """What does not come out even falls to nobody."""

    def average(queues: Sequence[Any], members: Sequence[str], me: str) -> Any:
        share, index = len(queues) // len(members), members.index(me)
        return list(queues[index * share : (index + 1) * share])

    patch.setattr(rebalance, "average", average)


@mutant("P-REB-2", scenarios=("members_come_and_go",))
def nobody_looks_again(patch: Patch) -> None:
    patch.setattr(assignment, "REBALANCE", 1e9)
    patch.setattr(Assignment, "rebalance_soon", lambda self: None)


@mutant("P-REB-2", scenarios=("members_come_and_go",))
def the_dead_stay_members(patch: Patch) -> None:
    patch.setattr(Clients, "drop", lambda self, conn: [])
