"""What a name server knows: brokers, their members, their topics. Plain data in, plain data out.

The tables are filled by registrations and emptied by heartbeats that stay away, connections that end and unregistrations;
nothing is stored. Rules that hold here:

- A broker *group* (one broker name) contributes once to a topic, however many members it has; members appear as addresses.
- Topics are taken from a master, or from the lowest member present of a group without one.
- A broker's topics are looked at again only when its data version (all three members) differs from the one we know, so that
  a wiped write permission survives the registrations of a broker that has nothing new to say.
- A member that comes with an older state version than the live one under its id is fenced: answered, and forgotten.

Routes are asked for far more often than they change, so an encoded answer is kept per topic and dropped when anything it
shows changes. `now` is monotonic, in seconds. `link` stands for the connection a broker registered through (any hashable).

Source: `RouteInfoManager` of the name server, read against 5.4.0; reference "name server" sections 3 to 7. Different on
purpose: a refused first registration leaves no trace of the group, a lost connection takes all brokers that registered
through it (Java: the first), and liveness is judged at the deadline instead of at the next five-second scan.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import attrs
import msgspec

from trmq.config import NamesrvConfig
from trmq.wire.bodies import (
    BrokerData,
    BrokerMemberGroup,
    ClusterInfo,
    DataVersion,
    MemberGroup,
    QueueData,
    TopicConfigSerializeWrapper,
    TopicList,
    TopicRouteData,
    encode_body,
)

from .views import MASTER_ID, WRITE, show_acting_masters

READ_WRITE = 6
UNIT = 1
UNIT_SUBSCRIBED = 2
MEMBER_TOPIC_PREFIX = "rmq_sys_SYNC_BROKER_MEMBER_"


class Member(NamedTuple):
    """One member of a broker group, as registrations and heartbeats name it."""

    cluster: str
    broker_name: str
    broker_id: int
    address: str


Key: TypeAlias = tuple[str, str]
"""(cluster, address): what liveness is kept under."""


@attrs.define(eq=False)
class Live:
    member: Member
    refreshed: float
    timeout: float
    version: DataVersion
    link: Hashable
    ha_address: str


@attrs.frozen
class Notice:
    """A group's lowest broker id changed; `recipients` are the addresses to be told (request 905)."""

    min_broker_id: int
    min_broker_address: str
    offline_address: str | None
    ha_address: str | None
    recipients: tuple[str, ...]


@attrs.frozen
class Registered:
    """The outcome of a registration. A slave learns where its master is; `refused` says why nothing was registered."""

    refused: str | None = None
    master_address: str | None = None
    ha_address: str | None = None
    notice: Notice | None = None


@attrs.frozen
class Statistics:
    clusters: int
    broker_names: int
    brokers: int
    topics: int
    cached_routes: int


