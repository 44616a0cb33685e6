"""Stories of several name servers. Registered among the others."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from specs.history import History

from chaos.scenarios import SCENARIOS, cluster, scenario
from trmq.chaos.cluster import Cluster

__all__ = ["SCENARIOS"]
TWO = "10.0.0.1:9876;10.0.0.2:9876"


@scenario
def name_servers_come_and_go(seed: str, patient: bool) -> Iterator[History]:
    """Two name servers. One dies, and producers old and new go on; it returns knowing nobody; then the other dies."""

    async def story(lab: Cluster) -> None:
        await lab.create_topic()
        await lab.send_many(4)
        lab.kill("names")
        for number in range(4):
            await lab.send(producer=f"new{number}")
        await trio.sleep(31)
        await lab.send_many(2)
        await lab.start_names("names")
        await trio.sleep(12)
        lab.kill("names1")
        for number in range(4):
            await lab.send(producer=f"newer{number}")
        await trio.sleep(31)
        await lab.send_many(2)
        await lab.start_names("names1")
        await trio.sleep(12)
        for number in range(4):
            await lab.send(producer=f"newest{number}")
        await lab.finish()

    yield cluster({"a": 1, "b": 0}, story, seed, patient, namesrv_addr=TWO)
