"""Which endpoints of a service may take a connection, and with what weight. Pure; called by ``route``.

Nothing is picked here: the answer is every candidate with its weight, so that it can be kept until the state changes and one is
picked for each connection. Cost is linear in the service's endpoints, once for each generation, source, service and port.
"""

from dataclasses import dataclass

from ztunnel.state.model import IpFamilies, LoadBalancerMode, Scope, Service, Workload
from ztunnel.state.store import State

__all__ = ["Candidate", "candidates", "choose_ip", "rank", "target_port"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint: connect to ``ip:port``. ``weight`` > 0. ``ip`` is "" for one that only its network's gateway can reach."""

    workload: Workload
    ip: str
    port: int
    weight: int


def candidates(
    state: State, service: Service, port: int, source: Workload, *, network: str, target_ip: str, as_waypoint: bool = False
) -> tuple[Candidate, ...]:
    """Candidates for ``source``'s connection to ``service`` at ``port``, in the order of their arrival; may be empty.

    ``target_ip`` is the address the source asked for: kept if it is the endpoint's own, else it prefers the family.
    ``as_waypoint``: the service is a waypoint, whose endpoints with an application tunnel need not serve ``port``.
    Endpoints that cannot be connected to are left out before any preference is weighed: no port, no address of a family the
    service serves, capacity 0, or another network than ``network`` while one of this network can do it. An endpoint
    that has only a hostname is left out too: names are not resolved on demand.
    PASSTHROUGH services are the caller's affair; asked for here they are as STANDARD ones.
    """
    usable = []
    key, families = service.key, service.ip_families
    # What target_port says, with what is the same for all endpoints taken out of the loop.
    default = service.ports.get(port)
    for workload in state.endpoints(key).values():
        if workload.capacity <= 0:
            continue
        at = 0 if default is None else workload.services[key].get(port) or default
        if not at:
            if not as_waypoint or workload.application_tunnel is None:
                continue
            at = port
        ip = choose_ip(workload, families, target_ip)
        if ip or (workload.network != network and workload.network_gateway is not None and not workload.addresses):
            usable.append(Candidate(workload, ip, at, workload.capacity))
    if not usable:
        return ()
    here = [candidate for candidate in usable if candidate.workload.network == network]
    return tuple(_prefer(service, source, here or usable))


def target_port(service: Service, endpoint: Workload, port: int) -> int:
    """The endpoint's port behind the service's ``port``; 0: not served there.

    The endpoint's own mapping wins. The service's target 0 is a named port, which only a mapping can resolve.
    """
    default = service.ports.get(port)
    if default is None:
        return 0
    return endpoint.services.get(service.key, {}).get(port) or default


def choose_ip(workload: Workload, families: IpFamilies, target_ip: str) -> str:
    """The workload's address to connect to: ``target_ip`` if it is one, else of a served family, best of ``target_ip``'s; or ""."""
    addresses = workload.addresses
    if target_ip in addresses:
        return target_ip
    wanted = ":" in target_ip
    fallback = ""
    for ip in addresses:
        is_v6 = ":" in ip
        if (families is IpFamilies.IPV4 and is_v6) or (families is IpFamilies.IPV6 and not is_v6):
            continue
        if is_v6 == wanted:
            return ip
        fallback = fallback or ip
    return fallback


def rank(preferences: tuple[Scope, ...], source: Workload, endpoint: Workload) -> int:
    """How near ``endpoint`` is: the number of leading scopes it shares with ``source``.

    NETWORK as the first scope is special: sharing it outweighs all the others together, not sharing it does not end the count.
    """
    count = 0
    for index, scope in enumerate(preferences):
        special = index == 0 and scope is Scope.NETWORK
        if _shares(scope, source, endpoint):
            count += len(preferences) if special else 1
        elif not special:
            break
    return count


def _prefer(service: Service, source: Workload, usable: list[Candidate]) -> list[Candidate]:
    balancer = service.load_balancer
    preferences = balancer.routing_preferences
    if balancer.mode is LoadBalancerMode.STRICT:
        return [c for c in usable if all(_shares(scope, source, c.workload) for scope in preferences)]
    if balancer.mode is not LoadBalancerMode.FAILOVER:
        return usable
    ranks = [rank(preferences, source, candidate.workload) for candidate in usable]
    best = max(ranks)
    return [candidate for candidate, its in zip(usable, ranks, strict=True) if its == best]


def _shares(scope: Scope, a: Workload, b: Workload) -> bool:
    match scope:
        case Scope.REGION:
            return a.locality.region == b.locality.region
        case Scope.ZONE:
            return a.locality.zone == b.locality.zone
        case Scope.SUBZONE:
            return a.locality.subzone == b.locality.subzone
        case Scope.NODE:
            return a.node == b.node
        case Scope.CLUSTER:
            return a.cluster_id == b.cluster_id
        case Scope.NETWORK:
            return a.network == b.network
