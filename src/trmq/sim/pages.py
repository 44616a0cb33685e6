"""Sparse bytes: what one layer of a simulated file holds.

Only pages that were ever written take memory, so a segment of 1 GiB of zeros costs nothing. A page is a `bytearray`
of fixed length that is never replaced while it is part of the file: views of it therefore show later writes, exactly as
views of a mapped file do (a reader that keeps a view too long is caught in simulation, too).
"""

from __future__ import annotations

from collections.abc import Iterator

from trmq.host import Buffer

PAGE = 4096


class Pages:
    """`size` bytes, zero where nothing was written. `changes` is another number after each change."""

    __slots__ = ("_pages", "changes", "size")

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self.size = 0
        self.changes = 0

    def read(self, offset: int, size: int) -> memoryview:
        """Up to `size` bytes from `offset`, shorter at the end; zero-copy when they lie in one written page."""
        end = offset + size
        if end > self.size:
            end = self.size
        if end <= offset:
            return memoryview(b"")
        start = offset % PAGE
        stop = start + end - offset
        if stop <= PAGE:
            page = self._pages.get(offset // PAGE)
            if page is not None:
                return memoryview(page).toreadonly()[start:stop]
        out = bytearray(end - offset)
        for number, start, at, length in _pieces(offset, end - offset):
            page = self._pages.get(number)
            if page is not None:
                out[at : at + length] = page[start : start + length]
        return memoryview(out).toreadonly()

    def write(self, offset: int, data: Buffer) -> None:
        """Put `data` at `offset`; bytes between the old end and `offset` become zeros."""
        size = len(data)
        view = memoryview(data)
        self.changes += 1
        for number, start, at, length in _pieces(offset, size):
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = bytearray(PAGE)
            page[start : start + length] = view[at : at + length]
        if size and offset + size > self.size:
            self.size = offset + size

    def resize(self, size: int) -> None:
        """Cut the file at `size`, or extend it with zeros."""
        self.changes += 1
        if size < self.size:
            keep, rest = divmod(size, PAGE)
            for number in [n for n in self._pages if n > keep or (n == keep and rest == 0)]:
                del self._pages[number]
            page = self._pages.get(keep)
            if page is not None:
                page[rest:] = bytes(PAGE - rest)
        self.size = size

    def copy(self) -> Pages:
        other = Pages()
        other._pages = {number: bytearray(page) for number, page in self._pages.items()}
        other.size = self.size
        return other


def _pieces(offset: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """(page number, start in the page, start in the data, length) of each page that [offset, offset + size) touches."""
    at = 0
    while at < size:
        number, start = divmod(offset + at, PAGE)
        length = min(PAGE - start, size - at)
        yield number, start, at, length
        at += length
