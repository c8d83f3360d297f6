"""The proxy's own log: ztunnel's line form, a filter that changes at run time."""

import json
from collections.abc import Iterator

import pytest

from ztunnel.link.messages import Closed, Counters, DataHello, Gauges, Log, Party, Record, Refusals, SeriesDef
from ztunnel.telemetry.accesslog import AccessLog
from ztunnel.telemetry.log import LogControl, get_logger, relay, setup
from ztunnel.telemetry.metrics import MetricStore
from ztunnel.telemetry.recorder import Recorder


@pytest.fixture
def lines() -> Iterator[list[bytes]]:
    yield []
    setup(LogControl())


def test_text(lines: list[bytes]) -> None:
    setup(LogControl(sink=lines.append))
    get_logger("xds", id=7).info("connected", address="https://a:1", ok=True, seconds=0.5, name='a "b"\nc')
    stamp, level, scope, message, fields = lines[0].decode().split("\t")
    assert (level, scope, message) == ("info", "xds", "connected")
    assert fields == 'id=7 address="https://a:1" ok=true seconds=0.5 name="a \\"b\\"\\nc"\n'
    assert len(stamp) == len("2023-11-14T22:13:20.012900Z")


def test_json(lines: list[bytes]) -> None:
    setup(LogControl(json=True, sink=lines.append))
    get_logger("zds").error("gone", path="/x\n")
    told = json.loads(lines[0])
    del told["time"]
    assert told == {"level": "error", "scope": "zds", "message": "gone", "path": "/x\n"}


def test_filter_changes_at_run_time_for_loggers_that_exist(lines: list[bytes]) -> None:
    control = LogControl("warn", sink=lines.append)
    setup(control)
    logger = get_logger("xds")
    logger.info("one")
    assert control.change("xds=debug") == []
    logger.debug("two")
    assert control.change("xds=nonsense,error") != []
    logger.debug("three")
    assert control.change("", reset=True) == []
    logger.info("four")
    assert [line.split(b"\t")[3].strip() for line in lines] == [b"two", b"three"]


def test_what_rust_log_means_nothing_by_is_told_once(lines: list[bytes]) -> None:
    setup(LogControl("info,x=loud", sink=lines.append))
    assert len(lines) == 1
    assert b"x=loud" in lines[0]
    assert b"RUST_LOG" in lines[0]


def test_exception_has_its_trace_on_one_line(lines: list[bytes]) -> None:
    setup(LogControl(sink=lines.append))
    try:
        raise ValueError("told")
    except ValueError:
        get_logger("admin").exception("failed")
    assert lines[0].count(b"\n") == 1
    assert b"ValueError: told" in lines[0]


def test_lines_of_the_data_plane(lines: list[bytes]) -> None:
    setup(LogControl(sink=lines.append))
    relay(Log("debug", "dataplane", "hidden", {}))
    relay(Log("warn", "dataplane", "bad\npeer", {"peer": "10.0.0.1"}))
    assert [line.split(b"\t", 1)[1] for line in lines] == [b'warn\tdataplane\t"bad\\npeer"\tpeer="10.0.0.1"\n']


def test_recorder_feeds_metrics_and_access_log(lines: list[bytes]) -> None:
    control = LogControl("access=warn", sink=lines.append)
    setup(control)
    kept: list[bytes] = []

    def put(line: bytes) -> bool:
        kept.append(line)
        return len(kept) < 2

    recorder = Recorder(MetricStore(), AccessLog(), put, lambda: control.filter)
    party = Party(pod="a")
    good = Record(1, "outbound", "1.1.1.1:1", "2.2.2.2:2", "", 1, 1, 0.0, 1.0, "complete")
    bad = Record(1, "outbound", "1.1.1.1:1", "2.2.2.2:2", "", 1, 1, 0.0, 1.0, "app_refused")
    assert recorder.take(SeriesDef(1, "source", party, party, "", "unknown", "tunnel"))
    assert recorder.take(Counters(((1, 1, 1, 1),), ((1, "complete", 1),)))
    assert recorder.take(Refusals((("inbound", "bad_request", 1),)))
    assert recorder.take(Gauges({"g": 1.0}))
    assert recorder.take(Log("info", "dataplane", "here", {}))
    assert recorder.take(Closed((good, bad, bad), 4))
    assert not recorder.take(DataHello(1, 1, 1, (), ()))
    assert [b"app_refused" in line for line in kept] == [True, True]
    value = recorder.metrics.registry.value
    assert value("ambient_access_log_dropped", "writer") == 1
    assert value("ambient_access_log_dropped", "data_plane") == 4
    assert value("ambient_refusals", "inbound", "bad_request") == 1
    assert lines[0].endswith(b"\tinfo\tdataplane\there\n")
