"""The load generator: compiles load.c once into build/perf, makes its command lines, reads its answers.

What it runs is started by ``side``. ``Load`` is what one run counted.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from perf.errors import LoadFailed, PerfError
from perf.owned import folder, give

__all__ = ["BULK_PORT", "FIRST_PORT", "PORTS", "Load", "build", "iperf_command", "parse_iperf", "parse_load"]

FIRST_PORT: Final = 9000
PORTS: Final = 8
"""Several, so that short connections find a 4-tuple that is not in TIME_WAIT: a minute of 18 000 a second is a million."""
BULK_PORT: Final = 5201
_SOURCE: Final = Path(__file__).with_name("load.c")
_FLAGS: Final = ("-O2", "-pthread", "-Wall", "-Wextra")


class Load(msgspec.Struct, frozen=True):
    """One run of ``load pingpong|crr|scrape``. Times are µs; ``warm_up`` operations are not among ``ok``."""

    ok: int
    failed: int
    warm_up: int
    seconds: float
    bytes: int
    p50: float
    p90: float
    p99: float
    p999: float

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.ok / self.seconds

    @property
    def total(self) -> int:
        """Operations the proxies had to do, the warm-up with them."""
        return self.ok + self.warm_up


def build(directory: Path) -> Path:
    """The compiled generator; compiles only when source or flags are new. Raises PerfError without a compiler."""
    key = hashlib.sha256(_SOURCE.read_bytes() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    binary = directory / f"load-{key}"
    if binary.exists():
        return binary
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise PerfError("there is no C compiler for the load generator", "apt-get install gcc libc6-dev")
    folder(directory)
    temporary = directory / f".load-{key}.{os.getpid()}"
    command = [compiler, *_FLAGS, "-o", str(temporary), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise PerfError(f"load.c does not compile: {done.stderr.strip()[-1000:]}", "apt-get install gcc libc6-dev")
    give(temporary)
    temporary.replace(binary)
    return binary


def parse_load(text: str) -> Load:
    """The one line a run prints. Raises LoadFailed if there is none, or nothing was done."""
    try:
        load = msgspec.json.decode(text.strip(), type=Load)
    except msgspec.DecodeError as error:
        raise LoadFailed(f"the load generator answered {text.strip()[:200]!r}: {error}", "see the proxies' logs") from error
    if load.ok == 0:
        raise LoadFailed(f"no operation went through, {load.failed} failed", "see the proxies' logs")
    return load


def iperf_command(address: str, seconds: float, streams: int, *, reverse: bool) -> list[str]:
    """iperf3 takes whole seconds only."""
    command = ["iperf3", "-J", "-c", address, "-p", str(BULK_PORT), "-t", str(max(1, round(seconds)))]
    command += ["-P", str(streams), "--connect-timeout", "5000"]
    return [*command, "-R"] if reverse else command


class _Sum(msgspec.Struct):
    bits_per_second: float
    bytes: float


class _End(msgspec.Struct):
    sum_received: _Sum | None = None


class _Report(msgspec.Struct):
    end: _End
    error: str | None = None


def parse_iperf(text: str) -> tuple[float, float]:
    """(Gbit/s, bytes) as the receiving side counted them. Raises LoadFailed with iperf3's own words."""
    try:
        report = msgspec.json.decode(text, type=_Report)
    except msgspec.DecodeError as error:
        raise LoadFailed(f"iperf3 answered {text.strip()[:200]!r}: {error}", "see the proxies' logs") from error
    if report.error or report.end.sum_received is None or not report.end.sum_received.bytes:
        raise LoadFailed(f"iperf3: {report.error or 'nothing was received'}", "see the proxies' logs")
    return report.end.sum_received.bits_per_second / 1e9, report.end.sum_received.bytes
