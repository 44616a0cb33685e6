"""What went wrong, out of the groups that nurseries wrap around it."""

from __future__ import annotations

import trio


def first_cause(group: BaseException) -> BaseException:
    """The one thing that went wrong; what followed from it (the other tasks' cancellation) is of no interest."""
    error = group
    while isinstance(error, BaseExceptionGroup):
        error = next((inner for inner in error.exceptions if not isinstance(inner, trio.Cancelled)), error.exceptions[0])
    return error
