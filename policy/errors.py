"""What can be wrong with a policy, each with the place, the cause and the remedy.

One root, :class:`PolicyError`; ``reason`` is the stable short name for log, metric and wire. Raised by the readers
(static form, wire, Istio YAML) and, for a connection that no caller should hand in, by the evaluators.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar, NamedTuple

from policy.model import PolicyKey, Scope

__all__ = [
    "DocumentProblem",
    "MalformedConnectionError",
    "PolicyDocumentError",
    "PolicyError",
    "PolicyFormError",
    "PolicyWireError",
    "nearest",
]

SHOWN_PROBLEMS = 5
"""Problems spelled out in an error's text; the rest is counted."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say which of ``valid`` was probably meant, or list them all: the tail of an "unknown" error's sentence."""
    choices = list(valid)
    close = get_close_matches(name.lower()[:64], [choice.lower() for choice in choices], n=1, cutoff=0.6)
    for choice in choices:
        if close and choice.lower() == close[0]:
            return f"did you mean {choice}?"
    return "valid: " + ", ".join(choices)


class PolicyError(Exception):
    """Root of this room's errors."""

    reason: ClassVar[str] = "policy_invalid"


class MalformedConnectionError(PolicyError, ValueError):
    """The caller handed in a connection whose identity or address is not one; it must have been checked before."""

    reason = "policy_malformed_connection"


class PolicyFormError(PolicyError):
    """A policy of a static file is not one. ``problems`` holds every (YAML path, cause) found, in reading order."""

    reason = "policy_form"

    def __init__(self, problems: tuple[tuple[str, str], ...]) -> None:
        self.problems = problems
        super().__init__(_listed([f"{path}: {cause}" for path, cause in problems]))


class PolicyWireError(PolicyError):
    """An Authorization message that we do not understand whole, so not at all: refuse (NACK) and fail closed.

    ``key``, ``namespace`` and ``scope`` say whom the policy would have applied to, as far as that could be read: they
    are what ``PolicyIndex.mark_unusable`` wants. ``scope`` is ``None`` when it is itself not understood.
    """

    reason = "policy_wire"

    def __init__(self, cause: str, *, name: str = "", namespace: str = "", scope: Scope | None = None) -> None:
        self.cause = cause
        self.key = PolicyKey(f"{namespace}/{name}")
        self.namespace = namespace
        self.scope = scope
        super().__init__(f"authorization {self.key}: {cause}")


class DocumentProblem(NamedTuple):
    """One finding in a YAML document; ``line`` and ``column`` count from 1, 0 when there is no place to name."""

    file: str
    line: int
    column: int
    path: str
    cause: str

    def __str__(self) -> str:
        place = f"{self.file or '<text>'}:{self.line}:{self.column}"
        return f"{place}: {self.path}: {self.cause}" if self.path else f"{place}: {self.cause}"


class PolicyDocumentError(PolicyError):
    """YAML text that is not a set of valid AuthorizationPolicies; nothing of it is to be used."""

    reason = "policy_document"

    def __init__(self, problems: tuple[DocumentProblem, ...]) -> None:
        self.problems = problems
        super().__init__(_listed([str(problem) for problem in problems]))


def _listed(lines: list[str]) -> str:
    more = len(lines) - SHOWN_PROBLEMS
    return "; ".join(lines[:SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
