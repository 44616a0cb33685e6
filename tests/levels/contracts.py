"""Contracts of pure decisions, as CrossHair reads them (PEP 316): each function here asks shipped code and says what must come out.

Everything is bounded, so that "confirmed over all paths" can be reached: four slaves, six queues, one segment size. Decisions over plain
numbers carry their contract where they stand (`trmq.replica.ack`); those that want an object around them are called from here.
"""

from __future__ import annotations

import types
from typing import Any, cast

from trmq.broker import acks, delay
from trmq.broker.handlers import pull, sendback
from trmq.client import retry
from trmq.log import dispatch, index_files, retention, search
from trmq.message import DELAY
from trmq.record import FIXED_SIZE, record_size
from trmq.replica import ack, transfer
from trmq.route import latency, rebalance, selection

SEGMENT = 1024


# --- who holds what


def held_is_the_most(acks: list[int], need: int) -> int:
    """No more is held by `need` than is said: of the slaves fewer than need-1 are further.

    pre: 2 <= need <= 4 and need - 1 <= len(acks) <= 3 and all(a >= 0 for a in acks)
    post: __return__ in acks
    post: sum(1 for a in acks if a > __return__) < need - 1
    """
    return ack.held(acks, need)


def strangers_count_with_what_they_have(acks: list[int], allowed: int) -> list[int]:
    """Peers of one address never count for more than is allowed, nor with an offset that none of them reported.

    pre: 1 <= allowed <= 3 and len(acks) <= 3
    post: len(__return__) <= allowed and len(__return__) == min(allowed, len(acks))
    post: all(a in acks for a in __return__)
    """
    return list(ack.counted(acks, allowed))


def report_believed(before: int, offset: int, max_phy: int) -> bool:
    """A report is believed exactly if the master's log reaches that far and the slave did not say more before.

    pre: -1 <= before <= max_phy <= 3 and -1 <= offset <= 4
    post: __return__ == (0 <= offset <= max_phy and offset >= before)
    """
    master = transfer.MasterEnd()
    master.acked = before
    try:
        master._report(offset, max_phy)
    except transfer.PeerRefused:
        return False
    return master.acked == offset


def sliced(start: int, max_phy: int, batch: int) -> tuple[int, int]:
    """What is sent next continues what was sent, stays in its segment, in the log and within the limit, and is not empty.

    pre: 0 <= start < max_phy <= 4096 and 1 <= batch <= 4096
    post: __return__[0] == start and 1 <= __return__[1] <= batch
    post: __return__[0] + __return__[1] <= max_phy
    post: __return__[0] // 1024 == (__return__[0] + __return__[1] - 1) // 1024
    """
    master = transfer.MasterEnd(batch)
    master.next_offset = start
    found = master.next_slice(max_phy, SEGMENT)
    assert found is not None
    assert master.next_offset == sum(found)
    return found


# --- which queue, whose queue


def chosen(brokers: list[int], last: int, turn: int) -> int:
    """The next queue's broker is another than the one that failed, if there is another.

    pre: 1 <= len(brokers) <= 3 and 0 <= turn <= 3
    post: __return__ in brokers
    post: implies(any(b != last for b in brokers), __return__ != last)
    """
    queues = cast(Any, [types.SimpleNamespace(broker_name=name) for name in brokers])
    found = selection.RoundRobin(turn).choose(queues, cast(Any, last))
    assert found is not None
    return cast(int, found.broker_name)


def shared_out(queues: int, members: int) -> list[list[int]]:
    """By ranges: each queue falls to exactly one member, and no two shares differ by more than one.

    pre: 0 <= queues <= 6 and 1 <= members <= 4
    post: [q for share in __return__ for q in share] == list(range(queues))
    post: max(map(len, __return__)) - min(map(len, __return__)) <= 1
    """
    return _shares(rebalance.average, queues, members)


def dealt_out(queues: int, members: int) -> list[list[int]]:
    """In turn, as cards are.

    pre: 0 <= queues <= 6 and 1 <= members <= 4
    post: sorted(q for share in __return__ for q in share) == list(range(queues))
    post: max(map(len, __return__)) - min(map(len, __return__)) <= 1
    """
    return _shares(rebalance.circular, queues, members)


def _shares(strategy: Any, queues: int, members: int) -> list[list[int]]:
    cells, names = list(range(queues)), list(range(members))
    return [strategy(cells, names, me) for me in names]


def pauses(fast: int, slow: int) -> tuple[int, int]:
    """Who took longer is left alone no shorter.

    pre: 0 <= fast <= slow
    post: 0 <= __return__[0] <= __return__[1] <= 30_000
    """
    return latency.unavailable_ms(fast), latency.unavailable_ms(slow)


def left_alone(first: int, second: int, later: int) -> tuple[int, int]:
    """A quick answer does not bring a broker back: the time until which it is left alone only grows.

    pre: 0 <= first and 0 <= second and 0 <= later
    post: __return__[0] <= __return__[1]
    """
    faults = latency.LatencyFaults()
    faults.report("b", first, 0)
    before = faults._faults["b"].available_at
    faults.report("b", second, later)
    return int(before), int(faults._faults["b"].available_at)


def sharded(count: int, key_hash: int) -> int:
    """Every hash, a negative one too, names a queue that exists.

    pre: 1 <= count <= 4
    post: 0 <= __return__ < count
    """
    return cast(int, retry.shard(cast(Any, range(count)), key_hash))


