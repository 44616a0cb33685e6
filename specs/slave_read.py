"""# Reading from a slave

Seed `003_c790c013a3e4f038.txt`, 消息消费高可用: "当 Master 不可用或繁忙时，Consumer 会被自动切换到从 Slave 读。有了自动切换 Consumer
机制，当一个 Master 角色的机器出现故障后，Consumer 仍然可以从 Slave 读取消息，不影响 Consumer 程序" (when the master is down or busy the
consumer is switched to the slave by itself). "Slave 角色的 Broker 仅支持读" (a slave only supports reading). Seed
`001_8e740201b086beaf.txt`: "MaxPhyOffset(Master) - MaxPhyOffset(Local) > 阈值" is when consumers read from the slave, and
"消费过程不会中断,真正实现无缝切换" (consumption is not interrupted).

So a slave answers pulls (`slaveReadEnable` is true here), from a log that is its master's. The master sends a consumer that lags too far
to the slave, the slave sends it back; with the master dead the consumer goes on by itself, and returns later. For that the slave has the
master's tables as well: topics, groups, consumer and delay offsets. It takes in what the master says in one step, never with a gap.

Other sources: `PullMessageProcessor`, `SlaveSynchronize` of 5.4.0; reference "ha" section 3.

**Not promised**: that a slave already has what its master acknowledged under ASYNC_MASTER; that offsets read from a slave are newer than
the usual interval, so messages may come again after a switch; that a slave corrects a consumer's offset that it does not know; that an
old master that returns as slave does not show, until it has found its new master, what only it holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from .clause import PAIRS, clause, reachable
from .history import (
    LATE,
    Attached,
    Changed,
    Detached,
    Given,
    Gone,
    History,
    Left,
    LogSeen,
    Paused,
    Pulled,
    QueueName,
    Resumed,
    Serving,
    TableSeen,
    Told,
)

Witness = Iterator[tuple[object, bool]]
SWITCHED = "seed 003_c790c013a3e4f038.txt, 消息消费高可用: Consumer 会被自动切换到从 Slave 读"
READ_ONLY = "seed 003_c790c013a3e4f038.txt, 分布式集群部署: Slave 角色的 Broker 仅支持读"
SYNC = "org.apache.rocketmq.broker.slave.SlaveSynchronize"
REFRESH_S = 30.0
"""How often a client asks for routes."""
GOES_ON_S = REFRESH_S + 1.0
HELD_S = 15.0
"""How long a pull waits at a broker that has nothing to give."""
TABLES_S = 65.0
MASTER = 0


class Place:
    """Model: a consumer group's place in one queue. It moves on by one, or back; never past a message."""

    def __init__(self) -> None:
        self.next: dict[tuple[str, str, QueueName], int] = {}

    def given(self, event: Given) -> bool:
        where = (event.consumer_group, event.group, event.queue)
        expected = self.next.get(where)
        self.next[where] = max(event.queue_offset + 1, expected or 0)
        return expected is None or event.queue_offset <= expected


@clause("P-SLV-1", "A pull served by a slave gives records that are the master's byte for byte; the slave never tells of more than it has.",
        source=READ_ONLY, mutants=("slave_serves_other_bytes",), upstream="broken where the logs differ (P-HA-1)",
        modes=PAIRS)
def slaves_serve_the_masters_bytes(history: History) -> Witness:
    known: dict[tuple[str, int], set[int]] = {}
    masters: set[str] = set()
    for event in history.events:
        if isinstance(event, Serving):
            (masters.discard if event.broker_id != MASTER else masters.add)(event.node)
        elif isinstance(event, LogSeen) and event.node in masters:
            for record in event.records:
                known.setdefault((event.group, record.phy_offset), set()).add(record.digest)
    slaves: dict[str, bool] = {}  # node → whether it has found its master since it began to serve
    for event in history.events:
        if isinstance(event, Serving):
            slaves.pop(event.node, None)
            if event.broker_id != MASTER:
                slaves[event.node] = False
        elif isinstance(event, Attached) and event.slave in slaves:
            slaves[event.slave] = True
        elif isinstance(event, Pulled) and slaves.get(event.node) and event.records:
            good = all(digest in known.get((event.group, phy), {digest}) for _, phy, digest in event.records)
            yield event, good and max(offset for offset, _, _ in event.records) < event.max_offset


@clause("P-SLV-2", "A consumer too far behind for the master's memory is sent to a connected slave, and back once it has caught up.",
        source=SWITCHED, kind="eventually", mutants=("nobody_is_suggested", "slave_keeps_consumers"),
        upstream="only with slaveReadEnable=true; a slave never sends anyone back",
        modes=PAIRS)
def consumers_are_sent_where_they_belong(history: History) -> Witness:
    serving: dict[str, Serving] = {}
    linked: dict[int, Attached] = {}
    for event in history.events:
        match event:
            case Serving(node=node):
                serving[node] = event
            case Gone(node=node):
                serving.pop(node, None)
            case Attached(session=session):
                linked[session] = event
            case Detached(session=session):
                linked.pop(session, None)
            case Pulled(node=node, code="FOUND") if node in serving:
                far = event.behind > event.comfortable
                has_slave = any(link.master == node and link.slave in serving for link in linked.values())
                if serving[node].broker_id != MASTER:
                    yield event, far or event.suggested == MASTER
                elif has_slave or not far:
                    yield event, (event.suggested != MASTER) == far


@clause("P-SLV-3", "A slave stores nothing that anybody sends to it.", source=READ_ONLY, mutants=("slave_accepts_writes",),
        modes=PAIRS)
