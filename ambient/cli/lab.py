"""``ambient lab up|down|exec|list``: labs that stand until they are taken down."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ambient.cli.common import Failure, console, output_option, print_json

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ambient.lab.errors import LabError
    from ambient.lab.removal import Removed
    from ambient.lab.state import LabState
    from ambient.lab.store import Store

__all__ = ["command"]

_EXAMPLES = """Examples:

\b
  ambient lab up --name try --nodes 2 --pods 2
  ambient lab exec try/pod-1-1 -- ip address
  ambient lab down try
"""


@contextmanager
def _told() -> Iterator[None]:
    """The lab's errors as the command line shows them; without root rights, that first of all."""
    from ambient.lab.errors import LabError

    if os.geteuid() != 0:
        raise Failure("this needs root rights: a lab is made of network namespaces", "run it with sudo")
    try:
        yield
    except LabError as error:
        raise Failure(error.cause, error.remedy) from error


@click.group(epilog=_EXAMPLES)
def command() -> None:
    """Make nodes and pods out of network namespaces.

    A lab is a set of namespaces on this machine that are wired as a Kubernetes network plug-in does it. Nothing outside
    them changes. `ip netns exec amb-LAB-NODE-POD` works on its pods too.
    """


@command.command(epilog="Examples:\n\n\b\n  ambient lab up\n  ambient lab up --name try --nodes 3 --pods 4 -o json")
@click.option("--name", help="Name of the lab: a-z, 0-9 and '-', at most 32.  [default: a random one]")
@click.option("--nodes", type=click.IntRange(1, 245), default=2, show_default=True, help="Number of nodes.")
@click.option("--pods", type=click.IntRange(0, 250), default=2, show_default=True, help="Number of pods on each node.")
@click.option("--ipv6/--no-ipv6", default=True, help="Give IPv6 addresses too.  [default: --ipv6]")
@output_option
def up(name: str | None, nodes: int, pods: int, ipv6: bool, output: str) -> None:
    """Make a lab that stands until `ambient lab down`."""
    from ambient.lab import Lab, LabSpec
    from ambient.lab.errors import LabSpecError

    try:
        spec = LabSpec.simple(nodes=nodes, pods=pods, name=name, ipv6=ipv6)
    except LabSpecError as error:
        raise click.UsageError(str(error)) from error
    with _told(), Lab.create(spec) as lab:
        lab.keep()
    if output == "json":
        print_json(_as_json(lab.state))
        return
    _print_places([lab.state])
    if lab.pods:
        click.echo(f"\nRun a command in a pod:  ambient lab exec {lab.name}/{next(iter(lab.pods))} -- ip address")
    click.echo(f"Take the lab down:       ambient lab down {lab.name}")


def _lab_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    from ambient.lab.store import Store

    return [CompletionItem(name) for name in Store().names() if name.startswith(incomplete)]


@command.command(epilog="Examples:\n\n\b\n  ambient lab down try\n  ambient lab down --stale")
@click.argument("name", required=False, shell_complete=_lab_names)
@click.option("--all", "every", is_flag=True, help="All labs that `up` made, and leftovers.")
@click.option("--stale", is_flag=True, help="Only leftovers of runs that were killed.")
@click.option("--force", is_flag=True, help="Also a lab that a running program has made and still uses.")
@output_option
def down(name: str | None, every: bool, stale: bool, force: bool, output: str) -> None:
    """End a lab's processes and remove its namespaces.

    Only processes that the lab started are ended.
    """
    if [name is not None, every, stale].count(True) != 1:
        raise click.UsageError("give exactly one of a lab's name, --all and --stale")
    from ambient.lab.errors import LabError
    from ambient.lab.removal import remove, remove_stale
    from ambient.lab.store import Store

    store = Store()
    removed: list[Removed] = []
    with _told():
        if name is not None:
            removed.append(remove(store, name, force=force))
        else:
            removed += remove_stale(store)
        if every:
            states = [found for found in _load_all(store) if not isinstance(found, LabError)]
            removed += [remove(store, state.name, force=force) for state in states if state.persistent or force]
    if output == "json":
        print_json([{"name": r.name, "namespaces": r.namespaces, "left": [list(p) for p in r.left]} for r in removed])
        return
    for one in removed:
        click.echo(f"removed lab {one.name}: {one.namespaces} namespaces")
        for pid, what in one.left:
            click.echo(f"  left alone: process {pid} ({what}), which the lab did not start", err=True)
    if not removed:
        click.echo("nothing to remove")


