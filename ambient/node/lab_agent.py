"""A node agent that takes its pods from a file: ``python -m ambient.node.lab_agent --socket PATH --pods FILE.json``.

For the demo, tests and benchmarks, and for hosts without Kubernetes. Enrols what the file lists, looks at it twice a second and
enrols or withdraws what changed; a file that cannot be used changes nothing. Prints one JSON object a line on stdout for each
event. SIGTERM or SIGINT end it and leave the rules in place, so that the pods stay captured while it is replaced; with
``--withdraw-on-exit`` they are taken out of the mesh first.
"""

import json
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import click
import structlog
import trio

from ambient.node.enrol import Enroller, PodCapture, PodState
from ambient.node.errors import EnrolError, NodeError, PodsFileError
from ambient.node.pods_file import PodSpec, read_pods
from ambient.node.zds_server import ZdsServer
from capture.detect import BackendChoice

__all__ = ["main"]

POLL: Final = 0.5
"""Seconds between looks at the pods file."""
RETRY: Final = 5.0
"""Seconds until a pod whose rules could not be put is tried again."""
WITHDRAW_DEADLINE: Final = 20.0
"""Seconds ``--withdraw-on-exit`` may take."""

Say = Callable[[str, dict[str, str]], None]


def say(event: str, values: dict[str, str]) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


class Follower:
    """Brings the enrolled pods in line with a wanted list. A pod whose rules could not be put is tried again after a while."""

    def __init__(self, enroller: Enroller) -> None:
        self._enroller = enroller
        self._done: dict[str, PodSpec] = {}
        self._not_before: dict[str, float] = {}

    async def follow(self, wanted: dict[str, PodSpec]) -> None:
        """One pass. Failures are events of the enroller."""
        for uid in self._done.keys() | self._enroller.pods.keys():
            if uid not in wanted or wanted[uid] != self._done.get(uid, wanted[uid]):
                await self._withdraw(uid)
        for uid, spec in wanted.items():
            if uid in self._done or trio.current_time() < self._not_before.get(uid, 0):
                continue
            try:
                await self._enroller.enrol(uid, spec.info, spec.netns, spec.config)
            except EnrolError as error:
                if not error.retryable:
                    self._not_before[uid] = trio.current_time() + RETRY
                    continue
            self._done[uid] = spec

    async def withdraw_all(self) -> None:
        """Take every pod out of the mesh."""
        for uid in list(self._enroller.pods):
            await self._withdraw(uid)

    async def _withdraw(self, uid: str) -> None:
        try:
            await self._enroller.withdraw(uid)
        except EnrolError:
            return
        self._done.pop(uid, None)
        self._not_before.pop(uid, None)


async def run(
    socket: str, pods: Path, backend: BackendChoice, withdraw_on_exit: bool, say: Say = say, *, lock_dir: str = ""
) -> None:
    """Until SIGTERM or SIGINT. Raises AgentSocketError."""

    def event(uid: str, state: PodState, why: str) -> None:
        say(state.value, {"uid": uid, "why": why} if why else {"uid": uid})

    server = ZdsServer(socket, hold=True)
    enroller = Enroller(server, PodCapture(backend, lock_dir), event)
    follower = Follower(enroller)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            say("listening", {"socket": socket})
            with trio.CancelScope() as following:
                nursery.start_soon(enroller.run)
                nursery.start_soon(_cancel_on, signals, following)
                await _follow(pods, follower, server, say)
            if withdraw_on_exit:
                with trio.move_on_after(WITHDRAW_DEADLINE):
                    await follower.withdraw_all()
            nursery.cancel_scope.cancel()
    say("stopped", {})


async def _cancel_on(signals: object, scope: trio.CancelScope) -> None:
    async for _ in signals:  # type: ignore[attr-defined]
        scope.cancel()


async def _follow(path: Path, follower: Follower, server: ZdsServer, say: Say) -> None:
    known = False
    wanted: dict[str, PodSpec] = {}
    last, refused = (0, 0, 0), ""
    while True:
        seen = _stamp(path)
        if seen != last:
            last = seen
            try:
                wanted = await trio.to_thread.run_sync(read_pods, path)
                refused, known = "", True
            except PodsFileError as error:
                if str(error) != refused:
                    refused = str(error)
                    say("pods_file_refused", {"why": refused})
        await follower.follow(wanted)
        if known:  # before a first good file, what a proxy serves from earlier is left alone
            server.release()
        await trio.sleep(POLL)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (-1, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


@click.command()
@click.option("--socket", required=True, help="Where ztunnel connects (its INPOD_UDS).")
@click.option("--pods", required=True, type=click.Path(path_type=Path), help="JSON list of pods.")
@click.option("--backend", type=click.Choice([choice.value for choice in BackendChoice]), default=BackendChoice.AUTO.value)
@click.option("--lock-dir", default="", help="Folder for the xtables lock files; default the machine's own.")
@click.option("--withdraw-on-exit", is_flag=True, help="Take the pods out of the mesh before exiting.")
def main(socket: str, pods: Path, backend: str, lock_dir: str, withdraw_on_exit: bool) -> None:
    """Enrol the pods listed in a file."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    failed = False
    try:
        trio.run(partial(run, socket, pods, BackendChoice(backend), withdraw_on_exit, lock_dir=lock_dir))
    except* NodeError as group:
        failed = True
        for error in group.exceptions:
            click.echo(f"lab agent: {error}", err=True)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
