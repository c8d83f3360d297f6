"""CIDR virtual addresses: which services' ranges hold an address. Used by the store only.

A lookup asks one dictionary for each prefix length in use in that network and family, however many ranges there are.
"""

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address, ip_network

from ztunnel.state.model import Service

__all__ = ["CidrTable"]

_Buckets = dict[int, dict[int, dict[str, Service]]]
"""prefix length -> network bits -> service key -> service."""


class CidrTable:
    """Ranges of (network, family)."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, int], _Buckets] = {}

    @property
    def empty(self) -> bool:
        """No range at all: the common case, asked before any address is parsed."""
        return not self._tables

    def add(self, network: str, cidr: str, service: Service) -> None:
        """``cidr`` is canonical text. Raises ValueError if it is none."""
        version, prefix, length = _range(cidr)
        self._tables.setdefault((network, version), {}).setdefault(length, {}).setdefault(prefix, {})[service.key] = service

    def discard(self, network: str, cidr: str, key: str) -> None:
        """Take out what :meth:`add` put in; nothing happens if it is not there."""
        version, prefix, length = _range(cidr)
        buckets = self._tables.get((network, version), {})
        ranges = buckets.get(length, {})
        services = ranges.get(prefix, {})
        if services.pop(key, None) is None:
            return
        if not services:
            del ranges[prefix]
        if not ranges:
            del buckets[length]
        if not buckets:
            del self._tables[network, version]

    def matches(self, network: str, ip: str) -> Iterator[tuple[int, Service]]:
        """(prefix length, service) of every range that holds ``ip``; none for a text that is no address."""
        parsed = _parse(ip)
        if parsed is None:
            return
        version, value = parsed
        bits = 32 if version == 4 else 128
        for length, ranges in self._tables.get((network, version), {}).items():
            services = ranges.get(value >> (bits - length))
            if services is not None:
                for service in services.values():
                    yield length, service


def _range(cidr: str) -> tuple[int, int, int]:
    network = ip_network(cidr)
    return network.version, int(network.network_address) >> (network.max_prefixlen - network.prefixlen), network.prefixlen


@lru_cache(maxsize=4096)
def _parse(ip: str) -> tuple[int, int] | None:
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    return address.version, int(address)
