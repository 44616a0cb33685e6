"""Java for the interop tests: the official jars (resolved once by Maven), the compiled driver, and the driver as a Python object."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".cache" / "interop"
MISSING = "Java 11+ and Maven are needed for the interop tests"


def available() -> bool:
    """True where a JDK and Maven are on the path; a toolchain that is there but fails is a failure, not a skip."""
    return all(shutil.which(tool) for tool in ("java", "javac", "mvn"))


def jars() -> Path:
    """The folder with Apache RocketMQ 5.4.0 and all it needs, by the coordinates in `java/pom.xml`."""
    done = CACHE / "lib" / ".complete"
    with locked():
        if not done.exists():
            (CACHE / "lib").mkdir(parents=True, exist_ok=True)
            run("mvn", "-q", "-B", "-f", str(HERE / "java" / "pom.xml"), "dependency:copy-dependencies",
                f"-DoutputDirectory={CACHE / 'lib'}", "-DincludeScope=runtime")
            done.touch()
    return CACHE / "lib"


def classes() -> Path:
    """The compiled programs of `java/`, compiled again when a source is newer."""
    library = jars()
    target = CACHE / "classes"
    sources = sorted((HERE / "java").glob("*.java"))
    with locked():
        stamp = target / ".complete"
        if not stamp.exists() or any(source.stat().st_mtime > stamp.stat().st_mtime for source in sources):
            target.mkdir(parents=True, exist_ok=True)
            run("javac", "-nowarn", "-cp", f"{library}/*", "-d", str(target), *map(str, sources))
            stamp.touch()
    return target


class locked:
    """One process at a time resolves and compiles."""

    def __enter__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        self.file = open(CACHE / "lock", "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.file.close()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class DriverError(Exception):
    """The Java client threw; the text is its exception."""


class Driver:
    """The official Java client as an object: `driver(do="send", topic=..., messages=[...])` returns what the client saw."""

    def __init__(self, name_server: str, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = open(folder / "driver.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["java", "-Xms128m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Duser.home={folder}",
             "-Drocketmq.log.level=warn", *options, "-cp", f"{classes()}:{jars()}/*", "Driver", name_server],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=dict(os.environ, LC_ALL="C.UTF-8"),
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._line(60) == {"ready": True}

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _line(self, seconds: float) -> Any:
        line = self.lines.get(timeout=seconds)
        assert line is not None, "the Java driver ended; see driver.log"
        return json.loads(line)

    def __call__(self, **command: Any) -> Any:
        """Run one command; raises `DriverError` with the Java exception's text."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self._line(float(command.get("seconds", 0)) + 120)
        if "error" in answer:
            raise DriverError(answer["error"])
        return answer.get("ok")

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()
