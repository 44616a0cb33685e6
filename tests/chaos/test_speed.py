"""The command that measures the shell under load loads it, and says what it did."""

from __future__ import annotations

import attrs
import pytest

from trmq.chaos import speed
from trmq.chaos.speed import Load, measure

LOAD = Load(rate=40, seconds=3, seed=5)


def test_every_message_is_acknowledged_and_given() -> None:
    found = measure(LOAD)
    assert found.complete
    assert found.acknowledged == LOAD.messages == 120
    assert 3 <= found.simulated_s < 4
    assert found.steps > 10 * LOAD.messages, "a send, its copy, the report, the answer, the pull: each crosses the net"
    assert measure(LOAD).fingerprint == found.fingerprint


def test_a_run_that_lost_something_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure(LOAD)
    for result, code in ((found, 0), (attrs.evolve(found, given=119), 1), (attrs.evolve(found, acknowledged=119), 1)):
        monkeypatch.setattr(speed, "measure", lambda load, result=result: result)
        assert speed.main(["--seconds", "3"]) == code
        told = capsys.readouterr().out
        assert f"{result.acknowledged} SEND_OK, {result.given} given" in told
        assert "simulated s/s" in told
