"""The run: builds the sides, measures memory, then goes through the rounds, each load on each side in turn.

Blocking and bounded: each load has its own limit, the whole has ``Options.deadline``, and labs and processes end with the
block they were made in, also when the run is interrupted.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from ambient.lab import LabError
from perf import busy, generator, idle
from perf.errors import LoadFailed, PerfError
from perf.judge import MESH, NONE, PEER, Figures
from perf.measures import Measure
from perf.noise import Noise, Watch
from perf.options import Options
from perf.side import Cpu, Side

__all__ = ["Entry", "Run"]

_AFTER: Final = 0.1
"""Seconds between the end of a load and the second look at the proxies' CPU: what they still close belongs to it."""
_BUSY_FIGURES: Final = ("p99", "rate", "scrapes", "cores")


class Entry(msgspec.Struct, frozen=True):
    """One load of the record that goes into the JSON result."""

    round: int
    measure: str
    side: str
    values: dict[str, float] | None
    failed: int
    cpu: Cpu
    noise: Noise
    error: str | None


class Run:
    """One run; ``figures`` and ``entries`` fill as it goes, so that what was measured before a failure can be printed."""

    def __init__(self, options: Options, build: Path) -> None:
        self.options = options
        self.figures = Figures()
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self._build = build
        self._begun = time.monotonic()
        self._done = 0
        self._sides: dict[str, Side] = {}
        self._cpu: Cpu = {}
        """Of the load that runs."""

    def measure(self) -> None:
        """All of it. Raises PerfError or LabError when it cannot even start."""
        with self._standing():
            if "idle" in self.options.only:
                self._idle()
            for number in range(1, self.options.rounds + 1):
                for where, measure in self.options.measures:
                    for side in self._order(number):
                        self._load(number, where, measure, side)
                if self.options.busy:
                    for side in self._order(number):
                        self._busy(number, side)
            if "idle" in self.options.only:
                for side in self._meshed():
                    memory = {"memory_after": max(pss for pss, _ in side.memory().values()) / (1 << 20)}
                    self.figures.add("idle", side.name, 1, memory, (), loud=False)
            for side in self._meshed():
                if side.restarts:
                    self.notes.append(f"{side.name}: {side.restarts} proxies died during the run and were started again")

    @contextmanager
    def _standing(self) -> Iterator[None]:
        options = self.options
        if "bulk" in options.only and not shutil.which("iperf3"):
            raise PerfError("iperf3 is not installed, which bulk needs", "apt-get install iperf3, or name others with --only")
        binary = generator.build(self._build)
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ambient-perf-")))
            wanted: list[tuple[str, list[str] | None, dict[str, str]]] = [(NONE, None, {}), (MESH, [], {})]
            if options.peer:
                # A release ztunnel without a CA to ask makes certificates of its own when told so.
                wanted.append((PEER, [str(options.peer)], {"FAKE_CA": "true"}))
            for number, (name, command, env) in enumerate(wanted):
                self.say(f"building the lab of: {name}")
                side = Side(name, binary, directory / str(number), command, env, options.policies)
                self._sides[name] = stack.enter_context(side)
            yield

    def _meshed(self) -> list[Side]:
        return [side for side in self._sides.values() if side.mesh is not None]

    def _order(self, number: int) -> list[Side]:
        """Another side begins in each round: what comes first after another load has its warm caches, or its leftovers."""
        sides = list(self._sides.values())
        start = (number - 1) % len(sides)
        return sides[start:] + sides[:start]

    # --- one load -----------------------------------------------------------------------------------------------------

    def _load(self, number: int, where: str, measure: Measure, side: Side) -> None:
        failed = 0

        def work() -> dict[str, float]:
            nonlocal failed
            before = side.cpu()
            outcome = measure.run(side, where, self.options.seconds)
            time.sleep(_AFTER)
            failed = outcome.failed
            used = self._cpu = _difference(before, side.cpu())
            values = dict(outcome.values)
            if used:
                parts = {part: sum(node[part] for node in used.values()) / outcome.operations for part in ("data", "control")}
                values |= {"cpu": sum(parts.values()), "cpu_data": parts["data"], "cpu_control": parts["control"]}
            return values

        figures = [figure for figure, *_ in measure.figures]
        self._step(number, f"{where}.{measure.name}", side, figures, work, lambda: failed)

    def _busy(self, number: int, side: Side) -> None:
        worked = side if side.mesh else self._sides[MESH]

        def work() -> dict[str, float]:
            return busy.measure(side, worked, self.options.seconds, pause=self.options.scrape_pause, busy_first=number % 2 == 0)

        self._step(number, "cross.busy", side, _BUSY_FIGURES, work)

    def _idle(self) -> None:
        figures = ["memory", *(idle.key(count) for count in self.options.idle)]
        for side in self._meshed():
            self._step(1, "idle", side, figures, lambda side=side: idle.measure(side, self.options.idle))  # type: ignore[misc]

    def _step(
        self,
        number: int,
        prefix: str,
        side: Side,
        figures: Any,
        work: Callable[[], dict[str, float]],
        failed: Callable[[], int] = lambda: 0,
    ) -> None:
        """Run ``work`` under watch and keep its values, or why there are none."""
        values, error = None, None
        self._cpu = {}
        with Watch([each.lab.marker for each in self._sides.values()], time.monotonic) as watch:
            try:
                for each in self._sides.values():
                    each.heal(self.say)
                values = work()
            except (LoadFailed, LabError, OSError, subprocess.SubprocessError) as caught:
                error = str(caught)
        self._done += 1
        # Memory and what it costs are not moved by others' CPU.
        loud = watch.noise.loud and prefix != "idle"
        self.figures.add(prefix, side.name, number, values, figures, loud=loud)
        self.entries.append(Entry(number, prefix, side.name, values, failed(), self._cpu, watch.noise, error))
        told = error or " ".join(f"{key} {value:.5g}" for key, value in (values or {}).items())
        lost = f" ({failed()} FAILED)" if failed() else ""
        disturbed = f" [disturbed: {watch.noise}]" if watch.noise.loud else ""
        self.say(f"round {number} {prefix} {side.name}: {told}{lost}{disturbed}")
        if error:
            self.notes.append(f"round {number} {prefix} {side.name}: {error}")
        elif failed():
            self.notes.append(f"round {number} {prefix} {side.name}: {failed()} operations failed")

    def say(self, text: str) -> None:
        """A line of progress on standard error."""
        spent = int(time.monotonic() - self._begun)
        sys.stderr.write(f"[{self._done}/{self.options.loads} {spent // 60}:{spent % 60:02}] {text[:400]}\n")
        sys.stderr.flush()


def _difference(before: Cpu, after: Cpu) -> Cpu:
    """A proxy that was started meanwhile counts from nothing, one that ended counts nothing."""
    return {
        node: {part: max(0.0, after[node][part] - before.get(node, {}).get(part, 0.0)) for part in parts}
        for node, parts in after.items()
    }
