"""Nurseries for context managers: an error of the caller's own body leaves as itself, not wrapped in a group of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_scope() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the body ends, however it ends.

    The body's error passes unwrapped if no task failed beside it; an error of a task comes as Trio gives it, in a group.
    """
    own: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                own = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if own is not None and len(group.exceptions) == 1 and group.exceptions[0] is own:
            raise own from own.__cause__
        raise
