"""Long lines made short for a reader: an access-log line or a metric, reduced to the fields a step is about. Pure.

The lines are real; where something is left out there is an ellipsis.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["WIDTH", "field_of", "fold", "log_excerpt", "metric_excerpt", "table_excerpt"]

WIDTH: Final = 92
"""Characters to a line: with the report's indent, a terminal of 100 columns."""
_FIELD: Final = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|\S+)')
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def fold(words: Iterable[str], indent: str = "  ", width: int = WIDTH) -> tuple[str, ...]:
    """The words with blanks between, in lines of at most ``width``; later lines begin with ``indent``. Longer words stay whole."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{indent if lines else ''}{word}")
    return tuple(lines)


def field_of(line: str, name: str) -> str:
    """The value of a field of an access-log line, without quotes; "" if there is none."""
    return next((value.strip('"') for key, value in _FIELD.findall(line) if key == name), "")


def log_excerpt(line: str, names: Sequence[str]) -> tuple[str, ...]:
    """Time, level and the named fields, folded."""
    if not line:
        return ("(no such line)",)
    pieces = line.split("\t")[:3]
    for key, value in _FIELD.findall(line):
        if key in names:
            pieces.append(f"{key}={value}")
        elif pieces[-1] != "…":
            pieces.append("…")
    return fold(word for piece in pieces for word in piece.split(" "))


def metric_excerpt(line: str, names: Sequence[str]) -> tuple[str, ...]:
    """Name and value of a metric with the named labels, folded."""
    head, brace, rest = line.partition("{")
    labels, _, value = rest.rpartition("} ")
    if not brace:
        return (line,)
    found = [f'{key}="{text}",' for key, text in _LABEL.findall(labels) if key in names]
    first, *others = [*found, f"…}} {value}"]
    return fold([f"{head}{{{first}", *others])


def table_excerpt(text: str, width: int = WIDTH) -> tuple[str, ...]:
    """The lines of a table; the columns that are beyond ``width`` follow on a line of their own."""
    shown: list[str] = []
    for line in text.splitlines():
        at = line.rfind("  ", 0, width) if len(line) > width else -1
        shown += [line] if at < 0 else [line[:at].rstrip(), f"    {line[at:].strip()}"]
    return tuple(shown)