# --- the store


def sized(body: int, topic: int, properties: int) -> int:
    """A record has room for all its parts, and one byte more for each byte more of a body.

    pre: 0 <= body <= 4_194_304 and 1 <= topic <= 255 and 0 <= properties <= 32_767
    post: __return__ == FIXED_SIZE + body + topic + properties + (topic > 127)
    """
    return record_size(body, topic, properties)


def found_first(low: int, count: int, edge: int) -> int:
    """The binary search finds the first place where the condition holds, or the end.

    pre: 0 <= low and 0 <= count <= 6
    post: __return__ == min(max(low, edge), low + count)
    """
    return index_files.first_true(low, low + count, lambda at: at >= edge)


def pulled(offset: int, low: int, high: int) -> tuple[int, int]:
    """What a pull answers by code: moved to an end of the queue that it was not at, or to wait where it is.

    pre: 0 <= low <= high and 0 <= offset
    post: implies(high > 0 and low <= offset <= high, __return__[1] == offset and __return__[0] != pull.MOVED)
    post: implies(high > 0 and offset < low, __return__ == (pull.MOVED, low))
    post: implies(high > 0 and offset > high, __return__ == (pull.MOVED, high))
    """
    queue = types.SimpleNamespace(min_offset=low, max_offset=high, units=lambda offset, count: b"")
    found = _Reader(queue).pull("T", 0, offset, 32, 1 << 20)
    return pull.code_of(found, offset), found.next_offset


class _Reader(search.Reader):
    log = cast(Any, types.SimpleNamespace(min_phy=0))

    def __init__(self, queue: Any) -> None:
        self.found = types.SimpleNamespace(index=queue)

    def find_queue(self, topic: str, queue_id: int) -> Any:
        return self.found


def deleted(ages: list[int], reserve: int, force: bool) -> int:
    """Only the oldest go, in order, never the last segment (which has no age), and unforced only what is old enough.

    pre: len(ages) <= 3 and all(a >= 0 for a in ages) and reserve >= 0
    post: 0 <= __return__ <= len(ages)
    post: force or all(a >= reserve for a in ages[:__return__])
    post: force or __return__ == len(ages) or ages[__return__] < reserve
    """
    config = cast(Any, types.SimpleNamespace(delete_batch_max=10, reserve_ms=reserve))
    return retention.deletable(config, ages, retention.Pressure.FORCE if force else retention.Pressure.NONE)


def answered(steps: list[int], mark: int) -> list[int]:
    """A flush answers exactly the sends whose records end at or before it, in order.

    pre: len(steps) <= 3 and all(s >= 0 for s in steps)
    post: all(end <= mark for end in __return__)
    post: __return__ == [sum(steps[: n + 1]) for n in range(len(__return__))]
    post: len(__return__) == len(steps) or sum(steps[: len(__return__) + 1]) > mark
    """
    board: acks.AckBoard[int] = acks.AckBoard()
    end = 0
    for step in steps:
        end += step
        board.add(end, 0.0, end)
    return board.advance(mark)


def delivery_noted(ends: list[int], flushed: int) -> int:
    """What the file of delays calls delivered is durable: of the deliveries in order, those whose copies lie below the flushed mark.

    pre: len(ends) <= 3 and all(e >= 0 for e in ends) and all(ends[n] < ends[n + 1] for n in range(len(ends) - 1))
    post: __return__ == sum(1 for e in ends if e <= flushed)
    """
    level = delay.Level(1, 1000)
    for number, end in enumerate(ends):
        level.delivered(number + 1, end)
    level.settle(flushed)
    return level.stored


def patience(gaps: list[int], head: int) -> tuple[float, float]:
    """When the head of a level came, and how long it waits at most: its delay, however roughly a level remembers, and no step more.

    pre: 1 <= len(gaps) <= 3 and all(0 <= gap <= 100 for gap in gaps) and 0 <= head < len(gaps)
    post: __return__[0] + 512 <= __return__[1]
    post: __return__[1] < __return__[0] + 512 + 8
    """
    level = delay.Level(1, 1000)
    level.delay_s = 8 * delay.SEEN_STEPS  # in whole seconds, as all numbers here
    came = now = 0
    for number, gap in enumerate(gaps):
        now += gap
        level.note(number + 1, now)
        came = now if number == head else came
    level.offset = head
    return came, level.latest()


def due(level: int, store_ms: int, levels_ms: list[int]) -> int | None:
    """A record of the schedule topic is due when the delay of its level has passed since it was stored, never earlier.

    pre: -1 <= level <= 4 and 1 <= len(levels_ms) <= 3 and all(ms >= 0 for ms in levels_ms)
    post: (__return__ is None) == (level <= 0)
    post: level <= 0 or __return__ == store_ms + levels_ms[min(level, len(levels_ms)) - 1]
    """
    return dispatch.delivery_ms({DELAY: str(level)}, store_ms, levels_ms)


def given_back(times: int) -> tuple[int | None, int]:
    """Whether a broker takes a message back or its consumer publishes it anew, it waits as long; and a level longer than the time before.

    pre: times >= 0
    post: __return__[0] == __return__[1]
    post: __return__[1] == sendback.next_level(0, times + 1, times + 2) - 1
    """
    return sendback.next_level(0, times, times + 1), retry.retry_level(times)


assert FIXED_SIZE
