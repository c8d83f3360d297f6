"""What the data plane counts, and what of it the control half is told."""

import pytest

from ztunnel.dataplane import registry as module
from ztunnel.dataplane.registry import MAX_DETAIL, MAX_RECORDS, RECORDS_PER_MESSAGE, Registry, Series
from ztunnel.link.messages import Counters, Party, Record, Refusals
from ztunnel.link.packets import packets
from ztunnel.reasons import CloseReason

CLIENT, SERVER = Party(workload="client"), Party(workload="server")


def record(detail: str = "", reason: str = "complete") -> Record:
    return Record(0, "inbound", "10.0.0.1:1", "10.0.0.2:80", "", 1, 2, 3.0, 4.0, reason, detail)


def series(registry: Registry, service: str = "", reporter: str = "source") -> Series:
    return registry.series(reporter, CLIENT, SERVER, service, "mutual_tls", "tunnel")


def counters(registry: Registry) -> list[Counters]:
    return [c for c in registry.take_counters() if isinstance(c, Counters)]


def test_equal_labels_are_one_series_announced_once() -> None:
    registry = Registry()
    assert series(registry) is series(registry)
    assert series(registry) is not series(registry, "default/other")
    assert [d.id for d in registry.take_definitions()] == [1, 2]
    assert registry.take_definitions() == []


def test_counters_are_differences() -> None:
    registry = Registry()
    one = series(registry)
    one.opened, one.from_app, one.to_app = 1, 100, 50
    one.closed[CloseReason.COMPLETE] = 1
    assert counters(registry) == [Counters(((1, 1, 100, 50),), ((1, "complete", 1),))]
    assert counters(registry) == []
    one.to_app += 5
    assert counters(registry) == [Counters(((1, 0, 0, 5),), ())]
    one.closed[CloseReason.COMPLETE] += 2
    assert counters(registry) == [Counters((), ((1, "complete", 2),))]


def test_the_request_direction_is_the_clients_whoever_reports() -> None:
    registry = Registry()
    there = series(registry, reporter="destination")
    there.from_app, there.to_app = 7, 9
    assert counters(registry) == [Counters(((1, 0, 9, 7),), ())]


def test_a_fresh_control_half_is_told_everything_again() -> None:
    registry = Registry()
    one = series(registry)
    one.opened, one.from_app = 2, 100
    one.closed[CloseReason.COMPLETE] = 1
    registry.refused(record(reason="no_route"), CloseReason.NO_ROUTE)
    definitions, first = registry.take_definitions(), registry.take_counters()
    registry.forget_told()
    assert registry.take_definitions() == definitions
    assert registry.take_counters() == first


def test_refusals_are_differences_too() -> None:
    registry = Registry()
    for _ in range(3):
        registry.refused(record(), CloseReason.NO_ROUTE)
    assert registry.take_counters() == [Refusals((("inbound", "no_route", 3),))]
    assert registry.take_counters() == []
    registry.refused(record(), CloseReason.NO_ROUTE)
    registry.refused(record(), CloseReason.OVERLOADED)
    assert registry.take_counters() == [Refusals((("inbound", "no_route", 1), ("inbound", "overloaded", 1)))]


def test_records_come_in_messages_and_what_is_too_much_is_counted() -> None:
    registry = Registry()
    for _ in range(MAX_RECORDS + 5):
        registry.record(record())
    assert registry.pending == MAX_RECORDS
    closed = registry.take_records()
    assert sum(len(c.records) for c in closed) == MAX_RECORDS
    assert max(len(c.records) for c in closed) == RECORDS_PER_MESSAGE
    assert [c.dropped for c in closed] == [5] + [0] * (len(closed) - 1)
    assert registry.take_records() == []


def test_drops_are_told_even_when_nothing_else_is() -> None:
    registry = Registry()
    registry.dropped = 2
    (closed,) = registry.take_records()
    assert (closed.records, closed.dropped) == ((), 2)


def test_records_put_back_come_first_and_stay_within_bounds() -> None:
    registry = Registry()
    for i in range(MAX_RECORDS):
        registry.record(record(str(i)))
    taken = registry.take_records()
    registry.record(record("later"))
    registry.record(record("later still"))
    registry.dropped = 1
    registry.put_back(taken)
    assert registry.pending == MAX_RECORDS
    assert registry.dropped == 3
    assert registry.take_records()[0].records == taken[0].records


def test_details_are_cut() -> None:
    registry = Registry()
    registry.record(record("d" * 100_000))
    assert len(registry.take_records()[0].records[0].detail) == MAX_DETAIL


def test_many_series_fit_the_packets() -> None:
    registry = Registry()
    for i in range(4_500):
        one = series(registry, f"default/{i}")
        one.opened = one.from_app = one.to_app = 2**60
        one.closed = dict.fromkeys((CloseReason.CERTIFICATE_UNAVAILABLE, CloseReason.LOCAL_WORKLOAD_UNKNOWN), 2**60)
    told = counters(registry)
    assert sum(len(c.live) for c in told) == 4_500
    assert sum(len(c.closed) for c in told) == 9_000
    for one_message in told:
        assert len(list(packets([one_message], lambda _: None))) == 1


def test_series_beyond_the_limit_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 3)
    registry = Registry()
    kept = [series(registry, f"default/{i}") for i in range(3)]
    beyond = series(registry, "default/3")
    assert beyond is series(registry, "default/4")
    assert beyond.definition.source.workload == beyond.definition.destination.workload == "overflow"
    assert beyond.definition.reporter == "source"
    assert registry.overflowed == 2
    assert series(registry, "default/1") is kept[1]
    assert len(registry.take_definitions()) == 4
