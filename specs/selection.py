"""# Which broker a message goes to

Seed `003_c790c013a3e4f038.txt`, 消息发送高可用: "把 Topic 的多个 Message Queue 创建在多个 Broker 组上 ... 这样当一个 Broker 组的 Master
不可用后，其他组的 Master 仍然可用，Producer 仍然可以发送消息" (a topic's queues are spread over several groups, so that with one master
down the producer still sends to the others).

A producer goes round the writable queues; after a failure it takes another broker as long as there is one, and for a while it begins
elsewhere. What is not tried is surely not sent: if every broker is bad, one is tried all the same. So a producer comes back to a broker
that failed when the only other one cannot be reached: by then that is the one that failed last, and `TopicPublishInfo` avoids no other;
where latency is watched, `MQFaultStrategy` takes anybody when nobody else is available or reachable. Dialling in vain is no attempt that
could be seen; that the producer knows a broker to be bad is seen.

Other sources: `TopicPublishInfo`, `MQFaultStrategy` of 5.4.0; reference "client behaviour" section 3.

**Not promised**: that a slow broker is avoided unless that was asked for; that a send to a machine that has just fallen silent gets
through: it may wait for it until its time is over; order across a change of broker; that every queue gets as many messages as another.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from .clause import clause
from .history import Eased, Gone, Hindered, History, Outcome, Paused, Resumed, Serving, Tried

Witness = Iterator[tuple[object, bool]]
OTHERS = "seed 003_c790c013a3e4f038.txt, 消息发送高可用: 其他组的 Master 仍然可用，Producer 仍然可以发送消息"


class Choice:
    """Model: where a message may go next. To any writable broker that was not tried for it; first of all to one not known to be bad."""

    def __init__(self) -> None:
        self.tried: dict[str, set[str]] = {}

    def fresh(self, event: Tried) -> Set[str]:
        """Who was not tried yet; when all were, all of them again."""
        return event.writable.keys() - self.tried.get(event.id, set()) or event.writable.keys()

    def next(self, event: Tried) -> Set[str]:
        """Where it may go: to whoever was not tried yet, and to anybody when all of those are known to be bad."""
        fresh = self.fresh(event)
        return event.writable.keys() if fresh <= event.bad else fresh

    def good(self, event: Tried) -> Set[str]:
        return event.writable.keys() - event.bad or event.writable.keys()

    def step(self, event: Tried) -> None:
        self.tried.setdefault(event.id, set()).add(event.group)


def attempts(history: History) -> Iterator[tuple[Tried, Choice]]:
    """Each attempt whose queue the caller had not named, with what had been tried."""
    choice = Choice()
    for event in history.all(Tried):
        if not event.chosen:
            yield event, choice
        choice.step(event)


@clause("P-Q-1", "A producer goes round the writable queues; after a failure it takes another broker, if one is not known to be bad.",
        source=OTHERS, mutants=("stays_with_the_failed", "queue_beyond_writable"), visible="client")
def another_broker_after_a_failure(history: History) -> Witness:
    for event, choice in attempts(history):
        yield event, 0 <= event.queue_id < event.writable.get(event.group, 0) and event.group in choice.next(event)


@clause("P-Q-2", "A broker known to be unreachable or (when asked for) slow is not the first choice while another is good.",
        source="org.apache.rocketmq.client.latency.MQFaultStrategy", mutants=("bad_ones_first",), modes=("masters",), visible="client",
        upstream="by default a first attempt avoids nobody")
def bad_ones_wait(history: History) -> Witness:
    """Judged of what was on the wire at once: somebody else may have been dialled in vain before a later first attempt."""
    began = {outcome.id: outcome.began for outcome in history.all(Outcome)}
    for event, choice in attempts(history):
        if event.id not in choice.tried and event.bad and event.at <= began.get(event.id, event.at):
            yield event, event.group in choice.good(event)


@clause("P-Q-3", "With one master stopped or killed and another group's up and well, a send without a fixed queue gets through.",
        source=OTHERS, kind="eventually", modes=("masters",), faults=("close", "kill"), visible="client",
        mutants=("sends_once", "gives_up_without_trying"))
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
