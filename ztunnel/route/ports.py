"""The proxy's own ports in a pod, and what counts as calling oneself. Used by both routes."""

from typing import Final

__all__ = ["HBONE_PORT", "INBOUND_PORT", "OUTBOUND_PORT", "PROXY_PORTS", "is_loopback"]

OUTBOUND_PORT: Final = 15001
INBOUND_PORT: Final = 15006
HBONE_PORT: Final = 15008
PROXY_PORTS: Final = frozenset({OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT})
"""Connections to these go round in circles (ztunnel's "illegal ports")."""


def is_loopback(ip: str) -> bool:
    """Loopback, or unspecified, which the kernel connects to loopback. ``ip`` is canonical text."""
    return ip.startswith("127.") or ip in ("::1", "0.0.0.0", "::")
