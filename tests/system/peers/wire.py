"""Bytes over real TLS, with no HTTP/2 library between: for peers that break its rules."""

import socket
import ssl
import struct
import time
from typing import Final, NamedTuple

from tests.system.peers.ready import readable
from ztunnel.hbone import frames as fr

__all__ = ["Frame", "Wire", "hard_close"]

TIMEOUT: Final = 8.0


class Frame(NamedTuple):
    """One received frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Wire:
    """A TLS connection. ``hello``: the first bytes sent; a client's preface in what comes is passed over."""

    def __init__(self, sock: ssl.SSLSocket, hello: bytes) -> None:
        self.sock = sock
        self.frames: list[Frame] = []
        self._rest = b""
        self._preface = fr.PREFACE if sock.server_side else b""
        self.closed = False
        self.broken = False
        self.send(hello)

    def send(self, data: bytes) -> bool:
        """Everything; False when the other side has gone away meanwhile."""
        try:
            self.sock.sendall(data)
        except (OSError, ValueError):
            self.broken = True
            return False
        return True

    def send_nowait(self, data: bytes) -> int:
        """What fits without waiting."""
        self.sock.setblocking(False)
        try:
            return self.sock.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError:
            self.broken = True
            return 0
        finally:
            self.sock.settimeout(TIMEOUT)

    def pump(self, seconds: float) -> bool:
        """Read once; whether frames may have come."""
        if self.closed or (not self.sock.pending() and not readable(self.sock, seconds)):
            return False
        try:
            data = self.sock.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        data = self._rest + data
        if self._preface and len(data) >= len(self._preface):
            assert data.startswith(self._preface)
            data, self._preface = data[len(self._preface) :], b""
        while len(data) >= 9 and len(data) >= 9 + (n := int.from_bytes(data[:3], "big")):
            self.frames.append(Frame(data[3], data[4], int.from_bytes(data[5:9], "big") & 0x7FFFFFFF, data[9 : 9 + n]))
            data = data[9 + n :]
        self._rest = data
        return True

    def until(self, kind: int, seconds: float = TIMEOUT, **fields: int) -> Frame:
        """The first frame of that kind (and ``stream``, ``flags``), among those that came and those to come."""
        deadline = time.monotonic() + seconds
        while True:
            for frame in self.frames:
                if frame.kind == kind and all(getattr(frame, name) == value for name, value in fields.items()):
                    return frame
            assert not self.closed, f"closed before frame type {kind} {fields}: {self.frames[-5:]}"
            left = deadline - time.monotonic()
            assert left > 0, f"no frame of type {kind} {fields}: {self.frames[-5:]}"
            self.pump(left)

    def goaway(self, seconds: float = TIMEOUT) -> tuple[int, bytes] | None:
        """Read until the other side closes: code and debug text of its last GOAWAY."""
        deadline = time.monotonic() + seconds
        while not self.closed:
            left = deadline - time.monotonic()
            assert left > 0, f"still open: {self.frames[-5:]}"
            self.pump(left)
        for frame in reversed(self.frames):
            if frame.kind == fr.GOAWAY:
                return int.from_bytes(frame.payload[4:8], "big"), frame.payload[8:]
        return None

    def close(self) -> None:
        """Close TCP."""
        self.sock.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hard_close(sock: socket.socket) -> None:
    """RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
