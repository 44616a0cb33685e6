"""What `trmq dev` shows: the state of every node, sampled by asking it, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from trmq.client import Client
from trmq.errors import TrmqError

from .common import amount
from .fleet import Fleet, Member

SAMPLE_S, PATIENCE_S = 0.5, 1.0
RATE_S = 2.0
"""The rate shown is that of the samples of this long a time."""


@attrs.define
class Sight:
    """What one broker said when last asked. `samples`: (seconds, messages stored so far)."""

    answers: bool = True
    max_offset: int | None = None
    problem: str = ""
    samples: list[tuple[float, int]] = attrs.field(factory=list)

    def take(self, runtime: Mapping[str, str], now: float) -> None:
        """Account for an answer to GET_BROKER_RUNTIME_INFO."""
        self.answers = True
        self.max_offset = int(runtime.get("commitLogMaxOffset") or 0)
        self.problem = "" if runtime.get("haState") == "master" else runtime.get("haProblem", "")
        self.samples = [sample for sample in self.samples if sample[0] > now - RATE_S - SAMPLE_S]
        self.samples.append((now, int(runtime.get("msgPutTotalTodayNow") or 0)))

    def lost(self) -> None:
        """It is not there: what it said no longer counts."""
        self.answers, self.max_offset, self.problem = False, None, ""
        self.samples.clear()

    @property
    def rate(self) -> float:
        """Messages a second; never negative, though the count begins again at midnight and with a restart."""
        if len(self.samples) < 2:
            return 0.0
        (begin, first), (end, last) = self.samples[0], self.samples[-1]
        return max(0.0, (last - first) / (end - begin)) if end > begin else 0.0


async def watch(mq: Client, group: Mapping[str, Member], sights: Mapping[str, Sight]) -> None:
    """Keep the sights of one broker group fresh, for ever. Its members are asked in the same moment, since a lag is the difference of two
    answers; one that hangs costs its group a second."""
    while True:
        async with trio.open_nursery() as nursery:
            for name, member in group.items():
                nursery.start_soon(look, mq, member, sights[name])
        await trio.sleep(SAMPLE_S)


async def look(mq: Client, member: Member, sight: Sight) -> None:
    runtime = None
    if member.state == "up":
        with trio.move_on_after(PATIENCE_S):
            try:
                runtime = await mq.admin.broker_runtime(member.node.address)
            except TrmqError:
                pass
    if runtime is None:
        sight.lost()
    else:
        sight.take(runtime, trio.current_time())


def rows_of(fleet: Fleet, sights: Mapping[str, Sight]) -> list[dict[str, Any]]:
    """A row per node, in the order in which they are named."""
    ends = {member.node.broker_name: sights[name].max_offset for name, member in fleet.members.items() if is_master(member)}
    return [row_of(member, sights.get(name), ends.get(member.node.broker_name)) for name, member in sorted_members(fleet)]


def is_master(member: Member) -> bool:
    return member.node.is_broker and member.node.broker_id == 0


def sorted_members(fleet: Fleet) -> Sequence[tuple[str, Member]]:
    return sorted(fleet.members.items(), key=lambda item: (item[1].node.is_broker, item[0]))


def row_of(member: Member, sight: Sight | None, end: int | None) -> dict[str, Any]:
    """`end`: what the master of its group will write next, None while that is unknown."""
    node = member.node
    row = {"node": node.name, "role": node.role, "pid": member.pid or "", "address": node.address, "state": state_of(member, sight)}
    own = sight.max_offset if sight is not None and member.state == "up" else None
    behind = "" if own is None or end is None or node.broker_id == 0 else amount(max(0, end - own))
    rate = f"{sight.rate:,.0f}" if sight is not None and own is not None and node.broker_id == 0 else ""
    return row | {"max offset": "" if own is None else f"{own:,}", "lag": behind, "in/s": rate}


def state_of(member: Member, sight: Sight | None) -> str:
    """A word or two, or why it is down."""
    if member.state in ("down", "stopped"):
        return f"{member.state}: {member.ended}"
    if member.state == "up" and sight is not None:
        if not sight.answers:
            return "no answer"
        return "not following" if sight.problem else "up"
    return member.state


def problems_of(fleet: Fleet, sights: Mapping[str, Sight]) -> list[str]:
    """What brokers say is wrong with them."""
    return [f"{name}: {sights[name].problem}" for name, member in fleet.members.items() if name in sights and sights[name].problem]


def news_of(member: Member) -> str:
    """One line about a change of state."""
    node = member.node
    if member.state in ("starting", "up"):
        again = " again" if member.starts > 1 else ""
        return f"{node.name} {member.state}{again}: {node.role} at {node.address}, pid {member.pid}"
    return f"{node.name} {state_of(member, None)}"
