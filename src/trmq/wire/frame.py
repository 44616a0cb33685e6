"""Cutting a byte stream into frames, without rescanning and without quadratic copying.

`FrameDecoder` keeps at most one incomplete frame and knows how many bytes it still needs; until they are there, new bytes are only
appended. One read may complete many frames. Limits hold as soon as the first eight bytes are known, so a peer cannot make us wait for
a frame that we would refuse. After a fatal error the stream has no meaning any more: `failed` says why, and further bytes are ignored.

Source: reference "protocol" section 1; `NettyDecoder`, `RemotingCommand#decode`.
"""

from __future__ import annotations

import struct

from trmq.errors import RemoteProtocolError

from .codes import JSON, ROCKETMQ, ResponseCode
from .command import Command, decode_binary_header, decode_json_header

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""Largest value of the length field, i.e. without its own four bytes; as in Java."""
HEADER_BYTES_MAX = 1024 * 1024
"""Properties of 32767 bytes, each escaped as six characters, and some room."""


_START = struct.Struct(">II").unpack_from
"""Frame length, and serialize type and header length in one."""


class FrameDecoder:
    """Bytes in, commands out. `failed` is None while the stream makes sense."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX, header_bytes_max: int = HEADER_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.header_bytes_max = header_bytes_max
        self.failed: RemoteProtocolError | None = None
        self._tail = bytearray()  # an incomplete frame
        self._need = 8  # bytes that _tail must hold before another look is worth while

    @property
    def pending(self) -> int:
        """Bytes of the frame that has begun and is not complete."""
        return len(self._tail)

    def feed(self, data: bytes) -> list[Command]:
        """Every command that `data` completes, in order. Never raises; see `failed`."""
        if self.failed is not None:
            return []
        if self._tail:
            self._tail += data
            if len(self._tail) < self._need:
                return []
            data = bytes(self._tail)
            self._tail.clear()
        commands: list[Command] = []
        try:
            at = self._cut(data, commands)
        except RemoteProtocolError as error:
            self.failed = error
            return commands
        if at < len(data):
            self._tail += memoryview(data)[at:]
        return commands

    def _cut(self, data: bytes, commands: list[Command]) -> int:
        """Append the complete frames of `data`; return where the rest begins and set `_need` for it."""
        at, size = 0, len(data)
        while size - at >= 8:
            length, mark = _START(data, at)
            kind, header_size = mark >> 24, mark & 0xFFFFFF
            if length > self.frame_bytes_max or header_size > length - 4 or header_size > self.header_bytes_max or kind > ROCKETMQ:
                raise self._refusal(data[at : at + 8])
            end = at + 4 + length
            if end > size:
                self._need = 4 + length
                return at
            body_at = at + 8 + header_size
            if kind == JSON:
                command = decode_json_header(data[at + 8 : body_at])
                command.serialize = JSON
                command.fields = None
            else:
                command = decode_binary_header(data[at + 8 : body_at])
            command.body = data[body_at:end]
            commands.append(command)
            at = end
        if size - at >= 4 and not 4 <= int.from_bytes(data[at : at + 4], "big") <= self.frame_bytes_max:
            raise self._refusal(data[at : at + 4])
        self._need = 8
        return at

    def _refusal(self, start: bytes) -> RemoteProtocolError:
        """One sentence about a frame that begins like this; the first rule that it breaks."""
        length = int.from_bytes(start[:4], "big", signed=True)
        header_size = int.from_bytes(start[5:8], "big")
        if start[:2] == b"\x16\x03":
            text = "this is a TLS handshake on a plain-text port: switch TLS off in the client"
        elif length < 4:
            text = f"frame length {length} is below 4, the size of the header length field"
        elif length > self.frame_bytes_max:
            text = f"frame length {length} exceeds the limit of {self.frame_bytes_max} bytes (is the peer speaking RocketMQ?)"
        elif start[4] > ROCKETMQ:
            text = f"serialize type {start[4]} is neither 0 (JSON) nor 1 (ROCKETMQ)"
        elif header_size > length - 4:
            text = f"header length {header_size} reaches beyond the frame of {length} bytes"
        else:
            text = f"header length {header_size} exceeds the limit of {self.header_bytes_max} bytes"
        return RemoteProtocolError(text, ResponseCode.SYSTEM_ERROR, fatal=True)
