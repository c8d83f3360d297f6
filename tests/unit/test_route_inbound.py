"""Inbound decisions: what a peer may ask for, and what it gets."""

import pytest

from ztunnel.reasons import CloseReason
from ztunnel.route.decision import Deliver, Refuse
from ztunnel.route.inbound import route_connect, route_plaintext
from ztunnel.state.model import AppTunnel, GatewayAddress, Protocol, Service, Visibility, Workload
from ztunnel.state.store import State

CLIENT, SERVER, WAYPOINT = "10.0.0.1", "10.0.2.1", "10.0.8.1"
SERVER_VIP, WAYPOINT_VIP = "10.9.0.1", "10.9.0.8"
WEB, WP = "default/web.svc", "default/wp.svc"
PROXY = AppTunnel(True, 15088)
PLAIN_TUNNEL = AppTunnel(False, 15088)

NONE = "none"
BY_POD = "workload, by address"
BY_SERVICE = "service, by address"
BY_HOST = "service, by host"
WRONG = "another pod"


def world(kind: str, tunnel: AppTunnel | None = None) -> State:
    """A client, a server behind a service, a waypoint behind another; ``kind`` says which waypoint server and service name."""
    gateway = {
        NONE: None,
        BY_POD: GatewayAddress(f"/{WAYPOINT}", 15008, True),
        BY_SERVICE: GatewayAddress(f"/{WAYPOINT_VIP}", 15008, True),
        BY_HOST: GatewayAddress(WP),
        WRONG: GatewayAddress(f"/{CLIENT}", 15008, True),
    }[kind]
    state = State()

    def add(name: str, ip: str, **fields: object) -> None:
        workload = Workload(
            uid=f"c//Pod/default/{name}",
            name=name,
            namespace="default",
            addresses=(ip,),
            protocol=Protocol.HBONE,
            service_account=name,
            **fields,
        )
        state.upsert_workload(workload)

    add("client", CLIENT)
    add("server", SERVER, waypoint=gateway, services={WEB: {80: 8080}})
    add("waypoint", WAYPOINT, services={WP: {15008: 15008}}, application_tunnel=tunnel)
    state.upsert_service(
        Service(
            name="web",
            namespace="default",
            hostname="web.svc",
            vips=(f"/{SERVER_VIP}",),
            ports={80: 8080},
            waypoint=gateway,
            visibility=Visibility.NAMESPACE,
        )
    )
    vips = (f"/{WAYPOINT_VIP}",)
    state.upsert_service(Service(name="wp", namespace="default", hostname="wp.svc", vips=vips, ports={15008: 15008}))
    return state


def connect(state: State, ip: str, authority: str, **options: object) -> Deliver | Refuse:
    local = state.workload_by_address("", ip)
    assert local is not None
    return route_connect(state, local, ip, authority, **({"method": "CONNECT"} | options))


@pytest.mark.parametrize(
    ("kind", "accepted_on", "asked_for", "tunnel", "expected"),
    [
        (NONE, SERVER, SERVER, None, Deliver(SERVER, 80)),
        (NONE, SERVER, WAYPOINT, None, CloseReason.WRONG_DESTINATION),
        (NONE, SERVER, SERVER_VIP, None, CloseReason.WRONG_DESTINATION),
        (NONE, WAYPOINT, SERVER, None, CloseReason.WRONG_DESTINATION),
        (BY_POD, SERVER, SERVER, None, Deliver(SERVER, 80)),
        (BY_POD, WAYPOINT, SERVER, None, Deliver(WAYPOINT, 80)),
        (BY_SERVICE, WAYPOINT, SERVER, None, Deliver(WAYPOINT, 80)),
        (BY_SERVICE, WAYPOINT, SERVER_VIP, None, Deliver(WAYPOINT, 80)),
        (BY_HOST, WAYPOINT, SERVER_VIP, None, Deliver(WAYPOINT, 80)),
        (WRONG, WAYPOINT, SERVER, None, CloseReason.WRONG_DESTINATION),
        (WRONG, WAYPOINT, SERVER_VIP, None, CloseReason.WRONG_DESTINATION),
        (BY_HOST, WAYPOINT, SERVER_VIP, PLAIN_TUNNEL, Deliver(WAYPOINT, 15088)),
        (BY_HOST, WAYPOINT, SERVER_VIP, PROXY, Deliver("127.0.0.1", 15088, proxy_target=f"{SERVER_VIP}:80")),
        (NONE, WAYPOINT, "1.2.3.4", PROXY, Deliver("127.0.0.1", 15088, proxy_target="1.2.3.4:80")),
    ],
)
def test_addresses(kind: str, accepted_on: str, asked_for: str, tunnel: AppTunnel | None, expected: Deliver | CloseReason) -> None:
    found = connect(world(kind, tunnel), accepted_on, f"{asked_for}:80")
    if isinstance(expected, Deliver):
        assert found == expected
    else:
        assert isinstance(found, Refuse)
        assert found.reason is expected


