"""What may be concluded from what was seen, and what not: a false accusation is worse than none."""

from __future__ import annotations

import pytest
import trio
from specs.checker import check
from specs.history import Event, Given, History, Outcome, QueueRead, Tried

from trmq.client import SendResult, SendStatus
from trmq.message import MessageQueue
from trmq.verify.judge import HELD, UNSEEN, VIOLATED, Finding, Witness, believable, follows_from_loss, used_again, was_away
from trmq.verify.members import Member, copies_promised
from trmq.verify.observer import Attempt, Observer
from trmq.verify.plan import Expect, Plan
from trmq.verify.workload import body_of

PLAN = Plan(namesrv="")
TOPIC, GROUP = "T", "g"


@pytest.mark.parametrize(("away", "at", "ended", "fault", "found"), [
    (("down", 1.0, 9.0), 3.0, 4.0, "kill", "down"),
    (("down", 1.0, 9.0), 1.5, 4.0, "kill", ""),  # its last report may still have been under way
    (("down", 1.0, 9.0), 3.0, 9.5, "kill", ""),  # it may have been back
    (("down", 1.0, 30.0), 3.0, 4.0, "close", ""),  # asked to stop, it may still write
    (("down", 1.0, 30.0), 13.0, 14.0, "close", "down"),
    (("paused", 1.0, 9.0), 3.0, 4.0, "kill", "paused"),
    (("silent", 1.0, 9.0), 3.0, 4.0, "kill", ""),  # slow, perhaps: nobody stopped it
])  # fmt: skip
def test_a_slave_counts_as_away_only_if_it_surely_was(
    away: tuple[str, float, float], at: float, ended: float, fault: str, found: str
) -> None:
    member = Member("a:1", GROUP, 1, away=[away])
    assert was_away(member, Attempt(at, "m:1", GROUP, 0, "OK", ended), Plan(namesrv="", fault=fault)) == found


@pytest.mark.parametrize(("role", "in_sync", "expect", "copies"), [
    ("ASYNC_MASTER", "1", Expect.auto, 1), ("SYNC_MASTER", "1", Expect.auto, 2), ("SYNC_MASTER", "3", Expect.auto, 3),
    ("SYNC_MASTER", "all", Expect.auto, 2), ("SYNC_MASTER", "2", Expect.master, 1), ("ASYNC_MASTER", "1", Expect.slave, 2),
])  # fmt: skip
def test_what_send_ok_is_taken_to_say(role: str, in_sync: str, expect: Expect, copies: int) -> None:
    assert copies_promised(Member("a:1", GROUP, 0, {"brokerRole": role, "inSyncReplicas": in_sync}), expect) == copies


def test_without_witnesses_nothing_is_said_to_hold() -> None:
    assert Finding("P", "", "").state == UNSEEN
    assert Finding("P", "", "", 1).state == HELD
    assert Finding("P", "", "", 1, [Witness("")]).state == VIOLATED


async def test_a_loss_is_blamed_once() -> None:
    observer = Observer(TOPIC, "cg")
    lost, later, other = (observer.begins(id, "key") for id in ("lost", "later", "other"))
    loss, order, notes = Finding("P-LOSS-1", "", "", 3, [Witness("", (lost,))]), Finding("P-HIS-7", "", "", 3), list[str]()
    order.violations = [Witness("", (later, lost)), Witness("", (later, other))]
    follows_from_loss([loss, order, Finding("P-HIS-2", "", ""), Finding("P-HIS-5", "", "")], notes)
    assert [witness.stories for witness in order.violations] == [(later, other)]
    assert (order.witnesses, len(loss.violations), len(notes)) == (2, 1, 1)


def test_of_a_group_that_nobody_could_read_nothing_is_owed() -> None:
    events = [Outcome(id, "OK", group=group, queue=(TOPIC, 0), queue_offset=0) for id, group in (("m1", "a"), ("m2", "b"))]
    assert [event.id for event in believable(events, {"b"}) if isinstance(event, Outcome)] == ["m2"]


async def test_places_that_a_lost_message_left_are_known() -> None:
    observer = Observer(TOPIC, "cg")
    queue = MessageQueue(TOPIC, "a", 0)
    for offset, id in enumerate(("m0", "m1", "gone")):
        observer.given("c", id, queue, offset)
    observer.events.append(QueueRead((TOPIC, 0), "a", 0, ("m0", "m1", "new", "later")))
    assert used_again(observer) == {"new"}
    assert [event.id for event in observer.events if isinstance(event, Given)] == ["m0", "m1", "gone"]


async def test_the_longest_time_without_an_answer_counts_to_the_end(autojump_clock: trio.testing.MockClock) -> None:
    observer = Observer(TOPIC, "cg")
    queue = MessageQueue(TOPIC, "a", 0)
    for _ in range(3):
        await trio.sleep(1.0)
        story = observer.begins(f"m{len(observer.stories)}", "key")
        observer.hears(story, observer.tries(story, "p", queue, "a:1"), SendResult(SendStatus.SEND_OK, "key", "", queue, 0))
    assert observer.longest_gap(5.5) == (2.5, 3.0)


def test_bodies_show_every_alteration() -> None:
    body = body_of("p1.0.1")
    assert body == body_of("p1.0.1")
    assert body != body_of("p1.0.2")
    assert body.partition(b" ")[0] == b"p1.0.1"


def test_a_member_that_is_losing_a_queue_may_still_hand_on_what_it_has() -> None:
    """c1 goes on from where it is, while c2 began again at what was committed; but c1 itself may not go back and forth."""
    sent: list[Event] = [Tried(f"m{n}", "p", "a", 0, topic=TOPIC) for n in range(12)]
    owners = [*(("c1", n) for n in range(10)), ("c3", 10), ("c2", 3), ("c2", 4)]
    fair = [*owners, ("c1", 10), ("c2", 5)]
    unfair = [*owners, ("c2", 8)]
    for story, broken in ((fair, []), (unfair, ["H7"])):
        given = [Given(who, f"m{n}", (TOPIC, 0), "a", n) for who, n in story]
        assert check(History((*sent, *given))).broken() == broken
