"""The metrics that are not about single connections: names, and a small registry that holds them.

The names and labels of the first group are ztunnel's, so that dashboards and alerts made for it keep working; the
second group is ours, under ``ambient_``. Pure; used by :class:`ztunnel.telemetry.metrics.MetricStore`.
"""

from collections.abc import Iterator
from typing import Final

from ztunnel.telemetry.exposition import Format, Kind, Naming, header, labels, number

__all__ = ["FAMILIES", "MAX_LABEL_SETS", "Registry"]

MAX_LABEL_SETS: Final = 1000
"""Label sets of one family here; further ones are folded into one whose values are all ``overflow``."""

_C, _G = Kind.COUNTER, Kind.GAUGE

FAMILIES: Final[tuple[Naming, ...]] = (
    Naming("istio_build", _G, "Istio component build info", ("component", "tag")),
    Naming("istio_tcp_sockets_open", _G, "The current number of open TCP sockets accepted by the proxy.", ("reporter",)),
    Naming("istio_xds_connection_terminations", _C, "The total number of completed connections to xds server.", ("reason",)),
    Naming("istio_xds_message", _C, "Total number of messages received.", ("url",)),
    Naming("istio_xds_message_bytes", _C, "Total number of bytes received.", ("url",)),
    Naming("workload_manager_active_proxy_count", _G, "The total number current workloads with active proxies."),
    Naming("workload_manager_pending_proxy_count", _G, "The total number current workloads with pending proxies."),
    Naming("workload_manager_proxies_started", _C, "The total number of proxies that were started."),
    Naming("workload_manager_proxies_stopped", _C, "The total number of proxies that were stopped."),
    Naming("process_open_fds", _G, "Number of open file descriptors."),
    Naming("process_max_fds", _G, "Maximum number of open file descriptors."),
    Naming("process_resident_memory_bytes", _G, "Resident memory size in bytes."),
    Naming("process_cpu_seconds", _C, "Total user and system CPU time spent in seconds."),
    Naming("process_start_time_seconds", _G, "Start time of the process since unix epoch in seconds."),
    Naming("ambient_refusals", _C, "Connections refused before their ends were known.", ("direction", "reason")),
    Naming("ambient_connections_opened", _C, "Connections opened, by the way they take.", ("reporter", "path")),
    Naming("ambient_connections_closed", _C, "Connections ended, by reason.", ("reporter", "reason")),
    Naming("ambient_access_log_dropped", _C, "Access log lines lost because the place named was full or away.", ("where",)),
    Naming("ambient_log_write_errors", _C, "Failed writes of log lines.", ()),
    Naming("ambient_series", _G, "Label sets of connection metrics held."),
    Naming("ambient_series_overflow", _C, "Series folded into the one named overflow, as the limit of label sets is reached."),
    Naming("ambient_unknown_series", _C, "Counts for a series that was never defined."),
    Naming("ambient_state_generation", _G, "Generation of the state in force."),
    Naming("ambient_state_resources", _G, "Resources held.", ("kind",)),
    Naming("ambient_state_reloads", _C, "Reloads of the static state file.", ("result",)),
    Naming("ambient_certificates", _G, "Certificates held, by state.", ("state",)),
    Naming("ambient_certificate_expiry_seconds", _G, "Unix time at which the certificate of an identity ends.", ("identity",)),
    Naming("ambient_certificate_requests", _C, "Certificates asked for.", ("result",)),
    Naming("ambient_zds_connected", _G, "1 while the node agent's socket is connected."),
    Naming("ambient_zds_messages", _C, "Messages from the node agent.", ("kind",)),
    Naming("ambient_link_messages", _C, "Messages between the halves of the proxy.", ("direction",)),
    Naming("ambient_link_connected", _G, "1 while the data plane is connected."),
)


class Registry:
    """Current values of :data:`FAMILIES`. Unknown names are programming errors: KeyError."""

    def __init__(self) -> None:
        self._families = {family.name: family for family in FAMILIES}
        self._values: dict[str, dict[tuple[str, ...], float]] = {}

    def set(self, name: str, value: float, *label_values: str) -> None:
        """Set a gauge, or a counter that is kept elsewhere."""
        samples, key = self._slot(name, label_values)
        samples[key] = value

    def add(self, name: str, value: float, *label_values: str) -> None:
        """Count ``value`` ≥ 0 more."""
        samples, key = self._slot(name, label_values)
        samples[key] = samples.get(key, 0) + value

    def replace(self, name: str, values: dict[tuple[str, ...], float]) -> None:
        """Set all samples of a family at once; those not mentioned go away (certificates, resources by kind)."""
        self._values[self._families[name].name] = {}
        for key, value in values.items():
            self.set(name, value, *key)

    def value(self, name: str, *label_values: str) -> float:
        """The current value, 0 if never set."""
        return self._values.get(self._families[name].name, {}).get(label_values, 0)

    def _slot(self, name: str, key: tuple[str, ...]) -> tuple[dict[tuple[str, ...], float], tuple[str, ...]]:
        family = self._families[name]
        if len(key) != len(family.label_names):
            raise ValueError(f"{name} has the labels {family.label_names}, got the values {key}")
        samples = self._values.setdefault(name, {})
        if key not in samples and len(samples) >= MAX_LABEL_SETS:
            key = ("overflow",) * len(key)
        return samples, key

    def render(self, form: Format) -> Iterator[bytes]:
        """One piece per family that has samples, in the order of :data:`FAMILIES`."""
        for family in self._families.values():
            samples = self._values.get(family.name)
            if samples:
                lines = [header(family, form)]
                for key, value in samples.items():
                    text = labels(zip(family.label_names, key, strict=True))
                    braces = f"{{{text}}}".encode() if text else b""
                    lines.append(b"%b%b %b\n" % (family.sample, braces, number(value)))
                yield b"".join(lines)
