"""What every proxied connection has, whatever carries it: labels, counters, a beginning and exactly one end."""

from typing import TYPE_CHECKING

from ztunnel.dataplane.registry import Series
from ztunnel.link.messages import ConnectionView, Record
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.proxy import PodProxy

__all__ = ["Conn"]


class Conn:
    """One proxied connection.

    ``from_app`` and ``to_app``: bytes read from and written to the application's socket on this node. ``source`` and
    ``destination``: ``ip:port``. ``hbone``: the CONNECT authority, or "". ``series`` is None until the labels are known.
    """

    __slots__ = (
        "actual",
        "closed",
        "destination",
        "from_app",
        "hbone",
        "identity",
        "policy",
        "proxy",
        "series",
        "source",
        "started",
        "to_app",
        "trace",
        "why",
    )
    direction = "outbound"

    def __init__(self, proxy: "PodProxy", source: str, destination: str) -> None:
        self.proxy = proxy
        self.source = source
        self.destination = destination
        self.actual = ""
        self.hbone = ""
        self.identity = ""
        self.policy = ""
        self.trace = ""
        self.why = ""
        self.series: Series | None = None
        self.started = proxy.world.loop.now
        self.from_app = 0
        self.to_app = 0
        self.closed = False
        proxy.open += 1
        proxy.world.registry.conns[self] = None

    def opened(self, series: Series) -> None:
        """The labels are known: from here on the connection is counted."""
        self.series = series
        series.opened += 1

    def end(self, reason: CloseReason, detail: str = "") -> None:
        """Count and log the one end of this connection. What it held is released by the caller."""
        if self.closed:
            return
        self.closed = True
        self.proxy.open -= 1
        world = self.proxy.world
        registry = world.registry
        registry.conns.pop(self, None)
        series = self.series
        record = Record(
            series.id if series is not None else 0,
            self.direction,
            self.source,
            self.destination,
            self.hbone,
            self.from_app,
            self.to_app,
            self.started + world.loop.wall_offset,
            world.loop.now - self.started,
            reason,
            detail,
            self.policy,
            self.trace,
        )
        if series is None:
            registry.refused(record, reason)
        else:
            series.closed[reason] = series.closed.get(reason, 0) + 1
            registry.record(record)

    def kill(self, reason: CloseReason, detail: str = "") -> None:
        """End it now, with RST towards the application and the peer."""
        raise NotImplementedError

    def view(self) -> ConnectionView:
        """As ``config_dump`` shows it."""
        series = self.series
        return ConnectionView(
            self.proxy.uid,
            self.direction,
            self.source,
            self.destination,
            self.actual or self.destination,
            "HBONE" if self.hbone else "TCP",
            series.definition.path if series is not None else "pending",
            self.why,
            self.proxy.world.loop.now - self.started,
            self.from_app,
            self.to_app,
            self.identity,
            self.policy,
        )
