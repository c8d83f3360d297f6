"""Every environment variable that the proxy reads: name, field, parser, default, meaning. Read by the configuration only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ztunnel.config_values import address, boolean, duration, integer, mark, one_of, text, workload_info

__all__ = ["IGNORED", "REFUSED", "VARIABLES", "Variable"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable; the first of ``names`` that is set counts. ``default`` None: worked out from the others."""

    names: tuple[str, ...]
    field: str
    parse: Callable[[str], object]
    default: object
    shown_default: str
    meaning: str
    empty_counts: bool = False


def _var(
    name: str,
    field: str,
    parse: Callable[[str], object],
    default: object,
    meaning: str,
    *,
    shown: str | None = None,
    other: str = "",
    empty_counts: bool = False,
) -> Variable:
    if shown is None:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
    return Variable((name, other) if other else (name,), field, parse, default, shown, meaning, empty_counts)


_port = integer(1, 65535)
_window = integer(65535, 2**31 - 1)  # RFC 9113 §6.9.1; below the protocol's own default nothing is gained

VARIABLES: Final = (
    _var(
        "PROXY_MODE", "proxy_mode", one_of("shared", "dedicated"), "shared", "shared: all pods of the node; dedicated: one workload"
    ),
    _var("PROXY_WORKLOAD_INFO", "workload_info", workload_info, None, "namespace/name/serviceaccount of dedicated mode", shown=""),
    _var("NETWORK", "network", text, "", "the network this node is in"),
    _var("NODE_NAME", "node_name", text, "", "the name of this node"),
    _var("ISTIO_META_CLUSTER_ID", "cluster_id", text, "Kubernetes", "the cluster's id", other="CLUSTER_ID"),
    _var("CLUSTER_DOMAIN", "cluster_domain", text, "cluster.local", "DNS domain of the cluster"),
    _var("TRUST_DOMAIN", "trust_domain", text, "cluster.local", "trust domain of the proxy's own identity"),
    _var("POD_NAME", "pod_name", text, "", "the proxy's own pod"),
    _var("POD_NAMESPACE", "pod_namespace", text, "", "namespace of the proxy's own pod"),
    _var("SERVICE_ACCOUNT", "service_account", text, "", "service account of the proxy's own pod"),
    _var("INSTANCE_IP", "instance_ip", text, "", "address of the proxy's own pod"),
    _var(
        "LOCAL_XDS_PATH", "local_xds_path", text, "", "file with static workloads, services and policies; reloaded when it changes"
    ),
    _var("LOCAL_XDS", "local_xds", str, "", "the same, given literally"),
    _var(
        "LOCAL_CA_DIR", "local_ca_dir", text, "", "directory with ca-cert.pem, ca-key.pem, root-cert.pem to issue certificates from"
    ),
    _var(
        "XDS_ADDRESS",
        "xds_address",
        address,
        None,
        'control plane for state; "" for none',
        shown="none with static state; else https://istiod.istio-system.svc:15012 in Kubernetes, https://localhost:15012 outside",
        empty_counts=True,
    ),
    _var(
        "CA_ADDRESS",
        "ca_address",
        address,
        None,
        'certificate service; "" for none',
        shown="none with LOCAL_CA_DIR; else as XDS_ADDRESS",
        empty_counts=True,
    ),
    _var(
        "XDS_ROOT_CA", "xds_root_ca", str, "./var/run/secrets/istio/root-cert.pem", "roots of XDS_ADDRESS: a path, SYSTEM, or PEM"
    ),
    _var("CA_ROOT_CA", "ca_root_ca", str, "./var/run/secrets/istio/root-cert.pem", "roots of CA_ADDRESS: a path, SYSTEM, or PEM"),
    _var("AUTH_TOKEN", "auth_token", str, "./var/run/secrets/tokens/istio-token", "bearer token: a path, or literal"),
    _var("ALT_XDS_HOSTNAME", "alt_xds_hostname", text, "", "another server name accepted of XDS_ADDRESS"),
    _var("ALT_CA_HOSTNAME", "alt_ca_hostname", text, "", "another server name accepted of CA_ADDRESS"),
    _var("SECRET_TTL", "secret_ttl", duration, 86400.0, "validity asked for certificates", shown="24h"),
    _var("INPOD_UDS", "inpod_uds", text, "/var/run/ztunnel/ztunnel.sock", "socket of the node agent that hands over pods"),
    _var(
        "INPOD_PORT_REUSE", "inpod_port_reuse", boolean, True, "SO_REUSEPORT on listeners in pods, so that two proxies can overlap"
    ),
    _var("PACKET_MARK", "packet_mark", mark, None, "SO_MARK of the proxy's sockets", shown="1337; none in dedicated mode"),
    _var("ENABLE_ORIG_SRC", "orig_src", boolean, None, "keep the client's source address", shown="if the kernel allows it"),
    _var("IPV6_ENABLED", "ipv6", boolean, True, "listen on IPv6 too"),
    _var(
        "POOL_MAX_STREAMS_PER_CONNECTION", "pool_max_streams", integer(1, 65535), 100, "connections carried by one tunnel at a time"
    ),
    _var("POOL_UNUSED_RELEASE_TIMEOUT", "pool_unused_timeout", duration, 300.0, "an unused tunnel is closed after it", shown="5m"),
    _var("HTTP2_STREAM_WINDOW_SIZE", "stream_window", _window, 4194304, "bytes a peer may send ahead on one connection"),
    _var("HTTP2_CONNECTION_WINDOW_SIZE", "connection_window", _window, 16777216, "bytes a peer may send ahead on one tunnel"),
    _var("HTTP2_FRAME_SIZE", "frame_size", integer(16384, 16777215), 1048576, "bytes of the largest frame accepted"),
    _var("KEEPALIVE_ENABLED", "keepalive", boolean, True, "TCP keepalive towards applications"),
    _var("KEEPALIVE_TIME", "keepalive_time", duration, 180.0, "idle time before the first probe", shown="180s"),
    _var("KEEPALIVE_INTERVAL", "keepalive_interval", duration, 180.0, "time between probes", shown="180s"),
    _var("KEEPALIVE_RETRIES", "keepalive_retries", integer(1, 127), 9, "probes without an answer until the connection is given up"),
    _var("USER_TIMEOUT_ENABLED", "user_timeout", boolean, False, "TCP_USER_TIMEOUT of KEEPALIVE_TIME + RETRIES x INTERVAL"),
    _var(
        "CONNECTION_TERMINATION_DEADLINE",
        "termination_deadline",
        duration,
        None,
        "time open connections get to end when the proxy stops",
        shown="5s, or what TERMINATION_GRACE_PERIOD_SECONDS leaves",
    ),
    _var(
        "TERMINATION_GRACE_PERIOD_SECONDS",
        "grace_period",
        integer(0, 10**7),
        None,
        "seconds the pod gets to stop: more than 10 leave all but 5 of them for draining, fewer all but 1, at least 1",
        shown="",
    ),
    _var("LOCALHOST_APP_TUNNEL", "localhost_app_tunnel", boolean, True, "reach PROXY-protocol application tunnels on loopback"),
    _var("ENABLE_RESPONSE_BAGGAGE", "response_baggage", boolean, True, "tell peers of the workload in baggage, and heed theirs"),
    _var("AUTHZ_POLICY_INFO_LOGGING", "policy_info_logging", boolean, False, "log policy decisions at info instead of debug"),
    _var(
        "ENCRYPT_SAME_NODE", "encrypt_same_node", boolean, False, "tunnel between workloads of one node too (ours, not ztunnel's)"
    ),
    _var("RUST_LOG", "rust_log", text, "info", "log level, or target=level,..."),
    _var("LOG_FORMAT", "log_format", one_of("text", "json"), "text", "text or json"),
    _var("ADMIN_PORT", "admin_port", _port, None, "admin API on loopback (ours)", shown="15000, or PROXY_CONFIG proxyAdminPort"),
    _var("STATS_PORT", "stats_port", _port, None, "metrics (ours)", shown="15020, or PROXY_CONFIG statsPort"),
    _var("READINESS_PORT", "readiness_port", _port, 15021, "readiness (ours)"),
)

