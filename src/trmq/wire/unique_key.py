"""UNIQ_KEY: the id that a producer gives a message before anybody has stored it.

    ip 4|16 | pid, low 16 bits 2 | class-loader hash 4 | ms since the month began 4 | counter 2        in upper-case hex

Tools read the time back from it. Java lets the month begin at local midnight; here it begins at midnight UTC, which needs no time zone
and is off by some hours only in what a tool on another machine displays.
Source: reference "protocol" section 8.4; `MessageClientIDSetter`.
"""

from __future__ import annotations

import datetime
import ipaddress

from trmq.errors import LocalProtocolError

_DAY_MS = 86_400_000
_EPOCH = datetime.date(1970, 1, 1)


def month_start_ms(now_ms: int, months_later: int = 0) -> int:
    """When the UTC month of `now_ms` (or a later one) begins, ms since 1970."""
    today = _EPOCH + datetime.timedelta(days=now_ms // _DAY_MS)
    months = today.year * 12 + today.month - 1 + months_later
    return (datetime.date(months // 12, months % 12 + 1, 1) - _EPOCH).days * _DAY_MS


class UniqueKeys:
    """Makes keys that differ within this producer for 65536 calls per millisecond, and from others' by address, pid and loader."""

    def __init__(self, ip: str, pid: int, loader: int, counter: int = 0) -> None:
        """`loader` stands for Java's class-loader hash: any 32 bits that tell two producers of one process apart."""
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            raise LocalProtocolError(f"{ip!r} is not an IP address; a UNIQ_KEY begins with a literal one") from None
        start = address.packed + (pid & 0xFFFF).to_bytes(2, "big") + (loader & 0xFFFFFFFF).to_bytes(4, "big")
        self._start = start.hex().upper()
        self._counter = counter & 0xFFFF
        self._month_ms = 0
        self._next_month_ms = 0

    def next(self, now_ms: int) -> str:
        """A new key, 32 hex digits (56 with an IPv6 address)."""
        if not self._month_ms <= now_ms < self._next_month_ms:
            self._month_ms = month_start_ms(now_ms)
            self._next_month_ms = month_start_ms(now_ms, 1)
        key = f"{self._start}{now_ms - self._month_ms:08X}{self._counter:04X}"
        self._counter = self._counter + 1 & 0xFFFF
        return key


def time_of(key: str, now_ms: int) -> int | None:
    """When the key was made, ms since 1970, supposing it is younger than a month; None if it is no key of this form.

    The key holds only the time within a month: the latest such time that is not after `now_ms` is meant.
    """
    if len(key) not in (32, 56):
        return None
    try:
        within = int.from_bytes(bytes.fromhex(key)[-6:-2], "big")
    except ValueError:
        return None
    made = month_start_ms(now_ms) + within
    return made if made <= now_ms else month_start_ms(now_ms, -1) + within
