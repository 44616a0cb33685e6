"""Rebalancing: the official client's shares, and every queue owned exactly once (P-REB-1)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.message import MessageQueue
from trmq.route.rebalance import STRATEGIES, Strategy, average, by_config, by_machine_room, circular, consistent_hash, nearby

GOLDEN = Path(__file__).parent.parent / "golden" / "rebalance.jsonl"


def _broker_room(queue: MessageQueue) -> str:
    return queue.broker_name.split("@")[0]


def _member_room(member: str) -> str:
    return f"room{int(member.split('@')[0].split('.')[3]) % 2}"


RECORDED: dict[str, Strategy] = {
    **STRATEGIES,
    "MACHINE_ROOM": by_machine_room({"room0", "room1"}),
    "NEARBY_AVG": nearby(average, _broker_room, _member_room),
}


@pytest.mark.parametrize("line", GOLDEN.read_text().splitlines(), ids=lambda line: json.loads(line)["strategy"])
def test_same_shares_as_the_official_client(line: str) -> None:
    case = json.loads(line)
    queues = [MessageQueue(*queue) for queue in case["queues"]]
    members = list(case["shares"])
    assert queues == sorted(queues)
    for me, share in case["shares"].items():
        assert RECORDED[case["strategy"]](queues, members, me) == [queues[i] for i in share]


queue_lists = st.builds(
    lambda shape: sorted(MessageQueue("T", name, i) for name, count in shape.items() for i in range(count)),
    st.dictionaries(st.sampled_from([f"r{room}@b{n}" for room in range(3) for n in range(3)]), st.integers(1, 9), max_size=6),
)
member_lists = st.lists(st.from_regex(r"[a-z0-9.]{1,6}@[0-9]{1,4}", fullmatch=True), min_size=1, max_size=12, unique=True).map(sorted)


def _modulo_room(member: str) -> str:
    return f"r{len(member) % 4}"


@pytest.mark.parametrize(
    "strategy",
    [
        average,
        circular,
        consistent_hash,
        by_machine_room({"r0", "r1", "r2"}),
        nearby(average, _broker_room, _modulo_room),
        nearby(circular, _broker_room, _modulo_room),
        nearby(consistent_hash, _broker_room, _modulo_room),
    ],
    ids=["average", "circular", "consistent_hash", "by_machine_room", "nearby_average", "nearby_circular", "nearby_hash"],
)
@given(queues=queue_lists, members=member_lists)
def test_every_queue_has_exactly_one_owner(strategy: Strategy, queues: Sequence[MessageQueue], members: Sequence[str]) -> None:
    """P-REB-1, and that a stranger owns nothing."""
    owned = Counter(queue for me in members for queue in strategy(queues, members, me))
    assert owned == Counter(queues)
    assert strategy(queues, members, "stranger") == []


@given(queues=queue_lists, members=member_lists)
def test_average_and_circular_differ_by_one_at_most(queues: Sequence[MessageQueue], members: Sequence[str]) -> None:
    for strategy in (average, circular, by_machine_room({"r0", "r1", "r2"})):
        sizes = [len(strategy(queues, members, me)) for me in members]
        assert max(sizes) - min(sizes) <= 1


@given(queues=queue_lists, members=member_lists, data=st.data())
def test_configured_lists_that_partition_the_queues_are_owned_once(
    queues: Sequence[MessageQueue], members: Sequence[str], data: st.DataObject
) -> None:
    plan = {queue: data.draw(st.sampled_from(members)) for queue in queues}
    shares = {me: by_config({q for q, owner in plan.items() if owner == me} | {MessageQueue("T", "gone", 0)}) for me in members}
    owned = Counter(queue for me in members for queue in shares[me](queues, members, me))
    assert owned == Counter(queues)


@given(queues=queue_lists, members=member_lists)
def test_consistent_hash_moves_only_the_leavers_queues(queues: Sequence[MessageQueue], members: Sequence[str]) -> None:
    stayers = members[1:]
    for me in stayers:
        assert set(consistent_hash(queues, members, me)) <= set(consistent_hash(queues, stayers, me))


def test_queues_outside_the_named_rooms_have_no_owner() -> None:
    queues = [MessageQueue("T", name, 0) for name in ("a@b@c", "far@b", "near@b", "plain")]
    assert by_machine_room({"near"})(queues, ["m"], "m") == [MessageQueue("T", "near@b", 0)]
