"""Fourteen kinds of fault x four deployments x both flush modes: each cell struck while sends are on their way, judged by every clause."""

from __future__ import annotations

import pytest
from specs import CLUSTER
from specs.clause import checks

from trmq.chaos.atlas import FAULTS
from trmq.chaos.cells import CELLS, play_cell, scenario_of
from trmq.chaos.scenario import FLUSHES, MODES, Flush, Mode, check, parse


def test_every_cell_has_a_scenario() -> None:
    assert len(CELLS) == 14 * 4 * 2
    for cell in CELLS:
        for turn in range(20):
            scenario = scenario_of(*cell, turn)
            check(scenario)
            assert parse(scenario.render()) == scenario, "as a file it is the same"
    seeds = {scenario_of(*cell, turn).seed for cell in CELLS for turn in range(20)}
    assert len(seeds) == 20 * len(CELLS), "no schedule twice"


@checks(*CLUSTER)
@pytest.mark.parametrize(("mode", "flush"), [(mode, flush) for mode in MODES for flush in FLUSHES])
def test_every_clause_holds_in_every_cell(mode: Mode, flush: Flush, profile: str) -> None:
    runs = 20 if profile == "long" else 1
    for fault in FAULTS:
        given = play_cell("shell", runs, (mode, flush, fault))
        violations = given["violations"]
        assert not violations, "\n".join(f"{found['clause']} {found['witness']}\n{found['scenario']}" for found in violations[:3])
        cell = given["cell"]
        print(f"{mode}, {flush}, {fault}: {cell['runs']} runs, {cell['hits']} hits, {cell['lost']} lost as may be")
        assert cell["hits"] or runs == 1, f"{fault} never struck anything in {runs} runs"
