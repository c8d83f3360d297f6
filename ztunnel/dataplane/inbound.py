"""The destination's side: tunnels accepted on 15008 and the connections inside them."""

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policy.verdict import Connection, Destination
from ztunnel.dataplane.errors import NetnsError
from ztunnel.dataplane.loop import IN, OUT
from ztunnel.dataplane.pair import CONNECT_TIMEOUT, connect_failure
from ztunnel.dataplane.parties import party_of_baggage, party_of_workload
from ztunnel.dataplane.registry import Series
from ztunnel.dataplane.relay import StreamConn
from ztunnel.dataplane.sockets import family_of, finish_dial, text
from ztunnel.dataplane.tunnel import Tunnel
from ztunnel.dataplane.verdicts import reason_of
from ztunnel.hbone.errors import RequestError
from ztunnel.hbone.hpack import field
from ztunnel.hbone.request import Request, parse_request
from ztunnel.hbone.stream import Stream
from ztunnel.hbone.tls import TlsSession
from ztunnel.reasons import CloseReason, status_of
from ztunnel.route.decision import Deliver, Refuse
from ztunnel.route.headers import decode_baggage, decode_forwarded, decode_traceparent
from ztunnel.route.inbound import route_connect
from ztunnel.route.proxy_protocol import proxy_header

if TYPE_CHECKING:
    from ztunnel.dataplane.proxy import PodProxy

__all__ = ["InboundConn", "ServerTunnel"]

MAX_PLANS: Final = 100
"""Different requests of one tunnel whose answers are kept: it carries one workload's connections to a few ports."""
MAX_PLAN_BAGGAGE: Final = 1_024
"""Bytes of baggage above which an answer is not kept; an honest peer's has about 200."""


@dataclass(frozen=True, slots=True)
class InboundPlan:
    """The answer to a request. ``refuse``: why not, with the policy that decided; else ``deliver``."""

    deliver: Deliver
    series: Series | None
    refuse: CloseReason | None
    detail: str
    policy: str
    why: str


_NOWHERE: Final = Deliver("", 0)
_PEERS_FAULT: Final = frozenset({CloseReason.TUNNEL_PROTOCOL, CloseReason.TUNNEL_FLOOD, CloseReason.TLS_FAILURE})


class InboundConn(StreamConn):
    """One stream of a peer's tunnel on its way to the application."""

    __slots__ = ("deliver",)
    direction = "inbound"
    app_reset_reason = CloseReason.SERVER_RESET
    tunnel_reset_reason = CloseReason.CLIENT_RESET

    def __init__(self, tunnel: "ServerTunnel", stream: Stream, authority: str) -> None:
        super().__init__(tunnel.proxy, tunnel.peer, tunnel.local)
        self.hbone = authority
        self.identity = tunnel.tls.peer_identity
        self._bind(tunnel, stream)

    def begin(self, plan: InboundPlan) -> None:
        """Dial the application, from the client's address."""
        world = self.proxy.world
        deliver = plan.deliver
        self.deliver = deliver
        self.policy = plan.policy
        self.why = plan.why
        if plan.series is not None:
            self.opened(plan.series)
        if plan.refuse is not None:
            self.refuse(plan.refuse, plan.detail)
            return
        if self.proxy.open > world.max_connections:  # this one is counted already
            self.refuse(CloseReason.OVERLOADED, self.proxy.too_many)
            return
        self.actual = text(deliver.ip, deliver.port)
        source = self.tunnel.peer_ip if self.proxy.transparent else ""  # type: ignore[attr-defined]
        if family_of(source) != family_of(deliver.ip):
            source = ""
        try:
            sock, connected = world.dial(self.proxy.netns, deliver.ip, deliver.port, source, local=True)
        except NetnsError as e:
            self.refuse(CloseReason.OVERLOADED, str(e))
            return
        except OSError as e:
            self.refuse(connect_failure(e.errno), f"{self.actual}: {os.strerror(e.errno or 0)}")
            return
        self._attach(sock)
        if connected:
            self._accepted()
        else:
            world.expect(self, CONNECT_TIMEOUT)
            world.loop.add(self.fd, OUT, self._on_connect)

    def _on_connect(self, _: int) -> None:
        sock = self.sock
        assert sock is not None
        world = self.proxy.world
        world.unexpect(self)
        world.loop.remove(self.fd)
        error = finish_dial(sock)
        if error:
            self.refuse(connect_failure(error), f"{self.actual}: {os.strerror(error)}")
        else:
            self._accepted()

    def _accepted(self) -> None:
        """200 only now: the application has the connection."""
        assert self.stream is not None
        if self.deliver.proxy_target and not self._introduce(self.deliver.proxy_target):
            return
        self.session.answer(self.stream, 200, self.proxy.response_headers)
        self._start()

    def _introduce(self, target: str) -> bool:
        """PROXY header first; False when the connection is gone again. A fresh send buffer takes it whole."""
        assert self.sock is not None
        try:
            self.sock.send(proxy_header(self.tunnel.peer, target, self.identity))
        except OSError as e:
            self.refuse(CloseReason.APP_UNREACHABLE, f"{self.actual}: {os.strerror(e.errno or 0)}")
            return False
        return True

    def on_timeout(self) -> None:
        """The application does not answer."""
        self.refuse(CloseReason.APP_TIMEOUT, f"{self.actual} did not accept within {CONNECT_TIMEOUT:.0f} s")

    def refuse(self, reason: CloseReason, detail: str) -> None:
        """Answer with the reason's status, and ours beside it: it can then be explained at the other end too."""
        if self.closed:
            return
        if self.stream is not None:
            extra = field(b"x-ambient-reason", reason.encode())
            if self.policy:
                extra += field(b"x-ambient-policy", self.policy.encode())
            self.session.answer(self.stream, status_of(reason), extra)
            self._unbind()
        self.finish(reason, detail)

    def tunnel_reset(self, code: int) -> None:
        """The client gave up."""
        self._unbind()
        super().tunnel_reset(code)

    def tunnel_lost(self, reason: CloseReason, detail: str) -> None:
        """The tunnel broke."""
        self._unbind()
        super().tunnel_lost(reason, detail)

    def finish(self, reason: CloseReason, detail: str = "") -> None:
        """Release everything."""
        if not self.connected:
            self.proxy.world.unexpect(self)
        super().finish(reason, detail)


