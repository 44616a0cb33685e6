"""Where a topic's queues live, as a client needs it: built from the name server's answer, compared to notice a change.

Source: reference "client behaviour" sections 3, 5; `MQClientInstance`.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import msgspec

from trmq.message import MessageQueue
from trmq.route.selection import publish_info, subscribe_queues
from trmq.wire.bodies import TopicRouteData

MASTER = 0


@attrs.frozen
class TopicRoute:
    """The route of one topic. `publish`: queues that may be sent to (their broker has a master); `subscribe`: queues to read."""

    topic: str
    publish: tuple[MessageQueue, ...]
    subscribe: tuple[MessageQueue, ...]
    brokers: Mapping[str, Mapping[int, str]]
    """broker name -> broker id -> "ip:port"."""

    def address(self, broker_name: str, broker_id: int = MASTER) -> str | None:
        return self.brokers.get(broker_name, {}).get(broker_id)

    def any_address(self, broker_name: str, wanted: int) -> tuple[int, str] | None:
        """(id, address) to read from: the wanted member, else the one after a wanted slave, else any (so reads survive a lost master)."""
        members = self.brokers.get(broker_name) or {}
        if wanted in members:
            return wanted, members[wanted]
        if wanted != MASTER and wanted + 1 in members:
            return wanted + 1, members[wanted + 1]
        return next(iter(sorted(members.items())), None)


def read_route(topic: str, data: TopicRouteData) -> TopicRoute:
    """A name server's answer as a route."""
    brokers = {broker.broker_name: dict(broker.broker_addrs) for broker in data.broker_datas}
    return TopicRoute(topic, publish_info(topic, data).queues, subscribe_queues(topic, data), brokers)


def borrow_route(topic: str, template: TopicRouteData, queues_max: int) -> TopicRoute:
    """The route an unknown topic will get: the template topic's brokers, with at most `queues_max` queues each."""
    queues = [
        msgspec.structs.replace(queue, read_queue_nums=count, write_queue_nums=count)
        for queue in template.queue_datas for count in [min(queues_max, queue.read_queue_nums)]
    ]
    return read_route(topic, msgspec.structs.replace(template, queue_datas=queues, order_topic_conf=None))
