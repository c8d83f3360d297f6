"""What happened in the demo: steps, the commands they ran, the facts they checked. Pure; written by the steps, shown by report.

A :class:`Step` tells its listener as things happen, and keeps them for ``-o json``.
"""

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Check", "Command", "Listener", "Quiet", "Step", "to_plain"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command that was run, as a user would type it; ``output`` is what is worth showing of what it said."""

    text: str
    status: int
    output: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """A fact that was verified, or not. ``log``: the file that tells more about a failed one."""

    name: str
    ok: bool
    expected: str = ""
    seen: str = ""
    log: str = ""


class Listener(Protocol):
    """Who is told, at once."""

    def step(self, number: int, title: str, explanation: str) -> None: ...
    def command(self, command: Command) -> None: ...
    def note(self, text: str, lines: tuple[str, ...]) -> None: ...
    def check(self, check: Check) -> None: ...


class Quiet:
    """Nobody, for ``-o json``."""

    def step(self, number: int, title: str, explanation: str) -> None:
        pass

    def command(self, command: Command) -> None:
        pass

    def note(self, text: str, lines: tuple[str, ...]) -> None:
        pass

    def check(self, check: Check) -> None:
        pass


@dataclass(slots=True)
class Step:
    """One step of the demo. ``explanation`` is one line."""

    number: int
    title: str
    explanation: str
    listener: Listener
    commands: list[Command] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    def begin(self) -> None:
        self.listener.step(self.number, self.title, self.explanation)

    def ran(self, command: Command) -> None:
        """A command was run."""
        self.commands.append(command)
        self.listener.command(command)

    def note(self, text: str, *lines: str) -> None:
        """Something a reader should see: a line of a log, what is captured."""
        self.listener.note(text, lines)

    def check(self, name: str, ok: bool, *, expected: str, seen: str, log: object = "") -> bool:
        """A fact. ``expected`` and ``seen`` are shown when it does not hold. Returns ``ok``."""
        check = Check(name, ok, expected, seen, str(log))
        self.checks.append(check)
        self.listener.check(check)
        return ok


def to_plain(steps: list[Step], seconds: float) -> dict[str, object]:
    """The result for ``-o json``. Fields are only ever added."""
    checks = [check for step in steps for check in step.checks]
    return {
        "passed": sum(check.ok for check in checks),
        "checks": len(checks),
        "seconds": round(seconds, 2),
        "steps": [
            {
                "number": step.number,
                "title": step.title,
                "explanation": step.explanation,
                "seconds": round(step.seconds, 2),
                "commands": [{"command": c.text, "status": c.status, "output": list(c.output)} for c in step.commands],
                "checks": [{"name": c.name, "ok": c.ok, "expected": c.expected, "seen": c.seen, "log": c.log} for c in step.checks],
            }
            for step in steps
        ],
    }
