"""Ranges and identities: what is one, and its canonical form."""

from ipaddress import ip_network

import pytest

from policy.address import Peer, network, network_of_bytes, parse_identity
from policy.compiled import range_of


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("fd00::1/64", "fd00::/64"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
        ("::ffff:0.0.0.0/95", "::fffe:0:0/95"),
        ("::/0", "::/0"),
    ],
)
def test_ranges(text, canonical):
    assert network(text) == ip_network(canonical)
    assert str(network(text)) == canonical


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1", "/8", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0.0/٨", "010.0.0.0/8"]
)
def test_what_is_no_range(text):
    with pytest.raises(ValueError, match=r"prefix length|CIDR"):
        network(text)


@pytest.mark.parametrize(
    ("address", "length"), [(b"", 0), (b"abc", 0), (bytes(8), 8), (bytes(4), 33), (bytes(16), 129), (bytes(4), -1)]
)
def test_bytes_that_are_no_range(address, length):
    with pytest.raises(ValueError, match=r"bytes|prefix length"):
        network_of_bytes(address, length)


def test_identity():
    assert parse_identity("spiffe://t/ns/a/sa/b") == Peer("t/ns/a/sa/b", "a", "b")


@pytest.mark.parametrize("text", ["10.0.0.0/8", "255.255.255.255/32", "0.0.0.0/0"])
def test_the_short_way_to_an_integer_range_is_the_long_way(text):
    found = ip_network(text)
    drop = 32 - found.prefixlen
    assert range_of(text) == (drop, (1 << 32 | int(found.network_address)) >> drop)
