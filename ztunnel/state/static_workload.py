"""One workload of a static file."""

from enum import StrEnum
from typing import Final

from ztunnel.state.fields import Faults, Fields, read_ip, read_ports, read_text
from ztunnel.state.model import AppTunnel, GatewayAddress, Locality, NetworkMode, Protocol, Status, Workload
from ztunnel.state.static_common import check_hostname, check_name, check_network, read_gateway, read_reference
from ztunnel.state.yaml_nodes import Node

__all__ = ["read_workload"]

_WORKLOAD: Final = frozenset(
    {
        "workloadIps",
        "waypoint",
        "networkGateway",
        "protocol",
        "networkMode",
        "uid",
        "name",
        "namespace",
        "trustDomain",
        "serviceAccount",
        "network",
        "workloadName",
        "workloadType",
        "canonicalName",
        "canonicalRevision",
        "hostname",
        "node",
        "nativeTunnel",
        "applicationTunnel",
        "authorizationPolicies",
        "status",
        "clusterId",
        "locality",
        "services",
        "capacity",
    }
)
_LOCALITY: Final = frozenset({"region", "zone", "subzone"})
_TUNNEL: Final = frozenset({"protocol", "port"})
_MAX_CAPACITY: Final = 2**32 - 1


class _TunnelProtocol(StrEnum):
    NONE = "NONE"
    PROXY = "PROXY"


class _WorkloadType(StrEnum):
    DEPLOYMENT = "deployment"
    CRONJOB = "cronjob"
    POD = "pod"
    JOB = "job"


def read_workload(faults: Faults, node: Node, path: str) -> Workload:
    """A workload; what is faulty in it has been noted and has a default. Its uid is "" only with a fault."""
    fields = Fields(faults, node, path, _WORKLOAD)
    fields.require("uid", "give each workload one, such as Kubernetes//Pod/<namespace>/<name>")
    uid = fields.text("uid")
    uid_node = fields.node("uid")
    if uid_node is not None and not uid:
        faults.add(uid_node.line, fields.at("uid"), "empty; give each workload one, such as Kubernetes//Pod/<namespace>/<name>")
    fields.require("namespace", "every workload is in one")
    fields.require("workloadIps", "write [] for a workload that has only a hostname")
    namespace = fields.text("namespace")
    hostname = fields.text("hostname")
    network = fields.text("network")
    return Workload(
        uid=uid,
        namespace=check_name(fields, "namespace", namespace) if fields.node("namespace") is not None else "",
        addresses=_addresses(fields),
        name=fields.text("name"),
        network=check_network(faults, fields.line, fields.at("network"), network),
        protocol=fields.choice("protocol", Protocol.TCP),
        network_mode=fields.choice("networkMode", NetworkMode.STANDARD),
        trust_domain=check_name(fields, "trustDomain", fields.text("trustDomain") or "cluster.local"),
        service_account=check_name(fields, "serviceAccount", fields.text("serviceAccount") or "default"),
        node=fields.text("node"),
        hostname=check_hostname(faults, fields.line, fields.at("hostname"), hostname) if hostname else "",
        cluster_id=fields.text("clusterId") or "Kubernetes",
        canonical_name=fields.text("canonicalName"),
        canonical_revision=fields.text("canonicalRevision"),
        workload_name=fields.text("workloadName"),
        workload_type=fields.choice("workloadType", _WorkloadType.POD).value,
        native_tunnel=fields.boolean("nativeTunnel"),
        waypoint=_gateway(fields, "waypoint"),
        network_gateway=_gateway(fields, "networkGateway"),
        application_tunnel=_tunnel(fields),
        authorization_policies=_policies(fields),
        status=fields.choice("status", Status.HEALTHY),
        locality=_locality(fields),
        services=_services(fields),
        capacity=fields.integer("capacity", 1, 0, _MAX_CAPACITY),
    )


def _addresses(fields: Fields) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for node, path in fields.items("workloadIps"):
        ip = read_ip(fields.faults, node, path)
        if ip in found:
            fields.faults.add(node.line, path, f"address {ip} is given twice")
        elif ip:
            found[ip] = None
    return tuple(found)


def _gateway(fields: Fields, name: str) -> GatewayAddress | None:
    node = fields.optional(name)
    return None if node is None else read_gateway(fields.faults, node, fields.at(name))


def _tunnel(fields: Fields) -> AppTunnel | None:
    node = fields.optional("applicationTunnel")
    if node is None:
        return None
    inner = Fields(fields.faults, node, fields.at("applicationTunnel"), _TUNNEL)
    protocol = inner.choice("protocol", _TunnelProtocol.NONE)
    port = 0 if inner.optional("port") is None else inner.integer("port", 0, 1, 65535)
    return AppTunnel(protocol is _TunnelProtocol.PROXY, port)


def _locality(fields: Fields) -> Locality:
    node = fields.optional("locality")
    if node is None:
        return Locality()
    inner = Fields(fields.faults, node, fields.at("locality"), _LOCALITY)
    return Locality(inner.text("region"), inner.text("zone"), inner.text("subzone"))


def _policies(fields: Fields) -> tuple[str, ...]:
    found = []
    for node, path in fields.items("authorizationPolicies"):
        text = read_text(fields.faults, node, path)
        if text and read_reference(fields.faults, node.line, path, text, "name"):
            found.append(text)
    return tuple(dict.fromkeys(found))


def _services(fields: Fields) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for key, value, path in fields.entries("services"):
        if read_reference(fields.faults, key.line, path, key.text, "hostname"):
            found[key.text] = read_ports(fields.faults, value, path)
    return found
