"""Outbound decisions: one table row for each kind of destination."""

from collections.abc import Callable

import msgspec
import pytest

from ztunnel.reasons import CloseReason
from ztunnel.route.decision import Decision, Passthrough, Refuse, SameNode, Spread, Tunnel
from ztunnel.route.outbound import NodeContext, route_outbound
from ztunnel.state.model import (
    AppTunnel,
    GatewayAddress,
    IpFamilies,
    LoadBalancer,
    LoadBalancerMode,
    NetworkMode,
    Protocol,
    Service,
    Status,
    Workload,
)
from ztunnel.state.store import State

NS = "default"
WEB = "default/web.svc"
SAN = "spiffe://cluster.local/ns/default/sa/default"
WAYPOINT_SAN = "spiffe://cluster.local/ns/default/sa/waypoint"


def pod(name: str, *addresses: str, **fields: object) -> Workload:
    base: dict[str, object] = {"protocol": Protocol.HBONE, "addresses": addresses}
    return Workload(uid=f"c//Pod/{NS}/{name}", name=name, namespace=NS, **(base | fields))


def web(**fields: object) -> Service:
    base: dict[str, object] = {"vips": ("/10.9.0.1",), "ports": {80: 8080}}
    return Service(name="web", namespace=NS, hostname="web.svc", **(base | fields))


SOURCE = pod("source", "10.0.0.1", "fd00::1", protocol=Protocol.TCP)
REMOTE = pod("remote", "10.0.2.1", "fd00::2")
LOCAL = pod("local", "10.0.1.1")
PLAIN = pod("plain", "10.0.3.1", protocol=Protocol.TCP)
WAYPOINT_POD = pod("waypoint", "10.0.8.1", "fd00::8", service_account="waypoint", native_tunnel=True)
WAYPOINT_SERVICE = Service(
    name="wp",
    namespace=NS,
    hostname="wp.svc",
    vips=("/10.9.0.8", "/fd00::98"),
    ports={15008: 15008},
    subject_alt_names=("spiffe://x",),
)
WP_ENDPOINT = msgspec.structs.replace(WAYPOINT_POD, services={"default/wp.svc": {15008: 15008}})
BY_ADDRESS = GatewayAddress("/10.9.0.8", 15008, True)
BY_POD_ADDRESS = GatewayAddress("/10.0.8.1", 15009, True)
BY_HOST = GatewayAddress("default/wp.svc")


def serves(name: str, ip: str, **fields: object) -> Workload:
    return pod(name, ip, services={WEB: {80: 8080}}, **fields)


def decide(*items: Workload | Service, to: str, port: int = 80, source: Workload = SOURCE, encrypt: bool = False) -> Decision:
    state = State()
    for item in (SOURCE, *items):
        (state.upsert_workload if isinstance(item, Workload) else state.upsert_service)(item)  # type: ignore[operator]
    node = NodeContext("", "node1", encrypt, frozenset({SOURCE.uid, LOCAL.uid}).__contains__)
    return route_outbound(state, source, to, port, node)


def tunnel_to(ip: str, port: int = 80, workload: Workload | None = None) -> Tunnel:
    authority = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    return Tunnel(ip, 15008, authority, (SAN,), workload)


def test_unknown_destination_passes_through() -> None:
    assert decide(to="1.2.3.4") == Passthrough("1.2.3.4", 80)
    assert decide(to="1.2.3.4", port=15008) == Passthrough("1.2.3.4", 15008)


@pytest.mark.parametrize("port", [15001, 15006, 15008])
@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.0.0.1", "fd00::1"])
def test_calls_to_the_proxy_itself_are_refused(ip: str, port: int) -> None:
    assert decide(to=ip, port=port) == Refuse(CloseReason.RECURSIVE_CALL, f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}")


@pytest.mark.parametrize("port", [15001, 15006, 15008])
@pytest.mark.parametrize("target", [LOCAL, REMOTE])
def test_calls_to_another_pods_proxy_are_refused(target: Workload, port: int) -> None:
    found = decide(target, to=target.addresses[0], port=port)
    assert isinstance(found, Refuse)
    assert found.reason is CloseReason.RECURSIVE_CALL
    by_vip = msgspec.structs.replace(target, services={WEB: {80: port}})
    found = decide(by_vip, web(), to="10.9.0.1")
    assert isinstance(found, Refuse)
    assert found.reason is CloseReason.RECURSIVE_CALL


