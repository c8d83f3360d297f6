"""Which endpoints of a service take a connection."""

import pytest

from ztunnel.state.endpoints import candidates, choose_ip, rank, target_port
from ztunnel.state.model import (
    AppTunnel,
    GatewayAddress,
    IpFamilies,
    LoadBalancer,
    LoadBalancerMode,
    Locality,
    Scope,
    Service,
    Workload,
)
from ztunnel.state.store import State

KEY = "default/web.svc"
ALL = (Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE, Scope.NODE)


def endpoint(uid: str, ip: str = "10.0.0.1", ports: dict[int, int] | None = None, **fields: object) -> Workload:
    rest = {"addresses": (ip,) if ip else ()} | fields
    return Workload(uid=uid, namespace="default", services={KEY: ports if ports is not None else {80: 8080}}, **rest)


def web(**fields: object) -> Service:
    return Service(name="web", namespace="default", hostname="web.svc", **({"ports": {80: 9090}} | fields))


def choose(service: Service, *workloads: Workload, source: Workload | None = None, port: int = 80, **options: object) -> list[str]:
    state = State()
    state.upsert_service(service)
    for workload in workloads:
        state.upsert_workload(workload)
    settings = {"network": "", "target_ip": "10.9.9.9"} | options
    found = candidates(state, service, port, source or endpoint("source"), **settings)
    return [f"{c.workload.uid} {c.ip}:{c.port} x{c.weight}" for c in found]


@pytest.mark.parametrize(
    ("service_ports", "own", "port", "expected"),
    [
        ({80: 9090}, {80: 8080}, 80, 8080),
        ({80: 9090}, {}, 80, 9090),
        ({80: 0}, {80: 8080}, 80, 8080),
        ({80: 0}, {}, 80, 0),
        ({80: 0}, {80: 0}, 80, 0),
        ({}, {80: 8080}, 80, 0),
        ({80: 9090}, {80: 8080}, 81, 0),
    ],
)
def test_target_port(service_ports: dict[int, int], own: dict[int, int], port: int, expected: int) -> None:
    assert target_port(web(ports=service_ports), endpoint("a", ports=own), port) == expected


@pytest.mark.parametrize(
    ("addresses", "families", "target", "expected"),
    [
        (("10.0.0.1", "fd00::1"), IpFamilies.AUTOMATIC, "10.9.0.1", "10.0.0.1"),
        (("10.0.0.1", "fd00::1"), IpFamilies.AUTOMATIC, "fd00::9", "fd00::1"),
        (("10.0.0.1", "fd00::1"), IpFamilies.IPV4, "fd00::9", "10.0.0.1"),
        (("10.0.0.1", "fd00::1"), IpFamilies.IPV6, "10.9.0.1", "fd00::1"),
        (("10.0.0.1",), IpFamilies.IPV6, "10.9.0.1", ""),
        (("10.0.0.1",), IpFamilies.DUAL, "fd00::9", "10.0.0.1"),
        (("10.0.0.1", "10.0.0.2"), IpFamilies.AUTOMATIC, "10.0.0.2", "10.0.0.2"),
        (("10.0.0.1",), IpFamilies.IPV6, "10.0.0.1", "10.0.0.1"),
        ((), IpFamilies.AUTOMATIC, "10.0.0.1", ""),
    ],
)
def test_choose_ip(addresses: tuple[str, ...], families: IpFamilies, target: str, expected: str) -> None:
    assert choose_ip(endpoint("a", addresses=addresses), families, target) == expected


def test_weights_are_capacities_and_capacity_0_is_never_chosen() -> None:
    found = choose(web(), endpoint("a", capacity=3), endpoint("b", "10.0.0.2", capacity=0), endpoint("c", "10.0.0.3"))
    assert found == ["a 10.0.0.1:8080 x3", "c 10.0.0.3:8080 x1"]


def test_endpoints_without_port_or_address_are_left_out() -> None:
    assert choose(web(), endpoint("a", ""), endpoint("b", hostname="b.example", addresses=())) == []
    assert choose(web(), endpoint("a"), port=81) == []


def test_a_waypoints_endpoint_with_an_application_tunnel_needs_no_port() -> None:
    tunnelled = endpoint("a", application_tunnel=AppTunnel(True, 15088))
    assert choose(web(), tunnelled, port=15008, as_waypoint=True) == ["a 10.0.0.1:15008 x1"]
    assert choose(web(), tunnelled, port=15008) == []
    assert choose(web(), endpoint("a"), port=15008, as_waypoint=True) == []


def test_another_network_is_used_only_when_this_one_has_no_endpoint() -> None:
    far = endpoint("far", network="n2")
    gateway = endpoint("gw", "", network="n2", network_gateway=GatewayAddress("n2/1.2.3.4"))
    assert choose(web(), far, endpoint("near"), gateway) == ["near 10.0.0.1:8080 x1"]
    assert choose(web(), far, gateway) == ["far 10.0.0.1:8080 x1", "gw :8080 x1"]


def placed(uid: str, region: str, zone: str, subzone: str = "", node: str = "", network: str = "") -> Workload:
    return endpoint(uid, locality=Locality(region, zone, subzone), node=node, network=network)


SOURCE = placed("source", "r", "z", "s", "n")


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (placed("a", "r", "z", "s", "n"), 9),
        (placed("a", "r", "z", "s", "m"), 8),
        (placed("a", "r", "other", "s", "n"), 6),
        (placed("a", "other", "z", "s", "n"), 5),
        (placed("a", "r", "z", "s", "n", network="n2"), 4),
        (placed("a", "other", "z", "s", "n", network="n2"), 0),
    ],
)
def test_rank_counts_leading_scopes_and_the_network_outweighs_the_rest(there: Workload, expected: int) -> None:
    assert rank(ALL, SOURCE, there) == expected


def test_rank_stops_at_the_first_mismatch_without_a_network() -> None:
    assert rank((Scope.REGION, Scope.CLUSTER), SOURCE, placed("a", "other", "z")) == 0
    assert rank((Scope.CLUSTER, Scope.REGION), SOURCE, placed("a", "other", "z")) == 1
    assert rank((Scope.ZONE, Scope.NETWORK), SOURCE, placed("a", "x", "z")) == 2


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (LoadBalancerMode.STANDARD, ["far", "zone", "node"]),
        (LoadBalancerMode.PASSTHROUGH, ["far", "zone", "node"]),
        (LoadBalancerMode.FAILOVER, ["node"]),
        (LoadBalancerMode.STRICT, ["node"]),
    ],
)
def test_modes(mode: LoadBalancerMode, expected: list[str]) -> None:
    service = web(load_balancer=LoadBalancer((Scope.REGION, Scope.ZONE, Scope.NODE), mode))
    there = [placed("far", "x", "z", node="n"), placed("zone", "r", "z"), placed("node", "r", "z", node="n")]
    assert [line.split()[0] for line in choose(service, *there, source=SOURCE)] == expected


def test_failover_falls_back_and_strict_does_not() -> None:
    far = placed("far", "x", "y")
    for mode, expected in ((LoadBalancerMode.FAILOVER, 1), (LoadBalancerMode.STRICT, 0)):
        assert len(choose(web(load_balancer=LoadBalancer((Scope.REGION,), mode)), far, source=SOURCE)) == expected
    assert choose(web(load_balancer=LoadBalancer((Scope.REGION,), LoadBalancerMode.FAILOVER))) == []
