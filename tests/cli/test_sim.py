"""`trmq sim`: a life is told and judged, the same each time; what is wrong is one sentence; a broken promise is exit code 6 and a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaos.mutants import MUTANTS
from trmq.chaos.scenario import parse
from trmq.cli import EXIT_USAGE, EXIT_VIOLATED, run

Captured = pytest.CaptureFixture[str]
QUICK = ("--mode", "sync-pair", "--flush", "sync", "--faults", "kill,power")
FILE = "trmq-scenario 1\nmode sync-pair\nflush sync\nseed 7\n0.100 send 3\n0.250 power a0\n1.000 start a0\n"


def told(capsys: Captured, *words: str) -> tuple[int, str, str]:
    code = run(["sim", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("level", ["cores", "shell"])
def test_a_life_is_told_and_judged(level: str, capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text(FILE)
    code, out, err = told(capsys, "--scenario", str(path), "--level", level)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "trmq-scenario 1"
    for word in (
        "client    sends m1", "a0        answers m1 with OK: it is stored at offset 0", "scenario  power a0", "a0        loses its power",
        "3 can be read: m1 m2 m3", "faults that hit: power 1", f"at level {level}; fingerprint",
    ):  # fmt: skip
        assert word in out
    assert any(line.startswith("held    P-LOSS-1") for line in lines)
    assert "BROKEN" not in out
    assert told(capsys, "--scenario", str(path), "--level", level)[1] == out, "the same again"
    other = told(capsys, "--scenario", str(path), "--level", level, "--seed", "8")[1]
    assert other.splitlines()[-1] != lines[-1], "another seed, another life"
    brief = told(capsys, "--scenario", str(path), "--level", level, "--no-story")[1]
    assert "sends m1" not in brief
    assert lines[-1] in brief


def test_programs_get_one_object(capsys: Captured) -> None:
    code, out, _ = told(capsys, "--seed", "5", *QUICK, "--level", "cores", "-o", "json")
    found = json.loads(out)
    assert code == 0
    assert (found["held"], found["broken"], found["seed"], found["mode"], found["flush"]) == (True, [], 5, "sync-pair", "sync")
    assert parse(found["scenario"]).seed == 5
    assert set(found["hits"]) <= {"kill", "power"}
    assert found["witnesses"]["P-LOSS-1"] == found["owed"]
    assert {"at", "who", "what"} == set(found["story"][0])


def test_a_broken_promise_is_shown_shrunk_and_kept(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--seed", "2", "--mode", "sync-pair", "--flush", "async", "--faults", "cut", "--level", "cores", "--shrink")
    with monkeypatch.context() as patch:
        MUTANTS["ack_before_report"].seed(patch)
        code, out, err = told(capsys, *words, "--no-story")
        assert (code, err) == (EXIT_VIOLATED, "")
        assert "BROKEN  P-ACK-1" in out
        kept = next(tmp_path.iterdir())
        assert out.splitlines()[-1] == f"The shortest that still breaks P-ACK-1 is kept: {kept.name}"
        assert kept.name == "p-ack-1-seed-2.txt"
        short = parse(kept.read_text())
        assert short.comment.startswith("breaks P-ACK-1 at level cores: Under SYNC_MASTER")
        assert len(short.steps) <= 2
        assert told(capsys, "--scenario", kept.name, "--level", "cores")[0] == EXIT_VIOLATED
        found = json.loads(told(capsys, *words, "-o", "json")[1])
        assert found["kept"] == kept.name, "the same file again, not a second one"
        assert "P-ACK-1" in {violation["clause"] for violation in found["violations"]}
    code, out, _ = told(capsys, "--scenario", kept.name, "--level", "cores", "--shrink")
    assert code == 0
    assert out.splitlines()[-1] == "There is nothing to shrink."


def test_a_scenario_is_known_by_name_in_the_source_tree(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tests" / "chaos" / "scenarios"
    folder.mkdir(parents=True)
    (folder / "some-life.txt").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    assert told(capsys, "--scenario", "some-life", "--level", "cores")[0] == 0
    code, out, err = told(capsys, "--scenario", "another", "--level", "cores")
    assert (code, out, err) == (EXIT_USAGE, "", "trmq: there is no scenario file another; known by name: some-life\n")


@pytest.mark.parametrize(("words", "says"), [
    (("--faults", "meteor"), "fault 'meteor' is unknown: use some of close, kill"),
    (("--mode", "triple"), 'Invalid value "triple" for --mode'),
    (("--scenario", "nowhere.txt"), "there is no scenario file nowhere.txt, and no folder tests/chaos/scenarios here"),
    (("--scenario", "f.txt", "--mode", "single"), "f.txt is a scenario of mode sync-pair, which --mode single contradicts"),
    (("--scenario", "f.txt", "--flush", "async"), "f.txt is a scenario of flush sync, which --flush async contradicts"),
    (("--scenario", "f.txt", "--faults", "kill"), "--faults is for drawing a scenario; the file says itself which faults strike"),
    (("--scenario", "later.txt"), "later.txt: version 2 of scenarios cannot be played here, only version 1"),
    (("--scenario", "verb.txt"), "verb.txt, line 6: the verb 'explode' is unknown: use one of send, start"),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")  # fmt: skip
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], says: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.txt").write_text(FILE)
    Path("later.txt").write_text(FILE.replace("scenario 1", "scenario 2"))
    Path("verb.txt").write_text(FILE.replace("power", "explode"))
    code, out, err = told(capsys, *words)
    assert (code, out) == (EXIT_USAGE, "")
    assert says in err
    assert err.count("\n") == 1
