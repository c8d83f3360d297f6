"""rr while the control halves are kept busy: scraped in a loop on both nodes, and a state file that changes ten times a second.

Where the two halves share an interpreter lock this is what ruins the tail. The no-mesh column shows what the same work does
to a lab without a proxy on this machine: that part is want of cores, and none of the proxy's doing.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from perf.generator import Load, parse_load
from perf.side import MARGIN, Side

__all__ = ["CHANGE_SECONDS", "kept_busy", "measure"]

CHANGE_SECONDS: Final = 0.1
METRICS_PORT: Final = 15020
_HEAD_START: Final = 0.3
_TAIL: Final = 0.5
_CHANGED_POD: Final = "pod-2-2"
"""Has no part in the traffic that is measured."""


class _Changes(threading.Thread):
    """Puts two renderings of the state in turn in the file's place, prepared before, so that the harness takes no CPU."""

    def __init__(self, side: Side) -> None:
        super().__init__(name="changes", daemon=True)
        assert side.mesh is not None
        self._path = side.mesh.state_path
        self._end = threading.Event()
        self._texts = []
        before = dict(side.mesh.overrides)
        for revision in ("v2", "v1"):
            side.mesh.overrides = {**before, _CHANGED_POD: {"canonicalRevision": revision}}
            side.mesh.write_state()
            self._texts.append(self._path.read_bytes())
        side.mesh.overrides = before
        self.count = 0

    def run(self) -> None:
        temporary = self._path.with_suffix(".next")
        while not self._end.wait(CHANGE_SECONDS):
            temporary.write_bytes(self._texts[self.count % 2])
            temporary.replace(self._path)
            self.count += 1

    def end(self) -> None:
        self._end.set()
        self.join()


@contextmanager
def kept_busy(side: Side, seconds: float, pause: float) -> Iterator[list[Load]]:
    """The block runs while ``side``'s control halves have work; afterwards the list holds what each scraper counted."""
    assert side.mesh is not None
    counted: list[Load] = []
    changes = _Changes(side)
    scrapers: list[Any] = side.scrapers(METRICS_PORT, "/metrics", _HEAD_START + seconds + _TAIL, pause)
    changes.start()
    try:
        time.sleep(_HEAD_START)
        yield counted
        counted += [parse_load(scraper.communicate(timeout=seconds + MARGIN)[0]) for scraper in scrapers]
    finally:
        changes.end()
        for scraper in scrapers:
            if scraper.poll() is None:
                scraper.kill()
            scraper.communicate()
        side.mesh.write_state()


def measure(measured: Side, worked: Side, seconds: float, *, pause: float, busy_first: bool) -> dict[str, float]:
    """rr on ``measured`` quiet and with ``worked`` kept busy, next to each other; ``p99`` and ``rate`` are busy / quiet.

    ``pause``: ms between two scrapes of a node.
    """

    def quiet() -> Load:
        return measured.pingpong("cross", 32, 100, seconds)

    first = None if busy_first else quiet()
    with kept_busy(worked, seconds, pause) as counted:
        start, before = time.monotonic(), worked.cpu()
        busy = measured.pingpong("cross", 32, 100, seconds)
        spent, after = time.monotonic() - start, worked.cpu()
    still = first or quiet()
    return {
        "p99": busy.p99 / still.p99,
        "rate": busy.rate / still.rate,
        "scrapes": sum(load.rate for load in counted) / len(counted),
        "cores": sum(after[node]["control"] - before[node]["control"] for node in before) / spent / len(before),
        "p99_quiet": still.p99,
        "p99_busy": busy.p99,
        "rate_quiet": still.rate,
        "rate_busy": busy.rate,
    }
