"""The inspection commands: options, a dump, a selection, an output. What istioctl's ``ztunnel-config`` prints."""

import urllib.parse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from ztunnel.cli import tables
from ztunnel.cli.errors import CommandError
from ztunnel.cli.fetch import ask, load
from ztunnel.cli.render import as_json, as_yaml, table
from ztunnel.cli.select import Selection
from ztunnel.cli.shape import Json, clean, entries

__all__ = [
    "all_command",
    "certificates_command",
    "connections_command",
    "log_command",
    "policies_command",
    "services_command",
    "workloads_command",
]

_PORT = click.option(
    "--admin-port",
    "--proxy-admin-port",
    "port",
    type=click.IntRange(1, 65535),
    default=15000,
    help="Admin port of the proxy (15000).",
)
_FILE = click.option("-f", "--file", default="", help="A saved config_dump instead of a running proxy; '-': standard input.")
_OUTPUT = click.option("-o", "--output", type=click.Choice(["short", "json", "yaml"]), default="short")
_NAMES = click.argument("names", nargs=-1, metavar="[NAME]...")


def _common(function: Callable[..., None]) -> Callable[..., None]:
    return _PORT(_FILE(_OUTPUT(function)))


def _show(output: str, value: object, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if output == "short":
        click.echo(table(head, rows), nl=False)
        return
    try:
        click.echo(as_json(value) if output == "json" else as_yaml(value), nl=False)
    except RecursionError as error:
        raise CommandError("the dump is nested too deeply to print; look at it with another tool") from error


@click.command("workloads")
@_common
@click.option("--address", default="", help="Only the workload with this address.")
@click.option("--workload-namespace", default="", help="Only workloads of this namespace.")
@click.option("--workload-node", default="", help="Only workloads of this node.")
@_NAMES
def workloads_command(port: int, file: str, output: str, names: tuple[str, ...], **options: Any) -> None:
    """Workloads the proxy knows (w, workload). NAME: a pod's name or its beginning."""
    dump, selection = load(file, port), Selection(names, **options)
    chosen = selection.workloads(dump)
    _show(output, chosen, tables.WORKLOADS, tables.workload_rows(chosen, entries(dump.get("services"))))


@click.command("services")
@_common
@click.option("--service-namespace", default="", help="Only services of this namespace.")
@_NAMES
def services_command(port: int, file: str, output: str, names: tuple[str, ...], **options: Any) -> None:
    """Services the proxy knows (s, svc, service)."""
    dump = load(file, port)
    chosen = Selection(names, **options).services(dump)
    _show(output, chosen, tables.SERVICES, tables.service_rows(chosen, entries(dump.get("services"))))


@click.command("policies")
@_common
@click.option("--policy-namespace", default="", help="Only policies of this namespace.")
@_NAMES
def policies_command(port: int, file: str, output: str, names: tuple[str, ...], **options: Any) -> None:
    """Policies the proxy knows (p, pol, policy)."""
    chosen = Selection(names, **options).policies(load(file, port))
    _show(output, chosen, tables.POLICIES, tables.policy_rows(chosen))


@click.command("certificates")
@_common
def certificates_command(port: int, file: str, output: str) -> None:
    """Certificates of this node's workloads (cert, certs)."""
    chosen = entries(load(file, port).get("certificates"))
    _show(output, chosen, tables.CERTIFICATES, tables.certificate_rows(chosen, datetime.now(UTC)))


@click.command("connections")
@_common
@click.option("--workload-namespace", default="", help="Only connections of this namespace's pods.")
@click.option("--direction", type=click.Choice(["inbound", "outbound"]), default=None, help="Only this direction.")
@click.option("--raw", is_flag=True, help="Addresses instead of names.")
@_NAMES
def connections_command(
    port: int, file: str, output: str, names: tuple[str, ...], direction: str | None, raw: bool, **options: Any
) -> None:
    """Open connections (cons).

    PATH and WHY tell the way the bytes take and what decided it. NAME: a pod's name or its beginning.
    """
    dump = load(file, port)
    chosen = Selection(names, **options).pods(dump)
    _show(output, chosen, tables.CONNECTIONS, tables.connection_rows(chosen, direction or "", _names(dump, raw=raw)))


def _names(dump: Json, *, raw: bool = False) -> tables.Names:
    return tables.Names(entries(dump.get("workloads")), entries(dump.get("services")), raw=raw)


@click.command("all")
@_common
@click.option("--with-headers", is_flag=True, help="A title above each table.")
def all_command(port: int, file: str, output: str, with_headers: bool) -> None:
    """All of the above.

    One table after the other; with -o json or yaml the whole dump.
    """
    dump, everything = load(file, port), Selection()
    services = entries(dump.get("services"))
    parts = {
        "Workloads": (tables.WORKLOADS, tables.workload_rows(everything.workloads(dump), services)),
        "Services": (tables.SERVICES, tables.service_rows(services, services)),
        "Policies": (tables.POLICIES, tables.policy_rows(everything.policies(dump))),
        "Certificates": (
            tables.CERTIFICATES,
            tables.certificate_rows(entries(dump.get("certificates")), datetime.now(UTC)),
        ),
        "Connections": (tables.CONNECTIONS, tables.connection_rows(everything.pods(dump), "", _names(dump))),
    }
    if output != "short":
        _show(output, dump, (), ())
        return
    for position, (title, (head, rows)) in enumerate(parts.items()):
        gap = "\n" if position else ""
        click.echo(f"{gap}{f'# {title}{chr(10)}' if with_headers else ''}{table(head, rows)}", nl=False)


@click.command("log")
@_PORT
@click.option("--level", default="", help="LEVEL or MODULE=LEVEL,... (error, warn, info, debug, trace, off).")
@click.option("-r", "--reset", is_flag=True, help="Back to the levels of the start, before --level.")
def log_command(port: int, level: str, reset: bool) -> None:
    """Show or change log levels (o)."""
    query = urllib.parse.urlencode({**({"reset": ""} if reset else {}), **({"level": _level(level)} if level else {})})
    body = ask("POST", f"/logging?{query}" if query else "/logging", port)
    click.echo("\n".join(clean(line) for line in body.decode("utf-8", "replace").splitlines()))


def _level(text: str) -> str:
    """ztunnel's names and separator for what istioctl's users write: ``module:warning`` is ``module=warn``."""
    parts = []
    for part in text.split(","):
        target, colon, level = part.rpartition(":")
        if colon and "=" not in part and not target.endswith(":"):
            part = f"{target}={level}"
        head, equals, level = part.rpartition("=")
        level = {"warning": "warn", "critical": "error"}.get(level.strip().lower(), level)
        parts.append(f"{head}{equals}{level}")
    return ",".join(parts)
