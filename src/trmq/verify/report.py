"""The report: for people a page of text, for programs one JSON object. What was not seen is never said to hold."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .judge import HELD, UNSEEN, VIOLATED, Finding, Witness
from .observer import FAILED, OK, UNKNOWN, Story

if TYPE_CHECKING:
    from .run import Result

EXAMPLES_MAX = 3
WIDTH = 9


def counts(result: Result) -> dict[str, Any]:
    stories = result.observer.stories.values()
    outcomes = Counter("SEND_OK" if story.outcome == OK else story.outcome for story in stories if story.outcome)
    longest, since = result.observer.longest_gap(result.sent_until)
    return {
        "sent": len(stories), "outcomes": dict(sorted(outcomes.items())), "attempts": sum(len(story.attempts) for story in stories),
        "read_at_the_end": result.read_count, "given_to_consumers": len(result.observer.had),
        "deliveries": sum(len(story.given) for story in stories),
        "longest_time_without_an_answer_s": round(longest, 3), "it_began_at_s": round(since, 3),
    }  # fmt: skip


def story_dict(story: Story) -> dict[str, Any]:
    return {
        "id": story.id, "unique_key": story.key, "outcome": "SEND_OK" if story.outcome == OK else story.outcome,
        "attempts": [
            {"sent_at": round(a.at, 3), "answered_at": round(a.ended, 3), "node": a.node, "queue": f"{a.group}/{a.queue_id}",
             "offset": a.offset,
             "answer": "SEND_OK" if a.status == OK else a.status, "problem": a.problem}
            for a in story.attempts],
        "given": [
            {"at": round(at, 3), "to": who, "queue": f"{group}/{queue}", "offset": offset}
            for at, who, group, queue, offset in story.given],
    }  # fmt: skip


def finding_dict(finding: Finding) -> dict[str, Any]:
    return {
        "clause": finding.clause, "says": finding.says, "source": finding.source, "state": finding.state, "witnesses": finding.witnesses,
        "violations": len(finding.violations),
        "examples": [
            {"witness": witness.text, "messages": [story_dict(story) for story in witness.stories]}
            for witness in finding.violations[:EXAMPLES_MAX]],
    }  # fmt: skip


def to_dict(result: Result) -> dict[str, Any]:
    plan = result.plan
    return {
        "verdict": result.verdict, "exit_code": result.exit_code, "problem": result.problem, "interrupted": result.interrupted,
        "date": result.date, "seconds": round(result.seconds, 1), "topic": plan.topic, "kept": plan.keep, "notes": result.notes,
        "brokers": [
            {"address": member.address, "group": member.group, "broker_id": member.broker_id, "version": member.version,
             "state": member.state,
             "settings": {key: member.config[key] for key in SETTINGS if key in member.config}}
            for member in result.members],
        "promises": [{"group": p.group, "copies": p.copies, "text": p.text, "why": p.why} for p in result.promises],
        "plan": {
            "namesrv": plan.namesrv, "duration": plan.duration, "rate": plan.rate, "kill": plan.kill, "restart": plan.restart,
            "pause": plan.pause, "resume": plan.resume, "period": plan.period, "down": plan.down, "fault": plan.fault,
            "expect": str(plan.expect)},
        "messages": counts(result),
        "faults": [
            {"kind": f.kind, "at": round(f.at, 3), "mended": round(f.mended, 3), "back": f.back and round(f.back, 3), "struck": f.struck}
            for f in result.faults],
        "clauses": [finding_dict(finding) for finding in result.findings],
    }  # fmt: skip


SETTINGS = ("brokerRole", "flushDiskType", "inSyncReplicas", "minInSyncReplicas", "slaveReadEnable", "slaveTimeout")


def to_text(result: Result) -> str:
    lines = [
        f"{'cluster':<{WIDTH}} {result.plan.namesrv}: " + ", ".join(
            f"{m.address} {m.group}/{m.broker_id} {m.role}{' ' + m.version if m.version else ''}" for m in result.members),
        *(f"{'judged' if not n else '':<{WIDTH}} {p.group}: {p.text} ({p.why})" for n, p in enumerate(result.promises)),
        *_messages(result),
        *_faults(result),
        "",
        *(line for finding in result.findings for line in _clause(finding)),
        "",
        *(f"note: {note}" for note in result.notes),
        _last(result),
    ]  # fmt: skip
    return "\n".join(lines)


def _messages(result: Result) -> list[str]:
    found = counts(result)
    names = {FAILED: "certainly not stored", UNKNOWN: "unknown"}
    outcomes = ", ".join(f"{count:,} {names.get(status, status)}" for status, count in found["outcomes"].items())
    gap = f"; no answer for {found['longest_time_without_an_answer_s']:.2f} s at most, from {found['it_began_at_s']:.1f} s on"
    said = f"{outcomes or 'none was answered'}{gap if result.observer.acks else ''}"
    return [
        f"{'messages':<{WIDTH}} {found['sent']:,} sent in {result.sent_until:.0f} s: {said}",
        f"{'':<{WIDTH}} {found['read_at_the_end']:,} read at the end; {found['given_to_consumers']:,} given to consumers, "
        f"in {found['deliveries']:,} deliveries",
    ]  # fmt: skip


def _faults(result: Result) -> list[str]:
    if not result.faults:
        return [f"{'faults':<{WIDTH}} none"]
    lines = []
    for number, fault in enumerate(result.faults):
        hit = ", ".join(f"{address} {state}" for address, state in sorted(fault.struck.items())) or "nobody stopped answering"
        back = f", a master again at {fault.back:.1f} s" if fault.back is not None else ", and no master came back" if fault.mended else ""
        mended = f"; mended at {fault.mended:.1f} s{back}" if fault.mended else ""
        lines.append(f"{'' if number else 'faults':<{WIDTH}} {fault.kind} at {fault.at:.1f} s: {hit}{mended}")
    return lines


def _clause(finding: Finding) -> list[str]:
    count = f"{finding.witnesses:,} witness{'es' * (finding.witnesses != 1)}" if finding.state == HELD else ""
    if finding.state == VIOLATED:
        count = f"{len(finding.violations):,} of {finding.witnesses:,} witnesses"
    lines = [f"{finding.clause:<{WIDTH}} {finding.state:<13} {count:<24} {finding.says}"]
    if finding.state == VIOLATED:
        lines.append(f"{'':<{WIDTH}} (source: {finding.source})")
        lines += [f"{'':<{WIDTH}} - {line}" for witness in finding.violations[:EXAMPLES_MAX] for line in _witness(witness)]
        if len(finding.violations) > EXAMPLES_MAX:
            lines.append(f"{'':<{WIDTH}}   and {len(finding.violations) - EXAMPLES_MAX:,} more")
    return lines


def _witness(witness: Witness) -> list[str]:
    return [witness.text, *(f"  {_tell(story)}" for story in witness.stories[:2])]


def _tell(story: Story) -> str:
    attempts = "; ".join(
        f"sent at {a.at:.3f} s to {a.group}/{a.queue_id} at {a.node}, "
        + (f"{'SEND_OK' if a.status == OK else a.status} at {a.ended:.3f} s" + (f" as offset {a.offset}" if a.offset >= 0 else "")
           if a.status else "not answered") for a in story.attempts)  # fmt: skip
    given = f"given {len(story.given)} times, first to {story.given[0][1]} at {story.given[0][0]:.3f} s" if story.given else "never given"
    return f"{story.id} (unique key {story.key}): {attempts}; {given}"


def _last(result: Result) -> str:
    held = sum(finding.state == HELD for finding in result.findings)
    unseen = sum(finding.state == UNSEEN for finding in result.findings)
    broken = [finding.clause for finding in result.findings if finding.state == VIOLATED]
    parts = [f"{held} clauses held"] + ([f"{unseen} not exercised"] if unseen else [])
    tally = f"violated: {', '.join(broken)}" if broken else ", ".join(parts)
    if result.interrupted:
        return f"interrupted; until then {tally}"
    if result.problem:
        return f"{result.problem}; until then {tally}"
    return tally if broken else f"held: {tally}"
