"""# Routes: what name servers know

Seed `002_44c1a7c5303d32c6.txt`: "NameServer ... 接受 Broker 的注册信息并保存下来作为路由信息的基础数据，同时提供心跳检测机制检查 Broker
是否存活。NameServer 通常也是集群方式部署，每个实例间不直接通信，但都保存一份完整的路由信息" (it takes registrations and watches that
brokers live; name servers do not talk to each other, yet each has the whole of the routes). Seed `000_962224688e51e41c.txt`:
"每个Broker在启动时会向所有NameServer注册自己的信息 ... 即使部分NameServer节点故障，也不会影响整体的服务发现功能" (a broker registers at
all of them; with some of them down, services are found all the same).

So a route names only brokers that registered and whose registration has not run out, and all of those. A name server stores nothing: after
a restart it knows what brokers tell it, which they do as soon as the connection is there again.

Other sources: `RouteInfoManager`, `BrokerOuterAPI#registerBrokerAll` of 5.4.0; reference "name server" sections 3 to 7.

**Not promised**: that a route is fresh (clients ask every 30 s, and when something fails); that name servers agree with each other at
every moment; that a broker cut off from a name server is known there; that a broker which died without a word is gone from the routes
before its timeout.
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
    NamesUp,
    Outcome,
    Paused,
    Registered,
    Resumed,
    RouteSeen,
    Serving,
    Unregistered,
)

Witness = Iterator[tuple[object, bool]]
ALIVE = "seed 002_44c1a7c5303d32c6.txt: NameServer 提供心跳检测机制检查 Broker 是否存活"
WHOLE = "seed 002_44c1a7c5303d32c6.txt: 每个实例间不直接通信，但都保存一份完整的路由信息"
ALL = "seed 000_962224688e51e41c.txt, NameServer集群: 每个Broker在启动时会向所有NameServer注册"
SOME_DOWN = "seed 000_962224688e51e41c.txt, NameServer集群: 即使部分NameServer节点故障，也不会影响整体的服务发现功能"
MANAGER = "org.apache.rocketmq.namesrv.routeinfo.RouteInfoManager"
LOST_S, EXPIRED_S = 5.0, 5.0
TOLD_S, AGAIN_S = 1.0, 10.0


class Names:
    """Model: who is registered at one name server. An address has one id, an id one address; an older state version replaces nobody."""

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
    """Each route with what was registered at that name server."""
    servers: dict[str, Names] = {}
    for event in history.events:
        if isinstance(event, NamesUp):
            servers[event.server] = Names()
        elif isinstance(event, RouteSeen):
            yield event, servers.setdefault(event.server, Names())
        elif isinstance(event, Registered | Unregistered | LinkLost):
            servers.setdefault(event.server, Names()).step(event)


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
        source=ALIVE, kind="eventually", mutants=("lost_links_stay", "nobody_expires"),
        faults=("kill", "machine", "cut"))
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


@clause("P-RT-4", "A name server's route has the whole of what was registered with it, each member of each group whose master is there, "
        "within 1 s, whatever other name servers know.", source=WHOLE, kind="eventually",
        mutants=("slaves_are_left_out", "group_hides_another"))
def routes_are_whole(history: History) -> Witness:
    having: dict[tuple[str, str], str] = {}  # topic and group → the master that had it when a route said so
    losses = disks_lost(history)
    for event, names in routes(history):
        emptied = {group for at, group in losses if at <= event.at}
        for group in event.brokers:
            if (group, 0) in names.live:
                having[event.topic, group] = names.live[group, 0].address
        for (group, id), one in names.live.items():
            master = names.live.get((group, 0))
            if master is None or group in emptied or having.get((event.topic, group)) != master.address:
                continue
            if all(names.held(r, event.at, -TOLD_S) and event.at - r.at >= TOLD_S for r in (one, master)):
                yield (event, one), event.brokers.get(group, {}).get(id) == one.address


def disks_lost(history: History) -> list[tuple[float, str]]:
    """When a group's broker lost its disk. It knows no topic when it returns, and a name server may know more of it for a while."""
    groups = {event.node: event.group for event in history.all(Serving)}
    return [(event.at, groups[event.node]) for event in history.all(Gone) if event.how == "disk" and event.node in groups]


@clause("P-RT-5", "A broker registers at every name server, and within 10 s again at one that lost what it knew.", source=ALL,
        kind="eventually", mutants=("registers_at_one_only", "registers_once"),
        faults=("kill",))
def every_name_server_is_told(history: History) -> Witness:
    up: dict[str, float] = {}
    since: dict[tuple[str, int, str], float] = {}  # when a broker first registered anywhere, and has gone nowhere
    links: dict[str, tuple[str, int, str]] = {}
    nodes: dict[str, tuple[str, int]] = {}
    having: dict[str, set[str]] = {}
    losses = disks_lost(history)
    calm = 0.0  # since then nothing else is wrong
    for event in history.events:
        match event:
            case Hindered() | Paused():
                calm = float("inf")
            case Eased() | Resumed():
                calm = event.at
            case NamesUp(server=server):
                up[server] = event.at
            case Serving(node=node):
                nodes[node] = (event.group, event.broker_id)
            case Gone(node=node):
                up.pop(node, None)
                since = {who: at for who, at in since.items() if who[:2] != nodes.get(node)}
            case Registered(group=group, broker_id=id, address=address):
                since = {who: at for who, at in since.items() if who[:2] != (group, id) or who[2] == address}  # another took its place
                since.setdefault((group, id, address), event.at)
                links[event.link] = (group, id, address)
            case Unregistered(group=group, broker_id=id, address=address):
                since.pop((group, id, address), None)
            case LinkLost(server=server, link=link) if server in up and link in links:
                since.pop(links[link], None)
            case RouteSeen(server=server) if server in up:
                emptied = {group for at, group in losses if at <= event.at}
                having.setdefault(event.topic, set()).update(event.brokers)
                led = {group for group, id, _ in since if id == 0} & having[event.topic] - emptied
                for (group, id, address), at in since.items():
                    if group in led and event.at - max(at, up[server], calm) >= AGAIN_S:
                        yield (event, group, id), event.brokers.get(group, {}).get(id) == address


@clause("P-RT-6", "While one of several name servers is up, sends go on: also those of a producer that starts then.", source=SOME_DOWN,
        kind="eventually", mutants=("one_name_server_is_asked",), visible="client",
        faults=("kill",))
def one_name_server_is_enough(history: History) -> Witness:
    known: set[str] = set()
    down: set[str] = set()
    masters: set[str] = set()
    calm = True
    for event in history.events:
        if isinstance(event, Hindered | Paused | Eased | Resumed):
            calm = isinstance(event, Eased | Resumed)
        elif isinstance(event, NamesUp):
            known.add(event.server)
            down.discard(event.server)
        elif isinstance(event, Gone) and event.node in known:
            down.add(event.node)
        elif isinstance(event, Gone):
            masters.discard(event.node)
        elif isinstance(event, Serving) and event.broker_id == 0:
            masters.add(event.node)
        elif isinstance(event, Outcome) and calm and down and known - down and masters and not event.chosen:
            yield event, event.status not in ("FAILED", "UNKNOWN")
