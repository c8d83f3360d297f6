"""The unmeshed pod's HBONE port: what our proxy dials, seen from the first byte of its ClientHello on."""

import socket
import ssl
from dataclasses import dataclass
from typing import Any

from tests.certs import Minted
from tests.system.peers.bench import TIMEOUT, Bench
from tests.system.peers.h2peer import H2Peer
from tests.system.peers.ready import readable

__all__ = ["ClientHello", "Port15008", "client_hello"]


@dataclass(frozen=True)
class ClientHello:
    """What a TLS client offers (RFC 8446 §4.1.2)."""

    suites: list[int]
    extensions: dict[int, bytes]


class Port15008:
    """A listener at 15008 of ``peer``; connections are taken one by one, when the test says so."""

    def __init__(self, bench: Bench, leaf: Minted | None = None) -> None:
        self._bench = bench
        self.context = bench.context(leaf or bench.peer_leaf, server=True)
        self.sock = bench.peer.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(("", 15008))
        self.sock.listen(128)
        self.sock.settimeout(TIMEOUT)
        self._taken: list[Any] = []

    def accept_tcp(self) -> socket.socket:
        """The next connection of our proxy, before any TLS."""
        sock, _ = self.sock.accept()
        sock.settimeout(TIMEOUT)
        self._taken.append(sock)
        return sock

    def accept_tls(self) -> ssl.SSLSocket:
        """The same after the handshake. Raises ssl.SSLError when our proxy refuses."""
        sock = self.context.wrap_socket(self.accept_tcp(), server_side=True)
        self._taken.append(sock)
        return sock

    def accept(self, settings: dict[Any, int] | None = None, **kwargs: Any) -> H2Peer:
        """The same with HTTP/2 on it."""
        return H2Peer(self.accept_tls(), client=False, settings=settings, **kwargs)

    def dialled(self, seconds: float) -> bool:
        """Whether our proxy opens (has opened) another connection within the time."""
        return readable(self.sock, seconds)

    def __enter__(self) -> "Port15008":
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._taken:
            sock.close()
        self.sock.close()


def client_hello(sock: socket.socket) -> ClientHello:
    """Parse the ClientHello that lies in the socket, without taking it."""
    sock.recv(1, socket.MSG_PEEK)
    data = sock.recv(65_536, socket.MSG_PEEK)
    assert data[0] == 22
    assert data[5] == 1
    pos = 5 + 4 + 2 + 32
    pos += 1 + data[pos]
    n = int.from_bytes(data[pos : pos + 2], "big")
    suites = [int.from_bytes(data[i : i + 2], "big") for i in range(pos + 2, pos + 2 + n, 2)]
    pos += 2 + n
    pos += 1 + data[pos]
    end = pos + 2 + int.from_bytes(data[pos : pos + 2], "big")
    pos += 2
    extensions = {}
    while pos < end:
        kind, size = int.from_bytes(data[pos : pos + 2], "big"), int.from_bytes(data[pos + 2 : pos + 4], "big")
        extensions[kind] = data[pos + 4 : pos + 4 + size]
        pos += 4 + size
    return ClientHello(suites, extensions)
