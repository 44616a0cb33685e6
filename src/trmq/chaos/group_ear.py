"""What members of consumer groups and brokers say to each other about offsets, locks and failed messages, heard at the wire.

Requests count when a broker reads them, answers when it puts them on the wire. Which message a member gives back is looked up in the
broker's log on its disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

import attrs
import trio
from specs.history import Committed, Delayed, Event, Locked, OffsetTold, QueueName, SentBack, TakenBack, Unlocked

from trmq.chaos.disks import DiskLog
from trmq.message import DELAY, RETRY_PREFIX, UNIQ_KEY, decode_properties
from trmq.record import decode_record
from trmq.sim.pipe import Pipe
from trmq.wire import fastjson
from trmq.wire.codes import RequestCode
from trmq.wire.command import Command
from trmq.wire.headers.pull import PULL_COMMIT_OFFSET

SENDS = (RequestCode.SEND_MESSAGE, RequestCode.SEND_MESSAGE_V2)
REQUESTS = frozenset({
    *SENDS, RequestCode.PULL_MESSAGE, RequestCode.UPDATE_CONSUMER_OFFSET, RequestCode.QUERY_CONSUMER_OFFSET, RequestCode.LOCK_BATCH_MQ,
    RequestCode.UNLOCK_BATCH_MQ, RequestCode.CONSUMER_SEND_MSG_BACK,
})  # fmt: skip
NOT_FOUND = 22


class Watched(Protocol):
    """What this ear needs to know of the cluster."""

    def note(self, event: Event) -> None: ...
    def log_of(self, node: str) -> DiskLog | None: ...
    def group_of(self, node: str) -> str: ...


def properties_of(command: Command) -> Mapping[str, str]:
    """Of a send."""
    return _properties(command.ext.get("i") or command.ext.get("properties") or "")


@lru_cache(maxsize=256)
def _properties(text: str) -> Mapping[str, str]:
    """A send is heard several times."""
    return MappingProxyType(decode_properties(text.encode()))


def topic_of(command: Command) -> str:
    return command.ext.get("b") or command.ext.get("topic", "")


def queues_of(found: list[dict[str, object]]) -> frozenset[QueueName]:
    return frozenset((str(queue["topic"]), int(str(queue["queueId"]))) for queue in found)


@attrs.define(eq=False)
class GroupEar:
    """Fed by the `Ear` with every command; `talk` is the connection."""

    cluster: Watched
    _asked: dict[tuple[object, int], Event | Command] = attrs.Factory(dict)

    def heard(self, talk: object, pipe: Pipe, command: Command, op: str) -> None:
        if op == "read":
            if command.code in REQUESTS and not command.is_response:
                self._request(talk, pipe.name[0], pipe.name[1], command)
        elif command.is_response:
            asked = self._asked.pop((talk, command.opaque), None)
            if asked is not None:
                self._answer(asked, pipe.name[1], pipe.name[0], command)

    def _request(self, talk: object, client: str, node: str, command: Command) -> None:
        now, ext = trio.current_time(), command.ext
        match command.code:
            case RequestCode.SEND_MESSAGE_V2 | RequestCode.SEND_MESSAGE:
                self._send(talk, client, node, command, now)
            case RequestCode.PULL_MESSAGE:
                if int(ext["sysFlag"]) & PULL_COMMIT_OFFSET:
                    self._commit(client, node, ext)
            case RequestCode.UPDATE_CONSUMER_OFFSET:
                self._commit(client, node, ext)
            case RequestCode.QUERY_CONSUMER_OFFSET | RequestCode.LOCK_BATCH_MQ:
                self._asked[talk, command.opaque] = command
            case RequestCode.UNLOCK_BATCH_MQ:
                body = fastjson.loads(command.body)
                self.cluster.note(Unlocked(client, node, body["consumerGroup"], queues_of(body["mqSet"]), now))
            case RequestCode.CONSUMER_SEND_MSG_BACK:
                id, times = self._record(node, int(ext["offset"]))
                event = SentBack(client, node, ext["group"], id, times, int(ext["delayLevel"]), int(ext["maxReconsumeTimes"]), at=now)
                self._asked[talk, command.opaque] = event
                self.cluster.note(event)

    def _commit(self, client: str, node: str, ext: dict[str, str]) -> None:
        queue = (ext["topic"], int(ext["queueId"]))
        group, now = self.cluster.group_of(node), trio.current_time()
        self.cluster.note(Committed(ext["consumerGroup"], group, queue, int(ext["commitOffset"]), now, client, node))

    def _record(self, node: str, offset: int) -> tuple[str, int]:
        log = self.cluster.log_of(node)
        assert log is not None
        message = decode_record(log.read(offset, log.size_at(offset)))
        return message.properties.get(UNIQ_KEY, "?"), message.reconsume_times

    def _send(self, talk: object, client: str, node: str, command: Command, now: float) -> None:
        properties, topic, ext = properties_of(command), topic_of(command), command.ext
        id, level = properties.get(UNIQ_KEY, "?"), int(properties.get(DELAY, "0"))
        if topic.startswith(RETRY_PREFIX):
            times = int(ext.get("j") or ext.get("reconsumeTimes") or 0)
            limit = int(ext.get("l") or ext.get("maxReconsumeTimes") or 16)
            group = topic.removeprefix(RETRY_PREFIX)
            event = SentBack(client, node, group, id, times - 1, level if times <= limit else -1, limit, True, now)
            self._asked[talk, command.opaque] = event
            self.cluster.note(event)
        elif level:
            self.cluster.note(Delayed(id, node, topic, level, now))

    def _answer(self, asked: Event | Command, client: str, node: str, answer: Command) -> None:
        now = trio.current_time()
        if isinstance(asked, SentBack):
            good = answer.code in ((0, 10, 11, 12) if asked.anew else (0,))
            self.cluster.note(TakenBack(client, node, asked.consumer_group, asked.id, good, now, good and answer.code != 0))
        elif isinstance(asked, Command) and asked.code == RequestCode.LOCK_BATCH_MQ and answer.code == 0:
            body, found = fastjson.loads(asked.body), fastjson.loads(answer.body).get("lockOKMQSet") or []
            self.cluster.note(Locked(client, node, body["consumerGroup"], queues_of(found), now))
        elif isinstance(asked, Command) and asked.code == RequestCode.QUERY_CONSUMER_OFFSET and answer.code in (0, NOT_FOUND):
            ext, group = asked.ext, self.cluster.group_of(node)
            offset = int(answer.ext["offset"]) if answer.code == 0 else -1
            queue = (ext["topic"], int(ext["queueId"]))
            self.cluster.note(OffsetTold(client, node, ext["consumerGroup"], group, queue, offset, now))