def slaves_refuse_writes(history: History) -> Witness:
    serving: dict[str, Serving] = {}
    for event in history.events:
        if isinstance(event, Serving):
            serving[event.node] = event
        elif isinstance(event, Told) and event.node in serving and serving[event.node].role == "SLAVE":
            yield event, event.status not in {"OK", *LATE} and not event.end


@clause("P-SLV-4", "A group that is switched from master to slave and back is given every message: its offsets have no gap.",
        source=SWITCHED, mutants=("switch_skips",),
        modes=PAIRS, visible="client", faults=("close", "kill", "machine"))
def switching_skips_nothing(history: History) -> Witness:
    place = Place()
    for event in history.all(Given):
        yield event, place.given(event)


@clause("P-SLV-5", "A slave never moves a consumer's offset: what it does not have yet is asked of the master, or waited for.",
        source="org.apache.rocketmq.store.DefaultMessageStore#nextOffsetCorrection", mutants=("slave_corrects_offsets",),
        modes=PAIRS, visible="client")
def slaves_do_not_correct(history: History) -> Witness:
    serving: dict[str, Serving] = {}
    for event in history.events:
        if isinstance(event, Serving):
            serving[event.node] = event
        elif isinstance(event, Pulled) and event.node in serving and serving[event.node].broker_id != MASTER:
            outside = not event.min_offset <= event.asked <= event.max_offset
            if outside:
                yield event, event.next == event.asked and event.code != "MOVED"


@clause("P-SLV-6", "With its master dead a consumer is given messages by the slave within one route refresh.", source=SWITCHED,
        kind="eventually", mutants=("slave_refuses_pulls",), upstream="only with slaveReadEnable=true",
        modes=PAIRS, visible="client", faults=("close", "kill", "machine"))
def consumers_go_on(history: History) -> Witness:
    serving: dict[str, Serving] = {}
    died: dict[str, Gone] = {}
    stopped: set[str] = set()
    readers: dict[str, set[str]] = {}
    for event in history.events:
        match event:
            case Serving(node=node, group=group):
                serving[node] = event
                if event.broker_id == MASTER and group in died:
                    yield event, event.at - died.pop(group).at <= GOES_ON_S
            case Gone(node=node) if node in serving:
                gone = serving.pop(node)
                died.pop(gone.group, None)  # nobody is left, or the master died again
                awake = [s for s in serving.values() if s.group == gone.group and s.node not in stopped]
                if gone.broker_id == MASTER and awake and readers.get(gone.group):
                    died[gone.group] = event
            case Paused(node=node) if node in serving:
                stopped.add(node)
                died.pop(serving[node].group, None)
            case Resumed(node=node):
                stopped.discard(node)
            case Given(consumer=consumer, group=group):
                readers.setdefault(group, set()).add(consumer)
            case Left(consumer=consumer):
                readers = {group: who - {consumer} for group, who in readers.items()}
            case Pulled(node=node, client=client, group=group) if client in readers.get(group, ()):
                if group in died and node in serving and serving[node].broker_id != MASTER and event.code in ("FOUND", "EMPTY"):
                    yield event, event.at - died.pop(group).at <= GOES_ON_S + HELD_S * (event.code == "EMPTY")
    end = max((e.at for e in history.events if isinstance(e, Pulled | Gone | LogSeen)), default=0.0)
    for event in died.values():
        yield event, end - event.at <= GOES_ON_S + HELD_S


@clause("P-META-1", "What changes in a master's tables (topics, groups, offsets) a connected slave shows within 65 s.", source=SYNC,
        kind="eventually", mutants=("tables_are_not_copied",),
        modes=PAIRS, visible="client")
def tables_arrive(history: History) -> Witness:
    serving: dict[str, Serving] = {}
    changes: dict[tuple[str, str, str], Changed] = {}
    for event in history.events:
        if isinstance(event, Serving):
            serving[event.node] = event
        elif isinstance(event, Changed):
            changes[serving[event.node].group, event.table, event.key] = event
        elif isinstance(event, TableSeen) and event.node in serving and serving[event.node].broker_id != MASTER:
            slave = serving[event.node]
            for (group, table, key), change in changes.items():
                if (group, table) == (slave.group, event.table) and event.at - max(change.at, slave.at) >= TABLES_S:
                    yield (event, change), event.entries.get(key, "") == change.value


@clause("P-META-2", "Nobody who asks a slave is shown a topic table that lacks what it has shown before and its master still has.",
        source=SYNC, mutants=("table_is_emptied_first",), upstream="broken: it empties the table and then fills it",
        modes=PAIRS, visible="client")
def tables_have_no_gap(history: History) -> Witness:
    shown: dict[tuple[str, str], set[str]] = {}
    for event in history.events:
        if isinstance(event, Serving):
            shown = {key: keys for key, keys in shown.items() if key[0] != event.node}
        elif isinstance(event, Changed) and not event.value:
            for (_, table), keys in shown.items():
                if table == event.table:
                    keys.discard(event.key)
        elif isinstance(event, TableSeen):
            before = shown.setdefault((event.node, event.table), set())
            yield event, before <= set(event.entries)
            before |= set(event.entries)


@reachable("P-SLV-R1", "Messages come again after a switch: a slave's copy of the group's offsets is behind.", source=SYNC,
           modes=PAIRS, visible="client")
def given_twice(history: History) -> Iterator[object]:
    seen: set[tuple[str, QueueName, int]] = set()
    for event in history.all(Given):
        place = (event.group, event.queue, event.queue_offset)
        if place in seen:
            yield event
        seen.add(place)

