"""All stories and all seeded bugs of clusters, whichever module registers them. A new module is named here."""

from __future__ import annotations

from chaos import (
    consume_mutants,
    consume_scenarios,
    pair_group_scenarios,
    pair_scenarios,
    route_mutants,
    route_scenarios,
    stranger_mutants,
    stranger_scenarios,
)
from chaos.mutants import MUTANTS
from chaos.scenarios import SCENARIOS

MODULES = (
    pair_scenarios, consume_scenarios, pair_group_scenarios, route_scenarios, stranger_scenarios, consume_mutants, route_mutants,
    stranger_mutants,
)  # fmt: skip

__all__ = ["MODULES", "MUTANTS", "SCENARIOS"]
