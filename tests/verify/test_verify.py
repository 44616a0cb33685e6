"""`trmq verify` on real processes: one that keeps its promises under kill -9, pairs without their slave, some with seeded bugs."""

from __future__ import annotations

from pathlib import Path

from specs.clause import checks

from process.server import trmq
from verify.broken import BUGS
from verify.lab import Judged, Lab, begin, broken, finish, started, verify

SECONDS_MAX = 60
CLIENT = ("P-LOSS-1", "P-HIS-2", "P-HIS-3", "P-DUP-1", "P-HIS-5", "P-HIS-6", "P-HIS-7", "P-HIS-8")


def test_a_master_killed_and_started_again_keeps_every_promise(lab: Lab, tmp_path: Path) -> None:
    broker = lab.add("broker-a")
    started(lab)
    strike, mend = lab.kill(broker), lab.restart(broker)
    found = verify(lab.name_server, tmp_path, "--duration", "6", "--period", "4", "--down", "1", "--kill", strike, "--restart", mend,
                   "--patience", "20")  # fmt: skip
    print(found.out, found.err)
    assert found.code == 0, found.err
    assert {found.states[id] for id in CLIENT} == {"held"}
    assert [list(fault["struck"].values()) for fault in found.report["faults"]] == [["down"]] * len(found.report["faults"])
    assert len(found.report["faults"]) >= 1
    assert found.report["messages"]["outcomes"]["SEND_OK"] > 100
    assert found.report["messages"]["longest_time_without_an_answer_s"] >= 0.5, "a second without a broker must show"
    assert found.states["P-ACK-8"] == "not exercised", "nobody promised a copy, so nothing of it may be said to hold"
    topics = trmq("topic", "list", "-n", lab.name_server, "-o", "jsonl").out
    assert found.report["topic"] not in topics, "the run removes its topic"


def test_each_seeded_bug_is_found_by_the_clause_that_names_it(tmp_path: Path) -> None:
    labs: dict[str, Lab] = {}
    try:
        for bug in BUGS:
            labs[bug] = Lab(tmp_path / bug)
            broken(labs[bug].add("broker-a"), bug)
            started(labs[bug])
        reports = {bug: tmp_path / f"{bug}.json" for bug in BUGS}
        options = ("--duration", "2", "--rate", "100", "--patience", "3")
        runs = {bug: begin(lab.name_server, *options, report=reports[bug]) for bug, lab in labs.items()}
        found = {bug: finish(process, reports[bug], SECONDS_MAX) for bug, process in runs.items()}
    finally:
        for lab in labs.values():
            lab.end()
    for bug, judged in found.items():
        print(bug, judged.code, sorted(judged.broken))
    for bug, judged in found.items():
        clauses, _ = BUGS[bug]
        assert judged.code == 6, f"{bug}: {judged.out}"
        assert clauses <= judged.broken, f"{bug}: {judged.out}"
    example = found["loses"].clause("P-LOSS-1")["examples"][0]
    assert example["messages"][0]["attempts"][0]["answer"] == "SEND_OK", "the witness says what was sent where, and what was answered"
    assert example["messages"][0]["id"] in example["witness"]


@checks("P-ACK-8", "P-ACK-9", "P-ACK-4")
def test_a_sync_master_without_its_slave(tmp_path: Path) -> None:
    """Two needed and the slave killed: nothing is SEND_OK meanwhile. One is enough, Apache's default, and the slave stands still: that
    breaks the promise of the role."""
    labs = {need: Lab(tmp_path / f"need{need}", brokerRole="SYNC_MASTER", inSyncReplicas=need) for need in (1, 2)}
    runs = {}
    try:
        for need, lab in labs.items():
            lab.add("master")
            slave = lab.add("slave", brokerRole="SLAVE", brokerId=1)
            started(lab)
            faults = ["--kill", lab.kill(slave), "--restart", lab.restart(slave)]
            if need == 1:
                faults = ["--pause", lab.signal(slave, "STOP"), "--resume", lab.signal(slave, "CONT")]
            options = ("--duration", "10", "--period", "9", "--down", "6", "--rate", "50", *faults)
            runs[need] = begin(lab.name_server, *options, report=tmp_path / f"{need}.json")
        found: dict[int, Judged] = {need: finish(one, tmp_path / f"{need}.json", SECONDS_MAX) for need, one in runs.items()}
    finally:
        for lab in labs.values():
            lab.end()
    print(found[1].out, found[2].out)
    assert found[2].code == 0, found[2].out
    assert found[2].states["P-ACK-8"] == "held"
    assert found[2].states["P-ACK-9"] == "held"
    assert found[2].report["messages"]["outcomes"]["SLAVE_NOT_AVAILABLE"] > 0
    assert found[1].code == 6, found[1].out
    assert found[1].broken == {"P-ACK-8"}
    assert found[1].states["P-ACK-9"] == "not exercised", "a slave that stands still is still connected"
    assert list(found[1].report["faults"][0]["struck"].values()) == ["silent"]
