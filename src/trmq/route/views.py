"""Other ways to show a route: with an acting master in the master's place, or cut down to one zone."""

from __future__ import annotations

import msgspec

from trmq.wire.bodies import TopicRouteData

WRITE = 2
MASTER_ID = 0


def show_acting_masters(found: TopicRouteData) -> None:
    """Present the lowest member of each headless, unwritable group under the master's id, for clients that know no better."""
    perms = {queue.broker_name: queue.perm for queue in found.queue_datas}
    for group in found.broker_datas:
        headless = group.broker_addrs and MASTER_ID not in group.broker_addrs
        if headless and group.enable_acting_master and not perms.get(group.broker_name, WRITE) & WRITE:
            group.broker_addrs[MASTER_ID] = group.broker_addrs.pop(min(group.broker_addrs))


def keep_zone(found: TopicRouteData, zone: str) -> TopicRouteData:
    """Only the groups of `zone` (any case) and those without a master, and their queues.

    Source: `ZoneRouteRPCHook`: a group that lost its master stays visible everywhere, so that it can be drained.
    """
    kept = [g for g in found.broker_datas if MASTER_ID not in g.broker_addrs or (g.zone_name or "").lower() == zone.lower()]
    gone = {group.broker_name for group in found.broker_datas} - {group.broker_name for group in kept}
    queues = [queue for queue in found.queue_datas if queue.broker_name not in gone]
    return msgspec.structs.replace(found, broker_datas=kept, queue_datas=queues)
