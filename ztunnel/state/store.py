"""What the proxy knows, indexed for the questions that routing asks. Held by both halves; changed only between decisions.

Addresses come in as canonical text (IPv4-mapped IPv6 reduced), so every question but a CIDR one is a dictionary lookup.
Workloads and services may arrive in any order: an endpoint is known from its workload's ``services`` alone and counts as soon as
its service is there. Policies are held beside this, in the policy index.
"""

from collections.abc import Iterable, Iterator, Mapping, ValuesView
from typing import TypeVar

from ztunnel.state.cidr import CidrTable
from ztunnel.state.model import HealthPolicy, NetworkMode, Protocol, Service, Status, Visibility, Workload, WorkloadInfo

__all__ = ["State"]

_NOTHING: Mapping[str, Workload] = {}


class State:
    """Workloads and services with their indexes.

    ``generation`` is the caller's: the number of the last complete update, part of every cache key over this state.
    Nothing returned is a copy: do not hold a mapping across an update.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._workloads: dict[str, Workload] = {}
        self._services: dict[str, Service] = {}
        # What claims a key, in order of arrival; the winner beside it where the hot path asks.
        self._claims: dict[tuple[str, str], dict[str, Workload]] = {}
        self._by_address: dict[tuple[str, str], Workload] = {}
        self._by_info: dict[tuple[str, str, str], dict[str, Workload]] = {}
        self._by_workload_host: dict[tuple[str, str], dict[str, Workload]] = {}
        self._members: dict[str, dict[str, Workload]] = {}
        self._healthy: dict[str, dict[str, Workload]] = {}
        self._by_vip: dict[tuple[str, str], dict[str, Service]] = {}
        self._by_host: dict[str, dict[str, Service]] = {}
        self._cidrs = CidrTable()

    # --- changes ---------------------------------------------------------------------------------------------------

    def upsert_workload(self, workload: Workload) -> None:
        """Insert or replace by uid. Replacing keeps the workload's place among those that share an address with it."""
        uid = workload.uid
        old = self._workloads.get(uid)
        if old is not None:
            self._drop_indexes(old, keep=set(_addresses(workload)))
        self._workloads[uid] = workload
        for address in _addresses(workload):
            self._claims.setdefault(address, {})[uid] = workload
            self._settle(address)
        self._by_info.setdefault(_info(workload), {})[uid] = workload
        if workload.hostname:
            self._by_workload_host.setdefault((workload.namespace, workload.hostname), {})[uid] = workload
        for key in workload.services:
            self._members.setdefault(key, {})[uid] = workload
            if workload.status is Status.HEALTHY:
                self._healthy.setdefault(key, {})[uid] = workload

    def remove_workload(self, uid: str) -> None:
        """Forget a workload; unknown uids are ignored (a removal may be told twice)."""
        old = self._workloads.pop(uid, None)
        if old is not None:
            self._drop_indexes(old, keep=set())

    def upsert_service(self, service: Service) -> None:
        """Insert or replace by ``namespace/hostname``."""
        self.remove_service(service.key)
        self._services[service.key] = service
        for vip in service.vips:
            self._by_vip.setdefault(_split(vip), {})[service.key] = service
        for network, cidr in service.cidr_vips:
            self._cidrs.add(network, cidr, service)
        self._by_host.setdefault(service.hostname, {})[service.key] = service

    def remove_service(self, key: str) -> None:
        """Forget a service; its endpoints stay known for the case that it comes back. Unknown keys are ignored."""
        old = self._services.pop(key, None)
        if old is None:
            return
        for vip in old.vips:
            _discard(self._by_vip, _split(vip), key)
        for network, cidr in old.cidr_vips:
            self._cidrs.discard(network, cidr, key)
        _discard(self._by_host, old.hostname, key)

    # --- workloads -------------------------------------------------------------------------------------------------

    def workload(self, uid: str) -> Workload | None:
        """The workload of ``uid``."""
        return self._workloads.get(uid)

    def workloads(self) -> ValuesView[Workload]:
        """All workloads."""
        return self._workloads.values()

    def workload_by_address(self, network: str, ip: str) -> Workload | None:
        """Whose address it is. Several with one address: a ``//Pod/`` uid wins, then HBONE, then the last to arrive.

        Host-network workloads share their node's address and are not found by it.
        """
        return self._by_address.get((network, ip))

    def workload_by_host(self, namespace: str, hostname: str) -> Workload | None:
        """The workload of that namespace with that ``hostname``."""
        return _winner(self._by_workload_host.get((namespace, hostname)))

    def local_workload(self, info: WorkloadInfo) -> Workload | None:
        """The workload the node agent speaks of, by name, namespace and service account; addresses play no part."""
        return _winner(self._by_info.get((info.name, info.namespace, info.service_account)))

    # --- services --------------------------------------------------------------------------------------------------

    def service(self, key: str) -> Service | None:
        """The service of ``namespace/hostname``."""
        return self._services.get(key)

    def services(self) -> ValuesView[Service]:
        """All services."""
        return self._services.values()

    def service_by_address(self, network: str, ip: str, client_namespace: str) -> Service | None:
        """The service behind a virtual address, as a client of ``client_namespace`` sees it.

        An exact address beats every CIDR. Among several: the client's namespace, then the canonical one, then the first by key;
        among CIDRs: the client's namespace, then the longest prefix, then the canonical one.
        """
        exact = self._by_vip.get((network, ip))
        if exact is not None:
            found = _best(exact.values(), client_namespace)
            if found is not None:
                return found
        if self._cidrs.empty:
            return None
        ranked = [
            (service.namespace != client_namespace, -length, not service.canonical, service.key, service)
            for length, service in self._cidrs.matches(network, ip)
            if _visible(service, client_namespace)
        ]
        return min(ranked, key=lambda entry: entry[:4])[4] if ranked else None

    def services_at(self, network: str, ip: str) -> Iterator[Service]:
        """All services that an address may mean, whoever asks: exact ones, or else those of CIDRs."""
        exact = self._by_vip.get((network, ip))
        if exact is not None:
            yield from exact.values()
        elif not self._cidrs.empty:
            for _, service in self._cidrs.matches(network, ip):
                yield service

    def service_by_host(self, hostname: str, client_namespace: str, preferred_namespace: str = "") -> Service | None:
        """The service of that name as a client of ``client_namespace`` sees it; ``preferred_namespace`` is a last tie-break."""
        return _best(self._by_host.get(hostname, {}).values(), client_namespace, preferred_namespace)

    def services_of_host(self, hostname: str) -> Iterable[Service]:
        """All services of that name, whoever asks."""
        return self._by_host.get(hostname, {}).values()

    def endpoints(self, service_key: str) -> Mapping[str, Workload]:
        """uid -> workload of those that may take the service's connections.

        Unhealthy ones only if the service says ``ALLOW_ALL``. Known before the service itself is.
        """
        service = self._services.get(service_key)
        if service is not None and service.load_balancer.health_policy is HealthPolicy.ALLOW_ALL:
            return self._members.get(service_key, _NOTHING)
        return self._healthy.get(service_key, _NOTHING)

    # --- indexes ---------------------------------------------------------------------------------------------------

    def _drop_indexes(self, old: Workload, keep: set[tuple[str, str]]) -> None:
        """Take ``old`` out of every index, but not out of the claims in ``keep``, which are about to be replaced in place."""
        uid = old.uid
        for address in _addresses(old):
            if address not in keep:
                _discard(self._claims, address, uid)
                self._settle(address)
        _discard(self._by_info, _info(old), uid)
        if old.hostname:
            _discard(self._by_workload_host, (old.namespace, old.hostname), uid)
        for key in old.services:
            _discard(self._members, key, uid)
            _discard(self._healthy, key, uid)

    def _settle(self, address: tuple[str, str]) -> None:
        winner = _winner(self._claims.get(address))
        if winner is None:
            self._by_address.pop(address, None)
        else:
            self._by_address[address] = winner


