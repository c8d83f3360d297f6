"""``config_dump``: everything the proxy knows, in ztunnel's shape, so that ``istioctl ztunnel-config`` reads it.

Pure. The parts come as lists of plain dicts from the rooms that own them; this module only puts them together and encodes
them in slices. Keys are ztunnel's; what we add (``path``, ``why`` … of a connection) has keys ztunnel does not use.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from ztunnel.link.messages import ConnectionView
from ztunnel.state.model import WorkloadInfo

__all__ = ["SLICE", "DumpParts", "DumpSource", "PodView", "assemble", "encode_slices", "version_info"]

SLICE: Final = 100
"""Items of a list encoded in one go: well under a millisecond."""

Item = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod the proxy serves or is to serve. ``state``: ``Up`` or ``Pending``."""

    uid: str
    info: WorkloadInfo
    state: str = "Up"


@dataclass(frozen=True, slots=True)
class DumpParts:
    """What is put together. All dicts are JSON-ready; ``connections`` may hold pods that ``pods`` does not (just removed)."""

    workloads: Sequence[Item] = ()
    services: Sequence[Item] = ()
    policies: Sequence[Item] = ()
    certificates: Sequence[Item] = ()
    staged_services: Item = field(default_factory=dict)
    static_config: Item = field(default_factory=dict)
    config: Item = field(default_factory=dict)
    version: Item = field(default_factory=dict)
    pods: Sequence[PodView] = ()
    connections: Iterable[ConnectionView] = ()


class DumpSource(Protocol):
    """Where the admin server gets the parts; connections come from the data plane by request, hence async."""

    async def dump_parts(self) -> DumpParts:
        """A snapshot. Raises TimeoutError when the data plane does not answer."""
        ...


def version_info(version: str, istio_version: str = "unknown", revision: str = "unknown", crypto: str = "openssl") -> Item:
    """``version`` of the dump: ztunnel's keys, with Python's version beside."""
    return {
        "version": version,
        "gitRevision": revision,
        "rustVersion": "none",
        "buildProfile": "release",
        "buildStatus": "unknown",
        "istioVersion": istio_version,
        "cryptoProvider": crypto,
        "pythonVersion": platform.python_version(),
    }


def assemble(parts: DumpParts) -> dict[str, object]:
    """The dump, keys in ztunnel's order."""
    static = {"workloads": [], "services": [], "policies": [], **parts.static_config}
    return {
        "workloads": list(parts.workloads),
        "services": list(parts.services),
        "policies": list(parts.policies),
        "stagedServices": dict(parts.staged_services),
        "staticConfig": static,
        "version": dict(parts.version),
        "config": dict(parts.config),
        "certificates": list(parts.certificates),
        "workloadState": _workload_state(parts.pods, parts.connections),
    }


def _workload_state(pods: Iterable[PodView], connections: Iterable[ConnectionView]) -> dict[str, object]:
    by_pod: dict[str, dict[str, list[Item]]] = {pod.uid: {"inbound": [], "outbound": []} for pod in pods}
    for connection in connections:
        lists = by_pod.get(connection.uid)
        if lists is not None:
            lists["inbound" if connection.direction == "inbound" else "outbound"].append(_connection(connection))
    return {
        pod.uid: {
            "state": pod.state,
            "connections": by_pod[pod.uid],
            "info": {"name": pod.info.name, "namespace": pod.info.namespace, "serviceAccount": pod.info.service_account},
        }
        for pod in pods
    }


def _connection(view: ConnectionView) -> Item:
    shown: dict[str, object] = {
        "src": view.source,
        "originalDst": view.original,
        "actualDst": view.actual,
        "protocol": view.protocol,
        "path": view.path,
        "why": view.why,
        "ageSeconds": round(view.age, 3),
        "bytesSent": view.sent,
        "bytesReceived": view.received,
    }
    if view.identity:
        shown["identity"] = view.identity
    if view.policy:
        shown["policy"] = view.policy
    return shown


def encode_slices(dump: Mapping[str, object]) -> Iterator[bytes]:
    """The dump as JSON, one line per item of its lists, in pieces of at most :data:`SLICE` items."""
    encode = msgspec.json.encode
    for position, (key, value) in enumerate(dump.items()):
        yield (b",\n" if position else b"{\n") + encode(key) + b": "
        if isinstance(value, list):
            yield b"["
            for start in range(0, len(value), SLICE):
                yield (b",\n" if start else b"\n") + b",\n".join(map(encode, value[start : start + SLICE]))
            yield b"]"
        elif isinstance(value, dict):
            yield b"{"
            items = list(value.items())
            for start in range(0, len(items), SLICE):
                lines = (encode(name) + b": " + encode(item) for name, item in items[start : start + SLICE])
                yield (b",\n" if start else b"\n") + b",\n".join(lines)
            yield b"}"
        else:
            yield encode(value)
    yield b"\n}\n"
