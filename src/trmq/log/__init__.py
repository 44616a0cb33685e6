"""The commit log and its indexes, byte-compatible with Apache RocketMQ 5.4. `Store` is the face, `open_store` the way in."""

from trmq.log.config import StoreConfig
from trmq.log.dispatch import delivery_ms, index_keys, unit_tags
from trmq.log.reading import Pull, PullStatus, Put
from trmq.log.service import StoreService, open_store
from trmq.log.store import Queue, Store, StoreStatistics

__all__ = [
    "Pull", "PullStatus", "Put", "Queue", "Store", "StoreConfig", "StoreService", "StoreStatistics", "delivery_ms", "index_keys",
    "open_store", "unit_tags",
]
