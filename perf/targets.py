"""What the mesh must reach, in one table. Pure; read by ``judge`` and ``report``.

A target is on the ratio to no mesh of the same round, or on the figure itself; both are medians over the rounds. The order of
magnitude is that of the compiled proxy in the same place, which carries about 0.34 (rr), 0.26 (crr) and 0.37 (bulk) of no mesh
at 1.85 times its latency.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["TARGETS", "Of", "Target"]


class Of(Enum):
    """What a limit is compared with."""

    RATIO = "ratio"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Target:
    """``limit`` is inclusive, in the metric's own unit when ``of`` is VALUE."""

    of: Of
    at_least: bool
    limit: float

    def met(self, figure: float) -> bool:
        """Does the figure reach it?"""
        return figure >= self.limit if self.at_least else figure <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{' x' if self.of is Of.RATIO else ''}"


def _ratio(*, at_least: float | None = None, at_most: float | None = None) -> Target:
    return Target(Of.RATIO, at_least is not None, at_least if at_least is not None else at_most or 0.0)


TARGETS: Final[dict[str, Target]] = {
    "cross.lat.p50": _ratio(at_most=2.4),
    "cross.rr.rate": _ratio(at_least=0.33),
    "cross.rr.cpu": Target(Of.VALUE, False, 42.0),
    "cross.crr.rate": _ratio(at_least=0.24),
    "cross.crr.cpu": Target(Of.VALUE, False, 240.0),
    "cross.bulk1.rate": _ratio(at_least=0.38),
    "cross.bulk1r.rate": _ratio(at_least=0.38),
    "cross.busy.p99": Target(Of.VALUE, False, 1.5),
    "idle.memory": Target(Of.VALUE, False, 110.0),
    "idle.each": Target(Of.VALUE, False, 6000.0),
}
"""By metric: see ``measures.METRICS`` for what each is. CPU is µs of all the proxies of both nodes for one operation."""
