"""The headers that ride on a CONNECT: ``baggage``, ``forwarded``, ``traceparent``.

Written from our own values, read from a peer's bytes: strictly, bounded, and without ever raising. What cannot be read is absent;
nothing here decides about access, only about what telemetry says. Called by the data plane.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from ztunnel.route.authority import join
from ztunnel.state.addresses import canonical_ip
from ztunnel.state.model import Workload

__all__ = [
    "MAX_BAGGAGE",
    "MAX_BAGGAGE_VALUE",
    "MAX_FORWARDED",
    "Baggage",
    "Forwarded",
    "decode_baggage",
    "decode_forwarded",
    "decode_traceparent",
    "encode_baggage",
    "encode_forwarded",
    "encode_traceparent",
]

MAX_BAGGAGE: Final = 8192
"""Bytes of all baggage lines together (W3C Baggage §3.3.2); more of it is read as none."""
MAX_BAGGAGE_VALUE: Final = 256
"""Bytes of one value; Kubernetes names have at most 253."""
MAX_FORWARDED: Final = 512
"""Bytes of a ``forwarded`` header."""
_MAX_MEMBERS: Final = 64  # W3C Baggage §3.3.2

_TYPES: Final = ("deployment", "cronjob", "pod", "job")
_VALUE = re.compile(rb"[\x21-\x2b\x2d-\x3a\x3c-\x7e]+")  # visible ASCII without comma and semicolon
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_PAIR = re.compile(
    rb'[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]{1,64})=(?:"([^"\\\x00-\x1f\x7f-\xff]*)"|([^\x00-\x20",;\x7f-\xff]+))[ \t]*'
)
_HOST = re.compile(r"[A-Za-z0-9_*](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


class Baggage(msgspec.Struct, frozen=True):
    """What a peer says of its workload; "" is absent. ``workload_type`` is one of deployment, cronjob, pod, job, or ""."""

    cluster: str = ""
    namespace: str = ""
    workload_type: str = ""
    workload_name: str = ""
    service: str = ""
    revision: str = ""
    region: str = ""
    zone: str = ""


_FIELDS: Final = {
    b"k8s.cluster.name": "cluster",
    b"k8s.namespace.name": "namespace",
    b"service.name": "service",
    b"service.version": "revision",
    b"cloud.region": "region",
    b"cloud.availability_zone": "zone",
}
_NAME_KEYS: Final = {f"k8s.{kind}.name".encode(): kind for kind in _TYPES}


class Forwarded(msgspec.Struct, frozen=True):
    """RFC 7239 ``for`` (canonical address and port) and ``host`` ("" if absent)."""

    ip: str
    port: int
    host: str = ""


def encode_baggage(workload: Workload) -> bytes:
    """The baggage of a workload, in Istio's order; values that are empty or could not be read back are left out."""
    kind = workload.workload_type if workload.workload_type in _TYPES else "pod"
    pairs = (
        (b"k8s.cluster.name", workload.cluster_id),
        (b"k8s.namespace.name", workload.namespace),
        (f"k8s.{kind}.name".encode(), workload.workload_name),
        (b"service.name", workload.canonical_name),
        (b"service.version", workload.canonical_revision),
        (b"cloud.region", workload.locality.region),
        (b"cloud.availability_zone", workload.locality.zone),
    )
    members = []
    for key, text in pairs:
        value = text.encode("utf-8", "replace")
        if _good_value(value):
            members.append(key + b"=" + value)
    return b",".join(members)


def decode_baggage(lines: Iterable[bytes]) -> Baggage:
    """All ``baggage`` headers of one request. Unknown keys, empty and malformed values are ignored; the last of a key wins."""
    fields: dict[str, str] = {}
    total = members = 0
    for line in lines:
        total += len(line)
        if total > MAX_BAGGAGE:
            return Baggage()
        for member in line.split(b","):
            members += 1
            if members > _MAX_MEMBERS:
                return Baggage()
            key, _, value = member.strip(b" \t").partition(b"=")
            if not _good_value(value):
                continue
            kind = _NAME_KEYS.get(key)
            if kind is not None:
                fields["workload_type"], fields["workload_name"] = kind, value.decode("ascii")
            elif key in _FIELDS:
                fields[_FIELDS[key]] = value.decode("ascii")
    return Baggage(**fields)


def encode_forwarded(ip: str, port: int, host: str = "") -> bytes:
    """``for="IP:PORT"``, with ``;host=`` when a service of that hostname was addressed."""
    text = f'for="{join(ip, port)}"'
    if host and _HOST.fullmatch(host) is not None:
        text += f";host={host}"
    return text.encode("ascii")


def decode_forwarded(header: bytes) -> Forwarded | None:
    """One element of RFC 7239 §4 with an address and port in ``for``; None for anything else, lists and repeats included."""
    if len(header) > MAX_FORWARDED:
        return None
    pairs: dict[bytes, str] = {}
    at = 0
    while True:
        match = _PAIR.match(header, at)
        if match is None:
            return None
        name = match[1].lower()
        if name in pairs:
            return None
        pairs[name] = (match[2] if match[2] is not None else match[3]).decode("ascii")
        at = match.end()
        if at == len(header):
            break
        if header[at] != 0x3B:
            return None
        at += 1
    node, colon, port_text = pairs.get(b"for", "").rpartition(":")
    if not colon or not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        return None
    if node.startswith("[") and node.endswith("]") and ":" in node:
        node = node[1:-1]
    elif ":" in node:
        return None
    ip = canonical_ip(node)
    port = int(port_text)
    host = pairs.get(b"host", "")
    if ip is None or not 0 < port < 65536 or (host and _HOST.fullmatch(host) is None):
        return None
    return Forwarded(ip, port, host)


def encode_traceparent(random: bytes) -> bytes:
    """A new trace (W3C Trace Context §3.2) of 16 random bytes: they are the trace id, the last 8 of them the span's.

    Raises ValueError for another length, or if either id would be all zero, which the format forbids.
    """
    if len(random) != 16 or not any(random[8:]):
        raise ValueError("a traceparent takes 16 random bytes, the last 8 of them not all zero; draw again")
    return f"00-{random.hex()}-{random[8:].hex()}-00".encode("ascii")


def decode_traceparent(header: bytes) -> str | None:
    """The trace id (32 lower-case hex digits) of a version 00 traceparent; None for anything else."""
    match = _TRACEPARENT.fullmatch(header)
    if match is None or not match[1].strip(b"0") or not match[2].strip(b"0"):
        return None
    return match[1].decode("ascii")


def _good_value(value: bytes) -> bool:
    return len(value) <= MAX_BAGGAGE_VALUE and _VALUE.fullmatch(value) is not None