def test_loopback_on_other_ports_passes_through() -> None:
    assert decide(to="127.0.0.1", port=8080) == Passthrough("127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (REMOTE, tunnel_to("10.0.2.1", 80, REMOTE)),
        (LOCAL, SameNode(LOCAL, "10.0.1.1", 80)),
        (PLAIN, Passthrough("10.0.3.1", 80, PLAIN)),
        (WAYPOINT_POD, Tunnel("10.0.8.1", 15008, "10.0.8.1:80", (WAYPOINT_SAN,), WAYPOINT_POD)),
    ],
    ids=["remote", "local", "plain", "native tunnel"],
)
def test_a_workload_by_its_address(target: Workload, expected: Decision) -> None:
    assert decide(target, to=target.addresses[0]) == expected


def test_a_plain_workload_of_this_node_passes_through() -> None:
    plain = msgspec.structs.replace(LOCAL, protocol=Protocol.TCP)
    assert decide(plain, to="10.0.1.1") == Passthrough("10.0.1.1", 80, plain)


def test_ipv6_authorities_have_brackets() -> None:
    assert decide(REMOTE, to="fd00::2", port=443) == tunnel_to("fd00::2", 443, REMOTE)


def test_same_node_gives_way_to_encryption_native_tunnels_and_application_tunnels() -> None:
    assert decide(LOCAL, to="10.0.1.1", encrypt=True) == tunnel_to("10.0.1.1", 80, LOCAL)
    for changed in (
        msgspec.structs.replace(LOCAL, native_tunnel=True),
        msgspec.structs.replace(LOCAL, application_tunnel=AppTunnel(True, 15088)),
    ):
        assert decide(changed, to="10.0.1.1") == tunnel_to("10.0.1.1", 80, changed)


def test_a_host_network_workload_is_unknown_by_address() -> None:
    host = pod("host", "192.168.0.1", network_mode=NetworkMode.HOST_NETWORK, protocol=Protocol.TCP)
    assert decide(host, to="192.168.0.1") == Passthrough("192.168.0.1", 80)


def test_an_unhealthy_workload_is_reached_by_its_address() -> None:
    sick = msgspec.structs.replace(REMOTE, status=Status.UNHEALTHY)
    assert decide(sick, to="10.0.2.1") == tunnel_to("10.0.2.1", 80, sick)


def test_a_service_with_one_endpoint() -> None:
    there = serves("a", "10.0.2.2")
    expected = Tunnel("10.0.2.2", 15008, "10.0.2.2:8080", (SAN, "spiffe://zzz"), there, WEB, "web.svc")
    assert decide(there, web(subject_alt_names=("spiffe://zzz", SAN)), to="10.9.0.1") == expected


def test_a_service_spreads_by_capacity_over_every_kind_of_endpoint() -> None:
    far = serves("far", "10.0.2.2", capacity=3)
    near = serves("local", "10.0.1.1")
    plain = serves("plain", "10.0.3.1", protocol=Protocol.TCP, capacity=2)
    assert decide(far, near, plain, web(), to="10.9.0.1") == Spread(
        (
            Tunnel("10.0.2.2", 15008, "10.0.2.2:8080", (SAN,), far, WEB, "web.svc"),
            SameNode(near, "10.0.1.1", 8080, WEB),
            Passthrough("10.0.3.1", 8080, plain, WEB),
        ),
        (3, 4, 6),
    )


@pytest.mark.parametrize("port", [80, 81])
def test_a_service_without_endpoints_refuses(port: int) -> None:
    sick = serves("a", "10.0.2.2", status=Status.UNHEALTHY)
    assert decide(web(), sick, to="10.9.0.1", port=port) == Refuse(CloseReason.NO_HEALTHY_UPSTREAM, f"{WEB} 10.9.0.1:{port}")


def test_ip_families_of_a_service() -> None:
    both = pod("a", "10.0.2.2", "fd00::22", services={WEB: {80: 8080}})
    for families, vip, ip in (
        (IpFamilies.AUTOMATIC, "10.9.0.1", "10.0.2.2"),
        (IpFamilies.AUTOMATIC, "fd00::91", "fd00::22"),
        (IpFamilies.IPV6, "10.9.0.1", "fd00::22"),
        (IpFamilies.IPV4, "fd00::91", "10.0.2.2"),
    ):
        found = decide(both, web(vips=("/10.9.0.1", "/fd00::91"), ip_families=families), to=vip)
        assert isinstance(found, Tunnel)
        assert found.peer_ip == ip


