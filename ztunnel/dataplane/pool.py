"""The client pool of one workload: its open tunnels, by whom they reach and as whom.

One pool belongs to one source workload, so the key needs no source. Connections that come while a tunnel is being dialled wait for
that dial, as many as it will have room for; its success and its failure reach exactly them.
"""

import errno
import os
from typing import TYPE_CHECKING, Final

from ztunnel.dataplane.errors import DialError, NetnsError
from ztunnel.dataplane.loop import IN, OUT
from ztunnel.dataplane.outbound import ClientTunnel
from ztunnel.dataplane.plans import OutboundPlan
from ztunnel.dataplane.sockets import dial, family_of, finish_dial, text
from ztunnel.hbone.errors import TlsError
from ztunnel.hbone.tls import TlsSession, expect_identities
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.proxy import PodProxy

__all__ = ["MAX_TUNNELS", "Pool", "PoolKey"]

MAX_TUNNELS: Final = 2_048
"""Open tunnels of one workload."""
PoolKey = tuple[str, str, int, tuple[str, ...]]
"""Our identity, the peer's address and port, the identities it may have."""


class Pool:
    """Tunnels of one workload."""

    def __init__(self, proxy: "PodProxy") -> None:
        self._proxy = proxy
        self._tunnels: dict[PoolKey, list[ClientTunnel]] = {}
        self.count = 0

    def checkout(self, plan: OutboundPlan) -> ClientTunnel:
        """A tunnel with room for one more connection, perhaps still being dialled.

        Raises DialError, or TlsError when there is no certificate.
        """
        tunnels = self._tunnels.get(plan.key)
        if tunnels is not None:
            for tunnel in tunnels:
                if tunnel.room > 0:
                    return tunnel
        if self.count >= MAX_TUNNELS:
            raise DialError(CloseReason.OVERLOADED, f"this workload has {MAX_TUNNELS} tunnels open already")
        return self._dial(plan)

    def discard(self, tunnel: ClientTunnel) -> None:
        """No new connection for this one; unknown is fine."""
        tunnels = self._tunnels.get(tunnel.key)
        if tunnels is not None and tunnel in tunnels:
            tunnels.remove(tunnel)
            self.count -= 1
            if not tunnels:
                del self._tunnels[tunnel.key]

    def tunnels(self) -> list[ClientTunnel]:
        """All of them."""
        return [t for ts in self._tunnels.values() for t in ts]

    def _dial(self, plan: OutboundPlan) -> ClientTunnel:
        proxy = self._proxy
        world = proxy.world
        source, ip, port, identities = plan.key
        peer = text(ip, port)
        context = world.identities.context(source, server=False)
        try:
            sock = world.netns.socket(proxy.netns, family_of(ip))
        except (OSError, NetnsError) as e:
            raise DialError(CloseReason.OVERLOADED, f"no socket for a tunnel to {peer}: {e}") from None
        try:
            world.socket_options.apply(sock)
            connected = dial(sock, family_of(ip), ip, port, "")
        except OSError as e:
            sock.close()
            raise DialError(_reason(e.errno), f"{peer}: {os.strerror(e.errno or 0)}") from None
        tls = TlsSession(context, world.tls_buffers, expect_identities(identities), server=False)
        tunnel = ClientTunnel(proxy, sock, tls, peer, plan.key)
        self._tunnels.setdefault(plan.key, []).append(tunnel)
        self.count += 1
        _Dialling(tunnel, connected)
        return tunnel


class _Dialling:
    """A tunnel's TCP connect."""

    __slots__ = ("_tunnel",)

    def __init__(self, tunnel: ClientTunnel, connected: bool) -> None:
        self._tunnel = tunnel
        loop = tunnel.world.loop
        loop.add(tunnel.fd, OUT, self.on_event)
        if connected:
            loop.soon(lambda: self.on_event(OUT))

    def on_event(self, _: int) -> None:
        """Connected, or failed."""
        tunnel = self._tunnel
        if not tunnel.alive or tunnel.world.loop.handler(tunnel.fd) != self.on_event:
            return
        error = finish_dial(tunnel.sock)
        if error:
            tunnel.lost(_reason(error), f"{tunnel.peer}: {os.strerror(error)}")
            return
        loop = tunnel.world.loop
        loop.remove(tunnel.fd)
        loop.add(tunnel.fd, IN, tunnel.on_event)
        try:
            tunnel.connected()
        except TlsError as e:
            tunnel.lost(e.reason, e.detail)

    def fail(self, error: Exception) -> None:
        """A bug of ours: end the tunnel, or its descriptor stays ready for ever."""
        self._tunnel.fail(error)


def _reason(error: int | None) -> CloseReason:
    return CloseReason.PEER_TIMEOUT if error == errno.ETIMEDOUT else CloseReason.PEER_UNREACHABLE
