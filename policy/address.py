"""Addresses, ranges and SPIFFE ids as the readers and evaluators of this room need them.

IPv4-mapped IPv6 is IPv4 everywhere: of a host (``::ffff:10.0.0.1``) and of a range (``::ffff:10.0.0.0/104`` is
``10.0.0.0/8``). Total: whatever is not an address or a range raises ``ValueError`` with a sentence.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from policy.errors import MalformedConnectionError
from policy.model import IpNetwork

__all__ = ["MAX_PORT", "Peer", "network", "network_of_bytes", "parse_identity", "parse_ip"]

MAX_PORT = 65535
_SCHEME = "spiffe://"
_MAPPED_BITS = 96
_MAPPED_PREFIX = 0xFFFF


class Peer(NamedTuple):
    """The parts of a SPIFFE id that policy looks at. ``principal`` is the id without ``spiffe://``."""

    principal: str
    namespace: str
    service_account: str


def parse_identity(identity: str) -> Peer:
    """Split ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>``.

    Raises:
        MalformedConnectionError: it has another shape. A peer with such a certificate must have been refused before.
    """
    principal = identity.removeprefix(_SCHEME)
    parts = principal.split("/")
    if not identity.startswith(_SCHEME) or len(parts) != 5 or parts[1] != "ns" or parts[3] != "sa" or not all(parts):
        raise MalformedConnectionError(f"not an identity of the mesh: {identity[:300]!r}")
    return Peer(principal, parts[2], parts[4])


def parse_ip(text: str) -> IPv4Address | IPv6Address:
    """Read a host address; a zone (``%eth0``) is dropped, as no policy can name one.

    Raises:
        MalformedConnectionError: it is none.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        raise MalformedConnectionError(f"not an IP address: {text[:64]!r}") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def network(text: str) -> IpNetwork:
    """Read CIDR text; bits beyond the prefix are cleared, as Istio does.

    Raises:
        ValueError: it is no address with a decimal prefix length in range.
    """
    host, slash, length = text.partition("/")
    if not slash:
        raise ValueError(f"{text[:64]!r} has no prefix length: for one address write /32, or /128 for IPv6")
    # ipaddress would also take a netmask, or no digits at all: CIDR takes neither.
    if not (length.isascii() and length.isdigit() and len(length) <= 3) or "%" in host:
        raise ValueError(f"{text[:64]!r} is not a CIDR range such as 10.0.0.0/8")
    try:
        packed = ip_address(host).packed
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not a CIDR range such as 10.0.0.0/8") from None
    return network_of_bytes(packed, int(length))


def network_of_bytes(address: bytes, length: int) -> IpNetwork:
    """Make a range of 4 or 16 bytes in network order and a prefix length.

    Raises:
        ValueError: another number of bytes, or a prefix length beyond their bits.
    """
    bits = len(address) * 8
    if bits not in (32, 128):
        raise ValueError(f"an IP address has 4 or 16 bytes, this has {len(address)}")
    if not 0 <= length <= bits:
        raise ValueError(f"prefix length {length} is not in 0..{bits}")
    if bits == 32:
        return IPv4Network((address, length), strict=False)
    wide = IPv6Network((address, length), strict=False)
    if length >= _MAPPED_BITS and int(wide.network_address) >> 32 == _MAPPED_PREFIX:
        return IPv4Network((address[12:], length - _MAPPED_BITS), strict=False)
    return wide
