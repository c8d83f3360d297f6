"""The metric store: what the data plane counts, rendered for Prometheus under ztunnel's names.

Pure. The control half feeds it the link's messages (``define``, ``counters``, ``refusals``, ``gauges``) and sets the rest
by name through ``registry``; the stats server renders it. Counters arrive as deltas; after a restart of the control half the
data plane first sends its definitions and running totals again, so that totals go on.

Rendering comes in slices, so that a shell can let others run in between: a slice is at most :data:`SLICE` samples.
Series whose labels are equal (they differ only in ``path``) are one series here.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from ztunnel.link.messages import Counters, Gauges, Refusals, SeriesDef
from ztunnel.reasons import CloseReason, flag_of
from ztunnel.telemetry.exposition import EOF, Format, Kind, Naming, header, legal_name, number
from ztunnel.telemetry.families import Registry
from ztunnel.telemetry.series import OVERFLOW, LabelSet, ServiceName, guess_service_name, label_set

__all__ = ["MAX_GAUGES", "MAX_SERIES", "SLICE", "MetricStore"]

MAX_SERIES: Final = 50_000
"""Label sets of connection metrics; more are folded into one named ``overflow`` per reporter, and counted."""
MAX_GAUGES: Final = 500
"""Gauges of the data plane; more are ignored."""
SLICE: Final = 100
"""Samples in one slice of the exposition: some 0.1 ms of work, 0.5 ms with gzip."""

_OPENED = Naming("istio_tcp_connections_opened", Kind.COUNTER, "The total number of TCP connections opened.")
_CLOSED = Naming("istio_tcp_connections_closed", Kind.COUNTER, "The total number of TCP connections closed.")
_RECEIVED = Naming(
    "istio_tcp_received_bytes", Kind.COUNTER, "The size of total bytes received during request in case of a TCP connection."
)
_SENT = Naming("istio_tcp_sent_bytes", Kind.COUNTER, "The size of total bytes sent during response in case of a TCP connection.")
_FAILED = Naming("istio_tcp_connections_failed", Kind.COUNTER, "The total number of TCP connections that failed.")
_SOCKETS = {"sockets_open_source": "source", "sockets_open_destination": "destination"}


class _Cell:
    """Counts of one label set. ``closed``: ready labels and count by response flag."""

    __slots__ = ("closed", "labels", "opened", "received", "reporter", "sent", "text")

    def __init__(self, labels: LabelSet, reporter: str) -> None:
        self.labels = labels
        self.reporter = reporter
        self.text = labels.with_flag("-")
        self.opened = self.received = self.sent = 0
        self.closed: dict[str, tuple[bytes, int]] = {}

    def close(self, flag: str, count: int) -> None:
        held = self.closed.get(flag)
        if held is None:
            self.closed[flag] = (self.text if flag == "-" else self.labels.with_flag(flag), count)
        else:
            self.closed[flag] = (held[0], held[1] + count)


class MetricStore:
    """All metrics of the node proxy."""

    def __init__(
        self, *, build: str = "unknown", service_name: ServiceName = guess_service_name, max_series: int = MAX_SERIES
    ) -> None:
        self.registry = Registry()
        self.registry.set("istio_build", 1, "ztunnel", build)
        self._service_name = service_name
        self._max_series = max_series
        self._cells: dict[LabelSet, _Cell] = {}
        self._overflow: dict[str, _Cell] = {}
        self._by_id: dict[int, tuple[_Cell, str]] = {}
        self._gauges: dict[str, float] = {}

    def define(self, series: SeriesDef) -> None:
        """Learn what a series id stands for from here on."""
        labels = label_set(series, self._service_name)
        cell = self._cells.get(labels)
        if cell is None:
            if len(self._cells) >= self._max_series:
                cell = self._overflow_cell(series.reporter)
            else:
                cell = self._cells[labels] = _Cell(labels, series.reporter)
                self.registry.set("ambient_series", len(self._cells))
        if series.id in self._by_id or len(self._by_id) < 2 * self._max_series:
            self._by_id[series.id] = (cell, series.path)

    def _overflow_cell(self, reporter: str) -> _Cell:
        self.registry.add("ambient_series_overflow", 1)
        reporter = reporter if reporter in ("source", "destination") else "unknown"
        if reporter not in self._overflow:
            labels = label_set(SeriesDef(0, reporter, OVERFLOW, OVERFLOW, "", "unknown", ""))
            self._overflow[reporter] = _Cell(labels, reporter)
        return self._overflow[reporter]

    def counters(self, message: Counters) -> None:
        """Add deltas. Counts of a series that was never defined are themselves counted, by nobody else."""
        add = self.registry.add
        for id_, opened, request, response in message.live:
            held = self._by_id.get(id_)
            if held is None:
                add("ambient_unknown_series", 1)
                continue
            cell, path = held
            cell.opened += opened
            cell.received += request
            cell.sent += response
            if opened:
                add("ambient_connections_opened", opened, cell.reporter, path)
        for id_, reason, count in message.closed:
            held = self._by_id.get(id_)
            if held is None:
                add("ambient_unknown_series", 1)
                continue
            cell = held[0]
            known = _reason(reason)
            cell.close(flag_of(known), count)
            add("ambient_connections_closed", count, cell.reporter, known)

    def refusals(self, message: Refusals) -> None:
        """Add connections refused before they had a series."""
        for direction, reason, count in message.counts:
            self.registry.add("ambient_refusals", count, direction, _reason(reason))

    def gauges(self, message: Gauges) -> None:
        """Take the data plane's sizes: ``ambient_dataplane_<name>``, a counter if the name ends in ``_total``.

        ``sockets_open_source`` and ``sockets_open_destination`` become ztunnel's ``istio_tcp_sockets_open``.
        """
        for name, value in message.values.items():
            if name in _SOCKETS:
                self.registry.set("istio_tcp_sockets_open", value, _SOCKETS[name])
            elif (legal := legal_name(name)) in self._gauges or len(self._gauges) < MAX_GAUGES:
                self._gauges[legal] = value

    def render(self, form: Format) -> Iterator[bytes]:
        """The exposition in slices; the store may change between two of them."""
        cells = [*self._cells.values(), *self._overflow.values()]
        yield from _samples(_OPENED, cells, lambda cell: [(cell.text, cell.opened)], form)
        yield from _samples(_CLOSED, cells, lambda cell: list(cell.closed.values()), form)
        yield from _samples(_RECEIVED, cells, lambda cell: [(cell.text, cell.received)], form)
        yield from _samples(_SENT, cells, lambda cell: [(cell.text, cell.sent)], form)
        yield from _samples(_FAILED, cells, _failed, form)
        yield from self.registry.render(form)
        yield self._render_gauges(form)
        if form is Format.OPENMETRICS:
            yield EOF

    def _render_gauges(self, form: Format) -> bytes:
        lines = []
        for name, value in sorted(self._gauges.items()):
            kind = Kind.COUNTER if name.endswith("_total") else Kind.GAUGE
            family = Naming(f"ambient_dataplane_{name.removesuffix('_total')}", kind, f"Data plane: {name.replace('_', ' ')}.")
            lines.append(b"%b%b %b\n" % (header(family, form), family.sample, number(value)))
        return b"".join(lines)


def _failed(cell: _Cell) -> list[tuple[bytes, int]]:
    return [held for flag, held in cell.closed.items() if flag != "-"]


def _samples(
    family: Naming, cells: list[_Cell], values: Callable[[_Cell], list[tuple[bytes, int]]], form: Format
) -> Iterator[bytes]:
    name, rest = family.sample, iter(cells)
    yield header(family, form)
    while part := list(islice(rest, SLICE)):
        lines: list[bytes] = []
        for cell in part:
            for labels, value in values(cell):
                lines += (name, labels, b"%d\n" % value)
        yield b"".join(lines)


def _reason(text: str) -> CloseReason:
    """A reason of another version of the data plane counts as a fault of ours."""
    try:
        return CloseReason(text)
    except ValueError:
        return CloseReason.INTERNAL
