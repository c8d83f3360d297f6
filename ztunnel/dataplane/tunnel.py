"""A tunnel: one TCP connection to another node's HBONE port, its TLS and its HTTP/2 session.

Hot code: :meth:`Tunnel._read` and :meth:`Tunnel.flush` run once for each batch of events, whatever the number of connections
inside. Everything queued in a batch lies in one outbox, is encrypted at once and leaves in one ``send``. When the socket
does not take it all the tunnel is *blocked*: it keeps the ciphertext that is left, and connections that want to send through it
find that out and stop reading their applications.
"""

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from ztunnel.dataplane.buffers import OUTBOX, Outbox
from ztunnel.dataplane.loop import ERR, HUP, IN, OUT
from ztunnel.hbone import events as ev
from ztunnel.hbone.errors import SessionError, TlsError
from ztunnel.hbone.session import Session
from ztunnel.hbone.stream import Stream
from ztunnel.hbone.tls import TlsSession
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.proxy import PodProxy
    from ztunnel.dataplane.relay import StreamConn

__all__ = ["PING_INTERVAL", "PING_TIMEOUT", "Tunnel"]

PING_INTERVAL: Final = 10.0
"""Seconds after a PONG until the next PING (ztunnel default)."""
PING_TIMEOUT: Final = 20.0
"""Seconds without a PONG after which the peer is dead (ztunnel default)."""
HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds for TCP, TLS and the peer's SETTINGS."""
MAX_BACKLOG: Final = 262_144
"""Bytes of control frames kept while the socket takes nothing; a peer that makes us exceed it is flooding."""
_PING: Final = b"ambient!"


