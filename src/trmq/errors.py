"""Every error that trmq raises on purpose: the class says who is to blame, `definite` whether the operation surely did not happen.

`TrmqError` is all a caller needs to catch. Expected outcomes (put status, pull status) are enum values, not exceptions.
"""

from __future__ import annotations


class TrmqError(Exception):
    """Base of all. `definite` is True when the operation certainly had no effect; False when its outcome is unknown."""

    definite: bool = True


class ConfigError(TrmqError):
    """A configuration key, file or flag is wrong. The message names it and the remedy."""


class LocalProtocolError(TrmqError):
    """We were about to break the protocol: a wrong argument of ours or of our caller."""


class RemoteProtocolError(TrmqError):
    """The peer broke the protocol. `response_code` is what to answer; `fatal` says the stream cannot go on."""

    def __init__(self, message: str, response_code: int = 1, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.response_code = response_code
        self.fatal = fatal


class RemoteRefused(TrmqError):
    """The peer answered with an error code. `definite` follows the code's meaning."""

    def __init__(self, code: int, remark: str | None, *, definite: bool = True) -> None:
        super().__init__(f"{remark or 'refused'} (code {code})")
        self.code = code
        self.remark = remark
        self.definite = definite


class ConnectionLost(TrmqError):
    """The connection ended or could not be opened while a request was under way."""

    def __init__(self, message: str, *, definite: bool = False) -> None:
        super().__init__(message)
        self.definite = definite


class RequestTimeout(TrmqError):
    """No answer within the deadline; the peer may have done the work."""

    definite = False


class SendFailed(TrmqError):
    """A send ended without a stored-message answer. `unknown` says it may have been stored; look it up by `unique_key`."""

    def __init__(self, message: str, unique_key: str, *, unknown: bool) -> None:
        super().__init__(message)
        self.unique_key = unique_key
        self.unknown = unknown
        self.definite = not unknown


class RouteNotFound(TrmqError):
    """No name server knows a broker for the topic."""


class LogError(TrmqError):
    """Base of everything the store raises."""


class DiskFull(LogError):
    """No space left; nothing of the operation is kept."""


class DiskFailed(LogError):
    """The disk refused a write or a sync. Never retried: the broker stops."""

    definite = False


class StoreLocked(LogError):
    """Another process holds the store."""


class StoreMismatch(LogError):
    """The store on disk does not fit the configuration (segment size, unknown format)."""


class CorruptRecord(LogError):
    """A damaged record where a good one must be: refused, never cut away. Carries file and offset."""


class OffsetOutOfRange(LogError):
    """The offset is not in the retained part of the log or queue."""


class MessageIllegal(LogError):
    """The message itself cannot be stored (too long, bad topic, bad properties)."""


class ReplicaError(TrmqError):
    """Base of what goes wrong between a master and its slaves."""
