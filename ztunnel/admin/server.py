"""Ports and the servers on them: admin on loopback, metrics and readiness on every address.

Shell. Ports are bound before anything is served, so that a port in use is told at start with cause and remedy.
"""

import errno
import socket
from dataclasses import dataclass
from typing import Final

import trio

from ztunnel.admin.errors import BindError
from ztunnel.admin.http import DEFAULT_LIMITS, Limits, serve_connection
from ztunnel.admin.message import Routes

__all__ = ["ADMIN_PORT", "MAX_CONNECTIONS", "READINESS_PORT", "STATS_PORT", "Port", "bind", "serve"]

ADMIN_PORT: Final = 15000
STATS_PORT: Final = 15020
READINESS_PORT: Final = 15021
MAX_CONNECTIONS: Final = 100
"""Connections of one server; more are answered 503 at once."""
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 21\r\nConnection: close\r\n\r\ntoo many connections\n"
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


@dataclass(frozen=True, slots=True)
class Port:
    """``what`` and ``setting`` are for the error message. ``loopback``: 127.0.0.1 and ::1 only. ``port`` 0: any free one."""

    what: str
    port: int
    setting: str
    loopback: bool = False


def bind(port: Port, *, ipv6: bool = True) -> list[trio.SocketListener]:
    """Listeners on both families (v6 only where the machine has it). Raises BindError."""
    if port.loopback:
        first = _listen(port, "127.0.0.1", port.port)
        assert first is not None
        second = _listen(port, "::1", first.getsockname()[1]) if ipv6 else None
        sockets = [first] if second is None else [first, second]
    else:
        both = _listen(port, "::", port.port) if ipv6 else None
        only = _listen(port, "0.0.0.0", port.port) if both is None else both
        assert only is not None
        sockets = [only]
    return [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]


def _listen(port: Port, host: str, number: int) -> socket.socket | None:
    """A listening socket; None when ``host`` is v6 and the machine has no v6."""
    v6 = ":" in host
    try:
        sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        if v6 and error.errno in _NO_SUCH_FAMILY:
            return None
        raise BindError(port.what, host, number, port.setting, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind((host, number))
        sock.listen(128)
    except OSError as error:
        sock.close()
        if v6 and error.errno in _NO_SUCH_FAMILY:
            return None
        raise BindError(port.what, host, number, port.setting, error) from error
    return sock


async def serve(
    listeners: list[trio.SocketListener],
    routes: Routes,
    *,
    limits: Limits = DEFAULT_LIMITS,
    max_connections: int = MAX_CONNECTIONS,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started once connections are taken."""
    active = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal active
        if active >= max_connections:
            with trio.move_on_after(1):
                await _refuse(stream)
            await trio.aclose_forcefully(stream)
            return
        active += 1
        try:
            await serve_connection(stream, routes, limits)
        finally:
            active -= 1

    await trio.serve_listeners(handle, listeners, task_status=task_status)


async def _refuse(stream: trio.SocketStream) -> None:
    try:
        await stream.send_all(_BUSY)
    except trio.BrokenResourceError:
        pass
