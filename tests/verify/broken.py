"""`python broken.py BUG serve ...`: trmq with one seeded bug, which a client can notice. Every so many messages it strikes.

Each lists the clauses by which it must be found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from trmq.broker.handlers import pull, send
from trmq.cli import main
from trmq.log import PullStatus
from trmq.log.store import Store

EVERY = 20
BUGS: dict[str, tuple[set[str], Callable[[], None]]] = {}


def bug(*clauses: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(seed: Callable[[], None]) -> Callable[[], None]:
        BUGS[seed.__name__] = (set(clauses), seed)
        return seed

    return register


def on_append(change: Callable[[Any, Any, tuple[Any, ...]], Any]) -> None:
    """Call `change(append, store, arguments)` instead of every so-manieth append of a message to a run's topic."""
    original = Store.append
    count = 0

    def append(self: Store, topic: str, *rest: Any) -> Any:
        nonlocal count
        if topic.startswith("verify_"):
            count += 1
            if count % EVERY == 0:
                return change(original, self, (topic, *rest))
        return original(self, topic, *rest)

    Store.append = append  # type: ignore[assignment, method-assign]


@bug("P-LOSS-1")
def loses() -> None:
    """Acknowledged, and stored where nobody looks."""
    on_append(lambda append, store, args: append(store, "elsewhere", *args[1:]))


@bug("P-DUP-1")
def stores_twice() -> None:
    def twice(append: Any, store: Any, args: tuple[Any, ...]) -> Any:
        append(store, *args)
        return append(store, *args)

    on_append(twice)


@bug("P-HIS-2")
def names_another_offset() -> None:
    original = send.send_ok

    def send_ok(request: Any, code: int, msg_id: str, queue_id: int, queue_offset: int, *rest: Any, **more: Any) -> bytes:
        return original(request, code, msg_id, queue_id, queue_offset + (queue_offset % EVERY == 7), *rest, **more)

    send.send_ok = send_ok


@bug("P-HIS-3")
def alters_bodies() -> None:
    on_append(lambda append, store, args: append(store, *args[:2], bytes(args[2])[:-1] + b"?", *args[3:]))


@bug("P-HIS-6")
def skips_offsets() -> None:
    """What stands at some offsets is never handed out."""
    original = pull.read

    def read(broker: Any, header: Any, subscription: Any, offset: int) -> Any:
        skip = header.topic.startswith("verify_") and offset % EVERY == 13
        return original(broker, header, subscription, offset + skip)

    pull.read = read


@bug("P-HIS-8")
def withholds_from_groups() -> None:
    """A tool reads everything; consumer groups are told that one queue is empty."""
    original = pull.read

    def read(broker: Any, header: Any, subscription: Any, offset: int) -> Any:
        found = original(broker, header, subscription, offset)
        if header.consumer_group.startswith("verify_") and header.queue_id == 1 and not header.topic.startswith("%"):
            return found._replace(status=PullStatus.OFFSET_OVERFLOW_ONE, next_offset=offset, slices=[], size=0, count=0, last_phy=-1)
        return found

    pull.read = read


if __name__ == "__main__":
    BUGS[sys.argv[1]][1]()
    main(sys.argv[2:])
