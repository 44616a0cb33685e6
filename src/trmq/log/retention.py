"""When old segments go, as pure decisions.

A segment expires when its *messages* are old: when the first message of the next segment (stored no earlier than its own last)
is older than `reserve_ms`. Apache looks at the file's modification time, so a copied store starts its age anew (TRAP-S23).
The last segment never goes. Disk usage has three levels: above `disk_max_ratio` expired segments go whatever the hour; above
`disk_force_ratio` the oldest go whether expired or not (`clean_forcibly`); above `disk_warn_ratio` puts are refused as well.

Source: `CleanCommitLogService`; reference "store" section 8. Upholds P-CLEAN-1, P-CLEAN-2.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import attrs

from trmq.log.config import StoreConfig


class Pressure(enum.Enum):
    NONE = 0
    EXPIRED = 1
    """Delete what has expired now."""
    FORCE = 2
    """Delete the oldest segments, expired or not."""


@attrs.frozen
class Found:
    level: Pressure
    refuse: str | None
    """Why puts must be refused, None if they need not."""


def pressure(config: StoreConfig, usage: float) -> Found:
    """What a disk in use to `usage` (0 to 1) asks for."""
    refuse = None
    if usage > config.disk_warn_ratio:
        limit = f"{config.disk_warn_ratio:.0%} (diskSpaceWarningLevelRatio)"
        refuse = f"the disk is {usage:.0%} full, puts are refused above {limit}; free some space"
    if usage > min(config.disk_force_ratio, config.disk_warn_ratio):
        return Found(Pressure.FORCE if config.clean_forcibly else Pressure.EXPIRED, refuse)
    if usage > config.disk_max_ratio:
        return Found(Pressure.EXPIRED, refuse)
    return Found(Pressure.NONE, refuse)


def deletable(config: StoreConfig, ages_ms: Sequence[int | None], level: Pressure) -> int:
    """How many of the oldest segments may go now; `ages_ms` has each but the last one's age, oldest first, None if unknown."""
    if level is Pressure.FORCE:
        return min(len(ages_ms), config.delete_batch_max)
    count = 0
    for age in ages_ms[: config.delete_batch_max]:
        if age is None or age < config.reserve_ms:
            break
        count += 1
    return count
