"""One workload that this node proxies: its namespace, listeners, tunnels and limits."""

import socket
from typing import TYPE_CHECKING, Final

from policy.verdict import Connection, Destination
from ztunnel.dataplane.listeners import Listeners, drop
from ztunnel.dataplane.netns import Netns
from ztunnel.dataplane.outbound import OutboundConn
from ztunnel.dataplane.pair import InboundPair, Pair, SameNodePair
from ztunnel.dataplane.parked import PARK_SECONDS, Parked, WaitsForCertificate
from ztunnel.dataplane.parties import party_of_address, party_of_workload
from ztunnel.dataplane.plans import OutboundPlan, PassthroughPlan, Plan, RefusePlan, SameNodePlan, SpreadPlan, plan_outbound
from ztunnel.dataplane.pool import Pool
from ztunnel.dataplane.sockets import address_of, original_destination, own_address, text
from ztunnel.dataplane.verdicts import reason_of
from ztunnel.hbone.errors import TlsError
from ztunnel.hbone.hpack import field
from ztunnel.hbone.tls import TlsSession, accept_trust_domain
from ztunnel.link.messages import Record
from ztunnel.reasons import CloseReason
from ztunnel.route.decision import Deliver, Refuse
from ztunnel.route.headers import encode_baggage
from ztunnel.route.inbound import route_plaintext
from ztunnel.route.outbound import route_outbound
from ztunnel.route.ports import PROXY_PORTS, is_loopback
from ztunnel.state.model import Workload, WorkloadInfo

if TYPE_CHECKING:
    from ztunnel.dataplane.inbound import ServerTunnel
    from ztunnel.dataplane.world import World

__all__ = ["HELD_BYTES", "MAX_HANDSHAKES", "MAX_PARKED", "MAX_SERVER_TUNNELS", "PodProxy"]

HELD_BYTES: Final = 64 << 20
"""Bytes of stalled applications of one workload for which tunnels still get connection-level credit: up to here a stalled
connection does not take window from its neighbours; beyond it the shared windows fill up and bound the memory."""
MAX_PARKED: Final = 1_000
"""Connections of one workload that wait for its state or certificate."""
MAX_PLANS: Final = 20_000
MAX_SERVER_TUNNELS: Final = 4_096
"""Tunnels peers may have open to one workload."""
MAX_HANDSHAKES: Final = 1_024
"""Of these, in a handshake: whoever comes then displaces the oldest, so that strangers cannot keep peers out."""


