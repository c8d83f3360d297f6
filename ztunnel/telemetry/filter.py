"""Which log lines are wanted: the syntax of RUST_LOG, as ztunnel's users know it.

Pure. ``info`` sets the level of everything, ``xds=debug`` that of a target and what is below it; the longest match wins and, for
the same target, the last. ``ztunnel::xds`` and ``xds`` are the same target, ``::`` and ``.`` the same separator. Used by
:mod:`ztunnel.telemetry.log` at start and by ``/logging`` at run time.
"""

from enum import IntEnum
from typing import Final

__all__ = ["MAX_DIRECTIVES", "MAX_TEXT", "Filter", "Level", "is_level"]

MAX_TEXT: Final = 4096
"""Characters of a filter that are looked at."""
MAX_DIRECTIVES: Final = 100
"""Targets with a level of their own."""
_MAX_CACHED = 1000


class Level(IntEnum):
    """Rising severity; ``OFF`` is above all lines."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    OFF = 5


_NAMES: Final = {level.name.lower(): level for level in Level} | {
    "warning": Level.WARN,
    "critical": Level.ERROR,
    **{str(number): level for number, level in enumerate(reversed(Level))},
}


class Filter:
    """An immutable set of directives."""

    __slots__ = ("_base", "_cache", "_targets")

    def __init__(self, base: Level = Level.INFO, targets: dict[str, Level] | None = None) -> None:
        self._base = base
        self._targets = dict(targets or {})
        self._cache: dict[str, Level] = {}

    def extended(self, text: str) -> tuple["Filter", list[str]]:
        """This filter with the directives of ``text`` added, and a sentence for each part that makes no sense.

        Parts that make no sense change nothing; whoever calls decides whether they are fatal.
        """
        base, targets, problems = self._base, dict(self._targets), []
        if len(text) > MAX_TEXT:
            return self, [f"log filter of {len(text)} characters ignored: at most {MAX_TEXT} are allowed"]
        for part in filter(None, (part.strip() for part in text.split(","))):
            target, level = _directive(part)
            if level is None:
                problems.append(f"log filter part {part!r} ignored: expected LEVEL or TARGET=LEVEL with a level of {_LEVELS}")
            elif not target:
                base = level
            elif target not in targets and len(targets) >= MAX_DIRECTIVES:
                problems.append(f"log filter part {part!r} ignored: at most {MAX_DIRECTIVES} targets are allowed")
            else:
                targets[target] = level
        return Filter(base, targets), problems

    def level_of(self, target: str) -> Level:
        """The least level that is logged for ``target``."""
        level = self._cache.get(target)
        if level is None:
            level, prefix = self._base, _normal(target)
            while prefix:
                if prefix in self._targets:
                    level = self._targets[prefix]
                    break
                prefix = prefix.rpartition(".")[0]
            if len(self._cache) < _MAX_CACHED:
                self._cache[target] = level
        return level

    def enabled(self, level: Level, target: str) -> bool:
        """Whether a line of ``level`` from ``target`` is wanted."""
        return level >= self.level_of(target)

    def __str__(self) -> str:
        """In the syntax it was read from, sorted."""
        return ",".join([*(f"{target}={_name(level)}" for target, level in sorted(self._targets.items())), _name(self._base)])


_LEVELS = "error, warn, info, debug, trace, off"


def is_level(text: str) -> bool:
    """Whether ``text`` is the name of a level, in any case."""
    return text.strip().lower() in _NAMES


def _name(level: Level) -> str:
    return level.name.lower()


def _directive(part: str) -> tuple[str, Level | None]:
    lowered = part.lower()
    if lowered in _NAMES:
        return "", _NAMES[lowered]
    target, equals, level = part.rpartition("=")
    if not equals:
        # istioctl's help has ``module:level``; a single colon cannot be part of a target
        target, colon, level = part.rpartition(":")
        if not colon or target.endswith(":"):
            target, level = part, "trace"
    name = _normal(target)
    valid = bool(name) and all(segment.replace("_", "").replace("-", "").isalnum() for segment in name.split("."))
    return (name, _NAMES.get(level.strip().lower())) if valid else ("", None)


def _normal(target: str) -> str:
    return target.strip().replace("::", ".").removeprefix("ztunnel.")
