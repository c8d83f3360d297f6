"""The proxy's configuration: environment variables with ztunnel's names and meanings, read once at start.

``Config.from_env`` is pure: the caller gives the environment and the text of the mesh configuration file. All faults are
collected and told at once, each with the variable, its value and what is accepted. Variables that ztunnel knows and this proxy
has no use for are accepted and listed in ``Config.ignored`` with the reason; one that asks for more security than there is gets
refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ztunnel.config_table import IGNORED, REFUSED, VARIABLES, Variable
from ztunnel.config_values import MeshConfig, MeshConfigError
from ztunnel.state.model import WorkloadInfo

__all__ = ["Config", "ConfigError", "Described"]


class ConfigError(Exception):
    """The environment is not usable. Raised by :meth:`Config.from_env`; ``problems`` has one sentence for each fault."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Described(NamedTuple):
    """One variable for the help text."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Durations are seconds, sizes bytes, "" means not set; what each is for stands in :mod:`ztunnel.config_table`."""

    proxy_mode: str
    workload_info: WorkloadInfo | None
    """The workload of dedicated mode, else None."""
    network: str
    node_name: str
    cluster_id: str
    cluster_domain: str
    trust_domain: str
    pod_name: str
    pod_namespace: str
    service_account: str
    instance_ip: str
    local_xds_path: str
    local_xds: str
    local_ca_dir: str
    xds_address: str
    ca_address: str
    xds_root_ca: str
    ca_root_ca: str
    auth_token: str
    alt_xds_hostname: str
    alt_ca_hostname: str
    xds_headers: tuple[tuple[str, str], ...]
    ca_headers: tuple[tuple[str, str], ...]
    secret_ttl: float
    inpod_uds: str
    inpod_port_reuse: bool
    packet_mark: int | None
    orig_src: bool | None
    """True: must work; False: off; None: if the kernel lets us."""
    ipv6: bool
    pool_max_streams: int
    pool_unused_timeout: float
    stream_window: int
    connection_window: int
    frame_size: int
    keepalive: bool
    keepalive_time: float
    keepalive_interval: float
    keepalive_retries: int
    user_timeout: bool
    termination_deadline: float
    localhost_app_tunnel: bool
    response_baggage: bool
    policy_info_logging: bool
    encrypt_same_node: bool
    rust_log: str
    log_format: str
    admin_port: int
    stats_port: int
    readiness_port: int
    ignored: tuple[tuple[str, str], ...]
    """(variable, why) of those that are set and have no effect."""

    @property
    def self_proxy(self) -> WorkloadInfo | None:
        """The proxy's own pod, when POD_NAME, POD_NAMESPACE and SERVICE_ACCOUNT tell it and the mode is shared."""
        if self.proxy_mode == "shared" and self.pod_name and self.pod_namespace and self.service_account:
            return WorkloadInfo(self.pod_name, self.pod_namespace, self.service_account)
        return None

    @classmethod
    def from_env(cls, env: Mapping[str, str], mesh_config: str = "") -> "Config":
        """The configuration of ``env``. ``mesh_config``: text of ``./etc/istio/config/mesh``, or "". Raises ConfigError.

        An empty variable counts as not set, but for XDS_ADDRESS and CA_ADDRESS, where it means none.
        """
        problems: list[str] = []
        mesh = _mesh(env, mesh_config, problems)
        values: dict[str, object] = {}
        for variable in VARIABLES:
            values[variable.field] = _value(variable, env, problems)
        _derive(values, env, mesh, problems)
        for name, (bad, why) in REFUSED.items():
            if bad(env.get(name, "")):
                problems.append(f"{name}={env[name]!r}: {why}")
        if problems:
            raise ConfigError(tuple(problems))
        ignored = tuple((name, why) for name, why in IGNORED.items() if env.get(name)) + mesh.ignored
        return cls(**values, ignored=ignored)  # type: ignore[arg-type]  # one field for each row of the table, see its test

    @staticmethod
    def describe() -> list[Described]:
        """All variables that have an effect, for the help text."""
        return [Described(v.names[0], v.shown_default, v.meaning) for v in VARIABLES]


