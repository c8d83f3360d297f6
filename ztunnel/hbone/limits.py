"""Numbers of the HBONE wire and the bounds a peer is held to."""

from dataclasses import dataclass
from typing import Final

__all__ = [
    "CONTROL_BURST",
    "CONTROL_RATE",
    "DEFAULT_FRAME",
    "DEFAULT_TABLE",
    "DEFAULT_WINDOW",
    "EARNED",
    "FREE_HEADER_BLOCK",
    "MAX_CONTINUATIONS",
    "MAX_FRAME",
    "MAX_HEADER_BLOCK",
    "MAX_SMALL_FRAME",
    "MAX_STREAM_ID",
    "MAX_WINDOW",
    "RESET_BURST",
    "RESET_RATE",
    "SessionLimits",
]

DEFAULT_WINDOW: Final = 65_535
"""Initial flow-control window before SETTINGS (RFC 9113 §6.9.2)."""
DEFAULT_FRAME: Final = 16_384
"""Initial SETTINGS_MAX_FRAME_SIZE (RFC 9113 §6.5.2)."""
MAX_FRAME: Final = 2**24 - 1
"""Largest SETTINGS_MAX_FRAME_SIZE (RFC 9113 §6.5.2)."""
DEFAULT_TABLE: Final = 4_096
"""Initial SETTINGS_HEADER_TABLE_SIZE (RFC 9113 §6.5.2)."""
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1

MAX_HEADER_BLOCK: Final = 65_536
"""Compressed bytes of one header block over HEADERS and CONTINUATION frames."""
MAX_CONTINUATIONS: Final = 16
"""CONTINUATION frames of one block: an honest peer needs 4 at 16 KiB each."""
FREE_HEADER_BLOCK: Final = 4_096
"""Bytes of a header block above which it costs a token a KiB: 64 KiB of table size updates take 60 ms to decode."""
MAX_SMALL_FRAME: Final = 16_384
"""Bytes of a SETTINGS or GOAWAY frame; PING, RST_STREAM, WINDOW_UPDATE and PRIORITY have fixed lengths."""

CONTROL_BURST: Final = 1_000.0
CONTROL_RATE: Final = 100.0
"""PING, SETTINGS, PRIORITY, unknown frames and empty DATA: a burst, then so many a second. A ztunnel sends one PING in 10 s."""
EARNED: Final = 1.0
"""Tokens for each stream opened: what still comes on it after we ended it must not be taken for a flood."""
RESET_BURST: Final = 1_000.0
RESET_RATE: Final = 200.0
"""Streams the peer resets before they are answered ("rapid reset", CVE-2023-44487): a burst, then so many a second."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What a session announces (ztunnel defaults). ``stream_window``, ``connection_window``, ``frame``: bytes.

    Raises ValueError for what HTTP/2 cannot express. A connection window below 65 535 has no effect: it cannot be announced.
    """

    stream_window: int = 4_194_304
    connection_window: int = 16_777_216
    frame: int = 1_048_576
    client_header_list: int = 16_384
    server_header_list: int = 65_536
    max_streams: int = 200
    """Streams a client may have open with us as a server."""
    assumed_peer_streams: int = 100
    """POOL_MAX_STREAMS_PER_CONNECTION: streams we open on one tunnel, or fewer if the peer says so."""

    def __post_init__(self) -> None:
        if not 1 <= self.stream_window <= MAX_WINDOW or not 1 <= self.connection_window <= MAX_WINDOW:
            raise ValueError(f"HTTP/2 windows are 1 to {MAX_WINDOW} bytes")
        if not DEFAULT_FRAME <= self.frame <= MAX_FRAME:
            raise ValueError(f"the HTTP/2 frame size is {DEFAULT_FRAME} to {MAX_FRAME} bytes")
