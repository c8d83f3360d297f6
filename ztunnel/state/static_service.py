"""One service of a static file."""

from typing import Final, NamedTuple

from ztunnel.state.addresses import canonical_ip
from ztunnel.state.fields import Faults, Fields, read_choice, read_cidr, read_ports, read_text
from ztunnel.state.model import (
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancer,
    LoadBalancerMode,
    Scope,
    Service,
    Status,
    Visibility,
)
from ztunnel.state.static_common import check_hostname, check_name, check_network, read_destination, read_gateway
from ztunnel.state.yaml_nodes import MapNode, Node

__all__ = ["Endpoint", "read_service"]

_SERVICE: Final = frozenset(
    {
        "name",
        "namespace",
        "hostname",
        "vips",
        "cidrVips",
        "ports",
        "endpoints",
        "subjectAltNames",
        "waypoint",
        "weightedWaypoints",
        "loadBalancer",
        "ipFamilies",
        "canonical",
        "visibility",
    }
)
_CIDR: Final = frozenset({"network", "cidr"})
_ENDPOINT: Final = frozenset({"workloadUid", "port", "status"})
_BALANCER: Final = frozenset({"routingPreferences", "mode", "healthPolicy"})
_WEIGHTED: Final = frozenset({"destination", "hboneMtlsPort", "weight"})


class Endpoint(NamedTuple):
    """An entry of a service's ``endpoints``, to be joined with its workload."""

    line: int
    path: str
    service: str
    uid: str
    ports: dict[int, int]
    status: Status


def read_service(faults: Faults, node: Node, path: str) -> tuple[Service, list[Endpoint]]:
    """A service and its endpoints; what is faulty in it has been noted and has a default."""
    fields = Fields(faults, node, path, _SERVICE)
    fields.require("name", "every service has one")
    fields.require("namespace", "every service is in one")
    hostname_node = fields.require("hostname", "such as <name>.<namespace>.svc.cluster.local")
    hostname = fields.text("hostname")
    ports_node = fields.node("ports")
    waypoint_node = fields.optional("waypoint")
    service = Service(
        name=fields.text("name"),
        namespace=check_name(fields, "namespace", fields.text("namespace")) if fields.node("namespace") is not None else "",
        hostname=check_hostname(faults, hostname_node.line, fields.at("hostname"), hostname) if hostname_node is not None else "",
        vips=_vips(fields),
        cidr_vips=_cidr_vips(fields),
        ports={} if ports_node is None else read_ports(faults, ports_node, fields.at("ports")),
        subject_alt_names=_names(fields),
        waypoint=None if waypoint_node is None else read_gateway(faults, waypoint_node, fields.at("waypoint")),
        weighted_waypoints=_weighted(fields),
        load_balancer=_balancer(fields),
        ip_families=IpFamilies.AUTOMATIC
        if fields.optional("ipFamilies") is None
        else fields.choice("ipFamilies", IpFamilies.AUTOMATIC),
        canonical=fields.boolean("canonical"),
        visibility=fields.choice("visibility", Visibility.PUBLIC),
    )
    return service, _endpoints(fields, service.key)


def _vips(fields: Fields) -> tuple[str, ...]:
    found = []
    for node, path in fields.items("vips"):
        text = read_text(fields.faults, node, path)
        network, slash, address = text.partition("/")
        ip = canonical_ip(address)
        if text and (not slash or ip is None):
            fields.faults.add(node.line, path, f"{text[:80]!r} is not of the form network/ip; without a network it is /10.0.0.1")
        elif ip is not None:
            found.append(f"{check_network(fields.faults, node.line, path, network)}/{ip}")
    return tuple(dict.fromkeys(found))


def _cidr_vips(fields: Fields) -> tuple[tuple[str, str], ...]:
    found = []
    for node, path in fields.items("cidrVips"):
        inner = Fields(fields.faults, node, path, _CIDR)
        network = check_network(fields.faults, node.line, inner.at("network"), inner.text("network"))
        cidr_node = inner.require("cidr", "such as 10.0.0.0/8")
        cidr = read_cidr(fields.faults, cidr_node, inner.at("cidr")) if cidr_node is not None else ""
        if cidr:
            found.append((network, cidr))
    return tuple(dict.fromkeys(found))


def _names(fields: Fields) -> tuple[str, ...]:
    found = []
    for node, path in fields.items("subjectAltNames"):
        text = read_text(fields.faults, node, path)
        if text and not text.startswith("spiffe://"):
            fields.faults.add(
                node.line, path, f"{text[:80]!r} is not a SPIFFE id spiffe://<trust domain>/ns/<namespace>/sa/<account>"
            )
        elif text:
            found.append(text)
    return tuple(dict.fromkeys(found))


def _weighted(fields: Fields) -> tuple[tuple[GatewayAddress, int], ...]:
    found = []
    for node, path in fields.items("weightedWaypoints"):
        inner = Fields(fields.faults, node, path, _WEIGHTED)
        inner.require("weight", "its share of the connections")
        weight = inner.integer("weight", 1, 0, 2**32 - 1)
        port = inner.integer("hboneMtlsPort", 15008, 1, 65535)
        destination = inner.require("destination", "write network/ip or namespace/hostname")
        if destination is None:
            continue
        where = inner.at("destination")
        if isinstance(destination, MapNode):  # a whole gateway address, as the wire form has it
            gateway = read_gateway(fields.faults, destination, where)
        else:
            gateway = read_destination(fields.faults, destination, where, port)
        if gateway is not None:
            found.append((gateway, weight))
    return tuple(found)


def _balancer(fields: Fields) -> LoadBalancer:
    node = fields.optional("loadBalancer")
    if node is None:
        return LoadBalancer()
    inner = Fields(fields.faults, node, fields.at("loadBalancer"), _BALANCER)
    return LoadBalancer(
        tuple(read_choice(fields.faults, item, path, Scope.REGION) for item, path in inner.items("routingPreferences")),
        inner.choice("mode", LoadBalancerMode.STANDARD),
        inner.choice("healthPolicy", HealthPolicy.ONLY_HEALTHY),
    )


def _endpoints(fields: Fields, service: str) -> list[Endpoint]:
    found = []
    for key, value, path in fields.entries("endpoints"):
        inner = Fields(fields.faults, value, path, _ENDPOINT)
        uid = inner.text("workloadUid", key.text)
        ports_node = inner.node("port")
        ports = {} if ports_node is None else read_ports(fields.faults, ports_node, inner.at("port"))
        found.append(Endpoint(key.line, path, service, uid, ports, inner.choice("status", Status.HEALTHY)))
    return found
