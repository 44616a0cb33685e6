"""`trmq dev`: a cluster of many processes on this machine, to develop against and to try what happens when a node dies."""

from __future__ import annotations

import signal
import sys
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import trio
from cyclopts import Parameter

from trmq.client import connect
from trmq.errors import ConfigError
from trmq.real_host import RealHost

from . import EXIT_INTERRUPTED, EXIT_USAGE
from .common import folder_of, pairs_of
from .fleet import Fleet, Member, choose_ports, take_folder
from .nodes import Shape, plan
from .watching import SAMPLE_S, Sight, news_of, problems_of, rows_of, watch

NEWS_MAX = 8


def dev(
    *, groups: int = 1, slaves: int = 1, role: Literal["sync_master", "async_master"] = "sync_master", base_port: int | None = None,
    folder: Path = Path("./trmq-dev"), flush: Literal["sync", "async"] = "async", restart: bool = True,
    set: Annotated[list[str] | None, Parameter(name="--set", negative="", consume_multiple=False)] = None,
) -> int:  # fmt: skip
    """Run a cluster on this machine until Ctrl-C: a process for the name server and for each broker, with a live table.

    Kill any of them: the table says how it died, and it is started again after a moment. What is stored stays in the folder for the
    next time.

    Example: trmq dev
    Example: trmq dev --groups 2 --slaves 2 --role async_master

    Parameters
    ----------
    groups
        Broker groups, named a, b, c ...
    slaves
        Slaves of each group.
    role
        Role of the masters (brokerRole).
    base_port
        Port of the name server; brokers take PORT+10, PORT+20, ... Default: free ports from 9876 and 10911 on.
    folder
        Stores and logs of all nodes.
    flush
        Whether a send is answered before (async) or after (sync) the disk has it (flushDiskType), on masters and slaves.
    restart
        Start a node that died again.
    set
        Any other configuration key of the brokers, as KEY=VALUE; may be repeated.
    """
    shape = Shape(groups, slaves, role, flush, pairs_of(set))
    here = folder_of(folder)
    received: list[int] = []

    async def main() -> None:
        ports = await choose_ports(shape, base_port)
        screen = Screen(here, sys.stdout.isatty())
        fleet = Fleet(plan(shape, here, ports), here, restart, screen.tell)
        screen.fleet = fleet
        async with trio.open_nursery() as outer:
            scope = trio.CancelScope()
            outer.start_soon(end_on_signal, received, scope, fleet)
            with screen:
                async with fleet.open():
                    with scope:
                        await run(fleet, screen)
            outer.cancel_scope.cancel()

    lock = take_folder(here)
    trio.run(main)
    del lock
    return EXIT_INTERRUPTED if received[:1] == [signal.SIGINT] else 0


async def end_on_signal(received: list[int], scope: trio.CancelScope, fleet: Fleet) -> None:
    """The first signal ends the cluster in order; Ctrl-C after it is impatience."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if received and number == signal.SIGINT:
                fleet.hurry()
            received.append(number)
            scope.cancel()


async def run(fleet: Fleet, screen: Screen) -> None:
    """Start all, then watch for ever. Raises `ConfigError` for a node that refuses its configuration."""
    async with connect(fleet.name_server, host=RealHost(screen.folder)) as mq, trio.open_nursery() as nursery:
        for broker_name in sorted({member.node.broker_name for member in fleet.brokers}):
            group = {name: member for name, member in fleet.members.items() if member.node.broker_name == broker_name}
            nursery.start_soon(watch, mq, group, screen.sights)
        nursery.start_soon(screen.keep_fresh)
        await fleet.start()
        for member in fleet.members.values():
            if member.state == "down" and member.process is not None and member.process.returncode == EXIT_USAGE:
                raise ConfigError(f"{member.node.name} does not start: {member.ended}")
        screen.started()
        await trio.sleep_forever()


class Screen:
    """A table that is drawn over and over, with the latest news below it; where that is not possible, the news as plain lines."""

    def __init__(self, folder: Path, live: bool) -> None:
        self.folder = folder
        self.sights: dict[str, Sight] = {}
        self._news: deque[str] = deque(maxlen=NEWS_MAX)
        self._is_live = live
        self._live: Any = None
        self._fleet: Fleet

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    @fleet.setter
    def fleet(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.sights = {member.node.name: Sight() for member in fleet.brokers}

    def __enter__(self) -> None:
        if self._is_live:
            from rich.live import Live

            self._live = Live(auto_refresh=False)
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self.draw()
            self._live.stop()

    def tell(self, member: Member) -> None:
        line = f"{datetime.now():%H:%M:%S} {news_of(member)}"
        if self._live is None:
            print(line, flush=True)
        else:
            self._news.append(line)
            self.draw()

    def started(self) -> None:
        if self._live is None:
            print("\n".join(hints(self.fleet, self.folder)), flush=True)

    async def keep_fresh(self) -> None:
        while True:
            if self._live is not None:
                self.draw()
            await trio.sleep(SAMPLE_S)

    def draw(self) -> None:
        from rich.console import Group
        from rich.text import Text

        from .output import table

        rows = rows_of(self.fleet, self.sights)
        below = "\n".join([*problems_of(self.fleet, self.sights), "", *hints(self.fleet, self.folder), "", *self._news]).lstrip("\n")
        self._live.update(Group(table(rows), Text(below, overflow="ellipsis", no_wrap=True)), refresh=True)


def hints(fleet: Fleet, folder: Path) -> list[str]:
    """How to connect, what to try, how to end it."""
    return [
        f"connect   name server {fleet.name_server}; in a shell: export NAMESRV_ADDR={fleet.name_server}",
        "try       kill -9 PID of any node; trmq ha status; trmq bench send",
        f"stop      Ctrl-C; stores and logs are in {folder}/NODE",
    ]
