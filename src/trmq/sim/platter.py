"""What outlives the incarnations of a simulated disk: files in two layers, names in two views, and what losing power does to them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, NamedTuple

from trmq.sim.pages import PAGE, Pages

SECTOR = 512
Kept = Literal["none", "all", "prefix", "random"]
KEPT: tuple[Kept, ...] = ("none", "all", "prefix", "random")



class Dirty(NamedTuple):
    """A write (`data`) or a truncation to `offset` (`data` is None) that is not durable yet."""

    order: int
    offset: int
    data: bytes | None


class Node:
    """A file by itself, without its name."""

    __slots__ = ("cache", "created_size", "dirty", "durable", "order")

    def __init__(self, size: int) -> None:
        self.cache = Pages()
        self.cache.size = size
        self.durable = Pages()
        self.created_size = size  # of the creation; durable with the name or with the first sync, whichever comes first
        self.dirty: list[Dirty] = []
        self.order = 0

    def note(self, offset: int, data: bytes | None) -> None:
        self.order += 1
        self.dirty.append(Dirty(self.order, offset, data))

    def settle(self, order: int, *, lost: bool) -> None:
        """Every write up to `order` leaves the dirty list: to the platter, or (`lost`) to nowhere."""
        done = [entry for entry in self.dirty if entry.order <= order]
        self.dirty = [entry for entry in self.dirty if entry.order > order]
        if lost:
            return
        self.settle_creation()
        for entry in done:
            _apply(self.durable, entry)

    def settle_creation(self) -> None:
        if self.created_size > self.durable.size:
            self.durable.resize(self.created_size)
        self.created_size = 0

    def copy(self) -> Node:
        other = Node(0)
        other.cache, other.durable = self.cache.copy(), self.durable.copy()
        other.created_size, other.dirty, other.order = self.created_size, list(self.dirty), self.order
        return other


class Change(NamedTuple):
    """A change of names that takes effect as a whole or not at all: path → file, None for "gone"."""

    folders: frozenset[str]
    names: dict[str, Node | None]


class Platter:
    """What outlives incarnations: files, both views of their names, and the changes of names that are not durable."""

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.durable_names: dict[str, Node] = {}
        self.changes: list[Change] = []
        self.folders: set[str] = {""}
        self.locks: dict[str, object] = {}

    def nodes(self) -> list[Node]:
        """Every file under any view, in a stable order."""
        seen: dict[int, Node] = {}
        for view in (self.names, self.durable_names):
            for path in sorted(view):
                seen.setdefault(id(view[path]), view[path])
        for change in self.changes:
            for node in change.names.values():
                if node is not None:
                    seen.setdefault(id(node), node)
        return list(seen.values())

    def copy(self) -> Platter:
        copies = {id(node): node.copy() for node in self.nodes()}
        other = Platter()
        other.names = {path: copies[id(node)] for path, node in self.names.items()}
        other.durable_names = {path: copies[id(node)] for path, node in self.durable_names.items()}
        other.changes = [
            Change(change.folders, {path: node and copies[id(node)] for path, node in change.names.items()}) for change in self.changes
        ]
        other.folders = set(self.folders)
        return other


def _apply(layer: Pages, entry: Dirty) -> None:
    if entry.data is None:
        layer.resize(entry.offset)
    else:
        layer.write(entry.offset, entry.data)


def apply_names(view: dict[str, Node], change: Change) -> None:
    for path, node in change.names.items():
        if node is None:
            view.pop(path, None)
        else:
            view[path] = node
            node.settle_creation()


def lose_power(platter: Platter, rng: random.Random, kept: Kept | None, *, torn: bool = True) -> None:
    """What was not synced survives by chance: sector by sector and torn, or (`torn` False: the system crashed, the power did not go) as
    whole pages of the page cache."""
    for node in platter.nodes():
        how: Kept = kept if kept is not None else rng.choice(KEPT)
        if how == "all" or (how != "none" and rng.random() < 0.5):
            node.settle_creation()
        for entry in _survivors(node.dirty, how, rng, torn):
            _apply(node.durable, entry)
        if how == "random" and rng.random() < 0.5 and node.cache.size > node.durable.size:
            node.durable.resize(node.cache.size)  # the size reached the disk, the data did not: zeros
        node.cache, node.dirty, node.created_size = node.durable.copy(), [], 0
    for change in platter.changes:
        if kept == "all" or (kept != "none" and rng.random() < 0.5):
            apply_names(platter.durable_names, change)
    platter.changes = []
    platter.names = dict(platter.durable_names)
    platter.folders = {"", *(folder for path in platter.names for folder in parents_of(path))}


def _survivors(dirty: list[Dirty], how: Kept, rng: random.Random, torn: bool) -> list[Dirty]:
    """The part of the unsynced writes that the power loss leaves, cut into sectors, in order."""
    if how == "none":
        return []
    if how == "all":
        return dirty
    sectors = [piece for entry in dirty for piece in _sectors(entry, SECTOR if torn else PAGE)]
    if how == "prefix":
        sectors = sectors[: rng.randrange(len(sectors) + 1)]
    else:
        sectors = [piece for piece in sectors if rng.random() < 0.5]
    if torn and sectors and rng.random() < 0.5:
        last = sectors[-1]
        if last.data is not None:
            sectors[-1] = last._replace(data=last.data[: rng.randrange(len(last.data) + 1)])
    return sectors


def _sectors(entry: Dirty, grain: int) -> Iterator[Dirty]:
    if entry.data is None:
        yield entry
        return
    at = 0
    while at < len(entry.data):
        length = min(grain - (entry.offset + at) % grain, len(entry.data) - at)
        yield Dirty(entry.order, entry.offset + at, entry.data[at : at + length])
        at += length


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def parents_of(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]
