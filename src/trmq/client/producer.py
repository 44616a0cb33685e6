"""Sending. One send is one request on the connection all tasks share; nothing here starts a task.

**What a send means.** It returns when a broker says it stored the message (`SendResult`, all four statuses mean stored). It raises
`SendFailed` otherwise: `unknown=False` means certainly not stored, `unknown=True` means nobody knows, and `unique_key` finds
the message if it is there. A *cancelled* send is unknown too; `trio.Cancelled` cannot carry data of ours, so the key is
added to it as a note, and `prepare()` tells the key before anything is sent.

Retries follow `DefaultMQProducerImpl#sendDefaultImpl`: another broker if there is one, at most 1 + `retries` tries, all
within one `timeout`. A send to a chosen queue is tried once, since another queue would break its order. A retry after an
unknown outcome can store the message twice, with the same UNIQ_KEY. Stricter than Java: a master that is lost (`Members`) is left
alone until it answers again, one that did not answer in time for ten seconds, by all sends of this producer (Java remembers it
only with `sendLatencyFaultEnable`), and dialling one never uses up the time of the tries after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from trmq.errors import (
    ConfigError,
    ConnectionLost,
    MessageIllegal,
    RemoteProtocolError,
    RemoteRefused,
    RequestTimeout,
    SendFailed,
    TrmqError,
)
from trmq.message import RETRY_PREFIX, MessageQueue, java_hash
from trmq.route.latency import LatencyFaults
from trmq.route.selection import BrokerTest, RoundRobin
from trmq.wire.batch import encode_batch
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command
from trmq.wire.headers.send import SendMessageResponse
from trmq.wire.names import check_group

from .instance import Instance
from .messages import BODY_BYTES_MAX, COMPRESS_OVER, Message, SendResult, SendStatus, compress, make_message
from .retry import Verdict, is_definite, judge_send, shard
from .routes import TopicRoute

Selector = Callable[[Sequence[MessageQueue], Message], MessageQueue]
SEND_TIMEOUT = 3.0
STATUSES = {int(status): status for status in SendStatus}


class Sender:
    """Sends prepared messages with the producer's rules. Shared by `Producer` and by consumers that re-publish a message."""

    def __init__(
        self, instance: Instance, group: str, *, retries: int, timeout: float, compress_over: int | None, create_topics: bool,
        avoid_slow: bool, retry_not_ok: bool = False,
    ) -> None:
        self.instance = instance
        self.group = group
        self.retries = retries
        self.timeout = timeout
        self.compress_over = compress_over
        self.create_topics = create_topics
        self.avoid_slow = avoid_slow
        self.retry_not_ok = retry_not_ok
        self._faults: LatencyFaults | None = None
        self._turns = RoundRobin(instance.host.random.getrandbits(16))

    async def route(self, topic: str) -> TopicRoute:
        route = self.instance.known_route(topic)
        if route is None or not route.publish:
            route = await self.instance.route(topic, create=self.create_topics)
        return route

    def fields(
        self, message: Message, queue: MessageQueue, sys_flag: int, *, batch: bool = False, reconsume: tuple[int, int] | None = None,
    ) -> dict[str, str]:
        """The short-named header of code 310 (and 320)."""
        found = {
            "a": self.group, "b": message.topic, "c": "TBW102", "d": str(self.instance.default_topic_queues), "e": str(queue.queue_id),
            "f": str(sys_flag), "g": str(self.instance.host.wall_ms()), "h": str(message.flag), "i": message.properties,
            "j": "0", "k": "false", "m": "true" if batch else "false", "n": queue.broker_name,
        }
        if reconsume is not None:
            found["j"], found["l"] = str(reconsume[0]), str(reconsume[1])
        return found

    async def send(
        self, message: Message, *, timeout: float | None = None, queue: MessageQueue | None = None, selector: Selector | None = None,
        batch_keys: str = "", reconsume: tuple[int, int] | None = None,
    ) -> SendResult:
        try:
            return await self._send(message, self.timeout if timeout is None else timeout, queue, selector, batch_keys, reconsume)
        except trio.Cancelled as cancelled:
            key = batch_keys or message.unique_key
            cancelled.add_note(f"the outcome of a send to {message.topic!r} is unknown; its unique key is {key}")
            raise

    async def _send(
        self, message: Message, timeout: float, queue: MessageQueue | None, selector: Selector | None, batch_keys: str,
        reconsume: tuple[int, int] | None,
    ) -> SendResult:
        deadline = trio.current_time() + timeout
        key = batch_keys or message.unique_key
        body, sys_flag = (message.body, 0) if batch_keys else compress(message.body, self.compress_over)
        code = RequestCode.SEND_BATCH_MESSAGE if batch_keys else RequestCode.SEND_MESSAGE_V2
        chosen = queue is not None or selector is not None or message.sharding_key is not None
        avoid: tuple[str, ...] = ()
        unknown = False
        problem: TrmqError | None = None
        stored: SendResult | None = None
        tries = 1 if chosen else 1 + self.retries
        for turn in range(tries):
            began = trio.current_time()
            left = deadline - began
            if left <= 0:
                break
            target: MessageQueue | None = None
            try:
                target, address = await self._choose(message, queue, selector, avoid, left)
                fields = self.fields(message, target, sys_flag, batch=bool(batch_keys), reconsume=reconsume)
                # a broker that cannot even be dialled must leave time to try the others
                connection = await self.instance.remoting.connection(address, timeout=left / (tries - turn))
                answer = await connection.request(code, fields, body, timeout=deadline - trio.current_time())
            except RemoteRefused as error:
                raise SendFailed(f"no route for topic {message.topic!r}: {error}", key, unknown=unknown) from error
            except (ConnectionLost, RequestTimeout) as error:
                unknown = unknown or not error.definite
                problem = error
                self.instance.refresh_soon(message.topic)
                if target is not None:
                    avoid = (*avoid, target.broker_name)
                    self._failed(target.broker_name, address, began, error)
                continue
            verdict = judge_send(answer.code)
            if verdict is Verdict.STORED:
                if self.avoid_slow:
                    self._report(target.broker_name, began)
                stored = self._stored(answer, target, key)
                if not self.retry_not_ok or stored.status is SendStatus.SEND_OK:
                    return stored
                avoid = (*avoid, target.broker_name)
                continue
            problem = RemoteRefused(answer.code, answer.remark, definite=is_definite(answer.code, answer.remark))
            unknown = unknown or not problem.definite
            if verdict is Verdict.REFUSED and not await self._was_borrowed(message.topic, answer.code):
                break
            if verdict is Verdict.TRY_ANOTHER:
                avoid = (*avoid, target.broker_name)
                self.instance.refresh_soon(message.topic)  # it may be a slave by now, and another one the master
        if stored is not None:
            return stored
        reason = problem or f"no answer within {timeout} s"
        raise SendFailed(f"send to topic {message.topic!r} failed: {reason}", key, unknown=unknown) from problem

    def _failed(self, broker_name: str, address: str, began: float, error: TrmqError) -> None:
        """A master that is gone is left alone until it is back; one that only took too long is left alone for a while, and looked at."""
        if isinstance(error, ConnectionLost):
            self.instance.members.lost(address)
        else:
            self.instance.members.suspect(address)
            self._report(broker_name, began, failed=True)

    def _report(self, broker_name: str, began: float, *, failed: bool = False) -> None:
        """Remember a failure (or, if wanted, a slow answer), so that the next sends begin elsewhere for a while."""
        if self._faults is None:
            self._faults = LatencyFaults()
        now_ms = trio.current_time() * 1000
        self._faults.report(broker_name, now_ms - began * 1000, now_ms, isolate=failed, reachable=not failed)

    def _preferences(self, route: TopicRoute, avoid: tuple[str, ...]) -> tuple[BrokerTest, ...]:
        """Which brokers to look at first: not tried yet, there and well behaved; then just there; then just not tried yet."""
        faults, now_ms = self._faults, trio.current_time() * 1000
        gone = {name for name in route.brokers if (master := route.address(name)) is None or self.instance.members.is_lost(master)}
        there = gone.union(avoid)
        if faults is None:
            return (lambda name: name not in there), (lambda name: name not in avoid)
        return (
            (lambda name: name not in there and faults.available(name, now_ms)),
            (lambda name: name not in there), (lambda name: name not in avoid),
        )

    async def _was_borrowed(self, topic: str, code: int) -> bool:
        """Whether a queue id was refused only because the template's route promised too many; then the real route is here now."""
        if code != ResponseCode.INVALID_PARAMETER or not self.instance.is_borrowed(topic):
            return False
        await self.instance.refresh(topic)
        return not self.instance.is_borrowed(topic)

    async def _choose(
        self, message: Message, queue: MessageQueue | None, selector: Selector | None, avoid: tuple[str, ...], timeout: float,
    ) -> tuple[MessageQueue, str]:
        """The queue for this try and its broker's address. Raises `ConnectionLost` (definite) when there is none now."""
        route = self.instance.known_route(message.topic)
        if route is None or not route.publish:
            with trio.move_on_after(timeout) as limit:
                route = await self.instance.fresh_route(message.topic, create=self.create_topics)
            if limit.cancelled_caught or route is None:
                names = "; ".join(f"{ip}:{port}" for ip, port in self.instance.name_servers)
                raise ConnectionLost(f"no name server answers in time ({names})", definite=True)
        if queue is None:
            if not route.publish:
                self.instance.refresh_soon(message.topic)
                raise ConnectionLost(f"topic {message.topic!r} has no writable queue with a master", definite=True)
            if selector is not None:
                queue = selector(route.publish, message)
            elif message.sharding_key is not None:
                queue = shard(route.publish, java_hash(message.sharding_key))
            else:
                normal = not avoid and self._faults is None and self.instance.members.all_there
                last = avoid[-1] if avoid else None
                queue = self._turns.choose(route.publish, last, () if normal else self._preferences(route, avoid))
                assert queue is not None
        address = route.address(queue.broker_name)
        if address is None:
            self.instance.refresh_soon(message.topic)
            raise ConnectionLost(f"broker {queue.broker_name!r} has no master now", definite=True)
        return queue, address

    def _stored(self, answer: Command, queue: MessageQueue, key: str) -> SendResult:
        try:
            place = answer.header(SendMessageResponse)
        except RemoteProtocolError as error:
            raise SendFailed(f"the broker's answer to a send cannot be understood: {error}", key, unknown=True) from error
        if place.queue_id != queue.queue_id:
            queue = MessageQueue(queue.topic, queue.broker_name, place.queue_id)
        if self.instance.is_borrowed(queue.topic):
            self.instance.refresh_soon(queue.topic)  # the broker has created the topic by now
        return SendResult(STATUSES[answer.code], key, place.msg_id, queue, place.queue_offset)

    async def send_oneway(self, message: Message, queue: MessageQueue | None, selector: Selector | None) -> None:
        body, sys_flag = compress(message.body, self.compress_over)
        target, address = await self._choose(message, queue, selector, (), self.timeout)
        await self.instance.remoting.oneway(address, RequestCode.SEND_MESSAGE_V2, self.fields(message, target, sys_flag), body)


