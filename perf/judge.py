"""From the figures of all rounds to medians, ratios and verdicts. Pure: ``run`` fills ``Figures``, ``report`` prints it."""

from collections.abc import Iterable, Sequence
from enum import Enum
from statistics import median

from perf.targets import TARGETS, Of, Target

__all__ = ["MESH", "NONE", "PEER", "Figures", "Verdict"]

NONE, MESH, PEER = "no mesh", "ours", "peer"
"""The sides, which are also the columns."""


class Verdict(Enum):
    """What is said of a metric with a target."""

    MET = "yes"
    MISSED = "NO"
    NOISY = "noisy"
    """There is a figure, but others took the machine in more than half of the rounds."""
    ABSENT = "no figure"
    UNASKED = ""
    """It has no target, or was not to be measured."""


class Figures:
    """By metric and side, one value for each round, None where the load failed. ``loud`` rounds are kept by metric prefix."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], dict[int, float | None]] = {}
        self._loud: dict[str, set[int]] = {}

    def add(
        self, prefix: str, side: str, round_: int, values: dict[str, float] | None, figures: Iterable[str], *, loud: bool
    ) -> None:
        """The outcome of one load: ``values`` by figure, or None if it failed; ``figures`` are those that were wanted."""
        for figure in {*figures, *(values or {})}:
            value = values.get(figure) if values else None
            self._values.setdefault((f"{prefix}.{figure}", side), {})[round_] = value
        if loud:
            self._loud.setdefault(prefix, set()).add(round_)

    def rounds(self, metric: str, side: str) -> list[float | None]:
        """All values, by round."""
        values = self._values.get((metric, side), {})
        return [values[number] for number in sorted(values)]

    def metrics(self) -> list[tuple[str, str]]:
        """(metric, side) of all there is."""
        return list(self._values)

    def _numbers(self, metric: str) -> tuple[set[int], bool]:
        """The rounds that count, and whether they are enough to judge by: the quiet ones if they are half of all or more."""
        every = set().union(*(rounds for (key, _), rounds in self._values.items() if key == metric))
        quiet = every - self._loud.get(metric.rpartition(".")[0], set())
        enough = 2 * len(quiet) >= len(every) and bool(quiet)
        return (quiet if enough else every), enough

    def value(self, metric: str, side: str) -> float | None:
        """The median of the rounds that count."""
        numbers, _ = self._numbers(metric)
        values = self._values.get((metric, side), {})
        return _median([value for number, value in values.items() if number in numbers and value is not None])

    def ratio(self, metric: str, side: str) -> float | None:
        """The median of the ratios to no mesh of each round that counts, not the ratio of medians: rounds drift together."""
        numbers, _ = self._numbers(metric)
        ours, none = self._values.get((metric, side), {}), self._values.get((metric, NONE), {})
        found = []
        for number in numbers:
            value, base = ours.get(number), none.get(number)
            if value is not None and base:
                found.append(value / base)
        return _median(found)

    def figure(self, metric: str, side: str) -> float | None:
        """What the metric's target is compared with."""
        target = TARGETS.get(metric)
        return self.ratio(metric, side) if target and target.of is Of.RATIO else self.value(metric, side)

    def verdict(self, metric: str, side: str = MESH) -> Verdict:
        """Does ``side`` reach the metric's target?"""
        target: Target | None = TARGETS.get(metric)
        if target is None or (metric, side) not in self._values:
            return Verdict.UNASKED
        figure = self.figure(metric, side)
        if figure is None:
            return Verdict.ABSENT
        if not self._numbers(metric)[1]:
            return Verdict.NOISY
        return Verdict.MET if target.met(figure) else Verdict.MISSED

    def status(self) -> int:
        """Exit status of ``--check``: 0 all met, 1 one is missed, 3 none missed but one could not be judged."""
        verdicts = {self.verdict(metric) for metric in TARGETS}
        if Verdict.MISSED in verdicts:
            return 1
        return 3 if verdicts & {Verdict.NOISY, Verdict.ABSENT} else 0


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
