"""DataVersion: how peers see that a table changed. Compared by equality, ordered by state version, counter, timestamp."""

from __future__ import annotations

from trmq.wire.bodies import DataVersion


def next_version(version: DataVersion, now_ms: int) -> DataVersion:
    """The version after one more change at `now_ms`. The state version (a controller's epoch) stays."""
    return DataVersion(counter=version.counter + 1, state_version=version.state_version, timestamp=now_ms)
