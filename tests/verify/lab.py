"""Real clusters whose brokers can be killed and started again by shell commands, as an operator would give them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from interop.cluster import Broker, Group

BROKEN = Path(__file__).parent / "broken.py"


class Judged(NamedTuple):
    """What one run of `trmq verify` left."""

    code: int
    out: str
    err: str
    report: dict[str, Any]

    @property
    def states(self) -> dict[str, str]:
        return {clause["clause"]: clause["state"] for clause in self.report["clauses"]}

    @property
    def broken(self) -> set[str]:
        return {clause for clause, state in self.states.items() if state == "violated"}

    def clause(self, id: str) -> dict[str, Any]:
        return next(clause for clause in self.report["clauses"] if clause["clause"] == id)


class Lab(Group):
    """A group of real processes. `commands(broker)` gives what strikes it and what mends it, for a shell."""

    def pid_file(self, broker: Broker) -> Path:
        return broker.folder / "pid"

    def note_pids(self) -> None:
        for broker in self.brokers:
            if broker.process is not None:
                self.pid_file(broker).write_text(str(broker.process.pid))

    def script(self, name: str, text: str) -> str:
        path = self.folder / f"{name}.sh"
        path.write_text(text)
        return f"sh {shlex.quote(str(path))}"

    def kill(self, broker: Broker) -> str:
        return f"kill -9 $(cat {shlex.quote(str(self.pid_file(broker)))})"

    def signal(self, broker: Broker, name: str) -> str:
        return f"kill -{name} $(cat {shlex.quote(str(self.pid_file(broker)))})"

    def restart(self, broker: Broker) -> str:
        command = shlex.join(broker.command)
        env = " ".join(f"{key}={shlex.quote(value)}" for key, value in broker.env.items())
        output, pid = shlex.quote(str(broker.folder / "output")), shlex.quote(str(self.pid_file(broker)))
        return self.script(f"start-{broker.folder.name}", f"{env} nohup {command} >>{output} 2>&1 </dev/null &\necho $! >{pid}\n")

    def end(self) -> None:
        """Kill whatever runs now: what was started here, and what the commands started."""
        for broker in self.brokers:
            for pid in {broker.process.pid if broker.process else 0, int(self.pid_file(broker).read_text() or 0)} - {0}:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.stop()


def broken(broker: Broker, bug: str) -> Broker:
    """The same broker with a seeded bug."""
    at = broker.command.index("-m")
    broker.command[at : at + 2] = [str(BROKEN), bug]
    broker.env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return broker


def begin(name_server: str, *options: str, report: Path) -> subprocess.Popen[str]:
    """`trmq verify` as a process."""
    command = [sys.executable, "-m", "trmq", "verify", "-n", name_server, "--report", str(report), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], report: Path, seconds: float = 60) -> Judged:
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err, err
    return Judged(process.returncode, out, err, json.loads(report.read_text()) if report.exists() else {})


def verify(name_server: str, folder: Path, *options: str, seconds: float = 60) -> Judged:
    report = folder / "report.json"
    return finish(begin(name_server, *options, report=report), report, seconds)


def started(lab: Lab) -> Lab:
    lab.start()
    lab.note_pids()
    return lab
