"""The PROXY protocol header (version 2) that an application tunnel gets before the first byte. Pure."""

from ipaddress import ip_address
from typing import Final

from ztunnel.route.authority import parse_authority

__all__ = ["proxy_header"]

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_COMMAND_PROXY: Final = 0x21
"""Version 2, command PROXY."""
_STREAM: Final = {4: 0x11, 6: 0x21}
"""Address family and STREAM."""
_TLV_IDENTITY: Final = 0xD0
"""The client's SPIFFE id (ztunnel's custom type)."""


def proxy_header(source: str, destination: str, identity: str) -> bytes:
    """The header for ``source`` and ``destination`` (``ip:port``, v6 in brackets). Raises ValueError for anything else.

    Both addresses are written as IPv6 when their families differ (IPv4 as mapped), as the header has room for one family.
    """
    ends = []
    for text in (source, destination):
        parsed = parse_authority(text)
        if parsed is None or not parsed.is_ip:
            raise ValueError(f"not ip:port: {text[:80]!r}")
        ends.append((ip_address(parsed.host), parsed.port))
    version = 4 if all(ip.version == 4 for ip, _ in ends) else 6
    packed = [ip.packed if ip.version == version else b"\0" * 10 + b"\xff\xff" + ip.packed for ip, _ in ends]
    body = b"".join(packed) + b"".join(port.to_bytes(2, "big") for _, port in ends)
    if identity:
        value = identity.encode()
        body += bytes((_TLV_IDENTITY,)) + len(value).to_bytes(2, "big") + value
    return _SIGNATURE + bytes((_COMMAND_PROXY, _STREAM[version])) + len(body).to_bytes(2, "big") + body
