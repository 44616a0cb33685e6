"""A slave written from the protocol's description alone (reference "ha" section 1): no handshake, no identity, 8-byte reports."""

from __future__ import annotations

import trio

from trmq.chaos.cluster import SEGMENT, Cluster
from trmq.chaos.disks import DiskLog

REPORT_S = 5.0


class BareSlave:
    """Writes what it is sent, record or not, reports after each piece and every five seconds, dials again when it is cut off."""

    def __init__(self, lab: Cluster, name: str) -> None:
        self.lab = lab
        self.name = name
        self.start: int | None = None
        self.end = 0
        self.disk = lab.world.host(name, "10.0.1.9").disk
        lab.logs[name] = DiskLog(self.disk, SEGMENT)
        lab.roles[name] = 9

    def _write(self, data: bytes) -> None:
        while data:
            base = self.end // SEGMENT * SEGMENT
            piece, data = data[: base + SEGMENT - self.end], data[base + SEGMENT - self.end :]
            self.disk.open(f"commitlog/{base:020d}", SEGMENT).write_at(self.end - base, piece)
            self.end += len(piece)

    async def run(self) -> None:
        while True:
            try:
                stream = await self.lab.dial_ha("a0", self.name)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._report, stream)
                    await self._receive(stream)
                    nursery.cancel_scope.cancel()
            except* (trio.BrokenResourceError, OSError):
                pass
            await trio.sleep(1)

    async def _report(self, stream: trio.abc.Stream) -> None:
        while True:
            await stream.send_all(self.end.to_bytes(8, "big"))
            await trio.sleep(REPORT_S)

    async def _receive(self, stream: trio.abc.Stream) -> None:
        rest = bytearray()
        while data := await stream.receive_some():
            rest += data
            while len(rest) >= 12:
                offset, size = int.from_bytes(rest[:8], "big"), int.from_bytes(rest[8:12], "big")
                if len(rest) < 12 + size:
                    break
                body = bytes(rest[12 : 12 + size])
                del rest[: 12 + size]
                assert self.start is None or offset == self.end
                if size:
                    if self.start is None:
                        self.start = self.end = offset
                    self._write(body)
                    await stream.send_all(self.end.to_bytes(8, "big"))
