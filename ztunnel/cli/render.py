"""Tables, JSON and YAML for a terminal: aligned, and without a character that a terminal would obey. Pure."""

from collections.abc import Sequence

import msgspec

from ztunnel.cli.shape import MAX_CELL, clean

__all__ = ["as_json", "as_yaml", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, headers: bool = True) -> str:
    """Columns two blanks apart, no blanks at the ends of lines. "" without rows and headers."""
    lines = [[clean(cell[:MAX_CELL]) for cell in row] for row in ([head, *rows] if headers else rows)]
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(len(head))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "".join(f"{line}\n" for line in padded)


def as_json(value: object) -> str:
    """Indented JSON, non-printable characters escaped."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=4).decode("utf-8", "replace")
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text) + "\n"


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def as_yaml(value: object) -> str:
    """YAML, everything that is not ASCII escaped."""
    import yaml  # late: only `-o yaml` needs it

    text: str = yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=False)
    return text
