"""What "highly available" means, as clauses that run. Imports nothing of trmq, so it can judge any RocketMQ.

`trmq spec list` and `trmq spec show` print it; `docs/spec.md` is generated from it.
"""

from . import (
    ack,
    checker,
    delay,
    delivery,
    dispatch,
    duplicates,
    flush,
    ha_transfer,
    key_index,
    log_format,
    loss,
    order,
    rebalance,
    recovery,
    retention,
    retry,
    route,
    selection,
    slave_read,
    strangers,
)
from .clause import REGISTRY

STORE_PAGES = (log_format, flush, recovery, dispatch, key_index, retention)
"""Of one broker's store."""
CLUSTER_PAGES = (
    ack, ha_transfer, slave_read, route, selection, loss, checker, rebalance, delivery, order, retry, delay, duplicates, strangers,
)  # fmt: skip
"""Of brokers, name servers and clients together."""
PAGES = (*STORE_PAGES, *CLUSTER_PAGES)
STORE = tuple(id for id, clause in REGISTRY.items() if clause.check.__module__ in {page.__name__ for page in STORE_PAGES})
CLUSTER = tuple(id for id in REGISTRY if id not in STORE)
