"""Commands that start the proxy or tell about the program itself."""

import os
import platform
from importlib import metadata

import click

from ztunnel.cli.errors import CommandError

__all__ = ["completion_command", "env_command", "proxy_command", "run_command", "start_proxy", "version_command"]


def start_proxy() -> None:
    """Run the data plane in this process until it ends, and exit with its status."""
    from ztunnel.dataplane.main import main

    raise SystemExit(main())


@click.command("run")
def run_command() -> None:
    """Run the proxy (the same as no command)."""
    start_proxy()


@click.command("proxy")
@click.argument("kind", type=click.Choice(["ztunnel"]))
def proxy_command(kind: str) -> None:
    """Run the proxy, as containers call it."""
    start_proxy()


@click.command("env")
def env_command() -> None:
    """List the environment variables."""
    from ztunnel.config import Config

    for item in Config.describe():
        # Only that it is set, not to what: a variable may hold a token.
        notes = [f"default {item.default}"] if item.default else []
        notes += ["set now"] if item.name in os.environ else []
        shown = f" ({', '.join(notes)})" if notes else ""
        click.echo(f"{item.name}{shown}\n    {item.meaning}")


@click.command("version")
def version_command() -> None:
    """Print versions."""
    for name, distribution in (("ztunnel", "ambient-mesh"), ("trio", "trio"), ("cryptography", "cryptography")):
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            version = "unknown (not installed as a package)"
        click.echo(f"{name} {version}")
    click.echo(f"python {platform.python_version()}")


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print a shell's completion script.

    For this shell: `source <(ztunnel completion bash)`.
    """
    from click.shell_completion import get_completion_class

    from ztunnel.cli.app import app

    kind = get_completion_class(shell)
    if kind is None:
        raise CommandError(f"no completion for {shell}; there is bash, zsh and fish")
    click.echo(kind(app, {}, "ztunnel", "_ZTUNNEL_COMPLETE").source())