def test_a_passthrough_service_keeps_the_address() -> None:
    through = web(load_balancer=LoadBalancer(mode=LoadBalancerMode.PASSTHROUGH))
    assert decide(through, serves("a", "10.0.2.2"), to="10.9.0.1") == Passthrough("10.9.0.1", 80, None, WEB)
    at_a_pod = web(load_balancer=LoadBalancer(mode=LoadBalancerMode.PASSTHROUGH), vips=("/10.0.2.1",))
    assert decide(at_a_pod, REMOTE, to="10.0.2.1") == tunnel_to("10.0.2.1", 80, REMOTE)


def test_an_address_that_is_both_is_the_service() -> None:
    there = serves("a", "10.0.2.2", waypoint=BY_HOST)
    found = decide(there, web(vips=("/10.0.2.2",)), to="10.0.2.2")
    assert found == Tunnel("10.0.2.2", 15008, "10.0.2.2:8080", (SAN,), there, WEB, "web.svc")


def via(ip: str, port: int, authority: str, sans: tuple[str, ...], service: str = "", hostname: str = "") -> Tunnel:
    return Tunnel(ip, port, authority, sans, None, service, hostname)


BOTH_SANS = (WAYPOINT_SAN, "spiffe://x")


@pytest.mark.parametrize(
    ("gateway", "vip", "expected"),
    [
        (BY_HOST, "10.9.0.1", via("10.0.8.1", 15008, "10.9.0.1:80", BOTH_SANS, WEB, "web.svc")),
        (BY_HOST, "fd00::91", via("fd00::8", 15008, "[fd00::91]:80", BOTH_SANS, WEB, "web.svc")),
        (BY_ADDRESS, "10.9.0.1", via("10.0.8.1", 15008, "10.9.0.1:80", BOTH_SANS, WEB, "web.svc")),
        (BY_ADDRESS, "fd00::91", via("10.0.8.1", 15008, "[fd00::91]:80", BOTH_SANS, WEB, "web.svc")),
        (BY_POD_ADDRESS, "fd00::91", via("10.0.8.1", 15009, "[fd00::91]:80", (WAYPOINT_SAN,), WEB, "web.svc")),
        (
            GatewayAddress("default/wp.pod", 15009),
            "10.9.0.1",
            via("10.0.8.1", 15009, "10.9.0.1:80", (WAYPOINT_SAN,), WEB, "web.svc"),
        ),
    ],
    ids=["host", "host v6", "address", "address of the other family", "pod address", "pod hostname"],
)
@pytest.mark.parametrize("mode", [LoadBalancerMode.STANDARD, LoadBalancerMode.PASSTHROUGH])
def test_a_services_waypoint(gateway: GatewayAddress, vip: str, expected: Tunnel, mode: LoadBalancerMode) -> None:
    service = web(vips=("/10.9.0.1", "/fd00::91"), waypoint=gateway, load_balancer=LoadBalancer(mode=mode))
    waypoint = msgspec.structs.replace(WP_ENDPOINT, hostname="wp.pod")
    assert decide(service, serves("a", "10.0.2.2"), WAYPOINT_SERVICE, waypoint, to=vip) == expected


def test_a_workloads_waypoint() -> None:
    there = pod("a", "10.0.1.1", waypoint=BY_HOST)
    assert decide(there, WAYPOINT_SERVICE, WP_ENDPOINT, to="10.0.1.1") == via("10.0.8.1", 15008, "10.0.1.1:80", BOTH_SANS)
    plain = msgspec.structs.replace(there, protocol=Protocol.TCP)
    assert decide(plain, WAYPOINT_SERVICE, WP_ENDPOINT, to="10.0.1.1") == via("10.0.8.1", 15008, "10.0.1.1:80", BOTH_SANS)


def test_a_workloads_waypoint_is_not_used_by_way_of_a_service() -> None:
    there = serves("a", "10.0.2.2", waypoint=BY_HOST)
    found = decide(there, web(), WAYPOINT_SERVICE, WP_ENDPOINT, to="10.9.0.1")
    assert isinstance(found, Tunnel)
    assert found.destination == there


