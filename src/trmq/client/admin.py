"""`Admin`: topics, groups, brokers, messages and offsets, one thin method for each question a tool asks.

Each method asks the name servers for who is concerned and then the brokers one after the other. Answers are plain
values. Anything a broker refuses raises `RemoteRefused` with its code and remark.
Source: `DefaultMQAdminExtImpl`, `MQClientAPIImpl`; reference "protocol" sections 11.1, 11.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from trmq.errors import ConfigError, MessageIllegal, RemoteRefused, RouteNotFound
from trmq.message import KEYS, RETRY_PREFIX, MessageQueue, decode_message_id
from trmq.wire import fastjson
from trmq.wire.bodies import HARuntimeInfo, decode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.names import check_group, check_topic

from .instance import Instance
from .messages import Received, decode_received
from .offsets import BrokerOffsets
from .routes import MASTER, TopicRoute

QUERY_TIMEOUT = 6.0
REGISTRATION_TIMEOUT = 3.0
REGISTRATION_PAUSE = 0.01


@attrs.frozen
class BrokerInfo:
    """One broker process as the name server knows it."""

    cluster: str
    broker_name: str
    broker_id: int
    address: str


@attrs.frozen
class QueueStats:
    """One queue: its first and next offset, and when its newest message was stored (ms, 0 if never)."""

    queue: MessageQueue
    min_offset: int
    max_offset: int
    last_update_ms: int


@attrs.frozen
class QueueProgress:
    """How far a group is in one queue. `lag` messages are not consumed yet."""

    queue: MessageQueue
    broker_offset: int
    consumer_offset: int
    pull_offset: int
    last_ms: int

    @property
    def lag(self) -> int:
        return self.broker_offset - self.consumer_offset


class Admin:
    """`client.admin`."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    # --- cluster

    async def cluster(self) -> list[BrokerInfo]:
        """All brokers, sorted by cluster, name and id."""
        answer = await self._instance.ask_name_server(RequestCode.GET_BROKER_CLUSTER_INFO)
        found = fastjson.loads(answer.body)
        return sorted(
            (BrokerInfo(str(data.get("cluster") or ""), str(name), int(member), str(address))
             for name, data in (found.get("brokerAddrTable") or {}).items() for member, address in (data.get("brokerAddrs") or {}).items()),
            key=lambda info: (info.cluster, info.broker_name, info.broker_id))

    async def masters(self, cluster: str | None = None) -> list[BrokerInfo]:
        """Brokers with id 0. Raises `ConfigError` when there is none (of that cluster)."""
        found = [info for info in await self.cluster() if info.broker_id == MASTER and cluster in (None, info.cluster)]
        if not found:
            raise ConfigError(f"no master broker is registered{f' in cluster {cluster!r}' if cluster else ''}")
        return found

    async def broker_runtime(self, address: str) -> dict[str, str]:
        """What a broker tells about itself: rates, offsets, versions, as text by name."""
        answer = await self._instance.ask(address, RequestCode.GET_BROKER_RUNTIME_INFO)
        return {str(name): str(value) for name, value in sorted((fastjson.loads(answer.body).get("table") or {}).items())}

    async def ha_status(self, address: str) -> HARuntimeInfo:
        """How replication stands, as the broker at `address` sees it: a master its slaves, a slave its link to the master."""
        return decode_body((await self._instance.ask(address, RequestCode.GET_BROKER_HA_STATUS)).body, HARuntimeInfo)

    async def broker_config(self, address: str) -> dict[str, str]:
        return _properties((await self._instance.ask(address, RequestCode.GET_BROKER_CONFIG)).body)

    async def update_broker_config(self, address: str, values: Mapping[str, str]) -> None:
        body = "".join(f"{name}={value}\n" for name, value in values.items()).encode()
        await self._instance.ask(address, RequestCode.UPDATE_BROKER_CONFIG, {}, body)

    # --- topics

    async def topics(self) -> list[str]:
        answer = await self._instance.ask_name_server(RequestCode.GET_ALL_TOPIC_LIST_FROM_NAMESERVER)
        return sorted(fastjson.loads(answer.body).get("topicList") or ())

    async def route(self, topic: str) -> TopicRoute:
        """The route as it is now. Raises `RouteNotFound`."""
        await self._instance.refresh(topic)
        return await self._instance.route(topic)

    async def topic_stats(self, topic: str) -> list[QueueStats]:
        """Offsets of every queue, from the masters. Raises `RouteNotFound`."""
        found = []
        for address in _masters(await self.route(topic)):
            answer = await self._instance.ask(address, RequestCode.GET_TOPIC_STATS_INFO, {"topic": topic})
            for queue, stats in (fastjson.loads(answer.body).get("offsetTable") or {}).items():
                found.append(QueueStats(queue, int(stats["minOffset"]), int(stats["maxOffset"]), int(stats["lastUpdateTimestamp"])))
        return sorted(found, key=lambda stats: stats.queue)

    async def create_topic(
        self, topic: str, *, queues: int = 8, read_queues: int | None = None, perm: int = 6, order: bool = False,
        cluster: str | None = None, broker: str | None = None, attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Create a topic, or change it, on one broker (its address) or on every master of the cluster, and see it in the route.

        `queues` per broker; `perm` 2 write, 4 read, 6 both. A topic without write permission is not waited for.
        """
        _require(check_topic(topic))
        if queues < 1 or perm not in range(8):
            raise ConfigError(f"queues={queues}, perm={perm}: queues must be at least 1 and perm one of 2 (write), 4 (read), 6 (both)")
        fields = {
            "topic": topic, "defaultTopic": "TBW102", "readQueueNums": str(read_queues or queues), "writeQueueNums": str(queues),
            "perm": str(perm), "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "true" if order else "false",
        }
        if attributes:
            fields["attributes"] = ",".join(f"+{name}={value}" for name, value in attributes.items())
        for address in [broker] if broker else [info.address for info in await self.masters(cluster)]:
            await self._instance.ask(address, RequestCode.UPDATE_AND_CREATE_TOPIC, fields, timeout=5.0)
        if perm & 2:
            await self._until_known(topic, queues)

    async def _until_known(self, topic: str, queues: int) -> None:
        """Return when the name server's route shows the topic as it was created, or after a while.

        A broker answers before its registration arrives, and nobody tells a client when it does: so this looks a few times.
        """
        with trio.move_on_after(REGISTRATION_TIMEOUT):
            while True:
                try:
                    route = await self.route(topic)
                    per_broker = Counter(queue.broker_name for queue in route.publish)
                    if per_broker and queues in per_broker.values():
                        return
                except RouteNotFound:
                    pass
                await trio.sleep(REGISTRATION_PAUSE)

    async def delete_topic(self, topic: str, *, cluster: str | None = None) -> None:
        """Delete on every master, then from every name server. Its messages are gone. Raises `RouteNotFound` if nobody knows it."""
        _require(check_topic(topic))
        await self.route(topic)
        for info in await self.masters(cluster):
            await self._instance.ask(info.address, RequestCode.DELETE_TOPIC_IN_BROKER, {"topic": topic}, timeout=5.0)
        await self._instance.ask_every_name_server(RequestCode.DELETE_TOPIC_IN_NAMESRV, {"topic": topic})
        self._instance.forget_route(topic)

    # --- groups

    async def groups(self) -> dict[str, dict[str, Any]]:
        """Settings of every consumer group, by name, from the masters."""
        found: dict[str, dict[str, Any]] = {}
        for info in await self.masters():
            answer = await self._instance.ask(info.address, RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG)
            found |= fastjson.loads(answer.body).get("subscriptionGroupTable") or {}
        return dict(sorted(found.items()))

    async def create_group(self, group: str, *, cluster: str | None = None, **settings: Any) -> None:
        """Create or change a group on every master. `settings` in the wire's names, e.g. `retryMaxTimes=3`."""
        _require(check_group(group))
        body = fastjson.dumps({
            "attributes": {}, "brokerId": 0, "consumeBroadcastEnable": True, "consumeEnable": True, "consumeFromMinEnable": True,
            "consumeMessageOrderly": False, "consumeTimeoutMinute": 15, "groupName": group, "groupSysFlag": 0,
            "notifyConsumerIdsChangedEnable": True, "retryMaxTimes": 16, "retryQueueNums": 1, "whichBrokerWhenConsumeSlowly": 1, **settings,
        }, quoted_keys=True)
        for info in await self.masters(cluster):
            await self._instance.ask(info.address, RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, {}, body)

    async def delete_group(self, group: str, *, clean_offsets: bool = True, cluster: str | None = None) -> None:
        """Delete a group on every master, with its offsets and its retry and dead-letter topics."""
        _require(check_group(group))
        for info in await self.masters(cluster):
            fields = {"groupName": group, "cleanOffset": "true" if clean_offsets else "false"}
            await self._instance.ask(info.address, RequestCode.DELETE_SUBSCRIPTIONGROUP, fields, timeout=5.0)
        for topic in (RETRY_PREFIX + group, "%DLQ%" + group):
            try:
                await self.delete_topic(topic, cluster=cluster)
            except RouteNotFound:
                pass

    async def members(self, group: str) -> list[dict[str, Any]]:
        """The connections of a group's consumers (clientId, clientAddr, language, version); [] when it is offline."""
        found: dict[str, dict[str, Any]] = {}
        for info in await self.masters():
            try:
                answer = await self._instance.ask(info.address, RequestCode.GET_CONSUMER_CONNECTION_LIST, {"consumerGroup": group})
            except RemoteRefused as error:
                if error.code != ResponseCode.CONSUMER_NOT_ONLINE:
                    raise
                continue
            for connection in fastjson.loads(answer.body).get("connectionSet") or ():
                found[str(connection["clientId"])] = connection
        return [found[name] for name in sorted(found)]

    async def running_info(self, group: str, client_id: str) -> dict[str, Any]:
        """What one member tells about itself (relayed by a broker)."""
        problem: RemoteRefused | None = None
        for info in await self.masters():
            fields = {"consumerGroup": group, "clientId": client_id, "jstackEnable": "false"}
            try:
                answer = await self._instance.ask(info.address, RequestCode.GET_CONSUMER_RUNNING_INFO, fields, timeout=10.0)
                found: dict[str, Any] = fastjson.loads(answer.body)
                return found
            except RemoteRefused as error:
                problem = error
        assert problem is not None
        raise problem

    async def progress(self, group: str, topic: str | None = None) -> list[QueueProgress]:
        """Offsets and lag of every queue the group has consumed from; [] when no broker knows the group."""
        fields = {"consumerGroup": group}
        if topic is not None:
            fields["topic"] = topic
        found = []
        for info in await self.masters():
            try:
                answer = await self._instance.ask(info.address, RequestCode.GET_CONSUME_STATS, fields, timeout=5.0)
            except RemoteRefused as error:
                if error.code not in (ResponseCode.SYSTEM_ERROR, ResponseCode.TOPIC_NOT_EXIST, ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST):
                    raise
                continue
            for queue, stats in (fastjson.loads(answer.body).get("offsetTable") or {}).items():
                found.append(QueueProgress(
                    queue, int(stats["brokerOffset"]), int(stats["consumerOffset"]), int(stats.get("pullOffset") or 0),
                    int(stats.get("lastTimestamp") or 0)))
        return sorted(found, key=lambda progress: progress.queue)

    async def reset_offset(self, group: str, topic: str, *, to_ms: int, force: bool = True) -> dict[MessageQueue, int]:
        """Move the group to a time in every queue: ms since the epoch, -1 for the end, 0 for the beginning. Returns the new offsets.

        Members that are online are told by the broker; the offsets of a group that is offline are stored directly.
        """
        route = await self.route(topic)
        moved: dict[MessageQueue, int] = {}
        for address in _masters(route):
            fields = {
                "topic": topic, "group": group, "timestamp": str(to_ms), "isForce": "true" if force else "false", "queueId": "-1",
                "offset": "-1",
            }
            try:
                answer = await self._instance.ask(address, RequestCode.INVOKE_BROKER_TO_RESET_OFFSET, fields, timeout=5.0)
            except RemoteRefused as error:
                if error.code != ResponseCode.CONSUMER_NOT_ONLINE:
                    raise
                continue
            table = fastjson.loads(answer.body).get("offsetTable") if answer.body else None
            moved |= {queue: int(offset) for queue, offset in (table or {}).items()}
        if not moved:
            offsets = BrokerOffsets(self._instance, group)
            moved = {queue: await self._offset_at(route, queue, to_ms) for queue in route.subscribe}
            for queue, offset in moved.items():
                await offsets.store(queue, offset)
        return moved

    async def _offset_at(self, route: TopicRoute, queue: MessageQueue, ms: int) -> int:
        address = route.address(queue.broker_name)
        if address is None:
            raise RouteNotFound(f"broker {queue.broker_name!r} has no master now")
        fields = {"topic": queue.topic, "queueId": str(queue.queue_id), "bname": queue.broker_name}
        code = RequestCode.GET_MAX_OFFSET if ms < 0 else RequestCode.SEARCH_OFFSET_BY_TIMESTAMP
        return await self._instance.ask_offset(address, code, fields if ms < 0 else {**fields, "timestamp": str(ms)})

    # --- messages

    async def message_by_id(self, offset_message_id: str) -> Received:
        """By the offset message id, asking the broker it names. Raises `MessageIllegal` for no id, `RemoteRefused` if it is gone."""
        (ip, port), phy_offset = decode_message_id(offset_message_id)
        answer = await self._instance.ask((ip, port), RequestCode.VIEW_MESSAGE_BY_ID, {"offset": str(phy_offset)}, timeout=QUERY_TIMEOUT)
        found = decode_received(answer.body, await self._broker_at(f"{ip}:{port}"), Received)
        if not found:
            raise MessageIllegal(f"no message has the id {offset_message_id}")
        return found[0]

    async def _broker_at(self, address: str) -> str:
        return next((info.broker_name for info in await self.cluster() if info.address == address), address)

    async def messages_by_key(
        self, topic: str, key: str, *, max_count: int = 64, begin_ms: int = 0, end_ms: int = (1 << 63) - 1,
    ) -> list[Received]:
        """Messages with `key` among their keys, oldest first. Times (of storing) are inclusive."""
        found = await self._query(topic, key, max_count, begin_ms, end_ms, unique=False)
        return [message for message in found if key in message.properties.get(KEYS, "").split(" ")]

    async def message_by_unique_key(self, topic: str, unique_key: str) -> list[Received]:
        """The stored copies of a message, oldest first: more than one after a retry of a try that had arrived, [] if none did."""
        found = await self._query(topic, unique_key, 32, 0, (1 << 63) - 1, unique=True)
        return [message for message in found if message.message_id == unique_key]

    async def _query(self, topic: str, key: str, max_count: int, begin_ms: int, end_ms: int, *, unique: bool) -> list[Received]:
        fields = {
            "topic": topic, "key": key, "maxNum": str(max_count), "beginTimestamp": str(begin_ms), "endTimestamp": str(end_ms),
            "_UNIQUE_KEY_QUERY": "true" if unique else "false",
        }
        route = await self.route(topic)
        found: list[Received] = []
        for name, members in sorted(route.brokers.items()):
            address = members.get(MASTER) or next(iter(members.values()))
            try:
                answer = await self._instance.ask(address, RequestCode.QUERY_MESSAGE, fields, timeout=QUERY_TIMEOUT)
            except RemoteRefused as error:
                if error.code != ResponseCode.QUERY_NOT_FOUND:
                    raise
                continue
            found += decode_received(answer.body, name, Received)
        return sorted(found, key=lambda message: (message.store_ms, message.queue, message.offset))[:max_count]


def _masters(route: TopicRoute) -> list[str]:
    return [members[MASTER] for _, members in sorted(route.brokers.items()) if MASTER in members]


def _require(problem: str | None) -> None:
    if problem is not None:
        raise ConfigError(problem)


def _properties(text: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.decode("utf-8", "replace").splitlines() if line and not line.startswith("#"))
    return dict(sorted((name.strip(), value.strip()) for name, _, value in pairs))
