"""The three listeners of a pod, in its network namespace: 15001, 15006 and 15008, for each address family."""

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ztunnel.dataplane.errors import ListenError
from ztunnel.dataplane.loop import IN
from ztunnel.dataplane.sockets import BACKLOG, listen, reset_on_close
from ztunnel.route.ports import HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT

if TYPE_CHECKING:
    from ztunnel.dataplane.proxy import PodProxy

__all__ = ["Listeners"]

ACCEPTS: Final = 32
"""Connections accepted from one listener in one batch: a pod's burst must not hold up the others."""
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Accept = Callable[[socket.socket, int, tuple[str, int]], None]


class Listeners:
    """Opened at construction. Raises ListenError, and leaves none open then. ``transparent``: source addresses can be kept."""

    def __init__(self, proxy: "PodProxy", *, ipv6: bool) -> None:
        self._proxy = proxy
        self._sockets: list[socket.socket] = []
        self._acceptors: list[_Acceptor] = []
        self.transparent = True
        handlers: dict[int, Accept] = {
            OUTBOUND_PORT: proxy.accept_outbound,
            INBOUND_PORT: proxy.accept_plain,
            HBONE_PORT: proxy.accept_hbone,
        }
        world = proxy.world
        config = world.config
        for family in (socket.AF_INET, socket.AF_INET6) if ipv6 else (socket.AF_INET,):
            for port, accept in handlers.items():
                try:
                    sock = world.netns.socket(proxy.netns, family)
                    self._sockets.append(sock)
                    got = listen(
                        sock, family, port, world.socket_options, transparent=config.orig_src, reuse=config.inpod_port_reuse
                    )
                except OSError as e:
                    self.close()
                    raise ListenError(f"port {port} in the network namespace of {proxy.uid}: {_why(e)}") from None
                self.transparent = self.transparent and got
                acceptor = _Acceptor(proxy, sock, family, accept)
                self._acceptors.append(acceptor)
                world.loop.add(sock.fileno(), IN, acceptor.on_event)

    def close(self, *, take_waiting: bool = False) -> None:
        """Take no more connections. ``take_waiting``: but those the kernel has accepted for us, which it would reset."""
        for acceptor, sock in zip(self._acceptors, self._sockets, strict=False):
            self._proxy.world.loop.remove(sock.fileno())
            if take_waiting:
                acceptor.take_waiting()  # and at once the close: what comes between the two is reset all the same
            sock.close()
        for sock in self._sockets:
            sock.close()  # one that failed to listen has no acceptor
        self._acceptors.clear()
        self._sockets.clear()


class _Acceptor:
    """One listening socket."""

    __slots__ = ("_accept", "_family", "_proxy", "_sock")

    def __init__(self, proxy: "PodProxy", sock: socket.socket, family: int, accept: Accept) -> None:
        self._proxy = proxy
        self._sock = sock
        self._family = family
        self._accept = accept

    def on_event(self, _: int) -> None:
        """Connections wait."""
        self._take(ACCEPTS)

    def take_waiting(self) -> None:
        """All that wait now; a fault with one ends that one."""
        try:
            self._take(BACKLOG)
        except Exception as e:  # noqa: BLE001 the others are closed with their listener
            self._proxy.world.fault(self, e)

    def _take(self, most: int) -> None:
        for _ in range(most):
            try:
                fd, address = self._sock._accept()  # type: ignore[attr-defined]  # accept() without its getdefaulttimeout() detour
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in _NO_DESCRIPTORS:
                    self._shed(e)
                return  # anything else is the connection's own end before it was accepted
            sock = socket.socket(self._family, socket.SOCK_STREAM, 0, fileno=fd)
            sock.setblocking(False)
            try:
                self._accept(sock, self._family, (address[0].partition("%")[0], address[1]))
            except Exception:
                drop(sock)  # a bug of ours: the client must not wait for ever
                raise

    def _shed(self, error: OSError) -> None:
        """No descriptor left: refuse one connection with the spare one, rather than spin on it."""
        shed = self._proxy.world.shed(self._sock)
        if shed is not None:
            direction = "outbound" if self._accept == self._proxy.accept_outbound else "inbound"
            self._proxy.shed(direction, shed, os.strerror(error.errno or 0))

    def fail(self, error: Exception) -> None:
        """A bug while accepting: that connection alone is lost."""
        self._proxy.world.log("error", f"accepting for {self._proxy.uid}: {error!r}")


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "something else listens there; end it, or set INPOD_PORT_REUSE=true"
    if error.errno == errno.EPERM:
        return "not permitted; ztunnel needs CAP_NET_ADMIN"
    return os.strerror(error.errno or 0)


def drop(sock: socket.socket) -> None:
    """Close with RST."""
    reset_on_close(sock)
    sock.close()