_THREADS: Final = "the data plane is one loop; its count is set by --workers"
IGNORED: Final = {
    "ZTUNNEL_WORKER_THREADS": _THREADS,
    "ZTUNNEL_CPU_LIMIT": _THREADS,
    "ZTUNNEL_RESOURCE_CPU_LIMIT": _THREADS,
    "ZTUNNEL_RESOURCE_CPU_REQUEST": _THREADS,
    "XDS_ON_DEMAND": "all state is asked for at once",
    "PREFERED_SERVICE_NAMESPACE": "the DNS proxy it configures is not built",
    "ISTIO_META_DNS_CAPTURE": "the DNS proxy is not built",
    "ISTIO_META_DNS_PROXY_ADDR": "the DNS proxy is not built",
    "DNS_CAPTURE": "the DNS proxy is not built",
    "DNS_PROXY_ADDR": "the DNS proxy is not built",
    "UNSTABLE_ENABLE_SOCKS5": "the SOCKS5 listener is not built",
    "TLS12_ENABLED": "tunnels speak TLS 1.3 only",
    "FAKE_CA": "a self-made CA is given by LOCAL_CA_DIR",
    "ISTIO_META_ISTIO_VERSION": "the build metric tells this proxy's own version",
}
"""Known to ztunnel, without effect here, and why."""


def _is_false(value: str) -> bool:
    return value.strip().lower() in ("false", "0")


REFUSED: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    "COMPLIANCE_POLICY": (bool, "no compliance policy is enforced by this proxy; unset it to run without"),
    "CRL_PATH": (
        bool,
        "revocation lists are not enforced by this proxy yet, and passing over them would accept revoked certificates",
    ),
    "ENABLE_PROXY": (_is_false, "this program is the proxy: not to run it, do not start it"),
}
"""Values that cannot be honoured and must not be passed over: name -> (is it such a value, why)."""
