"""The ``:authority`` of a CONNECT: written by the outbound side, read strictly by the inbound side. Total and bounded."""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from ztunnel.state.addresses import canonical_ip

__all__ = ["MAX_AUTHORITY", "Authority", "join", "parse_authority"]

MAX_AUTHORITY: Final = 512
"""Characters. A DNS name has at most 253 (RFC 1035 §2.3.4), so every honest authority is far below."""

_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMERIC = re.compile(r"[0-9.]+", re.ASCII)


class Authority(NamedTuple):
    """``host`` is canonical text of an address when ``is_ip``, else a lower-case DNS name. ``port``: 1..65535."""

    host: str
    port: int
    is_ip: bool


def join(ip: str, port: int) -> str:
    """``ip:port``, IPv6 in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


@lru_cache(maxsize=4096)
def parse_authority(text: str) -> Authority | None:
    """``ip:port``, ``[v6]:port`` or ``name:port``; None for everything else.

    Port and host must both be there (RFC 9113 §8.5); no user information, no zone id, no leading zeros, no trailing dot.
    """
    if len(text) > MAX_AUTHORITY:
        return None
    host, colon, port_text = text.rpartition(":")
    if not colon or _PORT.fullmatch(port_text) is None:
        return None
    port = int(port_text)
    if port > 65535:
        return None
    if host.startswith("["):
        ip = canonical_ip(host[1:-1]) if host.endswith("]") and ":" in host else None
        return None if ip is None else Authority(ip, port, True)
    if _NUMERIC.fullmatch(host) is not None:
        ip = canonical_ip(host)
        return None if ip is None else Authority(ip, port, True)
    if len(host) > 253:
        return None
    name = host.lower() if host.isascii() else host
    return Authority(name, port, False) if _HOST.fullmatch(name) is not None else None
