"""The command line: what is measured, how long it may take, and what is refused."""

import pytest

from perf.options import ONLY, parse


def test_by_default_everything() -> None:
    options = parse([])
    assert options.only == ONLY == ("lat", "rr", "crr", "bulk", "idle", "busy")
    assert (options.where, options.rounds, options.seconds, options.idle) == (("cross", "same"), 3, 3.0, (1000, 10_000))
    assert options.name == "full"
    # 8 loads node to node, 6 on one node and busy, three rounds, two sides; idle on ours.
    assert options.loads == 1 + 3 * 2 * (8 + 6 + 1)


def test_quick_is_short_and_can_be_overruled() -> None:
    options = parse(["--quick"])
    assert (options.where, options.rounds, options.seconds, options.idle, options.name) == (("cross",), 1, 1.0, (1000,), "quick")
    assert options.estimate < 60
    assert parse(["--quick", "--rounds", "2", "--where", "same"]).rounds == 2
    assert not parse(["--quick", "--where", "same"]).busy


def test_only() -> None:
    options = parse(["--only", "rr,lat", "--where", "cross"])
    assert [measure.name for _, measure in options.measures] == ["lat", "lat16", "rr"]
    assert options.name == "rr-lat"
    assert not options.busy


def test_a_peer_is_one_more_side() -> None:
    options = parse(["--peer", "/bin/sh", "--only", "idle,rr", "--where", "cross", "--rounds", "1"])
    assert (options.sides, options.loads) == (3, 2 + 3)


def test_the_deadline_leaves_room() -> None:
    options = parse(["--quick"])
    assert options.deadline > 2 * options.estimate


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "rr,bogus"], ["--only", ""], ["--where", "there"], ["--peer", "/nonexistent"], ["--rounds", "0"],
        ["--rounds", "x"], ["--seconds", "0.1"], ["--seconds", "nan"], ["--policies", "-1"], ["--name", "../x"], ["extra"],
    ],
)  # fmt: skip
def test_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err
