"""Captured Ethernet frames: their transport payloads, and the pcap file that holds them. Pure and total.

Only what an assertion about the wire needs: TCP and UDP over IPv4 and IPv6. Whatever is not that, or is cut
short, has the empty payload; nothing raises.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Frame", "pcap_file", "transport_payload"]

_TCP, _UDP = 6, 17
_IPV6_EXTENSIONS = {0, 43, 60}
"""Hop-by-hop, routing, destination options (RFC 8200 §4): next header, then length in 8 octets less one."""
_VLAN = {0x8100, 0x88A8}


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame. ``time_ns`` is Unix time in nanoseconds."""

    time_ns: int
    data: bytes


def transport_payload(frame: bytes) -> bytes:
    """What the TCP segment or UDP datagram in an Ethernet frame carries; empty for anything else."""
    at = 12
    kind = int.from_bytes(frame[at : at + 2])
    while kind in _VLAN:
        at += 4
        kind = int.from_bytes(frame[at : at + 2])
    packet = frame[at + 2 :]
    if kind == 0x0800:
        return _ipv4(packet)
    if kind == 0x86DD:
        return _ipv6(packet)
    return b""


def _ipv4(packet: bytes) -> bytes:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return b""
    header = (packet[0] & 15) * 4
    total = int.from_bytes(packet[2:4])
    if header < 20 or int.from_bytes(packet[6:8]) & 0x1FFF:  # a later fragment has no transport header
        return b""
    return _transport(packet[9], packet[header:total])


def _ipv6(packet: bytes) -> bytes:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return b""
    kind, rest = packet[6], packet[40 : 40 + int.from_bytes(packet[4:6])]
    while kind in _IPV6_EXTENSIONS and len(rest) >= 8:
        kind, rest = rest[0], rest[(rest[1] + 1) * 8 :]
    return _transport(kind, rest)


def _transport(kind: int, segment: bytes) -> bytes:
    if kind == _UDP:
        return segment[8:]
    if kind != _TCP or len(segment) < 20:
        return b""
    header = (segment[12] >> 4) * 4
    return segment[header:] if header >= 20 else b""


def pcap_file(frames: Iterable[Frame]) -> bytes:
    """A pcap file with nanosecond times (magic 0xa1b23c4d), link type 1 (Ethernet), as tcpdump and Wireshark read it."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)]
    for frame in frames:
        seconds, nanos = divmod(frame.time_ns, 1_000_000_000)
        parts += [struct.pack("<IIII", seconds & 0xFFFFFFFF, nanos, len(frame.data), len(frame.data)), frame.data]
    return b"".join(parts)
