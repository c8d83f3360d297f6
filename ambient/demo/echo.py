"""The demo's server: ``python -m ambient.demo.echo [PORT]``. Tells each client its address, then sends back what it gets.

Listens on IPv4 and IPv6 apart, so that the address it tells is the one the kernel gave it. Runs until it is ended.
"""

import socket
import sys
import threading
from typing import Final

__all__ = ["greeting", "main", "serve"]

PORT: Final = 8080
_CHUNK: Final = 65_536


def greeting(address: str) -> bytes:
    """The first line a client gets."""
    return f"you are {address}\n".encode()


def _answer(connection: socket.socket, address: str) -> None:
    with connection:
        try:
            connection.sendall(greeting(address))
            while data := connection.recv(_CHUNK):
                connection.sendall(data)
        except OSError:
            return  # the client, or the mesh, ended it


def serve(listener: socket.socket) -> None:
    """A thread for each connection, until the listener is closed."""
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, str(peer[0])), daemon=True).start()


def main(words: list[str]) -> int:
    """Serve until killed."""
    port = int(words[0]) if words else PORT
    families = [(socket.AF_INET, "0.0.0.0")]
    if socket.has_ipv6:
        families.append((socket.AF_INET6, "::"))
    listeners = [socket.create_server((host, port), family=family, backlog=128) for family, host in families]
    print(f"listening on port {port}", flush=True)  # noqa: T201
    threads = [threading.Thread(target=serve, args=(listener,), daemon=True) for listener in listeners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
