"""ambient.lab.packets: payloads of literal frames, and totality."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from ambient.lab.packets import Frame, pcap_file, transport_payload

MACS = bytes(12)
TCP = bytes.fromhex("c350 0050 00000001 00000002 5018 ffff 0000 0000")


def ipv4(protocol: int, body: bytes, *, fragment: int = 0, pad: bytes = b"") -> bytes:
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, fragment, 64, protocol, 0, bytes(4), bytes(4))
    return MACS + b"\x08\x00" + header + body + pad


def ipv6(next_header: int, body: bytes) -> bytes:
    return MACS + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(body), next_header, 64) + bytes(32) + body


def test_tcp_over_ipv4_without_ethernet_padding() -> None:
    assert transport_payload(ipv4(6, TCP + b"hello", pad=b"\0\0\0")) == b"hello"


def test_tcp_options_are_not_payload() -> None:
    with_options = TCP[:12] + b"\x80" + TCP[13:] + b"\x01" * 12
    assert transport_payload(ipv4(6, with_options + b"hello")) == b"hello"


def test_udp_over_ipv6_and_behind_extension_headers() -> None:
    udp = bytes(8) + b"query"
    assert transport_payload(ipv6(17, udp)) == b"query"
    assert transport_payload(ipv6(0, bytes([17, 0]) + bytes(6) + udp)) == b"query"


def test_vlan_tag_is_looked_behind() -> None:
    plain = ipv4(6, TCP + b"x")
    assert transport_payload(plain[:12] + b"\x81\x00\x00\x05" + plain[12:]) == b"x"


def test_arp_icmp_and_later_fragments_carry_nothing() -> None:
    assert transport_payload(MACS + b"\x08\x06" + bytes(28)) == b""
    assert transport_payload(ipv4(1, b"pingpingping")) == b""
    assert transport_payload(ipv4(6, TCP + b"x", fragment=100)) == b""


@given(st.binary(max_size=120))
def test_total(frame: bytes) -> None:
    for data in (frame, MACS + b"\x08\x00\x45" + frame, MACS + b"\x86\xdd\x60" + frame):
        assert len(transport_payload(data)) <= len(data)


@given(st.integers(0, 60))
def test_every_prefix_of_a_frame(cut: int) -> None:
    assert b"hello".startswith(transport_payload(ipv4(6, TCP + b"hello")[:cut]))


def test_pcap_file_is_literal() -> None:
    assert pcap_file([Frame(2_000_000_003, b"abcd")]) == bytes.fromhex(
        "4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000  02000000 03000000 04000000 04000000 61626364"
    )