def test_the_waypoint_itself_goes_on_to_the_destination() -> None:
    there = serves("a", "10.0.2.2", waypoint=BY_HOST)
    service = web(waypoint=BY_HOST)
    for target, expected in (("10.0.2.2", "10.0.2.2:80"), ("10.9.0.1", "10.0.2.2:8080")):
        found = decide(there, service, WAYPOINT_SERVICE, WP_ENDPOINT, to=target, source=WP_ENDPOINT)
        assert isinstance(found, Tunnel)
        assert (found.destination, found.authority) == (there, expected)
    same_account = msgspec.structs.replace(SOURCE, service_account="waypoint")
    found = decide(there, WAYPOINT_SERVICE, WP_ENDPOINT, to="10.0.2.2", source=same_account)
    assert isinstance(found, Tunnel)
    assert found.destination is None, "the identity alone does not make a waypoint"


@pytest.mark.parametrize(
    "gateway", [GatewayAddress("default/nope"), GatewayAddress("/10.77.0.1", 15008, True), GatewayAddress("default/wp.svc", 15009)]
)
def test_an_unknown_waypoint_refuses(gateway: GatewayAddress) -> None:
    for items, to in (([pod("a", "10.0.2.2", waypoint=gateway)], "10.0.2.2"), ([web(waypoint=gateway)], "10.9.0.1")):
        found = decide(*items, WAYPOINT_SERVICE, WP_ENDPOINT, to=to)
        assert isinstance(found, Refuse)
        assert found.reason is CloseReason.UNKNOWN_WAYPOINT


def test_weighted_waypoints_share_by_weight_whatever_their_number_of_endpoints() -> None:
    second = pod("wp2", "10.0.8.2", service_account="waypoint", services={"default/wp.svc": {15008: 15008}}, native_tunnel=True)
    service = web(
        waypoint=GatewayAddress("default/unused"),
        weighted_waypoints=((BY_HOST, 3), (GatewayAddress("default/gone"), 1), (BY_POD_ADDRESS, 0)),
    )
    found = decide(service, WAYPOINT_SERVICE, WP_ENDPOINT, second, to="10.9.0.1")
    assert isinstance(found, Spread)
    assert found.cumulative == (3, 6, 8)
    assert [getattr(choice, "peer_ip", "refused") for choice in found.choices] == ["10.0.8.1", "10.0.8.2", "refused"]
    none = web(waypoint=BY_POD_ADDRESS, weighted_waypoints=((BY_HOST, 0),))
    assert isinstance(decide(none, WP_ENDPOINT, to="10.9.0.1"), Tunnel)


def test_another_network_is_refused() -> None:
    far = serves("far", "10.0.2.2", network="n2", network_gateway=GatewayAddress("n2/1.2.3.4", 15008, True))
    far_waypoint = msgspec.structs.replace(WP_ENDPOINT, network="n2")
    for items, to in (
        ([web(), far], "10.9.0.1"),
        ([web(waypoint=BY_HOST), WAYPOINT_SERVICE, far_waypoint], "10.9.0.1"),
    ):
        found = decide(*items, to=to)
        assert isinstance(found, Refuse)
        assert found.reason is CloseReason.NO_ROUTE
    assert decide(far, to="10.0.2.2") == Passthrough("10.0.2.2", 80), "an address of another network is not this network's"


@pytest.mark.parametrize("pick", [0.0, 0.3, 0.999999])
def test_a_spread_picks_within_bounds(pick: float) -> None:
    found = decide(serves("a", "10.0.2.2"), serves("b", "10.0.2.3"), web(), to="10.9.0.1")
    assert isinstance(found, Spread)
    assert found.pick(pick) is found.choices[int(pick * 2)]


def test_the_answer_for_a_workload_needs_no_service_lookup_by_range() -> None:
    calls: list[str] = []

    def is_local(uid: str) -> bool:
        calls.append(uid)
        return True

    state = State()
    state.upsert_workload(REMOTE)
    local: Callable[[str], bool] = is_local
    assert route_outbound(state, SOURCE, "10.0.2.1", 80, NodeContext("", "n", False, local)) == SameNode(REMOTE, "10.0.2.1", 80)
    assert calls == [REMOTE.uid]
