"""The table and the JSON result. ``rows`` and ``document`` are pure; colours and lines only for a terminal."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from perf.judge import MESH, NONE, PEER, Figures, Verdict
from perf.machine import Machine
from perf.measures import METRICS
from perf.options import Options
from perf.owned import folder, give
from perf.run import Entry
from perf.targets import TARGETS

__all__ = ["document", "number", "plain", "rows", "save", "show"]

FORMAT: Final = 1
_SECTIONS: Final = {"cross": "node to node", "same": "same node", "idle": "memory"}


def number(value: float | None) -> str:
    """Three digits are what a figure of a shared machine can bear; thousands are kept whole."""
    if value is None:
        return "-"
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 1000 else f"{value:.3g}"


def rows(figures: Figures, *, peer: bool) -> list[tuple[str, list[str]]]:
    """(section, cells) of each metric of which there is anything; cells as ``_header`` has them."""
    found = []
    for metric in METRICS:
        sides = [side for side in (NONE, MESH, PEER) if any(value is not None for value in figures.rounds(metric.key, side))]
        verdict = figures.verdict(metric.key)
        if not sides and verdict is Verdict.UNASKED:
            continue
        target = TARGETS.get(metric.key)
        cells = [
            f"{metric.label} ({metric.unit})",
            number(figures.value(metric.key, NONE)),
            number(figures.value(metric.key, MESH)),
        ]
        ratio = number(figures.ratio(metric.key, MESH)) if metric.ratio else ""
        if peer:
            cells.append(number(figures.value(metric.key, PEER)))
        cells.append(ratio)
        if peer:
            cells.append(number(figures.ratio(metric.key, PEER)) if metric.ratio else "")
        found.append((_SECTIONS[metric.key.partition(".")[0]], [*cells, str(target) if target else "", verdict.value]))
    return found


def _header(peer: bool) -> list[str]:
    return ["", NONE, MESH, *([PEER] if peer else []), "ratio", *(["peer ratio"] if peer else []), "target", "met?"]


def plain(table: Sequence[tuple[str, list[str]]], *, peer: bool) -> str:
    """Columns with blanks, for files and pipes."""
    header = _header(peer)
    lines = [header, *(cells for _, cells in table)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        head = cells[0].ljust(widths[0])
        return "  ".join([head, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]).rstrip()

    out = [line(header)]
    section = ""
    for name, cells in table:
        if name != section:
            section = name
            out.append(f"-- {name}")
        out.append(line(cells))
    return "\n".join(out) + "\n"


def show(table: Sequence[tuple[str, list[str]]], notes: Sequence[str], *, peer: bool) -> None:
    """To standard output."""
    if sys.stdout.isatty():
        _rich(table, peer=peer)
    else:
        sys.stdout.write(plain(table, peer=peer))
    for note in notes:
        sys.stdout.write(f"note: {note[:400]}\n")
    sys.stdout.flush()


def _rich(table: Sequence[tuple[str, list[str]]], *, peer: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {Verdict.MET.value: "green", Verdict.MISSED.value: "bold red", Verdict.NOISY.value: "yellow"}
    out = Table(box=None, pad_edge=False)
    for index, name in enumerate(_header(peer)):
        out.add_column(name, justify="right" if index else "left", no_wrap=index > 0)
    section = ""
    for name, cells in table:
        if name != section:
            section = name
            out.add_row(Text(name, style="bold"))
        out.add_row(*cells[:-1], Text(cells[-1], style=colours.get(cells[-1], "")))
    Console().print(out)


def document(
    options: Options, machine: Machine, figures: Figures, entries: Sequence[Entry], notes: Sequence[str], when: str
) -> dict[str, Any]:
    """The result as it is kept: every round's raw values, and what was made of them."""
    metrics: dict[str, Any] = {}
    for metric, side in figures.metrics():
        kept = metrics.setdefault(metric, {"sides": {}})
        kept["sides"][side] = {
            "rounds": figures.rounds(metric, side),
            "median": figures.value(metric, side),
            "ratio": figures.ratio(metric, side) if side != NONE else None,
        }
        if target := TARGETS.get(metric):
            kept |= {"target": str(target), "met": figures.verdict(metric).value}
    return {
        "format": FORMAT,
        "when": when,
        "machine": machine,
        "options": {
            "only": options.only,
            "where": options.where,
            "peer": options.peer.name if options.peer else None,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "policies": options.policies,
            "scrape_pause": options.scrape_pause,
        },
        "metrics": {metric.key: {"label": metric.label, "unit": metric.unit} for metric in METRICS if metric.key in metrics},
        "results": metrics,
        "runs": entries,
        "notes": notes,
    }


def save(content: dict[str, Any], path: Path) -> None:
    """Written whole or not at all."""
    path = path.absolute()
    folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    give(temporary)
    temporary.replace(path)
