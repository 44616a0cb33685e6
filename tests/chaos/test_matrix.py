"""Six faults of a master (and both losing power at once) x four ways to deploy x both flush modes: what may be lost, and that it is.

Each cell is played with chance deciding what the disks keep, and once as bad as can be. Messages are settled (flushed, replicated) or fresh
when the fault comes. A cell where nothing may be lost must lose nothing; another loses at most what `specs.loss.may_lose` says, never a
settled message unless all may go, and its worst play must really lose something.
"""

from __future__ import annotations

import pytest
import trio
from specs import CLUSTER
from specs.clause import Verdict, checks
from specs.history import Found, History, Told
from specs.loss import ASYNC_PAIR, FAULTS, MASTERS, MODES, PROMOTED, RETURNS, SINGLE, SYNC_PAIR, may_lose

from trmq.chaos.cluster import Cluster, Flush, running
from trmq.sim.determinism import run_seeded

GROUPS = {SINGLE: {"a": 0}, MASTERS: {"a": 0, "b": 0}, ASYNC_PAIR: {"a": 1}, SYNC_PAIR: {"a": 1}}
FLUSHES: tuple[Flush, ...] = ("ASYNC_FLUSH", "SYNC_FLUSH")
COUNT = 6


def endings(mode: str, fault: str) -> tuple[str, ...]:
    if mode in (SINGLE, MASTERS):
        return () if fault == "power of both" else (RETURNS,)
    if fault in ("machine", "disk"):
        return (PROMOTED,)
    return (RETURNS,) if fault == "power of both" else (RETURNS, PROMOTED)


CELLS = [(mode, flush, fault, ending) for mode in MODES for flush in FLUSHES for fault in FAULTS for ending in endings(mode, fault)]


class Play:
    """One play of a cell. `worst`: links are cut where that loses most, and disks keep nothing that was not synced."""

    def __init__(self, lab: Cluster, mode: str, fault: str, ending: str, worst: bool) -> None:
        self.lab, self.mode, self.fault, self.ending, self.worst = lab, mode, fault, ending, worst
        self.settled: list[str] = []
        self.fresh: list[str] = []

    async def run(self) -> None:
        lab = self.lab
        await lab.create_topic(2)
        self.settled = await lab.send_many(COUNT)
        await trio.sleep(12)
        if self.worst and self.mode == ASYNC_PAIR:
            lab.part("a0", "a1")
        if not self.worst:
            lab.slow["a0", "a1"] = lab.random.choice((0.0, 0.002, 0.2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_fresh)
            await trio.sleep(0.05 if self.worst else lab.random.choice((0.0015, 0.01, 0.3)))
            lab.look()
            await self._strike()
            lab.slow.clear()
            lab.heal()
        await self._recover()
        await lab.finish()

    async def _send_fresh(self) -> None:
        for _ in range(COUNT):
            self.fresh.append(await self.lab.send(timeout=2))

    async def _strike(self) -> None:
        lab, kept = self.lab, "none" if self.worst else None
        match self.fault:
            case "close":
                await lab.close("a0")
            case "kill":
                lab.kill("a0")
            case "os":
                lab.os_crash("a0", kept)
            case "power":
                lab.power("a0", kept)
            case "power of both":
                lab.power("a0", kept)
                lab.power("a1", kept)
            case "machine":
                lab.machine("a0")
            case "disk":
                lab.disk("a0")

    async def _recover(self) -> None:
        lab = self.lab
        if self.fault == "power of both":
            await lab.start_broker("a1", broker_id=1)
        if self.ending == PROMOTED:
            await self._promote()
        elif self.fault != "machine":
            await lab.start_broker("a0")
            if lab.groups["a"]:
                await trio.sleep(8)
                if lab.logs["a1"].end > lab.logs["a0"].end:
                    await lab.close("a0")
                    await self._promote()
        await trio.sleep(8)

    async def _promote(self) -> None:
        lab = self.lab
        await lab.close("a1")
        await lab.start_broker("a1", broker_id=0)
        if self.fault != "machine":
            await lab.start_broker("a0", broker_id=1)


def play(mode: str, flush: Flush, fault: str, ending: str, seed: object, worst: bool) -> tuple[Play, History]:
    made: list[Play] = []

    async def main() -> None:
        async with running(seed, GROUPS[mode], sync=mode == SYNC_PAIR, flush=flush) as lab:
            made.append(Play(lab, mode, fault, ending, worst))
            await made[0].run()

    run_seeded(main, seed)
    return made[0], made[0].lab.history(f"{mode}, {flush}, {fault}, {ending}, worst={worst}")


def lost(play: Play, history: History) -> tuple[set[str], set[str]]:
    """(settled, fresh) messages answered SEND_OK that cannot be read at the end."""
    acked = {event.id for event in history.all(Told) if event.status == "OK"}
    found = {id for event in history.all(Found) for id in event.ids}
    return (acked & set(play.settled)) - found, (acked & set(play.fresh)) - found


@checks(*CLUSTER)
@pytest.mark.parametrize(("mode", "flush", "fault", "ending"), CELLS, ids=[", ".join(cell) for cell in CELLS])
def test_what_may_be_lost_and_nothing_more(mode: str, flush: Flush, fault: str, ending: str, seed: int, profile: str) -> None:
    allowed = may_lose(mode, flush == "SYNC_FLUSH", fault, ending)
    verdict = Verdict()
    witnesses = 0
    for turn in range(20 if profile == "long" else 2):
        worst = turn == 0
        one, history = play(mode, flush, fault, ending, f"{seed}/{turn}", worst)
        verdict.judge(history, CLUSTER)
        assert not verdict.violations, "\n".join(f"{id} {origin}: {witness}" for id, witness, origin in verdict.violations[:5])
        settled, fresh = lost(one, history)
        assert allowed == "all" or not settled, f"{settled} were flushed and replicated, and are lost: {history.origin}"
        assert allowed or not fresh, f"{fresh} were answered SEND_OK, and are lost: {history.origin}"
        witnesses += bool(settled | fresh)
    assert not allowed or witnesses, f"{allowed} may be lost, and even the worst play lost nothing"
    print(f"{mode}, {flush}, {fault}, {ending}: may lose {allowed or 'nothing'}, {witnesses} of {turn + 1} plays lost something")