class Producer:
    """Made by `Client.producer`; use it from as many tasks as you like, all share one connection per broker."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._instance = sender.instance

    @property
    def group(self) -> str:
        return self._sender.group

    def prepare(
        self, topic: str, body: bytes | bytearray | memoryview | str, *, tag: str | None = None, keys: Sequence[str] | str = (),
        properties: Mapping[str, str] | None = None, delay_level: int = 0, sharding_key: str | None = None, flag: int = 0,
        wait: bool = True,
    ) -> Message:
        """A checked message whose `unique_key` is known before it is sent; pass it to `send`. Nothing is sent.

        `delay_level` 1..18 (1 s … 2 h); `wait=False` lets the broker answer before flush and replication.
        Raises `MessageIllegal` naming what is wrong.
        """
        return make_message(
            topic, body, self._instance.new_key(), tag=tag, keys=keys, properties=properties, delay_level=delay_level,
            sharding_key=sharding_key, flag=flag, wait=wait)

    async def send(
        self, topic: str | Message, body: bytes | bytearray | memoryview | str = b"", *, queue: MessageQueue | None = None,
        selector: Selector | None = None, timeout: float | None = None, **options: Any,
    ) -> SendResult:
        """Send one message and wait for the broker's answer. `options` as in `prepare`.

        `queue` or `selector(queues, message)` choose the queue; a `sharding_key` chooses the same queue for the same key while the
        number of queues stays. `timeout`: seconds over all tries.

        Raises `MessageIllegal` (nothing was sent), `RouteNotFound`, or `SendFailed` with `unknown` and `unique_key`.
        """
        message = topic if isinstance(topic, Message) else self.prepare(topic, body, **options)
        return await self._sender.send(message, timeout=timeout, queue=queue, selector=selector)

    async def send_oneway(
        self, topic: str | Message, body: bytes | bytearray | memoryview | str = b"", *, queue: MessageQueue | None = None,
        selector: Selector | None = None, **options: Any,
    ) -> None:
        """Hand one message to the connection and don't wait for an answer: it may be lost without anybody noticing."""
        message = topic if isinstance(topic, Message) else self.prepare(topic, body, **options)
        await self._sender.send_oneway(message, queue, selector)

    async def send_batch(
        self, topic: str, bodies: Sequence[bytes | str | Message], *, queue: MessageQueue | None = None, selector: Selector | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """Store several messages of one topic side by side in one queue, with one request and one answer.

        All or nothing. Parts are bodies or prepared messages (for tags, keys, properties) without a delay; together at most 4 MiB.
        """
        parts = [part if isinstance(part, Message) else self.prepare(topic, part) for part in bodies]
        if not parts:
            raise MessageIllegal("a batch needs at least one message")
        if topic.startswith(RETRY_PREFIX):
            raise MessageIllegal("a batch cannot go to a retry topic")
        for part in parts:
            if part.topic != topic:
                raise MessageIllegal(f"the batch is for topic {topic!r} but holds a message for {part.topic!r}; send one batch per topic")
            if part.delayed:
                raise MessageIllegal("a batch cannot hold delayed messages; send those one by one")
        body = encode_batch([(part.flag, part.body, part.properties.encode()) for part in parts])
        if len(body) > BODY_BYTES_MAX:
            raise MessageIllegal(f"the batch takes {len(body)} bytes; at most {BODY_BYTES_MAX} are allowed: split it")
        keys = ",".join(part.unique_key for part in parts)
        whole = Message(topic, body, parts[0].unique_key, "WAIT\x01true\x02", parts[0].sharding_key)
        return await self._sender.send(whole, timeout=timeout, queue=queue, selector=selector, batch_keys=keys)

    async def queues(self, topic: str) -> tuple[MessageQueue, ...]:
        """The queues a send may choose from now. Raises `RouteNotFound`."""
        return (await self._sender.route(topic)).publish


def check_group_name(group: str) -> None:
    """Raises `ConfigError` when a broker would refuse the name."""
    if (problem := check_group(group)) is not None:
        raise ConfigError(problem)


def make_sender(
    instance: Instance, group: str, *, retries: int = 2, timeout: float = SEND_TIMEOUT, compress_over: int | None = COMPRESS_OVER,
    create_topics: bool = True, avoid_slow: bool = False, retry_not_ok: bool = False,
) -> Sender:
    check_group_name(group)
    if retries < 0 or timeout <= 0:
        raise ConfigError(f"retries={retries}, timeout={timeout}: retries must be at least 0 and timeout more than 0 seconds")
    return Sender(
        instance, group, retries=retries, timeout=timeout, compress_over=compress_over, create_topics=create_topics,
        avoid_slow=avoid_slow, retry_not_ok=retry_not_ok)
