"""What the control half does with the data plane's telemetry messages: one object, one method each.

Composition of the metric store, the access log and a sink for its lines; no I/O of its own. The link's reader offers ``take`` every
message.
"""

from collections.abc import Callable

from ztunnel.link.messages import Closed, Counters, Gauges, Log, Refusals, SeriesDef, UpMessage
from ztunnel.telemetry.accesslog import AccessLog, level_of
from ztunnel.telemetry.filter import Filter, Level
from ztunnel.telemetry.log import relay
from ztunnel.telemetry.metrics import MetricStore

__all__ = ["Recorder"]

_LEVELS = {"info": Level.INFO, "warn": Level.WARN, "error": Level.ERROR}


class Recorder:
    """``put`` takes a line and says whether it was kept; ``current`` gives the log filter in force."""

    def __init__(
        self, metrics: MetricStore, access: AccessLog, put: Callable[[bytes], bool], current: Callable[[], Filter]
    ) -> None:
        self.metrics, self.access = metrics, access
        self._put, self._current = put, current

    def take(self, message: UpMessage) -> bool:
        """Use a telemetry message; False if it is of another kind."""
        match message:
            case Counters():
                self.metrics.counters(message)
            case Closed():
                self._closed(message)
            case SeriesDef():
                self.metrics.define(message)
                self.access.define(message)
            case Refusals():
                self.metrics.refusals(message)
            case Gauges():
                self.metrics.gauges(message)
            case Log():
                relay(message)
            case _:
                return False
        return True

    def _closed(self, message: Closed) -> None:
        least, lost = self._current().level_of("access"), 0
        for record in message.records:
            if _LEVELS[level_of(record)] >= least:
                lost += not self._put(self.access.line(record))
        if lost:
            self.metrics.registry.add("ambient_access_log_dropped", lost, "writer")
        if message.dropped:
            self.metrics.registry.add("ambient_access_log_dropped", message.dropped, "data_plane")
