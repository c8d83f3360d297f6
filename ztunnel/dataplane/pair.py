"""Two sockets side by side: the relay of connections that need no tunnel.

Bytes go through one buffer that belongs to the process; a side owns bytes only while its socket does not take them, at most one
read's worth, and the other side is not read meanwhile. RST travels as RST and FIN as FIN.
"""

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from ztunnel.dataplane.conn import Conn
from ztunnel.dataplane.errors import NetnsError
from ztunnel.dataplane.loop import ERR, HUP, IN, OUT
from ztunnel.dataplane.netns import Netns
from ztunnel.dataplane.registry import Series
from ztunnel.dataplane.sockets import finish_dial, reset_on_close
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.proxy import PodProxy
    from ztunnel.dataplane.world import World

__all__ = ["CONNECT_TIMEOUT", "SCRATCH", "InboundPair", "Pair", "SameNodePair", "connect_failure"]

SCRATCH: Final = 1 << 18
"""Bytes read at once, and the most that a side ever owns."""
CONNECT_TIMEOUT: Final = 10.0
"""Seconds (ztunnel default)."""


def connect_failure(error: int | None) -> CloseReason:
    """The reason for an errno of socket() or connect()."""
    if error == errno.ECONNREFUSED:
        return CloseReason.APP_REFUSED
    if error == errno.ETIMEDOUT:
        return CloseReason.APP_TIMEOUT
    if error in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL):
        return CloseReason.OVERLOADED
    return CloseReason.APP_UNREACHABLE


class Pair(Conn):
    """A passthrough connection: out of a workload to somewhere that does not speak HBONE. Base of the other pairs."""

    __slots__ = ("_a", "_b", "_connecting", "_dial_to")
    direction = "outbound"

    def __init__(self, proxy: "PodProxy", sock: socket.socket, source: str, destination: str) -> None:
        super().__init__(proxy, source, destination)
        self._a = _Side(self, sock, client=True)
        self._b: _Side | None = None
        self._connecting = False
        self._dial_to = ""

    def begin(self, netns: Netns, ip: str, port: int, source_ip: str, actual: str) -> None:
        """Dial the other side, from inside ``netns`` and from ``source_ip`` unless ""."""
        world = self.proxy.world
        self.actual = actual
        try:
            sock, connected = world.dial(netns, ip, port, source_ip, local=False)
        except NetnsError as e:
            self.kill(CloseReason.OVERLOADED, str(e))
            return
        except OSError as e:
            self.kill(connect_failure(e.errno), f"{actual}: {os.strerror(e.errno or 0)}")
            return
        self._b = _Side(self, sock, client=False)
        if connected:
            self._start()
        else:
            self._connecting = True
            world.expect(self, CONNECT_TIMEOUT)
            world.loop.add(sock.fileno(), OUT, self._on_connect)

    def _on_connect(self, _: int) -> None:
        b = self._b
        assert b is not None
        error = finish_dial(b.sock)
        world = self.proxy.world
        world.unexpect(self)
        self._connecting = False
        world.loop.remove(b.fd)
        if error:
            self.kill(connect_failure(error), f"{self.actual}: {os.strerror(error)}")
        else:
            self._start()

    def _start(self) -> None:
        a, b = self._a, self._b
        assert b is not None
        a.other, b.other = b, a
        loop = self.proxy.world.loop
        loop.add(a.fd, IN, a.on_event)
        loop.add(b.fd, IN, b.on_event)

    def on_timeout(self) -> None:
        """Not connected in time."""
        self.kill(CloseReason.APP_TIMEOUT, f"{self.actual} did not answer within {CONNECT_TIMEOUT:.0f} s")

    # Called for each read; the client is the application of an outbound connection.

    def count_up(self, n: int) -> None:
        """``n`` bytes went from client to server."""
        self.from_app += n
        self.series.from_app += n  # type: ignore[union-attr]

    def count_down(self, n: int) -> None:
        """``n`` bytes went from server to client."""
        self.to_app += n
        self.series.to_app += n  # type: ignore[union-attr]

    def side_ended(self) -> None:
        """A side has sent FIN and everything of it was written; done when both have."""
        a, b = self._a, self._b
        if b is not None and a.shut and b.shut:
            self._release()
            self.end(CloseReason.COMPLETE)

    def side_reset(self, side: "_Side") -> None:
        """RST from one side becomes RST to the other."""
        self.kill(CloseReason.CLIENT_RESET if side is self._a else CloseReason.SERVER_RESET)

    def _release(self) -> None:
        world = self.proxy.world
        if self._connecting:
            world.unexpect(self)
            self._connecting = False
        for side in (self._a, self._b):
            if side is not None:
                side.closed = True
                side.pending = None
                world.loop.close(side.sock)

    def kill(self, reason: CloseReason, detail: str = "") -> None:
        """End it now with RST to both."""
        if self.closed:
            return
        for side in (self._a, self._b):
            if side is not None:
                reset_on_close(side.sock)
        self._release()
        self.end(reason, detail)

    def fail(self, error: Exception) -> None:
        """A bug of ours hit a handler of this connection."""
        self.kill(CloseReason.INTERNAL, type(error).__name__)


