"""What the command line says without any cluster: help, versions, mistakes, configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from process.server import NOBODY, trmq

VERBS = {
    "topic": ["list", "create", "show", "delete"], "group": ["list", "create", "show", "reset", "delete"], "message": ["get", "query"],
    "cluster": ["list"], "ha": ["status"], "store": ["check", "resync", "tail"], "demo": ["failover"], "config": ["show", "keys"],
    "spec": ["list", "show"],
}  # fmt: skip
PLAIN = ["serve", "namesrv", "dev", "produce", "consume", "bench", "sim"]


def test_help_names_every_verb_and_every_exit_code() -> None:
    done = trmq("--help")
    assert (done.code, done.err) == (0, "")
    for word in (*PLAIN, *VERBS, "NAMESRV_ADDR", "Exit codes", "130"):
        assert word in done.out
    assert trmq().out == done.out


@pytest.mark.parametrize("noun", VERBS)
def test_help_of_a_noun_names_its_verbs(noun: str) -> None:
    done = trmq(noun, "--help")
    assert (done.code, done.err) == (0, "")
    for verb in VERBS[noun]:
        assert verb in done.out


@pytest.mark.parametrize("path", [
    *([verb] for verb in PLAIN), ["topic", "create"], ["store", "check"], ["store", "resync"], ["group", "reset"], ["ha", "status"],
    ["demo", "failover"],
], ids=" ".join)  # fmt: skip
def test_help_of_a_verb_says_what_it_does_and_takes(path: list[str]) -> None:
    done = trmq(*path, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Usage: trmq {' '.join(path)}" in done.out
    assert len(done.out.splitlines()) > 5


def test_every_verb_that_is_named_exists() -> None:
    """Verbs are strings in the tree; one that names a function that is not there would fail only when used."""
    import importlib

    from trmq.cli import NOUN_HELP, NOUNS

    assert set(NOUNS) == set(NOUN_HELP) == set(VERBS)
    for noun, verbs in NOUNS.items():
        assert list(verbs) == VERBS[noun]
        module = importlib.import_module(f"trmq.cli.{noun}")
        for verb in verbs:
            assert callable(getattr(module, f"{verb}_{noun}"))


def test_help_is_quick_because_it_loads_nothing() -> None:
    """The 300 ms of the promise are not measured here, what would break them is."""
    slow = {"trio", "msgspec", "trmq.broker", "trmq.client", "trmq.log", "trmq.wire", "trmq.cli.serve", "trmq.cli.topic"}
    for code in ("import trmq.cli", "import trmq.cli; trmq.cli.run(['--help'])"):
        code += "; import sys; print(*sys.modules, file=sys.stderr)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=NOBODY, check=True)
        assert set(done.stderr.split()) & slow == set()
        if "--help" not in code:
            assert "rich" not in done.stderr.split()


def test_version() -> None:
    from importlib.metadata import version

    done = trmq("--version")
    assert (done.code, done.out.split()) == (0, ["trmq", version("trmq")])


@pytest.mark.parametrize(("words", "near"), [
    (["sevre"], "serve"), (["topics"], "topic"), (["topic", "lst"], "list"), (["group", "rest"], "reset"), (["prodcue"], "produce"),
])  # fmt: skip
def test_an_unknown_verb(words: list[str], near: str) -> None:
    done = trmq(*words)
    assert done.code == 2
    assert f"Did you mean {near}?" in done.sentence
    assert f"there is no verb {' '.join(words)}" in done.sentence


@pytest.mark.parametrize(("words", "named"), [
    (["topic", "create"], "topic"), (["topic", "create", "T", "--qeues", "3"], "--qeues"), (["bench", "nonsense"], "nonsense"),
    (["consume", "T", "--count", "many"], "many"), (["consume", "T", "--count", "0"], "--count 0"), (["bench", "--size", "0"], "--size"),
    (["topic", "list", "-o", "xml"], "xml"), (["serve", "--role", "emperor"], "emperor"), (["group", "reset", "g", "T", "noon"], "noon"),
    (["topic", "delete", "T"], "--yes"), (["group", "delete", "g"], "--yes"), (["group", "reset", "g", "T", "latest"], "--yes"),
    (["message", "get", "xyz"], "--topic"), (["store", "check", "/nonexistent"], "does not exist"),
    (["demo", "failover", "--rate", "0"], "--rate 0"), (["serve", "--end-with", "me"], "me"),
])  # fmt: skip
def test_wrong_usage_is_one_sentence_and_exit_code_2(words: list[str], named: str) -> None:
    done = trmq(*words)
    assert done.code == 2
    assert named in done.sentence
    assert done.out == ""


@pytest.mark.parametrize("words", [["topic", "list"], ["produce", "T"], ["consume", "T", "--peek"], ["bench"]], ids=" ".join)
def test_nobody_there_is_exit_code_3(words: list[str]) -> None:
    done = trmq(*words, "-n", "127.0.0.1:1", stdin=b"x\n")
    assert done.code == 3
    assert "127.0.0.1:1" in done.sentence


# ----------------------------------------------------------------------------------------------------------------- configuration

APACHE_BROKER = """\
# Licensed to the Apache Software Foundation (ASF) under one or more
# contributor license agreements.

brokerClusterName = DefaultCluster
brokerName = broker-a
brokerId = 0
deleteWhen = 04
fileReservedTime = 48
brokerRole = ASYNC_MASTER
flushDiskType = ASYNC_FLUSH
"""
"""The assignments of conf/broker.conf in Apache's distribution."""


def test_config_keys() -> None:
    rows = {row["key"]: row for row in json.loads(trmq("config", "keys", "-o", "json").out)}
    assert rows["listenPort"]["default"] == "10911"
    assert all(row["meaning"] for row in rows.values())
    names = {row["key"] for row in json.loads(trmq("config", "keys", "--namesrv", "-o", "json").out)}
    assert "listenPort" in names
    assert "flushDiskType" not in names


def test_config_show(tmp_path: Path) -> None:
    conf = tmp_path / "broker.conf"
    conf.write_text(APACHE_BROKER + "mapedFileSizeCommitLog=1048576\nsendMessageThreadPoolNums=16\n")
    done = trmq("config", "show", conf, "--changed", "-o", "json", "--set", "listenPort=1234", env={"TRMQ_BROKER_NAME": "env"})
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(done.out)}
    assert rows["mappedFileSizeCommitLog"] == ("1048576", f"{conf} line 11")
    assert rows["listenPort"] == ("1234", "flag")
    assert rows["brokerName"] == ("env", "environment TRMQ_BROKER_NAME")
    assert rows["sendMessageThreadPoolNums"] == ("", "known, not needed: no effect")
    assert "bindAddress" not in rows
    table = trmq("config", "show", conf)
    assert table.code == 0
    assert "mappedFileSizeCommitLog" in table.out
    assert "bindAddress" in table.out


def test_a_slave_without_an_id_of_its_own_is_refused(tmp_path: Path) -> None:
    done = trmq("serve", "--role", "slave", "--store", tmp_path / "s")
    assert done.code == 2
    assert "brokerRole=SLAVE needs a brokerId above 0" in done.sentence
    assert not (tmp_path / "s").exists()