def test_a_proxy_tunnel_may_be_dialled_on_the_pods_address() -> None:
    found = connect(world(BY_HOST, PROXY), WAYPOINT, f"{SERVER_VIP}:80", localhost_app_tunnel=False)
    assert found == Deliver(WAYPOINT, 15088, proxy_target=f"{SERVER_VIP}:80")


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("web.svc:80", Deliver(SERVER, 8080, WEB)),
        ("WEB.svc:80", Deliver(SERVER, 8080, WEB)),
        ("web.svc:81", CloseReason.NO_SERVICE_PORT),
        ("wp.svc:15008", CloseReason.NO_SERVICE_PORT),
        ("unknown.svc:80", CloseReason.NO_SERVICE_PORT),
    ],
)
def test_hostnames(authority: str, expected: Deliver | CloseReason) -> None:
    found = connect(world(NONE), SERVER, authority)
    assert found == expected if isinstance(expected, Deliver) else isinstance(found, Refuse) and found.reason is expected


def test_hostname_at_a_waypoint() -> None:
    assert connect(world(BY_HOST), WAYPOINT, "web.svc:80") == Deliver(WAYPOINT, 8080, WEB)
    found = connect(world(NONE), WAYPOINT, "web.svc:80")
    assert isinstance(found, Refuse)
    assert found.reason is CloseReason.NO_SERVICE_PORT
    proxied = Deliver("127.0.0.1", 15088, WEB, proxy_target=f"{SERVER_VIP}:80")
    assert connect(world(BY_HOST, PROXY), WAYPOINT, "web.svc:80") == proxied


def test_a_named_port_needs_the_endpoints_mapping() -> None:
    state = world(NONE)
    state.upsert_service(Service(name="web", namespace="default", hostname="web.svc", ports={80: 0, 81: 0}))
    assert connect(state, SERVER, "web.svc:80") == Deliver(SERVER, 8080, WEB)
    found = connect(state, SERVER, "web.svc:81")
    assert isinstance(found, Refuse)
    assert found.reason is CloseReason.NO_SERVICE_PORT


def test_the_workloads_own_hostname() -> None:
    state = world(NONE)
    state.upsert_workload(Workload(uid="h", namespace="default", addresses=("10.0.5.5",), hostname="vm.example"))
    assert connect(state, "10.0.5.5", "vm.example:443") == Deliver("10.0.5.5", 443)


@pytest.mark.parametrize("authority", ["", "10.0.2.1", ":80", "10.0.2.1:0", "10.0.2.1:65536", "a b:80", "[10.0.2.1]:80"])
def test_authorities_that_make_no_sense(authority: str) -> None:
    found = connect(world(NONE), SERVER, authority)
    assert isinstance(found, Refuse)
    assert found.reason is CloseReason.BAD_REQUEST


@pytest.mark.parametrize("method", ["GET", "", "connect", "X" * 10_000])
def test_only_connect(method: str) -> None:
    found = connect(world(NONE), SERVER, f"{SERVER}:80", method=method)
    assert isinstance(found, Refuse)
    assert found.reason is CloseReason.BAD_REQUEST
    assert len(found.detail) < 200


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_the_proxys_own_ports_are_refused(port: int) -> None:
    state = world(NONE)
    local = state.workload_by_address("", SERVER)
    assert local is not None
    for found in (
        connect(state, SERVER, f"{SERVER}:{port}"),
        route_plaintext(state, local, SERVER, port),
        route_plaintext(state, local, "1.2.3.4", port),
        connect(world(BY_HOST, AppTunnel(False, port)), WAYPOINT, f"{SERVER_VIP}:80"),
    ):
        assert isinstance(found, Refuse)
        assert found.reason is CloseReason.RECURSIVE_CALL


def test_the_service_told_to_telemetry() -> None:
    state = world(NONE)
    state.upsert_workload(
        Workload(uid="x", namespace="default", addresses=("10.0.6.1",), services={"default/a": {80: 8080}, "default/b": {81: 8080}})
    )
    assert connect(state, "10.0.6.1", "10.0.6.1:8080") == Deliver("10.0.6.1", 8080, "default/a")
    assert connect(state, "10.0.6.1", "10.0.6.1:8080", forwarded_host="b") == Deliver("10.0.6.1", 8080, "default/b")
    assert connect(state, "10.0.6.1", "10.0.6.1:8080", forwarded_host="web.svc") == Deliver("10.0.6.1", 8080, "default/a")
    assert connect(state, "10.0.6.1", "10.0.6.1:9") == Deliver("10.0.6.1", 9)
    local = state.workload("x")
    assert local is not None
    assert route_plaintext(state, local, "10.0.6.1", 8080) == Deliver("10.0.6.1", 8080, "default/a")
    state.upsert_workload(Workload(uid="x", namespace="default", services={WEB: {}}, addresses=("10.0.6.1",)))
    assert connect(state, "10.0.6.1", "10.0.6.1:8080") == Deliver("10.0.6.1", 8080, WEB)
