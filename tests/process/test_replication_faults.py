"""A master and its slave as real processes and what goes wrong around them: every refusal is a sentence, no answer promises too much."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interop.cluster import Broker, Group, commit_log_end, slaves_at
from interop.stores import Log, check_equal
from process.server import PULL, SEND, Answer, Peer, pull_fields, send_fields, trmq, wait_until
from process.test_disk_full import KEEP, disk  # noqa: F401  # a fixture
from trmq.record import decode_records

OK, UNAVAILABLE, NO_SLAVE, SLAVE_TIMEOUT = 0, 14, 11, 12
MIB = 1 << 20
QUICK = {"mappedFileSizeCommitLog": MIB, "slaveTimeout": 500}


@contextmanager
def pair(folder: Path, name_servers: int = 1, start_slave: bool = True, **settings: object) -> Iterator[tuple[Group, Broker, Broker]]:
    """A SYNC_MASTER and one slave that is connected. At the end nobody may have left a traceback."""
    group = Group(folder / "group", name_servers=name_servers, **QUICK | settings)
    master = group.add("master", brokerRole="SYNC_MASTER")
    slave = group.add("slave", brokerRole="SLAVE", brokerId=1)
    try:
        group.start(*([master, slave] if start_slave else [master]))
        if start_slave:
            connected(master)
        yield group, master, slave
        for broker in group.brokers:
            assert "Traceback" not in broker.output(), broker.output()[-4000:]
    finally:
        group.stop()


def connected(master: Broker, slaves: int = 1) -> None:
    """The master knows of so many; none: it has noticed that its slave is gone."""
    def so() -> bool:
        try:
            return slaves_at(master.port) == slaves
        except OSError:
            return False  # it is not listening yet

    wait_until(so, f"{slaves} slaves are connected", 30)


def send(broker: Broker, body: bytes = b"x", properties: str = "", peer: Peer | None = None) -> Answer:
    if peer is not None:
        return peer.ask(SEND, send_fields("t", 0, properties), body)
    with Peer(broker.port) as own:
        return send(broker, body, properties, own)


def bodies(broker: Broker) -> list[bytes]:
    """Queue 0 from its beginning, as this broker serves it."""
    found: list[bytes] = []
    with Peer(broker.port) as peer:
        while (answer := peer.ask(PULL, pull_fields("t", 0, len(found)))).code == OK:
            found += [bytes(message.body) for message in decode_records(answer.body)]
    return found


def refused(broker: Broker, *words: str) -> str:
    """It ends by itself with one line that holds `words`; the line."""
    assert broker.process is not None
    assert broker.process.wait(30) in (1, 2), broker.output()
    line = broker.output().splitlines()[-1]
    assert all(word in line for word in words), broker.output()
    return line


def says(broker: Broker, *words: str) -> str:
    """It goes on and has said a line with `words`; the line."""
    def said() -> str | None:
        return next((line for line in broker.output().splitlines() if all(word in line for word in words)), None)

    return str(wait_until(said, f"{broker.folder.name} says {words}: {broker.output()[-500:]}"))


def test_a_second_master_of_one_name_is_refused(tmp_path: Path) -> None:
    with pair(tmp_path) as (group, master, _):
        second = group.add("second", brokerRole="SYNC_MASTER", namesrvAddr=group.name_server)
        second.choose_ports()
        second.start()
        print(refused(second, f"127.0.0.1:{master.port}", "broker-a"))
        assert send(master).code == OK


def test_a_second_slave_of_one_id_is_refused(tmp_path: Path) -> None:
    with pair(tmp_path) as (group, master, slave):
        second = group.add("second", brokerRole="SLAVE", brokerId=1, namesrvAddr=group.name_server)
        second.choose_ports()
        second.start()
        print(refused(second, f"127.0.0.1:{slave.port}"))
        assert slaves_at(master.port) == 1
        assert send(master).code == OK


def test_a_slave_of_another_cluster_gets_nothing(tmp_path: Path) -> None:
    with pair(tmp_path, start_slave=False) as (_, master, slave):
        assert send(master).code == NO_SLAVE
        slave.settings["brokerClusterName"] = "elsewhere"
        slave.start()
        print(says(slave, "elsewhere", "DefaultCluster", f"127.0.0.1:{master.port}"))
        nothing_for(slave, master)


def test_a_slave_with_another_segment_size_gets_nothing(tmp_path: Path) -> None:
    with pair(tmp_path, start_slave=False) as (_, master, slave):
        assert send(master).code == NO_SLAVE
        slave.settings["mappedFileSizeCommitLog"] = 2 * MIB
        slave.start()
        print(says(slave, str(MIB), str(2 * MIB)))
        print(says(master, str(MIB), str(2 * MIB)))
        nothing_for(slave, master)


def nothing_for(slave: Broker, master: Broker) -> None:
    """It runs, but is no holder, and its log is empty."""
    time.sleep(0.5)
    assert slave.running
    assert slaves_at(master.port) == 0
    assert send(master).code == NO_SLAVE
    assert Log(slave.store).end == 0


def test_a_slave_that_is_longer_than_its_master_is_never_served(tmp_path: Path) -> None:
    """The master lost its disk. Both say the two offsets; `trmq store resync` is the way out."""
    with pair(tmp_path) as (_, master, slave):
        assert [send(master, b"%d" % n).code for n in range(20)] == [OK] * 20
        slave.stop()
        longer = Log(slave.store).end
        master.kill()
        shutil.rmtree(master.store)
        master.start_and_wait()
        assert send(master, b"new").code == NO_SLAVE
        shorter = commit_log_end(master.port)
        slave.start()
        print(says(slave, str(longer), str(shorter), "trmq store resync"))
        print(says(master, str(longer), str(shorter)))
        for n in range(30):
            assert send(master, b"new %d" % n).code == NO_SLAVE, "a slave with another history acknowledges nothing"
        assert commit_log_end(master.port) > longer, "longer than the slave by now, and still another history"
        time.sleep(1)
        assert send(master).code == NO_SLAVE
        slave.stop()
        before = Log(slave.store)
        assert before.end == longer
        done = trmq("store", "resync", slave.store, "--yes")
        assert done.code == 0, done.err
        slave.start_and_wait()
        connected(master)
        assert send(master).code == OK
        assert bodies(slave) == bodies(master)
        slave.stop()
        check_equal(master.store, slave.store)


def test_a_full_disk_on_the_slave(disk: Path, tmp_path: Path) -> None:  # noqa: F811
    """The master stores what it gets and says that no slave has it; with room again the slave catches up by itself."""
    with pair(tmp_path, start_slave=False, **KEEP) as (_, master, slave):
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(16 * MIB))
        slave.store = disk / "store"
        slave.start_and_wait()
        connected(master)
        with Peer(master.port) as peer:
            codes: Counter[int] = Counter()

            def short() -> bool:
                codes[send(master, b"m" * 200_000, peer=peer).code] += 1
                return bool(codes[NO_SLAVE] + codes[SLAVE_TIMEOUT])

            wait_until(short, "the slave's disk is full", 60)
            assert set(codes) <= {OK, NO_SLAVE, SLAVE_TIMEOUT}
            for _ in range(5):
                assert send(master, b"m" * 200_000, peer=peer).code in (NO_SLAVE, SLAVE_TIMEOUT)
            print(codes, says(slave, "space"))
            assert slave.running
            assert bodies(slave) == bodies(master)[: codes[OK]]
            ballast.unlink()
            wait_until(lambda: send(master, b"again", peer=peer).code == OK, "it catches up and acknowledges", 60)
        assert bodies(slave) == bodies(master)
        slave.stop()
        check_equal(master.store, slave.store)
        slave.kill()


def test_a_full_disk_on_the_master(disk: Path, tmp_path: Path) -> None:  # noqa: F811
    """Sends are refused; what is there is served and on the slave; with room again both go on."""
    with pair(tmp_path, start_slave=False, **KEEP) as (_, master, slave):
        master.stop()
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(16 * MIB))
        master.store = disk / "store"
        master.start_and_wait()
        slave.start_and_wait()
        connected(master)
        with Peer(master.port) as peer:
            codes: Counter[int] = Counter()

            def full() -> bool:
                codes[send(master, b"m" * 200_000, peer=peer).code] += 1
                return codes[UNAVAILABLE] > 3

            wait_until(full, "the master's disk is full", 60)
            assert set(codes) <= {OK, UNAVAILABLE}
            assert len(bodies(master)) == len(bodies(slave)) == codes[OK]
            assert slaves_at(master.port, 0) == 1
            ballast.unlink()
            wait_until(lambda: send(master, b"again", peer=peer).code == OK, "it takes messages again", 60)
        assert bodies(slave) == bodies(master)
        master.kill()
        os.sync()


def test_name_servers_go_one_by_one(tmp_path: Path) -> None:
    """With one left a slave can join; with none left who is connected goes on, and a slave comes back to the master it knows."""
    with pair(tmp_path, name_servers=2) as (group, master, slave):
        with Peer(master.port) as producer, Peer(slave.port) as consumer:
            assert send(master, b"0", peer=producer).code == OK
            group.name_servers[0].kill()
            slave.kill()
            connected(master, 0)
            assert send(master, b"1", peer=producer).code == NO_SLAVE
            slave.start()
            connected(master)
        with Peer(master.port) as producer:
            assert send(master, b"2", peer=producer).code == OK
            with Peer(slave.port) as consumer:
                group.name_servers[1].kill()
                for n in range(3, 20):
                    assert send(master, b"%d" % n, peer=producer).code == OK
                    wait_until(lambda n=n: consumer.ask(PULL, pull_fields("t", 0, n)).code == OK, "the slave has it")  # type: ignore[misc]
            master.kill()
        master.start()
        connected(master)
        assert send(master, b"20").code == OK, "the slave remembers where the master was"
        group.start_name_servers()
        for broker in (master, slave):
            wait_until(broker.answers, "registered again", 60)


def test_a_paused_slave(tmp_path: Path) -> None:
    """SIGSTOP while messages flow: nothing is acknowledged, nobody else waits, the master's memory does not grow, then it catches up."""
    with pair(tmp_path, mappedFileSizeCommitLog=64 * MIB) as (_, master, slave):
        assert [send(master, b"%d" % n).code for n in range(100)] == [OK] * 100
        slave.pause()
        memory = private_bytes(master)
        codes: Counter[int] = Counter()
        with sending(master, codes, 4, b"m" * 100_000), Peer(master.port) as other:
            end, slowest = time.monotonic() + 3, 0.0
            while time.monotonic() < end:
                begin = time.monotonic()
                assert send(master, b"w", "WAIT\1false", peer=other).code == OK
                assert other.ask(PULL, pull_fields("t", 0, 0)).code == OK
                slowest = max(slowest, time.monotonic() - begin)
        assert set(codes) <= {SLAVE_TIMEOUT, NO_SLAVE}, f"nothing can be acknowledged: {codes}"
        assert codes[SLAVE_TIMEOUT] >= 4
        assert slowest < 0.5, "who does not wait for the slave does not wait"
        with Peer(master.port) as fast:  # 200 MB that the slave does not take
            for _ in range(2_000):
                assert send(master, b"m" * 100_000, "WAIT\1false", peer=fast).code == OK
        grown = private_bytes(master) - memory
        print(f"{codes}, slowest other request {slowest * 1000:.0f} ms, {grown >> 20} MiB more memory after 200 MB")
        assert grown < 32 * MIB
        slave.resume()
        wait_until(lambda: send(master, b"again").code == OK, "it catches up and acknowledges", 60)
        slave.stop()
        check_equal(master.store, slave.store, 200 * 1_000_000)


