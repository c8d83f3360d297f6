"""The tables of the inspection commands: istioctl's columns from a dump. Pure; the time is passed in.

Each ``*_rows`` function takes the items that a filter of :mod:`ztunnel.cli.select` let through.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from ztunnel.cli.shape import Json, at, entries, listed, mapping, word

__all__ = [
    "CERTIFICATES",
    "CONNECTIONS",
    "POLICIES",
    "SERVICES",
    "WORKLOADS",
    "Names",
    "certificate_rows",
    "connection_rows",
    "policy_rows",
    "service_rows",
    "workload_rows",
]

Row = tuple[str, ...]

WORKLOADS: Final = ("NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL")
SERVICES: Final = ("NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS")
POLICIES: Final = ("NAMESPACE", "POLICY NAME", "ACTION", "SCOPE")
CERTIFICATES: Final = ("CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE")
CONNECTIONS: Final = ("WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL", "PATH", "WHY")
"""The last two are ours: the way the bytes take, and what decided it."""
_MAX_SERIAL = 60


def workload_rows(items: Iterable[Json], services: list[Json]) -> list[Row]:
    """One row per workload; its first address, as istioctl shows it."""
    rows = []
    for item in items:
        addresses = listed(item.get("workloadIps"))
        row = (word(item, "namespace"), word(item, "name"), addresses[0] if addresses else "", word(item, "node"))
        rows.append((*row, _waypoint(item, services), word(item, "protocol")))
    return sorted(rows)


def service_rows(items: Iterable[Json], services: list[Json]) -> list[Row]:
    """One row per service, ENDPOINTS as healthy/total. Unset status is healthy, as ztunnel leaves defaults out."""
    rows = []
    for item in items:
        vips = ",".join(vip.rpartition("/")[2] for vip in listed(item.get("vips"))) or "None"
        endpoints = [mapping(endpoint) for endpoint in mapping(item.get("endpoints")).values()]
        healthy = sum(word(endpoint, "status") in ("", "Healthy") for endpoint in endpoints)
        name = word(item, "name") or word(item, "hostname")
        rows.append((word(item, "namespace"), name, vips, _waypoint(item, services), f"{healthy}/{len(endpoints)}"))
    return sorted(rows)


def _waypoint(item: Json, services: list[Json]) -> str:
    """Name of the waypoint's service; None without one, NA when nothing has its address."""
    destination = mapping(item.get("waypoint")).get("destination")
    if not isinstance(destination, str) or not destination:
        return "None"
    for service in services:
        if destination in listed(service.get("vips")) or destination == f"{word(service, 'namespace')}/{word(service, 'hostname')}":
            return word(service, "name")
    return "NA"


def policy_rows(items: Iterable[Json]) -> list[Row]:
    """One row per policy."""
    return sorted(tuple(word(item, key) for key in ("namespace", "name", "action", "scope")) for item in items)


def certificate_rows(items: Iterable[Json], now: datetime) -> list[Row]:
    """One row per certificate of each identity: leaf, intermediates, roots. ``now`` decides VALID CERT."""
    rows: list[Row] = []
    for item in items:
        name, state = word(item, "identity"), word(item, "state").partition(":")[0]
        chain = entries(item.get("certChain"))
        if not chain:
            rows.append((name, "NA", state, "false", "NA", "NA", "NA"))
        for position, certificate in enumerate(chain):
            rows.append(_certificate(name, "Intermediate" if position else "Leaf", state, certificate, now))
        rows.extend(_certificate(name, "Root", state, certificate, now) for certificate in entries(item.get("rootCerts")))
    return rows


def _certificate(name: str, kind: str, state: str, item: Json, now: datetime) -> Row:
    start, end = _time(word(item, "validFrom")), _time(word(item, "expirationTime"))
    valid = start is not None and end is not None and start <= now < end
    serial = word(item, "serialNumber")
    hexadecimal = f"{int(serial):x}" if serial.isascii() and serial.isdigit() and len(serial) <= _MAX_SERIAL else "NA"
    times = (word(item, "expirationTime") or "NA", word(item, "validFrom") or "NA")
    return (name, kind, state, "true" if valid else "false", hexadecimal, *times)


def _time(text: str) -> datetime | None:
    try:
        at_time = datetime.fromisoformat(text)
        return at_time if at_time.tzinfo is not None else at_time.replace(tzinfo=UTC)
    except ValueError:
        return None


class Names:
    """Names for addresses: ``pod.namespace`` of workloads, hostname of services. ``raw``: leave addresses as they are."""

    def __init__(self, workloads: list[Json], services: list[Json], *, raw: bool = False) -> None:
        self._names: dict[str, str] = {}
        if raw:
            return
        for service in services:
            for vip in listed(service.get("vips")):
                self._names[vip.rpartition("/")[2]] = word(service, "hostname")
        for workload in workloads:
            for address in listed(workload.get("workloadIps")):
                self._names[address] = f"{word(workload, 'name')}.{word(workload, 'namespace')}"

    def of(self, address: str) -> str:
        """``ip:port`` with the name in place of a known ip."""
        ip, colon, port = address.rpartition(":")
        name = self._names.get(ip.strip("[]"))
        return f"{name}{colon}{port}" if name else address


def connection_rows(pods: Iterable[Json], direction: str, names: Names) -> list[Row]:
    """One row per open connection. ``direction``: inbound, outbound or "" for both."""
    rows = []
    for pod in pods:
        info = mapping(pod.get("info"))
        name = f"{word(info, 'name')}.{word(info, 'namespace')}"
        connections = at(pod, "connections")
        if direction != "outbound":
            for item in entries(connections.get("inbound")):
                local, remote = names.of(word(item, "actualDst")), names.of(word(item, "src"))
                rows.append((name, "Inbound", local, remote, "", *_ways(item)))
        if direction != "inbound":
            for item in entries(connections.get("outbound")):
                local, remote = names.of(word(item, "src")), names.of(word(item, "actualDst"))
                rows.append((name, "Outbound", local, remote, names.of(word(item, "originalDst")), *_ways(item)))
    return sorted(rows)


def _ways(item: Json) -> Row:
    return word(item, "protocol"), word(item, "path"), word(item, "why")
