"""What playing a scenario gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
from specs.clause import Verdict
from specs.history import History

from trmq.chaos.scenario import Scenario


class Strikes(Counter[str]):
    """Kind of fault -> how often one struck something; whoever wants to know is told of each at that moment."""

    on: Callable[[str], None] | None = None

    def __setitem__(self, kind: str, count: int) -> None:
        struck = count > self[kind]
        super().__setitem__(kind, count)
        if struck and self.on is not None:
            self.on(kind)


@attrs.frozen
class Run:
    """`events`: what the world did (deliveries, timers, calls; the unit of its speed). `hits`: fault kind -> how often one really struck
    something. `sometimes`: rare situation -> how often it came about. `fingerprint`: equal for equal runs."""

    scenario: Scenario
    history: History
    events: int
    simulated_s: float
    hits: Counter[str]
    sometimes: Counter[str]
    fingerprint: str

    def judge(self, ids: tuple[str, ...]) -> Verdict:
        return Verdict().judge(self.history, ids)