def _addresses(workload: Workload) -> list[tuple[str, str]]:
    if workload.network_mode is NetworkMode.HOST_NETWORK:
        return []
    return [(workload.network, ip) for ip in workload.addresses]


def _info(workload: Workload) -> tuple[str, str, str]:
    return (workload.name, workload.namespace, workload.service_account)


def _split(vip: str) -> tuple[str, str]:
    network, _, ip = vip.rpartition("/")
    return network, ip


def _winner(claims: Mapping[str, Workload] | None) -> Workload | None:
    """The last to arrive among the best: when an address passes from one pod to the next, the next one has it."""
    if not claims:
        return None
    best, best_rank = None, (False, False)
    for workload in claims.values():
        rank = ("//Pod/" in workload.uid, workload.protocol is Protocol.HBONE)
        if best is None or rank >= best_rank:
            best, best_rank = workload, rank
    return best


def _visible(service: Service, client_namespace: str) -> bool:
    return service.visibility is Visibility.PUBLIC or service.namespace == client_namespace


def _best(services: Iterable[Service], client_namespace: str, preferred_namespace: str = "") -> Service | None:
    """The client's namespace -> canonical -> preferred namespace -> first by key (the same on every node)."""
    visible = [service for service in services if _visible(service, client_namespace)]
    if len(visible) < 2:
        return visible[0] if visible else None
    return min(
        visible,
        key=lambda s: (s.namespace != client_namespace, not s.canonical, s.namespace != preferred_namespace, s.key),
    )


_K = TypeVar("_K")
_V = TypeVar("_V")


def _discard(index: dict[_K, dict[str, _V]], key: _K, member: str) -> None:
    members = index.get(key)
    if members is not None:
        members.pop(member, None)
        if not members:
            del index[key]
