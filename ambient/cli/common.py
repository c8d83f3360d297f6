"""What the verbs share: how an error looks, and output for people and for programs."""

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Failure", "console", "output_option", "print_json"]


class Failure(click.ClickException):
    """Ends the command with exit status 1, saying the cause and, on a line of its own, the remedy."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}\nRemedy: {remedy}")


def output_option(function: "click.decorators.FC") -> "click.decorators.FC":
    """``-o table|json``, as the argument ``output``."""
    return click.option(
        "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the output."
    )(function)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def console() -> "Console":
    """A rich console on standard output: colour on a terminal only; elsewhere plain lines that are never wrapped."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, color_system=None, width=500)
