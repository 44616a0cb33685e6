"""The verdict: the rules of `specs.checker` as far as a client can see them, and what a sender sees of acknowledgements.

Nothing passes for want of evidence: a clause without witnesses is "not exercised". What a broker group still owes is judged only if that
group could be read at the end, and what SEND_OK is worth depends on the promise that is judged (`copies_promised`), which the report
names with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import specs
from specs.checker import CLAUSES, check
from specs.history import LATE, ClusterEvent, Given, History, Outcome, QueueName, QueueRead

from .members import DOWN, SILENT, Member, Members, copies_promised
from .observer import OK, Attempt, Observer, Story
from .plan import Expect, Plan

RULES = ("H1", "H2", "H3", "H4", "H5", "H6", "H7", "H8")
HELD, VIOLATED, UNSEEN = "held", "violated", "not exercised"
SETTLED_S = 1.0
"""A slave that is gone counts as gone for the master after this."""
LATE_S = 2.0
AT_ONCE = 0.8
"""Of slaveTimeout: an answer before that did not wait for it, however slow the machine is."""
CLOSING_S = 10.0
"""One that was asked to stop may still write for this long."""
NAMED = ("brokerRole", "flushDiskType", "inSyncReplicas")
"""The settings on which the promise rests."""
SAYS = {
    "P-HIS-2": "The place that an answer named holds that message.",
    "P-HIS-3": "Whatever is stored or delivered was sent before; what failed for certain is nowhere.",
    "P-HIS-5": "What was read at an offset stays there.",
    "P-HIS-6": "The offsets of a queue are dense, and a group skips none.",
    "P-HIS-7": "Sent after the answer to another one means stored and delivered after it.",
    "P-HIS-8": "Every group is given everything, and again only for a reason.",
}
AS_SEEN = {
    "P-ACK-4": "Seen by the sender: a broker that is up answers within its slaveTimeout (or flush timeout) and two seconds.",
    "P-ACK-8": "Seen by the sender: what is sent and answered while too few slaves run to write it is not answered SEND_OK.",
    "P-ACK-9": "Seen by the sender: a SYNC_MASTER whose slaves are all gone says SLAVE_NOT_AVAILABLE and waits for nobody.",
}
"""The clauses about acknowledgements in the form in which they are judged here; their own words need a look inside."""


@attrs.frozen
class Witness:
    """What broke a clause, and the stories of the messages it is about."""

    text: str
    stories: tuple[Story, ...] = ()


@attrs.define
class Finding:
    """One clause and what came of it."""

    clause: str
    says: str
    source: str
    witnesses: int = 0
    violations: list[Witness] = attrs.field(factory=list)

    @property
    def state(self) -> str:
        return VIOLATED if self.violations else HELD if self.witnesses else UNSEEN


@attrs.frozen
class Promise:
    """What SEND_OK of one broker group is taken to say, and why."""

    group: str
    copies: int
    text: str
    why: str


def promises(members: Members, plan: Plan) -> list[Promise]:
    found = []
    for group in members.groups:
        master = members.master(group)
        if master is None:
            continue
        copies = copies_promised(master, plan.expect)
        where = "the master has it" if copies == 1 else f"the master and {copies - 1} of its slaves have it"
        where += ", on disk" if master.sync_flush else ", in memory that survives the process"
        settings = ", ".join(f"{key}={master.config[key]}" for key in NAMED if key in master.config)
        why = f"--expect {plan.expect}" if plan.expect is not Expect.auto else (
            "the documents say of a SYNC_MASTER: answered when master and slave have written it" if copies > 1
            else "the documents say of other masters: answered when it has written it")  # fmt: skip
        found.append(Promise(group, copies, f"SEND_OK says: {where}", f"{why}; its settings: {settings or 'unknown'}"))
    return found


def judge(observer: Observer, members: Members, plan: Plan, read: set[str], notes: list[str]) -> list[Finding]:
    """`read`: the broker groups whose queues were read wholly at the end."""
    report = check(History(tuple(believable(observer.events, read))))
    findings = []
    for rule in RULES:
        finding = _finding(CLAUSES[rule])
        finding.witnesses = report.witnesses[rule]
        for violation in report.violations:
            if violation.rule == rule:
                finding.violations.append(Witness(violation.witness, named_in(violation.witness, observer)))
        findings.append(finding)
    follows_from_loss(findings, notes)
    places = used_again(observer)
    (given,) = (finding for finding in findings if finding.clause == CLAUSES["H8"])
    kept = [witness for witness in given.violations if not any(story.id in places and not story.given for story in witness.stories)]
    if skipped := len(given.violations) - len(kept):
        given.violations, given.witnesses = kept, given.witnesses - skipped
        notes.append(f"{skipped:,} messages stand where the group had been given others, which are gone: it was not given these. Whether "
                     f"those could be lost, {CLAUSES['H1']} says; after that, nobody promises a group what takes their places")  # fmt: skip
    return [*findings, *acknowledgements(observer, members, plan)]


def follows_from_loss(findings: list[Finding], notes: list[str]) -> None:
    """Where a message was lost, its place is used again and order against it means nothing: that is blamed once, as the loss."""
    by_clause = {finding.clause: finding for finding in findings}
    lost = {story.id for witness in by_clause[CLAUSES["H1"]].violations for story in witness.stories}
    for rule in ("H2", "H5", "H7"):
        finding = by_clause[CLAUSES[rule]]
        kept = [witness for witness in finding.violations if not any(story.id in lost for story in witness.stories)]
        if gone := len(finding.violations) - len(kept):
            finding.violations, finding.witnesses = kept, finding.witnesses - gone
            notes.append(f"{gone:,} witnesses against {finding.clause} name a message that {CLAUSES['H1']} says is lost: not counted twice")


def used_again(observer: Observer) -> set[str]:
    """Messages that stand, at the end, where the group had been given another one that is nowhere now."""
    before: dict[tuple[str, QueueName, int], set[str]] = {}
    there: dict[tuple[str, QueueName, int], str] = {}
    for event in observer.events:
        if isinstance(event, Given):
            before.setdefault((event.group, event.queue, event.queue_offset), set()).add(event.id)
        elif isinstance(event, QueueRead):
            there |= {(event.group, event.queue, event.start + n): id for n, id in enumerate(event.ids)}
    found = set(there.values())
    return {id for place, id in there.items() if before.get(place, {id}) - {id} - found}


def _finding(id: str) -> Finding:
    clause = specs.clause.REGISTRY.get(id)
    says = AS_SEEN.get(id) or (clause.says if clause else SAYS[id])
    return Finding(id, says, clause.source if clause else "reference \"ha semantics\" D")


def believable(events: list[ClusterEvent], read: set[str]) -> Iterator[ClusterEvent]:
    """Without the successes of groups that could not be read: of those nobody knows what they still have."""
    for event in events:
        if isinstance(event, Outcome) and event.group and event.group not in read:
            continue
        yield event


def named_in(text: str, observer: Observer) -> tuple[Story, ...]:
    words = [word.strip(",.;") for word in text.split()]
    return tuple(observer.stories[word] for word in dict.fromkeys(words) if word in observer.stories)


# --- what a sender sees of acknowledgements


def acknowledgements(observer: Observer, members: Members, plan: Plan) -> list[Finding]:
    in_time, copied, at_once = _finding("P-ACK-4"), _finding("P-ACK-8"), _finding("P-ACK-9")
    for story in observer.stories.values():
        for attempt in story.attempts:
            master = members.known.get(attempt.node)
            if master is None or not attempt.ended:
                continue
            took = attempt.ended - attempt.at
            if attempt.status in LATE:
                for_disk = attempt.status == "FLUSH_DISK_TIMEOUT"
                limit = LATE_S + (master.seconds("syncFlushTimeout", 5.0) if for_disk else master.seconds("slaveTimeout", 3.0))
                in_time.witnesses += 1
                if took > limit and not stood_still(master, attempt):
                    in_time.violations.append(Witness(f"{story.id} was answered {attempt.status} after {took:.2f} s", (story,)))
            need = copies_promised(master, plan.expect)
            if need > 1 and attempt.status in (OK, *LATE):
                _without_slaves(story, attempt, members, plan, need, copied, at_once)
    return [in_time, copied, at_once]


def _without_slaves(story: Story, attempt: Attempt, members: Members, plan: Plan, need: int, copied: Finding, at_once: Finding) -> None:
    slaves = [member for member in members.known.values() if member.group == attempt.group and member.address != attempt.node]
    away = [member for member in slaves if was_away(member, attempt, plan)]
    if not slaves or len(slaves) - len(away) >= need - 1:
        return
    took = attempt.ended - attempt.at
    gone = ", ".join(f"{member.address} ({was_away(member, attempt, plan)})" for member in away)
    copied.witnesses += 1
    if attempt.status == OK:
        copied.violations.append(Witness(
            f"{story.id} was sent at {attempt.at:.3f} and answered SEND_OK at {attempt.ended:.3f} (queue "
            f"{attempt.group}/{attempt.queue_id} offset {attempt.offset}), all that time without {gone}: no slave can have written it",
            (story,)))  # fmt: skip
    if len(away) == len(slaves) and all(was_away(member, attempt, plan) == DOWN for member in away):
        at_once.witnesses += 1
        if attempt.status in (OK, "FLUSH_SLAVE_TIMEOUT") or took > AT_ONCE * members.known[attempt.node].seconds("slaveTimeout", 3.0):
            said = "SEND_OK" if attempt.status == OK else attempt.status
            at_once.violations.append(Witness(f"{story.id} was answered {said} after {took:.3f} s, while {gone} was gone", (story,)))


def was_away(member: Member, attempt: Attempt, plan: Plan) -> str:
    """How the member was away for the whole of the attempt, "" if it may have been there."""
    for state, since, until in member.away:
        slack = CLOSING_S if plan.fault == "close" and state == DOWN else SETTLED_S
        if state != SILENT and since + slack <= attempt.at and attempt.ended <= until:
            return state
    return ""


def stood_still(member: Member, attempt: Attempt) -> bool:
    return any(since - 2.0 <= attempt.ended and attempt.at <= until + 2.0 for _, since, until in member.away)
