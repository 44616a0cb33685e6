"""Stories of strangers at every port. Registered among the others."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from specs.history import History

from chaos.scenarios import SCENARIOS, cluster, scenario
from trmq.chaos.cluster import Cluster
from trmq.chaos.noises import NOISES, Port
from trmq.chaos.strangers import make_noise

__all__ = ["SCENARIOS"]
VISITED: dict[str, tuple[tuple[str, Port], ...]] = {
    "single": (("a0", "clients"), ("a0", "slaves"), ("names", "names")),
    "pair": (("a0", "clients"), ("a1", "clients"), ("a0", "slaves")),
}


@scenario
def noises_at_every_port(seed: str, patient: bool) -> Iterator[History]:
    """Every noise at every port, a few at a time, while messages flow; then for as long as a silent one is borne."""
    for deployed, groups in (("single", {"a": 0}), ("pair", {"a": 1})):

        async def story(lab: Cluster, deployed: str = deployed) -> None:
            await lab.create_topic()
            await lab.nursery.start(lab.consume, "consumer")
            for node, port in VISITED[deployed]:
                for number, what in enumerate(NOISES[port]):
                    await make_noise(lab, node, port, what)
                    if number % 4 == 0:
                        await lab.send()
                await trio.sleep(2)
            await trio.sleep(150)
            await lab.send_many(2)
            await lab.settle(16)
            await lab.finish()

        yield cluster(groups, story, f"{seed}/{deployed}", patient, sync=deployed == "pair")
