"""The ack board: answers leave in order when the mark reaches their end, or at their deadline, decided by value."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trmq.broker.acks import AckBoard, AckDriver
from trmq.watermark import Watermark


def test_an_end_exactly_at_the_mark_is_reached() -> None:
    board: AckBoard[str] = AckBoard()
    board.add(100, 5.0, "a")
    board.add(200, 5.0, "b")
    assert board.advance(99) == []
    assert board.advance(100) == ["a"]
    assert board.next_end == 200


def test_expiry_takes_only_what_is_due() -> None:
    board: AckBoard[str] = AckBoard()
    board.add(100, 5.0, "a")
    board.add(200, 6.0, "b")
    assert board.expire(4.9) == []
    assert board.expire(5.0) == ["a"]
    assert len(board) == 1


def test_ends_must_grow() -> None:
    board: AckBoard[str] = AckBoard()
    board.add(100, 5.0, "a")
    with pytest.raises(AssertionError):
        board.add(99, 5.0, "b")


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["add", "advance", "expire"])), max_size=60))
def test_every_slot_leaves_once_and_never_before_its_end_or_deadline(steps: list[tuple[int, str]]) -> None:
    board: AckBoard[tuple[int, float]] = AckBoard()
    end, now, mark = 0, 0.0, 0
    added, left = [], []
    for amount, what in steps:
        if what == "add":
            end += amount + 1
            slot = (end, now + 10)
            board.add(*slot, slot)
            added.append(slot)
        elif what == "advance":
            mark = min(mark + amount, end)
            ready = board.advance(mark)
            assert all(slot[0] <= mark for slot in ready)
            left += ready
        else:
            now += amount / 10
            late = board.expire(now)
            assert all(slot[1] <= now for slot in late)
            left += late
    assert left == added[: len(left)]
    assert len(board) == len(added) - len(left)


async def test_the_driver_answers_when_the_flush_comes(autojump_clock: trio.testing.MockClock) -> None:
    flushed = Watermark(0)
    seen: list[str] = []

    def settle(ready: list[str], late: list[str], mark: int) -> None:
        seen.extend(f"ok {slot}" for slot in ready)
        seen.extend(f"late {slot} {mark}" for slot in late)

    driver: AckDriver[str] = AckDriver(flushed, settle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        driver.add(10, trio.current_time() + 5, "a")
        driver.add(20, trio.current_time() + 5, "b")
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []
        flushed.advance(10)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["ok a"]
        await trio.sleep(5.1)
        assert seen == ["ok a", "late b 10"]
        driver.add(30, trio.current_time() + 5, "c")
        flushed.advance(30)
        await trio.testing.wait_all_tasks_blocked()
        assert seen[-1] == "ok c"
        nursery.cancel_scope.cancel()


async def test_a_flush_at_the_last_moment_counts(mock_clock: trio.testing.MockClock) -> None:
    """The deadline wakes the driver, but the value decides."""
    flushed = Watermark(0)
    seen: list[str] = []

    def settle(ready: list[str], late: list[str], mark: int) -> None:
        seen.extend(["ok"] * len(ready) + ["late"] * len(late))

    driver: AckDriver[str] = AckDriver(flushed, settle)
    async with trio.open_nursery() as nursery:
        driver.add(10, trio.current_time() + 5, "a")
        nursery.start_soon(driver.run)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(6)
        flushed.advance(10)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert seen == ["ok"]