@attrs.define(eq=False)
class Registry:
    config: NamesrvConfig = attrs.field(factory=NamesrvConfig)
    order_conf: Callable[[str], str | None] = lambda topic: None
    """The order configuration of a topic; asked only if `orderMessageEnable` wants it shown."""
    _topics: dict[str, dict[str, QueueData]] = attrs.field(factory=dict, init=False)
    """topic -> broker name -> queues."""
    _topics_of: dict[str, set[str]] = attrs.field(factory=dict, init=False)
    """broker name -> its topics: the inverse of `_topics`."""
    _mappings: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)
    """static topic -> broker name -> mapping, handed through as it came."""
    _groups: dict[str, BrokerData] = attrs.field(factory=dict, init=False)
    _clusters: dict[str, dict[str, None]] = attrs.field(factory=dict, init=False)
    """cluster -> broker names, in order of arrival."""
    _live: dict[Key, Live] = attrs.field(factory=dict, init=False)
    _links: dict[Hashable, set[Key]] = attrs.field(factory=dict, init=False)
    _answers: dict[tuple[str, bool], bytes] = attrs.field(factory=dict, init=False)

    # ------------------------------------------------------------------------------------------------- registration
    def register(
        self, member: Member, body: TopicConfigSerializeWrapper, now: float, *, link: Hashable = None, ha_address: str = "",
        timeout: float | None = None, acting_master: bool | None = None, zone: str | None = None,
    ) -> Registered:  # fmt: skip
        """Take in a broker and, if they count, its topics. `acting_master` None marks a broker older than 5.0."""
        group = self._groups.get(member.broker_name)
        if (group is None or member.broker_id not in group.broker_addrs) and len(body.topic_config_table) == 1:
            # An increment that came before the first full registration: taken in, the broker would be known by one topic only.
            return Registered("register broker failed: the first registration must list all topics of the broker, at least two")
        known = self._live.get((member.cluster, member.address))
        if known is not None and known.member.broker_name != member.broker_name:
            self.unregister([known.member])  # it came back under another name: nothing would ever remove the old one
        if group is None:
            group = self._groups[member.broker_name] = BrokerData(member.broker_name, {}, member.cluster)
        self._clusters.setdefault(member.cluster, {})[member.broker_name] = None
        before = (dict(group.broker_addrs), group.enable_acting_master, group.zone_name)
        first = not group.broker_addrs
        group.enable_acting_master = bool(acting_master)
        group.zone_name = zone
        addresses = group.broker_addrs
        lowest_changed = bool(addresses) and member.broker_id < min(addresses)
        for other in [i for i, address in addresses.items() if address == member.address and i != member.broker_id]:
            del addresses[other]  # a role switch: one address has one id
        if self._fenced(member, body.data_version):
            self._forget((member.cluster, member.address))
            self._changed_group(member.broker_name, before)
            return Registered()
        first = first or member.broker_id not in addresses
        addresses[member.broker_id] = member.address
        self._changed_group(member.broker_name, before)

        prime_slave = acting_master is not None and member.broker_id != MASTER_ID and member.broker_id == min(addresses)
        if member.broker_id == MASTER_ID or prime_slave:
            self._take_topics(member, body, everything=first, read_only=prime_slave and group.enable_acting_master)
        self._refresh(member, body.data_version, now, link, ha_address, timeout)

        notice = None
        if lowest_changed and self.config.notify_min_broker_id_changed:
            notice = self._notice(group, None, ha_address)
        master = addresses.get(MASTER_ID) if member.broker_id != MASTER_ID else None
        live = self._live.get((member.cluster, master)) if master else None
        if live is None:
            return Registered(notice=notice)
        return Registered(master_address=master, ha_address=live.ha_address, notice=notice)

    def _fenced(self, member: Member, version: DataVersion) -> bool:
        there = self._groups[member.broker_name].broker_addrs.get(member.broker_id)
        live = self._live.get((member.cluster, there)) if there not in (None, member.address) else None
        return live is not None and live.version.state_version > version.state_version

    def _take_topics(self, member: Member, body: TopicConfigSerializeWrapper, *, everything: bool, read_only: bool) -> None:
        name = member.broker_name
        if self.config.delete_topic_with_broker_registration and not body.topic_queue_mapping_info_map:
            for topic in self._topics_of.get(name, set()) - body.topic_config_table.keys():
                self._drop_queues(topic, name)
        newer = everything or self.version_changed(member, body.data_version)
        for topic, config in body.topic_config_table.items():
            if newer or name not in self._topics.get(topic, ()):
                perm = config.perm & ~WRITE if read_only else config.perm
                self._put_queues(topic, QueueData(name, config.read_queue_nums, config.write_queue_nums, perm, config.topic_sys_flag))
        if newer:
            for topic, mapping in body.topic_queue_mapping_info_map.items():
                self._mappings.setdefault(topic, {})[mapping.get("bname", name) if isinstance(mapping, dict) else name] = mapping
                self._forget_answer(topic)

    def _refresh(self, member: Member, version: DataVersion, now: float, link: Hashable, ha_address: str, timeout: float | None) -> None:
        key = (member.cluster, member.address)
        self._forget(key)
        seconds = timeout if timeout is not None else self.config.broker_timeout_ms / 1000
        self._live[key] = Live(member, now, seconds, version, link, ha_address)
        if link is not None:
            self._links.setdefault(link, set()).add(key)

    def register_topic(self, topic: str, queues: Iterable[QueueData]) -> list[str]:
        """Add queues to a topic (request 217); those of unknown brokers are left out and returned by broker name."""
        unknown = []
        for queue in queues:
            if queue.broker_name in self._groups:
                self._put_queues(topic, queue)
            else:
                unknown.append(queue.broker_name)
        return unknown

    # ----------------------------------------------------------------------------------------------------- liveness
    def heartbeat(self, cluster: str, address: str, now: float) -> bool:
        """A sign of life. False for an address nobody registered: a heartbeat does not bring a broker back."""
        live = self._live.get((cluster, address))
        if live is not None:
            live.refreshed = now
        return live is not None

    def known_version(self, cluster: str, address: str) -> DataVersion | None:
        live = self._live.get((cluster, address))
        return live.version if live else None

    def version_changed(self, member: Member, version: DataVersion) -> bool:
        """Whether the broker's topics differ from what we have: equality of all three members decides."""
        return self.known_version(member.cluster, member.address) != version

    def next_expiry(self) -> float | None:
        """The first moment at which some broker will have been silent too long; None if there is no broker."""
        return min((live.refreshed + live.timeout for live in self._live.values()), default=None)

    def expire(self, now: float) -> tuple[list[Live], list[Notice]]:
        """Remove whoever has been silent for its timeout; what they were is returned, so that their links can be cut."""
        gone = [live for live in self._live.values() if live.refreshed + live.timeout <= now]
        return gone, self.unregister(live.member for live in gone)

    def link_lost(self, link: Hashable) -> tuple[list[Live], list[Notice]]:
        """Remove every broker that registered last through `link`."""
        gone = [self._live[key] for key in sorted(self._links.get(link, ()))]
        return gone, self.unregister(live.member for live in gone)

    def unregister(self, members: Iterable[Member]) -> list[Notice]:
        """Remove members; groups without members, clusters without groups and topics without queues go with them."""
        notices = {}
        for member in members:
            live = self._live.get((member.cluster, member.address))
            if live is None or live.member.broker_name == member.broker_name:  # else it has returned under another name
                self._forget((member.cluster, member.address))
            group = self._groups.get(member.broker_name)
            if group is None:
                continue
            before = (dict(group.broker_addrs), group.enable_acting_master, group.zone_name)
            lowest = min(group.broker_addrs, default=None)
            for broker_id in [i for i, address in group.broker_addrs.items() if address == member.address]:
                del group.broker_addrs[broker_id]
            if group.broker_addrs:
                if lowest not in group.broker_addrs:
                    notices[member.broker_name] = (group, member.address)
                self._changed_group(member.broker_name, before)
                self._freeze_headless(group)
            else:
                notices.pop(member.broker_name, None)
                self._remove_group(member.broker_name)
        if not self.config.notify_min_broker_id_changed:
            return []
        return [self._notice(group, offline, None) for group, offline in notices.values()]

    def _freeze_headless(self, group: BrokerData) -> None:
        if not group.enable_acting_master or MASTER_ID in group.broker_addrs:
            return
        for topic in self._topics_of.get(group.broker_name, ()):
            self._set_perm(topic, group.broker_name, lambda perm: perm & ~WRITE)

    def _remove_group(self, name: str) -> None:
        del self._groups[name]
        for cluster, names in list(self._clusters.items()):
            names.pop(name, None)
            if not names:
                del self._clusters[cluster]
        for topic in list(self._topics_of.get(name, ())):
            self._drop_queues(topic, name)

    @staticmethod
    def _notice(group: BrokerData, offline: str | None, ha_address: str | None) -> Notice:
        lowest = min(group.broker_addrs)
        everyone = offline is not None or len(group.broker_addrs) == 1
        told = tuple(address for i, address in sorted(group.broker_addrs.items()) if everyone or i != lowest)
        return Notice(lowest, group.broker_addrs[lowest], offline, ha_address, told)

    # ------------------------------------------------------------------------------------------------- permissions
    def wipe_write_perm(self, broker_name: str) -> int:
        """Take WRITE from every topic of a broker; how many there were."""
        return self._set_perms(broker_name, lambda perm: perm & ~WRITE)

    def add_write_perm(self, broker_name: str) -> int:
        """Give READ and WRITE to every topic of a broker; how many there were."""
        return self._set_perms(broker_name, lambda perm: READ_WRITE)

    def _set_perms(self, broker_name: str, change: Callable[[int], int]) -> int:
        topics = self._topics_of.get(broker_name, set())
        for topic in topics:
            self._set_perm(topic, broker_name, change)
        return len(topics)

    def delete_topic(self, topic: str, cluster: str | None = None) -> None:
        """Forget a topic, or its queues on one cluster's brokers. A broker that still has it brings it back."""
        names = list(self._topics.get(topic, ())) if cluster is None else list(self._clusters.get(cluster, ()))
        for name in names:
            self._drop_queues(topic, name)

    # ------------------------------------------------------------------------------------------------------ routes
    def route(self, topic: str) -> TopicRouteData | None:
        """Where `topic` lives, or None. The answer shares no mutable part with the tables."""
        queues = self._topics.get(topic)
        groups = [self._groups[name] for name in queues or () if name in self._groups]
        if not queues or not groups:
            return None
        order = self.order_conf(topic) if self.config.order_message_enable else None
        found = TopicRouteData(
            [msgspec.structs.replace(group, broker_addrs=dict(group.broker_addrs)) for group in groups],
            [msgspec.structs.replace(queue) for queue in queues.values()],
            order_topic_conf=order,
            topic_queue_mapping_by_broker=self._mappings.get(topic),
        )
        if self.config.support_acting_master and not topic.startswith(MEMBER_TOPIC_PREFIX):
            show_acting_masters(found)
        return found

    def answer(self, topic: str, *, quoted_keys: bool) -> bytes | None:
        """The body of a route answer in one of the two JSON forms, kept until something in it changes."""
        body = self._answers.get((topic, quoted_keys))
        if body is None and topic in self._topics:
            found = self.route(topic)
            if found is not None:
                body = self._answers[topic, quoted_keys] = encode_body(found, quoted_keys=quoted_keys)
        return body

    def forget_answers(self, topics: Iterable[str] | None = None) -> None:
        """Drop kept answers: of `topics`, or all (after a change of the configuration)."""
        if topics is None:
            self._answers.clear()
        else:
            for topic in topics:
                self._forget_answer(topic)

    # ------------------------------------------------------------------------------------------------------- lists
    def cluster_info(self) -> ClusterInfo:
        return ClusterInfo(dict(self._groups), {cluster: list(names) for cluster, names in self._clusters.items()})

    def member_group(self, cluster: str, broker_name: str) -> BrokerMemberGroup:
        group = self._groups.get(broker_name)
        return BrokerMemberGroup(MemberGroup(dict(group.broker_addrs) if group else {}, broker_name, cluster))

    def all_topics(self) -> TopicList:
        return TopicList(list(self._topics))

    def topics_of_cluster(self, cluster: str) -> TopicList:
        found: dict[str, None] = {}
        for name in self._clusters.get(cluster, ()):
            found |= dict.fromkeys(sorted(self._topics_of.get(name, ())))
        return TopicList(list(found))

    def system_topics(self) -> TopicList:
        """Clusters and broker names, each of which is a topic too, and the address of some broker."""
        names: dict[str, None] = {}
        for cluster, members in self._clusters.items():
            names[cluster] = None
            names |= members
        address = next((a for group in self._groups.values() for _, a in sorted(group.broker_addrs.items())), None)
        return TopicList(list(names), address)

    def unit_topics(self) -> TopicList:
        return TopicList([topic for topic, flags in self._flags() if flags[0] & UNIT])

    def unit_subscribed_topics(self, *, without_unit: bool = False) -> TopicList:
        """Topics with a unit subscription on their first broker; `without_unit`: on any, and not unit topics themselves."""
        if without_unit:
            return TopicList([t for t, flags in self._flags() if not flags[0] & UNIT and any(f & UNIT_SUBSCRIBED for f in flags)])
        return TopicList([topic for topic, flags in self._flags() if flags[0] & UNIT_SUBSCRIBED])

    def _flags(self) -> Iterator[tuple[str, list[int]]]:
        for topic, queues in self._topics.items():
            yield topic, [queue.topic_sys_flag for queue in queues.values()]

    def statistics(self) -> Statistics:
        return Statistics(len(self._clusters), len(self._groups), len(self._live), len(self._topics), len(self._answers))

    # ------------------------------------------------------------------------- the only writers of the inner tables
    def _put_queues(self, topic: str, queue: QueueData) -> None:
        queues = self._topics.setdefault(topic, {})
        if queues.get(queue.broker_name) != queue:
            queues[queue.broker_name] = queue
            self._topics_of.setdefault(queue.broker_name, set()).add(topic)
            self._forget_answer(topic)

    def _set_perm(self, topic: str, broker_name: str, change: Callable[[int], int]) -> None:
        queue = self._topics[topic][broker_name]
        self._put_queues(topic, msgspec.structs.replace(queue, perm=change(queue.perm)))

    def _drop_queues(self, topic: str, broker_name: str) -> None:
        queues = self._topics.get(topic, {})
        if queues.pop(broker_name, None) is None:
            return
        topics = self._topics_of[broker_name]
        topics.discard(topic)
        if not topics:
            del self._topics_of[broker_name]
        if not queues:
            del self._topics[topic]
        mappings = self._mappings.get(topic, {})
        mappings.pop(broker_name, None)
        if not mappings:
            self._mappings.pop(topic, None)
        self._forget_answer(topic)

    def _forget(self, key: Key) -> None:
        live = self._live.pop(key, None)
        if live is not None and live.link is not None:
            keys = self._links[live.link]
            keys.discard(key)
            if not keys:
                del self._links[live.link]

    def _changed_group(self, broker_name: str, before: tuple[Mapping[int, str], bool, str | None]) -> None:
        group = self._groups[broker_name]
        if before != (group.broker_addrs, group.enable_acting_master, group.zone_name):
            self.forget_answers(self._topics_of.get(broker_name, ()))

    def _forget_answer(self, topic: str) -> None:
        self._answers.pop((topic, True), None)
        self._answers.pop((topic, False), None)
