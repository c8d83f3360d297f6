"""The shapes of config_dump."""

import json

from ztunnel.state.dump import service_dump, workload_dump
from ztunnel.state.model import (
    AppTunnel,
    GatewayAddress,
    LoadBalancer,
    LoadBalancerMode,
    Locality,
    Protocol,
    Scope,
    Service,
    Workload,
)
from ztunnel.state.static import read_static

PLAIN = Workload(uid="u", namespace="ns", name="n", addresses=("10.0.0.1",))
FULL = Workload(
    uid="c//Pod/ns/web",
    namespace="ns",
    name="web",
    addresses=("10.0.0.1", "fd00::1"),
    network="n1",
    protocol=Protocol.HBONE,
    hostname="h",
    node="node1",
    native_tunnel=True,
    waypoint=GatewayAddress("ns/wp.svc"),
    network_gateway=GatewayAddress("n2/1.2.3.4", 15010, True),
    application_tunnel=AppTunnel(True, 15088),
    authorization_policies=("ns/p",),
    locality=Locality("r", zone="z"),
    canonical_name="app",
    canonical_revision="v1",
    workload_name="web",
    workload_type="deployment",
    services={"ns/web.svc": {80: 8080}},
)


def test_defaults_are_left_out() -> None:
    assert workload_dump(PLAIN) == {
        "workloadIps": ["10.0.0.1"],
        "protocol": "TCP",
        "networkMode": "Standard",
        "uid": "u",
        "name": "n",
        "namespace": "ns",
        "trustDomain": "cluster.local",
        "serviceAccount": "default",
        "workloadType": "pod",
        "status": "Healthy",
        "clusterId": "Kubernetes",
        "capacity": 1,
    }


def test_all_of_a_workload() -> None:
    shown = workload_dump(FULL)
    assert shown["waypoint"] == {"destination": "ns/wp.svc", "hboneMtlsPort": 15008}
    assert shown["networkGateway"] == {"destination": "n2/1.2.3.4", "hboneMtlsPort": 15010}
    assert shown["applicationTunnel"] == {"protocol": "PROXY", "port": 15088}
    assert shown["locality"] == {"region": "r", "zone": "z"}
    assert shown["services"] == ["ns/web.svc"]
    assert shown["nativeTunnel"] is True


def test_a_service_with_its_endpoints() -> None:
    service = Service(
        name="web",
        namespace="ns",
        hostname="web.svc",
        vips=("/10.9.0.1",),
        cidr_vips=(("n1", "10.0.0.0/8"),),
        ports={80: 8080, 81: 0},
        weighted_waypoints=((GatewayAddress("ns/a"), 2),),
        load_balancer=LoadBalancer((Scope.NETWORK,), LoadBalancerMode.FAILOVER),
    )
    bare = Workload(uid="b", namespace="ns", services={"ns/web.svc": {}})
    assert service_dump(service, {FULL.uid: FULL, "b": bare}) == {
        "name": "web",
        "namespace": "ns",
        "hostname": "web.svc",
        "vips": ["/10.9.0.1"],
        "cidrVips": [{"network": "n1", "cidr": "10.0.0.0/8"}],
        "ports": {"80": 8080, "81": 0},
        "endpoints": {
            FULL.uid: {"workloadUid": FULL.uid, "port": {"80": 8080}, "status": "Healthy"},
            "b": {"workloadUid": "b", "port": {"80": 8080}, "status": "Healthy"},
        },
        "weightedWaypoints": [{"destination": {"destination": "ns/a", "hboneMtlsPort": 15008}, "weight": 2}],
        "loadBalancer": {"routingPreferences": ["Network"], "mode": "Failover", "healthPolicy": "OnlyHealthy"},
        "visibility": "Public",
    }


def test_a_dump_can_be_read_as_a_static_file() -> None:
    service = Service(name="web", namespace="ns", hostname="web.svc", vips=("/10.9.0.1",), ports={80: 8080})
    workload = workload_dump(FULL)
    del workload["services"]  # a list of names there; the ports come back from the service's endpoints
    document = json.dumps({"workloads": [workload], "services": [service_dump(service, {FULL.uid: FULL})]})
    state = read_static(document, "dump")
    assert state.workloads == (FULL,)
    assert state.services == (service,)
