"""What captured frames say about TCP: ports, payloads, and which flows begin as TLS. Pure and total; for the steps about the wire.

For frames of a lab's uplink: plain Ethernet, IPv6 without extension headers. Anything else is passed over here;
the search for a secret word goes over whole frames, which nothing hides from.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Segment", "context_of", "is_tls", "seen", "segments", "tls_flows"]

_TCP = 6
_HANDSHAKE = b"\x16\x03"
"""First bytes of a TLS handshake record: type and major version (RFC 8446 §5.1)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment that carries something. ``flow`` is (address, port) of its sender, then of its receiver."""

    flow: tuple[bytes, int, bytes, int]
    payload: bytes

    @property
    def ports(self) -> tuple[int, int]:
        return self.flow[1], self.flow[3]


def segments(frames: Iterable[bytes]) -> list[Segment]:
    """The segments with a payload, in order."""
    return [segment for frame in frames if (segment := _segment(frame)) is not None and segment.payload]


def _segment(frame: bytes) -> Segment | None:
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and len(packet) >= 20 and packet[9] == _TCP:
        header, end = (packet[0] & 15) * 4, int.from_bytes(packet[2:4])
        source, target = packet[12:16], packet[16:20]
    elif kind == b"\x86\xdd" and len(packet) >= 40 and packet[6] == _TCP:
        header, end = 40, 40 + int.from_bytes(packet[4:6])
        source, target = packet[8:24], packet[24:40]
    else:
        return None
    tcp = packet[header:end]
    if len(tcp) < 20:
        return None
    ports = int.from_bytes(tcp[0:2]), int.from_bytes(tcp[2:4])
    return Segment((source, ports[0], target, ports[1]), tcp[(tcp[12] >> 4) * 4 :])


def is_tls(payload: bytes) -> bool:
    """Does a flow that begins with this begin with a TLS handshake?"""
    return payload[:2] == _HANDSHAKE


def tls_flows(found: Iterable[Segment], port: int) -> tuple[int, int]:
    """(flows towards ``port``, those of them that begin with a TLS handshake). Needs the flows' beginnings in the capture."""
    first: dict[tuple[bytes, int, bytes, int], bytes] = {}
    for segment in found:
        if segment.ports[1] == port:
            first.setdefault(segment.flow, segment.payload)
    return len(first), sum(is_tls(payload) for payload in first.values())


def seen(word: str, frames: Iterable[bytes], found: Iterable[Segment] = ()) -> bool:
    """Is the word in any frame, or in what one flow carried, across its segments?"""
    needle = word.encode()
    flows: dict[tuple[bytes, int, bytes, int], bytes] = {}
    for segment in found:
        flows[segment.flow] = flows.get(segment.flow, b"") + segment.payload
    return any(needle in data for data in (*frames, *flows.values()))


def context_of(word: str, found: Iterable[Segment]) -> str:
    """A segment's payload with the word in it, for a reader: what is not printable ASCII is a dot. "" if there is none."""
    for segment in found:
        if word.encode() in segment.payload:
            return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in segment.payload[:80].strip())
    return ""
