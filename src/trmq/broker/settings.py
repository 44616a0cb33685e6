"""What the broker's configuration means for the rooms below it."""

from __future__ import annotations

from trmq.config import BrokerConfig
from trmq.log import StoreConfig
from trmq.remoting import Limits

HOUR_MS = 3_600_000


def remoting_limits(config: BrokerConfig) -> Limits:
    return Limits(
        frame_bytes_max=config.frame_bytes_max, connections_max=config.connections_max, outbox_bytes_max=config.outbox_bytes_max,
        jobs_max=config.requests_in_flight_max, idle_timeout=float(config.server_channel_max_idle_time_seconds),
    )  # fmt: skip


def store_config(config: BrokerConfig, store_host: bytes) -> StoreConfig:
    """`store_host` is the encoded address that every record names."""
    return StoreConfig(
        commit_log_path=config.commit_log_folder, segment_size=config.mapped_file_size_commit_log,
        queue_units=config.mapped_file_size_consume_queue // 20, index_slots=config.max_hash_slot_num,
        index_entries=config.max_index_num, index_enabled=config.message_index_enable, max_message_size=config.max_message_size,
        sync_flush=config.flush_disk_type == "SYNC_FLUSH", flush_interval_s=config.flush_interval_commit_log / 1000,
        sync_flush_timeout_s=config.sync_flush_timeout / 1000, reserve_ms=config.file_reserved_time * HOUR_MS,
        delete_when=config.delete_hours, clean_interval_s=config.clean_resource_interval / 1000,
        clean_forcibly=config.clean_file_forcibly_enable, disk_warn_ratio=config.disk_space_warning_level_ratio / 100,
        disk_force_ratio=config.disk_space_clean_forcibly_ratio / 100, disk_max_ratio=config.disk_max_used_space_ratio / 100,
        store_host=store_host, delay_levels_ms=config.delay_levels_ms,
    )  # fmt: skip
