"""One application's socket and its stream in a tunnel: the relay both ends of a tunnelled connection share.

Hot code. Application to tunnel: ``recv_into`` straight behind a DATA header in the tunnel's outbox; no copy, no object. Tunnel to
application: ``send`` of the view the session gave; only what the socket does not take is copied and owned by the connection.

RST travels as RST (RST_STREAM CANCEL in the tunnel) and FIN as FIN (END_STREAM), each way.
"""

import socket
from typing import TYPE_CHECKING, Final

from ztunnel.dataplane.buffers import OUTBOX
from ztunnel.dataplane.conn import Conn
from ztunnel.dataplane.loop import ERR, HUP, IN, OUT
from ztunnel.dataplane.sockets import reset_on_close
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.frames import FRAME_HEADER
from ztunnel.hbone.session import Session
from ztunnel.hbone.stream import Stream
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.proxy import PodProxy
    from ztunnel.dataplane.tunnel import Tunnel

__all__ = ["FRAME", "StreamConn"]

FRAME: Final = 131_072
"""Bytes read from an application at once, and so the largest DATA frame we send, while others wait for their turn."""
FRAME_ALONE: Final = 524_288
"""The same while nobody else does: a quarter less CPU for each byte, and 0.5 ms that nobody waits for."""
MAX_HELD: Final = 256 << 20
"""Bytes of stalled applications of one workload, over all tunnels: a connection that adds to more than this is reset."""
_pack_into = FRAME_HEADER.pack_into
_BAD: Final = ERR | HUP


