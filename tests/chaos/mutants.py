"""Seeded bugs of replication, each a protection taken away. A bug lists the clauses it breaks and the scenarios in which that shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

from property.mutants import Mutant, Seed, wrap
from trmq.broker import service as broker_service
from trmq.broker import topics
from trmq.broker.following import Following
from trmq.broker.handlers import all_handlers
from trmq.broker.handlers import pull as pull_handler
from trmq.broker.handlers import replica as replica_handlers
from trmq.broker.handlers import send as send_handler
from trmq.broker.replication import Replication
from trmq.broker.service import Broker
from trmq.broker.stored import Sent
from trmq.broker.waiting import Waiting
from trmq.client import producer
from trmq.client.consumer import Consumer
from trmq.client.producer import Sender
from trmq.client.puller import Puller
from trmq.client.retry import Verdict
from trmq.errors import ConnectionLost, RemoteProtocolError
from trmq.log import aside
from trmq.log.commit_log import CommitLog
from trmq.log.follower import Follower
from trmq.log.recovery import _Recovery
from trmq.message import MessageQueue
from trmq.replica import ack
from trmq.replica.ack import Holders
from trmq.replica.master import Master, SlaveIdentity, _Feed
from trmq.replica.slave import Slave
from trmq.replica.transfer import MasterEnd, PeerRefused, SlaveEnd, encode_report
from trmq.route import selection
from trmq.route.latency import LatencyFaults
from trmq.route.registry import Registry
from trmq.route.selection import RoundRobin
from trmq.wire.bodies import TopicRouteData
from trmq.wire.codes import RequestCode
from trmq.wire.command import encode_response
from trmq.wire.headers.replica import Join, JoinResponse

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Mutant] = {}
STORE_TIME_AT = 63
"""Of a record: the last byte of its store timestamp, which no checksum of Apache's covers."""


def mutant(*kills: str, scenarios: tuple[str, ...]) -> Callable[[Seed], Seed]:
    def register(seed: Seed) -> Seed:
        MUTANTS[seed.__name__] = Mutant(seed.__name__, kills, scenarios, seed)
        return seed

    return register


# --- who holds what


@mutant("P-ACK-1", scenarios=("one_slave_twice",))
def two_connections_count_twice(patch: Patch) -> None:
    patch.setattr(ack, "counted", lambda acks, allowed: acks)


@mutant("P-ACK-1", "P-ACK-8", "P-LOSS-1", scenarios=("core_lives", "disk_dies_in_flight"))
def ack_before_report(patch: Patch) -> None:
    patch.setattr(Holders, "held", lambda self, need: ack.EVERYTHING)
    wrap(patch, Master, "_push", lambda original, self, end: (original(self, end), self._advance())[0])


@mutant("P-ACK-6", scenarios=("core_lives",))
def lowered_to_one(patch: Patch) -> None:
    """enableAutoInSyncReplicas waits for nobody, whatever the minimum."""
    patch.setattr(ack, "lowered", lambda need, in_sync, minimum: 1)


@mutant("P-ACK-7", scenarios=("core_lives",))
def gap_ignored(patch: Patch) -> None:
    patch.setattr(Holders, "in_sync", lambda self, max_phy, gap: 1 + self.present)


@mutant("P-ACK-9", scenarios=("core_lives",))
def nobody_is_enough(patch: Patch) -> None:
    """With no slave connected nobody is waited for."""
    wrap(patch, Holders, "held", lambda original, self, need: original(self, need) if self.acks() else ack.EVERYTHING)
    patch.setattr(Holders, "present", property(lambda self: 1))


@mutant("P-ACK-9", scenarios=("core_lives",))
def waits_for_nobody(patch: Patch) -> None:
    """With no slave connected the timeout is waited out."""
    patch.setattr(Holders, "present", property(lambda self: 1))


# --- the wire


def believe(patch: Patch, believed: Callable[[MasterEnd, int, int], bool]) -> None:
    def report(original: Any, self: MasterEnd, offset: int, max_phy: int) -> None:
        if believed(self, offset, max_phy):
            self.acked = offset
            self.requested = offset if self.requested is None else self.requested
        else:
            original(self, offset, max_phy)

    wrap(patch, MasterEnd, "_report", report)


@mutant("P-HA-4", "P-ACK-1", "P-ACK-8", scenarios=("core_lives",))
def believes_any_report(patch: Patch) -> None:
    """A report beyond the log counts (apache/rocketmq #3015, #1155)."""
    believe(patch, lambda end, offset, max_phy: offset > max_phy)


