"""What a CONNECT request and its answer say, judged. Pure and total; called by both ends of a tunnel for each stream.

A request that is wrong costs its stream alone: it is answered with a status, as HTTP/2 leaves the connection whole
(RFC 9113 §8.1.1). What only telemetry reads (baggage, trace, and the reasons in an answer) never fails a request: what cannot be
used is left out.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ztunnel.hbone.errors import RequestError

__all__ = [
    "MAX_AUTHORITY",
    "MAX_REASON",
    "MAX_VALUE",
    "POLICY_HEADER",
    "REASON_HEADER",
    "Answer",
    "Request",
    "parse_answer",
    "parse_request",
]

MAX_AUTHORITY: Final = 512
"""Bytes: a DNS name has at most 253 (RFC 1035 §2.3.4)."""
MAX_VALUE: Final = 8_192
"""Bytes of one header that is kept, repetitions joined (W3C Baggage §3.3.2 asks for 8192)."""
MAX_REASON: Final = 256
"""Characters of a reason or a policy name from the peer."""
REASON_HEADER: Final = b"x-ambient-reason"
POLICY_HEADER: Final = b"x-ambient-policy"

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
"""Field names (RFC 9110 §5.6.2) that HTTP/2 allows: lower case (RFC 9113 §8.2.1)."""
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
"""No control characters (RFC 9110 §5.5); no space at either end (RFC 9113 §8.2.1)."""
_PRINTABLE = re.compile(rb"[!-~](?:[ -~]*[!-~])?")
_AUTHORITY = re.compile(rb"[!-~]+")

_KEPT = (b"baggage", b"forwarded", b"traceparent", b"x-forwarded-network")
"""In the order of :class:`Request`'s fields."""
_JOINED = frozenset((b"baggage", b"forwarded"))
_SINGLE = frozenset((b"traceparent", b"x-forwarded-network", b"host"))
_FORBIDDEN = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
"""Headers of one hop of HTTP/1.1 (RFC 9113 §8.2.2)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A CONNECT request. ``authority``: 1..:data:`MAX_AUTHORITY` printable bytes, not yet understood; headers: b"" when absent."""

    method: bytes
    authority: bytes
    baggage: bytes = b""
    forwarded: bytes = b""
    traceparent: bytes = b""
    x_forwarded_network: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is worth keeping of an answer. ``reason``, ``policy``: printable ASCII of at most :data:`MAX_REASON`, or ""."""

    baggage: bytes
    reason: str
    policy: str


def parse_request(headers: Iterable[tuple[bytes, bytes]]) -> Request:
    """Judge a request's header list. Raises RequestError (BAD_REQUEST)."""
    pseudo: dict[bytes, bytes] = {}
    kept: dict[bytes, bytes] = {}
    regular = False
    for name, value in headers:
        if _VALUE.fullmatch(value) is None:
            raise RequestError(f"header {_shown(name)} has a value that HTTP/2 forbids")
        if name[:1] == b":":
            if regular:
                raise RequestError(f"pseudo header {_shown(name)} after a header")
            if name in pseudo:
                raise RequestError(f"pseudo header {_shown(name)} twice")
            pseudo[name] = value
            continue
        regular = True
        if name in _JOINED:
            kept[name] = kept[name] + b"," + value if name in kept else value
        elif name in _SINGLE:
            if name in kept and name != b"traceparent":
                raise RequestError(f"header {_shown(name)} twice")
            kept[name] = b"" if name in kept else value  # two traces are none (W3C Trace Context §3.2)
        elif name in _FORBIDDEN or (name == b"te" and value != b"trailers"):
            raise RequestError(f"header {_shown(name)} is not allowed in HTTP/2")
        elif _NAME.fullmatch(name) is None:
            raise RequestError(f"header name {_shown(name)} is not lower case or no name at all")
    authority = _connect(pseudo)
    if kept.pop(b"host", authority) != authority:
        raise RequestError("the Host header is not :authority")
    return Request(b"CONNECT", authority, *[_bounded(kept.get(name, b"")) for name in _KEPT])


def _connect(pseudo: dict[bytes, bytes]) -> bytes:
    """The authority of a plain CONNECT (RFC 9113 §8.5)."""
    method = pseudo.pop(b":method", None)
    if method is None:
        raise RequestError("no :method")
    if method != b"CONNECT":
        raise RequestError(f"method {_shown(method)} instead of CONNECT")
    authority = pseudo.pop(b":authority", b"")
    if pseudo:
        raise RequestError(f"CONNECT with {', '.join(_shown(name) for name in list(pseudo)[:4])}")
    if len(authority) > MAX_AUTHORITY or _AUTHORITY.fullmatch(authority) is None:
        raise RequestError("CONNECT without a usable :authority")
    return authority


def parse_answer(headers: Iterable[tuple[bytes, bytes]]) -> Answer:
    """What an answer's headers tell. The first reason and policy count."""
    baggage: list[bytes] = []
    reason = policy = ""
    for name, value in headers:
        if name == b"baggage":
            if _VALUE.fullmatch(value):
                baggage.append(value)
        elif name == REASON_HEADER:
            reason = reason or _text(value)
        elif name == POLICY_HEADER:
            policy = policy or _text(value)
    joined = b",".join(baggage)
    return Answer(_bounded(joined), reason, policy)


def _bounded(value: bytes) -> bytes:
    return value if len(value) <= MAX_VALUE else b""


def _text(value: bytes) -> str:
    return value.decode("ascii") if len(value) <= MAX_REASON and _PRINTABLE.fullmatch(value) else ""


def _shown(text: bytes) -> str:
    """Bytes of the peer's for our log."""
    return ascii(text[:40].decode("latin-1"))