class ServerTunnel(Tunnel):
    """A tunnel a peer opened to a workload of ours."""

    __slots__ = ("_epoch", "_plans", "local", "local_ip", "peer_ip")

    def __init__(
        self, proxy: "PodProxy", sock: socket.socket, tls: TlsSession, peer: tuple[str, int], local: tuple[str, int]
    ) -> None:
        super().__init__(proxy, sock, tls, text(*peer), client=False)
        self.peer_ip = peer[0]
        self.local_ip = local[0]
        self.local = text(*local)
        self._plans: dict[tuple[bytes, ...], InboundPlan] = {}
        self._epoch = -1
        proxy.world.loop.add(self.fd, IN, self.on_event)

    def on_established(self) -> None:
        """The peer is verified."""
        if self.proxy.world.draining:
            self.session.goaway()

    def on_ready(self) -> None:
        """It speaks HBONE."""
        self.proxy.handshakes.pop(self, None)

    def on_request(self, stream: Stream, headers: list[tuple[bytes, bytes]]) -> None:
        """CONNECT."""
        if self.session.streams.get(stream.id) is not stream:
            return  # reset already, or the tunnel is lost: the application is not troubled for nobody
        try:
            request = parse_request(headers)
        except RequestError as e:
            InboundConn(self, stream, "").refuse(CloseReason.BAD_REQUEST, str(e))
            return
        authority = request.authority.decode("ascii", "replace")
        conn = InboundConn(self, stream, authority)
        conn.trace = decode_traceparent(request.traceparent) or ""
        world = self.world
        if self._epoch != world.epoch or len(self._plans) >= MAX_PLANS:
            self._plans.clear()
            self._epoch = world.epoch
        # Only the host of a service matters here, and most requests name none.
        forwarded = decode_forwarded(request.forwarded) if b"host" in request.forwarded else None
        host = forwarded.host if forwarded is not None else ""
        key = (request.method, request.authority, host.encode(), request.baggage)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(request, authority, host)
            if len(request.baggage) <= MAX_PLAN_BAGGAGE:
                self._plans[key] = plan
        conn.begin(plan)

    def _plan(self, request: Request, authority: str, host: str) -> InboundPlan:
        world = self.world
        proxy = self.proxy
        identity = self.tls.peer_identity
        local = proxy.workload()
        if local is None:
            return InboundPlan(_NOWHERE, None, CloseReason.LOCAL_WORKLOAD_UNKNOWN, proxy.uid, "", "")
        answer = route_connect(
            world.state,
            local,
            self.local_ip,
            authority,
            method=request.method.decode("ascii", "replace"),
            forwarded_host=host,
            localhost_app_tunnel=world.config.localhost_app_tunnel,
        )
        service = answer.service if isinstance(answer, Deliver) else ""
        source = world.state.workload_by_address(world.config.network, self.peer_ip)
        if source is not None and source.identity == identity:
            party = party_of_workload(source, proved=True)
        else:
            party = party_of_baggage(decode_baggage([request.baggage]), identity)
        there = party_of_workload(local, proved=True)
        series = world.registry.series("destination", party, there, service, "mutual_tls", "tunnel")
        if isinstance(answer, Refuse):
            return InboundPlan(_NOWHERE, series, answer.reason, answer.detail, "", "")
        verdict = world.policies.decide(
            Destination(local.namespace, local.authorization_policies),
            Connection(identity or None, self.peer_ip, answer.ip, answer.port),
        )
        if not verdict.allowed:
            return InboundPlan(answer, series, reason_of(verdict), verdict.explain(), verdict.policy, "")
        return InboundPlan(answer, series, None, "", verdict.policy, verdict.explain())

    def on_lost(self, reason: CloseReason, detail: str) -> None:
        """A handshake that failed is told; a tunnel that ends is not a connection's end."""
        self.proxy.server_tunnels.pop(self, None)
        self.proxy.handshakes.pop(self, None)
        unfinished = not self.tls.established or (not self.session.ready and reason is not CloseReason.TUNNEL_LOST)
        if unfinished or reason in _PEERS_FAULT:
            self.proxy.refused("inbound", self.peer, self.local, reason, detail)
