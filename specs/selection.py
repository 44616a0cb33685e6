"""# Routes, and which broker a message goes to

Seed `002_44c1a7c5303d32c6.txt`: "NameServer ... 接受 Broker 的注册信息并保存下来作为路由信息的基础数据，同时提供心跳检测机制检查 Broker
是否存活" (it takes registrations and watches that brokers live). Seed `000_962224688e51e41c.txt`:
"每个Broker在启动时会向所有NameServer注册自己的信息". Seed `003_c790c013a3e4f038.txt`, 消息发送高可用: "把 Topic 的多个 Message Queue
创建在多个 Broker 组上 ... 这样当一个 Broker 组的 Master 不可用后，其他组的 Master 仍然可用，Producer 仍然可以发送消息" (a topic's queues
are spread over several groups, so that with one master down the producer still sends to the others).

A route names only brokers that registered and whose registration has not run out. A producer goes round the writable queues; after a
failure it takes another broker as long as there is one, and for a while it begins elsewhere. What is not tried is surely not sent: if
every broker is bad, one is tried all the same.

Other sources: `RouteInfoManager`, `TopicPublishInfo`, `MQFaultStrategy` of 5.4.0; reference "client behaviour" section 3.

**Not promised**: that a route is fresh (clients ask every 30 s, and when something fails); that name servers agree with each other; that
a slow broker is avoided unless that was asked for; that a send to a machine that has just fallen silent gets through: it may wait for it
until its time is over; order across a change of broker.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import clause
from .history import (
    Eased,
    Gone,
    Hindered,
    History,
    LinkLost,
    Outcome,
    Paused,
    Registered,
    Resumed,
    RouteSeen,
    Serving,
    Tried,
    Unregistered,
)

Witness = Iterator[tuple[object, bool]]
ALIVE = "seed 002_44c1a7c5303d32c6.txt: NameServer 提供心跳检测机制检查 Broker 是否存活"
OTHERS = "seed 003_c790c013a3e4f038.txt, 消息发送高可用: 其他组的 Master 仍然可用，Producer 仍然可以发送消息"
MANAGER = "org.apache.rocketmq.namesrv.routeinfo.RouteInfoManager"
LOST_S, EXPIRED_S = 5.0, 5.0


class Names:
    """Model: who is registered. An address has one id, an id one address; an older state version replaces nobody."""

    def __init__(self) -> None:
        self.live: dict[tuple[str, int], Registered] = {}
        self.links: dict[str, float] = {}  # ended at

    def step(self, event: object) -> None:
        match event:
            case Registered(group=group, broker_id=id, address=address) if not event.refused:
                self.live = {key: r for key, r in self.live.items() if r.address != address or key == (group, id)}
                holder = self.live.get((group, id))
                fenced = holder is not None and holder.address != address and event.state < holder.state and self.held(holder, event.at)
                if not fenced:
                    self.live[group, id] = event
            case Unregistered(group=group, address=address):
                self.live = {key: r for key, r in self.live.items() if key[0] != group or r.address != address}
            case LinkLost(link=link, at=at):
                self.links[link] = at

    def held(self, one: Registered, now: float, grace: float = 0.0) -> bool:
        ended = self.links.get(one.link)
        lost = ended is not None and ended >= one.at and now > ended + grace
        return not lost and now <= one.at + one.timeout_s + grace

    def known(self, group: str, id: int, address: str, now: float, grace: float) -> bool:
        """Registered under this id; or shown as id 0, acting for a master that is not there."""
        acting = id == 0 and (group, 0) not in self.live
        holders = [r for (name, one), r in self.live.items() if name == group and (one == id or acting)]
        return any(holder.address == address and self.held(holder, now, grace) for holder in holders)


def routes(history: History) -> Iterator[tuple[RouteSeen, Names]]:
    names = Names()
    for event in history.events:
        if isinstance(event, RouteSeen):
            yield event, names
        names.step(event)


@clause("P-RT-1", "A route names only addresses that are registered now, and no address under two ids.",
        source=f"{MANAGER}#pickupTopicRouteData", mutants=("unregistered_stays", "one_address_two_ids"))
def routes_name_the_registered(history: History) -> Witness:
    for event, names in routes(history):
        every = [address for members in event.brokers.values() for address in members.values()]
        known = all(
            names.known(group, id, address, event.at, LOST_S) for group, members in event.brokers.items() for id, address in members.items()
        )
        yield event, known and len(every) == len(set(every))


@clause("P-RT-2", "A broker whose connection ended leaves the routes within 5 s; one that went silent, within its timeout and 5 s.",
        source=ALIVE, kind="eventually", mutants=("lost_links_stay", "nobody_expires"))
def the_gone_leave(history: History) -> Witness:
    for event, names in routes(history):
        for (group, id), one in list(names.live.items()):
            if not names.held(one, event.at, EXPIRED_S):
                yield (event, one), event.brokers.get(group, {}).get(id) != one.address


@clause("P-RT-3", "A registration with an older state version does not replace the live holder of an id; a group without a master is not "
        "writable.", source=f"{MANAGER}#registerBroker", mutants=("older_state_replaces", "slaves_are_writable"))
def the_older_does_not_replace(history: History) -> Witness:
    for event, names in routes(history):
        for group, members in event.brokers.items():
            for id, address in members.items():
                holder = names.live.get((group, id))
                if holder is not None and names.held(holder, event.at):
                    yield (event, id), holder.address == address
            yield (event, group), (group, 0) in names.live or group not in event.writable


@clause("P-Q-1", "A producer goes round the writable queues; after a failure it takes another broker whenever there is one.", source=OTHERS,
        mutants=("stays_with_the_failed", "queue_beyond_writable"))
def another_broker_after_a_failure(history: History) -> Witness:
    tried: dict[str, list[Tried]] = {}
    for event in history.all(Tried):
        if event.chosen:
            continue
        before = {attempt.group for attempt in tried.setdefault(event.id, [])}
        exists = 0 <= event.queue_id < event.writable.get(event.group, 0)
        another = event.group not in before or not set(event.writable) - before
        tried[event.id].append(event)
        yield event, exists and another


@clause("P-Q-2", "A broker known to be unreachable or (when asked for) slow is not the first choice while another is good.",
        source="org.apache.rocketmq.client.latency.MQFaultStrategy", mutants=("bad_ones_first",),
        upstream="by default a first attempt avoids nobody")
def bad_ones_wait(history: History) -> Witness:
    attempts: set[str] = set()
    for event in history.all(Tried):
        if event.id not in attempts and event.bad and not event.chosen:
            yield event, event.group not in event.bad or not set(event.writable) - event.bad
        attempts.add(event.id)


@clause("P-Q-3", "With one master stopped or killed and another group's up and well, a send without a fixed queue gets through.",
        source=OTHERS, kind="eventually", mutants=("sends_once", "gives_up_without_trying"))
def sends_get_through(history: History) -> Witness:
    masters: dict[str, str] = {}
    down: set[str] = set()
    without = 0.0  # until then there was no master at all
    troubles: set[str] = set()
    calm = 0.0  # since then nothing else is wrong with those that are up
    for event in history.events:
        if isinstance(event, Paused | Hindered):
            troubles.add(event.node if isinstance(event, Paused) else "")
        elif isinstance(event, Resumed | Eased):
            troubles.discard(event.node if isinstance(event, Resumed) else "")
            calm = event.at
        if isinstance(event, Serving) and event.broker_id == 0:
            without = without if masters else event.at
            masters[event.node] = event.group
            down.discard(event.group)
        elif isinstance(event, Gone) and event.node in masters:
            group = masters.pop(event.node)
            if event.how in ("close", "kill"):
                down.add(group)
            else:
                without = float("inf")  # a machine that says nothing costs the sends to it their whole timeout
        elif isinstance(event, Outcome) and not event.chosen and down and masters and not troubles and event.began > max(without, calm):
            yield event, event.status not in ("FAILED", "UNKNOWN")
