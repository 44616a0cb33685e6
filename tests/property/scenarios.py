"""Short stories with one fault each, as histories to be judged. Every clause has witnesses in them; seeded bugs must show in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from specs.history import Damaged, History, Image, Put, QueuesRemoved, StartRefused

from property.image import segments
from property.lab import SMALL, Lab, Op, crash_points
from property.sweep import AFTER, RETENTION, WORKLOAD, crashes_in_recovery, survivors, sweep
from trmq.errors import LogError
from trmq.log import service
from trmq.sim.determinism import run_seeded

Scenario = Callable[[str, bool], Iterator[History]]
"""(seed, patient) → histories."""
SCENARIOS: dict[str, Scenario] = {}
LOOK: tuple[Op, ...] = (("view",), ("pull_all",))


def scenario(make: Scenario) -> Scenario:
    SCENARIOS[make.__name__] = make
    return make


def labs(seed: str, patient: bool) -> Iterator[Lab]:
    for sync_flush in (True, False):
        yield Lab(seed, sync_flush=sync_flush, patient=patient)


@scenario
def quiet_days(seed: str, patient: bool) -> Iterator[History]:
    """Work, close, look again; nothing fails. Then the same after losing power while switched off."""
    for lab in labs(seed, patient):
        lab.live(WORKLOAD)
        lab.live(AFTER)
        lab.crash("power", kept="none")
        lab.live(LOOK)
        yield lab.history("quiet")


@scenario
def old_segments_go(seed: str, patient: bool) -> Iterator[History]:
    for lab in labs(seed, patient):
        lab.live(RETENTION)
        lab.live((*AFTER, ("clean",), *LOOK))
        lab.live()
        yield lab.history("retention")


@scenario
def crash_anywhere(seed: str, patient: bool) -> Iterator[History]:
    """Every 7th crash point of the workload."""
    for sync_flush in (True, False):
        yield from sweep(seed, WORKLOAD, sync_flush=sync_flush, dice=2, step=7, first=8, patient=patient)


@scenario
def crash_while_writing(seed: str, patient: bool) -> Iterator[History]:
    """Many messages and no sync for long, then a kill or a power cut: much of the log is unproven."""
    busy: tuple[Op, ...] = (("send", 3), ("sleep", 6), ("send", 2), ("batch", 3), ("send", 3), ("checkpoint",), ("pull_new",), ("send", 3))
    for sync_flush in (False, True):
        for die in range(12):
            lab = Lab(f"{seed}/{die}", sync_flush=sync_flush, patient=patient)
            lab.live(busy, end="leave")
            lab.crash("kill" if die % 3 == 0 else "power", dice=die)
            lab.live(AFTER, end="leave")
            lab.crash("kill" if die % 2 else "power", dice=die)
            lab.live((("send", 4), *LOOK))
            lab.live()
            yield lab.history(f"die={die}")


@scenario
def crash_in_recovery(seed: str, patient: bool) -> Iterator[History]:
    for sync_flush in (True, False):
        yield from crashes_in_recovery(seed, WORKLOAD, 120, sync_flush=sync_flush, patient=patient, step=5)


@scenario
def failing_sync(seed: str, patient: bool) -> Iterator[History]:
    """The log's sync fails once: pages look clean and are not durable. The process stops and starts; then the power goes (S15)."""
    for count in (3, 1, 5):
        for lab in labs(f"{seed}/{count}", patient):
            lab.live((("send", count), ("sleep", 1), ("no_sync",)))
            lab.crash("kill")
            lab.live(LOOK, end="leave")
            lab.crash("power", kept="none")
            lab.live(LOOK)
            yield lab.history("failed sync")


@scenario
def full_disk(seed: str, patient: bool) -> Iterator[History]:
    """A group is refused for want of space after a part of it was written; then a kill, or one more message and power cuts."""
    for die in range(16):
        lab = Lab(f"{seed}/{die}", sync_flush=True, patient=patient)
        lab.live((("send", 3), ("send", 1 + die % 8), ("no_space", 4), *([("send", 1)] if die % 2 else [])), end="leave")
        for cut in range(12):
            other = lab.fork().crash("power" if die % 2 else "kill", dice=cut, kept="random" if cut % 2 else None)
            if not die % 2 and cut:
                other.live(end="leave")
                other.crash("power", dice=cut, kept="random")
            other.live((("send", 1), *LOOK))
            other.live()
            yield other.history(f"die={die} cut={cut}")


