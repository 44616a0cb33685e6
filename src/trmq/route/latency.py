"""Brokers that were slow or failed, and for how long a producer leaves them alone.

Every send reports how long it took; a slow one makes its broker unavailable for a while taken from a table, a failed one
counts as a ten-second send. The while is only ever extended: a quick answer to a message sent earlier does not bring a
broker back. Nothing here knows a clock: `now_ms` is handed in, monotonic, in milliseconds.

Source: `MQFaultStrategy` (table, isolation), `LatencyFaultToleranceImpl.FaultItem` of the client, 5.4.0.
"""

from __future__ import annotations

import attrs

LEVELS: tuple[tuple[int, int], ...] = (
    (15_000, 30_000),
    (5_000, 10_000),
    (3_000, 6_000),
    (1_800, 5_000),
    (550, 2_000),
    (100, 0),
    (50, 0),
)
"""(latency at least, ms; unavailable for, ms), the slowest first."""
ISOLATED_LATENCY_MS = 10_000


def unavailable_ms(latency_ms: float) -> int:
    """For how long a broker is left alone after a send that took `latency_ms`."""
    return next((pause for least, pause in LEVELS if latency_ms >= least), 0)


@attrs.define
class _Fault:
    latency_ms: float
    available_at: float
    reachable: bool


@attrs.define
class LatencyFaults:
    """What one client knows of its brokers' moods, by broker name. Brokers it has no item for are available and reachable."""

    _faults: dict[str, _Fault] = attrs.field(factory=dict)

    def report(self, broker_name: str, latency_ms: float, now_ms: float, *, isolate: bool = False, reachable: bool = True) -> None:
        """Account for a send. `isolate`: it failed, whatever time it took. `reachable`: there was an answer."""
        pause = unavailable_ms(ISOLATED_LATENCY_MS if isolate else latency_ms)
        fault = self._faults.setdefault(broker_name, _Fault(latency_ms, now_ms, reachable))
        fault.latency_ms = latency_ms
        fault.reachable = reachable
        if pause:
            fault.available_at = max(fault.available_at, now_ms + pause)

    def available(self, broker_name: str, now_ms: float) -> bool:
        fault = self._faults.get(broker_name)
        return fault is None or now_ms >= fault.available_at

    def reachable(self, broker_name: str) -> bool:
        fault = self._faults.get(broker_name)
        return fault is None or fault.reachable

    def to_probe(self, now_ms: float) -> list[str]:
        """Brokers that are due for a probe: reported once, and not left alone any more."""
        return sorted(name for name, fault in self._faults.items() if now_ms >= fault.available_at)

    def forget(self, broker_name: str) -> None:
        self._faults.pop(broker_name, None)
