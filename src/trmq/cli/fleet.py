"""A cluster's processes: started, watched, started again when they die, stopped in order, and never left behind.

A node's standard output is a pipe on which it says when it is up; its standard error goes to `FOLDER/NODE/log`. Its standard input is
a pipe that this process holds and never writes to: should this process vanish, even by `kill -9`, the kernel closes the pipe and
the node ends by itself (`--end-with stdin`). Nodes have sessions of their own, so that Ctrl-C reaches this process alone and the
order of the stop is ours.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import attrs
import trio

from trmq.errors import ConfigError, StoreLocked
from trmq.real_host import RealDisk

from .nodes import PORT_STEP, Node, Shape, wanted_ports

RESTART_S, RESTART_MAX_S = 2.0, 30.0
"""How long a dead node stays down; doubled each time that it did not even come up."""
STOP_GRACE_S = 15.0
LOOKS_MAX = 1000
LOCK = "dev.lock"
TAIL_BYTES = 4096


@attrs.define
class Member:
    """A node and what is going on with it. `state`: waiting, starting, up, down, stopped."""

    node: Node
    log: Path
    state: str = "waiting"
    process: trio.Process | None = None
    ended: str = ""
    starts: int = 0
    came_up: bool = False
    wanted: trio.Event = attrs.field(factory=trio.Event)

    @property
    def settled(self) -> bool:
        return self.state in ("up", "down", "stopped")

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.state in ("starting", "up") else None


class Fleet:
    """`async with fleet.open()`, then `start`; leaving, however, ends all processes. `on_change(member)` follows each change of a state.

    The task that keeps a node is shielded: it ends when its process has ended after `stop`, and not before.
    """

    def __init__(self, nodes: Sequence[Node], folder: Path, restart: bool, on_change: Callable[[Member], None]) -> None:
        self.members = {node.name: Member(node, folder / node.name / "log") for node in nodes}
        self._restart = restart
        self._on_change = on_change
        self._stopping = False
        self._nursery: trio.Nursery
        self._in_a_hurry = trio.Event()
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def name_server(self) -> str:
        return self.members["namesrv"].node.address

    @property
    def brokers(self) -> list[Member]:
        return [member for member in self.members.values() if member.node.is_broker]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as self._nursery:
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await self.stop()

    async def start(self) -> None:
        """Start all, rank by rank; returns when every one has come up or died."""
        for rank in sorted({member.node.rank for member in self.members.values()}):
            mine = [member for member in self.members.values() if member.node.rank == rank]
            for member in mine:
                self._nursery.start_soon(self._keep, member)
            await self.until(partial(all_settled, mine))

    async def kill(self, name: str) -> None:
        """SIGKILL, and wait for the end."""
        member = self.members[name]
        if member.process is not None:
            member.process.kill()
            await self.until(lambda: member.state == "down")

    async def revive(self, name: str) -> None:
        """Start a dead node now; returns when it is up or dead again."""
        member = self.members[name]
        self._change(member, "waiting")
        member.wanted.set()
        await self.until(lambda: member.settled)

    async def until(self, test: Callable[[], bool]) -> None:
        """Wait for a change of state that makes `test` true."""
        while not test():
            await self._waiting.park()

    def hurry(self) -> None:
        """No more patience with nodes that are slow to stop."""
        self._in_a_hurry.set()

    async def stop(self) -> None:
        """End all processes, the last rank first, and wait for them."""
        self._stopping = True
        for member in self.members.values():
            member.wanted.set()  # whoever waits to start it again sees that it is over
        for rank in sorted({member.node.rank for member in self.members.values()}, reverse=True):
            async with trio.open_nursery() as nursery:
                for member in self.members.values():
                    if member.node.rank == rank:
                        nursery.start_soon(self._end, member)

    async def _keep(self, member: Member) -> None:
        """One node's life, or lives."""
        pause = RESTART_S
        with trio.CancelScope(shield=True):
            while not self._stopping:
                await self._live(member)
                pause = RESTART_S if member.came_up else min(pause * 2, RESTART_MAX_S)
                with trio.move_on_after(pause if self._restart else math.inf):
                    await member.wanted.wait()

    async def _live(self, member: Member) -> None:
        """From one start to the end of the process."""
        member.came_up = False
        if not self._stopping:
            member.wanted = trio.Event()
        command = [sys.executable, "-m", "trmq", *member.node.arguments]
        with open_log(member.log) as log:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        member.process = process
        if self._stopping:  # which looked for a process before there was one
            process.terminate()
        member.starts += 1
        self._change(member, "starting")
        assert process.stdout is not None
        await self._listen(member, process.stdout)
        await process.wait()
        await process.stdout.aclose()
        assert process.stdin is not None
        await process.stdin.aclose()
        member.ended = how_it_ended(process.returncode or 0, tail(member.log))
        self._change(member, "stopped" if self._stopping else "down")

    async def _listen(self, member: Member, output: trio.abc.ReceiveStream) -> None:
        """What the node says until it ends; kept in its log."""
        heard = b""
        while data := await output.receive_some():
            with open_log(member.log) as log:
                log.write(data)
            heard += data
            if b" boot success" in heard and heard.endswith(b"\n") and not member.came_up:
                member.came_up = True
                self._change(member, "up")

    async def _end(self, member: Member) -> None:
        process = member.process
        if process is None or process.returncode is not None:
            return
        send(process, signal.SIGTERM)
        send(process, signal.SIGCONT)  # a paused one could not even hear the first
        with trio.move_on_after(STOP_GRACE_S):
            await first_of(process.wait, self._in_a_hurry.wait)
        if process.returncode is None:
            process.kill()
            await process.wait()

    def _change(self, member: Member, state: str) -> None:
        member.state = state
        self._waiting.unpark_all()
        self._on_change(member)