@mutant("P-HA-4", scenarios=("core_lives",))
def falling_report_believed(patch: Patch) -> None:
    believe(patch, lambda end, offset, max_phy: 0 <= offset < end.acked)


@mutant("P-HA-1", "P-HA-4", "P-LOSS-1", scenarios=("longer_slave_returns", "longer_slave"))
def longer_slave_accepted(patch: Patch) -> None:
    """A slave that has more than its master is served all the same (H6)."""

    def join(broker: Broker, conn: Any, command: Any) -> Any:
        header, master, log = command.header(Join), broker.replication.master, broker.store.log
        assert master is not None
        token = master.admit(SlaveIdentity(header.broker_id, header.broker_addr, header.store_id))
        broker.replication.joined[conn] = header.broker_id
        return encode_response(command, 0, JoinResponse("follow", token, log.min_phy, log.max_phy))

    patch.setitem(replica_handlers.HANDLERS, RequestCode.TRMQ_JOIN, join)
    believe(patch, lambda end, offset, max_phy: offset > max_phy and end.requested is None)


@mutant("P-HA-2", scenarios=("core_lives",))
def slice_from_wrong_place(patch: Patch) -> None:
    def begin(original: Any, self: MasterEnd, *args: Any, **kwargs: Any) -> int:
        self.next_offset = int(original(self, *args, **kwargs)) // 300 * 300
        return self.next_offset

    wrap(patch, MasterEnd, "begin", begin)


@mutant("P-HA-2", scenarios=("core_lives",))
def piece_crosses_segment(patch: Patch) -> None:
    wrap(patch, MasterEnd, "next_slice", lambda original, self, max_phy, segment: original(self, max_phy, 1 << 40))


@mutant("P-HA-2", scenarios=("core_lives",))
def pieces_too_long(patch: Patch) -> None:
    def next_slice(original: Any, self: MasterEnd, max_phy: int, segment: int) -> Any:
        self.batch_bytes = 1 << 30
        return original(self, max_phy, segment)

    wrap(patch, MasterEnd, "next_slice", next_slice)


@mutant("P-HA-7", scenarios=("stream_cut_anywhere",))
def header_must_arrive_whole(patch: Patch) -> None:
    def feed(original: Any, self: SlaveEnd, data: Any) -> Any:
        self._head = b""
        return original(self, data)

    wrap(patch, SlaveEnd, "feed", feed)


@mutant("P-HA-7", scenarios=("stream_cut_anywhere",))
def word_must_arrive_whole(patch: Patch) -> None:
    def receive(original: Any, self: MasterEnd, data: Any, max_phy: int) -> Any:
        self._rest = b""
        return original(self, data, max_phy)

    wrap(patch, MasterEnd, "receive", receive)


@mutant("P-HA-8", scenarios=("core_lives",))
def empty_slave_starts_late(patch: Patch) -> None:
    """An empty slave gets the last segment only, whatever is configured (H1)."""

    def begin(original: Any, self: MasterEnd, min_phy: int, max_phy: int, segment: int, *, last_segment: bool = False) -> int:
        return int(original(self, min_phy, max_phy, segment, last_segment=True))

    wrap(patch, MasterEnd, "begin", begin)


# --- routes and producers


@mutant("P-RT-1", scenarios=("registrations",))
def unregistered_stays(patch: Patch) -> None:
    def unregister(original: Any, self: Registry, members: Any) -> Any:
        return original(self, [member for member in members if member.broker_id])

    wrap(patch, Registry, "unregister", unregister)


@mutant("P-RT-1", scenarios=("registrations",))
def one_address_two_ids(patch: Patch) -> None:
    def register(original: Any, self: Registry, member: Any, *args: Any, **kwargs: Any) -> Any:
        group = self._groups.get(member.broker_name)
        before = {} if group is None else dict(group.broker_addrs)
        found = original(self, member, *args, **kwargs)
        kept = {id: address for id, address in before.items() if address == member.address}
        self._groups[member.broker_name].broker_addrs.update(kept)
        return found

    wrap(patch, Registry, "register", register)


@mutant("P-RT-2", scenarios=("registrations",))
def lost_links_stay(patch: Patch) -> None:
    patch.setattr(Registry, "link_lost", lambda self, link: ([], []))


