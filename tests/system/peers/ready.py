"""Waiting for one socket; select() cannot take the descriptors of a test that opens thousands."""

import select
import socket

__all__ = ["readable"]


def readable(sock: socket.socket, seconds: float) -> bool:
    """Whether there is something to read (or to accept, or an end) within the time."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(max(0, int(seconds * 1000))))
