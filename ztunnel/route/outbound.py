"""Where a connection out of a workload goes. Pure: state and connection in, decision out; called by the data plane.

An address is looked up as a **service first and as a workload second**, for its waypoint as for its endpoints. ztunnel asks in the
opposite order for the waypoint, so that there an address that is both takes the workload's waypoint to reach the service's
endpoints; here one lookup decides both.

A destination in another network needs that network's gateway and a tunnel in a tunnel, which is not built: it is refused with
NO_ROUTE, never sent in the clear. Endpoints of other networks are used by nobody while one of this network can take the connection.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from ztunnel.reasons import CloseReason
from ztunnel.route.authority import join
from ztunnel.route.decision import Choice, Decision, Passthrough, Refuse, SameNode, Spread, Tunnel
from ztunnel.route.ports import HBONE_PORT, PROXY_PORTS, is_loopback
from ztunnel.route.waypoint import is_waypoint_of, references, through
from ztunnel.state.endpoints import candidates
from ztunnel.state.model import LoadBalancerMode, Protocol, Service, Workload
from ztunnel.state.store import State

__all__ = ["NodeContext", "route_outbound"]


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What the decision depends on besides state and connection.

    ``is_local``: does this proxy serve the workload of this uid now? A change of its answers counts as a new generation.
    """

    network: str
    node: str
    encrypt_same_node: bool
    is_local: Callable[[str], bool]


def route_outbound(state: State, source: Workload, ip: str, port: int, node: NodeContext) -> Decision:
    """The way of ``source``'s connection to ``ip:port``, the original destination in canonical text.

    Several endpoints come as a :class:`Spread`; nothing is random here. The answer holds until the state's generation changes.
    """
    if port in PROXY_PORTS and (is_loopback(ip) or ip in source.addresses):
        return Refuse(CloseReason.RECURSIVE_CALL, join(ip, port))
    service = state.service_by_address(node.network, ip, source.namespace)
    if service is not None:
        return _to_service(state, source, service, ip, port, node)
    destination = state.workload_by_address(node.network, ip)
    if destination is None:
        return Passthrough(ip, port)
    return _to_workload(state, source, destination, ip, port, node)


def _to_service(state: State, source: Workload, service: Service, ip: str, port: int, node: NodeContext) -> Decision:
    # A waypoint that calls a service of its own goes on to the endpoints: sent to itself again it would loop.
    if references(service) and not is_waypoint_of(state, service, source, source.namespace):
        return _spread(through(state, service, source, ip, join(ip, port), node.network, service))
    if service.load_balancer.mode is LoadBalancerMode.PASSTHROUGH:
        # The original address is meant. Where a workload has it, that may speak HBONE and is not to get clear text.
        destination = state.workload_by_address(node.network, ip)
        if destination is not None:
            return _to_workload(state, source, destination, ip, port, node)
        return Passthrough(ip, port, service=service.key)
    found = candidates(state, service, port, source, network=node.network, target_ip=ip)
    if not found:
        return Refuse(CloseReason.NO_HEALTHY_UPSTREAM, f"{service.key} {join(ip, port)}")
    return _spread([(_direct(c.workload, c.ip, c.port, node, service), c.weight) for c in found])


def _to_workload(state: State, source: Workload, destination: Workload, ip: str, port: int, node: NodeContext) -> Decision:
    # Unhealthy or not: whoever names a pod's address means this pod.
    if destination.waypoint is not None and not is_waypoint_of(state, destination, source, source.namespace):
        return _spread(through(state, destination, source, ip, join(ip, port), node.network, None))
    return _direct(destination, ip, port, node, None)


def _direct(destination: Workload, ip: str, port: int, node: NodeContext, service: Service | None) -> Choice:
    key = service.key if service is not None else ""
    if destination.network != node.network:
        return Refuse(CloseReason.NO_ROUTE, f"{destination.uid} is in network {destination.network!r}")
    if destination.protocol is not Protocol.HBONE:
        return Passthrough(ip, port, destination, key)
    if not destination.native_tunnel:
        # Its proxy would refuse the call; between workloads of one node there is no such second check.
        if port in PROXY_PORTS:
            return Refuse(CloseReason.RECURSIVE_CALL, join(ip, port))
        # An application tunnel changes port and bytes on the inbound side, so it has to pass there.
        if not node.encrypt_same_node and destination.application_tunnel is None and node.is_local(destination.uid):
            return SameNode(destination, ip, port, key)
    if service is None:
        return Tunnel(ip, HBONE_PORT, join(ip, port), (destination.identity,), destination)
    names = service.subject_alt_names
    identities = tuple(sorted({destination.identity, *names})) if names else (destination.identity,)
    return Tunnel(ip, HBONE_PORT, join(ip, port), identities, destination, key, service.hostname)


def _spread(weighted_choices: list[tuple[Choice, int]]) -> Decision:
    if len(weighted_choices) == 1:
        return weighted_choices[0][0]
    choices, weights = zip(*weighted_choices, strict=True)
    return Spread(choices, tuple(accumulate(weights)))