def all_settled(members: Sequence[Member]) -> bool:
    return all(member.settled for member in members)


def send(process: trio.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return as soon as one of them does."""

    async def wait(one: Callable[[], Awaitable[object]]) -> None:
        await one()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for one in waits:
            nursery.start_soon(wait, one)


def open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "ab")


def how_it_ended(code: int, last_words: str) -> str:
    """For people: the signal or the exit code, and the sentence the node left on standard error."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    said = re.findall(r"^trmq: (.+)$", last_words, re.MULTILINE) if code else []
    return f"exit code {code}" + (f": {said[-1]}" if said else "")


def tail(path: Path) -> str:
    """The last lines of a file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def take_folder(folder: Path) -> RealDisk:
    """Make the folder and lock it for this process. Raises `ConfigError`; keep what is returned for as long as the lock is needed."""
    disk = RealDisk(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        disk.lock(LOCK)
    except StoreLocked as error:
        holder = str(error).partition(" holds ")[0]
        raise ConfigError(f"{holder} already runs a cluster in {folder}: stop it with Ctrl-C there, or give another --folder") from None
    except OSError as error:
        raise ConfigError(f"--folder {folder} cannot be used ({error.strerror}): give another one") from None
    return disk


async def choose_ports(shape: Shape, base: int | None) -> dict[str, int]:
    """A free port for each node by its name. With `base` exactly the ones from there on, or `ConfigError` naming the one that is taken."""
    found: dict[str, int] = {}
    shift = 0
    for name, port, count in wanted_ports(shape, base):
        if base is not None:
            taken = [each for each in range(port, port + count) if not await is_free(each)]
            if taken:
                raise ConfigError(f"--base-port {base}: port {taken[0]}, which {name} needs, is in use: give another one")
        else:
            for _ in range(LOOKS_MAX):
                candidates = range(port + shift, port + shift + count)
                if all([each not in found.values() and await is_free(each) for each in candidates]):
                    break
                shift += PORT_STEP
            port += shift
            shift = shift if name != "namesrv" else 0
        found[name] = port
    return found


async def is_free(port: int) -> bool:
    try:
        for listener in await trio.open_tcp_listeners(port, host="127.0.0.1"):
            await listener.aclose()
    except (OSError, OverflowError):
        return False
    return True
