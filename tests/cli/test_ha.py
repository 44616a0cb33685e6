"""`trmq ha status`: what is made of the answers, and the verb against one master."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from process.server import Server, trmq
from trmq.cli.ha import Report, describe, rows
from trmq.client.admin import BrokerInfo
from trmq.wire.bodies import HAClientRuntimeInfo, HAConnectionRuntimeInfo, HARuntimeInfo

NOW = 1_000_000


def master(*slaves: HAConnectionRuntimeInfo, end: int = 5000) -> Report:
    ha = HARuntimeInfo(True, end, sum(slave.in_sync for slave in slaves), list(slaves))
    return Report(BrokerInfo("C", "a", 0, "h:1"), runtime={"commitLogMaxOffset": str(end)}, config={"brokerRole": "SYNC_MASTER"}, ha=ha)


def slave(read: int = NOW - 1500, end: int = 4000, **runtime: str) -> Report:
    link = HAClientRuntimeInfo("h:2", 2048, end, read, NOW - 500, 0)
    config, ha = {"brokerRole": "SLAVE"}, HARuntimeInfo(ha_client_runtime_info=link)
    return Report(BrokerInfo("C", "a", 1, "h:3"), runtime={"commitLogMaxOffset": str(end)} | runtime, config=config, ha=ha)


GOOD = HAConnectionRuntimeInfo("/h:9", 4000, 1000, True, 2048, 0)


def problems(*reports: Report) -> list[str]:
    (group,) = describe(reports, NOW)
    return list(group["problems"])


def test_a_healthy_group() -> None:
    (group,) = describe([master(GOOD), slave()], NOW)
    assert group == {
        "cluster": "C", "broker": "a", "problems": [], "members": [
            {"id": 0, "address": "h:1", "alive": True, "role": "SYNC_MASTER", "max_offset": 5000, "lag_bytes": None, "in_sync_slaves": 1,
             "slaves": [{"address": "h:9", "ack_offset": 4000, "lag_bytes": 1000, "bytes_per_s": 2048, "in_sync": True}],
             "need": None, "link": None, "problem": "", "refused": 0, "last_refusal": ""},
            {"id": 1, "address": "h:3", "alive": True, "role": "SLAVE", "max_offset": 4000, "lag_bytes": 1000, "in_sync_slaves": None,
             "slaves": [], "need": None, "link": {
                 "state": "connected", "master": "h:2", "bytes_per_s": 2048, "last_read_ms": NOW - 1500, "last_write_ms": NOW - 500,
                 "broken": False}, "problem": "", "refused": None, "last_refusal": ""},
        ],
    }  # fmt: skip
    json.dumps(group)


def test_the_tables_of_a_healthy_group() -> None:
    members, slaves, links = rows(describe([master(GOOD), slave()], NOW), NOW)
    assert [list(row.values()) for row in members] == [
        ["a", 0, "h:1", "SYNC_MASTER", "up", 5000, "", 1], ["a", 1, "h:3", "SLAVE", "up", 4000, "1000 B", ""],
    ]  # fmt: skip
    assert [list(row.values()) for row in slaves] == [["a", "h:9", 4000, "1000 B", "2.0 KiB", "yes"]]
    assert [list(row.values()) for row in links] == [["a", 1, "h:2", "connected", "2.0 KiB", "1.5 s ago", "0.5 s ago"]]


def test_what_is_wrong_is_a_sentence() -> None:
    dead = Report(BrokerInfo("C", "a", 0, "h:1"), silence="cannot reach h:1: refused")
    behind = HAConnectionRuntimeInfo("/h:9", 0, 300 << 20, False)
    assert problems(dead, slave()) == ["member 0 at h:1 does not answer: cannot reach h:1: refused"]
    assert problems(slave()) == ["no master is registered: nothing can be sent to this group"]
    assert problems(master(behind), slave()) == ["slave h:9 is not in sync: 300.0 MiB behind"]
    assert problems(master(), slave()) == ["1 registered, 0 connected: not every slave follows the master"]
    assert problems(master(GOOD), slave(read=NOW - 60_000)) == ["member 1 at h:3 has lost its master: silent for 60 s"]
    assert problems(master(GOOD), slave(read=0)) == ["member 1 at h:3 has lost its master: never heard"]


def test_what_a_broker_says_itself_is_shown() -> None:
    stuck = slave(read=0, haState="refused", haProblem="the master's log ends at 5, this slave's at 9")
    (group,) = describe([master(GOOD), stuck], NOW)
    assert group["problems"] == ["member 1 at h:3: the master's log ends at 5, this slave's at 9"]
    assert group["members"][1]["link"]["state"] == "refused"


@pytest.mark.parametrize(("need", "slaves", "found"), [
    ("1", (), []), ("2", (GOOD,), []), ("2", (), ["a message needs 2 copies for SEND_OK, and only 1 can be made now"]),
])  # fmt: skip
def test_a_master_that_waits_for_slaves_it_has_not(need: str, slaves: tuple[HAConnectionRuntimeInfo, ...], found: list[str]) -> None:
    assert problems(attrs.evolve(master(*slaves), runtime={"haState": "master", "haNeed": need})) == found


def test_a_refused_peer_is_told_and_is_no_problem_of_the_group() -> None:
    """It may have been long ago, and was right."""
    suspicious = attrs.evolve(master(GOOD), runtime={"haState": "master", "haRefused": "2", "haProblem": "HA peer x refused: garbage"})
    (group,) = describe([suspicious, slave()], NOW)
    assert group["problems"] == []
    assert (group["members"][0]["refused"], group["members"][0]["last_refusal"]) == (2, "HA peer x refused: garbage")


def test_a_broker_that_knows_nothing_of_replication() -> None:
    """A number or an answer that is missing is left out, not made up."""
    old = Report(BrokerInfo("C", "a", 1, "h:3"), untold="request type 907 not supported (code 3)")
    (group,) = describe([old], NOW)
    assert group["members"][0]["max_offset"] is None
    assert group["members"][0]["lag_bytes"] is None
    assert "member 1 at h:3: request type 907 not supported (code 3)" in group["problems"]


# --- against a process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ha"), "--broker-name", "b").start()
    yield server
    assert server.end() == 0


def status(server: Server, *words: object) -> Any:
    done = trmq("ha", "status", "-n", server.name_server, "-o", "json", *words)
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_status_of_one_master(server: Server) -> None:
    server.put(b"something")
    (group,) = status(server, "--check")
    (member,) = group["members"]
    assert (group["broker"], group["problems"], member["role"], member["alive"]) == ("b", [], "ASYNC_MASTER", True)
    assert member["max_offset"] > 0
    assert status(server, "-b", "b") == status(server)
    table = trmq("ha", "status", "-n", server.name_server)
    assert table.code == 0
    assert f"127.0.0.1:{server.port}" in table.out


def test_status_of_a_group_that_is_not_there(server: Server) -> None:
    done = trmq("ha", "status", "-b", "zz", "-n", server.name_server)
    assert done.code == 2
    assert "no broker group zz is registered at the name server; registered: b" in done.sentence


def test_status_without_a_name_server() -> None:
    assert trmq("ha", "status", "-n", "127.0.0.1:1").code == 3
