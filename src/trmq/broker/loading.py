"""Taking over the tables that an earlier run left in config/.

Source: `BrokerController#initializeMetadata`; reference "store" section 9.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trmq.errors import RemoteProtocolError, StoreMismatch
from trmq.log.config_file import load_json_text
from trmq.message import DLQ_PREFIX, RETRY_PREFIX
from trmq.wire.names import check_topic

from . import delay, groups, offsets, topics

if TYPE_CHECKING:
    from .service import Broker


def load_tables(broker: Broker) -> None:
    """Take over what an earlier run (ours or Apache's) left in config/."""
    disk = broker.host.disk
    known = load_json_text(disk, topics.PATH)
    tables: dict[str, Callable[[bytes | None], None]] = {
        topics.PATH: broker.topics.load, groups.PATH: broker.groups.load, offsets.PATH: broker.offsets.load, delay.PATH: broker.delay.load,
    }
    for path, load in tables.items():
        try:
            load(load_json_text(disk, path))
        except RemoteProtocolError as error:
            remedy = "restore it from a replica or a backup, or move it and its .bak away to go on without what it says"
            raise StoreMismatch(f"{path} in the store cannot be used: {error}; {remedy}") from None
    if known is None or broker.store_service.report.how not in ("clean", "new"):
        _adopt_topics(broker)


def _adopt_topics(broker: Broker) -> None:
    """After a crash a topic may have messages but no entry, because topics.json was not written yet. It must not be lost."""
    found: dict[str, int] = {}
    for topic, queue_id in broker.store.queues():
        if topic not in broker.topics and check_topic(topic) is None:
            found[topic] = max(found.get(topic, 0), queue_id + 1)
    for topic, count in found.items():
        derived = topic.startswith((RETRY_PREFIX, DLQ_PREFIX))
        broker.topics.create(topic, count if derived else max(count, broker.config.default_topic_queue_nums))
