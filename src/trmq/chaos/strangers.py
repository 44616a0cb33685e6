"""Who comes to the ports of a simulated cluster and does not belong there, and a neighbour who looks whether the others are served.

A stranger dials a port, says one noise (`noises`), and waits until the server hangs up, or for longer than any server may wait. The ear
counts its bytes and does not try to understand them. At the same time the neighbour dials the same server, with a request as it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

import attrs
import trio
from specs.history import Dismissed, Neighboured, Rebuked, Visited

from trmq.chaos.cluster import Cluster
from trmq.chaos.ear import HA_PORT, NAMES_PORT, PORT, STRANGER
from trmq.chaos.noises import NOISES, Port, request
from trmq.sim.net import SimStream
from trmq.wire.frame import FrameDecoder

NEIGHBOUR = "neighbour"
PORTS: Mapping[Port, int] = MappingProxyType({"clients": PORT, "names": NAMES_PORT, "slaves": HA_PORT})
STAYS_S, NEIGHBOUR_WAITS_S = 140.0, 5.0
GOOD: Mapping[Port, int] = MappingProxyType({"clients": 28, "names": 206})
"""What a neighbour asks: a broker how it is, a name server which topics there are."""


@attrs.define(eq=False)
class Visit:
    """A stranger's connection as the ear hears it. `left`: its bytes that the server has not read; below 0: it is told of."""

    lab: Cluster
    number: int
    node: str
    port: Port
    what: str
    left: int
    answers: FrameDecoder = attrs.Factory(FrameDecoder)

    def read(self, size: int) -> None:
        """By the server."""
        self.left -= size
        if self.left == 0:
            self.left = -1
            due = NOISES[self.port][self.what].due
            self.lab.note(Visited(self.number, self.node, self.port, self.what, due, trio.current_time()))

    def answered(self, data: bytes) -> None:
        if self.port != "slaves":
            for answer in self.answers.feed(data):
                self.lab.note(Rebuked(self.number, answer.code, trio.current_time()))

    def ended(self, by: str) -> None:
        if by == self.node:
            self.lab.note(Dismissed(self.number, trio.current_time()))


async def dial(lab: Cluster, node: str, port: Port, who: str) -> SimStream:
    host = lab.world.host(who, None if who in lab.world.hosts else f"10.0.8.{len(lab.world.hosts)}")
    return await host.connect((lab.world.hosts[node].ip, PORTS[port]))


async def make_noise(lab: Cluster, node: str, port: Port, what: str) -> bool:
    """Say it, and go on listening in the background; whether there was anybody to hear it."""
    data = NOISES[port][what].make(lab.world.dice(f"noise {len(lab.ear.visits)}"))
    try:
        with trio.fail_after(1):
            stream = await dial(lab, node, port, STRANGER)
    except (OSError, trio.TooSlowError):
        return False
    visit = Visit(lab, len(lab.ear.visits) // 2, node, port, what, len(data))
    lab.ear.visits[stream._in] = lab.ear.visits[stream._out] = visit
    visit.read(0)
    lab.nursery.start_soon(_stay, stream, data)
    lab.nursery.start_soon(look_in, lab, node, "names" if port == "names" else "clients")
    return True


async def _stay(stream: SimStream, data: bytes) -> None:
    with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(STAYS_S):
        async with stream:
            await stream.send_all(data)
            while await stream.receive_some():
                pass


async def look_in(lab: Cluster, node: str, port: Port) -> None:
    """As somebody who belongs there: one good request, and how long the answer takes."""
    began, decoder, answered = trio.current_time(), FrameDecoder(), False
    with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(NEIGHBOUR_WAITS_S):
        async with await dial(lab, node, port, NEIGHBOUR) as stream:
            await stream.send_all(request(GOOD[port]))
            while not answered:
                data = await stream.receive_some()
                answered = bool(decoder.feed(data))
                if not data:
                    break
    lab.note(Neighboured(node, port, began, answered, trio.current_time()))
