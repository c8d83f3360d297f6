"""Socket options and addresses as the data plane needs them (ztunnel's defaults where nothing else is said)."""

import errno
import itertools
import random
import socket
import struct
from dataclasses import dataclass
from typing import Final

__all__ = [
    "SocketOptions",
    "address_of",
    "dial",
    "family_of",
    "finish_dial",
    "listen",
    "original_destination",
    "own_address",
    "reset_on_close",
    "text",
]

SO_ORIGINAL_DST: Final = 80
IP_BIND_ADDRESS_NO_PORT: Final = 24
IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75
_LINGER_RST: Final = struct.pack("ii", 1, 0)
_V4, _V6 = socket.AF_INET, socket.AF_INET6
_PORT_TRIES: Final = 16
_FIRST_PORT: Final = 1024
_LAST_PORT: Final = 32_767
"""Linux takes clients' ports from 32768 up (net.ipv4.ip_local_port_range)."""
_ports = itertools.cycle((*range(_START := random.randint(_FIRST_PORT, _LAST_PORT), _LAST_PORT + 1), *range(_FIRST_PORT, _START)))
"""From anywhere in it, as a second proxy of the pods may run beside this one."""
BACKLOG: Final = 1024
"""Connections waiting to be accepted; ztunnel has 128, which a burst of 200 clients overflows."""


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """``mark``: SO_MARK or 0 for none. Keepalive times in seconds; ``user_timeout`` in milliseconds, 0 = kernel's."""

    mark: int = 0x539
    keepalive: bool = True
    keepalive_idle: int = 180
    keepalive_interval: int = 180
    keepalive_probes: int = 9
    user_timeout: int = 0

    def apply_local(self, sock: socket.socket) -> None:
        """For a connection inside this machine: its far end cannot vanish unnoticed, so no keepalive (four calls saved)."""
        sock.setsockopt(6, 1, 1)  # TCP_NODELAY
        if self.mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)

    def apply(self, sock: socket.socket) -> None:
        """Set them. Accepted sockets inherit all of them from their listener."""
        self.apply_local(sock)
        option = sock.setsockopt
        if self.keepalive:
            option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            option(6, socket.TCP_KEEPIDLE, self.keepalive_idle)
            option(6, socket.TCP_KEEPINTVL, self.keepalive_interval)
            option(6, socket.TCP_KEEPCNT, self.keepalive_probes)
        if self.user_timeout:
            option(6, socket.TCP_USER_TIMEOUT, self.user_timeout)


def family_of(ip: str) -> int:
    """AF_INET or AF_INET6 of a canonical address."""
    return _V6 if ":" in ip else _V4


def text(ip: str, port: int) -> str:
    """``ip:port``, IPv6 in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def original_destination(sock: socket.socket, family: int) -> bytes:
    """Where the client wanted to go, as the kernel's port and address bytes (2 + 4 or 2 + 16).

    Falls back to the socket's own address, which is what a connection has that was not redirected.
    """
    try:
        if family == _V4:
            return bytes(sock.getsockopt(0, SO_ORIGINAL_DST, 16)[2:8])
        raw = bytes(sock.getsockopt(41, SO_ORIGINAL_DST, 28))
        return raw[2:4] + raw[8:24]
    except OSError:
        return own_address(sock, family)


def own_address(sock: socket.socket, family: int) -> bytes:
    """The socket's local address, in the form of :func:`original_destination`."""
    ip, port = sock.getsockname()[:2]
    return int(port).to_bytes(2, "big") + socket.inet_pton(family, str(ip).partition("%")[0])


def address_of(original: bytes) -> tuple[str, int]:
    """Text and port of what :func:`original_destination` gave."""
    family = socket.AF_INET if len(original) == 6 else socket.AF_INET6
    ip = socket.inet_ntop(family, original[2:])
    return ip, int.from_bytes(original[:2], "big")


def reset_on_close(sock: socket.socket) -> None:
    """Make close() send RST."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
    except OSError:
        pass  # the connection is gone already


def listen(sock: socket.socket, family: int, port: int, options: SocketOptions, *, transparent: bool | None, reuse: bool) -> bool:
    """Bind to the wildcard address and listen. Returns whether the socket is transparent. Raises OSError.

    ``transparent``: True must succeed, None may fail, False is not tried (ENABLE_ORIG_SRC).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == _V6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    options.apply(sock)
    done = False
    if transparent is not False:
        try:
            _set_transparent(sock, family)
            done = True
        except OSError:
            if transparent:
                raise
    sock.bind(("::" if family == _V6 else "0.0.0.0", port))
    sock.listen(BACKLOG)
    return done


def _set_transparent(sock: socket.socket, family: int) -> None:
    if family == _V4:
        sock.setsockopt(0, IP_TRANSPARENT, 1)
    else:
        sock.setsockopt(41, IPV6_TRANSPARENT, 1)


def _bind_as(sock: socket.socket, source: str) -> None:
    """Bind to a client's address and a port below the range that clients take theirs from.

    Were it the kernel's choice, it would now and then be the very port of a connection that this client has, or opens next, to the
    same workload: connection tracking takes the two for one, and the client's connection hangs.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for _ in range(_PORT_TRIES):
        try:
            sock.bind((source, next(_ports)))
            return
        except OSError as e:
            if e.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRNOTAVAIL, "no free port")


def dial(sock: socket.socket, family: int, ip: str, port: int, source: str, *, any_port: bool = False) -> bool:
    """Begin to connect a non-blocking socket, from ``source`` (an address that need not be ours) unless "".

    ``any_port``: the kernel may choose the source's port. Without it EADDRNOTAVAIL says that another socket should be tried.

    True when it is connected already, as connections over lo are; False when EPOLLOUT will tell. Raises OSError.
    """
    if source and source != ip:
        _set_transparent(sock, family)
        if any_port:
            sock.setsockopt(0, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        else:
            _bind_as(sock, source)
    code = sock.connect_ex((ip, port))
    if code == errno.EINPROGRESS:
        # Over lo the kernel has done the whole handshake by now, and a second call says so: one turn of the loop saved.
        code = sock.connect_ex((ip, port))
    if code in (0, errno.EISCONN):
        return True
    if code in (errno.EALREADY, errno.EINPROGRESS):
        return False
    raise OSError(code, errno.errorcode.get(code, "?"))


def finish_dial(sock: socket.socket) -> int:
    """After EPOLLOUT: 0 when connected, else the errno."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
