"""A command: one request or response, with its header's fields still in the form they came in.

**Shape.** Frame = length 4 | serialize type 1 | header length 3 | header | body. A JSON header is one object (reference "protocol"
section 2), a binary one a fixed part of 21 bytes with remark and fields (section 3). Both say the same things.

A broker reads millions of these, so decoding has two stages: the outer object once (`extFields` stays raw text), then, in the handler
that knows what it wants, the fields into a typed struct, numbers converted on the way. What strict typing refuses (bare numbers and
booleans, nulls, a language nobody knows) is tried again by a slower and more tolerant path, as Java is tolerant there.

The two answers sent most are formatted as text, not assembled from objects. Members are in the order in which Java writes them.

Source: `RemotingCommand`, `RocketMQSerializable`; reference "protocol" sections 1-4 and traps 3-9.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from trmq.errors import LocalProtocolError, RemoteProtocolError

from .codes import FLAG_ONEWAY, FLAG_RESPONSE, JSON, LANGUAGES, ROCKETMQ, VERSION, ResponseCode
from .headers import Header, Int32, header_decoder, header_fields

Buffer = bytes | bytearray | memoryview
H = TypeVar("H", bound=Header)

_NO_RAW = msgspec.Raw()
_PREFIX = struct.Struct(">II")
_FIXED = struct.Struct(">hBhiii")
"""Binary header up to and with the remark length: code, language, version, opaque, flag, remark length."""
_KEY = struct.Struct(">h")
_VALUE = struct.Struct(">i")

_quote = msgspec.json.Encoder().encode


class Command(msgspec.Struct, gc=False, rename={"raw": "extFields", "fields": " fields", "body": " body", "serialize": " serialize"}):
    """One decoded frame. Ends, offsets and times in its fields are what the header type says."""

    code: Int32
    opaque: Int32
    flag: Int32 = 0
    language: str = "JAVA"
    version: Int32 = 0
    remark: str | None = None
    raw: msgspec.Raw = _NO_RAW
    """The extFields of a JSON header as they came, until somebody asks; private to this module."""
    fields: dict[str, str] | None = None
    """The extFields as a dict, once somebody asked (or given by who makes a command by hand)."""
    body: bytes = b""
    serialize: int = JSON

    @property
    def is_response(self) -> bool:
        return self.flag & FLAG_RESPONSE != 0

    @property
    def is_oneway(self) -> bool:
        return self.flag & FLAG_ONEWAY != 0

    @property
    def ext(self) -> dict[str, str]:
        """The header's extFields, {} when absent. Raises `RemoteProtocolError` if they are no object."""
        if self.fields is None:
            self.fields = _tolerant_fields(self.raw)
        return self.fields

    def header(self, kind: type[H]) -> H:
        """The extFields as `kind`. Raises `RemoteProtocolError` (INVALID_PARAMETER) naming the field that is missing or bad."""
        if self.fields is None:
            try:
                return header_decoder(kind).decode(self.raw)
            except (ValueError, RecursionError):
                pass  # ask the tolerant path, which also words the complaint
        return _tolerant_header(self.ext, kind)


def _tolerant_fields(raw: msgspec.Raw) -> dict[str, str]:
    """Fields as Java reads them: bare numbers and booleans count as their text, nulls as absent."""
    if not bytes(raw):
        return {}
    try:
        found = msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"extFields cannot be read: {error}", ResponseCode.INVALID_PARAMETER) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RemoteProtocolError(
            f"extFields must be an object of texts, not {type(found).__name__}", ResponseCode.INVALID_PARAMETER
        )
    return {name: value if isinstance(value, str) else _quote(value).decode() for name, value in found.items() if value is not None}


def _tolerant_header(ext: dict[str, str], kind: type[H]) -> H:
    try:
        return msgspec.convert(ext, kind, strict=False)
    except ValueError as error:
        complaint = error
    try:  # Java's binary form writes null and "" alike, and some clients fill what they don't use with ""
        return msgspec.convert({name: value for name, value in ext.items() if value}, kind, strict=False)
    except ValueError:
        pass
    raise RemoteProtocolError(f"{kind.__name__} header: {_plain(complaint, kind)}", ResponseCode.INVALID_PARAMETER)


def _plain(error: Exception, kind: type[Header]) -> str:
    """The complaint, with a one-letter wire name followed by what it stands for."""
    text = str(error)
    for attribute, wire_name in header_fields(kind):
        if len(wire_name) == 1 and (f"field `{wire_name}`" in text or text.endswith(f"$.{wire_name}`")):
            return f"{text} ({attribute})"
    return text


# ------------------------------------------------------------------------------------------------------------------ decoding

_outer = msgspec.json.Decoder(Command)


