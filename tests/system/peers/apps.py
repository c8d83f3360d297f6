"""Applications for the meshed pod: what a server there does with a connection. Each connection has a thread of its own."""

import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from ambient.lab import Pod

__all__ = ["Listening", "echo", "in_thread", "reset", "sink"]

Handler = Callable[[socket.socket], None]


class Listening:
    """A TCP server in ``pod``. ``accepted``: so far; ``open``: not ended yet; ``results``: what handlers returned."""

    def __init__(self, pod: Pod, port: int, handler: Callable[[socket.socket], Any], *, family: int = socket.AF_INET) -> None:
        self._sock = pod.socket(family)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("", port))
        self._sock.listen(4096)
        self._handler = handler
        self.accepted = 0
        self.peers: list[Any] = []
        self.results: list[Any] = []
        self.open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, address = self._sock.accept()
            except OSError:
                return
            self.accepted += 1
            self.peers.append(address)
            self.open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            self.results.append(self._handler(sock))
        except OSError as e:
            self.results.append(e)
        finally:
            self.open.discard(sock)
            sock.close()

    def __enter__(self) -> "Listening":
        return self

    def __exit__(self, *_: object) -> None:
        for sock in [self._sock, *self.open]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._sock.close()
        self._thread.join(5)


def echo(sock: socket.socket) -> None:
    """Sends back what comes, and FIN for FIN."""
    while data := sock.recv(262_144):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def sink(sock: socket.socket) -> int:
    """Reads to the end; the number of bytes."""
    n = 0
    while data := sock.recv(262_144):
        n += len(data)
    return n


def reset(sock: socket.socket) -> None:
    """Reads once, then RST."""
    sock.recv(65_536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Result:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as e:  # noqa: BLE001 handed on to whoever asks for the result
            self._error = e

    def __call__(self, seconds: float = 20.0) -> Any:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "still at work"
        if self._error is not None:
            raise self._error
        return self._value


def in_thread(work: Callable[[], Any]) -> _Result:
    """Run ``work`` beside the test; call what is returned for its result."""
    return _Result(work)
