"""The registry of clients: who is told, who wins, who is forgotten."""

from __future__ import annotations

import pytest

from trmq.broker.clients import Clients, Member
from trmq.broker.subscription import from_heartbeat, parse
from trmq.errors import RemoteProtocolError
from trmq.message import tags_code
from trmq.wire.bodies import ConsumerData, HeartbeatData, SubscriptionData, decode_body
from trmq.wire.codes import ResponseCode


def member(conn: str, heard: float = 0.0) -> Member[str]:
    return Member(conn, f"id-{conn}", "JAVA", 493, heard)


def data(*topics: tuple[str, int], group: str = "g", model: str = "CLUSTERING") -> ConsumerData:
    subscriptions = [SubscriptionData(topic=topic, sub_string="*", sub_version=version) for topic, version in topics]
    return ConsumerData(group_name=group, message_model=model, subscription_data_set=subscriptions)


def test_a_new_member_or_topic_is_a_change_and_a_repeated_heartbeat_is_not() -> None:
    clients: Clients[str] = Clients()
    assert clients.register_consumer(data(("T", 1)), member("a"))
    assert not clients.register_consumer(data(("T", 1)), member("a", 30.0))
    assert clients.register_consumer(data(("T", 1)), member("b"))
    assert clients.register_consumer(data(("T", 1), ("U", 1)), member("a"))
    assert clients.register_consumer(data(("U", 1)), member("a"))
    assert list(clients.consumers["g"].subscriptions) == ["U"]
    assert clients.consumers["g"].client_ids == ["id-a", "id-b"]


def test_the_cpp_client_writes_enums_as_numbers_and_numbers_as_texts() -> None:
    """Its consumers are members like all others: they were refused, and got nothing, as long as only names were understood."""
    consumer = (
        b'{"consumeFromWhere":4,"consumeType":1,"groupName":"g","messageModel":%d,"subscriptionDataSet":[{"codeSet":[0],"subString":"A",'
        b'"subVersion":"1796086233777","tagsSet":["A"],"topic":"T"}]}'
    )
    for model, broadcasting in ((1, False), (0, True)):
        found = decode_body(b'{"clientID":"8093-127.0.0.1@DEFAULT","consumerDataSet":[%s]}\n' % (consumer % model), HeartbeatData)
        clients: Clients[str] = Clients()
        assert clients.register_consumer(found.consumer_data_set[0], member("a"))
        group = clients.consumers["g"]
        assert (group.consume_type, group.consume_from_where) == ("CONSUME_PASSIVELY", "CONSUME_FROM_FIRST_OFFSET")
        assert group.broadcasting is broadcasting
        assert group.subscriptions["T"].version == 1796086233777
    for ordinal in (2, -1):
        with pytest.raises(RemoteProtocolError, match="messageModel"):
            decode_body(b'{"clientID":"i","consumerDataSet":[%s]}' % (consumer % ordinal), HeartbeatData)


def test_a_newer_subscription_replaces_an_older_one_only() -> None:
    clients: Clients[str] = Clients()
    clients.register_consumer(data(("T", 5)), member("a"))
    clients.register_consumer(data(("T", 4)), member("b"))
    assert clients.consumers["g"].subscriptions["T"].version == 5
    clients.register_consumer(data(("T", 6)), member("b"))
    assert clients.consumers["g"].subscriptions["T"].version == 6


def test_a_heartbeat_without_subscriptions_leaves_them_alone() -> None:
    clients: Clients[str] = Clients()
    clients.register_consumer(data(("T", 5)), member("a"))
    assert not clients.register_consumer(data(), member("a", 30.0), without_subscriptions=True)
    assert "T" in clients.consumers["g"].subscriptions


def test_the_last_member_takes_the_group_with_it() -> None:
    clients: Clients[str] = Clients()
    clients.register_consumer(data(("T", 1)), member("a"))
    clients.register_producer("p", member("a"))
    assert clients.drop("a") == ["g"]
    assert not clients.consumers
    assert not clients.producers
    assert clients.drop("a") == []


def test_unregistering_from_one_group_keeps_the_others() -> None:
    clients: Clients[str] = Clients()
    clients.register_consumer(data(("T", 1), group="g"), member("a"))
    clients.register_consumer(data(("T", 1), group="h"), member("a"))
    assert clients.unregister_consumer("g", "a")
    assert not clients.unregister_consumer("g", "a")
    assert list(clients.consumers) == ["h"]
    assert clients.groups_of_topic("T") == ["h"]


def test_only_who_is_silent_in_every_group_is_silent() -> None:
    clients: Clients[str] = Clients(expiry_s=120.0)
    clients.register_consumer(data(("T", 1)), member("a", 0.0))
    clients.register_producer("p", member("a", 50.0))
    clients.register_producer("p", member("b", 0.0))
    assert clients.silent(120.0) == []
    assert clients.silent(121.0) == ["b"]
    assert clients.silent(171.0) == ["a", "b"]


def test_tags_become_codes() -> None:
    announced = SubscriptionData(topic="T", sub_string="A || B", tags_set=["A", "B"], code_set=[65, 66])
    assert from_heartbeat(announced).tags == {65, 66}
    assert from_heartbeat(SubscriptionData(topic="T", sub_string="A", tags_set=["A"])).tags == {tags_code("A")}
    assert from_heartbeat(SubscriptionData(topic="T", sub_string="*")).tags is None
    assert parse("T", " A||B ", "TAG").tags == {65, 66}
    assert parse("T", None, None).tags is None


def test_an_expression_without_a_tag_is_refused() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse("T", " || ", "TAG")
    assert caught.value.response_code == ResponseCode.SUBSCRIPTION_PARSE_FAILED
