"""Decisions with everything that does not change from connection to connection already made: series, header blocks, pool keys.

Built from ``route``'s decisions, kept by a proxy until the state changes, so that a new connection costs one dictionary lookup.
"""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ztunnel.dataplane.parties import party_of_address, party_of_workload
from ztunnel.dataplane.registry import Series
from ztunnel.dataplane.sockets import text
from ztunnel.hbone.hpack import field, request_prefix
from ztunnel.reasons import CloseReason
from ztunnel.route.decision import Choice, Decision, Passthrough, Refuse, SameNode, Spread, Tunnel
from ztunnel.route.headers import encode_baggage
from ztunnel.state.model import Workload

if TYPE_CHECKING:
    from ztunnel.dataplane.pool import PoolKey
    from ztunnel.dataplane.proxy import PodProxy

__all__ = ["OutboundPlan", "PassthroughPlan", "Plan", "RefusePlan", "SameNodePlan", "SpreadPlan", "plan_outbound"]


@dataclass(frozen=True, slots=True)
class OutboundPlan:
    """A tunnelled connection. ``block``: the constant start of its header block; ``forwarded_host``: ``;host=...`` or ""."""

    key: "PoolKey"
    authority: str
    peer: str
    identity: str
    block: bytes
    forwarded_host: str
    series: Series
    why: str


@dataclass(frozen=True, slots=True)
class PassthroughPlan:
    """Plain TCP to ``ip:port``."""

    ip: str
    port: int
    series: Series
    why: str


@dataclass(frozen=True, slots=True)
class SameNodePlan:
    """To a workload that this proxy serves too; policy is evaluated when the connection comes."""

    destination: Workload
    ip: str
    port: int
    series: Series
    mirror: Series
    why: str


@dataclass(frozen=True, slots=True)
class RefusePlan:
    """No way."""

    reason: CloseReason
    detail: str


@dataclass(frozen=True, slots=True)
class SpreadPlan:
    """One of several, by weight."""

    plans: tuple["OutboundPlan | PassthroughPlan | SameNodePlan | RefusePlan", ...]
    cumulative: tuple[int, ...]

    def pick(self) -> "OutboundPlan | PassthroughPlan | SameNodePlan | RefusePlan":
        """The plan for this connection."""
        return random.choices(self.plans, cum_weights=self.cumulative)[0]


Plan = OutboundPlan | PassthroughPlan | SameNodePlan | RefusePlan | SpreadPlan


def plan_outbound(proxy: "PodProxy", source: Workload, decision: Decision) -> Plan:
    """The plan for a decision about a connection of ``source``."""
    if isinstance(decision, Spread):
        return SpreadPlan(tuple(_plan(proxy, source, c) for c in decision.choices), decision.cumulative)
    return _plan(proxy, source, decision)


def _plan(proxy: "PodProxy", source: Workload, choice: Choice) -> OutboundPlan | PassthroughPlan | SameNodePlan | RefusePlan:
    registry = proxy.world.registry
    match choice:
        case Tunnel():
            proved = party_of_workload(source, proved=True)
            destination = choice.destination
            there = party_of_workload(destination, proved=True) if destination else party_of_address(choice.identities)
            return OutboundPlan(
                key=(source.identity, choice.peer_ip, choice.peer_port, choice.identities),
                authority=choice.authority,
                peer=text(choice.peer_ip, choice.peer_port),
                identity=choice.identities[0] if choice.identities else "",
                block=request_prefix(choice.authority.encode()) + field(b"baggage", encode_baggage(source)),
                forwarded_host=f";host={choice.hostname}" if choice.hostname else "",
                series=registry.series("source", proved, there, choice.service, "mutual_tls", "tunnel"),
                why="the destination is in the mesh" if destination else "the destination's waypoint",
            )
        case SameNode():
            here = party_of_workload(source, proved=True)
            there = party_of_workload(choice.destination, proved=True)
            return SameNodePlan(
                destination=choice.destination,
                ip=choice.ip,
                port=choice.port,
                series=registry.series("source", here, there, choice.service, "unknown", "same_node"),
                mirror=registry.series("destination", here, there, choice.service, "unknown", "same_node"),
                why="both workloads are on this node",
            )
        case Passthrough():
            here = party_of_workload(source, proved=False)
            there = party_of_workload(choice.destination, proved=False) if choice.destination else party_of_address(())
            why = "the destination does not speak HBONE" if choice.destination else "the destination is not in the mesh"
            series = registry.series("source", here, there, choice.service, "unknown", "passthrough")
            return PassthroughPlan(choice.ip, choice.port, series, why)
        case Refuse():
            return RefusePlan(choice.reason, choice.detail)
