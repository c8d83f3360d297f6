"""``ambient demo``: the mesh shown at work on this machine, every claim checked, and nothing left behind."""

import os
import sys
from typing import TYPE_CHECKING

import click

from ambient.cli.common import Failure, output_option, print_json

if TYPE_CHECKING:
    from ambient.demo.report import Report
    from ambient.demo.run import Result
    from ambient.demo.scene import Scene

__all__ = ["command"]


_EXAMPLES = """Examples:

\b
  sudo ambient demo
  sudo ambient demo --step
  sudo ambient demo --keep
  sudo ambient demo --end demo-3f2a
"""


@click.command(epilog=_EXAMPLES)
@click.option("--keep", is_flag=True, help="Leave it running, to play with, and say how.")
@click.option("--step", is_flag=True, help="Wait for Enter between the steps.")
@click.option("--end", metavar="NAME", help="End a demo that was left running, and do nothing else.")
@click.option("--no-color", is_flag=True, help="No colours, even on a terminal.")
@click.option("--break", "broken", type=click.Choice(["ca"]), help="Break something on purpose: ca gives node-b another root.")
@output_option
@click.pass_context
def command(ctx: click.Context, keep: bool, step: bool, end: str | None, no_color: bool, broken: str | None, output: str) -> None:
    """Show the mesh at work on this machine, step by step.

    Two nodes with two pods each, made of network namespaces; one ztunnel a node. Every claim is checked, by captured packets
    where it is about the wire. The commands shown are those that are run. Nothing outside the namespaces changes, and nothing is
    left behind. Needs root. Exit status: 0 when all checks passed, 1 when not, 130 after Ctrl-C.
    """
    if step and output == "json":
        raise click.UsageError("--step waits for a reader: it does not go with -o json")
    if end is not None and (keep or step or broken):
        raise click.UsageError("--end goes with no other option")
    if os.geteuid() != 0:
        raise Failure("this needs root rights: the demo makes network namespaces", "run it with sudo: sudo ambient demo")
    from ambient.lab.errors import LabError

    try:
        if end is not None:
            _end(end)
            return
        ctx.exit(_show(keep=keep, step=step, colour=not no_color and "NO_COLOR" not in os.environ, broken=broken, output=output))
    except LabError as error:
        raise Failure(error.cause, error.remedy) from error


def _end(name: str) -> None:
    from ambient.demo.leftovers import end_demo

    removed = end_demo(name)
    click.echo(f"ended demo {removed.name}: its processes, {removed.namespaces} network namespaces and files are gone")
    for pid, what in removed.left:
        click.echo(f"  left alone: process {pid} ({what}), which the demo did not start", err=True)


def _preflight() -> None:
    """Stop before anything is made on a machine that cannot run the mesh."""
    from capture.finding import Status
    from capture.preflight import run_checks

    failed = [check for check in run_checks().checks if check.finding.status is Status.FAIL]
    if failed:
        lines = [f"{check.group}: {check.name}: {check.finding.found}; {check.finding.remedy}" for check in failed]
        raise Failure("this machine cannot run the mesh yet:\n  " + "\n  ".join(lines), "mend that; `ambient check` tells all")


def _show(*, keep: bool, step: bool, colour: bool, broken: str | None, output: str) -> int:
    from ambient.demo.record import Quiet, to_plain
    from ambient.demo.report import Report
    from ambient.demo.run import Demo

    report = Report(colour=colour)
    quiet = output == "json"
    if not quiet:
        report.line("ambient demo: a service mesh on this machine, in network namespaces", "bold")
    _preflight()

    def opened(scene: "Scene") -> None:
        if not quiet:
            _introduce(report, scene)

    demo = Demo(
        Quiet() if quiet else report,
        keep=keep,
        break_ca=broken == "ca",
        opened=opened,
        pause=_wait if step else lambda: None,
    )
    result = demo.run()
    if quiet:
        print_json({**to_plain(result.steps, result.seconds), "kept": result.kept, "interrupted": result.interrupted})
    else:
        _conclude(report, result)
    if result.interrupted:
        return 130
    return 0 if result.good else 1


def _introduce(report: "Report", scene: "Scene") -> None:
    report.line("This machine can run the mesh (`ambient check` tells more). The stage:")
    report.line()
    for node in scene.lab.nodes.values():
        for pod in node.pods.values():
            report.line(f"   {node.name}   {pod.namespace}/{pod.name:<9} {pod.ipv4:<11} {pod.ipv6 or ''}".rstrip())
    if scene.shell.hint:
        report.line()
        report.line("The commands below work in another terminal too, after:")
        report.line(f"   {scene.shell.hint}")


def _wait() -> None:
    click.echo("\n   Enter goes on, Ctrl-C ends: ", nl=False)
    sys.stdin.readline()


def _conclude(report: "Report", result: "Result") -> None:
    report.line()
    if result.interrupted:
        report.line(f"Stopped. {result.passed} of {result.total} checks passed until then.", "bold")
        return
    style = "bold green" if result.good else "bold red"
    report.line(f"{result.passed} of {result.total} checks passed, in {result.seconds:.1f} s.", style)
    if result.logs:
        report.line(f"The logs are kept in {result.logs} until the next demo.")
    if result.kept:
        _how_to_play(report, result.kept)


def _how_to_play(report: "Report", name: str) -> None:
    from ambient.demo.scene import BASE, PORT
    from ambient.lab import Lab

    folder, lab = BASE / name, Lab.attach(name)
    say = "python -m ambient.demo.say"
    report.line()
    report.line(f"It is left running: lab {name}, logs and state in {folder}. To play with it:")
    for what, words in (
        ("a connection", f"ambient lab exec {name}/web -- {say} {lab.pods['orders'].ipv4} {PORT} hello"),
        ("one that stays open", f"ambient lab exec {name}/web -- {say} {lab.pods['orders'].ipv4} {PORT} hello --hold"),
        ("what is open on a node", f"ambient lab exec {name}/node-a -- ztunnel connections"),
        ("refuse a client", f"python -m ambient.demo.policy {folder}/state.yaml --deny shop/web"),
        ("allow everything", f"python -m ambient.demo.policy {folder}/state.yaml --none"),
        ("the access log", f"tail -f {folder}/node-a.log"),
        ("end it", f"ambient demo --end {name}"),
    ):
        report.line(f"   {what + ':':<24} {words}")
