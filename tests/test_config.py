"""Configuration: Apache's files read unchanged, every mistake named with its remedy, nothing dropped in silence."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trmq.config import (
    BrokerConfig,
    NamesrvConfig,
    changed,
    format_properties,
    load_broker,
    load_namesrv,
    pairs,
    parse_properties,
    properties_text,
)
from trmq.config import keys as other_keys
from trmq.config.load import attributes
from trmq.errors import ConfigError

PACKAGE = Path(other_keys.__file__).parents[1]

APACHE_CONF = r"""
# a file as Apache's tools write it
brokerClusterName = DefaultCluster
brokerName=broker-a
brokerId=0
deleteWhen=04
fileReservedTime=48
brokerRole=ASYNC_MASTER
flushDiskType : SYNC_FLUSH
namesrvAddr=10.0.0.1:9876;\
            10.0.0.2:9876
brokerIP1 10.0.0.7
mapedFileSizeCommitLog=268435456
sendMessageThreadPoolNums=16
storePathRootDir=/data/store
storePathCommitLog=/data/store/log
enableDLegerCommitLog=false
"""


def test_a_file_written_for_apache() -> None:
    loaded = load_broker(APACHE_CONF, "broker.conf")
    config = loaded.config
    assert config.namesrv_addresses == ("10.0.0.1:9876", "10.0.0.2:9876")
    assert (config.broker_name, config.broker_id, config.file_reserved_time) == ("broker-a", 0, 48)
    assert (config.flush_disk_type, config.broker_ip1, config.mapped_file_size_commit_log) == ("SYNC_FLUSH", "10.0.0.7", 1 << 28)
    assert config.commit_log_folder == "log"
    assert loaded.unneeded == ("sendMessageThreadPoolNums", "enableDLegerCommitLog")
    assert loaded.origins["brokerName"] == "broker.conf line 4"
    assert loaded.origins["brokerIP1"] == "broker.conf line 12"
    assert loaded.origins["mappedFileSizeCommitLog"] == "broker.conf line 13"
    assert loaded.origins["listenPort"] == "default"


def test_defaults_of_apache_and_ours() -> None:
    config = load_broker().config
    assert config == BrokerConfig()
    assert (config.listen_port, config.ha_listen_port, config.mapped_file_size_consume_queue) == (10911, 10912, 6_000_000)
    assert len(config.delay_levels_ms) == 18
    assert config.delay_levels_ms[:2] == (1_000, 5_000)
    assert config.delay_levels_ms[-1] == 7_200_000
    assert load_broker(flags={"listen_port": 20_000}).config.ha_listen_port == 20_001
    assert load_broker("haListenPort=5", flags={"listen_port": 20_000}).config.ha_listen_port == 5


def test_flag_over_environment_over_file_over_default() -> None:
    environment = {"TRMQ_BROKER_NAME": "env", "TRMQ_listenPort": "2", "NAMESRV_ADDR": "n:1", "TRMQ_LAB": "x", "PATH": "/bin"}
    loaded = load_broker(
        "brokerName=file\nlistenPort=1\nregionId=here", environment=environment, flags={"brokerName": "flag", "broker_id": None}
    )
    config, origins = loaded.config, loaded.origins
    assert (config.broker_name, config.listen_port, config.region_id, config.namesrv_addr) == ("flag", 2, "here", "n:1")
    assert (origins["brokerName"], origins["listenPort"]) == ("flag", "environment TRMQ_listenPort")
    assert (origins["regionId"], origins["namesrvAddr"], origins["brokerId"]) == (
        "broker.conf line 3",
        "environment NAMESRV_ADDR",
        "default",
    )


def test_the_name_servers_environment_is_its_own() -> None:
    environment = {"TRMQ_NAMESRV_LISTEN_PORT": "5", "TRMQ_LISTEN_PORT": "6", "TRMQ_NAMESRV_ADDR": "a:1"}
    assert load_namesrv(environment=environment).config.listen_port == 5
    broker = load_broker(environment=environment).config
    assert (broker.listen_port, broker.namesrv_addr) == (6, "a:1")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("\nbrokerNam=a", ["broker.conf line 2", "brokerNam", "did you mean brokerName?"]),
        ("flushDiskTyp=SYNC_FLUSH", ["did you mean flushDiskType?"]),
        ("listenPort=10911x", ["listenPort", "'10911x'", "from 0 to 65535"]),
        ("listenPort=70000", ["70000", "65535"]),
        ("mappedFileSizeCommitLog=1G", ["'1G'", "plain digits"]),
        ("mappedFileSizeConsumeQueue=6000001", ["multiple of 20"]),
        ("autoCreateTopicEnable=yes", ["'yes'", "true or false"]),
        ("flushDiskType=SYNC", ["ASYNC_FLUSH or SYNC_FLUSH"]),
        ("namesrvAddr=localhost", ["host:port"]),
        ("namesrvAddr=a:0", ["host:port"]),
        ("diskMaxUsedSpaceRatio=101", ["from 1 to 100"]),
        ("messageDelayLevel=1s 5x", ["s, m, h or d"]),
        ("deleteWhen=25", ["00 to 23"]),
        ("brokerName=a b", ["letters, digits"]),
        ("storePathRootDir=/a\nstorePathCommitLog=/b", ["/b", "inside storePathRootDir", "symbolic link"]),
        ("storePathCommitLog=/a,/b", ["one path"]),
        ("brokerRole=SYNC_MASTER\nbrokerId=1", ["brokerRole=SYNC_MASTER", "broker.conf line 1", "needs brokerId=0"]),
        ("brokerRole=SLAVE", ["needs a brokerId above 0", "broker.conf line 1"]),
        ("inSyncReplicas=0", ["inSyncReplicas", "from 1 to 999, or all"]),
        ("haMasterAddress=a:1;b:2", ["haMasterAddress", "one host:port"]),
        ("brokerId=1", ["brokerId=1", "brokerId=0"]),
        ("enableDLegerCommitLog=true", ["enableDLegerCommitLog=true", "failover"]),
        ("enableControllerMode=true", ["failover"]),
        ("storeType=defaultRocksDB", ["RocksDB"]),
        ("transientStorePoolEnable=true", ["die with the process"]),
        ("aclEnable=true", ["access control", "open"]),
        ("authenticationEnabled=TRUE", ["access control"]),
        ("tls.server.mode=enforcing", ["TLS"]),
        ("orderMessageEnable=true", ["not a key"]),  # a name server's key in a broker's file
    ],
)
def test_a_mistake_is_named_with_its_remedy(text: str, named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_broker(text)
    for part in named:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistyped_environment_variable_is_refused_and_a_foreign_one_is_not() -> None:
    with pytest.raises(ConfigError, match="TRMQ_BROKERNAM: there is no such key; did you mean brokerName"):
        load_broker(environment={"TRMQ_BROKERNAM": "x"})
    with pytest.raises(ConfigError, match="environment TRMQ_LISTEN_PORT: listenPort='x'"):
        load_broker(environment={"TRMQ_LISTEN_PORT": "x"})
    assert load_broker(environment={"TRMQ_SEED": "1"}).config == BrokerConfig()


def test_every_key_has_one_grade() -> None:
    for kind, others in ((BrokerConfig, other_keys.BROKER_OTHERS), (NamesrvConfig, other_keys.NAMESRV_OTHERS)):
        assert not attributes(kind).keys() & others
    everything = attributes(BrokerConfig).keys() | attributes(NamesrvConfig).keys() | other_keys.BROKER_OTHERS | other_keys.NAMESRV_OTHERS
    assert len(everything) > 520  # 5.4.0 has 529 keys; a block lost in editing shows here


def test_every_key_we_honour_is_read_somewhere() -> None:
    """A key that is taken and then forgotten tells the operator that it counts. Such a key belongs among the others, which are listed."""
    source = "".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
    read = set(re.findall(r"\b(?:config|self|c)\.(?=(\w+))", source))
    for kind in (BrokerConfig, NamesrvConfig):
        assert [name for name in attrs.fields_dict(kind) if name not in read] == []


def test_harmless_values_of_promises_are_accepted() -> None:
    for key, promise in other_keys.PROMISES.items():
        for value in promise.harmless:
            assert load_broker(f"{key}={value}").unneeded == (key,)


def test_every_default_reads_back_to_itself() -> None:
    """A default that its own reader refuses would make `properties_text` unreadable."""
    for config, load in ((BrokerConfig(), load_broker), (NamesrvConfig(), load_namesrv)):
        assert load(properties_text(config)).config == config
        for key, attribute in attributes(type(config)).items():
            value = dict(pairs(config))[key]
            assert attribute.metadata["read"](value) == getattr(config, attribute.name)
            assert attribute.metadata["doc"]


def test_resolved_fills_in_the_machine() -> None:
    plain = BrokerConfig().resolved("vm1", "192.0.2.9")
    assert (plain.broker_name, plain.bind_address, plain.broker_ip1, plain.broker_ip2) == ("vm1", "127.0.0.1", "127.0.0.1", "127.0.0.1")
    public = BrokerConfig(broker_ip1="192.0.2.9", broker_name="b").resolved("vm1", "192.0.2.8")
    assert (public.broker_name, public.bind_address, public.broker_ip1) == ("b", "0.0.0.0", "192.0.2.9")
    everywhere = BrokerConfig(bind_address="0.0.0.0").resolved("vm1", "192.0.2.9")
    assert (everywhere.broker_ip1, everywhere.broker_ip2) == ("192.0.2.9", "192.0.2.9")


def test_change_by_admin_command_is_all_or_nothing() -> None:
    config = NamesrvConfig()
    after, done = changed(config, "supportActingMaster=true\nserverWorkerThreads=3\n", "update")
    assert after == attrs.evolve(config, support_acting_master=True)
    assert done == {"supportActingMaster": "true"}
    for text in ("supportActingMaster=true\nkvConfigPath=/etc/x", "supportActingMaster=1", "nonsense=1", "configBlackList="):
        with pytest.raises(ConfigError):
            changed(config, text, "update")


def test_properties_format() -> None:
    text = "\ufeff! note\n\n  a = 1 \r\nb\\ c\\=:x\\u0041\\\n   y\\t\n#z=1\nkey\nd=\\\\\\\n  tail\ne=#not a comment\nf\\ud83d\\ude00=v"
    assert [tuple(entry) for entry in parse_properties(text)] == [
        ("a", "1", 3),
        ("b c=", "xAy", 4),
        ("key", "", 7),
        ("d", "\\tail", 8),
        ("e", "#not a comment", 10),
        ("f\U0001f600", "v", 11),
    ]


@given(st.dictionaries(st.from_regex(r"[a-zA-Z][a-zA-Z0-9.]{0,9}", fullmatch=True), st.text(max_size=20)))
def test_properties_round_trip(values: dict[str, str]) -> None:
    expected = {key: value.lstrip(" \t\f").rstrip() for key, value in values.items()}
    clean = {key: value for key, value in expected.items() if value.isprintable() or all(c.isprintable() or c in "\n\r\t\f" for c in value)}
    assert {entry.key: entry.value for entry in parse_properties(format_properties(clean))} == clean


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        load_broker(text)
