"""Sends that a broker refuses, or stores without the copies that were asked for: who is tried next, and what is told in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
import trio.testing

import trmq
from trmq.client.retry import is_definite, judge_send
from trmq.wire.codes import ResponseCode

from .lab import Lab, Scripted, Word, running

Clock = trio.testing.MockClock
NAMES = ("x", "y", "z")


def never(offset: int) -> Word:
    raise AssertionError("nobody pulls")


@asynccontextmanager
async def masters(*names: str) -> AsyncIterator[tuple[Lab, dict[str, Scripted]]]:
    async with running() as lab:
        found = {name: Scripted(lab, name, 0, never) for name in names}
        for broker in found.values():
            await broker.start("T", queues=3 if broker is found["x"] else 1)
        yield lab, found


def tried(brokers: dict[str, Scripted]) -> list[str]:
    return [name for _, name in sorted((at, name) for name, broker in brokers.items() for at in broker.sends)]


@pytest.mark.parametrize("code", [17, 14, 1, 2, 16, 204, 205, 1500])
async def test_what_one_broker_refuses_another_may_take(code: int, autojump_clock: Clock) -> None:
    async with masters("x", "y") as (lab, brokers), lab.connect() as mq, mq.producer(group="p") as producer:
        brokers["x"].send_code = code
        for _ in range(4):
            assert (await producer.send("T", "m")).queue.broker_name == "y"
        assert brokers["x"].sends, "it had its turn"


@pytest.mark.parametrize("code", [13, 29, 26])
async def test_what_no_other_broker_would_take_is_said_at_once(code: int, autojump_clock: Clock) -> None:
    async with masters("x", "y") as (lab, brokers), lab.connect() as mq, mq.producer(group="p") as producer:
        for broker in brokers.values():
            broker.send_code = code
        with pytest.raises(trmq.SendFailed, match=f"code {code}|as told") as failure:
            await producer.send("T", "m")
        assert len(tried(brokers)) == 1
        assert not failure.value.unknown


@pytest.mark.parametrize("names", [("x", "y"), NAMES])
async def test_no_try_goes_where_the_last_one_failed(names: tuple[str, ...], autojump_clock: Clock) -> None:
    """P-Q-1, also when every broker has failed already."""
    async with masters(*names) as (lab, brokers), lab.connect() as mq, mq.producer(group="p", retries=6) as producer:
        lab.world.net.delay = 0.01
        for broker in brokers.values():
            broker.send_code = ResponseCode.SYSTEM_BUSY
        with pytest.raises(trmq.SendFailed):
            await producer.send("T", "m")
        order = tried(brokers)
        assert len(order) == 7
        assert all(one != other for one, other in pairwise(order)), order
        assert set(order[: len(names)]) == set(names), "everybody once before anybody twice"


@pytest.mark.parametrize("code", [10, 11, 12])
async def test_a_status_short_of_ok_is_a_success_and_tried_elsewhere_only_if_wanted(code: int, autojump_clock: Clock) -> None:
    async with masters("x", "y") as (lab, brokers), lab.connect() as mq:
        brokers["x"].send_code = code
        async with mq.producer(group="p") as producer:
            statuses = [(await producer.send("T", "m")).status for _ in range(4)]
            assert sorted(statuses) == [trmq.SendStatus.SEND_OK] + [trmq.SendStatus(code)] * 3
        async with mq.producer(group="q", retry_other_broker_when_not_stored_ok=True) as producer:
            results = [await producer.send("T", "m") for _ in range(4)]
            assert {(result.status, result.queue.broker_name) for result in results} == {(trmq.SendStatus.SEND_OK, "y")}
            brokers["y"].send_code = ResponseCode.SYSTEM_BUSY
            result = await producer.send("T", "m")
            assert result.status == trmq.SendStatus(code), "it is stored, whatever the other said"
            brokers["y"].send_code = 13
            for _ in range(2):
                try:
                    assert (await producer.send("T", "m")).status == trmq.SendStatus(code)
                except trmq.SendFailed:
                    assert brokers["y"].sends[-1] >= brokers["x"].sends[-1], "refused at the first try"


def test_too_few_copies_before_the_append_is_a_definite_refusal() -> None:
    assert judge_send(1).name == "TRY_ANOTHER"
    assert is_definite(1, "IN_SYNC_REPLICAS_NOT_ENOUGH: 1 of 2")
    assert is_definite(1, "in-sync replicas not enough")
    assert not is_definite(1, "store putMessage return null")
    assert not is_definite(1, None)
    assert is_definite(2, None)
