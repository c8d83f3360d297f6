"""Connections that cannot be decided yet: the state of their workload, or a certificate, is still on its way."""

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ztunnel.dataplane.listeners import drop
from ztunnel.dataplane.sockets import address_of, text
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.proxy import PodProxy

__all__ = ["PARK_SECONDS", "Parked", "WaitsForCertificate"]

PARK_SECONDS: Final = 5.0
"""How long they wait (ztunnel default)."""
_PENDING: Final = "pending"


@dataclass(slots=True, eq=False)
class Parked:
    """A connection that waits for the state of the workload on this side."""

    proxy: "PodProxy"
    sock: socket.socket
    family: int
    peer: tuple[str, int]
    original: bytes
    kind: str
    since: float

    def go(self) -> None:
        """The state is here."""
        if self.kind == "outbound":
            self.proxy.accept_outbound(self.sock, self.family, self.peer)
        elif self.kind == "inbound":
            self.proxy.accept_plain(self.sock, self.family, self.peer)
        else:
            self.proxy.accept_hbone(self.sock, self.family, self.peer)

    def refuse(self) -> None:
        """It did not come."""
        proxy = self.proxy
        destination = text(*address_of(self.original)) if self.original else _PENDING
        direction = "outbound" if self.kind == "outbound" else "inbound"
        proxy.refused(direction, text(*self.peer), destination, CloseReason.LOCAL_WORKLOAD_UNKNOWN, proxy.uid)
        drop(self.sock)


@dataclass(slots=True, eq=False)
class WaitsForCertificate:
    """A peer's tunnel that came before our certificate."""

    proxy: "PodProxy"
    sock: socket.socket
    family: int
    peer: tuple[str, int]

    def on_certificate(self) -> None:
        """Go on."""
        if self.proxy.world.unexpect(self):
            self.proxy.waits_no_more(self)
            self.proxy.accept_hbone(self.sock, self.family, self.peer)

    def on_no_certificate(self, error: str) -> None:
        """Refuse."""
        if self.proxy.world.unexpect(self):
            self._refuse(error)

    def on_timeout(self) -> None:
        """It did not come."""
        self._refuse(f"not there within {PARK_SECONDS:.0f} s")

    def _refuse(self, error: str) -> None:
        self.proxy.waits_no_more(self)
        self.proxy.refused("inbound", text(*self.peer), self.proxy.uid, CloseReason.CERTIFICATE_UNAVAILABLE, error)
        drop(self.sock)
