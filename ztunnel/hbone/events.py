"""What a session reports: tuples (kind, stream, argument), as objects would cost more than the frames they stand for.

======== ==================== =========================================================================================
kind     stream               argument
======== ==================== =========================================================================================
DATA     the stream           memoryview of payload, valid until the next ``receive``; part of a frame is possible
END      the stream           None: the peer will send no more on it
RESET    the stream           error code; the stream is gone
REQUEST  the new stream       list of (name, value) bytes (server)
ANSWER   the stream           (status, list of (name, value) bytes) (client)
WINDOW   the stream           None: its send window has grown from nothing
WINDOWS  None                 None: the connection's send window, or every stream's, has grown from nothing
GOAWAY   None                 (last stream id, error code); streams above it get their own RESET with REFUSED_STREAM
PONG     None                 the 8 bytes of our PING
READY    None                 None: the peer's first SETTINGS have arrived
======== ==================== =========================================================================================
"""

from collections.abc import Callable
from typing import Any, Final

from ztunnel.hbone.stream import Stream

__all__ = ["ANSWER", "DATA", "END", "GOAWAY", "PONG", "READY", "REQUEST", "RESET", "WINDOW", "WINDOWS", "Add", "Event"]

DATA: Final = 0
END: Final = 1
RESET: Final = 2
REQUEST: Final = 3
ANSWER: Final = 4
WINDOW: Final = 5
WINDOWS: Final = 6
GOAWAY: Final = 7
PONG: Final = 8
READY: Final = 9

Event = tuple[int, Stream | None, Any]
Add = Callable[[Event], None]
