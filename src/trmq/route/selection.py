"""Which queue a message goes to: the producer's view of a route, and whose turn it is.

A producer goes round its queues, one step per send, and after a failure looks for a queue on another broker than the one
that failed. With latency faults switched on (`latency.py`) brokers that were slow are passed over first, unreachable ones
next; when nothing else is left the turn decides alone, since a message that is not tried is surely not sent.

An order configuration (`broker-a:4;broker-b:4`) replaces the route's queues as they stand, without a look at permissions: a
queue that came and went with its broker would change where every sharding key goes.

Source: `MQClientInstance.topicRouteData2TopicPublishInfo`, `topicRouteData2TopicSubscribeInfo`, `TopicPublishInfo`,
`MQFaultStrategy` of the client, 5.4.0. Upholds P-Q-1, P-Q-2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from trmq.message import MessageQueue
from trmq.wire.bodies import TopicRouteData

from .views import MASTER_ID, WRITE

READ = 4
BrokerTest: TypeAlias = Callable[[str], bool]
"""Says of a broker name whether it may be chosen."""


@attrs.frozen
class PublishInfo:
    """The queues a producer may send to, sorted by broker name and queue id (or in the order the order configuration gives)."""

    queues: tuple[MessageQueue, ...]
    ordered: bool = False

    def writable_queue_count(self, broker_name: str) -> int:
        return sum(queue.broker_name == broker_name for queue in self.queues)


def publish_info(topic: str, route: TopicRouteData) -> PublishInfo:
    """Queues to write to: of brokers with WRITE permission and a master, ids below `write_queue_nums`."""
    if route.order_topic_conf:
        return PublishInfo(_order_queues(topic, route.order_topic_conf), ordered=True)
    masters = {group.broker_name for group in route.broker_datas if MASTER_ID in group.broker_addrs}
    writable = [data for data in route.queue_datas if data.perm & WRITE and data.broker_name in masters]
    writable.sort(key=lambda data: data.broker_name)
    return PublishInfo(tuple(MessageQueue(topic, data.broker_name, i) for data in writable for i in range(data.write_queue_nums)))


def _order_queues(topic: str, conf: str) -> tuple[MessageQueue, ...]:
    found = []
    for part in conf.split(";"):
        name, _, count = part.partition(":")
        if name and count.strip().isdecimal():
            found += [MessageQueue(topic, name, i) for i in range(int(count))]
    return tuple(found)


def subscribe_queues(topic: str, route: TopicRouteData) -> tuple[MessageQueue, ...]:
    """Queues to read from, sorted: of brokers with READ permission, master or not, ids below `read_queue_nums`."""
    found = [MessageQueue(topic, d.broker_name, i) for d in route.queue_datas if d.perm & READ for i in range(d.read_queue_nums)]
    return tuple(sorted(found))


@attrs.define
class RoundRobin:
    """One producer's turn at one topic. `turn` starts anywhere (dice of the host) so that producers do not march in step."""

    turn: int = 0

    def choose(
        self, queues: Sequence[MessageQueue], last_broker: str | None = None, preferences: Sequence[BrokerTest] = ()
    ) -> MessageQueue | None:
        """The next queue, or None if there is none.

        `last_broker` is the broker that just failed; it is taken again only if no other broker has a queue. `preferences`
        are tried from the strictest on, each together with avoiding `last_broker`: what is the first to find a queue decides.
        """
        if not queues:
            return None
        if last_broker is not None or preferences:
            for accepts in (*preferences, _anyone):
                found = self._next(queues, lambda name, accepts=accepts: name != last_broker and accepts(name))  # type: ignore[misc]  # mypy cannot infer a lambda's default argument
                if found is not None:
                    return found
        return self._next(queues, _anyone)

    def _next(self, queues: Sequence[MessageQueue], accepts: BrokerTest) -> MessageQueue | None:
        for _ in range(len(queues)):
            queue = queues[self.turn % len(queues)]
            self.turn += 1
            if accepts(queue.broker_name):
                return queue
        return None


def _anyone(broker_name: str) -> bool:
    return True