def decode_json_header(header: bytes) -> Command:
    """The command of a JSON header, without its body. Raises `RemoteProtocolError` (fatal) if it is none."""
    try:
        return _outer.decode(header)
    except (ValueError, RecursionError) as error:
        complaint = error
    try:
        found = msgspec.json.decode(header, type=dict[str, Any])
        language, remark = found.get("language"), found.get("remark")
        found["language"] = language if isinstance(language, str) else "OTHER"
        found["remark"] = remark if isinstance(remark, str) or remark is None else str(remark)
        ext = found.pop("extFields", None)
        kept = {name: found[name] for name in _OUTER_NAMES if found.get(name) is not None}
        command = msgspec.convert(kept, Command, strict=False)
        command.raw = msgspec.Raw(_quote(ext)) if ext is not None else _NO_RAW
        return command
    except (ValueError, RecursionError):
        raise RemoteProtocolError(f"the JSON header is no command: {complaint}", ResponseCode.SYSTEM_ERROR, fatal=True) from None


_OUTER_NAMES = ("code", "opaque", "flag", "language", "version", "remark")


def decode_binary_header(header: bytes) -> Command:
    """The command of a ROCKETMQ header, without its body. Raises `RemoteProtocolError` (fatal) if lengths do not add up."""
    size = len(header)
    if size < 21:
        raise _bad_binary(f"{size} bytes are fewer than its fixed part of 21")
    code, language, version, opaque, flag, remark_size = _FIXED.unpack_from(header)
    at = 17 + remark_size
    if remark_size < 0 or at + 4 > size:
        raise _bad_binary(f"remark length {remark_size} does not fit a header of {size} bytes")
    end = at + 4 + int.from_bytes(header[at : at + 4], "big", signed=True)
    if end < at + 4 or end > size:
        raise _bad_binary(f"extFields length {end - at - 4} does not fit a header of {size} bytes")
    try:
        remark = header[17:at].decode() if remark_size else None
        fields = _binary_fields(header, at + 4, end)
    except UnicodeDecodeError as error:
        raise _bad_binary(f"a text is not UTF-8: {error.reason}") from None
    return Command(code, opaque, flag, _names.get(language, "OTHER"), version, remark, fields=fields, serialize=ROCKETMQ)


_names = {number: name for name, number in LANGUAGES.items()}


def _binary_fields(header: bytes, at: int, end: int) -> dict[str, str]:
    fields: dict[str, str] = {}
    key_size_at, value_size_at = _KEY.unpack_from, _VALUE.unpack_from
    while at < end:
        if end - at < 6:
            raise _bad_binary(f"extFields end with {end - at} bytes that are no field")
        (key_size,) = key_size_at(header, at)
        value_at = at + key_size + 6
        if key_size < 0 or value_at > end:
            raise _bad_binary(f"key length {key_size} does not fit extFields of {end - at} more bytes")
        (value_size,) = value_size_at(header, value_at - 4)
        next_at = value_at + value_size
        if value_size < 0 or next_at > end:
            raise _bad_binary(f"value length {value_size} does not fit extFields of {end - value_at} more bytes")
        fields[str(header[at + 2 : value_at - 4], "utf-8")] = str(header[value_at:next_at], "utf-8")
        at = next_at
    return fields


def _bad_binary(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"the binary header is damaged: {reason}", ResponseCode.SYSTEM_ERROR, fatal=True)


# ------------------------------------------------------------------------------------------------------------------ encoding


