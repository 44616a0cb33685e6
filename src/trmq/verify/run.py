"""One run from the first question to the verdict: look, make a topic, let messages flow, cause faults, heal, read everything, judge."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import attrs
import trio
from specs.history import Drained

from trmq.client import Client, connect, parse_name_servers
from trmq.errors import ConfigError, ConnectionLost, RequestTimeout, RouteNotFound, TrmqError
from trmq.host import Host
from trmq.message import MessageQueue
from trmq.remoting import RemotingClient
from trmq.wire.codes import RequestCode, ResponseCode

from .faults import Fault, Injector
from .judge import UNSEEN, VIOLATED, Finding, Promise, judge, promises
from .members import Member, Members
from .observer import Observer
from .plan import Plan
from .reading import look_at, tell
from .workload import Workload

FIRST_QUESTION, SEND_END, SETTLE, DRAIN_IDLE, GOOD_BYE = 4.0, 20.0, 1.0, 25.0, 15.0
SLAVES_FOLLOW = 20.0
OK, FAILED, CONNECT, USAGE, BROKEN, INTERRUPTED = 0, 1, 3, 2, 6, 130


class NotRocketMQ(ConfigError):
    """Something listens there that is no name server."""


class NobodyThere(ConnectionLost):
    """No name server could be reached."""


@attrs.define
class Result:
    """Everything that was seen. `problem`: why the run could not go on to its end."""

    plan: Plan
    observer: Observer
    members: list[Member]
    promises: list[Promise]
    faults: list[Fault]
    findings: list[Finding] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    problem: str = ""
    interrupted: bool = False
    sent_until: float = 0.0
    seconds: float = 0.0
    read_count: int = 0
    date: str = ""

    @property
    def verdict(self) -> str:
        if any(finding.state == VIOLATED for finding in self.findings):
            return "violated"
        if self.interrupted:
            return "interrupted"
        return "incomplete" if self.problem or all(finding.state == UNSEEN for finding in self.findings) else "held"

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return INTERRUPTED
        return {"violated": BROKEN, "held": OK}.get(self.verdict, FAILED)


async def verify(plan: Plan, host: Host, interrupt: trio.Event, say: Callable[[str], None]) -> Result:
    """Run `plan` and judge. `interrupt`, once set, ends the sending; what was seen until then is judged.

    Raises `NobodyThere`, `NotRocketMQ`, `ConfigError` before anything was touched.
    """
    await first_question(plan, host)
    token = "".join(host.random.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(8))
    plan = attrs.evolve(plan, topic=plan.topic or f"verify_{token}")
    async with trio.open_nursery() as nursery, connect(plan.namesrv, host=host) as client:
        observer = Observer(plan.topic, f"verify_{token}")
        run = Run(plan, observer, client, host, Members(plan, observer, client, host, nursery), interrupt, say)
        try:
            result = await run.play(nursery)
        finally:
            with trio.move_on_after(GOOD_BYE, shield=True):
                await run.clean_up()
        nursery.cancel_scope.cancel()
    result.seconds = observer.now
    return result


async def first_question(plan: Plan, host: Host) -> None:
    """Whether a name server answers at one of the addresses."""
    problem: TrmqError | None = None
    other = "does not speak RocketMQ's protocol"
    for address in parse_name_servers(plan.namesrv):
        where = f"{address[0]}:{address[1]}"
        async with trio.open_nursery() as nursery:
            remoting = RemotingClient(host, nursery, connect_timeout=FIRST_QUESTION)
            try:
                answer = await remoting.request(address, RequestCode.GET_BROKER_CLUSTER_INFO, timeout=FIRST_QUESTION)
                if answer.code == 0:
                    return
                who = "a broker, say," if answer.code == ResponseCode.REQUEST_CODE_NOT_SUPPORTED else "something"
                problem = NotRocketMQ(f"{who} answers at {where}, but no name server: {answer.remark or answer.code}")
            except RequestTimeout:
                problem = NotRocketMQ(f"{where} accepts connections and does not answer as a name server of RocketMQ would")
            except ConnectionLost as error:
                refused = NobodyThere(f"no name server can be reached: {error}", definite=True)
                problem = refused if error.definite else NotRocketMQ(f"what listens at {where} {other}: {error}")
            except TrmqError as error:
                problem = NotRocketMQ(f"what listens at {where} {other}: {error}")
            finally:
                with trio.move_on_after(1, shield=True):
                    await remoting.aclose()
                nursery.cancel_scope.cancel()
    assert problem is not None
    raise problem


@attrs.define
class Run:
    plan: Plan
    observer: Observer
    client: Client
    host: Host
    members: Members
    interrupt: trio.Event
    say: Callable[[str], None]
    topic_made: bool = False
    group_made: bool = False
    queues: list[MessageQueue] = attrs.field(factory=list)
    problem: str = ""
    notes: list[str] = attrs.field(factory=list)

    async def play(self, nursery: trio.Nursery) -> Result:
        await self.prepare()
        nursery.start_soon(self.members.keep_looking)
        workload = Workload(self.plan, self.observer, self.members, self.client, self.host)
        workload.queues = tuple(self.queues)
        injector = Injector(self.plan, self.members, self.say)
        promised = promises(self.members, self.plan)
        self.say(f"topic {self.plan.topic}: {self.plan.rate:g} messages/s for {self.plan.duration:g} s, "
                 f"{workload.lanes} lanes of 3 producers, a consumer group whose members come and go")  # fmt: skip
        async with trio.open_nursery() as consuming:
            consuming.start_soon(workload.consume)
            try:
                await self.flow(workload, injector)
            finally:
                await injector.mend()
            sent_until = self.observer.now
            read = await self.look(consuming)
            consuming.cancel_scope.cancel()
        result = Result(self.plan, self.observer, list(self.members.known.values()), promised, injector.faults, notes=self.notes,
                        problem=self.problem, interrupted=self.interrupt.is_set(), sent_until=sent_until,
                        date=datetime.now(UTC).isoformat(timespec="seconds"))  # fmt: skip
        result.findings = judge(self.observer, self.members, self.plan, read, self.notes)
        result.read_count = self.read_count
        if not self.observer.acks and not result.problem:
            result.problem = "no message was answered as stored"
        for fault in injector.faults:
            if not fault.struck:
                self.notes.append(f"the command at {fault.at:.1f} s struck nobody that was known: {fault.command}")
        return result

    read_count: int = 0

    async def prepare(self) -> None:
        await self.members.look()
        if not self.members.known or not any(member.broker_id == 0 for member in self.members.known.values()):
            raise ConfigError(f"the name server at {self.plan.namesrv} knows no master broker: start one, or name another cluster")
        admin = self.client.admin
        try:
            await admin.route(self.plan.topic)
        except RouteNotFound:
            pass
        else:
            raise ConfigError(f"topic {self.plan.topic} exists: the run makes a topic of its own and removes it, so name one that does not")
        await admin.create_topic(self.plan.topic, queues=self.plan.queues)
        self.topic_made = True
        await admin.create_group(self.observer.consumer_group)
        self.group_made = True
        with trio.move_on_after(5.0):
            while True:
                route = await admin.route(self.plan.topic)
                self.queues = sorted(route.publish)
                masters = {member.group for member in self.members.known.values() if member.broker_id == 0}
                if {queue.broker_name for queue in self.queues} >= masters:
                    return
                await trio.sleep(0.05)
        if not self.queues:
            raise ConfigError(f"topic {self.plan.topic} was made, and no name server shows a queue of it")

    async def flow(self, workload: Workload, injector: Injector) -> None:
        """Messages and faults until the time is over, someone interrupts, or nobody answers any more."""
        start = self.observer.start
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_over, workload, start)
            nursery.start_soon(self._until_silence, workload)
            nursery.start_soon(self._faults, injector, workload, nursery.cancel_scope)
            with trio.move_on_after(self.plan.duration + self.plan.patience + SEND_END) as limit:
                await workload.produce()
            if limit.cancelled_caught:
                self.notes.append("some sends did not end")
            workload.stop.set()
            if self.interrupt.is_set() or self.problem:
                nursery.cancel_scope.cancel()
        await injector.mend()

    async def _faults(self, injector: Injector, workload: Workload, scope: trio.CancelScope) -> None:
        try:
            await injector.run(self.plan.duration)
        except TrmqError as error:
            self.problem = str(error)
            workload.stop.set()
            scope.cancel()

    async def _until_over(self, workload: Workload, start: float) -> None:
        with trio.move_on_at(start + self.plan.duration):
            await self.interrupt.wait()
        workload.stop.set()

    async def _until_silence(self, workload: Workload) -> None:
        """Watch that somebody still answers."""
        while not workload.stop.is_set():
            quiet = self.observer.now - self.observer.last_ack()
            if quiet > self.plan.patience:
                gone = ", ".join(f"{member.address} is {member.state}" for member in self.members.away()) or "all brokers answer questions"
                self.problem = f"the cluster did not come back: no send was answered as stored for {quiet:.0f} s ({gone})"
                workload.stop.set()
                return
            with trio.move_on_after(min(1.0, self.plan.patience - quiet + 0.01)):
                await workload.stop.wait()

    async def look(self, consuming: trio.Nursery) -> set[str]:
        """Heal, read everything, let the consumers have it. Returns the groups that were read."""
        patience = min(5.0, self.plan.patience) if self.interrupt.is_set() or self.problem else self.plan.patience
        with trio.move_on_after(patience) as limit:
            while not self.members.all_groups_have_a_master():
                await self.members.changed.park()
        if limit.cancelled_caught and not self.problem and not self.interrupt.is_set():
            self.problem = "the cluster did not come back: " + ", ".join(f"{m.address} is {m.state}" for m in self.members.away())
        await trio.sleep(SETTLE)
        looks = await look_at(self.members, self.queues)
        words, read = tell(looks, self.plan.topic, self.observer.now)
        for look in looks:
            if look.refusal:
                self.notes.append(f"{look.member.address} ({look.member.role}) could not be read: {look.refusal}")
        unread = [group for group in self.members.groups if group not in read]
        if unread:
            self.notes.append(f"of group {', '.join(unread)} nobody could be read: what it still has is not judged")
        there = {id for look in looks for ids in look.queues.values() for id in ids.values()}
        self.read_count = len(there)
        if not self.interrupt.is_set() and not self.problem and not unread:
            await self.drain(there)
        self.observer.events += words
        return read

    async def drain(self, there: set[str]) -> None:
        """Wait until the consumers had everything that can be read, or were given nothing new for a while."""
        self.say(f"{len(there):,} messages read; waiting for the consumers")
        while not there <= self.observer.had and not self.interrupt.is_set():
            with trio.move_on_after(min(DRAIN_IDLE, self.plan.patience)) as limit:
                await self.observer.news.park()
            if limit.cancelled_caught:
                break
        if not self.interrupt.is_set():
            self.observer.events.append(Drained(self.observer.consumer_group, self.plan.topic, self.observer.now))

    async def clean_up(self) -> None:
        """Remove what was made. What a broker that is gone keeps of it, it keeps."""
        if self.plan.keep:
            return
        if not self.members.all_groups_have_a_master():
            self.notes.append(f"topic {self.plan.topic} and group {self.observer.consumer_group} are left behind: no master removes them")
            return
        try:
            if self.group_made:
                await self.client.admin.delete_group(self.observer.consumer_group)
            if self.topic_made:
                await self.client.admin.delete_topic(self.plan.topic)
        except TrmqError as error:
            self.notes.append(f"topic {self.plan.topic} and group {self.observer.consumer_group} may be left behind: {error}")
