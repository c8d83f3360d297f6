"""What a network namespace holds of ours, and how it differs from what it should hold. Pure.

Parsers make a :class:`Snapshot` of what is there, backends make another of what should be, and :func:`compare` makes a
:class:`Drift` of the two. Rules are canonical lines of text (:meth:`capture.rules.Rule.canonical`); a rule that is not
one of ours in form stays as the tool printed it, so it can be reported but never taken for ours.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Final

__all__ = ["MAX_REPORTED", "Drift", "Snapshot", "compare"]

MAX_REPORTED: Final = 64
"""Most entries in each list of a drift report; one more entry says how many were left out."""
_MAX_ALIGNED: Final = 512
"""Longest chain that is aligned rule by rule (quadratic); a longer one is compared as a bag."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Chains of ours by label, as canonical lines in order; and the guardrail."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    guard: bool = False

    @property
    def residue(self) -> bool:
        """Anything of ours at all."""
        return bool(self.chains) or self.guard


@dataclass(frozen=True, slots=True)
class Drift:
    """How a pod's redirection differs from its rule set. All empty: it doesn't.

    Each entry is a sentence with the chain's label. ``differing`` holds rules that are there in another form or order.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.differing)

    def __add__(self, other: "Drift") -> "Drift":
        return Drift(
            _bounded([*self.missing, *other.missing]),
            _bounded([*self.unexpected, *other.unexpected]),
            _bounded([*self.differing, *other.differing]),
        )

    def sentences(self) -> tuple[str, ...]:
        """The whole report, a line each."""
        return (
            *(f"missing: {line}" for line in self.missing),
            *(f"unexpected: {line}" for line in self.unexpected),
            *(f"differs: {line}" for line in self.differing),
        )


def compare(expected: Snapshot, actual: Snapshot) -> Drift:
    """What has to change to make ``actual`` the ``expected``."""
    missing: list[str] = []
    unexpected: list[str] = []
    differing: list[str] = []
    for label in expected.chains.keys() | actual.chains.keys():
        if label not in actual.chains:
            missing.append(f"{label}: the whole chain")
        elif label not in expected.chains:
            unexpected.append(f"{label}: the whole chain")
        else:
            _compare_chain(label, expected.chains[label], actual.chains[label], missing, unexpected, differing)
    if actual.guard and not expected.guard:
        unexpected.append("guardrail: the pod is closed to TCP and UDP since a change of its rules failed")
    return Drift(_bounded(sorted(missing)), _bounded(sorted(unexpected)), _bounded(sorted(differing)))


def _compare_chain(
    label: str,
    want: tuple[str, ...],
    have: tuple[str, ...],
    missing: list[str],
    unexpected: list[str],
    differing: list[str],
) -> None:
    if want == have:
        return
    lacking, surplus = Counter(want) - Counter(have), Counter(have) - Counter(want)
    if not lacking and not surplus:
        differing.append(f"{label}: the right rules in another order")
        return
    if len(have) > _MAX_ALIGNED:
        missing += [f"{label}: {line}" for line in lacking.elements()]
        unexpected += [f"{label}: {line}" for line in list(surplus.elements())[: MAX_REPORTED + 1]]
        return
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, want, have, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        pairs = min(i2 - i1, j2 - j1)
        differing += [f"{label}: is {have[j1 + n]!r}, should be {want[i1 + n]!r}" for n in range(pairs)]
        missing += [f"{label}: {line}" for line in want[i1 + pairs : i2]]
        unexpected += [f"{label}: {line}" for line in have[j1 + pairs : j2]]


def _bounded(lines: list[str]) -> tuple[str, ...]:
    if len(lines) <= MAX_REPORTED:
        return tuple(lines)
    return (*lines[:MAX_REPORTED], f"and {len(lines) - MAX_REPORTED} more")
