"""What is measured, one entry each, and the metrics that come of it. ``run`` calls ``Measure.run`` on each side in turn.

A metric's key is ``<where>.<measure>.<figure>``: ``cross.rr.p99``. CPU is of all proxy processes of both nodes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from perf.generator import Load
from perf.side import Side

__all__ = ["MEASURES", "METRICS", "Measure", "Metric", "Outcome"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table; ``unit`` is printed after the label."""

    key: str
    label: str
    unit: str
    ratio: bool = True
    """Is it to be compared with no mesh?"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``values`` by figure. CPU seconds are divided by ``operations``, and given as ``cpu`` in µs each (bulk: s for each GB)."""

    values: dict[str, float]
    operations: float
    failed: int = 0


Run = Callable[[Side, str, float], Outcome]


@dataclass(frozen=True, slots=True)
class Measure:
    """``option`` is its name for --only. ``places``: where it is made. ``figures``: (figure, label, unit, compared)."""

    name: str
    option: str
    run: Run
    figures: tuple[tuple[str, str, str, bool], ...] = field(repr=False)
    places: tuple[str, ...] = ("cross", "same")


def _timed(load: Load) -> Outcome:
    values = {"rate": load.rate, "p50": load.p50, "p90": load.p90, "p99": load.p99, "p999": load.p999}
    return Outcome(values, load.total / 1e6, load.failed)


def _latency(size: int) -> Run:
    return lambda side, where, seconds: _timed(side.pingpong(where, 1, size, seconds))


def _rr(side: Side, where: str, seconds: float) -> Outcome:
    return _timed(side.pingpong(where, 32, 100, seconds))


def _crr(side: Side, where: str, seconds: float) -> Outcome:
    return _timed(side.crr(where, 16, seconds))


def _bulk(streams: int, *, reverse: bool) -> Run:
    def run(side: Side, where: str, seconds: float) -> Outcome:
        rate, size = side.bulk(where, streams, seconds, reverse=reverse)
        return Outcome({"rate": rate}, size / 1e9)

    return run


def _times(what: str, cpu: str) -> tuple[tuple[str, str, str, bool], ...]:
    times = tuple((figure, f"{what} {figure}", "µs", True) for figure in ("p50", "p90", "p99"))
    return (*times, ("cpu", f"{what} proxy CPU", cpu, False))


def _busy_work(what: str, unit: str, cpu: str) -> tuple[tuple[str, str, str, bool], ...]:
    return (
        ("rate", what, unit, True),
        ("p50", f"{what} p50", "µs", True),
        ("p99", f"{what} p99", "µs", True),
        ("cpu", f"{what} proxy CPU", cpu, False),
        ("cpu_data", "  of it data plane", cpu, False),
        ("cpu_control", "  of it control half", cpu, False),
    )


def _rate(what: str) -> tuple[tuple[str, str, str, bool], ...]:
    return (("rate", what, "Gbit/s", True), ("cpu", f"{what} proxy CPU", "s/GB", False))


MEASURES: Final = (
    Measure("lat", "lat", _latency(100), _times("lat 100 B", "µs/trip")),
    Measure("lat16", "lat", _latency(16384), _times("lat 16 KiB", "µs/trip")),
    Measure("rr", "rr", _rr, _busy_work("rr 32 connections", "/s", "µs/trip")),
    Measure("crr", "crr", _crr, _busy_work("crr 16 threads", "/s", "µs/conn")),
    Measure("bulk1", "bulk", _bulk(1, reverse=False), _rate("bulk 1 stream, sent")),
    Measure("bulk1r", "bulk", _bulk(1, reverse=True), _rate("bulk 1 stream, received"), ("cross",)),
    Measure("bulk8", "bulk", _bulk(8, reverse=False), _rate("bulk 8 streams, sent")),
    Measure("bulk8r", "bulk", _bulk(8, reverse=True), _rate("bulk 8 streams, received"), ("cross",)),
)


def _of(where: str) -> tuple[Metric, ...]:
    found = [(m.name, *row) for m in MEASURES if where in m.places for row in m.figures]
    return tuple(Metric(f"{where}.{name}.{figure}", label, unit, compared) for name, figure, label, unit, compared in found)


METRICS: Final[tuple[Metric, ...]] = (
    *_of("cross"),
    Metric("cross.busy.p99", "p99 of rr, control half busy / quiet", "x"),
    Metric("cross.busy.rate", "rate of rr, control half busy / quiet", "x"),
    Metric("cross.busy.scrapes", "  scrapes of a node meanwhile", "/s", False),
    Metric("cross.busy.cores", "  CPU of a control half meanwhile", "cores", False),
    *_of("same"),
    Metric("idle.memory", "memory (PSS), idle", "MiB/node", False),
    Metric("idle.alone", "  alone on its machine", "MiB/node", False),
    Metric("idle.memory_1000", "memory (PSS), 1 000 idle connections", "MiB/node", False),
    Metric("idle.memory_10000", "memory (PSS), 10 000 idle connections", "MiB/node", False),
    Metric("idle.each_1000", "each of 1 000 idle connections", "B/node", False),
    Metric("idle.each", "each of 10 000 idle connections", "B/node", False),
    Metric("idle.memory_after", "memory (PSS), after all loads", "MiB/node", False),
)
"""In the order of the table."""
