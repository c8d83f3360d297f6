"""The command line of ``python -m perf``."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from perf.measures import MEASURES, Measure
from perf.side import MARGIN

__all__ = ["ONLY", "WHERE", "Options", "parse"]

ONLY: Final = (*dict.fromkeys(measure.option for measure in MEASURES), "idle", "busy")
WHERE: Final = ("cross", "same")


@dataclass(frozen=True, slots=True)
class Options:
    """``seconds`` is of each single load, ``scrape_pause`` ms; ``idle`` the numbers of idle connections."""

    only: tuple[str, ...]
    where: tuple[str, ...]
    peer: Path | None
    rounds: int
    seconds: float
    policies: int
    scrape_pause: float
    idle: tuple[int, ...]
    json: Path | None
    name: str
    check: bool

    @property
    def measures(self) -> list[tuple[str, Measure]]:
        """(where, measure) of each load of a round, in order."""
        return [(w, m) for w in self.where for m in MEASURES if m.option in self.only and w in m.places]

    @property
    def busy(self) -> bool:
        """Is the busy control half to be measured? It is so cross-node only."""
        return "busy" in self.only and "cross" in self.where

    @property
    def sides(self) -> int:
        """How many things are compared."""
        return 3 if self.peer else 2

    @property
    def loads(self) -> int:
        """Single steps of the run, for its progress."""
        idle = self.sides - 1 if "idle" in self.only else 0
        return idle + self.rounds * self.sides * (len(self.measures) + self.busy)

    @property
    def estimate(self) -> float:
        """Seconds it takes when nothing goes wrong, about."""
        idle = sum(6 + count / 500 for count in self.idle) * (self.sides - 1) if "idle" in self.only else 0
        each = len(self.measures) * (self.seconds + 0.6) + (self.busy * (2 * self.seconds + 2))
        return 8 + idle + self.rounds * self.sides * each

    @property
    def deadline(self) -> float:
        """Seconds after which the run gives up: every load may be late, but not all of them."""
        return 2 * self.estimate + 10 * MARGIN


def _words(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def convert(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(word for word in text.split(",") if word))
        if not found or not set(found) <= set(known):
            raise argparse.ArgumentTypeError(f"{text!r}: give one or more of {','.join(known)}, with commas between")
        return found

    return convert


def _number(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number from {low:g} to {high:g}")
        return value

    return convert


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: it becomes part of a file name: letters, digits, '.', '_', '-'")
    return text


def parse(arguments: Sequence[str]) -> Options:
    """Raises SystemExit(2) as argparse does."""
    parser = argparse.ArgumentParser(
        prog="python -m perf",
        description="Measures the mesh side by side with no mesh, and with another proxy. Needs root. See docs/PERFORMANCE.md.",
    )
    add = parser.add_argument
    add("--only", type=_words(ONLY), default=ONLY, metavar="A,B", help=f"of {','.join(ONLY)}; default all")
    add("--where", type=_words(WHERE), metavar="A,B", help="cross (node to node), same (node); default both, --quick: cross")
    add("--peer", type=Path, metavar="PATH", help="another ztunnel to measure beside ours: an executable, in-pod mode")
    add("--rounds", type=_number(int, 1, 100), metavar="N", help="default 3, --quick: 1")
    add("--seconds", type=_number(float, 0.2, 600), metavar="S", help="of each load; default 3, --quick: 1")
    add("--policies", type=_number(int, 0, 10_000), default=20, metavar="N", help="filler policies beside two; default 20")
    add("--scrape-pause", type=_number(float, 0, 10_000), default=0.0, metavar="MS", help="between scrapes in busy; default 0")
    add("--quick", action="store_true", help="a minute's look: one round, no same-node, 1 000 idle connections at most")
    add("--json", type=Path, metavar="FILE", help="also write the result here; perf/results/ gets one in any case")
    add("--name", type=_name, help="of the file in perf/results; default full, or quick, or what --only says")
    add("--check", action="store_true", help="end with 1 if a target is missed, with 3 if one could not be judged")
    given = parser.parse_args(arguments)
    if given.peer is not None and not os.access(given.peer, os.X_OK):
        parser.error(f"--peer {given.peer} is no executable file")
    quick: bool = given.quick
    partial = "-".join(given.only) if given.only != ONLY else ""
    return Options(
        only=given.only,
        where=given.where or (("cross",) if quick else WHERE),
        peer=given.peer.resolve() if given.peer else None,
        rounds=int(given.rounds or (1 if quick else 3)),
        seconds=given.seconds or (1.0 if quick else 3.0),
        policies=int(given.policies),
        scrape_pause=given.scrape_pause,
        idle=(1000,) if quick else (1000, 10_000),
        json=given.json,
        name=given.name or partial or ("quick" if quick else "full"),
        check=given.check,
    )
