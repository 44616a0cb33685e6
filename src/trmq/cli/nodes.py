"""What a cluster on one machine consists of: names, ports, folders and command lines of its nodes. Plain data, nothing runs here.

Groups are called a, b, c ...; a node is called after its group and its place in it: `a-0` is the master of group a, `a-1` its first slave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_lowercase

import attrs

from trmq.errors import ConfigError

GROUPS_MAX, SLAVES_MAX = len(ascii_lowercase), 9
NAMESRV_PORT, BROKER_PORT, PORT_STEP = 9876, 10911, 10
"""Where looking for free ports begins, and how far apart brokers are. A broker also takes the next port, for its slaves."""
SMALL = {"mappedFileSizeCommitLog": "67108864", "maxHashSlotNum": "500000", "maxIndexNum": "2000000"}
"""Files of a size that suits a laptop: a broker allocates the next ones ahead of time."""


@attrs.frozen
class Node:
    """One process of the cluster. `arguments` come after `trmq`; `rank` is its turn when all start, and the last to start stops first."""

    name: str
    role: str
    port: int
    rank: int
    arguments: tuple[str, ...]
    broker_name: str = ""
    broker_id: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def is_broker(self) -> bool:
        return self.broker_name != ""


@attrs.frozen
class Shape:
    """How many of what. Raises `ConfigError` naming the flag."""

    groups: int = 1
    slaves: int = 1
    role: str = "sync_master"
    flush: str = "async"
    settings: Mapping[str, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.groups <= GROUPS_MAX:
            raise ConfigError(f"--groups {self.groups}: give 1 to {GROUPS_MAX}")
        if not 0 <= self.slaves <= SLAVES_MAX:
            raise ConfigError(f"--slaves {self.slaves}: give 0 to {SLAVES_MAX}")
        if self.role == "sync_master" and self.slaves == 0:
            raise ConfigError("--slaves 0: a sync_master waits for a slave with every message: add one, or say --role async_master")

    def members(self) -> Iterator[tuple[str, int]]:
        """(broker name, broker id) of every broker, group by group, masters first."""
        for group in ascii_lowercase[: self.groups]:
            for member in range(1 + self.slaves):
                yield group, member


def wanted_ports(shape: Shape, base: int | None) -> list[tuple[str, int, int]]:
    """(node, port, how many ports from there) in the order of `plan`; with `base` None these are where looking begins."""
    first = NAMESRV_PORT if base is None else base
    brokers = BROKER_PORT if base is None else base + PORT_STEP
    found = [("namesrv", first, 1)]
    found += [(f"{group}-{member}", brokers + PORT_STEP * at, 2) for at, (group, member) in enumerate(shape.members())]
    last = found[-1][1] + 1
    if first < 1 or last > 65535:
        raise ConfigError(f"--base-port {base}: {len(found)} nodes need ports from there to {last}, and ports end at 65535")
    return found


def plan(shape: Shape, folder: Path, ports: Mapping[str, int]) -> list[Node]:
    """Every node of the cluster, in the order in which they start."""
    end = ("--end-with", "stdin")
    namesrv_port = ports["namesrv"]
    own = ("namesrv", "--listen-port", str(namesrv_port), "--bind", "127.0.0.1", "--store", str(folder / "namesrv" / "store"), *end)
    nodes = [Node("namesrv", "name server", namesrv_port, 0, own)]
    settings = [part for key, value in (SMALL | dict(shape.settings)).items() for part in ("--set", f"{key}={value}")]
    for group, member in shape.members():
        name = f"{group}-{member}"
        role, port = "slave" if member else shape.role, ports[name]
        arguments = (
            "serve", "--role", role, "--broker-name", group, "--broker-id", str(member), "--namesrv", f"127.0.0.1:{namesrv_port}",
            "--listen-port", str(port), "--bind", "127.0.0.1", "--flush", shape.flush,
            "--store", str(folder / name / "store"), *end, *settings,
        )  # fmt: skip
        nodes.append(Node(name, role.upper(), port, 2 if member else 1, arguments, group, member))
    return sorted(nodes, key=lambda node: node.rank)
