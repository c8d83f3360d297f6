"""``ambient completion bash|zsh|fish``: print the shell's completion script."""

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]


@click.command(
    epilog="Examples:\n\n\b\n  source <(ambient completion bash)\n"
    "  ambient completion fish > ~/.config/fish/completions/ambient.fish"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that makes a shell complete this command."""
    from ambient.cli import cli

    complete = get_completion_class(shell)
    assert complete is not None, shell
    click.echo(complete(cli, {}, "ambient", "_AMBIENT_COMPLETE").source())
