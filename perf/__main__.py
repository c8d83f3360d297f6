"""``python -m perf``: parse the options, run, print, keep the result. Status 0; 2 if it could not run; see ``--check``."""

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from ambient.lab import LabError
from perf import machine, report
from perf.errors import PerfError
from perf.options import parse
from perf.run import Run

ROOT: Final = Path(__file__).parents[1]


def _ended(number: int, _: FrameType | None) -> None:
    """As an exception, so that labs are taken down on the way out."""
    if number == signal.SIGALRM:
        raise PerfError("the run took much longer than it should", "see its progress above; is the machine overloaded?")
    raise KeyboardInterrupt


def main() -> int:
    """The exit status."""
    options = parse(sys.argv[1:])
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    run = Run(options, ROOT / "build" / "perf")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _ended)
    signal.setitimer(signal.ITIMER_REAL, options.deadline)
    run.say(f"{options.loads} steps, about {options.estimate / 60:.1f} minutes")
    facts = machine.facts(ROOT)
    status = 0
    try:
        run.measure()
    except (PerfError, LabError) as error:
        sys.stderr.write(f"perf: {error}\n")
        status = 2
    except KeyboardInterrupt:
        sys.stderr.write("perf: interrupted\n")
        status = 130
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not run.entries:
        return status
    report.show(report.rows(run.figures, peer=options.peer is not None), run.notes, peer=options.peer is not None)
    content = report.document(options, facts, run.figures, run.entries, run.notes, when)
    kept = ROOT / "perf" / "results" / f"{when[:16].replace(':', '')}-{options.name}.json"
    for path in (kept, options.json):
        if path is not None:
            report.save(content, path)
    run.say(f"kept in {kept.relative_to(ROOT)}")
    if status == 0 and options.check:
        return run.figures.status()
    return status


if __name__ == "__main__":
    sys.exit(main())
