"""Headers of what trmq brokers say to each other beside Apache's protocol. An Apache broker answers them "not supported".

A slave joins before it opens its HA connection, because the HA protocol itself cannot say who is there, nor why somebody is sent away.
"""

from __future__ import annotations

from .base import Header, Int64


class Join(Header):
    """31001, slave to master. Offsets are those of the slave's log; `tail_digest` is the SHA-256 (hex) of its last `tail_size` bytes."""

    cluster_name: str
    broker_name: str
    broker_id: Int64
    broker_addr: str
    store_id: str
    segment_size: Int64
    min_offset: Int64
    max_offset: Int64
    tail_size: Int64 = 0
    tail_digest: str = ""
    sync_from_last_file: bool = False


class JoinResponse(Header):
    """Answer to 31001. `verdict`: follow, and then `token` is the slave's first word on the HA port; or longer, diverged: its log is not a
    copy of the master's. Anything else that is wrong is an error with a sentence. Offsets are those of the master's log."""

    verdict: str
    token: Int64 = 0
    min_offset: Int64 = 0
    max_offset: Int64 = 0


class MetadataChanged(Header):
    """31002, master to slave, one-way: the table kept in `path` (config/topics.json and the like) changed."""

    path: str