class Tunnel:
    """Base of both ends. ``alive``: TCP connected and not closed; ``out``: the outbox of this batch, or None."""

    __slots__ = (
        "_backlog",
        "_cipher",
        "_flushing",
        "_paused",
        "_pinged",
        "_ponged",
        "_recv_into",
        "_send",
        "alive",
        "fd",
        "opened_at",
        "out",
        "peer",
        "proxy",
        "session",
        "sock",
        "tls",
        "world",
    )

    def __init__(self, proxy: "PodProxy", sock: socket.socket, tls: TlsSession, peer: str, *, client: bool) -> None:
        world = proxy.world
        self.world = world
        self.proxy = proxy
        self.sock = sock
        self.fd = sock.fileno()
        self._recv_into = sock.recv_into
        self._send = sock.send
        self.tls = tls
        self.peer = peer
        self.alive = True
        self.out: Outbox | None = None
        self._backlog = bytearray()
        self._cipher: bytearray | None = None
        self._flushing = False
        self._paused: dict[StreamConn, None] = {}
        self._pinged = 0.0
        self.opened_at = self._ponged = world.loop.now
        self.session = Session(world.session_limits, client=client, now=world.loop.now, put=self.put)
        world.tunnels[self] = None

    @property
    def blocked(self) -> bool:
        """The socket has not taken everything yet."""
        return self._cipher is not None

    # --- writing ------------------------------------------------------------------------------------------------------

    def take_out(self) -> Outbox:
        """The outbox of this batch."""
        out = self.out
        if out is None:
            out = self.out = self.world.outboxes.take()
            self.world.loop.dirty.append(self)
        return out

    def put(self, data: bytes) -> None:
        """Queue control frames, in order with DATA. Never blocks; bounded by :data:`MAX_BACKLOG` when the socket does."""
        if self._cipher is not None or not self.tls.established:
            self._backlog += data
            if len(self._backlog) > MAX_BACKLOG:
                self.world.loop.soon(self._flooded)
            return
        out = self.out
        if out is None:
            out = self.take_out()
        elif out.length + len(data) > OUTBOX:
            self.flush()
            self.put(data)
            return
        start = out.length
        out.length = start + len(data)
        out.view[start : out.length] = data

    def _flooded(self) -> None:
        self.lost(CloseReason.TUNNEL_FLOOD, "the peer makes us answer and does not read the answers")

    def flush(self) -> None:
        """Encrypt what is queued and send it."""
        out = self.out
        if out is None:
            return
        self.out = None
        n = 0
        try:
            if self.alive and out.length:
                n = self.tls.encrypt(out.at, out.length)
        except TlsError as e:
            self.lost(e.reason, e.detail)
            n = 0
        self.world.outboxes.give(out)
        if n:
            self._send_cipher(n)

    def _send_cipher(self, n: int) -> None:
        """Send ``n`` bytes of the process's ciphertext buffer; what is left over is kept."""
        view = self.world.tls_buffers.cipher_out[:n]
        sent = 0
        if self._cipher is None:
            try:
                sent = self._send(view)
            except BlockingIOError:
                pass
            except OSError as e:
                self._cipher = bytearray()  # nothing more is sent; what the peer sent last may say why, and is read after the batch
                why = f"{self.peer}: {e.strerror}"
                self.world.loop.soon(lambda: self._last_words(why))
                return
            if sent == n:
                return
            self._cipher = bytearray(view[sent:])
            self.world.loop.change(self.fd, IN | OUT)
        else:
            self._cipher += view

    def _last_words(self, why: str) -> None:
        """Sending failed: a TLS alert or GOAWAY that came before the reset is the better reason."""
        if self.alive:
            self._read()
        self.lost(CloseReason.TUNNEL_LOST, why)

    def _unblock(self) -> None:
        """The socket takes bytes again."""
        cipher = self._cipher
        if cipher is None:
            self.world.loop.change(self.fd, IN)
            return
        try:
            sent = self._send(cipher)
        except BlockingIOError:
            return
        except OSError as e:
            self.lost(CloseReason.TUNNEL_LOST, f"{self.peer}: {e.strerror}")
            return
        if sent < len(cipher):
            del cipher[:sent]
            return
        self._cipher = None
        self.world.loop.change(self.fd, IN)
        self._release_backlog()
        self.resume_all()

    def _release_backlog(self) -> None:
        if self._backlog:
            data, self._backlog = bytes(self._backlog), bytearray()
            self.put(data)

    def pause(self, conn: "StreamConn") -> None:
        """``conn`` cannot send now: tell it when it may be worth trying again."""
        self._paused[conn] = None

    def resume_all(self) -> None:
        """Something gave way: the socket, or a window."""
        paused, self._paused = self._paused, {}
        for conn in paused:
            conn.resume()

    # --- reading ------------------------------------------------------------------------------------------------------

    def on_event(self, event: int) -> None:
        """The socket is ready."""
        if event & OUT:
            self._unblock()
        if event & (IN | ERR | HUP) and self.alive:
            self._read()

    def _read(self) -> None:
        world = self.world
        buffers = world.tls_buffers
        try:
            n = self._recv_into(buffers.cipher_in)
        except BlockingIOError:
            return
        except OSError as e:
            self.lost(CloseReason.TUNNEL_LOST, f"{self.peer}: {e.strerror}")
            return
        if not n:
            self.lost(CloseReason.TUNNEL_LOST, f"{self.peer} closed the connection")
            return
        tls = self.tls
        try:
            if not tls.established:
                if not self._handshake(n):
                    return
                n = 0
            fill = tls.decrypt(n)
            events = self.session.receive(buffers.plain_in[:fill], world.loop.now) if fill else ()
        except TlsError as e:
            self._alert()
            self.lost(e.reason, e.detail)
            return
        except SessionError as e:
            self.flush()
            # Connections whose streams ended in the same bytes are not the session's any more: lost() would pass them over.
            self._dispatch([event for event in e.events if event[0] != ev.REQUEST])
            self.lost(e.reason, f"{self.peer}: {e.detail}")
            return
        self._dispatch(events)
        if tls.ended:
            self.lost(CloseReason.TUNNEL_LOST, f"{self.peer} closed the tunnel")

    def _dispatch(self, events: Iterable[ev.Event]) -> None:
        for kind, stream, arg in events:
            try:
                if kind == 0:
                    owner = stream.owner  # type: ignore[union-attr]
                    if owner is not None:
                        owner.from_tunnel(arg)
                    else:
                        self.session.credit(len(arg))  # ended earlier in this batch
                else:
                    self._other(kind, stream, arg)
            except Exception as e:  # noqa: BLE001 a fault of ours with one stream's event ends that stream's connection alone
                self.world.fault(stream.owner if stream is not None and stream.owner is not None else self, e)

    def _other(self, kind: int, stream: Stream | None, arg: Any) -> None:
        """Every event but DATA."""
        if stream is not None:
            owner = stream.owner
            if kind == ev.REQUEST:
                if self.alive:  # an earlier event of the batch may have ended the tunnel, and nobody would end this one
                    self.on_request(stream, arg)
            elif owner is None:
                pass  # ended earlier in this batch
            elif kind == ev.END:
                owner.tunnel_end()
            elif kind == ev.RESET:
                owner.tunnel_reset(arg)
            elif kind == ev.WINDOW:
                owner.resume()
            elif kind == ev.ANSWER:
                owner.on_answer(*arg)
        elif kind == ev.WINDOWS:
            self.resume_all()
        elif kind == ev.PONG:
            self._pinged = 0.0
            self._ponged = self.world.loop.now
        elif kind == ev.READY:
            self.on_ready()
        elif kind == ev.GOAWAY:
            self.on_goaway(*arg)

    def _handshake(self, n: int) -> bool:
        """One step; True when it is done. Raises TlsError."""
        m = self.tls.handshake(n)
        if m:
            self._send_cipher(m)
        if not self.tls.established or not self.alive:
            return False
        self.session.start()
        self._release_backlog()
        self.on_established()
        return True

    def _alert(self) -> None:
        m = self.tls.pull()
        if m and self._cipher is None:
            self._send_cipher(m)

    # --- life ---------------------------------------------------------------------------------------------------------

    def on_request(self, stream: Stream, headers: list[tuple[bytes, bytes]]) -> None:
        """A client opened a stream."""
        raise NotImplementedError

    def on_established(self) -> None:
        """TLS is done and the peer's identity verified."""

    def on_ready(self) -> None:
        """The peer's SETTINGS are here."""

    def on_goaway(self, last: int, code: int) -> None:
        """The peer takes no more streams."""

    def on_lost(self, reason: CloseReason, detail: str) -> None:
        """The tunnel is gone, its streams have been told."""

    def tick(self, now: float) -> None:
        """Once a second: keepalive and the handshake's deadline."""
        if not self.session.ready:
            if now - self.opened_at > HANDSHAKE_TIMEOUT:
                self.lost(CloseReason.PEER_TIMEOUT, f"no HBONE handshake with {self.peer} within {HANDSHAKE_TIMEOUT:.0f} s")
        elif self._pinged:
            if now - self._pinged > PING_TIMEOUT:
                self.lost(CloseReason.TUNNEL_LOST, f"{self.peer} does not answer PING for {PING_TIMEOUT:.0f} s")
        elif now - self._ponged >= PING_INTERVAL:
            self._pinged = now
            self.session.ping(_PING)

    def lost(self, reason: CloseReason, detail: str) -> None:
        """End the tunnel and every connection in it."""
        if not self.alive:
            return
        if self.out is not None and reason is not CloseReason.TUNNEL_LOST:
            self.flush()  # GOAWAY says why
            if not self.alive:
                return
        self.alive = False
        self.world.tunnels.pop(self, None)
        self.world.loop.close(self.sock)
        if self.out is not None:
            self.out.length = 0
        streams = list(self.session.streams.values())
        self.session.streams.clear()
        for stream in streams:
            if stream.owner is not None:
                stream.owner.tunnel_lost(reason, detail)
        self._paused.clear()
        self.on_lost(reason, detail)
        self.tls.close()

    def close(self) -> None:
        """End it in good order: nothing is open in it."""
        if self.alive and self.tls.established:
            if not self.session.draining:
                self.session.goaway()
            self.flush()
        if self.alive:
            n = self.tls.shutdown()
            if n:
                self._send_cipher(n)
        self.lost(CloseReason.TUNNEL_LOST, "closed")

    def fail(self, error: Exception) -> None:
        """A bug of ours hit a handler of this tunnel."""
        self.lost(CloseReason.INTERNAL, type(error).__name__)