@mutant("P-RT-2", scenarios=("registrations",))
def nobody_expires(patch: Patch) -> None:
    patch.setattr(Registry, "expire", lambda self, now: ([], []))


@mutant("P-RT-3", scenarios=("registrations",))
def older_state_replaces(patch: Patch) -> None:
    patch.setattr(Registry, "_fenced", lambda self, member, version: False)


@mutant("P-RT-3", scenarios=("registrations",))
def slaves_are_writable(patch: Patch) -> None:
    def publish_info(topic: str, route: TopicRouteData) -> selection.PublishInfo:
        return selection.PublishInfo(tuple(MessageQueue(topic, data.broker_name, 0) for data in route.queue_datas))

    patch.setattr(selection, "publish_info", publish_info)


@mutant("P-Q-1", scenarios=("a_master_dies_and_returns",))
def stays_with_the_failed(patch: Patch) -> None:
    """A retry goes to the broker that has just failed."""

    def choose(original: Any, self: RoundRobin, queues: Any, last: Any = None, preferences: Any = ()) -> Any:
        failed = [queue for queue in queues if preferences and not preferences[0](queue.broker_name)]
        return original(self, failed or queues)

    wrap(patch, RoundRobin, "choose", choose)


@mutant("P-Q-3", scenarios=("a_master_dies_and_returns",))
def sends_once(patch: Patch) -> None:
    wrap(patch, Sender, "__init__", lambda original, self, *args, **kwargs: original(self, *args, **{**kwargs, "retries": 0}))


@mutant("P-Q-1", scenarios=("a_master_dies_and_returns",))
def queue_beyond_writable(patch: Patch) -> None:
    def choose(original: Any, self: RoundRobin, queues: Any, *args: Any) -> Any:
        found = original(self, queues, *args)
        return None if found is None else attrs.evolve(found, queue_id=found.queue_id + 1)

    wrap(patch, RoundRobin, "choose", choose)


@mutant("P-Q-2", scenarios=("a_master_dies_and_returns",))
def bad_ones_first(patch: Patch) -> None:
    patch.setattr(LatencyFaults, "available", lambda self, name, now_ms: True)


@mutant("P-Q-3", scenarios=("a_master_dies_and_returns",))
def gives_up_without_trying(patch: Patch) -> None:
    async def choose(original: Any, self: Sender, message: Any, *args: Any) -> Any:
        found = await original(self, message, *args)
        route = self.instance.known_route(message.topic)
        lost_at = self.instance.members._lost_at
        if route is not None and all(trio.current_time() - lost_at.get(address, -60) < 10 for address in route.addresses()):
            raise ConnectionLost("every broker was bad a moment ago", definite=True)
        return found

    wrap(patch, Sender, "_choose", choose)


@mutant("P-DUP-1", scenarios=("a_master_dies_and_returns",))
def retries_after_success(patch: Patch) -> None:
    """Every other answer is not taken for a success, and the message is sent again."""
    verdicts = itertools.cycle((Verdict.STORED, Verdict.TRY_ANOTHER))
    patch.setattr(producer, "judge_send", lambda code: next(verdicts))


@mutant("P-ACK-3", scenarios=("unwaited",))
def unwaited_waits(patch: Patch) -> None:
    wrap(patch, send_handler, "Sent", lambda original, request, answer, end, waits, *args: original(request, answer, end, True, *args))


# --- the broker around the cores


@mutant("P-HA-3", "P-ACK-8", "P-LOSS-1", scenarios=("dual_write", "disk_dies_in_flight"))
def report_before_write(patch: Patch) -> None:
    """A slave reports what arrived, and then writes it."""

    def hello(original: Any, self: Slave, stream: Any, lead: Any) -> None:
        original(self, stream, lead)
        patch.setattr(Follower, "reporter", self, raising=False)

    def append(original: Any, self: Follower, offset: int, records: Any) -> int:
        self.reporter._out += encode_report(offset + len(records))  # type: ignore[attr-defined]
        self.reporter._flush_out()  # type: ignore[attr-defined]
        return int(original(self, offset, records))

    wrap(patch, Slave, "_hello", hello)
    wrap(patch, Follower, "append", append)


@mutant("P-HA-3", "P-ACK-8", scenarios=("dual_write",))
def report_before_sync(patch: Patch) -> None:
    """Under SYNC_FLUSH a slave reports what is in the page cache (H4)."""
    wrap(patch, Slave, "__init__", lambda original, self, *args, **kwargs: (original(self, *args, **kwargs), _set(self, "_sync_flush"))[0])