@command.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Examples:\n\n\b\n  ambient lab exec try/pod-1-1 -- ip route\n  ambient lab exec try/node-1 -- bash",
)
@click.argument("place", metavar="LAB/POD|LAB/NODE")
@click.argument("words", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(place: str, words: tuple[str, ...]) -> None:
    """Run a command in the network of a pod or a node.

    The exit status is the command's; 127 if there is no such command, 126 if it cannot be run.
    """
    lab_name, slash, name = place.partition("/")
    if not (lab_name and slash and name):
        raise click.UsageError(f"{place!r} is not of the form LAB/POD or LAB/NODE")
    if words[0] == "--":  # click keeps it where options may not follow arguments
        words = words[1:]
    if not words:
        raise click.UsageError("give a command after --")
    from ambient.lab import Lab
    from ambient.lab.processes import MARKER

    with _told():
        lab = Lab.attach(lab_name)
        target = lab.place(name)
        os.environ[MARKER] = lab.marker
        with target.enter():
            try:
                os.execvp(words[0], words)
            except FileNotFoundError:
                click.echo(f"Error: no command {words[0]!r} on this machine", err=True)
                code = 127
            except OSError as error:
                click.echo(f"Error: {words[0]}: {error.strerror}", err=True)
                code = 126
    raise SystemExit(code)


@command.command("list", epilog="Examples:\n\n\b\n  ambient lab list\n  ambient lab list -o json")
@output_option
def list_(output: str) -> None:
    """Show the labs of this machine, with their nodes, pods and addresses."""
    from ambient.lab.errors import LabError
    from ambient.lab.store import Store

    store = Store()
    with _told():
        found = _load_all(store)
    states = [one for one in found if not isinstance(one, LabError)]
    broken = [one for one in found if isinstance(one, LabError)]
    if output == "json":
        print_json([_as_json(state) for state in states])
    elif states:
        _print_places(states)
    elif not broken:
        click.echo("no labs; `ambient lab up` makes one")
    for error in broken:
        click.echo(f"Error: {error.cause}\nRemedy: {error.remedy}", err=True)
    if broken:
        raise SystemExit(1)


def _load_all(store: "Store") -> "list[LabState | LabError]":
    """Every lab's record, or why it cannot be read; labs that went away meanwhile are left out."""
    from ambient.lab.errors import LabError

    found: list[LabState | LabError] = []
    for name in store.names():
        try:
            state = store.load(name)
        except LabError as error:
            found.append(error)
        else:
            found += [state] if state is not None else []
    return found


def _status(state: "LabState") -> str:
    from ambient.lab.removal import is_stale

    if is_stale(state):
        return "stale"
    return "kept" if state.persistent else f"of process {state.owner.pid}"


def _as_json(state: "LabState") -> object:
    import msgspec

    document = msgspec.to_builtins(state)
    return {"name": state.name, "status": _status(state), "ipv6": state.ipv6, "nodes": document["nodes"]}


def _print_places(states: "Sequence[LabState]") -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("LAB", "STATUS", "NODE", "POD", "IPV4", "IPV6", "NETNS"):
        table.add_column(column, no_wrap=True)
    for state in states:
        status = _status(state)
        for node in state.nodes:
            table.add_row(state.name, status, node.name, "-", node.underlay_ipv4, node.underlay_ipv6 or "-", node.netns)
            for pod in node.pods:
                table.add_row(state.name, status, node.name, pod.name, pod.ipv4, pod.ipv6 or "-", pod.netns)
    console().print(table)