class PodProxy:
    """Serves one pod from construction to :meth:`stop`."""

    def __init__(self, world: "World", uid: str, info: WorkloadInfo, netns: Netns) -> None:
        """Opens the listeners. Raises ListenError or NetnsError."""
        self.world = world
        self.uid = uid
        self.info = info
        self.netns = netns
        self.pool = Pool(self)
        self.server_tunnels: dict[ServerTunnel, None] = {}
        self.handshakes: dict[ServerTunnel, None] = {}
        self.response_headers = b""
        self.held = 0
        self.open = 0
        """Connections of this workload, both directions."""
        self._workload: Workload | None = None
        self._epoch = -1
        self._plans: dict[bytes, tuple[Plan, str]] = {}
        self._parked: list[Parked] = []
        self._waiting: dict[WaitsForCertificate, None] = {}
        self.listeners = Listeners(self, ipv6=world.ipv6_in(netns))
        self.transparent = self.listeners.transparent

    # --- state --------------------------------------------------------------------------------------------------------

    def workload(self) -> Workload | None:
        """What state knows of this pod; None until it has arrived."""
        world = self.world
        if self._epoch != world.epoch:
            self._epoch = world.epoch
            self._plans.clear()
            # Half a state knows some destinations only, and would send to the others in the clear.
            self._workload = world.state.local_workload(self.info) if world.complete else None
            local = self._workload
            self.response_headers = field(b"baggage", encode_baggage(local)) if local and world.config.response_baggage else b""
        return self._workload

    def state_changed(self) -> None:
        """Let go on who waited for it."""
        if self._parked and self.workload() is not None:
            parked, self._parked = self._parked, []
            for conn in parked:
                try:
                    conn.go()
                except Exception as e:  # noqa: BLE001 as in the loop
                    self.world.fault(self, e)
                    drop(conn.sock)

    def tick(self) -> None:
        """Once a second: who waited too long is refused."""
        if not self._parked:
            return
        now = self.world.loop.now
        parked, self._parked = self._parked, []
        for conn in parked:
            if now - conn.since < PARK_SECONDS:
                self._parked.append(conn)
            else:
                conn.refuse()

    def _park(self, conn: Parked) -> None:
        if len(self._parked) >= MAX_PARKED:
            conn.refuse()
        else:
            self._parked.append(conn)

    # --- 15001 --------------------------------------------------------------------------------------------------------

    def accept_outbound(self, sock: socket.socket, family: int, peer: tuple[str, int]) -> None:
        """A captured connection of the workload."""
        original = original_destination(sock, family)
        source = self.workload()
        if source is None:
            self._park(Parked(self, sock, family, peer, original, "outbound", self.world.loop.now))
            return
        if int.from_bytes(original[:2], "big") in PROXY_PORTS and original == own_address(sock, family):
            # Nothing redirected it: it was made to us, and passing it on would make it to us again, without end.
            self.refused("outbound", text(*peer), text(*address_of(original)), CloseReason.RECURSIVE_CALL, "called directly")
            drop(sock)
            return
        known = self._plans.get(original)
        if known is None:
            ip, port = address_of(original)
            plan = plan_outbound(self, source, route_outbound(self.world.state, source, ip, port, self.world.node))
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            known = self._plans[original] = (plan, text(ip, port))
        self._go(known[0], sock, text(*peer), known[1], peer[0])

    def _go(self, plan: Plan, sock: socket.socket, source: str, destination: str, source_ip: str) -> None:
        if isinstance(plan, SpreadPlan):
            plan = plan.pick()
        if self.full:
            plan = RefusePlan(CloseReason.OVERLOADED, self.too_many)
        match plan:
            case OutboundPlan():
                OutboundConn(self, sock, source, destination, plan).begin()
            case PassthroughPlan():
                pair = Pair(self, sock, source, destination)
                pair.why = plan.why
                pair.opened(plan.series)
                pair.begin(self.netns, plan.ip, plan.port, "", text(plan.ip, plan.port))
            case SameNodePlan():
                self._same_node(plan, sock, source, destination, source_ip)
            case RefusePlan():
                self.refused("outbound", source, destination, plan.reason, plan.detail)
                drop(sock)

    def _same_node(self, plan: SameNodePlan, sock: socket.socket, source: str, destination: str, source_ip: str) -> None:
        """Both ends are ours: policy is evaluated here, with identities that the network namespaces prove."""
        world = self.world
        server = world.proxy_of(plan.destination)
        client = self.workload()
        if server is None or client is None:
            self.refused("outbound", source, destination, CloseReason.WORKLOAD_REMOVED, plan.destination.uid)
            drop(sock)
            return
        if source_ip not in client.addresses:
            # A process may bind any address of its pod, ::1 among them, and would be taken for someone else over there.
            detail = f"{source} is no address of {client.uid}"
            self.refused("outbound", source, destination, CloseReason.SOURCE_SPOOFED, detail)
            drop(sock)
            return
        actual = text(plan.ip, plan.port)
        pair = SameNodePair(self, server, sock, source, destination, actual)
        pair.identity = plan.destination.identity
        verdict = world.policies.decide(
            Destination(plan.destination.namespace, plan.destination.authorization_policies),
            Connection(client.identity, source_ip, plan.ip, plan.port),
        )
        pair.opened_both(plan.series, plan.mirror, client.identity, verdict.policy)
        pair.why = plan.why
        pair.mirror.why = verdict.explain()
        if not verdict.allowed:
            pair.actual = actual
            pair.kill(reason_of(verdict), verdict.explain())
            return
        pair.begin(server.netns, plan.ip, plan.port, source_ip if server.transparent else "", actual)

    # --- 15006 --------------------------------------------------------------------------------------------------------

    def accept_plain(self, sock: socket.socket, family: int, peer: tuple[str, int]) -> None:
        """A plain connection to the workload."""
        world = self.world
        original = original_destination(sock, family)
        local = self.workload()
        if local is None:
            self._park(Parked(self, sock, family, peer, original, "inbound", world.loop.now))
            return
        ip, port = address_of(original)
        source, destination = text(*peer), text(ip, port)
        answer = route_plaintext(world.state, local, ip, port)
        if self.full:
            answer = Refuse(CloseReason.OVERLOADED, self.too_many)
        if isinstance(answer, Deliver) and is_loopback(peer[0]):
            answer = Refuse(CloseReason.SOURCE_SPOOFED, f"{source} did not come over a network")
        if isinstance(answer, Refuse):
            self.refused("inbound", source, destination, answer.reason, answer.detail)
            drop(sock)
            return
        pair = InboundPair(self, sock, source, destination)
        client = world.state.workload_by_address(world.config.network, peer[0])
        party = party_of_workload(client, proved=False) if client is not None else party_of_address(())
        there = party_of_workload(local, proved=False)
        pair.opened(world.registry.series("destination", party, there, answer.service, "unknown", "plaintext"))
        verdict = world.policies.decide(
            Destination(local.namespace, local.authorization_policies), Connection(None, peer[0], answer.ip, answer.port)
        )
        pair.policy = verdict.policy
        pair.why = verdict.explain()
        if not verdict.allowed:
            pair.kill(reason_of(verdict), verdict.explain())
            return
        pair.begin(self.netns, answer.ip, answer.port, peer[0] if self.transparent else "", text(answer.ip, answer.port))

    # --- 15008 --------------------------------------------------------------------------------------------------------

    def accept_hbone(self, sock: socket.socket, family: int, peer: tuple[str, int]) -> None:
        """A peer's tunnel."""
        from ztunnel.dataplane.inbound import ServerTunnel

        world = self.world
        local = self.workload()
        name = sock.getsockname()
        if local is None:
            self._park(Parked(self, sock, family, peer, b"", "hbone", world.loop.now))
            return
        destination = text(name[0], name[1])
        if len(self.server_tunnels) >= MAX_SERVER_TUNNELS and not self._close_idle_tunnel():
            self.refused(
                "inbound", text(*peer), destination, CloseReason.OVERLOADED, f"{MAX_SERVER_TUNNELS} tunnels are busy already"
            )
            drop(sock)
            return
        try:
            if not world.identities.ready(local.identity):
                waiter = WaitsForCertificate(self, sock, family, peer)
                self._waiting[waiter] = None
                world.expect(waiter, PARK_SECONDS)
                world.identities.wait(local.identity, waiter)
                return
            context = world.identities.context(local.identity, server=True)
        except TlsError as e:
            self.refused("inbound", text(*peer), destination, e.reason, e.detail)
            drop(sock)
            return
        if len(self.handshakes) >= MAX_HANDSHAKES:
            oldest = next(iter(self.handshakes))
            oldest.lost(CloseReason.OVERLOADED, f"{MAX_HANDSHAKES} peers are in a handshake, this was the oldest")
        tls = TlsSession(context, world.tls_buffers, accept_trust_domain(local.trust_domain), server=True)
        tunnel = ServerTunnel(self, sock, tls, peer, (name[0], name[1]))
        self.server_tunnels[tunnel] = self.handshakes[tunnel] = None

    def _close_idle_tunnel(self) -> bool:
        """Make room for a peer: the oldest tunnel that carries nothing goes, so that idle ones cannot shut others out."""
        idle = next((t for t in self.server_tunnels if t.session.ready and not t.session.streams), None)
        if idle is not None:
            idle.close()
        return idle is not None

    def waits_no_more(self, waiter: "WaitsForCertificate") -> None:
        """A peer's tunnel goes on, or is refused."""
        self._waiting.pop(waiter, None)

    # --- limits, and the end ------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """This workload has as many connections as one may: the rest of the node's descriptors is for the others."""
        return self.open >= self.world.max_connections

    @property
    def too_many(self) -> str:
        """What a connection above that is told."""
        return f"{self.uid} has {self.open} connections; one workload may use three quarters of the limit of open files"

    def hold(self, n: int) -> bool:
        """``n`` bytes wait for a stalled application. Whether they are within :data:`HELD_BYTES`."""
        self.held += n
        return self.held <= HELD_BYTES

    def release(self, n: int) -> None:
        """They wait no more."""
        self.held -= n

    def refused(self, direction: str, source: str, destination: str, reason: CloseReason, detail: str) -> None:
        """A connection that ends before anything is known of it."""
        world = self.world
        record = Record(0, direction, source, destination, "", 0, 0, world.wall(), 0.0, reason, detail)
        world.registry.refused(record, reason)

    def shed(self, direction: str, peer: str, why: str) -> None:
        """A connection was refused because no descriptor is left."""
        self.refused(direction, peer, self.uid, CloseReason.OVERLOADED, f"{why}; raise the limit of open files")

    def drain(self) -> None:
        """No new connections; tunnels are told."""
        self.listeners.close(take_waiting=True)
        for tunnel in list(self.server_tunnels):
            if tunnel.session.ready and not tunnel.session.draining:
                tunnel.session.goaway()
        for parked in self._parked:
            parked.refuse()
        self._parked.clear()

    def stop(self, reason: CloseReason) -> None:
        """End everything now and let go of the namespace."""
        self.drain()
        for conn in [c for c in self.world.registry.conns if c.proxy is self]:
            conn.kill(reason, self.uid)
        for tunnel in [*self.server_tunnels, *self.pool.tunnels()]:
            tunnel.close()
        for waiter in list(self._waiting):
            waiter.on_no_certificate(f"{self.uid} is served no more")
        self.world.netns.release(self.netns)

    def fail(self, error: Exception) -> None:
        """A bug in a callback of ours; connections go on."""
