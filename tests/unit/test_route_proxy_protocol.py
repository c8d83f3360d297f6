"""The PROXY v2 header, byte for byte."""

import pytest

from ztunnel.route.proxy_protocol import proxy_header

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def test_ipv4_with_an_identity() -> None:
    header = proxy_header("10.0.0.1:4660", "10.0.0.2:80", "spiffe://t/ns/n/sa/s")
    assert header[:12] == SIGNATURE
    assert header[12:16] == bytes.fromhex("2111") + (12 + 3 + 20).to_bytes(2, "big")
    assert header[16:28] == bytes.fromhex("0a000001 0a000002 1234 0050")
    assert header[28:] == b"\xd0\x00\x14spiffe://t/ns/n/sa/s"


def test_ipv6_without_an_identity() -> None:
    header = proxy_header("[fd00::1]:1", "[fd00::2]:2", "")
    assert header[12:16] == bytes.fromhex("2121 0024".replace(" ", ""))
    assert header[16:] == bytes.fromhex("fd" + "00" * 14 + "01" + "fd" + "00" * 14 + "02" + "0001" + "0002")


def test_two_families_become_ipv6() -> None:
    header = proxy_header("10.0.0.1:1", "[fd00::2]:2", "")
    assert header[16:32] == b"\0" * 10 + b"\xff\xff" + bytes((10, 0, 0, 1))


@pytest.mark.parametrize("bad", ["", "10.0.0.1", "name:80", "10.0.0.1:0", "10.0.0.1:70000"])
def test_anything_else_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not ip:port"):
        proxy_header(bad, "10.0.0.1:1", "")
