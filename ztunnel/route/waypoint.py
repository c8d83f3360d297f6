"""Waypoints: where a reference to one leads, and whether a workload is one. Used by the outbound and inbound routes.

A reference that cannot be resolved gives nothing, and the caller refuses: going round a waypoint would go round its policy.
"""

from collections.abc import Iterator
from math import lcm

from ztunnel.reasons import CloseReason
from ztunnel.route.decision import Choice, Refuse, Tunnel
from ztunnel.state.endpoints import Candidate, candidates, choose_ip
from ztunnel.state.model import GatewayAddress, IpFamilies, Service, Workload
from ztunnel.state.store import State

__all__ = ["is_waypoint_of", "references", "through", "weighted"]


def references(target: Service | Workload) -> tuple[tuple[GatewayAddress, int], ...]:
    """(reference, weight) of the waypoints of ``target``; empty: it has none.

    A service's weighted waypoints replace the single one, unless all their weights are 0.
    """
    if isinstance(target, Service):
        weighted_ones = tuple((gateway, weight) for gateway, weight in target.weighted_waypoints if weight > 0)
        if weighted_ones:
            return weighted_ones
    return ((target.waypoint, 1),) if target.waypoint is not None else ()


def is_waypoint_of(state: State, target: Service | Workload, workload: Workload, namespace: str) -> bool:
    """Is ``workload`` an endpoint of a waypoint that ``target`` names?

    By uid, or by the same identity with a shared address: the waypoint's endpoint may be known under two uids.
    """
    for gateway, _ in references(target):
        for endpoint in _members(state, gateway, namespace):
            if endpoint.uid == workload.uid:
                return True
            if endpoint.identity == workload.identity and not set(endpoint.addresses).isdisjoint(workload.addresses):
                return True
    return False


def through(
    state: State, target: Service | Workload, source: Workload, ip: str, authority: str, network: str, service: Service | None
) -> list[tuple[Choice, int]]:
    """(choice, weight) for a connection to ``ip`` that has to go through the waypoints of ``target``; never empty.

    A waypoint that cannot be resolved takes its share of the connections and refuses them.
    """
    parts: list[tuple[int, list[tuple[Choice, int]]]] = []
    for gateway, weight in references(target):
        part: list[tuple[Choice, int]] = []
        waypoint, found = _resolve(state, gateway, source, ip, network)
        for candidate in found:
            choice = _tunnel(candidate, waypoint, authority, network, service)
            part.append((choice, candidate.weight))
        if not part:
            part.append((Refuse(CloseReason.UNKNOWN_WAYPOINT, f"{gateway.destination} for {authority}"), 1))
        parts.append((weight, part))
    return weighted(parts)


def weighted(parts: list[tuple[int, list[tuple[Choice, int]]]]) -> list[tuple[Choice, int]]:
    """Flatten groups so that each group gets its own weight's share, divided inside it by its members' weights."""
    if len(parts) == 1:
        return parts[0][1]
    totals = [sum(weight for _, weight in part) for _, part in parts]
    common = lcm(*totals)
    return [
        (choice, outer * inner * (common // total))
        for (outer, part), total in zip(parts, totals, strict=True)
        for choice, inner in part
    ]


def _tunnel(candidate: Candidate, waypoint: Service | None, authority: str, network: str, service: Service | None) -> Choice:
    workload = candidate.workload
    if workload.network != network or not candidate.ip:
        return Refuse(CloseReason.NO_ROUTE, f"waypoint {workload.uid} is in network {workload.network!r}")
    names = {workload.identity}
    if waypoint is not None:
        names.update(waypoint.subject_alt_names)
    return Tunnel(
        candidate.ip,
        candidate.port,
        authority,
        tuple(sorted(names)),
        service=service.key if service is not None else "",
        hostname=service.hostname if service is not None else "",
    )


def _resolve(
    state: State, gateway: GatewayAddress, source: Workload, ip: str, network: str
) -> tuple[Service | None, tuple[Candidate, ...]]:
    """The waypoint's service, if it is one, and its endpoints. The address form keeps its address whatever the caller's family."""
    place, _, name = gateway.destination.partition("/")
    port = gateway.hbone_mtls_port
    service: Service | None
    workload: Workload | None
    if gateway.is_address:
        service = state.service_by_address(place, name, source.namespace)
        workload = None if service is not None else state.workload_by_address(place, name)
        wanted = name
    else:
        service = state.service(gateway.destination)
        workload = None if service is not None else state.workload_by_host(place, name)
        wanted = ip
    if service is not None:
        return service, candidates(state, service, port, source, network=network, target_ip=wanted, as_waypoint=True)
    if workload is None:
        return None, ()
    address = choose_ip(workload, IpFamilies.AUTOMATIC, wanted)
    return None, (Candidate(workload, address, port, 1),) if address else ()


def _members(state: State, gateway: GatewayAddress, namespace: str) -> Iterator[Workload]:
    place, _, name = gateway.destination.partition("/")
    service: Service | None
    workload: Workload | None
    if gateway.is_address:
        service = state.service_by_address(place, name, namespace)
        workload = state.workload_by_address(place, name)
    else:
        service = state.service(gateway.destination)
        workload = state.workload_by_host(place, name)
    if service is not None:
        yield from state.endpoints(service.key).values()
    elif workload is not None:
        yield workload
