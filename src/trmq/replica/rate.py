"""Bytes a second, as somebody sees it who looks now and then."""

from __future__ import annotations


class Rate:
    """`now` is in seconds of any clock that does not jump. Looks less than a second apart get the same answer."""

    __slots__ = ("_count", "_since", "_value")

    def __init__(self, now: float) -> None:
        self._since = now
        self._count = 0
        self._value = 0

    def look(self, now: float, count: int) -> int:
        """What came a second since an earlier look, where `count` have come altogether."""
        if now - self._since >= 1:
            self._value = int((count - self._count) / (now - self._since))
            self._since, self._count = now, count
        return self._value
