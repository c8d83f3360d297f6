"""The source's side of tunnelled connections: accepted on 15001, carried by a pooled tunnel."""

import random
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from ztunnel.dataplane.errors import DialError
from ztunnel.dataplane.loop import IN
from ztunnel.dataplane.plans import OutboundPlan
from ztunnel.dataplane.relay import StreamConn
from ztunnel.dataplane.sockets import text
from ztunnel.dataplane.tunnel import Tunnel
from ztunnel.hbone.errors import ErrorCode, TlsError
from ztunnel.hbone.hpack import field
from ztunnel.hbone.request import parse_answer
from ztunnel.hbone.tls import TlsSession
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.pool import PoolKey
    from ztunnel.dataplane.proxy import PodProxy

__all__ = ["ClientTunnel", "OutboundConn"]

ANSWER_TIMEOUT: Final = 15.0
"""Seconds from accept to the peer's answer: its own connect timeout is 10 s (ztunnel), and it has to tell us."""
_REFUSALS: Final = 3
"""Refusals of its stream (GOAWAY, REFUSED_STREAM) that end a connection; before them the peer has done nothing with it."""
_PEERS_FAULT: Final = frozenset({CloseReason.TUNNEL_PROTOCOL, CloseReason.TUNNEL_FLOOD})
_TRACEPARENT: Final = field(b"traceparent", b"\0" * 55)[:-55]
_FORWARDED: Final = b"forwarded"