class InboundPair(Pair):
    """A plain connection to a workload, captured on 15006. The server is the application."""

    __slots__ = ()
    direction = "inbound"

    def count_up(self, n: int) -> None:
        self.to_app += n
        self.series.to_app += n  # type: ignore[union-attr]

    def count_down(self, n: int) -> None:
        self.from_app += n
        self.series.from_app += n  # type: ignore[union-attr]


class _Mirror(Conn):
    """The inbound half of a same-node connection, for counters, log and policy."""

    __slots__ = ("outer",)
    direction = "inbound"
    outer: "SameNodePair"

    def kill(self, reason: CloseReason, detail: str = "") -> None:
        self.outer.kill(reason, detail)


class SameNodePair(Pair):
    """Between two workloads of this node: counted and logged for both."""

    __slots__ = ("mirror",)

    def __init__(
        self, proxy: "PodProxy", server: "PodProxy", sock: socket.socket, source: str, destination: str, mirror_to: str
    ) -> None:
        super().__init__(proxy, sock, source, destination)
        self.mirror = _Mirror(server, source, mirror_to)
        self.mirror.outer = self

    def opened_both(self, series: Series, mirror: Series, identity: str, policy: str) -> None:
        """Policy has allowed it."""
        self.opened(series)
        self.mirror.opened(mirror)
        self.mirror.identity = identity
        self.policy = self.mirror.policy = policy

    def count_up(self, n: int) -> None:
        mirror = self.mirror
        self.from_app += n
        self.series.from_app += n  # type: ignore[union-attr]
        mirror.to_app += n
        mirror.series.to_app += n  # type: ignore[union-attr]

    def count_down(self, n: int) -> None:
        mirror = self.mirror
        self.to_app += n
        self.series.to_app += n  # type: ignore[union-attr]
        mirror.from_app += n
        mirror.series.from_app += n  # type: ignore[union-attr]

    def end(self, reason: CloseReason, detail: str = "") -> None:
        super().end(reason, detail)
        self.mirror.policy = self.policy
        self.mirror.end(reason, detail)


class _Side:
    """One socket of a pair. ``pending``: what this socket has not taken. ``shut``: FIN was received here and passed on."""

    __slots__ = (
        "_count",
        "_ended",
        "_muted",
        "_pair",
        "_paused",
        "_recv_into",
        "_send",
        "closed",
        "fd",
        "other",
        "pending",
        "shut",
        "sock",
    )
    other: "_Side"

    def __init__(self, pair: Pair, sock: socket.socket, *, client: bool) -> None:
        self._pair = pair
        self.sock = sock
        self.fd = sock.fileno()
        self._recv_into = sock.recv_into
        self._send = sock.send
        self._count = pair.count_up if client else pair.count_down
        self.pending: bytearray | None = None
        self._ended = False
        self._paused = False
        self._muted = False
        self.closed = False
        self.shut = False

    @property
    def _world(self) -> "World":
        return self._pair.proxy.world

    def on_event(self, event: int) -> None:
        """The socket is ready."""
        if event & OUT and self.pending is not None:
            self._drain()
        if not event & (IN | ERR | HUP) or self.closed:
            return
        if self._ended or self._paused:
            if event & (ERR | HUP):
                self._hung_up(event)
            return
        scratch = self._world.scratch
        try:
            n = self._recv_into(scratch)
        except BlockingIOError:
            return
        except OSError:
            self._pair.side_reset(self)
            return
        other = self.other
        if not n:
            self._ended = True
            self._watch()
            if other.pending is None:
                other.fin()
            return
        self._count(n)
        sent = 0
        try:
            sent = other._send(scratch[:n])
        except BlockingIOError:
            pass
        except OSError:
            self._pair.side_reset(other)
            return
        if sent < n:
            other.pending = bytearray(scratch[sent:n])
            other._watch()
            self._paused = True
            self._watch()

    def _drain(self) -> None:
        pending = self.pending
        assert pending is not None
        try:
            sent = self._send(pending)
        except BlockingIOError:
            return
        except OSError:
            self._pair.side_reset(self)
            return
        del pending[:sent]
        if pending:
            return
        self.pending = None
        self._watch()
        other = self.other
        if other._ended:
            self.fin()
        elif other._paused:
            other._paused = False
            if other._muted:
                other._muted = False
                self._world.loop.add(other.fd, other._interest(), other.on_event)
            else:
                other._watch()

    def fin(self) -> None:
        """The other side has ended and everything of it was written here."""
        self.other.shut = True
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._pair.side_reset(self)
            return
        self._pair.side_ended()

    def _hung_up(self, event: int) -> None:
        """ERR or HUP while this side is not read: RST, unless bytes still wait to be read."""
        if event & ERR or self._ended:
            self._pair.side_reset(self)
        elif not self._muted:
            self._muted = True  # level-triggered HUP would spin
            self._world.loop.remove(self.fd)

    def _interest(self) -> int:
        return (0 if self._ended or self._paused else IN) | (0 if self.pending is None else OUT)

    def _watch(self) -> None:
        if not self._muted and not self.closed:
            self._world.loop.change(self.fd, self._interest())

    def fail(self, error: Exception) -> None:
        """A bug of ours hit this side's handler."""
        self._pair.fail(error)
