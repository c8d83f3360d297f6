"""Errors of HBONE sessions; each carries the HTTP/2 error code that tells the peer and the reason that tells our operator."""

from enum import IntEnum
from typing import TYPE_CHECKING

from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.hbone.events import Event

__all__ = ["ErrorCode", "RequestError", "SessionError", "TlsError"]


class ErrorCode(IntEnum):
    """HTTP/2 error codes (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class SessionError(Exception):
    """The peer broke the protocol; the session is over. GOAWAY with ``code`` is already queued when this is raised.

    ``events``: what the same bytes told before. Streams that ended by them are no longer among the session's.
    """

    def __init__(self, code: ErrorCode, detail: str, reason: CloseReason = CloseReason.TUNNEL_PROTOCOL) -> None:
        super().__init__(f"{code.name}: {detail}")
        self.code = code
        self.detail = detail
        self.reason = reason
        self.events: list[Event] = []


class RequestError(Exception):
    """A request that is no CONNECT we can serve; its stream is answered with the status of ``reason``, the tunnel goes on."""

    reason = CloseReason.BAD_REQUEST

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TlsError(Exception):
    """The TLS session failed; ``reason`` says of which kind, ``detail`` has names and OpenSSL's word."""

    def __init__(self, reason: CloseReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
