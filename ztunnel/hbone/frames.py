"""HTTP/2 frames as bytes: types, flags, and encoders for the few that a CONNECT tunnel sends (RFC 9113 §4, §6)."""

import struct
from collections.abc import Iterable
from typing import Final

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_HEADER",
    "GOAWAY",
    "HEADERS",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_FLAG",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "SETTINGS_ACK",
    "WINDOW_UPDATE",
    "goaway",
    "header",
    "headers",
    "ping",
    "rst_stream",
    "settings",
    "window_update",
]

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAME_HEADER: Final = struct.Struct(">IBI")
"""Length (24 bits) and type (8) as one number, flags, stream id."""
_pack = FRAME_HEADER.pack
_SETTING: Final = struct.Struct(">HI")


def header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of ``length`` bytes (0..2^24-1)."""
    return _pack(length << 8 | kind, flags, stream)


def headers(stream: int, block: bytes, *, end_stream: bool = False, max_frame: int = 16384) -> bytes:
    """HEADERS, and CONTINUATION frames when ``block`` is longer than ``max_frame`` bytes."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame:
        return _pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream) + block
    parts = [block[i : i + max_frame] for i in range(0, len(block), max_frame)]
    out = [header(len(parts[0]), HEADERS, flags, stream), parts[0]]
    for i, part in enumerate(parts[1:], 2):
        out += [header(len(part), CONTINUATION, END_HEADERS if i == len(parts) else 0, stream), part]
    return b"".join(out)


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """SETTINGS with (identifier, value) pairs."""
    payload = b"".join(_SETTING.pack(k, v) for k, v in values)
    return header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = header(0, SETTINGS, ACK, 0)


def ping(payload: bytes, *, ack: bool = False) -> bytes:
    """PING; ``payload`` is exactly 8 bytes."""
    return header(8, PING, ACK if ack else 0, 0) + payload


def rst_stream(stream: int, code: int) -> bytes:
    """RST_STREAM with an error code."""
    return header(4, RST_STREAM, 0, stream) + code.to_bytes(4, "big")


def window_update(stream: int, increment: int) -> bytes:
    """WINDOW_UPDATE; ``increment`` 1..2^31-1."""
    return header(4, WINDOW_UPDATE, 0, stream) + increment.to_bytes(4, "big")


def goaway(last_stream: int, code: int, debug: bytes = b"") -> bytes:
    """GOAWAY with an optional text for whoever reads the peer's log."""
    return header(8 + len(debug), GOAWAY, 0, 0) + last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + debug
