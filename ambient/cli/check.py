"""``ambient check``: whether this machine can run the mesh, and what is missing. Touches nothing."""

from typing import TYPE_CHECKING

import click

from ambient.cli.common import console, output_option, print_json

if TYPE_CHECKING:
    from capture.preflight import Report

__all__ = ["command"]

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(epilog="Examples:\n\n\b\n  sudo ambient check\n  ambient check -o json")
@output_option
@click.pass_context
def command(ctx: click.Context, output: str) -> None:
    """Tell whether this machine can run the mesh, and what is missing.

    Nothing is changed: what has to be tried is tried in a network namespace made for it. Without root rights some items cannot be
    tried and say so. Exit status: 0 when the mesh can run here, 1 when not.
    """
    from capture.preflight import run_checks

    report = run_checks()
    if output == "json":
        print_json(report.to_plain())
    else:
        _show(report)
    ctx.exit(0 if report.usable else 1)


def _show(report: "Report") -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for check in report.checks:
        finding = check.finding
        colour = _COLOURS[finding.status]
        table.add_row(f"[{colour}]{finding.status}[/]", f"{check.group}: {check.name}", escape(finding.found))
    out.print(table)
    for check in report.checks:
        finding = check.finding
        if finding.remedy:
            out.print(f"\n[{_COLOURS[finding.status]}]{finding.status}[/]  [bold]{escape(check.name)}[/]: {escape(finding.found)}")
            if finding.why:
                out.print(f"      Why:    {escape(finding.why)}")
            out.print(f"      Remedy: {escape(finding.remedy)}")
    verdict = "This machine can run the mesh." if report.usable else "This machine cannot run the mesh yet: see what failed above."
    out.print(f"\n{verdict}")
