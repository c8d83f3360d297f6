"""Workloads and services as the proxy sees them: values of ``istio.workload``, already validated.

Both halves of the proxy hold them, and the link between them carries them as they are (msgspec). Addresses are
canonical text, IPv4-mapped IPv6 already reduced to IPv4. Field names follow Istio's proto.
"""

from enum import StrEnum

import msgspec

__all__ = [
    "AppTunnel",
    "GatewayAddress",
    "HealthPolicy",
    "IpFamilies",
    "LoadBalancer",
    "LoadBalancerMode",
    "Locality",
    "NetworkMode",
    "Protocol",
    "Scope",
    "Service",
    "Status",
    "Visibility",
    "Workload",
    "WorkloadInfo",
]


class Protocol(StrEnum):
    """How a workload takes connections."""

    TCP = "TCP"
    HBONE = "HBONE"


class NetworkMode(StrEnum):
    """``HOST_NETWORK`` workloads share their node's address and are not indexed by it."""

    STANDARD = "Standard"
    HOST_NETWORK = "HostNetwork"


class Status(StrEnum):
    """Health as the control plane sees it."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


class Visibility(StrEnum):
    """``NAMESPACE``: only clients of the service's namespace see it."""

    PUBLIC = "Public"
    NAMESPACE = "Namespace"


class IpFamilies(StrEnum):
    """Families a service serves."""

    AUTOMATIC = "Automatic"
    DUAL = "Dual"
    IPV4 = "IPv4"
    IPV6 = "IPv6"


class Scope(StrEnum):
    """A locality scope of a load balancing preference."""

    REGION = "Region"
    ZONE = "Zone"
    SUBZONE = "Subzone"
    NODE = "Node"
    CLUSTER = "Cluster"
    NETWORK = "Network"


class LoadBalancerMode(StrEnum):
    """See ztunnel's modes: how routing preferences bind."""

    STANDARD = "Standard"
    STRICT = "Strict"
    FAILOVER = "Failover"
    PASSTHROUGH = "Passthrough"


class HealthPolicy(StrEnum):
    """Whether unhealthy endpoints take connections."""

    ONLY_HEALTHY = "OnlyHealthy"
    ALLOW_ALL = "AllowAll"


class Locality(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a workload runs."""

    region: str = ""
    zone: str = ""
    subzone: str = ""


class GatewayAddress(msgspec.Struct, frozen=True, omit_defaults=True):
    """A waypoint or network gateway.

    ``destination`` is ``namespace/hostname``, or ``network/ip`` when ``is_address``. ``hbone_mtls_port``: 1..65535.
    """

    destination: str
    hbone_mtls_port: int = 15008
    is_address: bool = False


class AppTunnel(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a workload takes tunnelled connections. ``proxy_protocol``: behind a PROXY v2 header. ``port`` 0: the target's."""

    proxy_protocol: bool = False
    port: int = 0


class Workload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One workload.

    ``services`` maps ``namespace/hostname`` to its {service port: target port}. ``authorization_policies`` are the keys
    (``namespace/name``) of selector policies. ``capacity``: relative weight, 0 = never chosen.
    """

    uid: str
    namespace: str
    addresses: tuple[str, ...] = ()
    name: str = ""
    network: str = ""
    protocol: Protocol = Protocol.TCP
    network_mode: NetworkMode = NetworkMode.STANDARD
    trust_domain: str = "cluster.local"
    service_account: str = "default"
    node: str = ""
    hostname: str = ""
    cluster_id: str = "Kubernetes"
    canonical_name: str = ""
    canonical_revision: str = ""
    workload_name: str = ""
    workload_type: str = "pod"
    native_tunnel: bool = False
    waypoint: GatewayAddress | None = None
    network_gateway: GatewayAddress | None = None
    application_tunnel: AppTunnel | None = None
    authorization_policies: tuple[str, ...] = ()
    status: Status = Status.HEALTHY
    locality: Locality = Locality()
    services: dict[str, dict[int, int]] = {}
    capacity: int = 1

    @property
    def identity(self) -> str:
        """The SPIFFE id its certificate must carry."""
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


class LoadBalancer(msgspec.Struct, frozen=True, omit_defaults=True):
    """How endpoints are chosen."""

    routing_preferences: tuple[Scope, ...] = ()
    mode: LoadBalancerMode = LoadBalancerMode.STANDARD
    health_policy: HealthPolicy = HealthPolicy.ONLY_HEALTHY


class Service(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One service.

    ``vips``: ``network/ip`` (network may be empty); ``cidr_vips``: (network, CIDR text). ``ports``: {service port: target
    port}, target 0 = named port, looked up at the endpoint. Endpoints come from workloads' ``services``.
    """

    name: str
    namespace: str
    hostname: str
    vips: tuple[str, ...] = ()
    cidr_vips: tuple[tuple[str, str], ...] = ()
    ports: dict[int, int] = {}
    subject_alt_names: tuple[str, ...] = ()
    waypoint: GatewayAddress | None = None
    weighted_waypoints: tuple[tuple[GatewayAddress, int], ...] = ()
    load_balancer: LoadBalancer = LoadBalancer()
    ip_families: IpFamilies = IpFamilies.AUTOMATIC
    canonical: bool = False
    visibility: Visibility = Visibility.PUBLIC

    @property
    def key(self) -> str:
        """``namespace/hostname``."""
        return f"{self.namespace}/{self.hostname}"


class WorkloadInfo(msgspec.Struct, frozen=True):
    """What the node agent tells of a pod (ZDS ``WorkloadInfo``)."""

    name: str
    namespace: str
    service_account: str