class OutboundConn(StreamConn):
    """One captured connection on its way to a peer."""

    __slots__ = ("peer_port", "plan", "refusals")
    direction = "outbound"
    app_reset_reason = CloseReason.CLIENT_RESET
    tunnel_reset_reason = CloseReason.SERVER_RESET

    def __init__(self, proxy: "PodProxy", sock: socket.socket, source: str, destination: str, plan: OutboundPlan) -> None:
        super().__init__(proxy, source, destination)
        self._attach(sock)
        self.plan = plan
        self.refusals = 0
        self.hbone = plan.authority
        self.actual = plan.peer
        self.identity = plan.identity
        self.why = plan.why
        self.trace = f"{random.getrandbits(128):032x}"
        self.opened(plan.series)

    def begin(self) -> None:
        """Find or open a tunnel and ask for a stream."""
        self.proxy.world.expect(self, ANSWER_TIMEOUT)
        self.seek()

    def seek(self) -> None:
        """The same within the time that is left: what was looked for has come, or is refused and looked for elsewhere."""
        proxy = self.proxy
        world = proxy.world
        if not world.identities.ready(self.plan.key[0]):
            world.identities.wait(self.plan.key[0], self)
            return
        try:
            tunnel = proxy.pool.checkout(self.plan)
        except (DialError, TlsError) as e:
            self.refuse(e.reason, e.detail)
            return
        if tunnel.takes(self):
            self.open(tunnel)
        else:
            tunnel.waiting.append(self)

    def on_certificate(self) -> None:
        """The certificate that was waited for is here."""
        if not self.closed:
            self.seek()

    def on_no_certificate(self, error: str) -> None:
        """It cannot be had."""
        self.refuse(CloseReason.CERTIFICATE_UNAVAILABLE, error)

    def open(self, tunnel: "ClientTunnel") -> None:
        """The tunnel has room: CONNECT."""
        plan = self.plan
        span = random.getrandbits(64)
        block = (
            plan.block
            + field(_FORWARDED, f'for="{self.source}"{plan.forwarded_host}'.encode())
            + _TRACEPARENT
            + f"00-{self.trace}-{span:016x}-00".encode()
        )
        self._bind(tunnel, tunnel.session.open(block))

    def on_answer(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The peer has decided."""
        self.proxy.world.unexpect(self)
        if status == 200:
            self._start()
            self.on_event(IN)  # who connects has mostly said something already: one turn of the loop saved
            return
        answer = parse_answer(headers)
        said = f" ({answer.reason}{': ' + answer.policy if answer.policy else ''})" if answer.reason else ""
        self.policy = answer.policy
        reason = CloseReason.PEER_DENIED if status == 401 else CloseReason.PEER_REFUSED
        self.refuse(reason, f"http status: {status}{said} from {self.plan.peer}")

    def on_timeout(self) -> None:
        """No answer in time."""
        self.refuse(CloseReason.PEER_TIMEOUT, f"{self.plan.peer} did not answer within {ANSWER_TIMEOUT:.0f} s")

    def refuse(self, reason: CloseReason, detail: str) -> None:
        """A dead destination looks dead: RST."""
        self.proxy.world.unexpect(self)
        self.kill(reason, detail)

    def tunnel_end(self) -> None:
        """END_STREAM."""
        if not self.connected and not self.closed:
            return  # an answer that ends at once: on_answer has refused or will
        super().tunnel_end()

    def tunnel_reset(self, code: int) -> None:
        """RST_STREAM; before an answer it may be a refusal that invites another try."""
        if self.connected or self.closed:
            super().tunnel_reset(code)
            return
        self._unbind()
        self.refusals += 1
        if code == ErrorCode.REFUSED_STREAM and self.refusals < _REFUSALS:
            self.seek()
        else:
            self.refuse(CloseReason.PEER_REFUSED, f"{self.plan.peer} reset the request ({code})")

    def finish(self, reason: CloseReason, detail: str = "") -> None:
        """Release everything."""
        if not self.connected:
            self.proxy.world.unexpect(self)
        super().finish(reason, detail)

    def tunnel_lost(self, reason: CloseReason, detail: str) -> None:
        """The tunnel broke or could not be opened."""
        self.proxy.world.unexpect(self)
        self._unbind()
        super().tunnel_lost(reason, detail)


class ClientTunnel(Tunnel):
    """A tunnel we dialled. ``waiting``: connections until it :meth:`takes` them; at most as many as will have room."""

    __slots__ = ("idle_since", "key", "waiting")

    def __init__(self, proxy: "PodProxy", sock: socket.socket, tls: TlsSession, peer: str, key: "PoolKey") -> None:
        super().__init__(proxy, sock, tls, peer, client=True)
        self.key = key
        self.waiting: deque[OutboundConn] = deque()
        self.idle_since = self.opened_at

    @property
    def room(self) -> int:
        """Connections it can take besides those it has and those that wait."""
        return self.session.room - len(self.waiting) if self.alive else 0

    def connected(self) -> None:
        """TCP is connected: say hello."""
        self._send_cipher(self.tls.handshake(0))

    def takes(self, conn: OutboundConn) -> bool:
        """Whether ``conn`` may ask for a stream now.

        Streams may be opened before the peer's SETTINGS arrive (RFC 9113 §3.4). One that was refused already waits for them:
        the peer's limit of streams may be what it was refused for.
        """
        return self.tls.established and (self.session.ready or not conn.refusals)

    def on_established(self) -> None:
        """TLS is done: most can go on."""
        self._admit()

    def on_ready(self) -> None:
        """The peer's limit is known."""
        self._admit()

    def _admit(self) -> None:
        waiting, self.waiting = self.waiting, deque()
        for conn in waiting:
            if conn.closed:
                continue
            if not self.takes(conn):
                self.waiting.append(conn)
            elif self.session.room > 0:
                conn.open(self)
            elif self.session.streams:
                conn.seek()  # there is one place fewer to be looked for each time round
            else:
                conn.refuse(CloseReason.PEER_REFUSED, f"{self.peer} takes no streams")

    def on_goaway(self, last: int, code: int) -> None:
        """No more streams here; what is open goes on."""
        self.proxy.pool.discard(self)
        if not self.session.streams:
            self.close()

    def on_lost(self, reason: CloseReason, detail: str) -> None:
        """Tell those that still wait."""
        self.proxy.pool.discard(self)
        if reason in _PEERS_FAULT:  # told once for the tunnel: perhaps no connection was in it to tell it
            self.proxy.refused("outbound", text(*self.sock.getsockname()[:2]), self.peer, reason, detail)
        waiting, self.waiting = self.waiting, deque()
        for conn in waiting:
            if not conn.closed:
                conn.tunnel_lost(reason, detail)

    def tick(self, now: float) -> None:
        """Keepalive, and release after POOL_UNUSED_RELEASE_TIMEOUT."""
        super().tick(now)
        if self.session.streams or self.waiting or not self.alive:
            self.idle_since = now
        elif now - self.idle_since > self.world.config.pool_unused_timeout or self.session.goaway_received:
            self.close()
