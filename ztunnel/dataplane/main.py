"""The ``ztunnel`` process: data plane, parent of the control half."""

import gc
import os
import resource
import signal
import socket
import sys
from typing import Final

from ztunnel.config import Config, ConfigError
from ztunnel.dataplane.loop import IN
from ztunnel.dataplane.supervisor import Supervisor
from ztunnel.dataplane.world import World
from ztunnel.link.messages import Drained
from ztunnel.reasons import CloseReason

__all__ = ["main"]

_GOODBYE: Final = 3.0
"""Seconds the control half gets to write the last lines."""


def main() -> int:
    """Run until SIGTERM, SIGINT or /quitquitquit, and a drain. Exit status: 0, or 2 for a bad configuration."""
    try:
        config = Config.from_env(os.environ)
    except ConfigError as e:
        print(f"ztunnel: {e}", file=sys.stderr)  # noqa: T201
        return 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return _Process(config).run()


class _Process:
    def __init__(self, config: Config) -> None:
        self._config = config
        self._world = World(config)
        self._world.on_drain = self._drain
        self._supervisor = Supervisor(self._world)
        self._deadline = 0.0
        self._signals = 0

    def run(self) -> int:
        world = self._world
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._wakeup = ours
        world.loop.add(ours.fileno(), IN, self._on_signal)
        self._supervisor.start()
        gc.collect()
        gc.freeze()  # a full collection then does not walk the program itself
        world.loop.run()
        self._supervisor.finish(_GOODBYE)
        return 0

    def _on_signal(self, _: int) -> None:
        numbers = self._wakeup.recv(64)
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._signals += 1
                if number == signal.SIGINT and self._signals > 1:
                    self._end()
                else:
                    self._drain(self._config.termination_deadline)

    def _drain(self, seconds: float) -> None:
        world = self._world
        if world.draining:
            return
        self._deadline = world.loop.now + seconds
        world.log("info", f"draining: no new connections, open ones have {seconds:.0f} s")
        world.drain()
        self._look()

    def _look(self) -> None:
        world = self._world
        if world.idle or world.loop.now >= self._deadline:
            self._end()
        else:
            world.loop.call_at(world.loop.now + 0.1, self._look)

    def _end(self) -> None:
        world = self._world
        for uid in list(world.proxies):
            world.remove_proxy(uid, CloseReason.DRAINED)
        link = self._supervisor.link
        if link is not None:
            link.report()
            link.count()
            link.send([Drained()])
        world.loop.stopped = True