@mutant("P-ACK-4", scenarios=("slow_and_stopped_slaves",))
def slave_timeout_forgotten(patch: Patch) -> None:
    patch.setattr(
        Waiting, "add_slaves", lambda self, sent: self._driver(sent.need).add(sent.answers[-1].end, 1e12, sent)
    )


@mutant("P-ACK-4", scenarios=("dual_write",))
def late_record_dropped(patch: Patch) -> None:
    """What is answered SLAVE_NOT_AVAILABLE is not stored."""

    def finish(original: Any, self: Broker, conn: Any, deferred: Any) -> Any:
        if self.replication.need() > 1 and self.replication.alone:
            self.store.rollback()
        return original(self, conn, deferred)

    wrap(patch, Broker, "finish", finish)


@mutant("P-ACK-5", scenarios=("not_enough_in_sync",))
def refused_is_stored(patch: Patch) -> None:
    """The look at the replicas comes after the append."""
    refused: list[bool] = []
    frames: dict[str, bytes] = {}

    def check(original: Any, self: Replication) -> None:
        try:
            original(self)
        except RemoteProtocolError:
            refused.append(True)

    def sent(original: Any, request: Any, answer: Any, *args: Any) -> Any:
        if refused:
            refused.clear()
            answer = frames[args[-1]] = encode_response(request, 1, remark="IN_SYNC_REPLICAS_NOT_ENOUGH: too late")
        return original(request, answer, *args)

    wrap(patch, Replication, "check", check)
    wrap(patch, send_handler, "Sent", sent)
    wrap(patch, Sent, "late", lambda original, self, code: frames.get(self.unique) or original(self, code))


@mutant("P-LOSS-1", scenarios=("power_goes",))
def ack_before_the_flush(patch: Patch) -> None:
    wrap(patch, Broker, "__init__", lambda original, self, *args: (original(self, *args), _set(self, "_sync_flush"))[0])


def _set(thing: Any, name: str, value: object = False) -> None:
    setattr(thing, name, value)


@mutant("P-HA-5", scenarios=("dual_write",))
def push_stops(patch: Patch) -> None:
    def next_slice(original: Any, self: MasterEnd, max_phy: int, segment: int) -> Any:
        return None if self.next_offset > 5000 else original(self, max_phy, segment)

    wrap(patch, MasterEnd, "next_slice", next_slice)


@mutant("P-HA-5", scenarios=("slow_and_stopped_slaves",))
def no_reconnect(patch: Patch) -> None:
    async def follow(original: Any, self: Slave, lead: Any) -> None:
        try:
            await original(self, lead)
        except Exception:
            await trio.sleep_forever()

    wrap(patch, Slave, "_follow", follow)


@mutant("P-HA-6", scenarios=("strangers",))
def silence_is_borne(patch: Patch) -> None:
    wrap(patch, Master, "__init__", lambda original, self, *args, **kwargs: original(self, *args, **{**kwargs, "silence_s": 1e6}))


@mutant("P-HA-6", scenarios=("strangers",))
def no_heartbeat(patch: Patch) -> None:
    wrap(patch, Master, "__init__", lambda original, self, *args, **kwargs: original(self, *args, **{**kwargs, "heartbeat_s": 1e6}))


@mutant("P-INT-1", scenarios=("bare_slave",))
def token_is_demanded(patch: Patch) -> None:
    def begin(original: Any, self: _Feed) -> None:
        if self.who is None:
            raise PeerRefused("it did not say who it is")
        original(self)

    wrap(patch, _Feed, "begin", begin)


@mutant("P-HA-9", scenarios=("switched_by_hand",))
def tail_is_dropped(patch: Patch) -> None:
    async def set_aside(host: Any, service: Any, at: int, end: int) -> str:
        return aside.tail_path(at, end)

    patch.setattr(aside, "_set_aside", set_aside)


@mutant("P-HA-9", scenarios=("switched_by_hand",))
def cut_is_not_durable(patch: Patch) -> None:
    """What was cut is still whole records on the platter (apache/rocketmq #10666)."""

    def cut(original: Any, self: CommitLog, *args: Any) -> None:
        original(self, *args)
        self.segments[-1].dirty = False

    wrap(patch, CommitLog, "cut", cut)
    patch.setattr(_Recovery, "_drop_behind", lambda self, end: None)


# --- slaves and their readers


