"""`trmq store resync` on stores that a broker wrote and on ones that it must leave alone."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from process.server import PULL, Server, pull_fields, trmq
from trmq.cli.resync import carry_out, look
from trmq.real_host import RealDisk


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A stopped slave's store, made by hand: what matters here is which names move."""
    for name in ("commitlog/00000000000000000000", "consumequeue/T/0/00000000000000000000", "index/1", "config/topics.json", "checkpoint",
                 "abort", "trmq/checkpoint", "trmq/checksums/0", "lock"):  # fmt: skip
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_text(name)
    (tmp_path / "s" / "trmq" / "role.json").write_text(json.dumps({"role": "SLAVE", "brokerName": "a", "brokerId": 1}))
    return tmp_path / "s"


def names(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def test_everything_but_the_configuration_moves_and_nothing_is_lost(store: Path) -> None:
    before = names(store)
    done = trmq("store", "resync", store, "--yes")
    assert (done.code, done.err) == (0, "")
    assert "slave 1 of group a" in done.out
    (aside,) = store.glob("aside-*")
    moved = names(aside)
    assert moved == before - {"config/topics.json", "lock", "trmq/role.json"}
    assert all((aside / name).read_text() == name for name in moved)
    assert names(store) == {f"{aside.name}/{name}" for name in moved} | {"config/topics.json", "lock", "trmq/role.json"}
    assert trmq("store", "resync", store, "--yes").out.endswith("copies everything anyway\n")


def test_an_interrupted_resync_is_completed_by_the_next(store: Path) -> None:
    """The commit log goes last: as long as it is there, so is the reason to run this again."""
    found = look(store, "commitlog", datetime(2026, 1, 1))
    assert found.moves[-1] == "commitlog"
    for end in range(len(found.moves)):
        part = look(store, "commitlog", datetime(2026, 1, 1 + end))
        carry_out(RealDisk(store), type(part)(part.store, part.aside, part.moves[:1], 0, 0, {}))
        assert (store / "commitlog").exists() == (end < len(found.moves) - 1)
    assert look(store, "commitlog", datetime(2026, 2, 1)).moves == ()


def test_a_commit_log_behind_a_link_stays_on_its_disk(store: Path, tmp_path: Path) -> None:
    (store / "commitlog").rename(tmp_path / "elsewhere")
    (store / "commitlog").symlink_to(tmp_path / "elsewhere")
    assert trmq("store", "resync", store, "--yes").code == 0
    assert (store / "commitlog").is_symlink()
    assert list((store / "commitlog").iterdir()) == []
    assert len(list(tmp_path.glob("elsewhere-aside-*/0*"))) == 1


@pytest.mark.parametrize(("role", "named"), [
    ('{"role": "SYNC_MASTER", "brokerName": "a"}', "was the master (SYNC_MASTER) of broker group a"), (None, "nothing says that"),
    ("{", "role.json cannot be read"), ("[]", "role.json names no role"),
])  # fmt: skip
def test_a_store_that_was_no_slave_is_left_alone(store: Path, role: str | None, named: str) -> None:
    if role is None:
        (store / "trmq" / "role.json").unlink()
    else:
        (store / "trmq" / "role.json").write_text(role)
    before = names(store)
    done = trmq("store", "resync", store, "--yes")
    assert done.code == 2
    assert named in done.sentence
    assert "--master-too" in done.sentence
    assert names(store) == before


def test_it_asks(store: Path) -> None:
    before = names(store)
    done = trmq("store", "resync", store)
    assert done.code == 2
    assert "--yes" in done.sentence
    assert names(store) == before


def test_a_running_broker_and_a_master_that_is_meant(tmp_path: Path) -> None:
    server = Server(tmp_path).start()
    server.put(b"kept aside")
    done = trmq("store", "resync", server.store, "--yes", "--master-too")
    assert done.code == 2
    assert f"process {server.pid} is running on {server.store}: stop that broker first" in done.sentence
    server.end()
    assert trmq("store", "resync", server.store, "--yes").code == 2
    assert trmq("store", "resync", server.store, "--yes", "--master-too").code == 0
    server.start()
    assert server.ask(PULL, pull_fields(server.topic, 0, 0)).code != 0
    server.end()
    (aside,) = server.store.glob("aside-*")
    assert b"kept aside" in next((aside / "commitlog").iterdir()).read_bytes()


def test_no_store(tmp_path: Path) -> None:
    assert "is no store" in trmq("store", "resync", tmp_path, "--yes").sentence
