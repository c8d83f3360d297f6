"""The demo's client: ``python -m ambient.demo.say HOST PORT WORD [--hold]``.

Connects, prints the server's greeting, sends WORD and prints what comes back. ``--hold`` then keeps the connection: lines from
standard input are sent, what arrives is printed, until either end closes. Exit status 0 when WORD came back, 1 when not; the last
line tells how the connection failed.
"""

import argparse
import os
import select
import socket
import sys
import time
from typing import Final

__all__ = ["main", "talk"]

SECONDS: Final = 5.0
"""For connecting, and for each answer."""
_CHUNK: Final = 65_536


class Ended(Exception):
    """The server's side closed the connection."""


def _tell(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _line(connection: socket.socket) -> str:
    """The next line, without what marks its end. Raises Ended, OSError."""
    got = b""
    while not got.endswith(b"\n"):
        data = connection.recv(_CHUNK)
        if not data:
            raise Ended(f"the server closed the connection after {len(got)} bytes")
        got += data
    return got.decode("utf-8", "replace").rstrip("\n")


def talk(connection: socket.socket, word: str) -> bool:
    """Greeting, word, echo. True if the same word came back."""
    _tell(f"server: {_line(connection)}")
    connection.sendall(f"{word}\n".encode())
    answer = _line(connection)
    _tell(f"server: {answer}")
    return answer == word


def _hold(connection: socket.socket) -> None:
    """Both ways until one end closes. Raises Ended, OSError."""
    connection.setblocking(True)
    while True:
        ready, _, _ = select.select([connection, sys.stdin.fileno()], [], [])
        if connection in ready:
            _tell(f"server: {_line(connection)}")
        if sys.stdin.fileno() in ready:
            data = os.read(sys.stdin.fileno(), _CHUNK)
            if not data:
                return
            connection.sendall(data)


def main(words: list[str]) -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="python -m ambient.demo.say", description="Say a word to the demo's server.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("word")
    parser.add_argument("--hold", action="store_true", help="keep the connection; send the lines of standard input")
    asked = parser.parse_args(words)
    began = time.monotonic()
    try:
        with socket.create_connection((asked.host, asked.port), timeout=SECONDS) as connection:
            well = talk(connection, asked.word)
            if asked.hold:
                _hold(connection)
    except (Ended, OSError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _tell(f"failed after {1000 * (time.monotonic() - began):.0f} ms: {why}")
        return 1
    return 0 if well else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
