"""What a store needs to know, as one frozen value. Sizes in bytes, times as their suffix says; Apache's key in the comment."""

from __future__ import annotations

import attrs

from trmq.record import BLANK_SIZE_MIN

DELAY_LEVELS_MS = tuple(
    1000 * s for s in (1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200)
)
HOUR_MS = 3_600_000


@attrs.frozen(kw_only=True)
class StoreConfig:
    """The layout and the promises of one store. All paths are relative to the disk's root (Apache's `storePathRootDir`)."""

    commit_log_path: str = "commitlog"  # storePathCommitLog
    segment_size: int = 1 << 30  # mappedFileSizeCommitLog
    queue_units: int = 300_000  # mappedFileSizeConsumeQueue / 20
    index_slots: int = 5_000_000  # maxHashSlotNum
    index_entries: int = 20_000_000  # maxIndexNum
    index_enabled: bool = True  # messageIndexEnable
    max_message_size: int = 4 << 20  # maxMessageSize (body)
    sync_flush: bool = False  # flushDiskType
    flush_interval_s: float = 0.5  # flushIntervalCommitLog
    sync_flush_timeout_s: float = 5.0  # syncFlushTimeout
    write_back_bytes: int = 32 << 20
    """The indexes are made durable once per this much log, so that a restart has little to parse again."""
    write_back_bytes_max: int = 256 << 20
    """The same where making them durable takes long."""
    write_back_interval_s: float = 5.0
    reserve_ms: int = 72 * HOUR_MS  # fileReservedTime (hours)
    delete_when: tuple[int, ...] = (4,)  # deleteWhen: hours of the local day
    delete_batch_max: int = 10  # deleteFileBatchMax
    clean_interval_s: float = 10.0  # cleanResourceInterval
    clean_forcibly: bool = True  # cleanFileForciblyEnable
    disk_warn_ratio: float = 0.90  # diskSpaceWarningLevelRatio: refuse writes, delete at once
    disk_force_ratio: float = 0.85  # diskSpaceCleanForciblyRatio: delete at once
    disk_max_ratio: float = 0.75  # diskMaxUsedSpaceRatio: delete what has expired, whatever the hour
    store_host: bytes = bytes((127, 0, 0, 1, 0, 0, 42, 159))
    """Encoded address (4 or 16 bytes and a 4-byte port) that every record carries and message ids are made of."""
    delay_levels_ms: tuple[int, ...] = DELAY_LEVELS_MS  # messageDelayLevel
    open_files_max: int = 2048
    """Bound on consume-queue files held open."""

    def __attrs_post_init__(self) -> None:
        assert self.segment_size > BLANK_SIZE_MIN
        assert self.queue_units > 0
