"""The ``ambient`` command: one module a verb, loaded when the verb is used.

``ambient --help`` imports no verb, as some cost a tenth of a second and many megabytes to load. A verb is a module of this
package that has a ``click.Command`` named ``command``; :data:`VERBS` is where it is entered.
"""

import importlib

import click

__all__ = ["VERBS", "cli", "main"]

VERBS: dict[str, str] = {
    "check": "Tell whether this machine can run the mesh, and what is missing.",
    "completion": "Print the script that makes a shell complete this command.",
    "demo": "Show the mesh at work on this machine, step by step.",
    "lab": "Make nodes and pods out of network namespaces.",
}
"""Verb (and module name) to its line in ``ambient --help``, in alphabetical order."""


class _LazyGroup(click.Group):
    """A group whose commands are modules that are imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"ambient.cli.{cmd_name}").command
        assert isinstance(command, click.Command), cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[click.shell_completion.CompletionItem]":
        """Verbs from the table, options as click has them; click's own way would import every verb."""
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=line) for verb, line in VERBS.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ambient-mesh", prog_name="ambient")
def cli() -> None:
    """An ambient service mesh for Linux nodes.

    Exit status: 0 when it worked, 1 when it did not, 2 for a mistake in the command line.
    """


def main() -> None:
    """Console script ``ambient``."""
    cli(prog_name="ambient")
