"""Workloads and services as ``/config_dump`` shows them: ztunnel's keys and value forms, so that istioctl can read them.

What is empty or default is left out, but for the fields that its readers expect always. Called by the admin API and the command.
"""

from collections.abc import Mapping

from ztunnel.state.endpoints import target_port
from ztunnel.state.model import AppTunnel, GatewayAddress, IpFamilies, LoadBalancer, Service, Workload

__all__ = ["Json", "service_dump", "workload_dump"]

Json = dict[str, object]


def workload_dump(workload: Workload) -> Json:
    """One entry of ``workloads[]``."""
    locality = {
        name: value
        for name, value in (
            ("region", workload.locality.region),
            ("zone", workload.locality.zone),
            ("subzone", workload.locality.subzone),
        )
        if value
    }
    always: Json = {
        "workloadIps": list(workload.addresses),
        "protocol": workload.protocol.value,
        "networkMode": workload.network_mode.value,
        "uid": workload.uid,
        "name": workload.name,
        "namespace": workload.namespace,
        "status": workload.status.value,
        "clusterId": workload.cluster_id,
        "capacity": workload.capacity,
    }
    optional: Json = {
        "waypoint": _gateway(workload.waypoint),
        "networkGateway": _gateway(workload.network_gateway),
        "trustDomain": workload.trust_domain,
        "serviceAccount": workload.service_account,
        "network": workload.network,
        "workloadName": workload.workload_name,
        "workloadType": workload.workload_type,
        "canonicalName": workload.canonical_name,
        "canonicalRevision": workload.canonical_revision,
        "hostname": workload.hostname,
        "node": workload.node,
        "nativeTunnel": workload.native_tunnel,
        "applicationTunnel": _tunnel(workload.application_tunnel),
        "authorizationPolicies": list(workload.authorization_policies),
        "locality": locality,
        "services": list(workload.services),
    }
    return always | {key: value for key, value in optional.items() if value}


def service_dump(service: Service, endpoints: Mapping[str, Workload]) -> Json:
    """One entry of ``services[]`` with its ``endpoints`` (uid -> workload, as the state gives them)."""
    always: Json = {
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "vips": list(service.vips),
        "ports": {str(port): target for port, target in service.ports.items()},
        "endpoints": {
            uid: {"workloadUid": uid, "port": _endpoint_ports(service, workload), "status": workload.status.value}
            for uid, workload in endpoints.items()
        },
    }
    optional: Json = {
        "cidrVips": [{"network": network, "cidr": cidr} for network, cidr in service.cidr_vips],
        "subjectAltNames": list(service.subject_alt_names),
        "waypoint": _gateway(service.waypoint),
        "weightedWaypoints": [
            {"destination": _gateway(gateway), "weight": weight} for gateway, weight in service.weighted_waypoints
        ],
        "loadBalancer": _balancer(service.load_balancer),
        "ipFamilies": "" if service.ip_families is IpFamilies.AUTOMATIC else service.ip_families.value,
        "canonical": service.canonical,
        "visibility": service.visibility.value,
    }
    return always | {key: value for key, value in optional.items() if value}


def _endpoint_ports(service: Service, workload: Workload) -> dict[str, int]:
    """The endpoint's own mapping; where it has none, what the service's ports come to."""
    own = workload.services.get(service.key)
    if own:
        return {str(port): target for port, target in own.items()}
    return {str(port): target for port in service.ports if (target := target_port(service, workload, port))}


def _gateway(gateway: GatewayAddress | None) -> Json | None:
    if gateway is None:
        return None
    return {"destination": gateway.destination, "hboneMtlsPort": gateway.hbone_mtls_port}


def _tunnel(tunnel: AppTunnel | None) -> Json | None:
    if tunnel is None:
        return None
    shown: Json = {"protocol": "PROXY" if tunnel.proxy_protocol else "NONE"}
    if tunnel.port:
        shown["port"] = tunnel.port
    return shown


def _balancer(balancer: LoadBalancer) -> Json | None:
    if balancer == LoadBalancer():
        return None
    return {
        "routingPreferences": [scope.value for scope in balancer.routing_preferences],
        "mode": balancer.mode.value,
        "healthPolicy": balancer.health_policy.value,
    }