def test_a_slow_slave(tmp_path: Path) -> None:
    """It runs only a fifth of the time: acknowledgements come late, but each is true."""
    with pair(tmp_path, slaveTimeout=3_000) as (_, master, slave):
        codes: Counter[int] = Counter()
        with sending(master, codes, 4, b"m" * 1_000):
            for _ in range(20):
                slave.pause()
                acked = codes[OK]
                time.sleep(0.08)
                # what was under way when it stopped, at most one for each sender
                assert codes[OK] <= acked + 4, "acknowledged while the slave stood still"
                slave.resume()
                time.sleep(0.02)
        assert set(codes) == {OK}
        assert codes[OK] > 100
        wait_until(lambda: slaves_at(master.port, 0) == 1, "it has everything")
        slave.stop()
        check_equal(master.store, slave.store)


def test_a_manual_switch_keeps_the_old_masters_surplus_in_a_file(tmp_path: Path) -> None:
    """The slave becomes master; the old master comes back as its slave, sets aside what only it had, and follows."""
    with pair(tmp_path) as (_, old, new):
        assert [send(old, b"both %d" % n).code for n in range(10)] == [OK] * 10
        new.kill()
        connected(old, 0)
        common = Log(new.store).end
        assert [send(old, b"only here %d" % n).code for n in range(5)] == [NO_SLAVE] * 5
        old.kill()
        surplus = Log(old.store).end
        tail = Log(old.store).read(common, surplus - common)
        new.settings |= {"brokerRole": "SYNC_MASTER", "brokerId": 0}
        old.settings |= {"brokerRole": "SLAVE", "brokerId": 1}
        new.start_and_wait()
        assert send(new, b"after").code == NO_SLAVE
        old.start_and_wait()
        connected(new)
        assert send(new, b"with both").code == OK
        (kept,) = (old.store / "trmq").glob("tail-*.log")
        assert re.fullmatch(rf"tail-0*{common}-0*{surplus}\.log", kept.name)
        assert kept.read_bytes() == tail
        print(says(old, kept.name))
        expected = [b"both %d" % n for n in range(10)] + [b"after", b"with both"]
        assert bodies(new) == expected
        wait_until(lambda: bodies(old) == expected, "the old master serves the new history", 10)
        old.stop()
        new.stop()
        check_equal(old.store, new.store)


def private_bytes(broker: Broker) -> int:
    assert broker.process is not None
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{broker.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@contextmanager
def sending(broker: Broker, codes: Counter[int], senders: int, body: bytes) -> Iterator[None]:
    """So many clients send one message after the other; `codes` counts the answers."""
    stopping = threading.Event()

    def run() -> None:
        with Peer(broker.port) as peer:
            while not stopping.is_set():
                codes[send(broker, body, peer=peer).code] += 1

    threads = [threading.Thread(target=run, daemon=True) for _ in range(senders)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(20)
