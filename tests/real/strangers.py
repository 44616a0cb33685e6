"""What a port gets to read that is none of its business."""

from __future__ import annotations

import random
import struct

from process.server import frame, request


def words(dice: random.Random, remoting: bool) -> list[bytes]:
    """Each is the whole talk of one connection."""
    junk = [b"", b"\0" * 8, b"\xff" * 64, dice.randbytes(dice.randrange(1, 4000)), b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]  # fmt: skip
    if remoting:
        good = request(310, {"a": "p", "b": "T"}, b"no queue")
        return [*junk, good[: dice.randrange(len(good))], frame(b"{"), frame(b"[1]"), frame(dice.randbytes(40), b"x"),
                struct.pack(">II", 1 << 30, 100), struct.pack(">I", 0), request(65_000), request(11, {"topic": "T"})]  # fmt: skip
    far = 1 << dice.choice((40, 50, 62))
    return [*junk, struct.pack(">q", far), struct.pack(">q", -1), struct.pack(">q", far) * 50, struct.pack(">i", 7)]
