"""The command's tree: names, aliases (istioctl's) and where each command lives; modules load when they are used."""

import importlib
from typing import Final

import click

__all__ = ["ALIASES", "COMMANDS", "app"]

COMMANDS: Final = {
    "run": "start",
    "proxy": "start",
    "env": "start",
    "version": "start",
    "completion": "start",
    "workloads": "inspect",
    "services": "inspect",
    "policies": "inspect",
    "certificates": "inspect",
    "connections": "inspect",
    "all": "inspect",
    "log": "inspect",
}
"""Command -> module of this package that has a function ``<command>_command``."""

ALIASES: Final = {
    "workload": "workloads",
    "w": "workloads",
    "service": "services",
    "svc": "services",
    "s": "services",
    "policy": "policies",
    "pol": "policies",
    "p": "policies",
    "certificate": "certificates",
    "certs": "certificates",
    "cert": "certificates",
    "connection": "connections",
    "cons": "connections",
    "o": "log",
}


class _Tree(click.Group):
    """Commands by name or alias."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"ztunnel.cli.{COMMANDS[name]}")
        command: click.Command = getattr(module, f"{name}_command")
        return command


@click.command(
    cls=_Tree,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The proxy is set by environment variables: `ztunnel env` lists all. Mostly needed: NODE_NAME, INPOD_UDS (the node "
    "agent's socket), LOCAL_XDS_PATH (state from a file) or XDS_ADDRESS, LOCAL_CA_DIR or CA_ADDRESS, RUST_LOG, LOG_FORMAT. "
    "Commands that inspect take -f FILE for a saved config_dump ('-': standard input), and --admin-port for another than 15000.",
)
@click.pass_context
def app(ctx: click.Context) -> None:
    """The node proxy. Without a command it runs the proxy."""
    if ctx.invoked_subcommand is None:
        from ztunnel.cli.start import start_proxy

        start_proxy()