class StreamConn(Conn):
    """Base of both ends of a tunnelled connection.

    ``pending``: bytes for the application that its socket has not taken, at most the stream's window. ``connected``: the
    application's socket is usable.
    """

    __slots__ = (
        "_muted",
        "_pausing",
        "_read_closed",
        "_recv_into",
        "_tunnel_ended",
        "connected",
        "fd",
        "pending",
        "session",
        "sock",
        "stream",
        "tunnel",
    )
    app_reset_reason = CloseReason.CLIENT_RESET
    tunnel_reset_reason = CloseReason.SERVER_RESET

    def __init__(self, proxy: "PodProxy", source: str, destination: str) -> None:
        super().__init__(proxy, source, destination)
        self.pending: bytearray | None = None
        self._pausing = False
        self._muted = False
        self._read_closed = False
        self._tunnel_ended = False
        self.connected = False
        self.sock: socket.socket | None = None
        self.stream: Stream | None = None

    def _bind(self, tunnel: "Tunnel", stream: Stream) -> None:
        self.tunnel = tunnel
        self.session: Session = tunnel.session
        self.stream = stream
        stream.owner = self

    def _unbind(self) -> None:
        """The stream is gone; what it held back of the connection's window is given back."""
        stream = self.stream
        if stream is not None:
            stream.owner = None
            self.stream = None
            if stream.deferred:
                self.session.credit(stream.deferred)
                stream.deferred = 0

    def _attach(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._recv_into = sock.recv_into

    def _start(self) -> None:
        """The far side is connected: relay from here on."""
        self.connected = True
        self.proxy.world.loop.add(self.fd, self._interest(), self.on_event)
        if self._tunnel_ended and self.pending is None:
            self._shut()  # the peer ended before the application had accepted

    # --- application to tunnel ----------------------------------------------------------------------------------------

    def on_event(self, event: int) -> None:
        """The application's socket is ready."""
        if event & 4 and self.pending is not None:  # EPOLLOUT
            self._drain()
            if self.closed:
                return
        if not event & 25:  # EPOLLIN, EPOLLERR, EPOLLHUP
            return
        if self._read_closed or self._pausing:
            if event & _BAD:
                self._hung_up(event)
            return
        tunnel = self.tunnel
        out = tunnel.out
        if out is None:
            if tunnel._cipher is not None:  # blocked; the property would be a call
                self._pause(event)
                return
            out = tunnel.take_out()
        stream: Stream = self.stream  # type: ignore[assignment]
        session = self.session
        room = FRAME_ALONE if self.proxy.world.loop.ready < 3 else FRAME
        if stream.send_window < room:
            room = stream.send_window
        if session.send_window < room:
            room = session.send_window
        if session.peer_frame < room:
            room = session.peer_frame
        if room <= 0:
            self._pause(event)
            return
        start = out.length + 9
        if start + room > OUTBOX:
            tunnel.flush()
            if not self.closed:  # the flush may find the tunnel broken
                self.on_event(event & ~OUT)
            return
        try:
            n = self._recv_into(out.view[start : start + room])
        except BlockingIOError:
            return
        except OSError:
            self._app_reset()
            return
        if n:
            _pack_into(out.data, start - 9, n << 8, 0, stream.id)
            out.length = start + n
            stream.send_window -= n
            session.send_window -= n
            self.from_app += n
            self.series.from_app += n  # type: ignore[union-attr]
        else:
            self._app_end()

    def _pause(self, event: int) -> None:
        """Nothing can be sent: stop reading until the tunnel says :meth:`resume`."""
        self._pausing = True
        self.tunnel.pause(self)
        if event & _BAD:
            self._hung_up(event)
        else:
            self._watch()

    def resume(self) -> None:
        """The tunnel may take bytes again."""
        if self._pausing and not self.closed:
            self._pausing = False
            if self._muted:
                self._muted = False
                self.proxy.world.loop.add(self.fd, self._interest(), self.on_event)
            else:
                self._watch()

    def _hung_up(self, event: int) -> None:
        """ERR or HUP while we are not reading: RST, or both directions are shut and bytes still wait to be read."""
        if event & ERR or self._read_closed:
            self._app_reset()
        elif not self._muted:
            self._muted = True  # level-triggered HUP would spin
            self.proxy.world.loop.remove(self.fd)

    def _app_end(self) -> None:
        self._read_closed = True
        self.session.end(self.stream)  # type: ignore[arg-type]
        if self._tunnel_ended and self.pending is None:
            self.finish(CloseReason.COMPLETE)
        else:
            self._watch()

    def _app_reset(self) -> None:
        if self.stream is not None:
            self.session.reset(self.stream, ErrorCode.CANCEL)
        self.finish(self.app_reset_reason)

    def _interest(self) -> int:
        return (0 if self._read_closed or self._pausing else IN) | (0 if self.pending is None else OUT)

    def _watch(self) -> None:
        if self.connected and not self._muted:
            self.proxy.world.loop.change(self.fd, self._interest())

    # --- tunnel to application ----------------------------------------------------------------------------------------

    def from_tunnel(self, view: memoryview) -> None:
        """DATA. Credit goes back to the peer for what the application's socket took."""
        n = len(view)
        if self.pending is None and self.connected:
            try:
                sent = self.sock.send(view)  # type: ignore[union-attr]
            except BlockingIOError:
                sent = 0
            except OSError:
                self.session.credit(n)
                self._app_reset()
                return
            self.to_app += sent
            self.series.to_app += sent  # type: ignore[union-attr]
            if sent:
                self.session.consumed(self.stream, sent)  # type: ignore[arg-type]
            if sent == n:
                return
            view = view[sent:]
            n -= sent
        elif self.closed:
            self.session.credit(n)
            return
        if self.pending is None:
            self.pending = bytearray(view)
            self._watch()
        else:
            self.pending += view
        if self.proxy.hold(n):
            self.session.credit(n)
        elif self.proxy.held > MAX_HELD:
            self.kill(CloseReason.OVERLOADED, f"stalled applications of {self.proxy.uid} hold {MAX_HELD >> 20} MiB already")
        else:
            self.stream.deferred += n  # type: ignore[union-attr]

    def _drain(self) -> None:
        pending = self.pending
        if pending is None:
            return
        try:
            sent = self.sock.send(pending)  # type: ignore[union-attr]
        except BlockingIOError:
            return
        except OSError:
            self._app_reset()
            return
        self.to_app += sent
        self.series.to_app += sent  # type: ignore[union-attr]
        del pending[:sent]
        self.proxy.release(sent)
        if self.stream is not None:
            self.session.consumed_late(self.stream, sent)
        if not pending:
            self.pending = None
            if self._tunnel_ended:
                self._shut()
            if not self.closed:
                self._watch()

    def tunnel_end(self) -> None:
        """END_STREAM: the peer will send no more."""
        self._tunnel_ended = True
        if self.connected and self.pending is None:
            self._shut()

    def _shut(self) -> None:
        """Everything was written: FIN to the application."""
        if self._read_closed:
            self.finish(CloseReason.COMPLETE)
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)  # type: ignore[union-attr]
        except OSError:
            self._app_reset()

    def tunnel_reset(self, code: int) -> None:
        """RST_STREAM. NO_ERROR is an orderly end, once what came before is written (RFC 9113 §8.1); anything else is RST."""
        if code != ErrorCode.NO_ERROR:
            self._reset_app()
            self.finish(self.tunnel_reset_reason)
        elif self.pending is None or not self.connected:
            self.finish(CloseReason.COMPLETE)
        else:
            self._unbind()
            self._read_closed = self._tunnel_ended = True
            self._watch()

    def tunnel_lost(self, reason: CloseReason, detail: str) -> None:
        """The tunnel broke: the application must not take what it got for everything."""
        self._reset_app()
        self.finish(reason, detail)

    def _reset_app(self) -> None:
        if self.sock is not None:
            reset_on_close(self.sock)

    # --- the end ------------------------------------------------------------------------------------------------------

    def finish(self, reason: CloseReason, detail: str = "") -> None:
        """Release everything; the stream has been ended or reset already."""
        if self.closed:
            return
        pending = self.pending
        if pending is not None:
            self.proxy.release(len(pending))
            self.pending = None
        self._unbind()  # and no cycle is left: freed at once
        self.connected = False
        if self.sock is not None:
            self.proxy.world.loop.close(self.sock)
        self.end(reason, detail)

    def kill(self, reason: CloseReason, detail: str = "") -> None:
        """End it now, with RST both ways."""
        if self.closed:
            return
        if self.stream is not None:
            self.session.reset(self.stream, ErrorCode.CANCEL)
        self._reset_app()
        self.finish(reason, detail)

    def fail(self, error: Exception) -> None:
        """A bug of ours hit a handler of this connection."""
        self.kill(CloseReason.INTERNAL, type(error).__name__)
