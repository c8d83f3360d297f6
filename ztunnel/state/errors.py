"""Errors of the state room: a state that is refused as a whole."""

from typing import NamedTuple

__all__ = ["ItemTooLargeError", "Problem", "StateError", "StaticFileError"]


class Problem(NamedTuple):
    """One fault of a file. ``line`` from 1; ``path`` like ``workloads[2].workloadIps[0]``; ``cause`` names the remedy too."""

    line: int
    path: str
    cause: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.path}: {self.cause}" if self.path else f"line {self.line}: {self.cause}"


class StateError(Exception):
    """Root of this room's errors. The state before stays in force."""


class StaticFileError(StateError):
    """A static file is refused; nothing of it is used. Raised by the reader, told by the control half."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))


class ItemTooLargeError(StateError):
    """One workload, service or policy does not fit into a packet of the link. Raised before anything is sent."""

    def __init__(self, kind: str, key: str, size: int, limit: int) -> None:
        self.kind, self.key, self.size = kind, key, size
        super().__init__(f"{kind} {key} takes {size} bytes, more than the {limit} of one message; split it into several")