@scenario
def old_checksums(seed: str, patient: bool) -> Iterator[History]:
    """A refused group's checksums were cut off; a power cut must not bring them back against the message that took its place."""
    for die in range(6):
        lab = Lab(f"{seed}/{die}", sync_flush=True, patient=patient)
        lab.live((("send", 2 + die), ("no_space", 2), ("send", 1)), end="leave")
        for cut in range(25):
            other = lab.fork().crash("power", dice=cut, kept="random")
            other.live(end="leave")
            yield other.history(f"die={die} cut={cut}")


@scenario
def config_replaced(seed: str, patient: bool) -> Iterator[History]:
    """A crash in every disk call while a config file is made and twice replaced."""
    saves: tuple[Op, ...] = (("save_config",),) * 3
    first = Lab(seed, sync_flush=False)
    first.live(end="leave")
    for fuse, dead in crash_points(seed, saves, sync_flush=False, first=first.disk.calls, patient=patient):
        for way, lab in survivors(dead, fuse, dice=4):
            lab.live((("save_config",),), end="leave")
            lab.crash("power", dice=fuse)
            lab.live()
            yield lab.history(f"fuse={fuse} {way}")


@scenario
def stalled_sync(seed: str, patient: bool) -> Iterator[History]:
    for lab in labs(seed, patient):
        lab.live((("send", 2), ("stall",), ("send", 1), ("idle",)))
        lab.live(LOOK)
        yield lab.history("stalled sync")


@scenario
def close_while_flushing(seed: str, patient: bool) -> Iterator[History]:
    """A clean stop arrives while the disk is still busy with a sync; then the power goes."""
    for lab in labs(seed, patient):
        lab.live((("send", 3), ("slow_disk", 4.0), ("send", 2, 40, False), ("sleep", 1)), end="close at once")
        lab.crash("power", kept="none")
        lab.live(LOOK)
        yield lab.history("close while flushing")


@scenario
def first_messages_lost(seed: str, patient: bool) -> Iterator[History]:
    """A power cut takes the whole first segment but not the key index; the store begins anew."""
    for die in range(16):
        lab = Lab(f"{seed}/{die}", sync_flush=False, patient=patient)
        lab.live((("send", 4), ("checkpoint",), ("send", 2)), end="leave")
        lab.crash("power", dice=die)
        lab.live((("send", 2), ("batch", 3), ("send", 1)))
        lab.live()
        yield lab.history(f"die={die}")


@scenario
def queues_deleted(seed: str, patient: bool) -> Iterator[History]:
    """Queues and key index are deleted between two starts, after a close and after a kill."""
    for end in ("close", "leave"):
        for lab in labs(seed, patient):
            lab.live(WORKLOAD)
            lab.live(end=end)
            if end == "leave":
                lab.crash("kill")
            lab.disk.on_call = None  # what follows is not our process
            for path in lab.disk.paths():
                if path.startswith(("consumequeue/", "index/")):
                    lab.disk.remove(path)
            for folder in ("consumequeue/A/0", "consumequeue/A/1", "consumequeue/A", "consumequeue/Bé/0", "consumequeue/Bé"):
                lab.disk.remove(folder)
            lab.disk.on_call = lab._on_call
            lab.events.append(QueuesRemoved())
            lab.live((), end="leave")
            lab.crash("kill")
            lab.live(AFTER)
            yield lab.history(f"queues deleted after {end}")


@scenario
def two_processes(seed: str, patient: bool) -> Iterator[History]:
    """While one process serves, another tries to start on the same store (S17)."""
    lab = Lab(seed, sync_flush=True, patient=patient)
    lab.live((("send", 3), ("pull_new",)), end="leave")
    other = lab.fork()
    other.disk, other.events, other.process_id = lab.disk.another_process(), lab.events, 5000
    other._watch(other.disk)

    async def intrude() -> None:
        try:
            await service.open_store(other, other.config)  # type: ignore[arg-type]
        except LogError as error:
            other.events.append(StartRefused(str(error)))

    run_seeded(intrude, seed)
    assert patient or isinstance(lab.events[-1], StartRefused)
    lab.crash("kill")
    lab.live(LOOK)
    yield lab.history("two processes")


