"""How far each group has consumed: `topic@group` -> {queue id: offset}, persisted as Apache's config/consumerOffset.json.

An offset is the next message to consume. A commit to a smaller value is accepted (somebody rewound). The file is written
every 5 s and at a clean stop; a crash takes the commits since, which means redelivery, never a loss. Two more tables
live in memory only: how far each group has *pulled* (for statistics), and offsets an administrator reset: until the
consumer's next pull has been told of a reset, its commits to that queue are ignored.

Source: reference "store" section 9, "client_behaviour" section 13; `ConsumerOffsetManager`.
"""

from __future__ import annotations

from collections.abc import Callable

from trmq.wire.bodies import ConsumerOffsetWrapper, DataVersion, decode_body, encode_body

from .version import next_version

PATH = "config/consumerOffset.json"


class OffsetTable:
    """The consumer offsets of one broker. `dirty` says whether `encode` would give something new."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.version = DataVersion(counter=0, state_version=0, timestamp=now_ms())
        self.table: dict[str, dict[int, int]] = {}
        self.pulled: dict[str, dict[int, int]] = {}
        self._resets: dict[str, dict[int, int]] = {}
        self.dirty = False
        self.kept: dict[str, dict[int, int]] | None = None
        """A slave's: what clients committed here, and the master may not know."""
        self._told: dict[str, dict[int, int]] = {}

    def commit(self, group: str, topic: str, queue_id: int, offset: int) -> bool:
        """Remember that `group` consumed up to `offset` (exclusive); False, and nothing changed, while a reset is pending."""
        key = f"{topic}@{group}"
        if self._resets and queue_id in self._resets.get(key, ()):
            return False
        queues = self.table.get(key)
        if queues is None:
            queues = self.table[key] = {}
        if queues.get(queue_id) != offset:
            queues[queue_id] = offset
            self.dirty = True
            if self.kept is not None:
                self.kept.setdefault(key, {})[queue_id] = offset
        return True

    def follow(self, master: dict[str, dict[int, int]], *, anew: bool) -> dict[str, dict[int, int]]:
        """A slave's: take over what the master says; returns what clients committed here and is ahead of that, for the master to be told.

        What the master changed since it last spoke is taken, be it backwards (somebody reset a group). What it did not change does not
        undo what clients committed here meanwhile. `anew`: the first word after a connection was made; then the greater offset holds,
        since the master may have been restarted with older ones. No offset is ever removed.
        """
        assert self.kept is not None
        ahead: dict[str, dict[int, int]] = {}
        for key, queues in master.items():
            mine, told, kept = self.table.setdefault(key, {}), self._told.get(key, {}), self.kept.get(key, {})
            for queue_id, offset in queues.items():
                own = kept.get(queue_id)
                if own is not None and own > offset and (anew or told.get(queue_id) == offset):
                    ahead.setdefault(key, {})[queue_id] = own
                    continue
                kept.pop(queue_id, None)
                if mine.get(queue_id) != offset:
                    mine[queue_id] = offset
                    self.dirty = True
        for key, kept in self.kept.items():
            for queue_id, own in kept.items():
                if queue_id not in master.get(key, {}):
                    ahead.setdefault(key, {})[queue_id] = own
        self._told = master
        return ahead

    def handed_back(self, key: str, queue_id: int, offset: int) -> None:
        """The master knows this commit of a client now."""
        if self.kept is not None and self.kept.get(key, {}).get(queue_id) == offset:
            del self.kept[key][queue_id]
            if not self.kept[key]:
                del self.kept[key]

    def query(self, group: str, topic: str, queue_id: int) -> int | None:
        """The committed offset, None if the group never committed. A pending reset is what counts already."""
        key = f"{topic}@{group}"
        reset = self._resets.get(key, {}).get(queue_id)
        return reset if reset is not None else self.table.get(key, {}).get(queue_id)

    def commit_pull(self, group: str, topic: str, queue_id: int, offset: int) -> None:
        key = f"{topic}@{group}"
        queues = self.pulled.get(key)
        if queues is None:
            queues = self.pulled[key] = {}
        queues[queue_id] = offset

    def query_pull(self, group: str, topic: str, queue_id: int) -> int | None:
        return self.pulled.get(f"{topic}@{group}", {}).get(queue_id)

    def reset(self, group: str, topic: str, queue_id: int, offset: int) -> None:
        """Move a group: its next pull of the queue is told to go to `offset`."""
        key = f"{topic}@{group}"
        self.table.setdefault(key, {})[queue_id] = offset
        self.pulled.setdefault(key, {})[queue_id] = offset
        self._resets.setdefault(key, {})[queue_id] = offset
        self.dirty = True

    def take_reset(self, group: str, topic: str, queue_id: int) -> int | None:
        """The pending reset of a queue, which is pending no more; None if there is none."""
        if not self._resets:
            return None
        key = f"{topic}@{group}"
        queues = self._resets.get(key)
        if queues is None:
            return None
        offset = queues.pop(queue_id, None)
        if not queues:
            del self._resets[key]
        return offset

    def topics_of(self, group: str) -> list[str]:
        """The topics a group has committed offsets of, sorted."""
        return sorted(topic for topic, _, of in (key.rpartition("@") for key in self.table) if of == group)

    def groups_of(self, topic: str) -> list[str]:
        """The groups that have committed offsets of a topic, sorted."""
        return sorted(group for of, _, group in (key.rpartition("@") for key in self.table) if of == topic)

    def queues_of(self, group: str, topic: str) -> dict[int, int]:
        return self.table.get(f"{topic}@{group}", {})

    def clone(self, source: str, target: str, topic: str) -> None:
        """Give `target` the offsets `source` has committed of `topic`."""
        queues = self.table.get(f"{topic}@{source}")
        if queues:
            self.table[f"{topic}@{target}"] = dict(queues)
            self.dirty = True

    def remove_group(self, group: str) -> None:
        self._remove(lambda _topic, of: of == group)

    def remove_topic(self, topic: str) -> None:
        self._remove(lambda of, _group: of == topic)

    def load(self, data: bytes | None) -> None:
        """Take over the text of the file (None: there is none). Raises `RemoteProtocolError` naming what is wrong."""
        if data is not None:
            found = decode_body(data, ConsumerOffsetWrapper)
            self.table = found.offset_table
            self.version = found.data_version or self.version

    def text(self) -> bytes:
        """What `encode` returns, for somebody who asks: the file is still to be written."""
        return encode_body(ConsumerOffsetWrapper(self.version, self.table))

    def encode(self) -> bytes:
        """The file's text, in Apache's shape (integer keys unquoted). Clears `dirty`."""
        if self.dirty:
            self.version = next_version(self.version, self._now_ms())
            self.dirty = False
        return encode_body(ConsumerOffsetWrapper(self.version, self.table))

    def _remove(self, matches: Callable[[str, str], bool]) -> None:
        for table in (self.table, self.pulled, self._resets):
            for key in [key for key in table if matches(*key.rpartition("@")[::2])]:
                del table[key]
                self.dirty = True
