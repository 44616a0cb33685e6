"""The operator's own commands, run one after the other while messages flow: what kills and what starts again, what stops and what resumes.

Whatever was struck is mended before the run ends, also when it is interrupted. A command goes through `/bin/sh`; one that starts a server
may stay in the foreground: nobody waits for its end, and it lives on.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import attrs
import trio

from trmq.errors import TrmqError

from .members import SILENT, Members
from .plan import Plan

STRIKE_MAX_S = 60.0
SPARE_S = 2.0
"""After the last fault is mended, messages flow for at least this long."""


class CommandFailed(TrmqError):
    """A command of the operator's ended with an error."""


@attrs.define
class Fault:
    """One that was caused. `struck`: the addresses that stopped answering, and how they looked."""

    kind: str
    command: str
    at: float
    struck: dict[str, str] = attrs.field(factory=dict)
    mended: float = 0.0
    back: float | None = None
    """When every group had a master that answers again."""


class Injector:
    def __init__(self, plan: Plan, members: Members, say: Callable[[str], None]) -> None:
        self.plan, self.members, self.say = plan, members, say
        self.faults: list[Fault] = []
        self._open: tuple[Fault, str] | None = None

    async def run(self, until: float) -> None:
        """Fault after fault, kill and pause in turn, as long as there is time for another."""
        pairs = [pair for pair in (("kill", self.plan.kill, self.plan.restart), ("pause", self.plan.pause, self.plan.resume)) if pair[1]]
        number, observer = 0, self.members.observer
        while pairs:
            due = (number + 1) * self.plan.period - self.plan.down - min(SPARE_S, (self.plan.period - self.plan.down) / 2)
            if max(due, observer.now) + self.plan.down > until:
                return
            await trio.sleep(max(0.0, due - observer.now))
            kind, strike, mend = pairs[number % len(pairs)]
            await self._one(kind, strike, mend)
            number += 1

    async def _one(self, kind: str, strike: str, mend: str) -> None:
        observer, members = self.members.observer, self.members
        fault = Fault(kind if kind == "pause" else self.plan.fault, strike, observer.now)
        self.faults.append(fault)
        members.struck_at, members.pausing = len(observer.events), kind == "pause"
        members.struck_s = float("inf")
        self._open = (fault, mend)
        try:
            with trio.fail_after(STRIKE_MAX_S):
                await self._command(kind, strike)
        except trio.TooSlowError:
            raise CommandFailed(f"the command after --{kind} did not end within {STRIKE_MAX_S:g} s") from None
        members.struck_s = observer.now
        ends = observer.now + self.plan.down
        while (left := ends - observer.now) > 0:
            with trio.move_on_after(left):
                await members.changed.park()
            fault.struck |= {
                member.address: member.state for member in members.away()
                if member.away[-1][1] >= fault.at and (member.away[-1][0] != SILENT or kind != "pause")}  # fmt: skip
        hit = ", ".join(f"{address} is {state}" for address, state in sorted(fault.struck.items())) or "nobody stopped answering"
        self.say(f"{fault.kind}: {hit}")
        await self.mend()
        with trio.move_on_after(self.plan.patience):
            while not members.all_groups_have_a_master():
                await members.changed.park()
            fault.back = observer.now
            self.say(f"every group has a master that answers, {fault.back - fault.mended:.1f} s after it was mended")

    async def mend(self) -> None:
        """Undo the fault that is under way, if there is one. Shielded: also on the way out."""
        if self._open is None:
            return
        fault, command = self._open
        self._open = None
        with trio.CancelScope(shield=True):
            fault.mended = self.members.observer.now
            self.members.struck_at = None
            await self._command("resume" if fault.kind == "pause" else "restart", command)

    async def _command(self, what: str, text: str) -> None:
        process = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", text], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        waits = 0.3 if what in ("restart", "resume") else STRIKE_MAX_S
        with trio.move_on_after(waits):
            await process.wait()
        if process.returncode:
            raise CommandFailed(f"the command after --{what} ended with code {process.returncode}: {text}")
