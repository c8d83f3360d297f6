"""Open connections are looked at again when policy, workloads or identities change, a slice at a time between batches."""

from typing import TYPE_CHECKING, Final

from policy.verdict import Connection, Destination, Verdict
from ztunnel.dataplane.conn import Conn
from ztunnel.dataplane.inbound import InboundConn, ServerTunnel
from ztunnel.dataplane.pair import InboundPair, SameNodePair
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.world import World

__all__ = ["SLICE", "Recheck"]

SLICE: Final = 200
"""Connections looked at between two batches: about 2 ms."""


class Recheck:
    """One per process."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._left: list[Conn] = []
        self._running = False

    def start(self) -> None:
        """Begin (again) with everything that is open now."""
        # Those still due from the last time come first: under updates without end nobody is passed over for ever.
        due = dict.fromkeys(c for c in self._left if not c.closed)
        self._left = [c for c in self._world.registry.conns if c not in due] + list(due)
        if self._left and not self._running:
            self._running = True
            self._world.loop.soon(self._slice)

    def _slice(self) -> None:
        for _ in range(min(SLICE, len(self._left))):
            conn = self._left.pop()
            if not conn.closed:
                try:
                    self._look(conn)
                except Exception as e:  # noqa: BLE001 a connection that cannot be judged is ended, and the rest is looked at
                    self._world.fault(conn, e)
                    conn.kill(CloseReason.INTERNAL, type(e).__name__)
        if self._left:
            self._world.loop.soon(self._slice)
        else:
            self._running = False

    def _look(self, conn: Conn) -> None:
        policed = conn.mirror if isinstance(conn, SameNodePair) else conn
        if policed.proxy.workload() is None and isinstance(conn, InboundConn | InboundPair | SameNodePair):
            conn.kill(CloseReason.WORKLOAD_REMOVED, f"{policed.proxy.uid} is not in the state any more")
            return
        verdict = self._verdict(conn)
        if verdict is not None and not verdict.allowed:
            conn.policy = verdict.policy
            self._world.log(
                "info",
                f"connection {conn.source} -> {conn.destination} closed because it's no longer allowed after a policy update",
                verdict=verdict.explain(),
            )
            conn.kill(CloseReason.POLICY_CHANGED, verdict.explain())
        elif verdict is not None:
            conn.policy = verdict.policy
            conn.why = verdict.explain() if not isinstance(conn, SameNodePair) else conn.why

    def _verdict(self, conn: Conn) -> Verdict | None:
        """Today's answer for an open connection; None where policy has no say on this side."""
        policies = self._world.policies
        if isinstance(conn, InboundConn):
            local = conn.proxy.workload()
            tunnel = conn.tunnel
            if local is None or not isinstance(tunnel, ServerTunnel) or not conn.actual:
                return None
            connection = Connection(conn.identity or None, tunnel.peer_ip, conn.deliver.ip, conn.deliver.port)
        elif isinstance(conn, InboundPair):
            local = conn.proxy.workload()
            if local is None:
                return None
            connection = Connection(None, _ip(conn.source), *_split(conn.actual))
        elif isinstance(conn, SameNodePair):
            local = conn.mirror.proxy.workload()
            client = conn.proxy.workload()
            if local is None or client is None:
                return None
            connection = Connection(client.identity, _ip(conn.source), *_split(conn.actual))
        else:
            return None
        return policies.decide(Destination(local.namespace, local.authorization_policies), connection)


def _split(address: str) -> tuple[str, int]:
    ip, _, port = address.rpartition(":")
    return ip.strip("[]"), int(port)


def _ip(address: str) -> str:
    return _split(address)[0]
