"""The syntax of RUST_LOG."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.telemetry.filter import MAX_DIRECTIVES, Filter, Level


def parse(text: str) -> Filter:
    result, problems = Filter().extended(text)
    assert problems == []
    return result


@pytest.mark.parametrize(
    ("text", "target", "level"),
    [
        ("", "xds", Level.INFO),
        ("debug", "xds", Level.DEBUG),
        ("warn,access=off", "access", Level.OFF),
        ("warn,access=off", "xds", Level.WARN),
        ("ztunnel::xds=debug", "xds", Level.DEBUG),
        ("ztunnel::xds=debug", "xds.client", Level.DEBUG),
        ("ztunnel::xds=debug", "xdsx", Level.INFO),
        ("xds=debug,xds::client=error", "xds::client", Level.ERROR),
        ("xds:debug", "xds", Level.DEBUG),
        ("WARNING", "xds", Level.WARN),
        ("xds", "xds", Level.TRACE),
        ("info,warn", "xds", Level.WARN),
        ("hickory_server::server=off", "hickory_server::server", Level.OFF),
    ],
)
def test_levels(text: str, target: str, level: Level) -> None:
    assert parse(text).level_of(target) is level


def test_parts_that_make_no_sense_are_named_and_change_nothing() -> None:
    result, problems = Filter().extended("xds=debug,access=loud,[span{a=b}]=info,=info")
    assert str(result) == "xds=debug,info"
    assert [problem.split("'")[1] for problem in problems] == ["access=loud", "[span{a=b}]=info", "=info"]


def test_off_lets_nothing_through() -> None:
    assert not parse("off").enabled(Level.ERROR, "xds")


def test_bounded() -> None:
    result, problems = Filter().extended(",".join(f"t{n}=warn" for n in range(MAX_DIRECTIVES + 3)))
    assert len(problems) == 3
    assert result.level_of("t0") is Level.WARN
    assert Filter().extended("x" * 5000)[1] == ["log filter of 5000 characters ignored: at most 4096 are allowed"]


@given(st.text())
def test_total_and_its_text_means_the_same(text: str) -> None:
    result, _ = Filter().extended(text)
    again, problems = Filter().extended(str(result))
    assert problems == []
    assert str(again) == str(result)