def damaged(lab: Lab, at: int, how: str, bit: int) -> Lab:
    """Behind the store's back byte `at` of the log changes: a flipped bit, or everything from there on is zeroed or cut off."""
    size = lab.config.segment_size
    path = segments(lab.disk)[at // size * size]
    hit = next(e for e in lab.events if isinstance(e, Put) and e.phy_offset <= at < e.end)
    if how == "flip":
        lab.disk.flip(path, at % size, bit)
    elif how == "zero":
        lab.disk.rot(path, at % size, bytes(size - at % size))
    else:
        node = lab.disk._platter.names[path]
        for layer in (node.cache, node.durable):
            layer.resize(at % size)
    lab.events.append(Damaged(hit.id, proven=False))
    return lab


def damage(seed: str, patient: bool, ways: tuple[str, ...], step: int = 1) -> Iterator[History]:
    """Every `step`-th byte of the last two records, unproven: earlier records are kept, it goes (P-REC-4)."""
    base = Lab(seed, sync_flush=False, patient=patient)
    base.live((("send", 2), ("send", 2)), end="leave")
    base.crash("kill")
    puts = [e for e in base.events if isinstance(e, Put)]
    for how in ways:
        for at in range(puts[-2].phy_offset, puts[-1].end, step):
            if how != "flip" and not any(base.disk.peek(segments(base.disk)[0])[at : puts[-1].end]):
                continue  # nothing but zeros is destroyed: no damage
            lab = damaged(base.fork(), at, how, at % 8)
            lab.live((("send", 1), ("pull_new",)), end="leave")
            lab.crash("kill")
            lab.live()
            yield lab.history(f"{how} from byte {at}")


@scenario
def damaged_tail(seed: str, patient: bool) -> Iterator[History]:
    yield from damage(seed, patient, ("flip", "zero", "cut"), step=7)


@scenario
def damaged_proven(seed: str, patient: bool) -> Iterator[History]:
    """The same below the durable mark: corruption, not a torn tail; the start is refused and nothing is cut away (S21)."""
    base = Lab(seed, sync_flush=True, patient=patient)
    base.live((("send", 2), ("send", 2), ("send", 2)), end="leave")
    base.crash("kill")
    puts = [e for e in base.events if isinstance(e, Put)]
    for put in puts[:4]:
        for at in range(put.phy_offset, put.end, 23):
            lab = damaged(base.fork(), at, "flip", at % 8)
            lab.events[-1] = Damaged(put.id, proven=True)
            before = {path: lab.disk.peek(path) for path in lab.disk.paths() if path.startswith("commitlog/")}
            lab.live()
            assert patient or before == {path: lab.disk.peek(path) for path in before}
            yield lab.history(f"proven byte {at}")


@scenario
def stale_tail(seed: str, patient: bool) -> Iterator[History]:
    """Four records of one size; the second is damaged. A new one in its place must not make the old third and fourth reappear (S6)."""
    lab = Lab(seed, sync_flush=False, patient=patient)
    lab.live([("exactly", "A", 0, 60)] * 4, end="leave")
    lab.crash("kill")
    puts = [e for e in lab.events if isinstance(e, Put)]
    damaged(lab, puts[1].phy_offset + 100, "flip", 3)
    lab.live([("exactly", "A", 0, 60)], end="leave")
    lab.crash("kill")
    lab.live(LOOK)
    yield lab.history("stale tail")


@scenario
def index_runs_ahead(seed: str, patient: bool) -> Iterator[History]:
    """The dirty-start hole: the mark moved, then the power went, over and over (S19)."""
    for die in range(8):
        for lab in labs(f"{seed}/{die}", patient):
            lab.live((("send", 5), ("sleep", 6), ("send", 4), ("checkpoint",), ("send", 2)), end="leave")
            lab.crash("power", dice=die)
            lab.live((("send", 3), ("flush",), ("checkpoint",), ("send", 2)), end="leave")
            lab.crash("power", dice=die + 100)
            lab.live(LOOK)
            yield lab.history(f"die={die}")


def last_image(history: History) -> Image:
    return list(history.all(Image))[-1]


__all__ = ["SCENARIOS", "SMALL", "Scenario", "damage", "last_image"]
