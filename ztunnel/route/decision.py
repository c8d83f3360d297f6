"""The answers of ``route``: what the data plane is to do with a connection.

All are immutable and safe to keep until the state's generation changes.
"""

from bisect import bisect_right
from dataclasses import dataclass

from ztunnel.reasons import CloseReason
from ztunnel.state.model import Workload

__all__ = ["Choice", "Decision", "Deliver", "Passthrough", "Refuse", "SameNode", "Spread", "Tunnel"]


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Plain TCP to ``ip:port``. ``destination`` is None for an address outside the mesh."""

    ip: str
    port: int
    destination: Workload | None = None
    service: str = ""


@dataclass(frozen=True, slots=True)
class SameNode:
    """Both ends are workloads of this node: relay between their network namespaces after evaluating policy here."""

    destination: Workload
    ip: str
    port: int
    service: str = ""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """HBONE to ``peer_ip:peer_port`` with ``authority``, accepting any of ``identities`` (SPIFFE ids, sorted).

    ``destination`` is the workload the bytes are for when we chose it, else None (a waypoint chooses).
    ``service`` is ``namespace/hostname`` when a service was addressed, ``hostname`` alone for the ``forwarded`` header's
    ``host=``.
    """

    peer_ip: str
    peer_port: int
    authority: str
    identities: tuple[str, ...]
    destination: Workload | None = None
    service: str = ""
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """No way: ``reason`` and a detail for the log (addresses and names, no sentence)."""

    reason: CloseReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Inbound: dial the application at ``ip:port``. ``service`` is a guess for telemetry (``namespace/hostname`` or "").

    ``proxy_target``: "" or the ``ip:port`` that a PROXY v2 header must name as destination before any other byte.
    """

    ip: str
    port: int
    service: str = ""
    proxy_target: str = ""


Choice = Passthrough | SameNode | Tunnel | Refuse


@dataclass(frozen=True, slots=True)
class Spread:
    """Several endpoints: one is picked for each connection, by weight. ``cumulative`` is ascending, last = total > 0."""

    choices: tuple[Choice, ...]
    cumulative: tuple[int, ...]

    def pick(self, random: float) -> Choice:
        """The choice for ``random`` in [0, 1)."""
        return self.choices[min(bisect_right(self.cumulative, random * self.cumulative[-1]), len(self.choices) - 1)]


Decision = Choice | Spread
