"""`trmq verify`: judge any cluster, trmq's or Apache's, by what its clients can see of it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import trio
from cyclopts import Parameter

from trmq.errors import ConfigError
from trmq.real_host import RealHost
from trmq.verify import Expect, Plan, Result, to_dict, to_text
from trmq.verify import verify as run_verify
from trmq.verify.plan import check

from . import EXIT_INTERRUPTED
from .session import NameServer, addresses

Fault = Literal["kill", "close", "os", "power", "disk", "machine"]


def verify(
    *, namesrv: NameServer = None, topic: str = "", duration: float = 30.0, rate: float = 200.0, kill: str = "", restart: str = "",
    pause: str = "", resume: str = "", period: float = 10.0, down: float = 3.0, fault: Fault = "kill",
    expect: Expect = Expect.auto, patience: float = 60.0, keep: bool = False, report: Path | None = None,
    output: Annotated[Literal["text", "json"], Parameter(name=["--output", "-o"])] = "text",
) -> int:
    """Send messages through a cluster, cause faults with your own commands, read everything back, and judge what was promised.

    The topic and the consumer group are the run's own and are removed at the end. Exit code 0: every clause that was exercised held;
    6: one was violated; 1: the cluster did not come back (what was seen until then is reported); 3: no name server; 130: interrupted.

    Example: trmq verify -n 127.0.0.1:9876 --duration 60
    Example: trmq verify --kill 'systemctl kill -s KILL broker' --restart 'systemctl start broker' --report verify.json

    Parameters
    ----------
    topic
        Name of the topic to make; it must not exist. Otherwise a random one.
    duration
        Seconds for which messages are sent.
    rate
        Messages a second.
    kill
        Shell command that takes a broker away; nobody but you says which.
    restart
        Shell command that brings it back. It may stay in the foreground.
    pause
        Shell command that makes a broker stand still, as kill -STOP.
    resume
        Shell command that lets it go on.
    period
        Seconds from one fault to the next.
    down
        Seconds between the command that strikes and the one that mends.
    fault
        What --kill amounts to; what SEND_OK promises depends on it. kill: the process. os, power: the machine's memory too.
        disk, machine: all that broker has.
    expect
        What SEND_OK says. auto: what the documents say of the broker's role (SYNC_MASTER: a slave has it too). master: the master has it.
        slave: a slave has it too.
    patience
        Seconds without any answer after which the cluster counts as dead.
    keep
        Leave the topic and the group.
    report
        Write the report as JSON to this file too.
    output
        text or json.
    """
    plan = check(Plan(
        namesrv=addresses(namesrv), topic=topic, duration=duration, rate=rate, kill=kill, restart=restart, pause=pause, resume=resume,
        period=period, down=down, fault=fault, expect=expect, patience=patience, keep=keep))
    if report is not None and not report.absolute().parent.is_dir():
        raise ConfigError(f"--report {report}: there is no folder {report.absolute().parent}")
    logging.getLogger("trmq").setLevel(logging.CRITICAL)  # that a broker is gone is the report's to say
    result = trio.run(_main, plan, RealHost(os.path.expanduser("~/.trmq/client")))
    if result is None:
        print("trmq: interrupted before anything was sent", file=sys.stderr)
        return EXIT_INTERRUPTED
    found = to_dict(result)
    if report is not None:
        report.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(json.dumps(found) if output == "json" else to_text(result))
    return result.exit_code


async def _main(plan: Plan, host: RealHost) -> Result | None:
    """The first signal ends the sending, the second one everything."""
    interrupt = trio.Event()
    begun = trio.current_time()
    result: Result | None = None

    def say(text: str) -> None:
        print(f"{trio.current_time() - begun:6.1f} s  {text}", file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            await nursery.start(_watch, interrupt, scope)
            result = await run_verify(plan, host, interrupt, say)
        nursery.cancel_scope.cancel()
    return result


async def _watch(interrupt: trio.Event, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if interrupt.is_set():
                scope.cancel()
            interrupt.set()
