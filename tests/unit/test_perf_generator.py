"""The generator's answers, iperf3's, and its command line; load.c itself compiles without a warning and tells what it is not."""

import shutil
import subprocess
from pathlib import Path

import pytest

from perf.errors import LoadFailed
from perf.generator import build, iperf_command, parse_iperf, parse_load

LINE = (
    '{"ok": 300, "failed": 1, "warm_up": 100, "seconds": 1.5, "bytes": 0, "p50": 80.1, "p90": 90.0, "p99": 140.0, "p999": 300.5}\n'
)


def test_load() -> None:
    load = parse_load(LINE)
    assert (load.rate, load.total, load.failed, load.p99) == (200.0, 400, 1, 140.0)


@pytest.mark.parametrize(
    "text", ["", "load: see the head of load.c\n", LINE.replace("300,", "0,"), '{"ok": 1}', LINE.replace("80.1", '"x"')]
)
def test_no_figure(text: str) -> None:
    with pytest.raises(LoadFailed):
        parse_load(text)


def test_iperf() -> None:
    text = '{"start": {}, "end": {"sum_sent": {"bytes": 9}, "sum_received": {"bytes": 2000000000, "bits_per_second": 8e9}}}'
    assert parse_iperf(text) == (8.0, 2e9)


@pytest.mark.parametrize(
    "text",
    [
        '{"start": {}, "end": {}, "error": "unable to connect to server"}',
        '{"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}',
        "iperf3: not found",
    ],
)
def test_iperf_failed(text: str) -> None:
    with pytest.raises(LoadFailed, match="iperf3"):
        parse_iperf(text)


def test_iperf_command_has_whole_seconds_and_a_direction() -> None:
    command = iperf_command("10.0.0.1", 0.4, 8, reverse=True)
    assert command[command.index("-t") + 1] == "1"
    assert command[-1] == "-R"
    assert "-R" not in iperf_command("10.0.0.1", 3.0, 1, reverse=False)


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="needs a C compiler: apt-get install gcc libc6-dev")
def test_load_compiles_once_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    binary = build(tmp_path)
    before = binary.stat().st_mtime_ns
    assert build(tmp_path) == binary
    assert binary.stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == [binary]
    for words in ([], ["serve"], ["pingpong", "127.0.0.1", "1", "0", "100", "1"], ["crr", "127.0.0.1", "1", "1", "1025", "1"]):
        done = subprocess.run([binary, *words], capture_output=True, text=True, timeout=10, check=False)
        assert (done.returncode, done.stdout) == (2, "")
