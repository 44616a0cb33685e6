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

    def members(self, broker_name: str, wanted: int) -> list[tuple[int, str]]:
        """(id, address) of all who can be read from: the wanted one first, then the one after a wanted slave, then by id."""
        first = (wanted,) if wanted == MASTER else (wanted, wanted + 1)
        return sorted(
            (self.brokers.get(broker_name) or {}).items(),
            key=lambda member: (first.index(member[0]) if member[0] in first else len(first), member[0]))

    def addresses(self) -> set[str]:
        """Of all members of all groups."""
        return {address for members in self.brokers.values() for address in members.values()}

    @property
    def lacks_master(self) -> bool:
        """Whether some group has only slaves now."""
        return any(MASTER not in members for members in self.brokers.values())


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