@mutant("P-SLV-1", "P-HA-1", scenarios=("slave_is_asked",))
def slave_serves_other_bytes(patch: Patch) -> None:
    """A slave stamps records with its own time."""

    def append(original: Any, self: Follower, offset: int, records: Any) -> int:
        changed = bytearray(records)
        changed[STORE_TIME_AT] ^= 1
        return int(original(self, offset, memoryview(bytes(changed))))

    wrap(patch, Follower, "append", append)


@mutant("P-SLV-2", scenarios=("consumer_lags",))
def nobody_is_suggested(patch: Patch) -> None:
    patch.setattr(Replication, "busy_suggestion", lambda self, wanted: 0)


@mutant("P-SLV-2", scenarios=("consumer_lags",))
def slave_keeps_consumers(patch: Patch) -> None:
    def suggestion(original: Any, broker: Broker, header: Any, pull: Any) -> int:
        return broker.config.broker_id if broker.is_slave else int(original(broker, header, pull))

    wrap(patch, pull_handler, "suggestion", suggestion)


@mutant("P-SLV-3", "P-HIS-9", scenarios=("slave_is_asked",))
def slave_accepts_writes(patch: Patch) -> None:
    patch.setattr(broker_service, "all_handlers", lambda slave=False: all_handlers(slave=False))


@mutant("P-SLV-5", scenarios=("slave_is_asked",))
def slave_corrects_offsets(patch: Patch) -> None:
    def look(broker: Broker, header: Any, subscription: Any, offset: int) -> Any:
        found = pull_handler.read(broker, header, subscription, offset)
        return found, pull_handler.code_of(found, offset)

    patch.setattr(pull_handler, "look", look)


@mutant("P-SLV-4", "P-HIS-6", "P-HIS-8", scenarios=("consumer_lags", "consumer_switches"))
def switch_skips(patch: Patch) -> None:
    """A consumer that turns to another member goes on one message later."""
    last: dict[int, str] = {}

    async def pull(original: Any, self: Puller, choice: Any) -> None:
        if last.setdefault(id(self), choice.address) != choice.address:
            last[id(self)] = choice.address
            self._cell.pull_offset += 1
        await original(self, choice)

    wrap(patch, Puller, "_pull", pull)


@mutant("P-SLV-6", scenarios=("consumer_switches",))
def slave_refuses_pulls(patch: Patch) -> None:
    wrap(patch, Broker, "_take_over", lambda original, self, config: original(self, attrs.evolve(config, slave_read_enable=False)))


@mutant("P-META-1", scenarios=("consumer_switches",))
def tables_are_not_copied(patch: Patch) -> None:
    async def copy(self: Following, path: str) -> None: ...

    patch.setattr(Following, "_copy", copy)


@mutant("P-META-2", scenarios=("consumer_switches",))
def table_is_emptied_first(patch: Patch) -> None:
    async def copy(original: Any, self: Following, path: str) -> None:
        if path == topics.PATH:
            self._broker.topics.table.clear()
            await trio.sleep(5)
        await original(self, path)

    wrap(patch, Following, "_copy", copy)


# --- what a client may conclude


@mutant("P-HIS-2", scenarios=("a_group_comes_late",))
def answers_name_another_place(patch: Patch) -> None:
    """An answer names the offset after the message's."""

    def send_ok(original: Any, request: Any, code: int, message_id: str, queue_id: int, queue_offset: int, *args: Any, **more: Any) -> Any:
        return original(request, code, message_id, queue_id, queue_offset + 1, *args, **more)

    wrap(patch, send_handler, "send_ok", send_ok)


@mutant("P-HIS-3", "P-HIS-5", scenarios=("consumer_lags",))
def slave_renames(patch: Patch) -> None:
    """What is read from the second member that a consumer turns to has other ids (the body's checksum does not cover them)."""
    first: dict[int, str] = {}

    def found(original: Any, self: Puller, answer: Any, choice: Any) -> None:
        if first.setdefault(id(self), choice.address) != choice.address:
            answer.body = bytes(answer.body).replace(b"UNIQ_KEY\x010", b"UNIQ_KEY\x01Z")
        original(self, answer, choice)

    wrap(patch, Puller, "_found", found)


@mutant("P-HIS-7", scenarios=("a_group_comes_late",))
def given_in_reverse(patch: Patch) -> None:
    """What one pull brought is handed over from its end."""
    wrap(patch, Consumer, "arrived", lambda original, self, cell, messages: original(self, cell, messages[::-1]))
