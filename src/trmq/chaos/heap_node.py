"""One broker on the heap: its machine, its disk, its clock, and what its shell does in either role. The roles are in files of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.history import Cut, Gone, Holds, Rotten, Serving

from trmq.chaos.heap_disk import HeapDisk
from trmq.chaos.heap_store import SEGMENT, Group, HeapStore, visible
from trmq.chaos.heap_world import MS, Host, S
from trmq.errors import DiskFailed, TrmqError

if TYPE_CHECKING:
    from trmq.chaos.heap import Group as BrokerGroup
    from trmq.chaos.heap import Table
    from trmq.chaos.heap_master import Request
    from trmq.chaos.heap_world import World

FLUSH, CHECKPOINT = 500 * MS, 5 * S


class Role:
    """What a running broker does."""

    def request(self, request: Request) -> None:
        """A send; nobody but a master takes it, and who asks for one learns that."""

    def written(self) -> None: ...
    def flushed(self) -> None: ...
    def closing(self) -> None: ...


class Node(Host):
    """`store` and `role` are there while it is up. `lost`: its machine never starts again."""

    __slots__ = (
        "broker_id", "checkpointing", "disk", "flush_due", "flushing", "group", "latency", "lost", "rate", "role", "rotten", "safe",
        "same", "seen", "skew_ms", "store", "sync_flush", "table", "was_master", "world",
    )  # fmt: skip

    def __init__(self, name: str, number: int, world: World, group: BrokerGroup, table: Table, sync_flush: bool) -> None:
        super().__init__(name, number)
        self.world = world
        self.group = group
        self.table = table
        self.sync_flush = sync_flush
        self.broker_id = int(name[1:])
        self.disk = HeapDisk(world.stream(f"disk/{name}"))
        self.store: HeapStore | None = None
        self.role: Role = Role()
        self.lost = False
        self.was_master = False
        self.rotten: dict[int, tuple[bytes, bytes]] = {}
        """Log offset of each sector that was altered: what stood there, and what does now."""
        self.latency = 0
        self.skew_ms, self.rate = 0, 1.0
        self.flushing: Group | None = None
        self.flush_due = self.checkpointing = False
        self.same = self.safe = 0
        """Below these its log was found equal to its master's, and on the platter."""
        self.seen = (0, 0)

    def wall_ms(self) -> int:
        return 1_600_000_000_000 + int(self.world.now / 1000 * self.rate) + self.skew_ms

    # --- life

    def start(self) -> bool:
        """In the place its group says. False if its store refuses to be opened."""
        world, group = self.world, self.group
        master = group.master is self
        self.powered = True
        self.seen = (0, 0)
        group.look_again(self)
        try:
            self.store = HeapStore(self.disk, self.sync_flush, self.wall_ms)
        except TrmqError as error:
            world.sometimes["start refused" if not isinstance(error, DiskFailed) else "start failed"] += 1
            if self.rotten:  # and with it all that was stored since
                world.note(Rotten(self.name, world.seconds))
            return False
        store, report = self.store, self.store.report
        if report.cut:
            world.sometimes["recovery cut a torn record"] += 1
            if self.rotten:
                world.note(Rotten(self.name, world.seconds))
        self.rot_ends(store.log.max_phy)
        self.up = True
        self.flushing = None
        self.flush_due = self.checkpointing = False
        table = self.table
        role = "SLAVE" if not master else "SYNC_MASTER" if table.sync else "ASYNC_MASTER"
        need, minimum = (table.need, table.minimum) if master and table.sync else (1, 1)
        if table.auto and master:
            need = minimum
        world.note(Serving(
            self.name, group.name, 0 if master else max(1, self.broker_id), role, self.sync_flush, need, minimum, table.gap,
            segment_size=SEGMENT, log_min=store.log.min_phy, log_end=store.log.max_phy, at=world.seconds,
        ))  # fmt: skip
        self.role = group.make_role(self, master)
        return True

    def die(self, how: str) -> bool:
        """The process, or more, is gone. Whether that struck anything."""
        world = self.world
        if how == "kill" and not self.up:
            return False
        world.note(Gone(self.name, how, world.seconds))
        self._end(silent=how not in ("kill", "close"))
        if how in ("os", "power", "machine"):
            self.powered = False
            if self.disk.lose_power(torn=how != "os"):
                world.sometimes["unsynced bytes were at risk"] += 1
        elif how == "disk":
            self.powered = False
            self.disk.destroy()
            self.was_master = False
        self.lost = self.lost or how == "machine"
        return True

    def _end(self, *, silent: bool) -> None:
        self.group.left(self, silent=silent)
        self.world.kill(self, silent=silent)
        self.store, self.role = None, Role()
        self.flushing = None

    def failed(self) -> None:
        """Its disk failed: it stops at once, and nothing more is written."""
        self.world.sometimes["a broker stopped because its disk failed"] += 1
        self.world.hits["io-error"] += 1
        self.die("kill")

    def close(self) -> bool:
        """In order."""
        if not self.up or self.paused:
            return False
        assert self.store is not None
        self.role.closing()
        try:
            if self.flushing is not None:
                self.store.end_flush(self.flushing)
            self.store.close()
        except DiskFailed:
            self.failed()
            return True
        except TrmqError:
            pass  # no room for the last marks: the next start looks for itself
        self.world.note(Gone(self.name, "close", self.world.seconds))
        self._end(silent=False)
        return True

    # --- flushing

    def written(self) -> None:
        """Something was committed: it has to be flushed, and the role to be told."""
        if not self.sync_flush:
            if not self.flush_due:
                self.flush_due = True
                self.world.after(FLUSH, self, self.flush)
        elif self.flushing is None:
            self.flush()
        self.role.written()

    def flush(self) -> None:
        self.flush_due = False
        if self.flushing is None and self.store is not None:
            self.flushing = self.store.begin_flush()
            self.world.after(self.latency + 500 + int(self.world.random() * 2000), self, self.end_flush)

    def end_flush(self) -> None:
        group, self.flushing = self.flushing, None
        if self.store is None or group is None:
            return  # the log was cut meanwhile
        try:
            self.store.end_flush(group)
        except DiskFailed:
            self.failed()
            return
        if not self.checkpointing:
            self.checkpointing = True
            self.world.after(CHECKPOINT, self, self.checkpoint)
        self.role.flushed()
        if self.store is not None and self.store.unflushed:
            if self.sync_flush:
                self.flush()
            elif not self.flush_due:
                self.flush_due = True
                self.world.after(FLUSH, self, self.flush)

    def checkpoint(self) -> None:
        self.checkpointing = False
        assert self.store is not None
        try:
            self.store.checkpoint()
        except TrmqError:
            self.world.sometimes["a checkpoint found no room"] += 1

    # --- what an observer of the disk sees

    def raw(self, start: int, end: int, *, durable: bool = False) -> bytes:
        """Bytes of the log's files, zeros where there are none."""
        view = self.disk.durable_names if durable else self.disk.names_now
        parts = []
        while start < end:
            base = start - start % SEGMENT
            stop = min(end, base + SEGMENT)
            inode = view.get(f"commitlog/{base:020d}")
            layer = b"" if inode is None else inode.durable if durable else inode.cache
            parts.append(bytes(layer[start - base : stop - base]).ljust(stop - start, b"\0"))
            start = stop
        return b"".join(parts)

    def sound(self, start: int, end: int) -> bytes:
        """The same, as if nobody had altered them: what a copy was made of."""
        data = self.raw(start, end)
        if not self.rotten:
            return data
        found = bytearray(data)
        for at, (before, now) in self.rotten.items():
            low, high = max(at, start), min(at + len(now), end)
            if low < high:
                piece = bytes(found[low - start : high - start])
                found[low - start : high - start] = mended(piece, before[low - at : high - at], now[low - at : high - at])
        return bytes(found)

    def rot_ends(self, end: int) -> None:
        """The log was cut at `end`: what is written behind that from now on is not what was altered there."""
        left = {at: (before[: end - at], now[: end - at]) for at, (before, now) in self.rotten.items() if at < end}
        self.rotten = {at: (before, now) for at, (before, now) in left.items() if before != now}

    def undamaged(self) -> tuple[int, bytes]:
        """The log as it would be seen if nobody had altered it."""
        changed = []
        for at, (before, now) in self.rotten.items():
            inode = self.disk.names_now.get(f"commitlog/{at - at % SEGMENT:020d}")
            low = at % SEGMENT
            if inode is not None:
                seen = bytes(inode.cache[low : low + len(now)])
                inode.cache[low : low + len(seen)] = mended(seen, before, now)
                changed.append((inode, low, seen))
        found = visible(self.disk)
        for inode, low, seen in changed:
            inode.cache[low : low + len(seen)] = seen
        return found

    def caught_from(self, other: Node) -> None:
        """What was altered in another member's log may have been copied: a body has its CRC, the rest of a record nothing on the wire."""
        for at, (before, now) in other.rotten.items():
            mine = self.raw(at, at + len(now))
            if at not in self.rotten and mended(mine, before, now) != mine:
                self.rotten[at] = (before, now)
                self.world.sometimes["damage was copied to a slave"] += 1
                self.world.note(Rotten(self.name, self.world.seconds))

    @property
    def end(self) -> int:
        if self.store is not None:
            return self.store.log.max_phy
        start, data = visible(self.disk)
        return start + len(data)

    def observe(self) -> tuple[int, int]:
        """(common, durable): how far its log is its master's, and how much of that would survive losing power. Noted if it changed."""
        master, end = self.group.master, self.end
        high = min(end, master.end)
        if self is master:
            self.same = high
        if self.same < high:
            mine, theirs = self.raw(self.same, high), master.raw(self.same, high)
            if (self.rotten or master.rotten) and mine != theirs:  # a copy may have been made before that, or after
                good, better = self.sound(self.same, high), master.sound(self.same, high)
                mine = bytes(t if m in (t, b) or g in (t, b) else m for m, g, t, b in zip(mine, good, theirs, better, strict=True))
            if mine == theirs:
                self.same = high
            else:
                self.same += next(n for n, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
        common = min(self.same, high)
        if self.sync_flush and self.safe < end:
            kept, seen = self.raw(self.safe, end, durable=True), self.raw(self.safe, end)
            self.safe = end if kept == seen else self.safe + next(n for n, (a, b) in enumerate(zip(kept, seen, strict=True)) if a != b)
        durable = min(self.safe, common)
        if self.seen != (common, durable):
            self.seen = (common, durable)
            self.world.note(Holds(self.name, common, durable, self.world.seconds))
        return common, durable

    def cut(self, at: int, *, aside: bool) -> None:
        """The log is cut at `at`; what lies behind is kept if `aside`. Raises `TrmqError`."""
        assert self.store is not None
        end = self.store.log.max_phy
        dropped = self.raw(at, end)
        if self.flushing is not None:
            self.store.end_flush(self.flushing)
            self.flushing = None
        if aside:
            self.store.set_aside(at)
            kept = self.disk.names_now.get(f"trmq/tail-{at}-{end}.log")
            self.world.note(Cut(self.name, at, end, dropped, None if kept is None else bytes(kept.cache), self.world.seconds))
            self.world.sometimes["an old master set its tail aside"] += 1
        else:
            self.store.cut(at)
        self.rot_ends(at)
        self.group.look_again(self)


def mended(seen: bytes, before: bytes, now: bytes) -> bytes:
    """`seen` with what stood there `before` it was altered to `now`; as it is if that was overwritten since."""
    altered = [n for n, (b, a) in enumerate(zip(before, now, strict=True)) if b != a and n < len(seen)]
    left = [n for n in altered if seen[n] == now[n]]
    if len(left) * 2 <= len(altered):
        return seen
    found = bytearray(seen)
    for n in left:
        found[n] = before[n]
    return bytes(found)


__all__: list[Any] = ["Node", "Role"]