def fields_of(header: Header | Mapping[str, str] | None) -> dict[str, str]:
    """Wire names to texts, as Java's `toString` writes them; None members are left out."""
    if header is None:
        return {}
    if not isinstance(header, Header):
        return dict(header)
    found = {}
    for attribute, wire_name in header_fields(type(header)):
        value = getattr(header, attribute)
        if value is not None:
            found[wire_name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _frame(header: bytes, serialize: int, body: Buffer) -> bytes:
    size = len(header)
    return b"".join((_PREFIX.pack(4 + size + len(body), serialize << 24 | size), header, body))


def _json_header(
    code: int, opaque: int, flag: int, language: str, version: int, remark: str | None, ext: dict[str, str] | None
) -> bytes:
    fields = b"" if ext is None else b'"extFields":%b,' % _quote(ext)
    note = b"" if remark is None else b'"remark":%b,' % _quote(remark)
    return b'{"code":%d,%b"flag":%d,"language":"%b","opaque":%d,%b"serializeTypeCurrentRPC":"JSON","version":%d}' % (
        code, fields, flag, language.encode(), opaque, note, version,
    )


def _binary_header(
    code: int, opaque: int, flag: int, language: str, version: int, remark: str | None, ext: dict[str, str] | None
) -> bytes:
    note = (remark or "").encode()
    parts: list[bytes] = []
    for name, value in (ext or {}).items():
        key, text = name.encode(), value.encode()
        parts += (_KEY.pack(len(key)), key, _VALUE.pack(len(text)), text)
    fields = b"".join(parts)
    number = (code + 0x8000 & 0xFFFF) - 0x8000  # int16 on the wire: larger codes are cut, as Java cuts them (trap 9)
    head = _FIXED.pack(number, LANGUAGES.get(language, LANGUAGES["OTHER"]), version, opaque, flag, len(note))
    return b"".join((head, note, _VALUE.pack(len(fields)), fields))


def encode_request(
    code: int, opaque: int, fields: Header | Mapping[str, str] | None = None, body: Buffer = b"", *,
    oneway: bool = False, serialize: int = JSON, language: str = "PYTHON", version: int = VERSION,
) -> bytes:
    """A request frame. extFields are always there, since brokers read them unguarded. Raises `LocalProtocolError` for a code that
    a binary header cannot carry."""
    flag = FLAG_ONEWAY if oneway else 0
    if serialize == JSON:
        return _frame(_json_header(code, opaque, flag, language, version, None, fields_of(fields)), JSON, body)
    if code > 32767:
        raise LocalProtocolError(f"request code {code} does not fit a binary header (at most 32767); use the JSON form")
    return _frame(_binary_header(code, opaque, flag, language, version, None, fields_of(fields)), ROCKETMQ, body)


def encode_response(
    request: Command, code: int, fields: Header | Mapping[str, str] | None = None, *, remark: str | None = None, body: Buffer = b""
) -> bytes:
    """The answer to `request`: its opaque and its header form, our version, extFields always present (trap 4)."""
    make = _json_header if request.serialize == JSON else _binary_header
    return _frame(make(code, request.opaque, FLAG_RESPONSE, "JAVA", VERSION, remark, fields_of(fields)), request.serialize, body)


_TAIL = f',"serializeTypeCurrentRPC":"JSON","version":{VERSION}}}'


def send_ok(
    request: Command, code: int, msg_id: str, queue_id: int, queue_offset: int, extra: str = "", *,
    region: str = "DefaultRegion", trace_on: bool = True, more: Mapping[str, str] | None = None,
) -> bytes:
    """The answer to a stored message (codes 0, 10, 11, 12).

    `msg_id` holds the comma-joined offset message ids, `queue_offset` belongs to the first. `extra` is the transactionId (Apache
    sends the UNIQ_KEY there), "" leaves it out; `more` takes rare fields such as recallHandle or batchUniqId.
    """
    trace = "true" if trace_on else "false"
    if request.serialize != JSON or more:
        fields = {"queueId": str(queue_id), "transactionId": extra, "msgId": msg_id, "TRACE_ON": trace, "MSG_REGION": region}
        fields["queueOffset"] = str(queue_offset)
        if not extra:
            del fields["transactionId"]
        return encode_response(request, code, fields | dict(more or {}))
    if extra:
        extra = f'"transactionId":{_quote(extra).decode()},'
    header = (
        f'{{"code":{code},"extFields":{{"queueId":"{queue_id}",{extra}"msgId":"{msg_id}","TRACE_ON":"{trace}","MSG_REGION":"{region}",'
        f'"queueOffset":"{queue_offset}"}},"flag":1,"language":"JAVA","opaque":{request.opaque}{_TAIL}'
    ).encode()
    size = len(header)
    return _PREFIX.pack(4 + size, size) + header


def pull_answer(
    request: Command, code: int, remark: str | None, suggest: int, next_offset: int, min_offset: int, max_offset: int,
    slices: Sequence[Buffer], size: int,
) -> bytes:
    """The answer to a pull: `slices` are whole records, `size` bytes together, copied once. `remark` is the store status ("FOUND").

    `suggest` is the broker id to pull from next; `next_offset` is what the client adopts, also with codes 19, 20, 21 (trap 5).
    """
    if request.serialize != JSON:
        header = _binary_header(
            code, request.opaque, FLAG_RESPONSE, "JAVA", VERSION, remark,
            {
                "suggestWhichBrokerId": str(suggest), "nextBeginOffset": str(next_offset),
                "maxOffset": str(max_offset), "minOffset": str(min_offset),
            },
        )  # fmt: skip
    else:
        note = "" if remark is None else f',"remark":{_quote(remark).decode()}'
        header = (
            f'{{"code":{code},"extFields":{{"suggestWhichBrokerId":"{suggest}","nextBeginOffset":"{next_offset}",'
            f'"maxOffset":"{max_offset}","minOffset":"{min_offset}"}},"flag":1,"language":"JAVA","opaque":{request.opaque}{note}{_TAIL}'
        ).encode()
    length = len(header)
    return b"".join((_PREFIX.pack(4 + length + size, request.serialize << 24 | length), header, *slices))