def _value(variable: Variable, env: Mapping[str, str], problems: list[str]) -> object:
    for name in variable.names:
        raw = env.get(name)
        if raw is None or (raw == "" and not variable.empty_counts):
            continue
        try:
            return variable.parse(raw)
        except ValueError as error:
            problems.append(f"{name}={raw[:200]!r}: expected {error}")
            return variable.default
    return variable.default


def _mesh(env: Mapping[str, str], mesh_config: str, problems: list[str]) -> MeshConfig:
    """The file's ``defaultConfig``, overridden by PROXY_CONFIG."""
    proxy_config = env.get("PROXY_CONFIG", "")
    merged = MeshConfig()
    if not mesh_config and not proxy_config:
        return merged
    # Only where there is a document to read: the data plane reads its configuration too, and keeps YAML out of its process.
    from ztunnel.config_mesh import read_mesh_config, read_proxy_config

    for source, body, read in (
        ("mesh configuration", mesh_config, read_mesh_config),
        ("PROXY_CONFIG", proxy_config, read_proxy_config),
    ):
        try:
            merged = merged.overridden_by(read(body))
        except MeshConfigError as error:
            problems.append(f"{source}: {error}")
    return merged


def _derive(values: dict[str, object], env: Mapping[str, str], mesh: MeshConfig, problems: list[str]) -> None:
    """Defaults that hang on other variables, and what must not come together."""
    if values["admin_port"] is None:
        values["admin_port"] = mesh.admin_port or 15000
    if values["stats_port"] is None:
        values["stats_port"] = mesh.stats_port or 15020
    ports = [values["admin_port"], values["stats_port"], values["readiness_port"]]
    if len(set(ports)) != len(ports):
        problems.append(f"ADMIN_PORT, STATS_PORT and READINESS_PORT are {ports}: give each its own")
    local_state = values["local_xds_path"] or values["local_xds"]
    if values["local_xds_path"] and values["local_xds"]:
        problems.append("LOCAL_XDS and LOCAL_XDS_PATH are both set: one source of static state only")
    control_plane = "https://istiod.istio-system.svc:15012" if env.get("KUBERNETES_SERVICE_HOST") else "https://localhost:15012"
    discovery = mesh.discovery_address or control_plane
    if values["xds_address"] is None:
        values["xds_address"] = "" if local_state else discovery
    if values["ca_address"] is None:
        values["ca_address"] = "" if values["local_ca_dir"] else discovery
    info = values["workload_info"]
    dedicated = values["proxy_mode"] == "dedicated"
    if dedicated and info is None:
        problems.append("PROXY_MODE=dedicated needs PROXY_WORKLOAD_INFO: namespace/name/serviceaccount")
    values["workload_info"] = WorkloadInfo(info[1], info[0], info[2]) if dedicated and isinstance(info, tuple) else None
    if values["packet_mark"] is None and not dedicated:
        values["packet_mark"] = 1337
    grace = values.pop("grace_period")
    if values["termination_deadline"] is None:
        values["termination_deadline"] = _deadline(grace)
    stream, connection = values["stream_window"], values["connection_window"]
    if isinstance(stream, int) and isinstance(connection, int) and connection < stream:
        problems.append(
            f"HTTP2_CONNECTION_WINDOW_SIZE={connection} is less than HTTP2_STREAM_WINDOW_SIZE={stream}: one unread stream would "
            "stop all others; four times as much is usual"
        )
    for field, prefix in (("xds_headers", "XDS_HEADER_"), ("ca_headers", "CA_HEADER_")):
        values[field] = tuple(
            (name.removeprefix(prefix).lower(), env[name]) for name in sorted(env) if name.startswith(prefix) and name != prefix
        )


def _deadline(grace: object) -> float:
    """Seconds to drain in: what the kubelet grants, less a margin to stop in (ztunnel's rule)."""
    if not isinstance(grace, int):
        return 5.0
    return float(max(grace - 5 if grace > 10 else grace - 1, 1))
