"""Failures of the command: cause and remedy on one line, exit status 1."""

import click

__all__ = ["CommandError"]


class CommandError(click.ClickException):
    """Shown as ``Error: cause; remedy``."""

    exit_code = 1
