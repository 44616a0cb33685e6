"""How fast the whole shell plays under a steady load: `python -m trmq.chaos.speed --rate 40 --seconds 60`.

Three nodes, a name server, a SYNC_MASTER and its slave; a client sends so many messages a second, without waiting for the answers to the
ones before, and another consumes them. Nothing fails. All is heard and noted as when a scenario is played. Measured is from the first
message to the last delivery, without starting and ending the cluster. Exit code 1 if a message was not answered SEND_OK, or not given.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from functools import partial

import attrs
import trio
from specs.history import Given, Outcome

from trmq.chaos.cluster import Cluster, Flush, running
from trmq.chaos.shell import fingerprint
from trmq.sim.determinism import run_seeded

DRAIN_S = 60.0


@attrs.frozen
class Load:
    """`rate` messages of `size` bytes a second, for so many seconds."""

    rate: float = 40.0
    seconds: float = 60.0
    size: int = 100
    flush: Flush = "ASYNC_FLUSH"
    seed: int = 0

    @property
    def messages(self) -> int:
        return round(self.rate * self.seconds)


@attrs.frozen
class Speed:
    """What a run gave. `cpu_s` is this process's processor time: on a machine that others use, the figure to compare."""

    load: Load
    acknowledged: int
    given: int
    steps: int
    words: int
    simulated_s: float
    wall_s: float
    cpu_s: float
    fingerprint: str

    @property
    def complete(self) -> bool:
        return self.acknowledged == self.given == self.load.messages

    def __str__(self) -> str:
        load = self.load
        return (
            f"{load.messages} messages of {load.size} bytes, {load.rate:g} a second, through a synchronous pair with {load.flush} and its "
            f"name server: {self.acknowledged} SEND_OK, {self.given} given\n"
            f"{self.simulated_s:.2f} simulated s in {self.wall_s:.2f} s ({self.cpu_s:.2f} s of processor time): "
            f"{self.simulated_s / self.wall_s:.1f} simulated s/s ({self.simulated_s / self.cpu_s:.1f} by processor time), "
            f"{self.load.messages / self.cpu_s:.0f} messages/s, {self.steps / self.cpu_s:.0f} deliveries/s\n"
            f"seed {load.seed}, {self.words} words, fingerprint {self.fingerprint[:16]}, "
            f"{platform.python_implementation()} {platform.python_version()}, Trio {trio.__version__}"
        )


async def drive(lab: Cluster, load: Load) -> None:
    """Send all, and wait until each has its outcome and was given."""
    began = trio.current_time()
    body = "x" * load.size
    for number in range(load.messages):
        await trio.sleep_until(began + number / load.rate)
        lab.nursery.start_soon(partial(lab.send, body))
    with trio.move_on_after(DRAIN_S):
        while lab.sending or count(lab, Given) < load.messages:  # noqa: ASYNC110 (simulated time)
            await trio.sleep(0.1)


def count(lab: Cluster, kind: type[Given] | type[Outcome]) -> int:
    return sum(type(event) is kind for event in lab.events)


def measure(load: Load) -> Speed:
    """Play it once."""
    found: list[Speed] = []

    async def main() -> None:
        async with running(load.seed, {"a": 1}, sync=True, flush=load.flush) as lab:
            await lab.create_topic(4)
            await lab.nursery.start(lab.consume, "consumer")
            await lab.producer()
            await trio.sleep(1)
            simulated, steps, words = trio.current_time(), lab.world.steps, len(lab.events)
            wall, cpu = time.perf_counter(), time.process_time()
            await drive(lab, load)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            acknowledged = sum(isinstance(event, Outcome) and event.status == "OK" for event in lab.events)
            found.append(Speed(
                load, acknowledged, count(lab, Given), lab.world.steps - steps, len(lab.events) - words,
                trio.current_time() - simulated, wall, cpu, fingerprint(lab.world, lab.events),
            ))  # fmt: skip

    run_seeded(main, load.seed)
    return found[0]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trmq.chaos.speed", description="Measure how fast the whole shell plays under load.")
    parser.add_argument("--rate", type=float, default=40.0, help="messages a simulated second")
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated seconds of sending")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message's body")
    parser.add_argument("--flush", choices=("SYNC_FLUSH", "ASYNC_FLUSH"), default="ASYNC_FLUSH")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    found = measure(Load(given.rate, given.seconds, given.size, given.flush, given.seed))
    sys.stdout.write(f"{found}\n")
    return 0 if found.complete else 1


if __name__ == "__main__":
    sys.exit(main())
