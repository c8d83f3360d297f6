"""One CONNECT stream of a session: its windows and which halves are closed."""

from typing import Any

__all__ = ["Stream"]


class Stream:
    """Plain data, read and written by the session and by the relay's hot code.

    ``send_window``/``recv_window``: bytes that may still be sent/received; a client's stream has no ``recv_window`` until it is
    answered. ``unacked``: bytes written onward for which the peer has not been given credit yet. ``deferred``: bytes held back
    whose connection-level credit is held back too. ``local_closed``/``remote_closed``: END_STREAM was sent/received; a reset
    sets neither. ``owner`` belongs to the shell.
    """

    __slots__ = ("answered", "deferred", "id", "local_closed", "owner", "recv_window", "remote_closed", "send_window", "unacked")

    def __init__(self, stream_id: int, send_window: int, recv_window: int) -> None:
        self.id = stream_id
        self.send_window = send_window
        self.recv_window = recv_window
        self.unacked = 0
        self.deferred = 0
        self.local_closed = False
        self.remote_closed = False
        self.answered = False
        self.owner: Any = None
